//! The small file that outlives a start: how many there were, and how the last one ended.
//!
//! `state`, in the state directory: two slots of 512 bytes, each a CRC-32 in hex, a space and a line of JSON, filled
//! up with spaces. The slots are written by turns and synced, so a power cut in the middle of a write leaves the other
//! one. A damaged or missing file is a first start, never an error.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::model::time;

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
    /// Whether the queue was empty then.
    drained: bool,
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
    _lock: Option<File>,
}

/// What the start before left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    /// Its epoch, where its queue was not empty at the end, or nobody knows.
    pub unpublished: Option<u64>,
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
    /// Takes the directory over, and notes that a start began. `random` makes the epoch one that no clone of this
    /// card has.
    ///
    /// # Errors
    /// When another process has it, or it can't be written.
    pub(super) fn begin(directory: &Path, random: u16) -> Result<(Self, Before), StateError> {
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
        let mut state = State { file: Some(file), saved, _lock: Some(lock) };
        let before = state.start(random);
        state.write().map_err(io)?;
        // The file's name must be on flash as well as its content.
        File::open(directory).and_then(|folder| folder.sync_all()).map_err(io)?;
        Ok((state, before))
    }

    /// A state that is kept nowhere, for a board whose state directory can't be written: the gateway works all the
    /// same, and each start looks like the first.
    pub(super) fn nowhere(random: u16) -> (Self, Before) {
        let mut state = State { file: None, saved: Saved::default(), _lock: None };
        let before = state.start(random);
        (state, before)
    }

    fn start(&mut self, random: u16) -> Before {
        let saved = &mut self.saved;
        let first = saved.starts == 0;
        let clean = first || (saved.stopped && saved.drained);
        let last_exit = match (first, saved.stopped) {
            (true, _) => "first start".to_owned(),
            (false, true) => saved.exit.clone(),
            (false, false) => "unclean: crash, kill or power cut".to_owned(),
        };
        let unpublished = (!clean).then_some(saved.epoch);
        saved.starts = saved.starts.wrapping_add(1);
        saved.epoch = (u64::from(saved.starts) << 16) | u64::from(random);
        saved.stopped = false;
        saved.drained = false;
        saved.exit.clear();
        Before { unpublished, last_exit, session: saved.starts, epoch: saved.epoch }
    }

    /// Notes a clean stop.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn end(&mut self, exit: &str, drained: bool) -> io::Result<()> {
        self.saved.stopped = true;
        self.saved.drained = drained;
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

    #[test]
    fn starts_are_counted_and_the_last_exit_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let (mut state, before) = State::begin(folder.path(), 5).unwrap();
        assert_eq!((before.session, before.epoch, before.unpublished), (1, 65536 + 5, None));
        assert!(matches!(State::begin(folder.path(), 6), Err(StateError::Locked(_))));
        state.end("SIGTERM", true).unwrap();
        drop(state);
        let (state, before) = State::begin(folder.path(), 7).unwrap();
        assert_eq!((before.session, before.last_exit.as_str(), before.unpublished), (2, "SIGTERM", None));
        drop(state);
        let (_state, before) = State::begin(folder.path(), 8).unwrap();
        assert_eq!(before.unpublished, Some((2 << 16) | 7), "nobody said that it was empty");
        assert!(before.last_exit.starts_with("unclean"));
    }

    #[test]
    fn a_torn_slot_leaves_the_other_one() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            drop(State::begin(folder.path(), 1).unwrap());
        }
        let path = folder.path().join("state");
        for offset in [0, SLOT] {
            let whole = std::fs::read(&path).unwrap();
            let mut torn = whole.clone();
            torn[offset..offset + 40].fill(0);
            std::fs::write(&path, &torn).unwrap();
            let (state, before) = State::begin(folder.path(), 1).unwrap();
            assert!(before.session == 3 || before.session == 4, "{before:?}");
            drop(state);
            std::fs::write(&path, &whole).unwrap();
        }
        std::fs::write(&path, b"rubbish").unwrap();
        assert_eq!(State::begin(folder.path(), 1).unwrap().1.session, 1);
    }
}
