//! The small file that outlives a start: how many there were, and how the last one ended.
//!
//! `state`, in the state directory: two slots of 512 bytes, each a CRC-32 in hex, a space and a line of JSON, filled
//! up with spaces. The slots are written by turns and synced, so a power cut in the middle of a write leaves the other
//! one. A damaged or missing file is a first start, never an error.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::model::time;
use crate::queue::Previous;

const SLOT: usize = 512;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    /// Counts the writes; the slot with the greater one counts.
    serial: u64,
    /// Counts the starts.
    starts: u32,
    /// The epoch of the last start.
    epoch: u64,
    /// Whether it came to a clean stop.
    stopped: bool,
    /// Whether what waited was on flash then.
    kept: bool,
    /// Why it ended.
    exit: String,
    /// The wall clock at the last write, in seconds since 1970; 0: not set then.
    wall: u64,
}

/// The state file of a running gateway, locked.
#[derive(Debug)]
pub(super) struct State {
    file: Option<File>,
    saved: Saved,
    directory: PathBuf,
    /// This start may be noted: what the end of the run before may have cost is on flash.
    begun: bool,
    _lock: Option<File>,
}

/// What the start before left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    /// Its epoch, and whether it ended with all that waited on flash; `None`: there was none.
    pub previous: Option<Previous>,
    /// Why it ended.
    pub last_exit: String,
    /// Counts the starts, this one included.
    pub session: u32,
    /// The epoch of this start.
    pub epoch: u64,
}

/// Why the state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process runs on it.
    #[error("another sluicegate runs with the state directory {0}: stop it, or give this one its own")]
    Locked(String),
    /// Read-only, full, not there, not ours.
    #[error("the state directory {path} can't be used: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}

impl State {
    /// Takes the directory over.
    ///
    /// # Errors
    /// When another process has it, or it can't be used.
    pub(super) fn open(directory: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io { path: directory.display().to_string(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock")).map_err(io)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StateError::Locked(directory.display().to_string()));
            }
            Err(error) => return Err(io(error.into())),
        }
        let path = directory.join("state");
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        let saved = read(&file);
        Ok(State { file: Some(file), saved, directory: directory.to_owned(), begun: false, _lock: Some(lock) })
    }

    /// A state that is kept nowhere, for a board whose state directory can't be written: the gateway works all the
    /// same, and each start looks like the first.
    pub(super) fn nowhere(directory: &Path) -> Self {
        State { file: None, saved: Saved::default(), directory: directory.to_owned(), begun: false, _lock: None }
    }

    /// Notes on flash that this start has begun.
    ///
    /// # Errors
    /// When it can't be written. The start has its epoch all the same.
    pub(super) fn begin(&mut self) -> Result<(), StateError> {
        let path = self.directory.display().to_string();
        self.begun = true;
        let written = self.write();
        // The file's name must be on flash as well as its content.
        let synced =
            written.and_then(|()| self.file.as_ref().map_or(Ok(()), |_| File::open(&self.directory)?.sync_all()));
        synced.map_err(|source| StateError::Io { path, source })
    }

    /// Counts this start. `random` makes its epoch one that no clone of this card has; it is greater than `highest`,
    /// the greatest one in the queue, which may have outlived this file.
    pub(super) fn count(&mut self, random: u16, highest: u64) -> Before {
        let saved = &mut self.saved;
        if highest > saved.epoch {
            tracing::warn!("the queue knows of a start that the state does not: the state was lost or is an older one");
            *saved = Saved {
                starts: u32::try_from(highest >> 16).unwrap_or(u32::MAX),
                epoch: highest,
                wall: saved.wall,
                ..Saved::default()
            };
        }
        let first = saved.starts == 0;
        let previous = (!first).then_some(Previous { epoch: saved.epoch, clean: saved.stopped && saved.kept });
        let last_exit = match (first, saved.stopped) {
            (true, _) => "first start".to_owned(),
            (false, true) => saved.exit.clone(),
            (false, false) => "unclean: crash, kill or power cut".to_owned(),
        };
        saved.starts = saved.starts.wrapping_add(1);
        saved.epoch = (u64::from(saved.starts) << 16) | u64::from(random);
        saved.stopped = false;
        saved.kept = false;
        saved.exit.clear();
        Before { previous, last_exit, session: saved.starts, epoch: saved.epoch }
    }

