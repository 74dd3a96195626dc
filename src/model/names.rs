//! Names of gateways, devices and points: checked once, then trusted in topics, files and logs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Words that mean something in a topic below a gateway, and so can't name a device or a point.
pub const RESERVED_NAMES: [&str; 8] = ["set", "outcome", "status", "problem", "info", "health", "gap", "command"];

/// The longest name, in bytes: long enough for any label on a cabinet, short enough for every broker's topic limit.
pub const MAX_NAME: usize = 64;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, too long, or with a character outside `[A-Za-z0-9_-]`.
    #[error("`{0}` is not a name: expected 1 to 64 characters out of A-Z, a-z, 0-9, `_` and `-`")]
    Shape(String),
    /// A word that stands for something else in a topic.
    #[error("`{0}` is reserved: it would collide with a topic of the gateway (reserved: {list})", list = RESERVED_NAMES.join(", "))]
    Reserved(String),
}

fn check(text: &str) -> Result<Arc<str>, NameError> {
    let fits = (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !fits {
        return Err(NameError::Shape(text.to_owned()));
    }
    if RESERVED_NAMES.contains(&text) {
        return Err(NameError::Reserved(text.to_owned()));
    }
    Ok(Arc::from(text))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the text.
            ///
            /// # Errors
            /// When it is not 1 to 64 characters out of `[A-Za-z0-9_-]`, or a reserved word.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text).map(Self)
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The gateway's own name: one level of its topics and, by default, its MQTT client id.
    GatewayId
);
name!(
    /// A device's name, unique within the gateway.
    DeviceName
);
name!(
    /// A point's name, unique within its device.
    PointName
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_only_harmless_characters() {
        for good in ["a", "pump-house-7", "T_1", &"x".repeat(64)] {
            assert_eq!(DeviceName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "a+", "#", "ä", &"x".repeat(65)] {
            assert_eq!(PointName::new(bad), Err(NameError::Shape(bad.to_owned())));
        }
    }

    #[test]
    fn a_reserved_word_is_no_name() {
        for word in RESERVED_NAMES {
            assert_eq!(PointName::new(word), Err(NameError::Reserved(word.to_owned())));
        }
    }
}
