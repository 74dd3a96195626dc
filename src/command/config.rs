//! The table `[command]`, and the keys of a point that guard its commands.

use serde::{Deserialize, Serialize};

use crate::model::{Fault, Rate, Span};

/// How commands are taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long the id of a command is remembered, so that a second one of the same id does not act: 1 min to 7 d
    /// (24 h).
    pub remember: Span,
}

impl Default for Config {
    fn default() -> Self {
        Config { remember: Span::secs(24 * 3600) }
    }
}

impl Config {
    /// Checks what the types can't say.
    pub fn check(&self) -> Vec<Fault> {
        let remember = self.remember;
        if (Span::secs(60)..=Span::secs(7 * 24 * 3600)).contains(&remember) {
            return Vec::new();
        }
        vec![Fault::at("remember", format!("`{remember}`: expected a duration from \"1m\" to \"7d\""))]
    }
}

/// The keys of a writable point that guard its commands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointConfig {
    /// A command whose `ts` is older than this is stale, 100 ms to 7 d; default: `ts` does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_max_age: Option<Span>,
    /// What the device has to act, 10 ms to 1 h (2 s).
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// Commands that may act; what is more is refused. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
}

fn default_timeout() -> Span {
    Span::secs(2)
}

impl Default for PointConfig {
    fn default() -> Self {
        PointConfig { command_max_age: None, timeout: default_timeout(), rate: None }
    }
}

impl PointConfig {
    /// Checks what the types can't say. That only a writable point has these keys is for `config` to see, which knows
    /// what was written.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let millis = |ms| Span(std::time::Duration::from_millis(ms));
        if let Some(age) = self.command_max_age
            && !(millis(100)..=Span::secs(7 * 24 * 3600)).contains(&age)
        {
            faults.push(Fault::at("command_max_age", format!("`{age}`: expected a duration from \"100ms\" to \"7d\"")));
        }
        if !(millis(10)..=Span::secs(3600)).contains(&self.timeout) {
            let text = format!("`{}`: expected a duration from \"10ms\" to \"1h\"", self.timeout);
            faults.push(Fault::at("timeout", text));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_remembered_for_a_sane_time() {
        assert_eq!(Config::default().check(), []);
        for (remember, shown) in [(59, "59s"), (8 * 24 * 3600, "8days")] {
            let config = Config { remember: Span::secs(remember) };
            let text = format!("`{shown}`: expected a duration from \"1m\" to \"7d\"");
            assert_eq!(config.check(), [Fault::at("remember", text)]);
        }
    }

    #[test]
    fn a_device_gets_time_but_not_for_ever() {
        assert_eq!(PointConfig::default().check(), []);
        for timeout in ["0s", "2h"] {
            let config: PointConfig = toml::from_str(&format!("timeout = \"{timeout}\"")).unwrap();
            let text = format!("`{timeout}`: expected a duration from \"10ms\" to \"1h\"");
            assert_eq!(config.check(), [Fault::at("timeout", text)]);
        }
    }
}
