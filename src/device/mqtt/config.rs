//! The keys of a device that speaks MQTT, and of its points.

use toml::Table;

use super::topic::{TopicFilter, check_topic};
use crate::device::Spec;
use crate::device::decode::{Decode, From};
use crate::device::template::Template;
use crate::link;
use crate::model::{Fault, Keys, Span};

/// All keys of the device's table that are this kind's own, those of the link first.
pub(super) const KEYS: [&str; 14] = [
    "url",
    "version",
    "client_id",
    "keep_alive",
    "connect_timeout",
    "username",
    "password",
    "tls",
    "websocket",
    "proxy",
    "decode",
    "status",
    "interval",
    "awake",
];

/// The keys that say where the broker is and who comes: they mean what they mean in `[mqtt]`.
const LINK: &[&str] = KEYS.split_at(10).0;

/// A broker on the board itself.
const BROKER: &str = "mqtt://localhost:1883";

/// The keys of the device's table beside those of the link.
#[derive(Debug)]
pub(super) struct Config {
    /// How a message is read, for points with `from`.
    pub(super) decode: Decode,
    /// Where the device, or the broker for it, says whether it is there.
    pub(super) status: Option<Status>,
    /// How often the device says something: it is lost after 1.5 times as long.
    pub(super) interval: Option<Span>,
    /// It sleeps between what it says, and listens for so long after it; default: always.
    pub(super) awake: Option<Span>,
}

/// The device's own presence: its Last Will, and what it says when it is there.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) topic: String,
    /// The payload that means: it is there.
    pub(super) online: String,
    /// The payload that means: it is not.
    pub(super) offline: String,
}

/// The keys of a point's table that are this kind's own.
#[derive(Debug)]
pub(super) struct PointConfig {
    /// Where the value comes: a topic, or a filter; or several.
    pub(super) topic: Option<Vec<String>>,
    /// Where in the message it stands; without it, the whole message is the value.
    pub(super) from: Option<From>,
    /// Whether a message that the broker had stored counts (no): nobody knows how old it is.
    pub(super) stored: Option<bool>,
    /// What is published to set the point.
    pub(super) set: Option<Set>,
    /// Whether the device says what it did, on `topic` (yes, where the point has one).
    pub(super) confirm: Option<bool>,
}

/// A message to the device.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) topic: String,
    /// `{value}` stands for the raw value.
    pub(super) payload: String,
}

/// The keys of a point's table.
pub(super) const POINT_KEYS: &[&str] = &["confirm", "from", "set", "stored", "topic"];

/// Reads the device's table, in its two parts.
pub(super) fn read(spec: &Spec) -> Result<(link::Config, Config), Vec<Fault>> {
    let (mut link, own): (Table, Table) =
        spec.table.clone().into_iter().partition(|(key, _)| LINK.contains(&key.as_str()));
    link.entry("url").or_insert_with(|| BROKER.into());
    link.entry("client_id").or_insert_with(|| format!("{{id}}-{}", spec.device).into());
    let link = link::Config::read(&link).map(|mut link| {
        link.expand(spec.gateway.as_str());
        link
    });
    let own = Config::read(&own);
    let mut faults: Vec<Fault> = link.as_ref().map_or_else(Vec::clone, link::Config::check);
    faults.extend(own.as_ref().map_or_else(Vec::clone, Config::check));
    match (link, own) {
        (Ok(link), Ok(own)) if faults.is_empty() => Ok((link, own)),
        _ => Err(faults),
    }
}

impl Status {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("topic");
        let read = Status {
            topic: keys.string("topic").unwrap_or_default(),
            online: keys.text("online").unwrap_or("Online").to_owned(),
            offline: keys.text("offline").unwrap_or("Offline").to_owned(),
        };
        keys.end(read)
    }
}

impl Set {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("topic");
        let topic = keys.string("topic").unwrap_or_default();
        let payload = keys.text("payload").unwrap_or("{value}").to_owned();
        keys.end(Set { topic, payload })
    }
}

