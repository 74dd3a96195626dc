//! The table `[queue]`, and the queue's keys of a point.

use serde::{Serialize, Serializer};
use toml::Table;

use crate::model::{Fault, Keys, Lane, Rate, Size, Span};

/// Below this a lane holds less than one window of readings.
const MIN_LANE: Size = Size(64 << 10);

/// What waits for the broker, and how much of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// What must wake somebody.
    pub alarm: LaneConfig,
    /// What became of commands.
    pub outcome: LaneConfig,
    /// All other readings.
    pub telemetry: LaneConfig,
    /// What the queue leaves free of the file system (32 MiB).
    pub keep_free: Size,
    /// What all lanes together may hold in RAM, 256 KiB to 1 GiB (2 MiB); then the oldest telemetry goes.
    pub max_memory: Size,
    /// How fast what waited goes out after an outage.
    pub replay: Replay,
}

/// One lane. A table that names some keys leaves the lane's other defaults as they are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LaneConfig {
    /// What the lane's files may take, at least 64 KiB (alarm and outcome 4 MiB, telemetry 64 MiB); then its oldest
    /// goes.
    pub max_bytes: Size,
    /// How long a message may wait, at least 1 s (alarm 30 d, outcome and telemetry 7 d).
    pub max_age: Span,
    /// When a message is on flash (alarm and outcome `always`, telemetry `1s`).
    pub sync: Sync,
}

/// When a message is on flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// `"always"`: before anybody is told that it was taken.
    Always,
    /// `"1s"`: all of such a time together.
    Every(Span),
    /// `"never"`: it waits in RAM.
    Never,
}

/// How what waited goes out after an outage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Replay {
    /// Records at most, beside the new ones; or `"off"` for no limit (200/s).
    pub rate: Rate,
}

/// The queue's keys of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PointConfig {
    /// In which lane its readings wait: `telemetry` or `alarm` (`telemetry`).
    pub lane: Lane,
    /// Which of its readings wait (`all`; `latest` where the payload is the bare value).
    pub keep: Keep,
}

/// Which readings of a point wait for the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Each one, under its number.
    #[default]
    All,
    /// The latest one, in RAM, without a number.
    Latest,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            alarm: LaneConfig::default_of(Lane::Alarm),
            outcome: LaneConfig::default_of(Lane::Outcome),
            telemetry: LaneConfig::default_of(Lane::Telemetry),
            keep_free: Size(32 << 20),
            max_memory: Size(2 << 20),
            replay: Replay::default(),
        }
    }
}

impl Default for Replay {
    fn default() -> Self {
        Replay { rate: Rate::Limit { count: 200, per: std::time::Duration::from_secs(1) } }
    }
}

impl Default for PointConfig {
    fn default() -> Self {
        PointConfig { lane: Lane::Telemetry, keep: Keep::default() }
    }
}

impl PointConfig {
    /// Its keys.
    pub const KEYS: &[&str] = &["lane", "keep"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        // A lane for readings: `outcome` is none.
        let lane = keys.one_of("lane", &[("telemetry", Lane::Telemetry), ("alarm", Lane::Alarm)]);
        let keep = keys.one_of("keep", &[("all", Keep::All), ("latest", Keep::Latest)]);
        keys.end(PointConfig { lane: lane.unwrap_or(Lane::Telemetry), keep: keep.unwrap_or_default() })
    }
}

impl Config {
    /// Its keys.
    pub const KEYS: &[&str] = &["alarm", "outcome", "telemetry", "keep_free", "max_memory", "replay"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let plain = Config::default();
        let read = Config {
            alarm: keys.inner("alarm", |table| LaneConfig::read(table, Lane::Alarm)).unwrap_or(plain.alarm),
            outcome: keys.inner("outcome", |table| LaneConfig::read(table, Lane::Outcome)).unwrap_or(plain.outcome),
            telemetry: keys
                .inner("telemetry", |table| LaneConfig::read(table, Lane::Telemetry))
                .unwrap_or(plain.telemetry),
            keep_free: keys.size("keep_free").unwrap_or(plain.keep_free),
            max_memory: keys.size("max_memory").unwrap_or(plain.max_memory),
            replay: keys.inner("replay", Replay::read).unwrap_or(plain.replay),
        };
        keys.end(read)
    }

    /// The settings of a lane.
    pub fn lane(&self, lane: Lane) -> &LaneConfig {
        match lane {
            Lane::Alarm => &self.alarm,
            Lane::Outcome => &self.outcome,
            Lane::Telemetry => &self.telemetry,
        }
    }

    /// The settings of a lane, to be changed.
    pub fn lane_mut(&mut self, lane: Lane) -> &mut LaneConfig {
        match lane {
            Lane::Alarm => &mut self.alarm,
            Lane::Outcome => &mut self.outcome,
            Lane::Telemetry => &mut self.telemetry,
        }
    }

