//! The journal: which commands were accepted, and what became of them, on flash.
//!
//! `commands/journal` in the state directory. [`entry`] says what stands in it, [`mod@file`] writes it, and one thread, which
//! is all of this file, does so for the router: what comes while the flash is busy is written and synced together. Once
//! a write has failed, nothing is appended until the whole was replaced.

mod entry;
mod file;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub(super) use self::entry::{Entry, Left};
use self::file::File;
pub(super) use self::file::Found;
use crate::disk::Folder;

/// Faults that the tests put in, to prove that they would notice them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A command is handed to its device before it is on flash.
    NotJournalled,
    /// Called durable before it is synced.
    NotSynced,
    /// What a killed process had not synced is taken for durable.
    TrustsTheCache,
    /// A new file's name is not synced.
    FolderNotSynced,
    /// An outcome is told before it is on flash.
    ToldEarly,
    /// An output is switched on while another of its group is.
    NoBreak,
    /// A lease ends without effect.
    NoLease,
    /// Ids are forgotten at a start.
    Forgets,
}

/// Whether this fault was put in.
pub(super) fn seeded(bug: Option<Bug>, which: Bug) -> bool {
    cfg!(test) && bug == Some(which)
}

/// A write that the router wants. The numbers count entries: see [`Report::durable`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Job {
    /// Put these frames behind what is there; the last one is the entry of this number.
    Append(u64, Vec<u8>),
    /// Put these frames in the place of all that is there: all entries up to this number count as written.
    Replace(u64, Vec<u8>),
}

/// How far the flash is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Every entry up to this number is on flash.
    pub(super) durable: u64,
    /// Why a write failed; nothing but a replacement mends it.
    pub(super) failed: Option<String>,
}

/// The journal, opened, and what stands in it.
#[derive(Debug)]
pub struct Journal {
    file: File,
    found: Found,
}

/// The journal of a running router.
#[derive(Debug)]
pub(super) struct Writing {
    shared: Arc<Shared>,
    reports: watch::Receiver<Report>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct Jobs {
    waiting: Vec<Job>,
    closing: bool,
}

impl Journal {
    /// Reads the journal in this state directory. Nothing in it keeps the gateway from starting.
    pub fn open(state_directory: &Path) -> Self {
        Self::on(Box::new(Folder::new(state_directory)), None)
    }

    pub(super) fn on(disk: Box<dyn crate::disk::Disk>, bug: Option<Bug>) -> Self {
        let (file, found) = File::open(disk, bug);
        Journal { file, found }
    }

    /// What was found; once.
    pub(super) fn take_found(&mut self) -> Found {
        std::mem::take(&mut self.found)
    }

    /// Does one write.
    pub(super) fn write(&mut self, job: &Job, report: &mut Report) {
        let (number, written) = match job {
            Job::Append(..) if report.failed.is_some() => return,
            Job::Append(number, frames) => (*number, self.file.append(frames)),
            Job::Replace(number, frames) => (*number, self.file.replace(frames)),
        };
        match written {
            Ok(()) => *report = Report { durable: number, failed: None },
            Err(error) => report.failed = Some(error.to_string()),
        }
    }

    /// Starts the thread.
    pub(super) fn start(mut self) -> Writing {
        let shared = Arc::new(Shared::default());
        let (reports_tx, reports) = watch::channel(Report::default());
        let its = Arc::clone(&shared);
        let run = move || {
            let mut report = Report::default();
            while let Some(jobs) = its.wait() {
                for job in together(jobs) {
                    self.write(&job, &mut report);
                }
                reports_tx.send_replace(report.clone());
            }
        };
        // Without it nothing is ever durable, and the router finds the channel closed.
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(run);
        let thread = thread.map_err(|error| tracing::error!("the journal's thread could not be started: {error}")).ok();
        Writing { shared, reports, thread }
    }
}

/// Appends that follow each other become one.
fn together(jobs: Vec<Job>) -> Vec<Job> {
    let mut merged: Vec<Job> = Vec::with_capacity(jobs.len());
    for job in jobs {
        match (merged.last_mut(), job) {
            (Some(Job::Append(number, frames)), Job::Append(next, more)) => {
                *number = next;
                frames.extend_from_slice(&more);
            }
            (_, job) => merged.push(job),
        }
    }
    merged
}

impl Shared {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work; `None`: there will be none.
    fn wait(&self) -> Option<Vec<Job>> {
        let mut jobs = self.jobs();
        loop {
            if !jobs.waiting.is_empty() {
                return Some(std::mem::take(&mut jobs.waiting));
            }
            if jobs.closing {
                return None;
            }
            jobs = self.work.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Writing {
    /// Hands a write over. Never waits; what waits is bounded by the commands that may be open.
    pub(super) fn push(&self, job: Job) {
        self.shared.jobs().waiting.push(job);
        self.shared.work.notify_one();
    }

    /// Waits until the flash is further, or has failed. Cancel-safe. An error: the thread is gone.
    pub(super) async fn changed(&mut self) -> Result<Report, watch::error::RecvError> {
        self.reports.changed().await.map(|()| self.reports.borrow_and_update().clone())
    }

    /// Writes what waits, and ends.
    pub(super) async fn close(mut self) {
        self.shared.jobs().closing = true;
        self.shared.work.notify_one();
        let Some(thread) = self.thread.take() else { return };
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => tracing::error!("the journal's thread ended by a panic"),
        }
    }
}

impl Drop for Writing {
    /// The thread ends also where nobody waits for it.
    fn drop(&mut self) {
        self.shared.jobs().closing = true;
        self.shared.work.notify_one();
    }
}
