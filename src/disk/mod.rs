//! Files that must outlive a power cut: the few things that the queue and the journal of commands ask of a file system.
//!
//! A trait, because what a power cut leaves behind can't be had from a real file system in a test: `fake` drops, reorders
//! and tears every write that was not synced. Files are named by their path below a root, such as
//! `telemetry/0000000000000001.seg`.
//!
//! Every call blocks: they are made by threads of their own. Knows nothing of what stands in the files.

#[cfg(any(test, fuzzing))]
pub mod fake;

use std::collections::HashMap;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crc::{CRC_32_ISO_HDLC, Crc};

/// The check of what stands in files: CRC-32/ISO-HDLC of Greg Cook's catalogue. Its table has 1 KiB; that of a faster one, of 16,
/// is half of the data cache of a router's processor.
pub static CRC_32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A folder with files.
pub trait Disk: Send + Debug {
    /// The plain files of a folder, which is made if it is not there.
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>>;
    /// The file's size.
    fn size(&mut self, file: &str) -> io::Result<u64>;
    /// Reads from there on; the result is shorter than the buffer only at the end of the file.
    fn read(&mut self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes; the file is made if it is not there.
    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written to the file is on flash once this returns. After an error nobody knows what is.
    fn sync(&mut self, file: &str) -> io::Result<()>;
    /// The same for the names in the folder.
    fn sync_folder(&mut self, folder: &str) -> io::Result<()>;
    /// Gives a file another name in its folder.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, file: &str) -> io::Result<()>;
    /// Forgets what is kept of the file: the next use opens it anew.
    fn forget(&mut self, file: &str);
    /// Bytes that are free in the file system for this user.
    fn free(&mut self) -> io::Result<u64>;
}

/// The real one. Keeps the files open that it uses.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    open: HashMap<String, Open>,
}

/// An open file.
#[derive(Debug)]
struct Open {
    file: File,
    /// False: it could only be read when it was opened.
    writable: bool,
}

/// Files open at the same time: the active segment, cursor, and what is read, of three lanes.
const OPEN: usize = 16;

impl Folder {
    /// The files below this folder.
    pub fn new(root: &Path) -> Self {
        Folder { root: root.to_owned(), open: HashMap::new() }
    }

    /// Whether there is this folder.
    pub fn has(&self, folder: &str) -> bool {
        self.root.join(folder).is_dir()
    }

    fn file(&mut self, name: &str, write: bool) -> io::Result<&File> {
        if self.open.get(name).is_none_or(|open| write && !open.writable) {
            let path = self.root.join(name);
            // A file system that went read-only is still read.
            let (file, writable) =
                match OpenOptions::new().read(true).write(true).create(write).truncate(false).open(&path) {
                    Err(_) if !write => (File::open(&path)?, false),
                    other => (other?, true),
                };
            if self.open.len() >= OPEN {
                self.open.clear();
            }
            self.open.insert(name.to_owned(), Open { file, writable });
        }
        self.open.get(name).map(|open| &open.file).ok_or_else(|| io::Error::other("the file was closed"))
    }
}

impl Disk for Folder {
    fn list(&mut self, folder: &str) -> io::Result<Vec<String>> {
        let path = self.root.join(folder);
        if !path.is_dir() {
            fs::create_dir_all(&path)?;
            // The folder's own name must outlive a power cut as well as those in it.
            for parent in path.ancestors().skip(1).take(2) {
                File::open(parent)?.sync_all()?;
            }
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn size(&mut self, file: &str) -> io::Result<u64> {
        Ok(self.file(file, false)?.metadata()?.len())
    }

    fn read(&mut self, file: &str, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = self.file(file, false)?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write(&mut self, file: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(file, true)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, file: &str) -> io::Result<()> {
        self.file(file, true)?.sync_data()
    }

    fn sync_folder(&mut self, folder: &str) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.open.remove(from);
        self.open.remove(to);
        fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&mut self, file: &str) -> io::Result<()> {
        self.open.remove(file);
        fs::remove_file(self.root.join(file))
    }

    fn forget(&mut self, file: &str) {
        self.open.remove(file);
    }

    fn free(&mut self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}
