//! The keys of a counter and of its points.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Wanted;
use super::kernel;
use crate::device::gpio::pulses::{self, Edge};
use crate::device::gpio::{Bias, Place};
use crate::device::totals;
use crate::model::{Declaration, Fault, Keys, Span};

/// The keys of a point's table that are this kind's own.
#[derive(Debug, Clone)]
pub(super) struct PointConfig {
    /// The line whose pulses are counted; `None`: see `path` and `rate_of`.
    pub line: Option<Place>,
    /// The file `count` of a counter of the kernel's, from `/` on; `*` stands for what the kernel numbers.
    pub path: Option<PathBuf>,
    /// What files beside that must hold, by their names, so that one is found of several.
    pub matches: BTreeMap<String, String>,
    /// Which edge of a pulse counts: `rising` (the default) or `falling`.
    pub edge: Option<Edge>,
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
pub(super) const POINT_KEYS: &[&str] =
    &["bias", "debounce", "edge", "every", "line", "match", "path", "pulses", "rate_of", "settable"];

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let edges = [("rising", Edge::Rising), ("falling", Edge::Falling)];
        let read = PointConfig {
            line: Place::read(&mut keys),
            path: keys.string("path").map(PathBuf::from),
            matches: keys.map("match", |value| value.as_str().map(str::to_owned), "text in quotes"),
            edge: keys.one_of("edge", &edges),
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
        self.every.unwrap_or(if self.rate_of.is_none() { Span::secs(60) } else { Span::secs(10) })
    }

    /// What is counted; `None`: it is a rate.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        if let Some(path) = self.path.clone() {
            return Some(Wanted::Kernel(kernel::Wanted { path, matches: self.matches.clone() }));
        }
        let (line, edge) = (self.line.clone()?, self.edge.unwrap_or(Edge::Rising));
        Some(Wanted::Line(pulses::Wanted { line, edge, bias: self.bias, debounce: self.debounce }))
    }

    /// What the types can't say.
    pub(super) fn check(&self, declaration: &Declaration) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut wrong = |key: &str, text: &str| faults.push(Fault::at(key, text));
        let sources = [self.line.is_some(), self.path.is_some(), self.rate_of.is_some()];
        match sources.iter().filter(|is_set| **is_set).count() {
            0 => wrong(
                "line",
                "expected a line, such as \"GPIO17\", or the `path` of a count, or `rate_of` another point",
            ),
            1 => {}
            _ => wrong("line", "expected one of `line`, `path` and `rate_of`"),
        }
        match &self.line {
            Some(Place::Number(_)) => {
                wrong("line", "sysfs can't count: expected a name, or { chip = …, offset = … }");
            }
            Some(Place::Name(name)) if name.is_empty() => {
                wrong("line", "expected a line's name, such as \"GPIO17\"");
            }
            _ => {}
        }
        if self.path.as_ref().is_some_and(|path| !path.is_absolute() || !path.ends_with("count")) {
            wrong("path", "expected the count itself, such as \"/sys/bus/counter/devices/counter*/count0/count\"");
        }
        let line =
            [("bias", self.bias.is_some()), ("debounce", self.debounce.is_some()), ("edge", self.edge.is_some())];
        let total = [("pulses", self.pulses.is_some()), ("settable", self.settable)];
        let of_line = line.into_iter().filter(|_| self.line.is_none());
        for (key, _) in of_line.filter(|(_, is_set)| *is_set) {
            wrong(key, "only a point with a `line` has it");
        }
        for (key, _) in total.into_iter().filter(|(_, is_set)| *is_set && self.rate_of.is_some()) {
            wrong(key, "only a total has it");
        }
        if self.path.is_none() && !self.matches.is_empty() {
            wrong("match", "only a point with a `path` has it");
        }
        if !(SHORTEST..=LONGEST).contains(&self.every()) {
            wrong("every", "expected \"1s\" to \"1day\"");
        }
        if self.settable && declaration.safe.is_some() {
            wrong("safe", totals::NO_SAFE);
        }
        if self.settable && declaration.value_type.is_none() {
            wrong("type", "a writable point needs a `type`: expected int or float");
        }
        faults
    }
}
