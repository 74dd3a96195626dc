//! The keys of a counter and of its points.

use crate::device::gpio::pulses::{Edge, Wanted};
use crate::device::gpio::{Bias, Place};
use crate::model::{Declaration, Fault, Keys, Span};

/// The keys of a point's table that are this kind's own.
#[derive(Debug, Clone)]
pub(super) struct PointConfig {
    /// The line whose pulses are counted; `None`: see `rate_of`.
    pub line: Option<Place>,
    /// Which edge of a pulse counts: `rising` or `falling`.
    pub edge: Edge,
    /// The line's own resistor.
    pub bias: Option<Bias>,
    /// A level counts once it held for this long: for contacts that bounce. It hides pulses that are shorter.
    pub debounce: Option<Span>,
    /// How often the total is saved and reported, at least a second (1 min; a rate: 10 s).
    pub every: Option<Span>,
    /// Saved and reported before that once so many more pulses came; default: only by time.
    pub pulses: Option<u64>,
    /// Commands may set the total, as for another meter.
    pub settable: bool,
    /// Not a total, but how fast that one grows: the name of its point. In pulses a second, before `scale`.
    pub rate_of: Option<String>,
}

/// Flash wears: nobody needs a total more often.
pub(super) const SHORTEST: Span = Span::secs(1);

const LONGEST: Span = Span::secs(24 * 3600);

/// The keys of a point's table.
pub(super) const POINT_KEYS: &[&str] = &["bias", "debounce", "edge", "every", "line", "pulses", "rate_of", "settable"];

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let edges = [("rising", Edge::Rising), ("falling", Edge::Falling)];
        let read = PointConfig {
            line: Place::read(&mut keys),
            edge: keys.one_of("edge", &edges).unwrap_or(Edge::Rising),
            bias: Bias::read(&mut keys),
            debounce: keys.time("debounce"),
            every: keys.time("every"),
            pulses: keys.whole("pulses", 1, i64::MAX).and_then(|pulses| u64::try_from(pulses).ok()),
            settable: keys.flag("settable").unwrap_or_default(),
            rate_of: keys.string("rate_of"),
        };
        keys.end(read)
    }

    /// How often it is reported.
    pub(super) fn every(&self) -> Span {
        self.every.unwrap_or(if self.line.is_some() { Span::secs(60) } else { Span::secs(10) })
    }

    /// How the line is counted.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let line = self.line.clone()?;
        Some(Wanted { line, edge: self.edge, bias: self.bias, debounce: self.debounce })
    }

    /// What the types can't say.
    pub(super) fn check(&self, declaration: &Declaration) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut wrong = |key: &str, text: &str| faults.push(Fault::at(key, text));
        match (&self.line, &self.rate_of) {
            (None, None) => wrong("line", "expected a line, such as \"GPIO17\", or `rate_of` another point"),
            (Some(_), Some(_)) => wrong("rate_of", "expected either `line` or `rate_of`, not both"),
            (Some(Place::Number(_)), None) => {
                wrong("line", "sysfs can't count: expected a name, or { chip = …, offset = … }");
            }
            (Some(Place::Name(name)), None) if name.is_empty() => {
                wrong("line", "expected a line's name, such as \"GPIO17\"");
            }
            (None, Some(_)) => {
                for (key, is_set) in [
                    ("bias", self.bias.is_some()),
                    ("debounce", self.debounce.is_some()),
                    ("pulses", self.pulses.is_some()),
                    ("settable", self.settable),
                ] {
                    if is_set {
                        wrong(key, "only a point with a `line` has it");
                    }
                }
            }
            (Some(_), None) => {}
        }
        if !(SHORTEST..=LONGEST).contains(&self.every()) {
            wrong("every", "expected \"1s\" to \"1day\"");
        }
        if self.settable && declaration.value_type.is_none() {
            wrong("type", "a writable point needs a `type`: expected int or float");
        }
        faults
    }
}
