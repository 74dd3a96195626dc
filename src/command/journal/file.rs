//! The journal's file: `journal`, and `journal.new` while it is replaced.

use std::io;

use super::entry::{self, Entry, HEAD, MAGIC};
use super::{Bug, seeded};
use crate::disk::Disk;

/// Below the state directory.
const FOLDER: &str = "commands";
const FILE: &str = "commands/journal";
const NEW: &str = "commands/journal.new";

/// More than a journal ever holds; what is larger is none of ours.
const MAX_FILE: u64 = 16 << 20;

/// The file, and where its end is.
#[derive(Debug)]
pub(super) struct File {
    disk: Box<dyn Disk>,
    end: u64,
    bug: Option<Bug>,
}

/// What was found in it.
#[derive(Debug, Default)]
pub(in crate::command) struct Found {
    pub(in crate::command) entries: Vec<Entry>,
    /// Entries that can't be read.
    pub(in crate::command) damaged: usize,
    /// What the sound ones take.
    pub(in crate::command) bytes: usize,
    /// Why they could not be written once more, as they must be before anything is appended.
    pub(in crate::command) trouble: Option<String>,
    /// Why the file is not to be touched in this start: a later version wrote it, or it can't be read.
    pub(in crate::command) foreign: Option<String>,
}

impl File {
    /// Reads what is there. Nothing in it keeps the gateway from starting.
    pub(super) fn open(disk: Box<dyn Disk>, bug: Option<Bug>) -> (Self, Found) {
        let mut file = File { disk, end: 0, bug };
        let mut found = file.read().unwrap_or_else(|error| match error.kind() {
            // Then it is not there: its folder could not be made.
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::StorageFull => Found::default(),
            // What can't be read now may be sound: to write over it would forget what has acted.
            _ => Found { foreign: Some(format!("{FILE} can't be read: {error}")), ..Found::default() },
        });
        // What can be read may be in the cache alone, written by a process that was killed before it was synced; and
        // a cache that could not be written once may say that it was. So all of it is written once more, before
        // anybody acts on it.
        if found.foreign.is_none() && !seeded(bug, Bug::TrustsTheCache) {
            let mut frames = Vec::new();
            // How outputs were left counts for this start only: at its end some may be left otherwise, unknown to it.
            let lasting = found.entries.iter().filter(|entry| !matches!(entry, Entry::Left(_)));
            lasting.for_each(|entry| entry.frame(&mut frames));
            found.bytes = frames.len();
            found.trouble = file.replace(&frames).err().map(|error| error.to_string());
        }
        (file, found)
    }

    fn read(&mut self) -> io::Result<Found> {
        if !self.has(FILE)? {
            // Made by the first replacement, so that its head is there before anything else.
            return Ok(Found::default());
        }
        let size = self.disk.size(FILE)?.min(MAX_FILE);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let length = self.disk.read(FILE, 0, &mut bytes)?;
        bytes.truncate(length);
        match bytes.split_at_checked(HEAD.len()) {
            Some((head, rest)) if head == HEAD => {
                let (entries, damaged) = entry::read(rest);
                Ok(Found { entries, damaged, ..Found::default() })
            }
            Some((head, _)) if head.get(..MAGIC) == HEAD.get(..MAGIC) => {
                let version = head.get(MAGIC).unwrap_or(&0);
                let text = format!("{FILE} is of version {version}, which a later sluicegate wrote");
                Ok(Found { foreign: Some(text), ..Found::default() })
            }
            _ => Ok(Found { damaged: 1, ..Found::default() }),
        }
    }

    fn has(&mut self, file: &str) -> io::Result<bool> {
        let names = self.disk.list(FOLDER)?;
        Ok(names.iter().any(|name| file.strip_prefix(FOLDER) == Some(&format!("/{name}"))))
    }

    /// Appends frames. They are on flash once this returns; after an error nobody knows what is, and only
    /// [`File::replace`] makes sense.
    pub(super) fn append(&mut self, frames: &[u8]) -> io::Result<()> {
        self.disk.write(FILE, self.end, frames)?;
        if !seeded(self.bug, Bug::NotSynced) {
            self.disk.sync(FILE)?;
        }
        self.end += frames.len() as u64;
        Ok(())
    }

    /// Puts these frames in the place of all that is there.
    pub(super) fn replace(&mut self, frames: &[u8]) -> io::Result<()> {
        // A left-over of an attempt that failed may be longer.
        if self.has(NEW)? {
            self.disk.remove(NEW)?;
            // Else it could be what is renamed, where the power is cut before all of that is on flash.
            self.disk.sync_folder(FOLDER)?;
        }
        let mut bytes = HEAD.to_vec();
        bytes.extend_from_slice(frames);
        self.disk.write(NEW, 0, &bytes)?;
        self.disk.sync(NEW)?;
        self.disk.rename(NEW, FILE)?;
        if !seeded(self.bug, Bug::FolderNotSynced) {
            self.disk.sync_folder(FOLDER)?;
        }
        self.end = bytes.len() as u64;
        Ok(())
    }
}
