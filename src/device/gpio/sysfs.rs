//! Lines through `/sys/class/gpio`, for kernels older than the character device.
//!
//! The crate sysfs_gpio does the control; levels and edges go through the line's `value` file, which stays open. An
//! output stays exported when the driver ends: that is what holds its level, until a driver finds it so. sysfs does not
//! keep two programs from having the same line.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use sysfs_gpio::{Direction, Edge as Wanted, Pin};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep};

use super::chips::{self, only};
use super::config::{ChipLine, Number, Place};
use super::line::{Edge, Line, Skill, watch};
use super::{CLASS, DEVICES, Want, cdev};
use crate::device::Held;
use crate::device::access::refusal;
use crate::model::{Takeover, time};

/// udev gives the files of an exported line to their group within this time, also on a busy single core.
const UDEV_PATIENCE: Duration = Duration::from_secs(3);

/// How often that is tried.
const UDEV_PAUSE: Duration = Duration::from_millis(50);

/// The number of a line.
pub(super) fn locate(place: &Place) -> Result<u32, String> {
    let bases = chips::bases(Path::new(CLASS));
    match place {
        Place::Number(Number { number }) => match bases.iter().find(|base| base.holds(*number)) {
            Some(_) => Ok(*number),
            None => {
                let list: Vec<String> = bases
                    .iter()
                    .map(|b| format!("{} to {} `{}`", b.base, b.base + b.lines.max(1) - 1, b.label))
                    .collect();
                Err(format!("there is no line number {number} (there are: {})", list.join(", ")))
            }
        },
        Place::Offset(ChipLine { chip, offset }) => {
            let device = chip.contains('/').then(|| chips::device_of(Path::new(chip), Path::new(DEVICES)));
            let found = bases.iter().filter(|base| match &device {
                Some(device) => device.as_ref().is_some_and(|device| base.is_at(device)),
                None => chips::is_called(&base.label, chip),
            });
            let base = only(found.collect(), &format!("GPIO chip `{chip}` in sysfs"), |base| base.base.to_string())?;
            if *offset >= base.lines {
                return Err(format!("`{chip}` has only {} lines: expected an offset below that", base.lines));
            }
            Ok(base.base + offset)
        }
        // Names are told by the character device alone, where it may be asked.
        Place::Name(name) => match cdev::chips().and_then(|chips| cdev::locate(place, &chips)) {
            Ok(at) => locate(&Place::Offset(at)),
            Err(text) => Err(format!(
                "sysfs knows no names of lines, and the character device does not help ({text}): name `{name}` as {{ chip = …, offset = … }} or {{ number = … }}"
            )),
        },
    }
}

/// What is known of a line, without touching it.
pub(super) fn look(place: &Place) -> Result<String, String> {
    let number = locate(place)?;
    let export = Path::new(CLASS).join("export");
    match OpenOptions::new().write(true).open(&export) {
        Ok(_) if Pin::new(u64::from(number)).is_exported() => Ok(format!("line number {number} in sysfs, exported")),
        Ok(_) => Ok(format!("line number {number} in sysfs, not exported")),
        Err(error) => Err(refusal(&export, &error)),
    }
}

/// Requests a line. An output that is not one yet has its level from the first moment on; one that is keeps its level or,
/// after a crash, goes to the safe one.
pub(super) async fn request(want: &Want, held: &Held) -> Result<Box<dyn Line>, String> {
    if let Some(key) = want.config.needs_cdev() {
        return Err(format!("`{key}` can't be set through sysfs: remove it, or use the character device"));
    }
    let number = locate(&want.config.line)?;
    let name = format!("sysfs {number}");
    let exported = Exported::new(number, want)?;
    let level = want.output.and_then(|safe| exported.level(safe, held.takeover(&name)));
    let folder = exported.folder.clone();
    let end = Instant::now() + UDEV_PATIENCE;
    let (value, edges) = loop {
        match exported.configure(want, level) {
            Ok(done) => break done,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && Instant::now() < end => {
                sleep(UDEV_PAUSE).await;
            }
            Err(error) => return Err(refusal(&folder.join("value"), &error)),
        }
    };
    held.taken(&name);
    let value = if edges {
        Value::Watched(watch(value, Interest::PRIORITY).map_err(|(_, error)| refusal(&folder.join("value"), &error))?)
    } else {
        Value::Mute(value)
    };
    Ok(Box::new(SysfsLine { value: Arc::new(value), edge: None, _exported: exported }))
}

/// A line under `/sys/class/gpio`.
struct Exported {
    pin: Pin,
    /// `gpioN`, or a name that the chip's driver gave: then the crate does not find it.
    folder: PathBuf,
    /// To be given back at the end.
    ours: bool,
    /// It was found as the output that it is to be.
    was_output: bool,
}

