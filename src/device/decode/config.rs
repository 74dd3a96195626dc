//! How the config says in what form a device speaks, and where in it a point stands.

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use super::fields::Field;
use crate::model::Fault;

/// How a frame is read.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::device) enum Decode {
    /// A JSON document; `from` is a JSON pointer (RFC 6901).
    Json {},
    /// An XML document; `from` is the names of elements from its root on, the last one `@name` for an attribute.
    Xml {},
    /// Columns; `from` is the number of one, from 1.
    Csv {
        /// Between two columns (`,`).
        separator: char,
    },
    /// Pairs such as `T=21.5 H=40`; `from` is a key.
    KeyValue {
        /// Between two pairs. Default: any of white space, `,` and `;`.
        separator: Option<String>,
        /// Between key and value (`=`).
        assign: String,
        /// Characters each of which ends a value, such as the `*` before a unit. Default: none does.
        end: String,
    },
    /// A pattern; `from` is the name of one of its captures.
    Regex {
        /// The pattern, in the syntax of the crate `regex-lite`.
        pattern: String,
    },
    /// Bytes at fixed places; `from` is `{ at = …, as = … }`.
    Fields {},
    /// The whole frame is the value, as text.
    Text {},
    /// The whole frame is the value, as hexadecimal digits.
    Bytes {},
}

/// The table of a [`Decode`], which takes a tenth of the code that it takes to read the enum itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    kind: Form,
    separator: Option<String>,
    assign: Option<String>,
    end: Option<String>,
    pattern: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    Json,
    Xml,
    Csv,
    KeyValue,
    Regex,
    Fields,
    Text,
    Bytes,
}

impl<'de> Deserialize<'de> for Decode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Table::deserialize(deserializer)?.decode().map_err(D::Error::custom)
    }
}

impl Table {
    fn decode(self) -> Result<Decode, String> {
        let Table { kind, separator, assign, end, pattern } = self;
        let pairs = kind == Form::KeyValue;
        for (key, is_set, is_right) in [
            ("separator", separator.is_some(), pairs || kind == Form::Csv),
            ("assign", assign.is_some(), pairs),
            ("end", end.is_some(), pairs),
            ("pattern", pattern.is_some(), kind == Form::Regex),
        ] {
            if is_set && !is_right {
                return Err(format!("`{key}` is no key of this kind"));
            }
        }
        Ok(match kind {
            Form::Json => Decode::Json {},
            Form::Xml => Decode::Xml {},
            Form::Csv => {
                let separator = separator.unwrap_or_else(|| ",".to_owned());
                let mut letters = separator.chars();
                match (letters.next(), letters.next()) {
                    (Some(separator), None) => Decode::Csv { separator },
                    _ => return Err(format!("`separator`: expected a character, found \"{separator}\"")),
                }
            }
            Form::KeyValue => Decode::KeyValue {
                separator,
                assign: assign.unwrap_or_else(|| "=".to_owned()),
                end: end.unwrap_or_default(),
            },
            Form::Regex => {
                Decode::Regex { pattern: pattern.ok_or("expected a `pattern` such as '^T=(?<temp>[-0-9.]+)'")? }
            }
            Form::Fields => Decode::Fields {},
            Form::Text => Decode::Text {},
            Form::Bytes => Decode::Bytes {},
        })
    }
}

/// A place in a frame.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::device) enum From {
    /// A column, from 1.
    Column(usize),
    /// A JSON pointer, the path of an element, a key, or the name of a capture.
    Name(String),
    /// Bytes.
    Field(Field),
}

impl From {
    /// The field that it is, if it is one.
    pub(super) fn field(&self) -> Option<&Field> {
        match self {
            From::Field(field) => Some(field),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for From {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Place;
        impl<'de> Visitor<'de> for Place {
            type Value = From;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a column number from 1, or a field such as { at = 4, as = \"u16\" }")
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<From, E> {
                Ok(From::Name(name.to_owned()))
            }
            fn visit_i64<E: Error>(self, column: i64) -> Result<From, E> {
                // What is no column is told by the decoder, which knows whether there are columns.
                Ok(From::Column(usize::try_from(column).unwrap_or_default()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<From, A::Error> {
                Field::deserialize(MapAccessDeserializer::new(map)).map(From::Field)
            }
        }
        deserializer.deserialize_any(Place)
    }
}

impl Decode {
    /// What the types can't say, by the key `decode`.
    pub(in crate::device) fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Decode::KeyValue { separator, assign, .. } = self {
            if assign.is_empty() {
                faults.push(Fault::at("decode.assign", "expected what stands between key and value, such as \"=\""));
            }
            if separator.as_ref().is_some_and(String::is_empty) {
                faults.push(Fault::at("decode.separator", "expected what stands between two pairs, such as \",\""));
            }
        }
        faults
    }
}
