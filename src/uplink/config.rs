//! The table `[health]`, and the keys of a point that say how its readings look at the broker.

use serde::Serialize;
use toml::Table;

use crate::model::{Fault, Keys, Span};

/// The gateway's own state, as it is published.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthConfig {
    /// How often `health` is published, 1 s to 24 h (60 s); changes of state come at once, but at most each 10 s.
    pub interval: Span,
}

impl Default for HealthConfig {
    fn default() -> Self {
        HealthConfig { interval: Span::secs(60) }
    }
}

impl HealthConfig {
    /// Its keys.
    pub const KEYS: &[&str] = &["interval"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let interval = keys.time("interval").unwrap_or(HealthConfig::default().interval);
        keys.end(HealthConfig { interval })
    }

    /// Checks what the types can't say.
    pub fn check(&self) -> Vec<Fault> {
        let interval = self.interval;
        if (Span::secs(1)..=Span::secs(24 * 3600)).contains(&interval) {
            return Vec::new();
        }
        vec![Fault::at("interval", format!("`{interval}`: expected a duration from \"1s\" to \"24h\""))]
    }
}

/// What a device says for all its points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DeviceConfig {
    /// What the readings of its points say, where a point does not say it itself (`json`).
    pub payload: Option<Payload>,
}

/// How the readings of a point look at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PointConfig {
    /// Whether the broker keeps the last reading, so that a newcomer sees it at once (true).
    pub retain: bool,
    /// What a reading says (`json`).
    pub payload: Payload,
}

/// What the payload of a reading is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// A JSON object with time, value, unit, quality and number.
    #[default]
    Json,
    /// The bare value; of several that wait only the latest is sent.
    Value,
    /// The same fields as in JSON, as a CBOR map (RFC 8949); commands and outcomes are CBOR as well.
    Cbor,
    /// The bare bytes whose hexadecimal digits are the value; else as [`Payload::Value`]. Commands are bytes as well.
    Bytes,
    /// The same fields as in JSON, as elements of a `<reading>`; commands may be a `<command>`, outcomes are an `<outcome>`.
    Xml,
}

impl Payload {
    fn read(keys: &mut Keys<'_>) -> Option<Self> {
        let names = [
            ("json", Payload::Json),
            ("value", Payload::Value),
            ("cbor", Payload::Cbor),
            ("bytes", Payload::Bytes),
            ("xml", Payload::Xml),
        ];
        keys.one_of("payload", &names)
    }

    /// Whether a reading is nothing but its value, without a number.
    pub fn is_bare(self) -> bool {
        matches!(self, Payload::Value | Payload::Bytes)
    }
}

impl DeviceConfig {
    /// Its keys.
    pub const KEYS: &[&str] = &["payload"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let payload = Payload::read(&mut keys);
        keys.end(DeviceConfig { payload })
    }
}

impl PointConfig {
    /// Its keys.
    pub const KEYS: &[&str] = &["retain", "payload"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let plain = PointConfig::default();
        let retain = keys.flag("retain").unwrap_or(plain.retain);
        let payload = Payload::read(&mut keys).unwrap_or(plain.payload);
        keys.end(PointConfig { retain, payload })
    }
}

impl Default for PointConfig {
    fn default() -> Self {
        PointConfig { retain: true, payload: Payload::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_read_back() {
        assert_eq!(HealthConfig::default().check(), []);
        assert_eq!(HealthConfig::read(&Table::new()).unwrap(), HealthConfig::default());
        let read = |text: &str| PointConfig::read(&text.parse().unwrap());
        assert_eq!(read(""), Ok(PointConfig::default()));
        let bare = PointConfig { retain: false, payload: Payload::Value };
        assert_eq!(read("payload = \"value\"\nretain = false"), Ok(bare));
    }

    #[test]
    fn health_is_neither_a_flood_nor_forgotten() {
        for interval in ["0s", "2days"] {
            let table = format!("interval = \"{interval}\"").parse().unwrap();
            let config = HealthConfig::read(&table).unwrap();
            let text = format!("`{interval}`: expected a duration from \"1s\" to \"24h\"");
            assert_eq!(config.check(), [Fault::at("interval", text)]);
        }
    }
}