impl Exported {
    fn new(number: u32, want: &Want) -> Result<Self, String> {
        let class = Path::new(CLASS);
        let pin = Pin::new(u64::from(number));
        let plain = class.join(format!("gpio{number}"));
        if pin.is_exported() {
            let is = |attribute: &str, text: &str| {
                fs::read_to_string(plain.join(attribute)).is_ok_and(|found| found.trim() == text)
            };
            let was_output = is("direction", "out") && is("active_low", if want.config.active_low { "1" } else { "0" });
            return Ok(Exported { pin, folder: plain, ours: false, was_output });
        }
        let before = folders(class);
        pin.export().map_err(|error| {
            let error = io::Error::from(error);
            match error.kind() {
                io::ErrorKind::ResourceBusy => format!(
                    "line number {number} is in use by a driver of the kernel or a program (/sys/kernel/debug/gpio names it)"
                ),
                _ => refusal(&class.join("export"), &error),
            }
        })?;
        let folder = if pin.is_exported() {
            plain
        } else {
            let new = folders(class).into_iter().filter(|folder| !before.contains(folder)).collect();
            only(new, &format!("folder for line number {number}"), |folder: &PathBuf| folder.display().to_string())?
        };
        Ok(Exported { pin, folder, ours: want.output.is_none(), was_output: false })
    }

    /// The level that an output is to be given; `None`: it keeps the one it has.
    fn level(&self, safe: bool, takeover: Takeover) -> Option<bool> {
        match (self.was_output, takeover) {
            (true, Takeover::Keep) => None,
            (true, Takeover::Safe) => Some(safe),
            (false, _) => Some(safe),
        }
    }

    /// Sets the line up; its value file, and whether it tells of edges. Done again when udev was not ready.
    fn configure(&self, want: &Want, level: Option<bool>) -> io::Result<(File, bool)> {
        let low = want.config.active_low;
        self.by(|pin| pin.set_active_low(low), "active_low", if low { "1" } else { "0" })?;
        let edges = match (want.output, level) {
            (Some(_), None) => false,
            (Some(_), Some(level)) => {
                // Direction and level in one: it must not twitch.
                let (direction, word) = if level == low { (Direction::Low, "low") } else { (Direction::High, "high") };
                self.by(|pin| pin.set_direction(direction), "direction", word)?;
                false
            }
            (None, _) => {
                self.by(|pin| pin.set_direction(Direction::In), "direction", "in")?;
                // Without an interrupt there is no such file.
                match self.by(|pin| pin.set_edge(Wanted::BothEdges), "edge", "both") {
                    Ok(()) => true,
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                    Err(_) => false,
                }
            }
        };
        let value = OpenOptions::new().read(true).write(want.output.is_some()).open(self.folder.join("value"))?;
        Ok((value, edges))
    }

    /// Sets an attribute through the crate or, where it does not find the line, by hand.
    fn by(&self, set: impl FnOnce(&Pin) -> sysfs_gpio::Result<()>, attribute: &str, text: &str) -> io::Result<()> {
        if self.folder.ends_with(format!("gpio{}", self.pin.get_pin())) {
            set(&self.pin).map_err(io::Error::from)
        } else {
            fs::write(self.folder.join(attribute), text)
        }
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::write(Path::new(CLASS).join("unexport"), self.pin.get_pin().to_string())
        {
            tracing::debug!("{} was gone before it was given back: {error}", self.folder.display());
        }
    }
}

fn folders(class: &Path) -> Vec<PathBuf> {
    fs::read_dir(class).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// A line in use.
struct SysfsLine {
    value: Arc<Value>,
    /// The wait for the next edge, with its own share of the value file.
    edge: Option<Waiting>,
    /// Given back when the line is dropped.
    _exported: Exported,
}

type Waiting = Pinned<Box<dyn Future<Output = io::Result<()>> + Send>>;

enum Value {
    Watched(AsyncFd<File>),
    Mute(File),
}

impl Value {
    fn file(&self) -> &File {
        match self {
            Value::Watched(watched) => watched.get_ref(),
            Value::Mute(file) => file,
        }
    }

    /// sysfs tells of a change as a priority event.
    async fn change(self: Arc<Self>) -> io::Result<()> {
        if let Value::Watched(watched) = self.as_ref() {
            watched.ready(Interest::PRIORITY).await?.clear_ready();
        }
        Ok(())
    }
}

impl Line for SysfsLine {
    fn level(&self) -> io::Result<bool> {
        let mut file = self.value.file();
        let mut text = [0; 4];
        file.rewind()?;
        match file.read(&mut text)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(text.first() == Some(&b'1')),
        }
    }

    fn set(&self, level: bool) -> io::Result<()> {
        let mut file = self.value.file();
        file.rewind()?;
        file.write_all(if level { b"1" } else { b"0" })
    }

    fn poll_edges(&mut self, context: &mut Context<'_>, edges: &mut Vec<Edge>) -> Poll<io::Result<()>> {
        if !self.skill().edges {
            return Poll::Pending;
        }
        let waiting = self.edge.get_or_insert_with(|| Box::pin(Arc::clone(&self.value).change()));
        let changed = ready!(waiting.as_mut().poll(context));
        self.edge = None;
        changed?;
        edges.push(Edge { level: self.level()?, at: time::now(), missed: Some(0) });
        Poll::Ready(Ok(()))
    }

    fn skill(&self) -> Skill {
        // An output tells of nothing, but needs not be asked either.
        let edges = matches!(self.value.as_ref(), Value::Watched(_));
        Skill { edges, debounced: false }
    }
}
