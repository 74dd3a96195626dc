//! Outputs by their descriptors alone: taken over from the driver, or the process, before.
//!
//! gpiocdev makes no request from a descriptor, so outputs are read and set by the ioctls of its uAPI, whichever version
//! they were requested with.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use gpiocdev_uapi::{v1, v2};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::line::{Edge, Line, Skill, watch};
use super::name::Name;
use crate::device::Held;
use crate::device::held::Use;
use crate::model::Takeover;

/// Sets the output of this name to its safe level. False: it is no GPIO line of ours.
///
/// # Errors
/// When the chip refuses, or is gone.
pub(in crate::device) fn make_safe(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    let Ok(name) = name.parse::<Name>() else { return Ok(false) };
    Output::new(descriptor.try_clone_to_owned()?)?.set(name.safe)?;
    Ok(true)
}

/// Lets go the held outputs whose chips are gone.
pub(super) async fn sort_out(held: &Held) {
    for name in held.names() {
        if name.parse::<Name>().is_ok()
            && let Some(descriptor) = held.get(&name)
            && Output::new(descriptor).is_err_and(|error| is_gone(&error))
        {
            held.release(&name).await;
        }
    }
}

/// Takes over what is held of a line, where it is as it is `wanted`; `None` (an input) wants nothing. What is held of it
/// otherwise is let go, so that the line can be requested.
///
/// # Errors
/// When it is held but does not answer now, or another device has it; the holding goes on.
pub(super) async fn adopt(node: &str, offset: u32, wanted: Option<&Name>, held: &Held) -> io::Result<Option<KeptLine>> {
    for name in held.names() {
        let Ok(found) = name.parse::<Name>() else { continue };
        if !found.is_at(node, offset) {
            continue;
        }
        if held.is_in_use(&name) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        match (held.get(&name), wanted.filter(|wanted| found.serves(wanted))) {
            (Some(descriptor), Some(wanted)) => {
                let output = Output::new(descriptor)?;
                let new = wanted.to_string();
                // As a rule it is so already, since before the config was read.
                if held.takeover(&new) == Takeover::Safe && output.level()? != wanted.safe {
                    output.set(wanted.safe)?;
                }
                if new != name {
                    held.rename(&name, &new).await;
                }
                held.taken(&new);
                return KeptLine::new(output, held.begin_use(&new)).map(Some);
            }
            _ => held.release(&name).await,
        }
    }
    Ok(None)
}

/// A line that was just requested, from now on held.
///
/// # Errors
/// When the descriptor is none of a line.
pub(super) async fn hold(name: &Name, descriptor: OwnedFd, held: &Held) -> io::Result<KeptLine> {
    let name = name.to_string();
    let copy = descriptor.try_clone()?;
    let output = Output::new(descriptor)?;
    held.hold(&name, copy).await;
    held.taken(&name);
    KeptLine::new(output, held.begin_use(&name))
}

/// The chip went away, or this never was a line; anything else may pass.
fn is_gone(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    const EINVAL: i32 = 22;
    const ENOTTY: i32 = 25;
    matches!(error.raw_os_error(), Some(ENODEV | EINVAL | ENOTTY))
}

/// The descriptor of one output line, and the version of the uAPI that it was requested with.
#[derive(Debug)]
struct Output {
    file: File,
    version: Version,
}

#[derive(Debug, Clone, Copy)]
enum Version {
    V1,
    V2,
}

impl Output {
    /// Finds out the version by a look at the level.
    fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let file = File::from(descriptor);
        let mut output = Output { file, version: Version::V2 };
        if let Err(error) = output.level() {
            if !is_gone(&error) {
                return Err(error);
            }
            output.version = Version::V1;
            // A chip that is gone says so in both.
            output.level()?;
        }
        Ok(output)
    }

    fn level(&self) -> io::Result<bool> {
        match self.version {
            Version::V2 => {
                let mut values = v2::LineValues { bits: 0, mask: 1 };
                v2::get_line_values(&self.file, &mut values).map_err(cause)?;
                Ok(values.bits & 1 == 1)
            }
            Version::V1 => {
                let mut values = v1::LineValues::default();
                v1::get_line_values(&self.file, &mut values).map_err(cause)?;
                Ok(values.get(0) != 0)
            }
        }
    }

    fn set(&self, level: bool) -> io::Result<()> {
        match self.version {
            Version::V2 => v2::set_line_values(&self.file, &v2::LineValues { bits: u64::from(level), mask: 1 }),
            Version::V1 => v1::set_line_values(&self.file, &v1::LineValues::from_slice(&[u8::from(level)])),
        }
        .map_err(cause)
    }
}

