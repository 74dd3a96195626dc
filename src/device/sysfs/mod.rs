//! What the kernel already drives, by its files in sysfs: temperatures, voltages, light, 1-Wire sensors, batteries; LEDs,
//! converters and PWM as outputs.
//!
//! A file may be named by a pattern and by what stands beside it, since the kernel numbers chips in the order in which it
//! finds them (`find`). Each point is read in a time of its own, outside the runtime's threads: a 1-Wire sensor takes most
//! of a second, and a bus that hangs takes for ever; neither holds back another point. `attribute` is one file, `pwm` one
//! channel.
//!
//! The device is online while any of its files can be read; what can't be read is bad. Where none can, the driver ends,
//! and looks anew for all of them when it starts again.

mod attribute;
mod config;
mod discover;
mod find;
mod pwm;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

use self::attribute::Attribute;
use self::config::{Config, PointConfig};
use self::pwm::Channel;
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Kind, Run, Shape, Spec, Write, WriteError};
use crate::model::{self, Fault, PointName, Value};

/// Files of the kernel.
pub(super) const KIND: Kind = Kind {
    name: "sysfs",
    summary: "what the kernel drives: hwmon, IIO, 1-Wire, thermal, power supplies; LEDs, converters and PWM as outputs",
    sample: include_str!("sample.toml"),
    device_keys: || model::keys::<Config>(),
    point_keys: || model::keys::<PointConfig>(),
    build,
    discover: discover::discover,
};

/// A file that says nothing for so long is told; whoever reads it stays with it. A 1-Wire bus with a dozen sensors that
/// others ask as well needs this much.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Sysfs {
    points: Vec<(PointName, Arc<Source>)>,
}

/// Where the value of a point is.
#[derive(Debug)]
struct Source {
    what: What,
    every: Duration,
    output: bool,
}

#[derive(Debug)]
enum What {
    File(Attribute),
    Pwm(Channel),
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let (config, mut faults) = match super::read::<Config>(&spec.table) {
        Ok(config) => {
            let faults = config.check();
            (config, faults)
        }
        Err(fault) => return Err(vec![fault]),
    };
    let (mut points, mut shapes) = (Vec::new(), Vec::new());
    for point in spec.points {
        let under = |fault: Fault| fault.under(&["point", point.name.as_str()]);
        let keys = match super::read::<PointConfig>(&point.table) {
            Ok(keys) => keys,
            Err(fault) => {
                faults.push(under(fault));
                continue;
            }
        };
        faults.extend(keys.check(&point.declaration).into_iter().map(under));
        let output = keys.is_output();
        shapes.push(Shape { writable: output, value_type: keys.value_type(&point.declaration), holds: output });
        let every = keys.every.unwrap_or(config.every).0;
        match What::new(keys, point.declaration.value_type) {
            Ok(what) => points.push((point.name, Arc::new(Source { what, every, output }))),
            Err(fault) => faults.push(under(fault)),
        }
    }
    if faults.is_empty() { Ok(Built { driver: Arc::new(Sysfs { points }), points: shapes }) } else { Err(faults) }
}

impl What {
    fn new(keys: PointConfig, value_type: Option<model::ValueType>) -> Result<Self, Fault> {
        match keys.pwm {
            Some(pwm) => Ok(What::Pwm(Channel::new(keys.path, keys.matches, pwm))),
            None => Attribute::new(keys.path, keys.matches, keys.pattern.as_deref(), value_type).map(What::File),
        }
    }
}

impl Source {
    /// Blocks until the kernel has an answer.
    fn read(&self) -> Result<Value, String> {
        match &self.what {
            What::File(file) => file.read(),
            What::Pwm(channel) => channel.read(),
        }
    }

    /// Sets an output, and reads it back. Blocks.
    fn write(&self, value: &Value) -> Result<Value, String> {
        match &self.what {
            What::File(file) => file.write(value)?,
            What::Pwm(channel) => channel.write(value)?,
        }
        self.read()
    }

    /// The file, as it is called now.
    fn path(&self) -> Result<PathBuf, String> {
        match &self.what {
            What::File(file) => file.path(),
            What::Pwm(channel) => channel.path(),
        }
    }
}

impl Driver for Sysfs {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(self.life(io))
    }

    fn opens(&self) -> Vec<PathBuf> {
        let outputs = self.points.iter().filter(|(_, source)| source.output);
        outputs.filter_map(|(_, source)| source.path().ok()).collect()
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async {
            let mut found = Vec::new();
            for (name, source) in &self.points {
                let wrong = |text: String| DeviceError::Open(format!("point `{name}`: {text}"));
                let path = source.path().map_err(wrong)?;
                let value = match first(asked(source)).await {
                    Ok(value) => format!(" is {value}"),
                    // A channel that was not exported yet has no value: it is opened only when it is set.
                    Err(_) if source.output => " is there".to_owned(),
                    Err(text) => return Err(wrong(text)),
                };
                found.push(format!("{name}: {}{value}", path.display()));
            }
            Ok(found.join("; "))
        })
    }
}

/// A question to the kernel, under way.
type Asked = JoinHandle<Result<Value, String>>;

fn asked(source: &Arc<Source>) -> Asked {
    let source = Arc::clone(source);
    spawn_blocking(move || source.read())
}

