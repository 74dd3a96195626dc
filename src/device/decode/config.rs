//! How the config says in what form a device speaks, and where in it a point stands.

use toml::{Table, Value};

use super::fields::Field;
use crate::model::{Fault, Keys};

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

#[derive(Clone, Copy, PartialEq, Eq)]
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

const FORMS: [(&str, Form); 8] = [
    ("json", Form::Json),
    ("xml", Form::Xml),
    ("csv", Form::Csv),
    ("key-value", Form::KeyValue),
    ("regex", Form::Regex),
    ("fields", Form::Fields),
    ("text", Form::Text),
    ("bytes", Form::Bytes),
];

impl Decode {
    /// Reads the table `decode`.
    pub(in crate::device) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("kind");
        let kind = keys.one_of("kind", &FORMS);
        let (separator, assign) = (keys.string("separator"), keys.string("assign"));
        let (end, pattern) = (keys.string("end"), keys.string("pattern"));
        let Some(kind) = kind else { return keys.end(Decode::Text {}) };
        let pairs = kind == Form::KeyValue;
        for (key, is_right) in [
            ("separator", pairs || kind == Form::Csv),
            ("assign", pairs),
            ("end", pairs),
            ("pattern", kind == Form::Regex),
        ] {
            if keys.has(key) && !is_right {
                keys.wrong("", format!("`{key}` is no key of this kind"));
            }
        }
        let read = match kind {
            Form::Json => Decode::Json {},
            Form::Xml => Decode::Xml {},
            Form::Csv => {
                let separator = separator.unwrap_or_else(|| ",".to_owned());
                let mut letters = separator.chars();
                if letters.clone().count() != 1 {
                    keys.wrong("", format!("`separator`: expected a character, found \"{separator}\""));
                }
                Decode::Csv { separator: letters.next().unwrap_or(',') }
            }
            Form::KeyValue => Decode::KeyValue {
                separator,
                assign: assign.unwrap_or_else(|| "=".to_owned()),
                end: end.unwrap_or_default(),
            },
            Form::Regex => {
                if !keys.has("pattern") {
                    keys.wrong("", "expected a `pattern` such as '^T=(?<temp>[-0-9.]+)'");
                }
                Decode::Regex { pattern: pattern.unwrap_or_default() }
            }
            Form::Fields => Decode::Fields {},
            Form::Text => Decode::Text {},
            Form::Bytes => Decode::Bytes {},
        };
        keys.end(read)
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
    /// Reads `from`.
    pub(in crate::device) fn read(keys: &mut Keys<'_>) -> Option<Self> {
        if keys.has_table("from") {
            return keys.inner("from", Field::of).map(From::Field);
        }
        let read = |value: &Value| match value {
            Value::String(name) => Some(From::Name(name.clone())),
            // What is no column is told by the decoder, which knows whether there are columns.
            Value::Integer(column) => Some(From::Column(usize::try_from(*column).unwrap_or_default())),
            _ => None,
        };
        keys.any("from", read, "text, a column number from 1, or a field such as { at = 4, as = \"u16\" }")
    }

    /// The field that it is, if it is one.
    pub(super) fn field(&self) -> Option<&Field> {
        match self {
            From::Field(field) => Some(field),
            _ => None,
        }
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