    /// Checks what the types can't say.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for lane in Lane::ALL {
            let LaneConfig { max_bytes, max_age, sync } = self.lane(lane);
            if *max_bytes < MIN_LANE {
                let text = format!("`{max_bytes}`: expected at least {MIN_LANE}");
                faults.push(Fault::at(&format!("{lane}.max_bytes"), text));
            }
            if *max_age < Span::secs(1) {
                let text = format!("`{max_age}`: expected at least \"1s\"");
                faults.push(Fault::at(&format!("{lane}.max_age"), text));
            }
            if let Sync::Every(span) = sync
                && !(Span(std::time::Duration::from_millis(100))..=Span::secs(60)).contains(span)
            {
                let text = format!("`{span}`: expected \"always\", \"never\" or a duration from \"100ms\" to \"1m\"");
                faults.push(Fault::at(&format!("{lane}.sync"), text));
            }
        }
        if !(Size(256 << 10)..=Size(1 << 30)).contains(&self.max_memory) {
            let text = format!("`{}`: expected a size from \"256KiB\" to \"1GiB\"", self.max_memory);
            faults.push(Fault::at("max_memory", text));
        }
        faults
    }
}

impl LaneConfig {
    /// The defaults of a lane.
    pub fn default_of(lane: Lane) -> Self {
        const DAY: u64 = 24 * 3600;
        match lane {
            Lane::Alarm => LaneConfig { max_bytes: Size(4 << 20), max_age: Span::secs(30 * DAY), sync: Sync::Always },
            Lane::Outcome => LaneConfig { max_bytes: Size(4 << 20), max_age: Span::secs(7 * DAY), sync: Sync::Always },
            Lane::Telemetry => {
                LaneConfig { max_bytes: Size(64 << 20), max_age: Span::secs(7 * DAY), sync: Sync::Every(Span::secs(1)) }
            }
        }
    }
}

impl LaneConfig {
    fn read(table: &Table, lane: Lane) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let default = LaneConfig::default_of(lane);
        let read = LaneConfig {
            max_bytes: keys.size("max_bytes").unwrap_or(default.max_bytes),
            max_age: keys.time("max_age").unwrap_or(default.max_age),
            sync: keys
                .any("sync", Sync::of, "\"always\", \"never\" or a duration such as \"1s\"")
                .unwrap_or(default.sync),
        };
        keys.end(read)
    }
}

impl Sync {
    fn of(value: &toml::Value) -> Option<Self> {
        match value.as_str()? {
            "always" => Some(Sync::Always),
            "never" => Some(Sync::Never),
            other => other.parse().map(Sync::Every).ok(),
        }
    }
}

impl Replay {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let rate = keys.rate("rate").unwrap_or(Replay::default().rate);
        keys.end(Replay { rate })
    }
}

impl Serialize for Sync {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Sync::Always => serializer.serialize_str("always"),
            Sync::Every(span) => serializer.collect_str(span),
            Sync::Never => serializer.serialize_str("never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, Vec<Fault>> {
        Config::read(&text.parse().unwrap())
    }

    #[test]
    fn a_partial_lane_keeps_its_other_defaults() {
        let config = read("alarm = { max_bytes = \"1MiB\" }\ntelemetry.sync = \"never\"").unwrap();
        assert_eq!(config.check(), []);
        assert_eq!(config.alarm, LaneConfig { max_bytes: Size(1 << 20), ..LaneConfig::default_of(Lane::Alarm) });
        assert_eq!(config.telemetry, LaneConfig { sync: Sync::Never, ..LaneConfig::default_of(Lane::Telemetry) });
        assert_eq!(config.outcome, Config::default().outcome);
    }

    #[test]
    fn the_defaults_are_right_and_read_back() {
        let config = Config::default();
        assert_eq!(config.check(), []);
        assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
        assert_eq!(read("").unwrap(), config);
    }

    #[test]
    fn bounds_that_hold_nothing_are_faults() {
        for (text, path, expected) in [
            ("alarm.max_bytes = \"1KiB\"", "alarm.max_bytes", "`1KiB`: expected at least 64KiB"),
            ("outcome.max_age = \"0s\"", "outcome.max_age", "`0s`: expected at least \"1s\""),
            ("max_memory = \"2GiB\"", "max_memory", "`2GiB`: expected a size from \"256KiB\" to \"1GiB\""),
            (
                "telemetry.sync = \"1h\"",
                "telemetry.sync",
                "`1h`: expected \"always\", \"never\" or a duration from \"100ms\" to \"1m\"",
            ),
        ] {
            let config = read(text).unwrap();
            assert_eq!(config.check(), [Fault::at(path, expected)]);
        }
    }

    #[test]
    fn a_reading_does_not_wait_among_the_outcomes() {
        let read = |text: &str| PointConfig::read(&text.parse().unwrap());
        assert_eq!(read(""), Ok(PointConfig::default()));
        let expected = "unknown variant `outcome`, expected one of `telemetry`, `alarm`";
        assert_eq!(read("lane = \"outcome\""), Err(vec![Fault::at("lane", expected)]));
    }
}
