//! Devices on an MQTT broker, on the board or in its network: Tasmota, ESPHome, Shelly, anything that says its values on
//! topics and takes commands on others.
//!
//! `config` is the keys, `topic` the rules of topics, `ear` reads messages, `deed` is a command under way: pure functions
//! and state. `talk` is one connection of one device, and does the I/O; each device has a [`link`] of its own, so that
//! none harms another. The connection's end is the driver's; the supervisor's next start opens the next one.
//!
//! The broker keeps the session: what the device says at QoS 1 while nobody listens comes later. A message is
//! acknowledged when its readings were handed over, so each comes at least once. Stored messages are of unknown age, and
//! count only where the config says so.

mod config;
mod deed;
mod ear;
mod probe;
mod talk;
#[cfg(test)]
mod tests;
mod topic;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::config::{Config, KEYS, POINT_KEYS, PointConfig};
use self::ear::{Ear, ReadPoint};
use self::talk::{Past, Talk};
use super::io::sleep_until;
use super::template::Template;
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Kind, Run, Shape, Spec};
use crate::link;
use crate::model::{Fault, PointName, time};

/// Devices on a broker.
pub(super) const KIND: Kind = Kind {
    name: "mqtt",
    summary: "a device on an MQTT broker on the board or near it: Tasmota, ESPHome, Shelly, or any other's topics",
    sample: include_str!("sample.toml"),
    device_keys: || &KEYS,
    point_keys: || POINT_KEYS,
    build,
    discover: |_| {},
};

struct Mqtt {
    link: link::Config,
    config: Config,
    ear: Ear,
    subscriptions: Vec<link::Filter>,
    /// A topic of the client's own, for what it tells itself: where what the broker kept is over.
    marker: String,
    writers: BTreeMap<PointName, Writer>,
    /// What one connection leaves to the next.
    past: Mutex<Past>,
}

/// How a point is set.
#[derive(Debug)]
struct Writer {
    topic: String,
    payload: Template,
    /// Whether the device says what it did.
    confirms: bool,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let (mut faults, read) = match config::read(&spec) {
        Ok(read) => (Vec::new(), Some(read)),
        Err(faults) => (faults, None),
    };
    let (mut readers, mut writers, mut shapes, mut filters) = (Vec::new(), BTreeMap::new(), Vec::new(), Vec::new());
    for point in spec.points {
        let (name, value_type) = (point.name, point.declaration.value_type);
        let under = |fault: Fault| fault.under(&["point", name.as_str()]);
        let keys = match PointConfig::read(&point.table) {
            Ok(keys) => keys,
            Err(found) => {
                faults.extend(found.into_iter().map(under));
                continue;
            }
        };
        let (topics, payload, wrong) = keys.parse();
        faults.extend(wrong.into_iter().map(under));
        if keys.set.is_some() && value_type.is_none() {
            let text = "a writable point needs a `type`: expected bool, int, float or text";
            faults.push(under(Fault::at("type", text)));
        }
        shapes.push(Shape { writable: keys.set.is_some(), value_type, holds: false });
        let confirms = keys.confirms();
        if let (Some(set), Some(payload)) = (keys.set, payload) {
            writers.insert(name.clone(), Writer { topic: set.topic, payload, confirms });
        }
        for filter in &topics {
            // The one that is found to be too much is the later one.
            filters.push(filter.clone());
            if let Err((one, other)) = topic::subscriptions(&filters) {
                let other = if one == filter { other } else { one };
                let text = format!(
                    "`{}` and `{}` overlap, and a message on both would come twice: expected one of them to hold the other",
                    filter.as_str(),
                    other.as_str()
                );
                faults.push(under(Fault::at("topic", text)));
                filters.pop();
            }
        }
        readers.push(ReadPoint { name, value_type, topics, from: keys.from, stored: keys.stored.unwrap_or(false) });
    }
    let Some((link, config)) = read else { return Err(faults) };
    let ear = Ear::new(&config.decode, readers).map_err(|wrong| faults.extend(wrong)).ok();
    if let Some(status) = &config.status {
        filters.extend(topic::TopicFilter::parse(&status.topic));
    }
    let subscriptions = topic::subscriptions(&filters).map_err(|_| {
        faults.push(Fault::at("status.topic", "overlaps the topics of a point in a way that it would come twice"));
    });
    match (ear, subscriptions) {
        (Some(ear), Ok(subscriptions)) if faults.is_empty() => {
            let marker = topic::marker(&link.client_id);
            let driver = Mqtt { link, config, ear, subscriptions, marker, writers, past: Mutex::default() };
            Ok(Built { driver: Arc::new(driver), points: shapes })
        }
        _ => Err(faults),
    }
}

impl Driver for Mqtt {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(self.life(io))
    }

    fn sleeps(&self) -> Option<Duration> {
        self.config.awake.and(self.patience())
    }

    fn link(&self) -> Option<&link::Config> {
        Some(&self.link)
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(probe::probe(self))
    }
}

impl Mqtt {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let mut talk = Talk::open(self)?;
        loop {
            let due = talk.due();
            tokio::select! {
                biased;
                ask = io.next() => match ask {
                    Ask::Stop => {
                        talk.part().await;
                        return Ok(());
                    }
                    Ask::Write(write) => talk.write(io, write).await,
                },
                event = talk.next() => talk.take(io, event?).await?,
                () = sleep_until(due, time::uptime()) => talk.overdue(io).await,
            }
        }
    }

    /// How long the device may be silent.
    fn patience(&self) -> Option<Duration> {
        self.config.interval.map(|interval| interval.0 * 3 / 2)
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the broker's URL before it: there may be more than one broker.
    fn about(&self, error: &link::LinkError) -> String {
        let urls: Vec<String> = self.link.url.0.iter().map(ToString::to_string).collect();
        format!("its broker {}: {error}", urls.join(", "))
    }
}

impl fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mqtt").field("config", &self.config).finish_non_exhaustive()
    }
}
