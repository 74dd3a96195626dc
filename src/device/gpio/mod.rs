//! GPIO lines: inputs that tell of each change of their level, and outputs that keep theirs.
//!
//! `cdev` and `sysfs` are the two ways to ask the kernel, `line` is what both give; `chips` finds out which chip is
//! which. One device uses one way for all of its lines. A point's level is read when the device starts, then on edges,
//! and now and then besides, so that a missed edge or a chip that went away does not stay unnoticed.
//!
//! An output is requested with its first level, so that no other one is seen on it. What the pin does when the line is
//! given back is the chip's business on the character device: so its descriptor is [held](super::Held) (`kept`), and
//! taken over by the next driver and the next process. In sysfs the line stays exported, which holds it as well.

mod cdev;
mod chips;
mod config;
mod discover;
mod kept;
mod line;
mod name;
pub(super) mod pulses;
mod sysfs;
mod tap;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use self::chips::Chip;
pub(super) use self::config::{Bias, Place};
use self::config::{Choice, Config, DEVICE_KEYS, POINT_KEYS, PointConfig};
pub(super) use self::kept::make_safe;
use self::tap::{Tap, Taps};
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Held, Kind, Run, Shape, Spec, Write, WriteError};
use crate::model::{Fault, PointName, Value, ValueType};

/// Lines of GPIO chips.
pub(super) const KIND: Kind = Kind {
    name: "gpio",
    summary: "lines of a GPIO chip: inputs by edges, outputs with a safe state; character device or sysfs",
    sample: include_str!("sample.toml"),
    device_keys: || DEVICE_KEYS,
    point_keys: || POINT_KEYS,
    build,
    discover: discover::discover,
};

/// Where sysfs has the lines.
const CLASS: &str = "/sys/class/gpio";

/// Where sysfs has the character devices.
const DEVICES: &str = "/sys/bus/gpio/devices";

/// sysfs, and the character device of kernels before 6.6, tell nobody that a chip went away; and a level is worth a look
/// now and then.
const CHECK: Duration = Duration::from_secs(5);

/// How often a line without an interrupt is asked for its level.
const POLL: Duration = Duration::from_millis(100);

/// A line that is wanted.
#[derive(Debug)]
struct Want {
    point: PointName,
    config: PointConfig,
    /// An output's safe level.
    output: Option<bool>,
}

#[derive(Debug)]
struct Gpio {
    choice: Choice,
    wants: Vec<Want>,
}

/// The way to the kernel that was chosen.
#[derive(Debug)]
enum Backend {
    /// The character device, and the chips that it opens.
    Cdev(Vec<Chip>),
    /// `/sys/class/gpio`.
    Sysfs,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let config = Config::read(&spec.table)?;
    let (mut faults, mut wants, mut shapes) = (Vec::new(), Vec::<Want>::new(), Vec::new());
    for point in spec.points {
        let under = |fault: Fault| fault.under(&["point", point.name.as_str()]);
        let keys = match PointConfig::read(&point.table) {
            Ok(keys) => keys,
            Err(found) => {
                faults.extend(found.into_iter().map(under));
                continue;
            }
        };
        faults.extend(keys.check(&point.declaration, config.backend).into_iter().map(under));
        if let Some(other) = wants.iter().find(|other| other.config.line == keys.line) {
            faults.push(under(Fault::at("line", format!("the point `{}` has this line already", other.point))));
        }
        let value_type = point.declaration.value_type.or(Some(ValueType::Bool));
        shapes.push(Shape { writable: keys.is_output(), value_type, holds: true });
        wants.push(Want { output: keys.safe_level(&point.declaration), point: point.name, config: keys });
    }
    let driver = Arc::new(Gpio { choice: config.backend, wants });
    if faults.is_empty() { Ok(Built { driver, points: shapes }) } else { Err(faults) }
}

impl Driver for Gpio {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(async {
            let end = self.life(io).await;
            // A chip that comes back has its old name only where nobody has the one that went away.
            if end.is_err() {
                kept::sort_out(io.held()).await;
            }
            end
        })
    }

    fn wants(&self, held: &str) -> bool {
        let Ok(name) = held.parse::<name::Name>() else { return false };
        match self.backend() {
            Ok(Backend::Cdev(chips)) => self.wants.iter().any(|want| cdev::is_at(&name, &want.config.line, &chips)),
            // Another way to the line must not find it in use.
            Ok(Backend::Sysfs) => false,
            // It can't be told now.
            Err(_) => true,
        }
    }

    fn opens(&self) -> Vec<PathBuf> {
        let chips = match self.backend() {
            Ok(Backend::Cdev(chips)) => chips,
            // And then what the kernel makes.
            Ok(Backend::Sysfs) => return vec![Path::new(CLASS).join("export")],
            Err(_) => return Vec::new(),
        };
        let places = self.wants.iter().filter_map(|want| cdev::locate(&want.config.line, &chips).ok());
        let chips: BTreeSet<PathBuf> = places.map(|place| place.chip.into()).collect();
        chips.into_iter().collect()
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async {
            let backend = self.backend().map_err(DeviceError::Open)?;
            let looks: Result<Vec<String>, DeviceError> = self.wants.iter().map(|want| look(&backend, want)).collect();
            Ok(looks?.join("; "))
        })
    }
}

