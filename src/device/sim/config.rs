//! The keys of a simulated device's points.

use std::time::Duration;

use crate::model::{Declaration, Fault, Keys, Span, Value, ValueType};

/// A load test needs no more, and less would take a whole processor.
const FASTEST: Duration = Duration::from_micros(10);

/// Rarer than this is nothing to look at.
const SLOWEST: Duration = Duration::from_secs(24 * 3600);

/// The keys of a point's table that are this kind's own.
#[derive(Debug)]
pub(super) struct PointConfig {
    /// What the point does.
    pub wave: Wave,
    /// How long a sine or a ramp takes until it repeats itself (10 s).
    pub period: Option<Span>,
    /// How often there is a value (1 s); down to microseconds.
    pub every: Option<Span>,
    /// The lowest value of a sine, ramp or random walk (0).
    pub low: Option<f64>,
    /// The highest one (100).
    pub high: Option<f64>,
    /// When `panic` does so, after each start of the device (10 s).
    pub after: Option<Span>,
}

/// What a simulated point does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wave {
    /// Goes up and down.
    Sine,
    /// Goes up, and starts again.
    Ramp,
    /// Wanders.
    RandomWalk,
    /// 1, 2, 3 …: whoever gets the values can tell whether one is missing.
    Counter,
    /// Is what a command says; at first its `safe` value, or off.
    Switch,
    /// Ends the driver with a panic, to see that this harms no other device.
    Panic,
}

/// The keys of a point's table.
pub(super) const POINT_KEYS: &[&str] = &["after", "every", "high", "low", "period", "wave"];

const WAVES: [(&str, Wave); 6] = [
    ("sine", Wave::Sine),
    ("ramp", Wave::Ramp),
    ("random-walk", Wave::RandomWalk),
    ("counter", Wave::Counter),
    ("switch", Wave::Switch),
    ("panic", Wave::Panic),
];

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("wave");
        let read = PointConfig {
            wave: keys.one_of("wave", &WAVES).unwrap_or(Wave::Sine),
            period: keys.time("period"),
            every: keys.time("every"),
            low: keys.number("low"),
            high: keys.number("high"),
            after: keys.time("after"),
        };
        keys.end(read)
    }

    /// The time between two values.
    pub(super) fn every(&self) -> Duration {
        self.every.map_or(Duration::from_secs(1), |span| span.0)
    }

    /// The time until the wave repeats itself.
    pub(super) fn period(&self) -> Duration {
        self.period.map_or(Duration::from_secs(10), |span| span.0)
    }

    /// When the panic is due.
    pub(super) fn after(&self) -> Duration {
        self.after.map_or(Duration::from_secs(10), |span| span.0)
    }

    /// Lowest and highest value.
    pub(super) fn range(&self) -> (f64, f64) {
        (self.low.unwrap_or(0.0), self.high.unwrap_or(100.0))
    }

    /// The type of the values, where the declaration names none.
    pub(super) fn value_type(&self, declared: Option<ValueType>) -> Option<ValueType> {
        declared.or(match self.wave {
            Wave::Sine | Wave::Ramp | Wave::RandomWalk => Some(ValueType::Float),
            Wave::Counter => Some(ValueType::Int),
            Wave::Switch => Some(ValueType::Bool),
            Wave::Panic => None,
        })
    }

    /// What the types can't say.
    pub(super) fn check(&self, declaration: &Declaration) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut wrong = |key: &str, text: &str| faults.push(Fault::at(key, text));
        let swings = matches!(self.wave, Wave::Sine | Wave::Ramp);
        let analog = swings || self.wave == Wave::RandomWalk;
        for (key, set, used) in [
            ("period", self.period.is_some(), swings),
            ("every", self.every.is_some(), analog || self.wave == Wave::Counter),
            ("low", self.low.is_some(), analog),
            ("high", self.high.is_some(), analog),
            ("after", self.after.is_some(), self.wave == Wave::Panic),
        ] {
            if set && !used {
                wrong(key, "this wave does not use it: remove it");
            }
        }
        if !(FASTEST..=SLOWEST).contains(&self.every()) {
            wrong("every", "expected a duration from \"10us\" to \"1day\"");
        }
        if !(Duration::from_millis(1)..=SLOWEST).contains(&self.period()) {
            wrong("period", "expected a duration from \"1ms\" to \"1day\"");
        }
        let (low, high) = self.range();
        if !(low.is_finite() && high.is_finite() && low < high) {
            wrong("high", "expected a number above `low` (0 where it is not set)");
        }
        if self.wave == Wave::Switch {
            let safe = declaration.safe.as_ref();
            if declaration.value_type.is_none() && safe.is_some_and(|safe| safe.convert(ValueType::Bool).is_err()) {
                wrong("safe", "expected true or false");
            }
        } else if matches!(declaration.value_type, Some(ValueType::Bool)) {
            wrong("type", "only a switch can be of this type: expected int or float");
        }
        faults
    }

    /// A switch's first value.
    pub(super) fn first(&self, safe: Option<&Value>) -> Value {
        safe.and_then(|safe| safe.convert(ValueType::Bool).ok()).unwrap_or(Value::Bool(false))
    }
}