    /// Notes a clean stop.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn end(&mut self, exit: &str, kept: bool) -> io::Result<()> {
        self.saved.stopped = true;
        self.saved.kept = kept;
        // Any panic's text fits, and a slot is never too small.
        self.saved.exit = exit.chars().filter(|c| !c.is_control()).take(100).collect();
        self.write()
    }

    /// The last time that was saved, since 1970; zero if there is none.
    pub(super) fn saved_time(&self) -> Duration {
        Duration::from_secs(self.saved.wall)
    }

    /// Saves the time: a clock that shows less at the next start is behind. Only a time that is believed is saved.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn tick(&mut self) -> io::Result<()> {
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        if !self.begun {
            return Ok(());
        }
        let now = time::now();
        if now.synced {
            self.saved.wall = now.wall.as_secs();
        }
        self.saved.serial += 1;
        let Some(file) = &self.file else { return Ok(()) };
        let json = serde_json::to_string(&self.saved).map_err(io::Error::other)?;
        let text = format!("{:08x} {json}", crc32fast::hash(json.as_bytes()));
        let slot = format!("{text:<width$}\n", width = SLOT - 1);
        if slot.len() != SLOT {
            return Err(io::Error::other("the state does not fit its slot"));
        }
        file.write_all_at(slot.as_bytes(), (self.saved.serial % 2) * SLOT as u64)?;
        file.sync_data()
    }
}

/// The newest slot that is whole.
fn read(file: &File) -> Saved {
    let mut bytes = [0; 2 * SLOT];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => filled += count,
        }
    }
    bytes.chunks(SLOT).filter_map(parse).max_by_key(|saved| saved.serial).unwrap_or_default()
}

fn parse(slot: &[u8]) -> Option<Saved> {
    let (crc, json) = std::str::from_utf8(slot).ok()?.trim_end().split_once(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    (crc == crc32fast::hash(json.as_bytes())).then(|| serde_json::from_str(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(folder: &Path, random: u16, highest: u64) -> Result<(State, Before), StateError> {
        let mut state = State::open(folder)?;
        let before = state.count(random, highest);
        state.begin().map(|()| (state, before))
    }

    #[test]
    fn starts_are_counted_and_the_last_exit_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, before) = begin(folder.path(), 5, 0).unwrap();
        assert_eq!((before.session, before.epoch, before.previous), (1, 65536 + 5, None));
        assert!(matches!(State::open(folder.path()), Err(StateError::Locked(_))));
        state.end("SIGTERM", true).unwrap();
        drop(state);
        let (state, before) = begin(folder.path(), 7, 65536 + 5).unwrap();
        assert_eq!((before.session, before.last_exit.as_str()), (2, "SIGTERM"));
        assert_eq!(before.previous, Some(Previous { epoch: 65536 + 5, clean: true }));
        drop(state);
        let (_state, before) = begin(folder.path(), 8, 0).unwrap();
        let epoch = (2 << 16) | 7;
        assert_eq!(before.previous, Some(Previous { epoch, clean: false }), "nobody said that all was kept");
        assert!(before.last_exit.starts_with("unclean"));
    }

    #[test]
    fn an_epoch_is_greater_than_all_that_the_queue_knows() {
        let folder = tempfile::tempdir().unwrap();
        let known = (9 << 16) | 3;
        let (_state, before) = begin(folder.path(), 1, known).unwrap();
        assert_eq!((before.session, before.epoch), (10, (10 << 16) | 1));
        assert_eq!(before.previous, Some(Previous { epoch: known, clean: false }));
    }

    #[test]
    fn a_torn_slot_leaves_the_other_one() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            drop(begin(folder.path(), 1, 0).unwrap());
        }
        let path = folder.path().join("state");
        for offset in [0, SLOT] {
            let whole = std::fs::read(&path).unwrap();
            let mut torn = whole.clone();
            torn[offset..offset + 40].fill(0);
            std::fs::write(&path, &torn).unwrap();
            let (state, before) = begin(folder.path(), 1, 0).unwrap();
            assert!(before.session == 3 || before.session == 4, "{before:?}");
            drop(state);
            std::fs::write(&path, &whole).unwrap();
        }
        std::fs::write(&path, b"rubbish").unwrap();
        assert_eq!(begin(folder.path(), 1, 0).unwrap().1.session, 1);
    }
}