/// What is known of a wanted line. Requests nothing.
fn look(backend: &Backend, want: &Want) -> Result<String, DeviceError> {
    let (text, user) = match backend {
        Backend::Cdev(chips) => cdev::look(&want.config.line, chips),
        Backend::Sysfs => sysfs::look(&want.config.line).map(|text| (text, None)),
    }
    .map_err(|text| want.failed(&text))?;
    match user {
        Some(user) if !user.starts_with("sluicegate") => {
            Err(want.failed(&format!("{text} by `{user}`: {}", cdev::remedy(&user))))
        }
        _ => Ok(format!("{}: {text}", want.point)),
    }
}

impl Want {
    fn failed(&self, text: &str) -> DeviceError {
        DeviceError::Open(format!("point `{}`: {text}", self.point))
    }
}

impl Gpio {
    fn backend(&self) -> Result<Backend, String> {
        let sysfs = Path::new(CLASS).join("export").exists();
        match self.choice {
            Choice::Cdev => cdev::chips().map(Backend::Cdev),
            Choice::Sysfs if sysfs => Ok(Backend::Sysfs),
            Choice::Sysfs => Err(format!("there is no {CLASS}: this kernel has no GPIO through sysfs")),
            Choice::Auto => match cdev::chips() {
                Ok(chips) if !chips.is_empty() => Ok(Backend::Cdev(chips)),
                _ if sysfs && !chips::bases(Path::new(CLASS)).is_empty() => Ok(Backend::Sysfs),
                Ok(_) => Err("there is no GPIO chip: neither /dev/gpiochip0 nor /sys/class/gpio".to_owned()),
                Err(text) => Err(text),
            },
        }
    }

    async fn open(&self, held: &Held) -> Result<Taps, DeviceError> {
        kept::sort_out(held).await;
        let backend = self.backend().map_err(DeviceError::Open)?;
        let mut taps = Taps::default();
        for want in &self.wants {
            let line = match &backend {
                Backend::Cdev(chips) => cdev::request(want, chips, held).await,
                Backend::Sysfs => sysfs::request(want, held).await,
            };
            taps.push(Tap::new(want, line.map_err(|text| want.failed(&text))?));
        }
        Ok(taps)
    }

    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let mut taps = self.open(io.held()).await?;
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        for tap in taps.iter_mut() {
            let level = Value::Bool(tap.ask()?);
            if tap.is_output() { &mut outputs } else { &mut inputs }.push((tap.name().clone(), level));
        }
        io.opened(outputs).await;
        io.online();
        for (name, level) in inputs {
            io.report(&name, &level).await;
        }
        let mut checked = Instant::now();
        let mut reports = Vec::new();
        loop {
            let due = taps.due().unwrap_or(checked + CHECK).min(checked + CHECK);
            let mut is_stop = false;
            let found = tokio::select! {
                biased;
                ask = io.next() => match ask {
                    Ask::Stop => {
                        is_stop = true;
                        taps.rest(&mut reports)
                    }
                    Ask::Write(write) => set(&mut taps, io, write).await,
                },
                moved = taps.moved(&mut reports) => moved,
                () = sleep_until(due) => {
                    let all = checked.elapsed() >= CHECK;
                    if all {
                        checked = Instant::now();
                    }
                    taps.settled(Instant::now(), all, &mut reports)
                }
            };
            for report in reports.drain(..) {
                report.send(io).await;
            }
            found?;
            if is_stop {
                return Ok(());
            }
        }
    }
}

/// Sets outputs as asked and reads them back. An error means that a line is gone; the asker has its answer then.
async fn set(taps: &mut Taps, io: &mut DeviceIo, write: Write) -> Result<(), DeviceError> {
    let wanted: Result<Vec<(PointName, bool)>, WriteError> = write
        .values
        .iter()
        .map(|(name, value)| match value.convert(ValueType::Bool) {
            Ok(Value::Bool(level)) => Ok((name.clone(), level)),
            _ => Err(WriteError::Failed(format!("`{value}` is neither on nor off"))),
        })
        .collect();
    let wanted = match wanted.and_then(|wanted| io.begin(&write).map(|()| wanted)) {
        Ok(wanted) => wanted,
        Err(error) => {
            io.answer(write, Err(error)).await;
            return Ok(());
        }
    };
    let mut done = Vec::new();
    let mut gone = Ok(());
    let mut trouble = None;
    let mut touched = false;
    for (name, wanted) in wanted {
        match taps.set(&name, wanted) {
            Ok(level) if level == wanted || !taps.pushes(&name) => done.push((name, Value::Bool(level))),
            Ok(level) => {
                trouble = Some(format!(
                    "`{name}` still reads {level} after it was set: is it driven from outside, or shorted?"
                ));
                // It is driven all the same, so it may be on as soon as that ends.
                touched = true;
                io.output(&name, &Value::Bool(level), write.cause.clone()).await;
                break;
            }
            Err(error) => {
                // The driver of an expander may have switched before it failed.
                touched = true;
                trouble = Some(error.to_string());
                gone = Err(error);
                break;
            }
        }
    }
    let answer = match trouble {
        None => Ok(done),
        Some(text) if done.is_empty() && !touched => Err(WriteError::Failed(text)),
        Some(text) => {
            let mut said = String::new();
            for (name, level) in done {
                said.push_str(&format!("`{name}` was set to {level}, but "));
                io.output(&name, &level, write.cause.clone()).await;
            }
            Err(WriteError::Unknown(said + &text))
        }
    };
    io.answer(write, answer).await;
    gone
}

#[cfg(test)]
mod tests;
