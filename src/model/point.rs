//! What a point is declared to be, which every room gets to see; and what is wrong with a declaration.

use std::sync::Arc;

use serde::Serialize;
use toml::Table;

use super::{DeviceName, Keys, PointName, Value, ValueType};

/// The declaration of one point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Its device.
    pub device: DeviceName,
    /// Its name within the device.
    pub name: PointName,
    /// The type of its values; `None` takes whatever the device sends.
    #[serde(rename = "type")]
    pub value_type: Option<ValueType>,
    /// Unit as in SenML (RFC 8428, section 12.1) where it has one there: `Cel`, `%RH`, `Pa`, or any other text.
    pub unit: Option<Arc<str>>,
    /// The smallest value that is right, in the point's unit.
    pub min: Option<f64>,
    /// The largest value that is right, in the point's unit.
    pub max: Option<f64>,
    /// What an output is set to when nobody tells it anything else.
    pub safe: Option<Value>,
    /// Whether commands may change it.
    pub writable: bool,
}

/// The keys of a point's table that declare it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declaration {
    /// `type`: the type of its values.
    pub value_type: Option<ValueType>,
    /// `unit`.
    pub unit: Option<Arc<str>>,
    /// `min`, in the point's unit.
    pub min: Option<f64>,
    /// `max`, in the point's unit.
    pub max: Option<f64>,
    /// `safe`: what an output is set to when nobody tells it anything else.
    pub safe: Option<Value>,
}

impl Declaration {
    /// Its keys.
    pub const KEYS: &[&str] = &["type", "unit", "min", "max", "safe"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let types = [
            ("bool", ValueType::Bool),
            ("int", ValueType::Int),
            ("float", ValueType::Float),
            ("text", ValueType::Text),
        ];
        let read = Declaration {
            value_type: keys.one_of("type", &types),
            unit: keys.text("unit").map(Arc::from),
            min: keys.number("min"),
            max: keys.number("max"),
            safe: keys.any("safe", Value::of, Value::EXPECTED),
        };
        keys.end(read)
    }
}

/// A point of the gateway: device and point name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointKey(
    /// The device.
    pub DeviceName,
    /// Its point.
    pub PointName,
);

impl Point {
    /// Device and name.
    pub fn key(&self) -> PointKey {
        PointKey(self.device.clone(), self.name.clone())
    }

    /// Whether a number lies within `min` and `max`; anything but a number does.
    pub fn in_range(&self, value: &Value) -> bool {
        value
            .as_f64()
            .is_none_or(|number| self.min.is_none_or(|min| number >= min) && self.max.is_none_or(|max| number <= max))
    }

    /// The range in words, for messages.
    pub fn range(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => "any".to_owned(),
        }
    }
}

/// What is wrong with a setting: where, relative to the table that was checked, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Keys from the checked table down to the setting; empty for the table itself.
    pub path: Vec<String>,
    /// What is wrong and what was expected: lower case, no full stop.
    pub text: String,
}

impl Fault {
    /// A fault at a dotted path of keys.
    pub fn at(path: &str, text: impl Into<String>) -> Self {
        let path = path.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        Fault { path, text: text.into() }
    }

    /// The same fault, seen from the table above.
    #[must_use]
    pub fn under(mut self, keys: &[&str]) -> Self {
        self.path.splice(0..0, keys.iter().map(|key| (*key).to_owned()));
        self
    }
}
