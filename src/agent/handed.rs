//! What the process before left for this one: the descriptors of its outputs, and whether it came to a clean stop.
//!
//! Its mark is a small file in the runtime directory, which the unit preserves over a restart; or in the state
//! directory, for who runs the gateway by hand. It holds the id of the boot, and is deleted once it was read: so it is
//! there only between a clean stop and the next start. Without it the process before crashed, was killed, hung, or ran
//! before this boot, and what it drives is set to safe before the config is read, so also where the config is wrong.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::device;
use crate::model::{BootId, Takeover, time};
use crate::service;

/// The mark's file.
const MARK: &str = "clean-stop";

/// What was handed over to this process.
#[derive(Debug, Default)]
pub struct Handed {
    descriptors: Vec<(String, OwnedFd)>,
    /// Where the mark belongs and what it said; `None`: that takes the state directory, which nobody knows yet.
    found: Option<(PathBuf, Takeover)>,
}

impl Handed {
    /// Takes over what systemd hands over, and sets it to safe unless the process before came to a clean stop. To be
    /// called first of all, by the daemon alone.
    pub fn take() -> Self {
        let descriptors = service::handed_over();
        let found = service::runtime_directory().map(|folder| found(&folder));
        if let Some((_, Takeover::Safe)) = found {
            make_safe(&descriptors);
        }
        Handed { descriptors, found }
    }

    /// Looks for the mark in the state directory where there is no runtime directory; the caller has locked it. The
    /// result: the descriptors, how outputs are taken over, and where the mark of a clean stop is to be left.
    pub(super) fn resolve(self, state_directory: &Path) -> (Vec<(String, OwnedFd)>, Takeover, PathBuf) {
        let Handed { descriptors, found: early } = self;
        let late = early.is_none();
        let (folder, takeover) = early.unwrap_or_else(|| found(state_directory));
        if late && takeover == Takeover::Safe {
            make_safe(&descriptors);
        }
        (descriptors, takeover, folder)
    }
}

fn found(folder: &Path) -> (PathBuf, Takeover) {
    (folder.to_owned(), take_mark(folder, time::boot()))
}

fn make_safe(descriptors: &[(String, OwnedFd)]) {
    for (name, descriptor) in descriptors {
        match device::make_safe(name, descriptor.as_fd()) {
            Ok(_) => {}
            // Nobody logs before the config is read, so it may be lost; the driver tries again.
            Err(error) => tracing::warn!("{name} can't be set to its safe value: {error}"),
        }
    }
}

/// Reads the mark and deletes it.
fn take_mark(folder: &Path, boot: BootId) -> Takeover {
    let path = folder.join(MARK);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    // One that can't be deleted would speak for the process after a crash as well.
    match std::fs::remove_file(&path) {
        Ok(()) if boot != BootId::UNKNOWN && text.trim() == boot.to_string() => Takeover::Keep,
        _ => Takeover::Safe,
    }
}

/// Leaves the mark: the last thing that is done before a clean end.
///
/// # Errors
/// When it can't be written: the next start takes this one for a crash.
pub(super) fn leave_mark(folder: &Path) -> io::Result<()> {
    std::fs::write(folder.join(MARK), format!("{}\n", time::boot()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_stop_counts_once_and_in_its_boot() {
        let folder = tempfile::tempdir().unwrap();
        let boot = time::boot();
        assert_eq!(take_mark(folder.path(), boot), Takeover::Safe, "the first start");
        leave_mark(folder.path()).unwrap();
        assert_eq!(take_mark(folder.path(), boot), Takeover::Keep);
        assert_eq!(take_mark(folder.path(), boot), Takeover::Safe, "a crash after that");
        leave_mark(folder.path()).unwrap();
        assert_eq!(take_mark(folder.path(), BootId(boot.0 ^ 1)), Takeover::Safe, "another boot");
        assert_eq!(take_mark(folder.path(), boot), Takeover::Safe, "and it is gone with that");
        std::fs::write(folder.path().join(MARK), BootId::UNKNOWN.to_string()).unwrap();
        assert_eq!(take_mark(folder.path(), BootId::UNKNOWN), Takeover::Safe, "nobody knows which boot");
        std::fs::create_dir(folder.path().join(MARK)).unwrap();
        assert_eq!(take_mark(folder.path(), boot), Takeover::Safe, "it can't be read");
    }

    #[test]
    fn by_hand_the_mark_is_in_the_state_directory() {
        let folder = tempfile::tempdir().unwrap();
        leave_mark(folder.path()).unwrap();
        let (descriptors, takeover, mark) = Handed::default().resolve(folder.path());
        assert_eq!((descriptors.len(), takeover, mark.as_path()), (0, Takeover::Keep, folder.path()));
        assert_eq!(Handed::default().resolve(folder.path()).1, Takeover::Safe);
    }
}