fn cause(error: gpiocdev_uapi::Error) -> io::Error {
    match error {
        gpiocdev_uapi::Error::Os(errno) => io::Error::from_raw_os_error(errno.0),
        other => io::Error::other(other.to_string()),
    }
}

/// An output in use.
pub(super) struct KeptLine {
    watch: Watch,
    _use: Option<Use>,
}

enum Watch {
    /// It tells when its chip goes away (Linux 6.6).
    Watched(AsyncFd<Output>),
    /// One of version 1 has nothing to tell, and so can't be watched.
    Mute(Output),
}

impl KeptLine {
    fn new(output: Output, used: Option<Use>) -> io::Result<Self> {
        let watch = match watch(output, Interest::READABLE) {
            Ok(watched) => Watch::Watched(watched),
            Err((output, error)) if error.kind() == io::ErrorKind::PermissionDenied => Watch::Mute(output),
            Err((_, error)) => return Err(error),
        };
        Ok(KeptLine { watch, _use: used })
    }

    fn output(&self) -> &Output {
        match &self.watch {
            Watch::Watched(watched) => watched.get_ref(),
            Watch::Mute(output) => output,
        }
    }
}

impl std::os::fd::AsRawFd for Output {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}

impl Line for KeptLine {
    fn level(&self) -> io::Result<bool> {
        self.output().level()
    }

    fn set(&self, level: bool) -> io::Result<()> {
        self.output().set(level)
    }

    fn poll_edges(&mut self, context: &mut Context<'_>, _: &mut Vec<Edge>) -> Poll<io::Result<()>> {
        let Watch::Watched(watched) = &self.watch else { return Poll::Pending };
        loop {
            let mut guard = ready!(watched.poll_read_ready(context))?;
            // An output has no edges: it tells that its chip is gone, or nothing of worth.
            watched.get_ref().level()?;
            guard.clear_ready();
        }
    }

    fn skill(&self) -> Skill {
        // An output tells of nothing, but needs not be asked either.
        Skill { edges: true, debounced: false }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::device::gpio::config::{Bias, Drive};

    fn name() -> Name {
        let (node, label) = ("gpiochip0".to_owned(), "panel".to_owned());
        let (drive, bias) = (Drive::PushPull, Bias::AsIs);
        Name { node, label, offset: 17, safe: false, active_low: false, drive, bias }
    }

    #[tokio::test]
    async fn what_is_no_line_is_let_go() {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let own = name().to_string();
        let (changes, mut told) = tokio::sync::mpsc::channel(8);
        let held = Held::new(vec![(own.clone(), null()), ("foreign".to_owned(), null())], Takeover::Safe, changes);
        assert!(make_safe(&own, null().as_fd()).is_err());
        assert!(!make_safe("foreign", null().as_fd()).unwrap());
        sort_out(&held).await;
        assert_eq!(held.names(), ["foreign"]);
        assert!(matches!(told.recv().await, Some((name, None)) if name == own));
    }

    #[tokio::test]
    async fn a_line_that_is_wanted_otherwise_is_let_go() {
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        let (changes, mut told) = tokio::sync::mpsc::channel(8);
        let held = Held::new(vec![(name().to_string(), null)], Takeover::Keep, changes);
        let other = Name { active_low: true, ..name() };
        assert!(adopt("gpiochip0", 18, Some(&other), &held).await.unwrap().is_none());
        assert!(adopt("gpiochip1", 17, Some(&other), &held).await.unwrap().is_none());
        assert_eq!(held.names().len(), 1, "that is another line");
        let used = held.begin_use(&name().to_string());
        let busy = adopt("gpiochip0", 17, Some(&other), &held).await.err().map(|error| error.kind());
        assert_eq!(busy, Some(io::ErrorKind::ResourceBusy), "another device has it");
        drop(used);
        assert!(adopt("gpiochip0", 17, Some(&other), &held).await.unwrap().is_none());
        assert!(held.names().is_empty());
        assert!(matches!(told.recv().await, Some((_, None))));
    }
}
