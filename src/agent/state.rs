//! The small file that outlives a start: how many there were, and how the last one ended.
//!
//! `state`, in the state directory: two slots of 512 bytes, each a CRC-32 in hex, a space and a line of JSON, filled
//! up with spaces. The slots are written by turns and synced, so a power cut in the middle of a write leaves the other
//! one. A damaged or missing file is a first start, never an error.
//!
//! Where a slot is of a later version the file is left to it, and `state-1` stands in for it: of version 1, so that each
//! version has its own. Refusing to start would be no better: who went back to this version did so because the other
//! one did not work, and may have no other way to the board. No start may be forgotten, or an epoch would not be above
//! all before. So every version keeps the form of a slot, and `serial`, `starts`, `epoch` and `version` in it (no
//! `version`: 1), and this start is counted from whichever of the two files knows of the newest one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::disk::CRC_32;
use crate::model::time;
use crate::queue::Previous;

const SLOT: usize = 512;

const VERSION: u32 = 1;

const FILE: &str = "state";

/// What stands in for it.
const BESIDE: &str = "state-1";

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    /// Of the format.
    #[serde(default = "version")]
    version: u32,
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

fn version() -> u32 {
    VERSION
}

impl Default for Saved {
    fn default() -> Self {
        let (serial, starts, epoch, stopped, kept, exit, wall) = Default::default();
        Saved { version: VERSION, serial, starts, epoch, stopped, kept, exit, wall }
    }
}

/// What a slot turned out to be.
#[derive(Debug)]
enum Slot {
    Known(Saved),
    /// Of a later version, and what this one understands of it.
    Later(Saved),
}

/// The state file of a running gateway, locked.
#[derive(Debug)]
pub(super) struct State {
    file: Option<File>,
    saved: Saved,
    /// The state is of this later version, and left to it.
    later: Option<u32>,
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
        let open = |name: &str, create: bool| {
            OpenOptions::new().create(create).truncate(false).read(true).write(true).open(directory.join(name))
        };
        let mut file = open(FILE, true).map_err(io)?;
        let (mut saved, later) = read(&file);
        match open(BESIDE, later.is_some()) {
            Ok(beside) => {
                let (own, _) = read(&beside);
                let serial = if later.is_some() { own.serial } else { saved.serial };
                if own.epoch > saved.epoch {
                    saved = own;
                }
                saved = Saved { version: VERSION, serial, ..saved };
                if later.is_some() {
                    file = beside;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        let directory = directory.to_owned();
        Ok(State { file: Some(file), saved, later, directory, begun: false, _lock: Some(lock) })
    }

    /// What a person should know of a state of a later version.
    pub(super) fn told(&self) -> Option<String> {
        let version = self.later?;
        let path = self.directory.join(FILE);
        Some(format!(
            "{} is of version {version}, which a later sluicegate wrote; it is left alone, and {BESIDE} beside it counts \
             the starts on until such a one runs again",
            path.display()
        ))
    }

    /// A state that is kept nowhere, for a board whose state directory can't be written: the gateway works all the
    /// same, and each start looks like the first.
    pub(super) fn nowhere(directory: &Path) -> Self {
        let (saved, directory) = (Saved::default(), directory.to_owned());
        State { file: None, saved, later: None, directory, begun: false, _lock: None }
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
        let text = format!("{:08x} {json}", CRC_32.checksum(json.as_bytes()));
        let slot = format!("{text:<width$}\n", width = SLOT - 1);
        if slot.len() != SLOT {
            return Err(io::Error::other("the state does not fit its slot"));
        }
        file.write_all_at(slot.as_bytes(), (self.saved.serial % 2) * SLOT as u64)?;
        file.sync_data()
    }
}

/// The newest slot that is whole, and the version if one of them is of a later one.
fn read(file: &File) -> (Saved, Option<u32>) {
    let mut bytes = [0; 2 * SLOT];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => filled += count,
        }
    }
    let mut known: Option<Saved> = None;
    let mut newest_later: Option<Saved> = None;
    for slot in bytes.chunks(SLOT).filter_map(parse) {
        match slot {
            Slot::Known(saved) => known = known.into_iter().chain([saved]).max_by_key(|saved| saved.serial),
            Slot::Later(saved) => {
                newest_later = newest_later.into_iter().chain([saved]).max_by_key(|saved| (saved.epoch, saved.serial))
            }
        }
    }
    let later = newest_later.as_ref().map(|saved| saved.version);
    // Of one start there may be a slot of each version.
    let saved = newest_later.into_iter().chain(known).reduce(|a, b| if b.epoch > a.epoch { b } else { a });
    (saved.unwrap_or_default(), later)
}

