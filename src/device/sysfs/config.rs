//! The keys of a device of files, and of its points.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Table;

use crate::model::{Declaration, Fault, Keys, Span, ValueType};

/// A file that is read more often keeps a processor busy with nothing else.
const FASTEST: Duration = Duration::from_millis(10);

/// Rarer than this is no measurement.
const SLOWEST: Duration = Duration::from_secs(24 * 3600);

/// The keys of the device's table that are this kind's own.
#[derive(Debug)]
pub(super) struct Config {
    /// How often its points are read, 10 ms to 24 h (10 s).
    pub every: Span,
}

/// The keys of a point's table that are this kind's own.
#[derive(Debug)]
pub(super) struct PointConfig {
    /// The file, from `/` on; `*` and `?` stand for what the kernel numbers. Of PWM: the folder of the chip.
    pub path: PathBuf,
    /// What files beside it must hold, as a whole or as one of their lines, by their names, so that one is found of several.
    pub matches: BTreeMap<String, String>,
    /// Where in the text the value stands: the first group of this pattern, in the syntax of the crate `regex-lite`.
    pub pattern: Option<String>,
    /// How often it is read; default: as the device.
    pub every: Option<Span>,
    /// `in`, or `out` for a file that commands write.
    pub direction: Direction,
    /// A channel of PWM, an output: its value is the share of the period in which it is on, in percent.
    pub pwm: Option<Pwm>,
}

/// Which way values go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// A channel of PWM.
#[derive(Debug, Clone)]
pub(super) struct Pwm {
    /// Its number on the chip, from 0.
    pub channel: u32,
    /// How long a period is: 20 ms for a servo.
    pub period: Span,
}

/// The keys of the device's table.
pub(super) const DEVICE_KEYS: &[&str] = &["every"];

/// The keys of a point's table.
pub(super) const POINT_KEYS: &[&str] = &["direction", "every", "match", "path", "pattern", "pwm"];

fn every_fault(every: Span) -> Option<Fault> {
    let text = || format!("`{every}`: expected a duration from \"10ms\" to \"24h\"");
    (!(FASTEST..=SLOWEST).contains(&every.0)).then(|| Fault::at("every", text()))
}

impl Config {
    /// Reads the device's table.
    pub(super) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let every = keys.time("every").unwrap_or(Span::secs(10));
        keys.end(Config { every })
    }

    /// Checks what the types can't say.
    pub(super) fn check(&self) -> Vec<Fault> {
        every_fault(self.every).into_iter().collect()
    }
}

impl Pwm {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("period");
        let channel = keys.unsigned("channel").unwrap_or_default();
        let period = keys.time("period").unwrap_or_default();
        keys.end(Pwm { channel, period })
    }
}

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("path");
        let read = PointConfig {
            path: keys.text("path").unwrap_or_default().into(),
            matches: keys.map("match", |value| value.as_str().map(str::to_owned), "text in quotes"),
            pattern: keys.string("pattern"),
            every: keys.time("every"),
            direction: keys
                .one_of("direction", &[("in", Direction::In), ("out", Direction::Out)])
                .unwrap_or(Direction::In),
            pwm: keys.inner("pwm", Pwm::read),
        };
        keys.end(read)
    }

    pub(super) fn is_output(&self) -> bool {
        self.pwm.is_some() || self.direction == Direction::Out
    }

    /// The type of its values, where it is known.
    pub(super) fn value_type(&self, declaration: &Declaration) -> Option<ValueType> {
        declaration.value_type.or(self.pwm.as_ref().map(|_| ValueType::Float))
    }

    /// Checks what the types can't say.
    pub(super) fn check(&self, declaration: &Declaration) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.every.and_then(every_fault).into_iter().collect();
        let mut wrong = |key: &str, text: &str| faults.push(Fault::at(key, text));
        if !self.path.is_absolute() {
            wrong("path", "expected a path from / on, such as \"/sys/class/hwmon/hwmon*/temp1_input\"");
        }
        if self.matches.keys().any(|file| file.is_empty() || file.starts_with('/')) {
            wrong("match", "expected names of files beside this one, such as { name = \"lm75\" }");
        }
        if let Some(pwm) = &self.pwm {
            if !(Duration::from_micros(1)..=Duration::from_secs(10)).contains(&pwm.period.0) {
                wrong("pwm.period", "expected a duration from \"1us\" to \"10s\"");
            }
            if self.pattern.is_some() {
                wrong("pattern", "PWM has no text to look into: remove it");
            }
            if !matches!(self.value_type(declaration), Some(ValueType::Int | ValueType::Float)) {
                wrong("type", "PWM has a number of percent: expected float or int");
            }
        }
        if self.is_output() {
            if self.value_type(declaration).is_none() {
                wrong("type", "a writable point needs a `type`: expected bool, int, float or text");
            }
            if declaration.safe.is_none() {
                wrong("safe", "an output needs a safe state: expected a value, such as `safe = 0`");
            }
            if self.pattern.is_some() && self.pwm.is_none() {
                wrong("pattern", "a file that is written is read as a whole: remove it");
            }
        }
        faults
    }
}
