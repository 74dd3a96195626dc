//! The table `[command]`, and the keys of a point that guard its commands and its output.

use std::time::Duration;

use serde::Serialize;
use toml::Table;

use crate::model::{Fault, Keys, Point, Rate, Span};

/// How commands are taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// Its keys.
    pub const KEYS: &[&str] = &["remember"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let remember = keys.time("remember").unwrap_or(Config::default().remember);
        keys.end(Config { remember })
    }

    /// Checks what the types can't say.
    pub fn check(&self) -> Vec<Fault> {
        let remember = self.remember;
        if (Span::secs(60)..=Span::secs(7 * 24 * 3600)).contains(&remember) {
            return Vec::new();
        }
        vec![Fault::at("remember", format!("`{remember}`: expected a duration from \"1m\" to \"7d\""))]
    }
}

/// The keys of a writable point that guard its commands and its output. An output is *on* while it is not at its safe
/// value, whatever its type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PointConfig {
    /// A command whose `ts` is older than this is stale, 100 ms to 7 d; default: `ts` does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_max_age: Option<Span>,
    /// What the device has to act, 10 ms to 1 h (2 s).
    pub timeout: Span,
    /// Commands that may act; what is more is refused. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The output returns to its safe value after it was on for so long, whatever commands say: 10 ms to 7 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_on: Option<Span>,
    /// A command to the safe value is refused before the output was on for so long, 10 ms to 7 d. What the gateway does
    /// by itself does not wait for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_on: Option<Span>,
    /// A command that switches on is refused before the output was at its safe value for so long, 10 ms to 7 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_off: Option<Span>,
    /// A command without `for` has this one, 10 ms to 7 d.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulse: Option<Span>,
    /// Outputs of which at most one is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interlock: Option<Interlock>,
    /// What becomes of the output when the gateway is stopped ("hold").
    pub on_stop: Then,
    /// What becomes of it when the broker is away; default: it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_link_loss: Option<LinkLoss>,
    /// The device sleeps, and may be silent for so long: what its kind says, no key. Commands wait until it says that it
    /// is awake.
    #[serde(skip)]
    pub sleeps: Option<Duration>,
}

/// A group of outputs, on any devices, of which at most one is on: one that is switched on switches the others off first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interlock {
    /// Its name: the same at each of the outputs.
    pub group: String,
    /// At least so long all of them are off in between, 0 s to 1 h (0 s).
    pub dead_time: Span,
}

/// What becomes of an output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// It keeps its value.
    #[default]
    Hold,
    /// It goes to its safe value.
    Safe,
}

/// What becomes of an output when the broker is away.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkLoss {
    /// What.
    pub then: Then,
    /// So long after the broker was last heard, 1 s to 7 d, and at least 1.5 keep-alives.
    pub after: Span,
}

impl Default for PointConfig {
    fn default() -> Self {
        PointConfig {
            command_max_age: None,
            timeout: Span::secs(2),
            rate: None,
            max_on: None,
            min_on: None,
            min_off: None,
            pulse: None,
            interlock: None,
            on_stop: Then::Hold,
            on_link_loss: None,
            sleeps: None,
        }
    }
}

impl Interlock {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("group");
        let group = keys.string("group").unwrap_or_default();
        let dead_time = keys.time("dead_time").unwrap_or_default();
        keys.end(Interlock { group, dead_time })
    }
}

impl Then {
    fn read(keys: &mut Keys<'_>, key: &'static str) -> Option<Self> {
        keys.one_of(key, &[("hold", Then::Hold), ("safe", Then::Safe)])
    }
}

impl LinkLoss {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        ["then", "after"].into_iter().for_each(|key| keys.needs(key));
        let then = Then::read(&mut keys, "then").unwrap_or_default();
        let after = keys.time("after").unwrap_or_default();
        keys.end(LinkLoss { then, after })
    }
}

const WEEK: Span = Span::secs(7 * 24 * 3600);