fn parse(slot: &[u8]) -> Option<Slot> {
    let (crc, json) = std::str::from_utf8(slot).ok()?.trim_end().split_once(' ')?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    if crc != CRC_32.checksum(json.as_bytes()) {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let number = |key: &str| value.get(key).and_then(serde_json::Value::as_u64);
    let version = u32::try_from(number("version").unwrap_or(1)).unwrap_or(u32::MAX);
    if version <= VERSION
        && let Ok(saved) = serde_json::from_str(json)
    {
        return Some(Slot::Known(saved));
    }
    // Nor is it damage where it is whole, and no content of this version.
    let is = |key: &str| value.get(key).and_then(serde_json::Value::as_bool).unwrap_or_default();
    let exit = value.get("exit").and_then(serde_json::Value::as_str).unwrap_or("as a later version noted");
    let epoch = number("epoch").unwrap_or_default();
    let starts = number("starts").and_then(|starts| u32::try_from(starts).ok());
    Some(Slot::Later(Saved {
        version: version.max(VERSION + 1),
        serial: number("serial").unwrap_or_default(),
        starts: starts.unwrap_or_else(|| u32::try_from(epoch >> 16).unwrap_or(u32::MAX)),
        epoch,
        stopped: is("stopped"),
        kept: is("kept"),
        exit: exit.chars().filter(|c| !c.is_control()).take(100).collect(),
        wall: number("wall").unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    fn slot(json: &str) -> Vec<u8> {
        let text = format!("{:08x} {json}", crc32fast::hash(json.as_bytes()));
        format!("{text:<width$}\n", width = SLOT - 1).into_bytes()
    }

    #[test]
    fn a_state_without_a_version_is_of_the_first_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let old = slot(r#"{"serial":4,"starts":3,"epoch":196613,"stopped":true,"kept":true,"exit":"stop","wall":7}"#);
        fs::write(&path, &old).unwrap();
        let (state, before) = begin(folder.path(), 9, 0).unwrap();
        assert_eq!((before.session, before.previous), (4, Some(Previous { epoch: 196_613, clean: true })));
        assert_eq!((state.told(), state.saved_time()), (None, Duration::from_secs(7)));
        assert!(fs::read_to_string(&path).unwrap().contains(r#"{"version":1,"serial":5,"#));
    }

    #[test]
    fn of_a_later_versions_slots_the_newer_one_counts() {
        let [began, ended] = [(7, false), (8, true)].map(|(serial, stopped)| {
            slot(&format!(
                r#"{{"version":2,"serial":{serial},"starts":5,"epoch":327687,"stopped":{stopped},"kept":{stopped}}}"#
            ))
        });
        for slots in [[&began[..], &ended[..]].concat(), [&ended[..], &began[..]].concat()] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(FILE), slots).unwrap();
            let (_, before) = begin(folder.path(), 1, 0).unwrap();
            assert_eq!(before.previous, Some(Previous { epoch: 327_687, clean: true }));
        }
    }

    #[test]
    fn a_state_of_a_later_version_is_left_alone_and_counted_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for json in [
            r#"{"version":2,"serial":8,"starts":5,"epoch":327687,"stopped":true,"kept":true,"exit":{"signal":15}}"#,
            // Whole, and not understood.
            r#"{"serial":8,"starts":5,"epoch":327687,"stopped":true,"kept":true,"exit":15,"wall":0}"#,
            r#"{"version":3,"epoch":327687,"stopped":true,"kept":true}"#,
        ] {
            let known = r#"{"serial":7,"starts":4,"epoch":262145,"stopped":false,"kept":false,"exit":"","wall":0}"#;
            let later = [slot(json), slot(known)].concat();
            fs::write(&path, &later).unwrap();
            for (session, previous) in [(6, 327_687), (7, 6 << 16 | 1), (8, 7 << 16 | 1)] {
                let (mut state, before) = begin(folder.path(), 1, 0).unwrap();
                assert_eq!((before.session, before.epoch), (session, u64::from(session) << 16 | 1), "{json}");
                assert_eq!(before.previous, Some(Previous { epoch: previous, clean: true }));
                assert!(state.told().unwrap().contains("which a later sluicegate wrote"));
                state.end("stop", true).unwrap();
                assert_eq!(fs::read(&path).unwrap(), later, "{json}");
            }
            // One that can read it goes on behind the newest of both, and needs no other file from then on.
            fs::write(&path, slot(known)).unwrap();
            for session in [9, 10] {
                let (_, before) = begin(folder.path(), 1, 0).unwrap();
                assert_eq!((before.session, before.epoch), (session, u64::from(session) << 16 | 1), "{json}");
            }
            let beside = fs::read(folder.path().join(BESIDE)).unwrap();
            assert!(String::from_utf8(beside).unwrap().contains(r#""starts":8"#));
            assert!(fs::read_to_string(&path).unwrap().contains(r#""starts":10"#));
            fs::remove_file(folder.path().join(BESIDE)).unwrap();
        }
    }
}
