//! How the config says in what form a device speaks, and where in it a point stands.

use serde::Deserialize;

use crate::model::Fault;

/// How a frame is read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(in crate::device) enum Decode {
    /// A JSON document; `from` is a JSON pointer (RFC 6901).
    Json {},
    /// An XML document; `from` is the names of elements from its root on, the last one `@name` for an attribute.
    Xml {},
    /// Columns; `from` is the number of one, from 1.
    Csv {
        /// Between two columns (`,`).
        #[serde(default = "comma")]
        separator: char,
    },
    /// Pairs such as `T=21.5 H=40`; `from` is a key.
    KeyValue {
        /// Between two pairs. Default: any of white space, `,` and `;`.
        separator: Option<String>,
        /// Between key and value (`=`).
        #[serde(default = "equals")]
        assign: String,
    },
    /// A pattern; `from` is the name of one of its captures.
    Regex {
        /// The pattern, in the syntax of the crate `regex-lite`.
        pattern: String,
    },
    /// The whole frame is the value, as text.
    Text {},
    /// The whole frame is the value, as hexadecimal digits.
    Bytes {},
}

/// A place in a frame.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected text, or a column number from 1")]
pub(in crate::device) enum From {
    /// A column, from 1.
    Column(usize),
    /// A JSON pointer, the path of an element, a key, or the name of a capture.
    Name(String),
}

impl Decode {
    /// What the types can't say, by the key `decode`.
    pub(in crate::device) fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Decode::KeyValue { separator, assign } = self {
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

fn comma() -> char {
    ','
}

fn equals() -> String {
    "=".to_owned()
}
