//! What the kernel already drives, by its files in sysfs: temperatures, voltages, light, 1-Wire sensors, batteries; LEDs,
//! converters and PWM as outputs.
//!
//! A file may be named by a pattern and by what stands beside it, since the kernel numbers chips in the order in which it
//! finds them (`find`). Each point is read in a time of its own, outside the runtime's threads: a 1-Wire sensor takes most
//! of a second, and a bus that hangs takes for ever; neither holds back another point, and one that hangs costs one thread.
//! `attribute` is one file, `pwm` one channel, `outputs` what is done with those that are written.
//!
//! The device is online while any of its files can be read; what can't be read is bad. Where none can, the driver ends,
//! and looks anew for all of them when it starts again.

mod attribute;
mod config;
mod discover;
mod find;
mod outputs;
mod pwm;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::attribute::Attribute;
use self::config::{Config, DEVICE_KEYS, POINT_KEYS, PointConfig};
#[cfg(feature = "gpio")]
pub(super) use self::find::{Beside, find};
use self::pwm::Channel;
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Kind, Run, Shape, Spec};
use crate::model::{self, Fault, PointName, Value};

/// Files of the kernel.
pub(super) const KIND: Kind = Kind {
    name: "sysfs",
    summary: "what the kernel drives: hwmon, IIO, 1-Wire, thermal, power supplies; LEDs, converters and PWM as outputs",
    sample: include_str!("sample.toml"),
    device_keys: || DEVICE_KEYS,
    point_keys: || POINT_KEYS,
    build,
    discover: discover::discover,
};

/// A file that says nothing for so long is told; whoever reads it stays with it. A 1-Wire bus with a dozen sensors that
/// others ask as well needs this much.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// The kernel has not answered what was asked before: nothing was asked now.
    Busy,
    /// The file is there no more.
    Gone(String),
    /// Anything else.
    Other(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Trouble::Busy => "the kernel has not answered what was asked before",
            Trouble::Gone(text) | Trouble::Other(text) => text,
        })
    }
}

/// Of the kernel.
type Answer = Result<Value, Trouble>;

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
    /// A thread waits for the kernel: there is never a second one for this file, whatever becomes of the driver meanwhile.
    busy: AtomicBool,
}

#[derive(Debug)]
enum What {
    File(Attribute),
    Pwm(Channel),
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let config = Config::read(&spec.table)?;
    let mut faults = config.check();
    let (mut points, mut shapes) = (Vec::new(), Vec::new());
    for point in spec.points {
        let under = |fault: Fault| fault.under(&["point", point.name.as_str()]);
        let keys = match PointConfig::read(&point.table) {
            Ok(keys) => keys,
            Err(found) => {
                faults.extend(found.into_iter().map(under));
                continue;
            }
        };
        faults.extend(keys.check(&point.declaration).into_iter().map(under));
        let output = keys.is_output();
        shapes.push(Shape { writable: output, value_type: keys.value_type(&point.declaration), holds: output });
        let every = keys.every.unwrap_or(config.every).0;
        match What::new(keys, point.declaration.value_type) {
            Ok(what) => {
                points.push((point.name, Arc::new(Source { what, every, output, busy: AtomicBool::new(false) })))
            }
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

/// All of these block until the kernel has an answer: finding a file is looking into folders and other files.
impl Source {
    fn read(&self) -> Answer {
        let read = match &self.what {
            What::File(file) => file.read(),
            What::Pwm(channel) => channel.read(),
        };
        read.map_err(Trouble::Other)
    }

    /// Sets an output, and reads it back.
    fn write(&self, value: &Value) -> Answer {
        let written = match &self.what {
            What::File(file) => file.write(value),
            What::Pwm(channel) => channel.write(value),
        };
        let read = written.map_err(Trouble::Other).and_then(|()| self.read());
        // What can't be found can't be written either.
        read.or_else(|trouble| self.there().and(Err(trouble)))
    }

    /// Makes an output ready, and says what it is; one that does nothing yet begins with what is safe.
    fn open(&self, safe: Option<&Value>) -> Answer {
        if let What::Pwm(channel) = &self.what {
            channel.open(safe).map_err(Trouble::Other)?;
        }
        self.read()
    }

    /// Whether an output that was opened is still there.
    fn there(&self) -> Answer {
        let there = match &self.what {
            What::File(file) => file.path().map(drop),
            What::Pwm(channel) => channel.there(),
        };
        there.map(|()| Value::Bool(true)).map_err(Trouble::Gone)
    }

    /// For a person: which file it is now, and what it says.
    fn look(&self) -> Answer {
        let path = self.path().map_err(Trouble::Gone)?;
        match self.read() {
            Ok(value) => Ok(Value::text(format!("{} is {value}", path.display()))),
            // A channel that was not exported yet has no value: it is opened only when it is set.
            Err(_) if self.output => Ok(Value::text(format!("{} is there", path.display()))),
            Err(trouble) => Err(trouble),
        }
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
                let looked = answered(ask(source, Source::look), PATIENCE).await;
                let looked = looked.map_err(|trouble| DeviceError::Open(format!("point `{name}`: {trouble}")))?;
                found.push(format!("{name}: {looked}"));
            }
            Ok(found.join("; "))
        })
    }
}

