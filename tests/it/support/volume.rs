//! A file system of its own on a loop device: one that can be full, and whose device counts what is written to it.
//!
//! Only root may make one. Where that is not so, [`Volume::new`] says that the check was not run, on a line that
//! `tests/run` counts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted ext4, in a file beside it.
#[derive(Debug)]
pub(crate) struct Volume {
    mount: PathBuf,
    image: PathBuf,
}

impl Volume {
    /// One of this size in a folder, made by mke2fs with these options; `None`: not on this machine, and so is said.
    pub(crate) fn new(folder: &Path, size: u64, options: &[&str], check: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            say(&format!("!!! NOT RUN: {check}: needs root and loop devices"));
            return None;
        }
        let volume = Volume { mount: folder.join("volume"), image: folder.join("volume.ext4") };
        std::fs::File::create(&volume.image).unwrap().set_len(size).unwrap();
        std::fs::create_dir(&volume.mount).unwrap();
        run(Command::new("mke2fs").args(["-q", "-t", "ext4"]).args(options).arg(&volume.image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&volume.image).arg(&volume.mount));
        Some(volume)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// Bytes that are free for those who are not root.
    pub(crate) fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.mount).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Bytes that have reached the device, once all that waits in memory has. The 7th number of a device's `stat`
    /// counts sectors of 512 bytes (Documentation/block/stat.rst).
    pub(crate) fn written(&self) -> u64 {
        rustix::fs::syncfs(std::fs::File::open(&self.mount).unwrap()).unwrap();
        let major_minor =
            std::fs::metadata(&self.mount).map(|data| std::os::unix::fs::MetadataExt::dev(&data)).unwrap();
        let (major, minor) = (rustix::fs::major(major_minor), rustix::fs::minor(major_minor));
        let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
        512 * stat.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What a test that failed still has open must not keep it there.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            say(&format!("{} is still mounted", self.mount.display()));
        }
    }
}

/// Not by a macro: the test harness would keep it to itself.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// mke2fs and mount are not in everybody's PATH.
fn run(command: &mut Command) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = command.env("PATH", path).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
