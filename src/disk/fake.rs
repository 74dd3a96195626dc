//! A file system that keeps as little as it may: for the tests.
//!
//! What was written and not synced is kept, dropped, torn or reordered as chance has it when the power is cut; so are
//! names that were made, changed or removed. It can be full, fail, and stop in the middle of whatever is done.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Disk;

/// Blocks are written or not, one by one.
const BLOCK: usize = 512;

/// The fake one; a clone is the same disk.
#[derive(Debug, Clone, Default)]
pub struct Fake(Arc<Mutex<Inner>>);

#[derive(Debug, Default, Clone)]
struct Inner {
    files: BTreeMap<u64, Content>,
    /// Names as the running system sees them, and as they would be after a cut.
    names: BTreeMap<String, u64>,
    kept: BTreeMap<String, u64>,
    /// Changes of names that were not synced.
    changes: Vec<(String, Change)>,
    next: u64,
    /// Operations until the process is dead; each one after that fails.
    fuse: Option<u64>,
    /// Operations that change anything, so far.
    operations: u64,
    /// Bytes of all files together.
    capacity: Option<usize>,
    failing: Option<Failing>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    seen: Vec<u8>,
    kept: Vec<u8>,
    /// Places that were written and not synced.
    dirty: Vec<(usize, usize)>,
}

#[derive(Debug, Clone)]
enum Change {
    Made(u64),
    Renamed(String),
    Removed,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// Writes and syncs fail, and what they were about is lost.
    Io,
    /// Syncs fail: the system took what was written, and the flash does not.
    Sync,
    /// It can only be read.
    ReadOnly,
}

impl Fake {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A disk of its own with the same content.
    pub fn copy(&self) -> Self {
        Fake(Arc::new(Mutex::new(self.inner().clone())))
    }

    /// The process dies before the operation after so many.
    pub fn set_fuse(&self, operations: Option<u64>) {
        self.inner().fuse = operations;
    }

    /// Whether the process died by the fuse.
    pub fn is_dead(&self) -> bool {
        self.inner().fuse == Some(0)
    }

    /// Operations that changed anything, so far.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Bytes of all files together; what is more finds it full.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.inner().capacity = bytes;
    }

    /// How it fails from now on.
    pub fn set_failing(&self, failing: Option<Failing>) {
        self.inner().failing = failing;
    }

    /// The power is cut. `chance` gives a random number.
    pub fn cut(&self, mut chance: impl FnMut() -> u32) {
        let mut inner = self.inner();
        for (name, change) in std::mem::take(&mut inner.changes) {
            // A change of a name happens or it does not; one by one, in any choice.
            if chance().is_multiple_of(2) {
                inner.keep(&name, change);
            }
        }
        for content in inner.files.values_mut() {
            for (start, end) in std::mem::take(&mut content.dirty) {
                let mut at = start;
                while at < end {
                    // A block is there as it was before, or after; or the cut came in the middle of it.
                    let stop = (at / BLOCK + 1).saturating_mul(BLOCK).min(end);
                    let reached = match chance() % 8 {
                        0..4 => stop,
                        7 => at + chance() as usize % (stop - at + 1),
                        _ => at,
                    };
                    content.keep(at, reached);
                    at = stop;
                }
            }
            content.seen = content.kept.clone();
        }
        inner.names = inner.kept.clone();
        let named: Vec<u64> = inner.names.values().copied().collect();
        inner.files.retain(|file, _| named.contains(file));
        inner.fuse = None;
        inner.failing = None;
    }

    /// All of a file.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let inner = self.inner();
        inner.names.get(name).map(|file| inner.files[file].seen.clone()).unwrap_or_default()
    }

    /// Puts something else into a file, durably.
    pub fn replace(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.inner();
        let file = match inner.names.get(name) {
            Some(file) => *file,
            None => inner.make(name),
        };
        inner.kept.insert(name.to_owned(), file);
        inner.files.insert(file, Content { seen: bytes.clone(), kept: bytes, dirty: Vec::new() });
    }

    /// One bit of a file turns over by itself.
    pub fn rot(&self, name: &str, at: usize) {
        let mut inner = self.inner();
        if let Ok(content) = inner.file(name) {
            for bytes in [&mut content.seen, &mut content.kept] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (at % 8);
                }
            }
        }
    }

    /// The files there are.
    pub fn names(&self) -> Vec<String> {
        self.inner().names.keys().cloned().collect()
    }
}

