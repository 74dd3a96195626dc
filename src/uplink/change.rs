//! A new config while the gateway runs: other points and devices, another broker.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::topics::Topics;
use super::{HealthConfig, Payload, PointConfig, PointPlan, Shared, births};
use crate::link::{self, Publish};
use crate::model::{DeviceName, PointKey, Rate, ValueType};

/// A new config, as far as the uplink is concerned.
#[derive(Debug)]
pub struct Change {
    /// `[mqtt]`, where the connection is to be made anew with it.
    pub link: Option<link::Config>,
    /// `[health]`.
    pub health: HealthConfig,
    /// The devices and their kinds.
    pub devices: BTreeMap<DeviceName, &'static str>,
    /// All points.
    pub points: Vec<PointPlan>,
    /// How fast the backlog goes out.
    pub replay: Rate,
    /// How long after the first connection readings wait for the clock to be set.
    pub clock_wait: Duration,
}

/// Something that the broker may retain although no config has it any more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obsolete {
    /// A word of a device: its status, its problem.
    Device(DeviceName, &'static str),
    /// The last reading of a point.
    Point(PointKey),
    /// What stood there under another `mqtt.topic`.
    Topic(String),
}

impl Obsolete {
    fn topic(&self, topics: &Topics) -> String {
        match self {
            Obsolete::Device(device, word) => topics.device(device, word),
            Obsolete::Point(PointKey(device, point)) => topics.reading(device, point),
            Obsolete::Topic(topic) => topic.clone(),
        }
    }
}

/// What of a change has to be told.
#[derive(Debug, Default)]
pub(super) struct Introduces {
    /// Devices that were not there before.
    pub(super) new_devices: BTreeSet<DeviceName>,
    /// The `info` says something else than before.
    pub(super) differs: bool,
    /// Points whose payload has another form now: what the broker retains of them is in the old one.
    pub(super) respelled: BTreeSet<PointKey>,
}

impl Shared {
    /// Takes a new config over. The link stays as it is until the connection has ended.
    pub(super) fn change(&mut self, change: Change) -> Introduces {
        let Change { link, health, devices, points, replay, clock_wait } = change;
        let before = std::mem::replace(&mut self.points, by_key(&points));
        let mut respelled = BTreeSet::new();
        for (key, plan) in &before {
            let now = self.points.get(key);
            if now.is_some_and(|now| now.config.payload != plan.config.payload) {
                respelled.insert(key.clone());
            }
            if now.is_none() {
                self.former.insert(key.clone(), PointConfig { retain: false, ..plan.config });
            }
            if plan.config.retain && now.is_none_or(|now| !now.config.retain) {
                self.obsolete.insert(Obsolete::Point(key.clone()), false);
            }
        }
        for (key, plan) in &self.points {
            self.former.remove(key);
            if plan.config.retain {
                self.obsolete.remove(&Obsolete::Point(key.clone()));
            }
        }
        let words = |device: &DeviceName| ["status", "problem"].map(|word| Obsolete::Device(device.clone(), word));
        for device in self.parts.devices.keys().filter(|device| !devices.contains_key(*device)) {
            self.obsolete.extend(words(device).map(|word| (word, false)));
        }
        for word in devices.keys().flat_map(words) {
            self.obsolete.remove(&word);
        }
        let is_new = |device: &&DeviceName| !self.parts.devices.contains_key(*device);
        let new_devices = devices.keys().filter(is_new).cloned().collect();
        // All of a point that `info` tells.
        let told = |plan: &PointPlan| (plan.point.clone(), plan.config.payload);
        let declared = |plans: &[PointPlan]| plans.iter().map(told).collect::<Vec<_>>();
        let differs = devices != self.parts.devices || declared(&points) != declared(&self.parts.points);
        self.spellings = spellings(&points);
        self.parts.reader.replay_at(replay);
        self.parts.health = health;
        self.parts.clock_wait = clock_wait;
        self.parts.devices = devices;
        self.parts.points = points;
        if link.is_some() {
            self.new_link = link;
        }
        Introduces { new_devices, differs, respelled }
    }