/// A question to the kernel, under way.
type Asked = JoinHandle<Answer>;

/// Asks in a thread of its own; `None` while one still waits for an answer.
fn ask(source: &Arc<Source>, question: impl FnOnce(&Source) -> Answer + Send + 'static) -> Option<Asked> {
    if source.busy.swap(true, Ordering::AcqRel) {
        return None;
    }
    let asked = Busy(Arc::clone(source));
    Some(spawn_blocking(move || question(&asked.0)))
}

/// How often it is tried to ask a file that is being asked.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks once nobody else does, and waits for the answer: for so long in all. It is [`Trouble::Busy`] where it was not asked.
async fn ask_in_turn(
    source: &Arc<Source>,
    patience: Duration,
    question: impl FnOnce(&Source) -> Answer + Clone + Send + 'static,
) -> Answer {
    let end = Instant::now() + patience;
    loop {
        match ask(source, question.clone()) {
            None if Instant::now() + PAUSE < end => sleep(PAUSE).await,
            asked => return answered(asked, patience).await,
        }
    }
}

/// Ends being busy, also by a panic.
struct Busy(Arc<Source>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// An answer, in time.
async fn answered(asked: Option<Asked>, patience: Duration) -> Answer {
    let Some(mut asked) = asked else { return Err(Trouble::Busy) };
    match timeout(patience, &mut asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(Trouble::Other(panic.to_string())),
        Err(_) => Err(Trouble::Other(format!("no answer from the kernel for {} s", patience.as_secs()))),
    }
}

/// What a turn of one point gave.
struct Turn {
    index: usize,
    answer: Answer,
    due: Instant,
}

impl Sysfs {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let of = |output: bool| (0..self.points.len()).filter(move |index| self.points[*index].1.output == output);
        let inputs = of(false).count();
        // Outputs that are not ready, and those that will be.
        let mut closed: BTreeSet<usize> = of(true).collect();
        let mut opening: FuturesUnordered<_> =
            closed.iter().map(|index| self.open(*index, io.safe(&self.points[*index].0))).collect();
        if !self.open_outputs(io, &mut closed, &mut opening).await? {
            return Ok(());
        }
        let now = Instant::now();
        let mut turns: FuturesUnordered<_> = (0..self.points.len()).map(|index| self.turn(index, now)).collect();
        // Why an input has no value; at first nobody has asked.
        let mut trouble: BTreeMap<usize, Option<String>> = BTreeMap::new();
        if inputs == 0 {
            io.online();
        }
        loop {
            tokio::select! {
                biased;
                ask = io.next() => match ask {
                    Ask::Stop => return Ok(()),
                    Ask::Write(write) => self.write(io, write, &closed).await?,
                },
                Some((index, answer)) = opening.next() => {
                    closed.remove(&index);
                    let opened = self.opened(index, answer)?;
                    tracing::info!(DEVICE = %io.device(), POINT = %opened.0, "{} is ready", opened.0);
                    io.opened(vec![opened]).await;
                }
                Some(Turn { index, answer, due }) = turns.next() => {
                    let (name, source) = &self.points[index];
                    // What was missed meanwhile is left out.
                    turns.push(self.turn(index, (due + source.every).max(Instant::now())));
                    if source.output {
                        // What it is when it comes back, the next start finds out.
                        if let Err(Trouble::Gone(text)) = answer
                            && !closed.contains(&index)
                        {
                            return Err(DeviceError::Lost(text));
                        }
                        continue;
                    }
                    match &answer {
                        Ok(value) => {
                            io.online();
                            io.report(name, value).await;
                        }
                        Err(_) => io.report_bad(name).await,
                    }
                    note(io, name, trouble.entry(index).or_default(), answer.err().map(|trouble| trouble.to_string()));
                    self.judge(io, &trouble, inputs)?;
                },
            }
        }
    }

    async fn turn(&self, index: usize, due: Instant) -> Turn {
        sleep_until(due).await;
        let source = &self.points[index].1;
        // Of an output, only whether it is there: reading may cost a bus its time.
        let question = if source.output { Source::there } else { Source::read };
        let answer = answered(ask(source, question), PATIENCE).await;
        Turn { index, answer, due }
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
}

/// Logs when a point loses its value, and when it has one again.
fn note(io: &DeviceIo, name: &PointName, before: &mut Option<String>, now: Option<String>) {
    match (&before, &now) {
        (None, Some(text)) => tracing::warn!(DEVICE = %io.device(), POINT = %name, "{name} can't be read: {text}"),
        (Some(_), None) => tracing::info!(DEVICE = %io.device(), POINT = %name, "{name} can be read again"),
        _ => {}
    }
    *before = now;
}