impl Content {
    fn keep(&mut self, start: usize, end: usize) {
        if end > start {
            if self.kept.len() < end {
                self.kept.resize(end, 0);
            }
            self.kept[start..end].copy_from_slice(&self.seen[start..end]);
        }
    }
}

impl Inner {
    /// Something is to be changed.
    fn operation(&mut self) -> io::Result<()> {
        if let Some(fuse) = &mut self.fuse {
            if *fuse == 0 {
                return Err(io::Error::other("the process is dead"));
            }
            *fuse -= 1;
        }
        self.operations += 1;
        if self.failing == Some(Failing::ReadOnly) { Err(ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    fn make(&mut self, name: &str) -> u64 {
        self.next += 1;
        let file = self.next;
        self.files.insert(file, Content::default());
        self.names.insert(name.to_owned(), file);
        file
    }

    fn keep(&mut self, name: &str, change: Change) {
        match change {
            Change::Made(file) => _ = self.kept.insert(name.to_owned(), file),
            Change::Removed => _ = self.kept.remove(name),
            Change::Renamed(to) => {
                if let Some(file) = self.kept.remove(name) {
                    self.kept.insert(to, file);
                }
            }
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut Content> {
        let file = *self.names.get(name).ok_or(ErrorKind::NotFound)?;
        self.files.get_mut(&file).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Disk for Fake {
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let inner = self.inner();
        let names = inner.names.keys().filter(|name| folder_of(name) == folder);
        Ok(names.map(|name| name.rsplit('/').next().unwrap_or_default().to_owned()).collect())
    }

    fn size(&mut self, file: &str) -> io::Result<u64> {
        Ok(self.inner().file(file)?.seen.len() as u64)
    }

    fn read(&mut self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        let seen = &inner.file(file)?.seen;
        let from = place(offset).min(seen.len());
        let length = buffer.len().min(seen.len() - from);
        buffer[..length].copy_from_slice(&seen[from..from + length]);
        Ok(length)
    }

    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        let (start, end) = (place(offset), place(offset) + bytes.len());
        let used: usize = inner.files.values().map(|content| content.seen.len()).sum();
        let now = inner.file(file).map_or(0, |content| content.seen.len());
        if inner.capacity.is_some_and(|capacity| used + end.saturating_sub(now) > capacity) {
            return Err(ErrorKind::StorageFull.into());
        }
        if inner.failing == Some(Failing::Io) {
            return Err(io::Error::other("I/O error"));
        }
        if !inner.names.contains_key(file) {
            let made = inner.make(file);
            inner.changes.push((file.to_owned(), Change::Made(made)));
        }
        let content = inner.file(file)?;
        if content.seen.len() < end {
            content.seen.resize(end, 0);
        }
        content.seen[start..end].copy_from_slice(bytes);
        content.dirty.push((start, end));
        Ok(())
    }

    fn sync(&mut self, file: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        let failing = matches!(inner.failing, Some(Failing::Io | Failing::Sync));
        let content = inner.file(file)?;
        let dirty = std::mem::take(&mut content.dirty);
        if failing {
            // The pages are marked clean although they never reached the disk.
            return Err(io::Error::other("I/O error"));
        }
        for (start, end) in dirty {
            content.keep(start, end);
        }
        Ok(())
    }

    fn sync_folder(&mut self, folder: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        if inner.failing == Some(Failing::Io) {
            return Err(io::Error::other("I/O error"));
        }
        for (name, change) in std::mem::take(&mut inner.changes) {
            if folder_of(&name) == folder {
                inner.keep(&name, change);
            } else {
                inner.changes.push((name, change));
            }
        }
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        let file = inner.names.remove(from).ok_or(ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), file);
        inner.changes.push((from.to_owned(), Change::Renamed(to.to_owned())));
        Ok(())
    }

    fn remove(&mut self, file: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        inner.names.remove(file).ok_or(ErrorKind::NotFound)?;
        inner.changes.push((file.to_owned(), Change::Removed));
        Ok(())
    }

    fn forget(&mut self, _file: &str) {}

    fn free(&mut self) -> io::Result<u64> {
        let inner = self.inner();
        let used: usize = inner.files.values().map(|content| content.seen.len()).sum();
        Ok(inner.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(used) as u64))
    }
}