impl Config {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let read = Config {
            decode: keys.inner("decode", Decode::read).unwrap_or(Decode::Json {}),
            status: keys.inner("status", Status::read),
            interval: keys.time("interval"),
            awake: keys.time("awake"),
        };
        keys.end(read)
    }

    /// What the types can't say.
    fn check(&self) -> Vec<Fault> {
        let mut faults = self.decode.check();
        let mut wrong = |path: &str, text: String| faults.push(Fault::at(path, text));
        if let Some(status) = &self.status {
            if let Err(text) = check_topic(&status.topic) {
                wrong("status.topic", text);
            }
            if status.online.is_empty() || status.offline.is_empty() {
                let key = if status.online.is_empty() { "status.online" } else { "status.offline" };
                wrong(key, "expected the payload: an empty one only clears what is stored".to_owned());
            } else if status.online == status.offline {
                wrong("status.offline", format!("`{}`: expected another payload than `online` has", status.offline));
            }
        }
        for (key, span) in [("interval", self.interval), ("awake", self.awake)] {
            if span.is_some_and(|span| !(Span::secs(1)..=Span::secs(7 * 24 * 3600)).contains(&span)) {
                wrong(key, "expected a duration from \"1s\" to \"7d\"".to_owned());
            }
        }
        if self.awake.is_some() && self.interval.is_none() {
            wrong(
                "awake",
                "a device that sleeps needs an `interval` beside it: else nobody knows when it is lost".to_owned(),
            );
        }
        faults
    }
}

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let read = PointConfig {
            topic: keys
                .texts("topic", "a topic such as \"tele/plug/SENSOR\"")
                .map(|topics| topics.into_iter().map(str::to_owned).collect()),
            from: From::read(&mut keys),
            stored: keys.flag("stored"),
            set: keys.inner("set", Set::read),
            confirm: keys.flag("confirm"),
        };
        keys.end(read)
    }

    /// The filters, and the template of what is published; and what is wrong.
    pub(super) fn parse(&self) -> (Vec<TopicFilter>, Option<Template>, Vec<Fault>) {
        let mut faults = Vec::new();
        if self.topic.as_ref().is_some_and(Vec::is_empty) {
            faults.push(Fault::at("topic", "expected at least one topic"));
        }
        let mut filters = Vec::new();
        for topic in self.topic.iter().flatten() {
            match TopicFilter::parse(topic) {
                Ok(filter) if filters.contains(&filter) => {
                    faults.push(Fault::at("topic", format!("`{topic}` is there twice")));
                }
                Ok(filter) => filters.push(filter),
                Err(text) => faults.push(Fault::at("topic", text)),
            }
        }
        if self.topic.is_none() {
            if self.set.is_none() {
                faults.push(Fault::at("topic", "expected the topic of its values, or a `set` beside it"));
            }
            let of_topic = [
                ("from", self.from.is_some()),
                ("stored", self.stored.is_some()),
                ("confirm", self.confirm == Some(true)),
            ];
            for (key, _) in of_topic.iter().filter(|(_, is_set)| *is_set) {
                faults.push(Fault::at(key, "expected a `topic` beside it, on which the device says the value"));
            }
        }
        if self.set.is_none() && self.confirm.is_some() {
            faults.push(Fault::at("confirm", "expected a `set` beside it"));
        }
        let template = self.set.as_ref().and_then(|set| {
            if let Err(text) = check_topic(&set.topic) {
                faults.push(Fault::at("set.topic", text));
            }
            Template::parse(&set.payload, None).map_err(|text| faults.push(Fault::at("set.payload", text))).ok()
        });
        (filters, template, faults)
    }

    /// Whether the device itself says what became of a command.
    pub(super) fn confirms(&self) -> bool {
        self.topic.is_some() && self.confirm.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_the_link_are_known() {
        let of_link = link::Config::KEYS;
        // The gateway's own topics, and how it hurries: neither is a device's.
        let left_out: Vec<_> = of_link.iter().filter(|key| !LINK.contains(key)).collect();
        assert_eq!(left_out, [&"root", &"topic", &"window"]);
    }
}