/// Its answer, in time.
async fn first(mut asked: Asked) -> Result<Value, String> {
    match timeout(PATIENCE, &mut asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(panic.to_string()),
        Err(_) => Err(format!("no answer from the kernel for {} s", PATIENCE.as_secs())),
    }
}

/// What a turn of one point gave.
struct Turn {
    index: usize,
    /// `None`: nothing yet.
    answer: Option<Result<Value, String>>,
    /// What still waits for its answer.
    asked: Option<Asked>,
    due: Instant,
}

impl Sysfs {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        self.open_outputs(io).await?;
        let now = Instant::now();
        let inputs = self.points.iter().enumerate().filter(|(_, (_, source))| !source.output);
        let mut turns: FuturesUnordered<_> = inputs.map(|(index, _)| self.turn(index, now, None)).collect();
        // Why a point has no value; at first nobody has asked.
        let mut trouble: BTreeMap<usize, Option<String>> = BTreeMap::new();
        if turns.is_empty() {
            io.online();
        }
        loop {
            tokio::select! {
                biased;
                ask = io.next() => match ask {
                    Ask::Stop => return Ok(()),
                    Ask::Write(write) => self.write(io, write).await,
                },
                Some(turn) = turns.next() => {
                    let Turn { index, answer, asked, due } = turn;
                    let (name, source) = &self.points[index];
                    // What was missed meanwhile is left out.
                    let next = if asked.is_some() { due } else { (due + source.every).max(Instant::now()) };
                    turns.push(self.turn(index, next, asked));
                    if let Some(answer) = answer {
                        self.tell(io, name, answer.as_ref()).await;
                        note(io, name, trouble.entry(index).or_default(), answer.as_ref().err());
                        self.judge(io, &trouble, turns.len())?;
                    }
                },
            }
        }
    }

    async fn turn(&self, index: usize, due: Instant, before: Option<Asked>) -> Turn {
        let mut running = match before {
            Some(asked) => asked,
            None => {
                sleep_until(due).await;
                asked(&self.points[index].1)
            }
        };
        let was_late = Instant::now() > due + PATIENCE;
        match timeout(PATIENCE, &mut running).await {
            Ok(answer) => {
                let answer = answer.unwrap_or_else(|panic| Err(panic.to_string()));
                Turn { index, answer: Some(answer), asked: None, due }
            }
            Err(_) => {
                let text = format!("no answer from the kernel for {} s", PATIENCE.as_secs());
                Turn { index, answer: (!was_late).then_some(Err(text)), asked: Some(running), due }
            }
        }
    }

    async fn tell(&self, io: &mut DeviceIo, name: &PointName, answer: Result<&Value, &String>) {
        match answer {
            Ok(value) => {
                io.online();
                io.report(name, value).await;
            }
            Err(_) => io.report_bad(name).await,
        }
    }

    /// Ends the driver once no input has a value.
    fn judge(
        &self,
        io: &DeviceIo,
        trouble: &BTreeMap<usize, Option<String>>,
        inputs: usize,
    ) -> Result<(), DeviceError> {
        let all = trouble.len() == inputs && trouble.values().all(Option::is_some);
        match trouble.values().flatten().next() {
            Some(text) if all && io.is_online() => Err(DeviceError::Lost(text.clone())),
            Some(text) if all => Err(DeviceError::Open(text.clone())),
            _ => Ok(()),
        }
    }

    async fn open_outputs(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let mut values = Vec::new();
        for (name, source) in self.points.iter().filter(|(_, source)| source.output) {
            let opened = Arc::clone(source);
            let asked = spawn_blocking(move || {
                if let What::Pwm(channel) = &opened.what {
                    channel.open()?;
                }
                opened.read()
            });
            let value = first(asked).await.map_err(|text| DeviceError::Open(format!("point `{name}`: {text}")))?;
            values.push((name.clone(), value));
        }
        io.opened(values).await;
        Ok(())
    }

    async fn write(&self, io: &mut DeviceIo, write: Write) {
        if let Err(error) = io.begin(&write) {
            return io.answer(write, Err(error)).await;
        }
        let mut done = Vec::new();
        for (name, value) in &write.values {
            let source = self.points.iter().find(|(own, _)| own == name).map(|(_, source)| Arc::clone(source));
            let wanted = value.clone();
            let asked = spawn_blocking(move || match source {
                Some(source) => source.write(&wanted),
                None => Err("there is no such point".to_owned()),
            });
            match first(asked).await {
                Ok(value) => done.push((name.clone(), value)),
                Err(text) => {
                    let so_far: Vec<String> = done.iter().map(|(name, value)| format!("{name} is {value}")).collect();
                    let rest = if so_far.is_empty() { String::new() } else { format!("; {}", so_far.join(", ")) };
                    let error = WriteError::Unknown(format!("point `{name}`: {text}{rest}"));
                    return io.answer(write, Err(error)).await;
                }
            }
        }
        io.answer(write, Ok(done)).await;
    }
}

/// Logs when a point loses its value, and when it has one again.
fn note(io: &DeviceIo, name: &PointName, before: &mut Option<String>, now: Option<&String>) {
    match (&before, now) {
        (None, Some(text)) => tracing::warn!(DEVICE = %io.device(), POINT = %name, "{name} can't be read: {text}"),
        (Some(_), None) => tracing::info!(DEVICE = %io.device(), POINT = %name, "{name} can be read again"),
        _ => {}
    }
    *before = now.cloned();
}
