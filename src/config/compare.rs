//! What a new config changes in a gateway that runs.

use std::collections::BTreeMap;

use super::{Clock, Config, Gateway, PointPlan};
use crate::model::{DeviceName, Lane};
use crate::{command, link, queue, uplink};

/// All of a config that can be compared with another one: the drivers by the tables that they were made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Outline {
    /// `[gateway]`.
    pub gateway: Gateway,
    /// `[mqtt]`.
    pub mqtt: link::Config,
    /// `[queue]`.
    pub queue: queue::Config,
    /// `[command]`.
    pub command: command::Config,
    /// `[health]`.
    pub health: uplink::HealthConfig,
    /// `[clock]`.
    pub clock: Clock,
    /// The devices.
    pub devices: BTreeMap<DeviceName, OutlineDevice>,
}

/// A device of an [`Outline`].
#[derive(Debug, Clone, PartialEq)]
pub struct OutlineDevice {
    /// Its kind.
    pub kind: &'static str,
    /// What its driver and the rules of its points are made from.
    pub table: toml::Table,
    /// Its points, as the other rooms see them.
    pub points: Vec<PointPlan>,
}

/// What becomes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not there before.
    Added,
    /// Its driver has to be started anew.
    Changed,
    /// Its driver goes on; commands, the queue or the broker see it in another way.
    Kept,
    /// It is no longer there.
    Removed,
}

/// What a new config changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Devices that change. Those that are not named are as they were in all things.
    pub devices: BTreeMap<DeviceName, Fate>,
    /// Tables that change, in the order of the config: `queue`, or `queue.telemetry`.
    pub tables: Vec<String>,
    /// Keys that change, but only with the next start: each with its table.
    pub later: Vec<String>,
    /// What can't change while the gateway runs, each a sentence.
    pub fixed: Vec<String>,
}

impl Config {
    /// What of it can be compared.
    pub fn outline(&self) -> Outline {
        let Config { gateway, mqtt, queue, command, health, clock, devices } = self;
        let device = |device: &super::Device| {
            let (kind, table, points) = (device.plan.kind, device.table.clone(), device.points.clone());
            (device.plan.device.clone(), OutlineDevice { kind, table, points })
        };
        Outline {
            gateway: gateway.clone(),
            mqtt: mqtt.clone(),
            queue: queue.clone(),
            command: command.clone(),
            health: health.clone(),
            clock: *clock,
            devices: devices.iter().map(device).collect(),
        }
    }
}

impl Outline {
    /// What changes from this config to the new one.
    pub fn compare(&self, new: &Outline) -> Difference {
        let mut difference = Difference::default();
        let fixed = |key: &str, old: &str, new: &str| {
            format!("gateway.{key} is `{new}` now, and can't change from `{old}` while the gateway runs: restart it")
        };
        if self.gateway.id != new.gateway.id {
            difference.fixed.push(fixed("id", self.gateway.id.as_str(), new.gateway.id.as_str()));
        }
        if self.gateway.state_directory != new.gateway.state_directory {
            let [old, new] = [&self.gateway, &new.gateway].map(|gateway| gateway.state_directory.display().to_string());
            difference.fixed.push(fixed("state_directory", &old, &new));
        }
        let mut table = |name: String, changed: bool| {
            if changed {
                difference.tables.push(name);
            }
        };
        table("mqtt".to_owned(), self.mqtt != new.mqtt);
        for lane in Lane::ALL {
            let (old, new) = (self.queue.lane(lane), new.queue.lane(lane));
            table(format!("queue.{lane}"), old.max_bytes != new.max_bytes || old.max_age != new.max_age);
        }
        let bounds = |queue: &queue::Config| (queue.keep_free, queue.max_memory, queue.replay);
        table("queue".to_owned(), bounds(&self.queue) != bounds(&new.queue));
        table("command".to_owned(), self.command != new.command);
        table("health".to_owned(), self.health != new.health);
        table("clock".to_owned(), self.clock != new.clock);
        let sync = Lane::ALL.into_iter().filter(|lane| self.queue.lane(*lane).sync != new.queue.lane(*lane).sync);
        difference.later = sync.map(|lane| format!("queue.{lane}.sync")).collect();
        for (name, device) in &new.devices {
            let fate = match self.devices.get(name) {
                None => Fate::Added,
                Some(old) if old.kind != device.kind || old.table != device.table => Fate::Changed,
                Some(old) if old.points != device.points => Fate::Kept,
                Some(_) => continue,
            };
            difference.devices.insert(name.clone(), fate);
        }
        let removed = self.devices.keys().filter(|name| !new.devices.contains_key(*name));
        difference.devices.extend(removed.map(|name| (name.clone(), Fate::Removed)));
        difference
    }
}

impl Difference {
    /// Whether this table changes.
    pub fn has_table(&self, name: &str) -> bool {
        self.tables.iter().any(|table| table == name)
    }

    /// The devices with one of these fates.
    pub fn devices_that_are(&self, fates: &[Fate]) -> Vec<DeviceName> {
        let those = self.devices.iter().filter(|(_, fate)| fates.contains(fate));
        those.map(|(name, _)| name.clone()).collect()
    }

    /// What changes, for people: a line for each.
    pub fn lines(&self) -> Vec<String> {
        let device = |(name, fate): (&DeviceName, &Fate)| match fate {
            Fate::Added => format!("device {name}: added"),
            Fate::Changed => format!("device {name}: started anew"),
            Fate::Kept => format!("device {name}: changed, and goes on"),
            Fate::Removed => format!("device {name}: removed"),
        };
        let table = |name: &String| format!("[{name}]: changed");
        self.devices.iter().map(device).chain(self.tables.iter().map(table)).collect()
    }
}
