//! The table `[clock]`: how a board whose clock is not set at its boot comes to dates.

use serde::Serialize;
use toml::Table;

use crate::model::{Fault, Keys, Span};

/// When the wall clock is believed, and what is done until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// How long after the first connection readings wait to be dated, 0 s to 1 h (60 s); alarms do not wait.
    pub wait: Span,
    /// When the wall clock is believed (`synchronized`).
    pub trust: Trust,
}

/// When the wall clock is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// Once a time service has set it.
    #[default]
    Synchronized,
    /// From the start on, if it is not behind a date that has passed for certain: the board's clock has a battery, or
    /// is set by something that the kernel does not know of.
    Always,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { wait: Span::secs(60), trust: Trust::default() }
    }
}

impl Clock {
    /// Its keys.
    pub const KEYS: &[&str] = &["wait", "trust"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let plain = Clock::default();
        let wait = keys.time("wait").unwrap_or(plain.wait);
        let trust = keys.one_of("trust", &[("synchronized", Trust::Synchronized), ("always", Trust::Always)]);
        keys.end(Clock { wait, trust: trust.unwrap_or(plain.trust) })
    }

    /// Checks what the types can't say.
    pub fn check(&self) -> Vec<Fault> {
        let wait = self.wait;
        if wait <= Span::secs(3600) {
            return Vec::new();
        }
        vec![Fault::at("wait", format!("`{wait}`: expected a duration from \"0s\" to \"1h\""))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_read_back() {
        assert_eq!(Clock::default().check(), []);
        assert_eq!(Clock::read(&Table::new()).unwrap(), Clock::default());
        let always = Clock::read(&"wait = \"0s\"\ntrust = \"always\"".parse().unwrap()).unwrap();
        assert_eq!(always, Clock { wait: Span::secs(0), trust: Trust::Always });
    }
}
