//! A serial device played by the test: a real pty, under a name that stays when the pty is replaced.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::wait;

/// The far end of a serial line.
#[derive(Debug)]
pub(crate) struct Pty {
    master: Option<File>,
    link: PathBuf,
    heard: Vec<u8>,
}

impl Pty {
    /// A line whose near end is the symbolic link at this path.
    pub(crate) fn new(link: &Path) -> Self {
        let mut pty = Pty { master: None, link: link.to_owned(), heard: Vec::new() };
        pty.plug();
        pty
    }

    /// Where the agent finds it.
    pub(crate) fn path(&self) -> &str {
        self.link.to_str().unwrap()
    }

    /// Plugs a new device in.
    pub(crate) fn plug(&mut self) {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        // Without this the line echoes and edits, until the agent sets it to raw.
        let mut attributes = tcgetattr(&master).unwrap();
        attributes.make_raw();
        tcsetattr(&master, OptionalActions::Now, &attributes).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        drop(std::fs::remove_file(&self.link));
        std::os::unix::fs::symlink(name.to_str().unwrap(), &self.link).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        self.master = Some(File::from(master));
    }

    /// Pulls it out.
    pub(crate) fn unplug(&mut self) {
        self.master = None;
    }

    /// Says something, as fast as the other side takes it.
    #[track_caller]
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let master = self.master.as_mut().unwrap();
        let mut rest = bytes;
        wait::until("the line to take what is said", || {
            while !rest.is_empty() {
                match master.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                    Err(error) => panic!("{error}"),
                }
            }
            true
        });
    }

    /// Waits until the agent has said this.
    #[track_caller]
    pub(crate) fn hear(&mut self, text: &str) {
        wait::until(&format!("the device to hear {text:?}"), || self.heard_so_far().contains(text));
    }

    /// All that the agent has said.
    pub(crate) fn heard_so_far(&mut self) -> String {
        String::from_utf8_lossy(self.heard_bytes()).into_owned()
    }

    /// The same as bytes.
    pub(crate) fn heard_bytes(&mut self) -> &[u8] {
        let mut buffer = [0; 4096];
        if let Some(master) = &mut self.master {
            while let Ok(count @ 1..) = master.read(&mut buffer) {
                self.heard.extend_from_slice(&buffer[..count]);
            }
        }
        &self.heard
    }

    /// The speed that the agent has set the line to.
    pub(crate) fn baud_rate(&self) -> u32 {
        tcgetattr(self.master.as_ref().unwrap()).unwrap().output_speed()
    }
}
