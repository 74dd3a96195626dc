//! Values of points and their types.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What a point carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false, a number or text in quotes")]
pub enum Value {
    /// On or off.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number; never NaN or infinite once it left a device ([`Value::is_finite`]).
    Float(f64),
    /// Text.
    Text(Arc<str>),
}

/// The declared type of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// `ON`, `on`, `true`, `1` and their opposites.
    Bool,
    /// A whole number of 64 bits.
    Int,
    /// A 64-bit floating-point number.
    Float,
    /// Any text.
    Text,
}

/// A value that can't be taken for the type it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {expected}")]
pub struct WrongType {
    /// What came.
    pub value: String,
    /// What would have been right, with its article.
    pub expected: &'static str,
}

impl ValueType {
    /// The type in words, for messages.
    pub fn expected(self) -> &'static str {
        match self {
            ValueType::Bool => "a switch value (ON, on, true, 1 or OFF, off, false, 0)",
            ValueType::Int => "a whole number",
            ValueType::Float => "a number",
            ValueType::Text => "text",
        }
    }
}

impl Value {
    /// What [`Value::of`] takes, in words.
    pub const EXPECTED: &str = "true, false, a number or text in quotes";

    /// What a config says.
    pub fn of(value: &toml::Value) -> Option<Self> {
        match value {
            toml::Value::Boolean(on) => Some(Value::Bool(*on)),
            toml::Value::Integer(number) => Some(Value::Int(*number)),
            toml::Value::Float(number) => Some(Value::Float(*number)),
            toml::Value::String(text) => Some(Value::text(text)),
            _ => None,
        }
    }

    /// Text as a value.
    pub fn text(text: impl AsRef<str>) -> Self {
        Value::Text(Arc::from(text.as_ref()))
    }

    /// The value as a number; booleans count as 0 and 1, text does not.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Bool(b) => Some(f64::from(u8::from(*b))),
            #[expect(clippy::cast_precision_loss, reason = "a point rule on 2^53 and more has no finer result")]
            Value::Int(i) => Some(*i as f64),
            Value::Float(f) => Some(*f),
            Value::Text(_) => None,
        }
    }

    /// Whether JSON can carry it: every value but a float that is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        !matches!(self, Value::Float(f) if !f.is_finite())
    }

    /// The value as `wanted`, where that loses nothing: `"21.5"` is a number, `1` is on, `21.0` is whole.
    ///
    /// # Errors
    /// When the value is no such thing.
    pub fn convert(&self, wanted: ValueType) -> Result<Value, WrongType> {
        let wrong = || WrongType { value: self.to_string(), expected: wanted.expected() };
        let converted = match (wanted, self) {
            (ValueType::Bool, Value::Bool(_)) | (ValueType::Int, Value::Int(_)) | (ValueType::Text, Value::Text(_)) => {
                Some(self.clone())
            }
            (ValueType::Float, Value::Float(f)) => f.is_finite().then(|| self.clone()),
            (ValueType::Bool, Value::Int(0)) => Some(Value::Bool(false)),
            (ValueType::Bool, Value::Int(1)) => Some(Value::Bool(true)),
            (ValueType::Bool, Value::Text(t)) => switch(t).map(Value::Bool),
            (ValueType::Int, Value::Float(f)) => whole(*f).map(Value::Int),
            (ValueType::Int, Value::Text(t)) => {
                t.trim().parse().ok().or_else(|| t.trim().parse().ok().and_then(whole)).map(Value::Int)
            }
            (ValueType::Float, Value::Int(_)) => self.as_f64().map(Value::Float),
            (ValueType::Float, Value::Text(t)) => {
                t.trim().parse().ok().filter(|f: &f64| f.is_finite()).map(Value::Float)
            }
            (ValueType::Text, _) => Some(Value::text(self.to_string())),
            _ => None,
        };
        converted.ok_or_else(wrong)
    }
}

fn switch(text: &str) -> Option<bool> {
    match text.trim() {
        "ON" | "On" | "on" | "TRUE" | "True" | "true" | "1" => Some(true),
        "OFF" | "Off" | "off" | "FALSE" | "False" | "false" | "0" => Some(false),
        _ => None,
    }
}

fn whole(f: f64) -> Option<i64> {
    /// 2^53: up to here every whole number is a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    (f.fract() == 0.0 && f.abs() <= EXACT).then_some(f as i64)
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(b) => write!(f, "{b}"),
            Value::Int(i) => write!(f, "{i}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Text(t) => f.write_str(t),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_converts_where_nothing_is_lost() {
        let text = |t: &str| Value::text(t);
        for (from, to, expected) in [
            (text("ON"), ValueType::Bool, Some(Value::Bool(true))),
            (text("off"), ValueType::Bool, Some(Value::Bool(false))),
            (text("yes"), ValueType::Bool, None),
            (Value::Int(1), ValueType::Bool, Some(Value::Bool(true))),
            (Value::Int(2), ValueType::Bool, None),
            (text(" 21 "), ValueType::Int, Some(Value::Int(21))),
            (text("21.0"), ValueType::Int, Some(Value::Int(21))),
            (Value::Float(21.5), ValueType::Int, None),
            (Value::Float(1e300), ValueType::Int, None),
            (Value::Bool(true), ValueType::Int, None),
            (text("1e3"), ValueType::Float, Some(Value::Float(1000.0))),
            (text("NaN"), ValueType::Float, None),
            (Value::Float(f64::INFINITY), ValueType::Float, None),
            (Value::Int(-3), ValueType::Float, Some(Value::Float(-3.0))),
            (Value::Bool(true), ValueType::Text, Some(text("true"))),
        ] {
            assert_eq!(from.convert(to).ok(), expected, "{from:?} as {to:?}");
        }
    }
}
