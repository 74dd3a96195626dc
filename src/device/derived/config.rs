//! The keys of derived points.

use std::time::Duration;

use super::formula::Formula;
use crate::device::totals;
use crate::model::{Declaration, DeviceName, Fault, Keys, PointKey, PointName};

/// The keys of a point's table that are this kind's own.
pub(super) const POINT_KEYS: &[&str] =
    &["difference", "every", "integral", "largest", "mean", "per", "settable", "smallest", "sum"];

const FORMULAS: [(&str, Formula); 6] = [
    ("sum", Formula::Sum),
    ("difference", Formula::Difference),
    ("mean", Formula::Mean),
    ("smallest", Formula::Smallest),
    ("largest", Formula::Largest),
    ("integral", Formula::Integral),
];

/// What a point is made of.
#[derive(Debug)]
pub(super) struct PointConfig {
    /// How.
    pub(super) formula: Formula,
    /// The key that names the sources.
    pub(super) key: &'static str,
    /// Of which points of other devices.
    pub(super) of: Vec<PointKey>,
    /// Of an integral: the time that its value counts for (1 h, so that W become Wh).
    pub(super) per: Duration,
    /// Of an integral: how often it is saved on flash and reported, 1 s to 1 day (1 min).
    pub(super) every: Duration,
    /// Of an integral: commands may set it, as for another meter.
    pub(super) settable: bool,
}

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &toml::Table, declaration: &Declaration) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let (mut found, mut of) = (None, Vec::new());
        for (key, formula) in FORMULAS {
            let Some(texts) = keys.texts(key, "text in quotes") else { continue };
            if let Some((_, other)) = found {
                keys.wrong(key, format!("expected one of them, and `{other}` is there too"));
            }
            match (formula, texts.len()) {
                (Formula::Integral, 1) => {}
                (Formula::Integral, _) => keys.wrong(key, "expected one point, such as \"meter/power\""),
                (_, 2..) => {}
                _ => keys.wrong(key, "expected two points or more, such as [\"a/power\", \"b/power\"]"),
            }
            for text in texts {
                match point(text) {
                    Ok(point) => of.push(point),
                    Err(text) => keys.wrong(key, text),
                }
            }
            found = Some((formula, key));
        }
        let per = keys.span("per", "1s", "1day");
        let every = keys.span("every", "1s", "1day");
        let settable = keys.flag("settable");
        let Some((formula, key)) = found else {
            keys.wrong("", "expected what it is made of: sum, difference, mean, smallest, largest or integral");
            return Err(keys.faults());
        };
        if formula != Formula::Integral {
            for key in ["per", "every", "settable"] {
                if keys.has(key) {
                    keys.wrong(key, "only an integral has it: remove it");
                }
            }
        }
        if settable == Some(true) && declaration.safe.is_some() {
            keys.wrong("safe", totals::NO_SAFE);
        }
        if settable == Some(true) && declaration.value_type.is_none() {
            keys.wrong("type", "a writable point needs a `type`: expected float");
        }
        let hour = Duration::from_secs(3600);
        keys.end(PointConfig {
            formula,
            key,
            of,
            per: per.unwrap_or(hour),
            every: every.unwrap_or(hour / 60),
            settable: settable.unwrap_or_default(),
        })
    }
}

/// `DEVICE/POINT`.
fn point(text: &str) -> Result<PointKey, String> {
    let wrong = || format!("`{text}`: expected the name of a device, a slash, and the name of its point");
    let (device, point) = text.split_once('/').ok_or_else(wrong)?;
    match (DeviceName::new(device), PointName::new(point)) {
        (Ok(device), Ok(point)) => Ok(PointKey(device, point)),
        _ => Err(wrong()),
    }
}