    /// How commands to a point, or to several of a device, are spelled.
    pub(super) fn spelling_of_commands(&self, device: &str, point: Option<&str>) -> Spelling {
        let key = (device.to_owned(), point.unwrap_or_default().to_owned());
        self.spellings.get(&key).copied().unwrap_or_default()
    }

    /// The next connection is made with the new config. False: there is none.
    pub(super) fn take_link(&mut self) -> bool {
        let Some(link) = self.new_link.take() else { return false };
        let old = std::mem::replace(&mut self.parts.link, link);
        let new = &self.parts.link;
        if old.url != new.url || old.root != new.root {
            // Who is remembered there is another one than at the broker before.
            self.introduced = false;
            self.run_before = None;
            // It may have been ours before.
            self.obsolete.values_mut().for_each(|cleared| *cleared = false);
        }
        let topics = Topics::new(new);
        let before = std::mem::replace(&mut self.topics, topics);
        if before != self.topics && old.root == new.root {
            let retained = self.points.iter().filter(|(_, plan)| plan.config.retain);
            for topic in retained.map(|(PointKey(device, point), _)| before.reading(device, point)) {
                self.obsolete.insert(Obsolete::Topic(topic), false);
            }
            let now: BTreeSet<String> = self.points.keys().map(|key| self.topics.reading(&key.0, &key.1)).collect();
            self.obsolete.retain(|obsolete, _| !matches!(obsolete, Obsolete::Topic(topic) if now.contains(topic)));
        }
        true
    }

    /// How a reading of this point looks at the broker.
    pub(super) fn spelling(&self, key: &PointKey) -> PointConfig {
        let former = || self.former.get(key).copied();
        // One of a point that an earlier run had: nobody would clear what is retained of it.
        let unknown = PointConfig { retain: false, ..PointConfig::default() };
        self.points.get(key).map(|plan| plan.config).or_else(former).unwrap_or(unknown)
    }

    /// The broker retains nothing on this topic any more.
    pub(super) fn cleared(&mut self, topic: &str) {
        let topics = &self.topics;
        let of_topic = self.obsolete.iter_mut().filter(|(obsolete, _)| obsolete.topic(topics) == topic);
        of_topic.for_each(|(_, cleared)| *cleared = true);
    }

    /// An empty retained message for each topic that is obsolete.
    pub(super) fn clearing_words(&self) -> Vec<Publish> {
        let open = self.obsolete.iter().filter(|(_, cleared)| !**cleared);
        open.map(|(obsolete, _)| births::cleared(obsolete.topic(&self.topics))).collect()
    }
}

/// The points by their names.
pub(super) fn by_key(points: &[PointPlan]) -> HashMap<PointKey, PointPlan> {
    points.iter().map(|plan| (plan.point.key(), plan.clone())).collect()
}

/// How the commands to a point are spelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spelling {
    /// Its values are text, for which JSON counts only as an object with `value`.
    pub(super) text: bool,
    /// The form beside bare values and JSON.
    pub(super) payload: Payload,
}

/// How the commands to each point are spelled, and, without a point's name, those to several of a device: as its points
/// have it, where they agree.
pub(super) fn spellings(points: &[PointPlan]) -> HashMap<(String, String), Spelling> {
    let mut spellings = HashMap::new();
    for PointPlan { point, config, .. } in points {
        let text = point.value_type == Some(ValueType::Text);
        let device = point.device.to_string();
        spellings.insert((device.clone(), point.name.to_string()), Spelling { text, payload: config.payload });
        let several =
            spellings.entry((device, String::new())).or_insert(Spelling { text: false, payload: config.payload });
        // Bare bytes have no place for the names of points.
        if several.payload != config.payload || several.payload == Payload::Bytes {
            several.payload = Payload::Json;
        }
    }
    spellings
}