impl PointConfig {
    /// Its keys.
    pub const KEYS: &[&str] = &[
        "command_max_age",
        "timeout",
        "rate",
        "max_on",
        "min_on",
        "min_off",
        "pulse",
        "interlock",
        "on_stop",
        "on_link_loss",
    ];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let plain = PointConfig::default();
        let read = PointConfig {
            command_max_age: keys.time("command_max_age"),
            timeout: keys.time("timeout").unwrap_or(plain.timeout),
            rate: keys.rate("rate"),
            max_on: keys.time("max_on"),
            min_on: keys.time("min_on"),
            min_off: keys.time("min_off"),
            pulse: keys.time("pulse"),
            interlock: keys.inner("interlock", Interlock::read),
            on_stop: Then::read(&mut keys, "on_stop").unwrap_or_default(),
            on_link_loss: keys.inner("on_link_loss", LinkLoss::read),
            sleeps: None,
        };
        keys.end(read)
    }

    /// Checks what the types can't say, against the point's declaration. That only a writable point has these keys is
    /// for `config` to see, which knows what was written.
    pub fn check(&self, point: &Point) -> Vec<Fault> {
        let mut faults = Vec::new();
        let millis = |ms| Span(Duration::from_millis(ms));
        let mut within = |key: &str, span: Option<Span>, least: (Span, &str), most: (Span, &str)| {
            if let Some(span) = span.filter(|span| !(least.0..=most.0).contains(span)) {
                let text = format!("`{span}`: expected a duration from {:?} to {:?}", least.1, most.1);
                faults.push(Fault::at(key, text));
            }
        };
        let ten_ms = (millis(10), "10ms");
        within("command_max_age", self.command_max_age, (millis(100), "100ms"), (WEEK, "7d"));
        within("timeout", Some(self.timeout), ten_ms, (Span::secs(3600), "1h"));
        for (key, span) in
            [("max_on", self.max_on), ("min_on", self.min_on), ("min_off", self.min_off), ("pulse", self.pulse)]
        {
            within(key, span, ten_ms, (WEEK, "7d"));
        }
        let dead_time = self.interlock.as_ref().map(|interlock| interlock.dead_time);
        within("interlock.dead_time", dead_time, (Span::secs(0), "0s"), (Span::secs(3600), "1h"));
        let after = self.on_link_loss.as_ref().map(|loss| loss.after);
        within("on_link_loss.after", after, (Span::secs(1), "1s"), (WEEK, "7d"));
        let mut wrong = |key: &str, text: String| faults.push(Fault::at(key, text));
        if let (Some(min), Some(max)) = (self.min_on, self.max_on)
            && min > max
        {
            wrong("min_on", format!("`{min}`: expected at most `max_on`, which is {max}"));
        }
        if let (Some(pulse), Some(max)) = (self.pulse, self.max_on)
            && pulse > max
        {
            wrong("pulse", format!("`{pulse}`: expected at most `max_on`, which is {max}"));
        }
        if let (Some(pulse), Some(min)) = (self.pulse, self.min_on)
            && pulse < min
        {
            wrong("pulse", format!("`{pulse}`: expected at least `min_on`, which is {min}"));
        }
        if self.interlock.as_ref().is_some_and(|interlock| interlock.group.is_empty()) {
            wrong("interlock.group", "expected a name, the same at each output of the group".to_owned());
        }
        if point.safe.is_none() {
            for (key, set) in [
                ("max_on", self.max_on.is_some()),
                ("min_on", self.min_on.is_some()),
                ("min_off", self.min_off.is_some()),
                ("pulse", self.pulse.is_some()),
                ("interlock", self.interlock.is_some()),
                ("on_stop", self.on_stop == Then::Safe),
                ("on_link_loss", self.on_link_loss.is_some()),
            ] {
                if set {
                    wrong(key, "it needs to know the safe value: expected a key `safe` beside it".to_owned());
                }
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceName, PointName, Value};

    #[test]
    fn ids_are_remembered_for_a_sane_time() {
        assert_eq!(Config::default().check(), []);
        for (remember, shown) in [(59, "59s"), (8 * 24 * 3600, "8days")] {
            let config = Config { remember: Span::secs(remember) };
            let text = format!("`{shown}`: expected a duration from \"1m\" to \"7d\"");
            assert_eq!(config.check(), [Fault::at("remember", text)]);
        }
    }

    fn faults(keys: &str, safe: Option<bool>) -> Vec<String> {
        let point = Point {
            device: DeviceName::new("d").unwrap(),
            name: PointName::new("p").unwrap(),
            value_type: None,
            unit: None,
            min: None,
            max: None,
            safe: safe.map(Value::Bool),
            writable: true,
        };
        let config = PointConfig::read(&keys.parse().unwrap()).unwrap();
        config.check(&point).into_iter().map(|fault| format!("{}: {}", fault.path.join("."), fault.text)).collect()
    }

    #[test]
    fn the_guards_of_a_point_are_sane_and_fit_together() {
        assert_eq!(faults("", None), [""; 0]);
        let all = "max_on = \"30m\"\nmin_on = \"5s\"\nmin_off = \"30s\"\npulse = \"5s\"\non_stop = \"safe\"\n\
                   interlock = { group = \"pumps\", dead_time = \"2s\" }\n\
                   on_link_loss = { then = \"safe\", after = \"2m\" }";
        assert_eq!(faults(all, Some(false)), [""; 0]);
        for (keys, safe, expected) in [
            ("timeout = \"0s\"", None, "timeout: `0s`: expected a duration from \"10ms\" to \"1h\""),
            ("timeout = \"2h\"", None, "timeout: `2h`: expected a duration from \"10ms\" to \"1h\""),
            ("max_on = \"8d\"", Some(false), "max_on: `8days`: expected a duration from \"10ms\" to \"7d\""),
            ("min_on = \"2s\"\nmax_on = \"1s\"", Some(false), "min_on: `2s`: expected at most `max_on`, which is 1s"),
            ("pulse = \"2s\"\nmax_on = \"1s\"", Some(false), "pulse: `2s`: expected at most `max_on`, which is 1s"),
            ("pulse = \"1s\"\nmin_on = \"2s\"", Some(false), "pulse: `1s`: expected at least `min_on`, which is 2s"),
            ("interlock = { group = \"\" }", Some(false), "interlock.group: expected a name"),
            (
                "interlock = { group = \"a\", dead_time = \"2h\" }",
                Some(false),
                "interlock.dead_time: `2h`: expected a duration from \"0s\" to \"1h\"",
            ),
            (
                "on_link_loss = { then = \"safe\", after = \"1ms\" }",
                Some(false),
                "on_link_loss.after: `1ms`: expected a duration from \"1s\" to \"7d\"",
            ),
            ("pulse = \"1s\"", None, "pulse: it needs to know the safe value"),
            ("on_stop = \"safe\"", None, "on_stop: it needs to know the safe value"),
        ] {
            let found = faults(keys, safe);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{keys}: {found:?}");
        }
    }
}
