//! What the gateway says about itself: status, info, health, problems, and the last values.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use super::plain::{self, Copy, Moment};
use super::{Payload, Shared};
use crate::link::{Content, Kept, Publish};
use crate::model::{
    self, DeviceName, DeviceState, DeviceStates, Point, PointKey, Problem, Problems, Timestamp, Value, ValueType, time,
};
use crate::queue::{LaneStatus, Totals};

/// So long before its end a certificate is a problem: people get to it, and authorities renew before that.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);

/// The payload of a status: exactly these two words, and the Last Will is the second.
pub(super) fn status(online: bool) -> Bytes {
    Bytes::from_static(if online { b"online" } else { b"offline" })
}

/// A retained message.
pub(super) fn retained(topic: String, (payload, content): (Bytes, Content)) -> Publish {
    Publish { topic, payload, retain: true, content, correlation: None }
}

/// Makes the broker forget what it retained for this topic.
pub(super) fn cleared(topic: String) -> Publish {
    retained(topic, (Bytes::new(), Content::Text))
}

impl Shared {
    /// The gateway's own status.
    pub(super) fn own_status(&self, online: bool) -> Publish {
        retained(self.topics.own("status"), (status(online), Content::Text))
    }

    /// The states and problems of the devices that are not as they were said to be.
    pub(super) fn device_words(&self, states: &DeviceStates, said: &Option<DeviceStates>) -> Vec<Publish> {
        let mut words = Vec::new();
        for device in self.parts.devices.keys() {
            let state = states.get(device);
            if said.as_ref().is_some_and(|said| said.get(device) == state) {
                continue;
            }
            let online = state == Some(&DeviceState::Online);
            words.push(retained(self.topics.device(device, "status"), (status(online), Content::Text)));
            let problems: Vec<_> = self.device_problem(device, state).into_iter().collect();
            words.push(retained(self.topics.device(device, "problem"), plain::json(&problems)));
        }
        words
    }

    fn device_problem(&self, device: &DeviceName, state: Option<&DeviceState>) -> Option<Told> {
        let Some(DeviceState::Offline { why, since }) = state else { return None };
        Some(Told::new("device", device.as_str(), why, since))
    }

    /// What a person should look at, of all rooms.
    pub(super) fn problem_word(&self) -> Publish {
        let mut all: Vec<Told> = Vec::new();
        let mut add = |problems: &Problems| {
            for ((_, about), Problem { code, text, since }) in problems {
                all.push(Told::new(code, about, text, since));
            }
        };
        add(&self.problems);
        for problems in &self.parts.problems {
            add(&problems.borrow());
        }
        let states = self.parts.states.borrow();
        all.extend(states.iter().filter_map(|(device, state)| self.device_problem(device, Some(state))));
        retained(self.topics.own("problem"), plain::json(&all))
    }

    /// The last values of those retained points of which this is wanted, once more.
    pub(super) fn last_values(&self, wanted: impl Fn(&PointKey) -> bool) -> Vec<Publish> {
        let last = self.parts.last.borrow();
        let now = time::now();
        let publish = |reading: &crate::model::Reading| {
            let plan = self.points.get(&reading.key())?;
            let payload = match plan.config.payload {
                form if form.is_bare() => plain::bare(form, reading),
                form => plain::reading(form, reading, None, Copy::Repeat, &now),
            };
            // An empty retained payload would clear the topic instead.
            (!payload.0.is_empty()).then(|| retained(self.topics.reading(&reading.device, &reading.point), payload))
        };
        last.iter().filter(|(key, _)| wanted(key)).filter_map(|(_, reading)| publish(reading)).collect()
    }

    /// Who the gateway is.
    pub(super) fn info_word(&self) -> Publish {
        #[derive(Serialize)]
        struct Info<'a> {
            version: &'static str,
            instance: &'a str,
            boot: String,
            session: u32,
            last_exit: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            before: Option<InfoBefore>,
            #[serde(skip_serializing_if = "Option::is_none")]
            topic: Option<&'a str>,
            devices: BTreeMap<&'a str, InfoDevice<'a>>,
        }
        #[derive(Serialize)]
        struct InfoBefore {
            epoch: u64,
            clean: bool,
            next_seq: BTreeMap<String, u64>,
        }
        #[derive(Serialize)]
        struct InfoDevice<'a> {
            kind: &'a str,
            points: BTreeMap<&'a str, InfoPoint<'a>>,
        }
        #[derive(Serialize)]
        struct InfoPoint<'a> {
            #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
            value_type: Option<ValueType>,
            #[serde(skip_serializing_if = "Option::is_none")]
            unit: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            min: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            max: Option<f64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            safe: Option<&'a Value>,
            writable: bool,
            #[serde(skip_serializing_if = "is_json")]
            payload: Payload,
        }
        #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde wants it")]
        fn is_json(payload: &Payload) -> bool {
            *payload == Payload::Json
        }
        let mut devices: BTreeMap<&str, InfoDevice<'_>> = self
            .parts
            .devices
            .iter()
            .map(|(device, kind)| (device.as_str(), InfoDevice { kind, points: BTreeMap::new() }))
            .collect();
        for plan in &self.parts.points {
            let Point { device, name, value_type, unit, min, max, safe, writable } = &plan.point;
            if let Some(device) = devices.get_mut(device.as_str()) {
                let point = InfoPoint {
                    value_type: *value_type,
                    unit: unit.as_deref(),
                    min: *min,
                    max: *max,
                    safe: safe.as_ref(),
                    writable: *writable,
                    payload: plan.config.payload,
                };
                device.points.insert(name.as_str(), point);
            }
        }
        let start = &self.parts.start;
        let info = Info {
            version: env!("CARGO_PKG_VERSION"),
            instance: &start.instance,
            boot: time::boot().to_string(),
            session: start.session,
            last_exit: &start.last_exit,
            before: start.before.as_ref().map(|before| InfoBefore {
                epoch: before.epoch,
                clean: before.clean,
                next_seq: model::Lane::ALL.iter().map(ToString::to_string).zip(before.next_seq).collect(),
            }),
            topic: self.topics.template(),
            devices,
        };
        retained(self.topics.own("info"), plain::json(&info))
    }

    /// Raises a problem while our own certificate ends soon, as far as the clock can tell.
    pub(super) fn judge_certificate(&mut self, kept: &Kept) {
        let found = kept.identity().and_then(|identity| Some((identity.certificate()?, identity.expires()?)));
        match found {
            Some((file, end)) if end < time::at_least() + RENEW => {
                let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + end);
                let file = file.display();
                self.raise(
                    "certificate",
                    format!("the certificate {file} is valid until {date}: renew it, and reload"),
                );
            }
            _ => self.clear("certificate"),
        }
    }

    /// How the gateway is.
    pub(super) fn health_word(&self, kept: &Kept) -> Publish {
        #[derive(Serialize)]
        struct Lane {
            depth: u64,
            bytes: u64,
            /// Age of the oldest record, in seconds.
            oldest: Option<f64>,
            next_seq: u64,
            at_start: u64,
            #[serde(flatten)]
            totals: Totals,
        }
        #[derive(Serialize)]
        struct Health {
            #[serde(flatten)]
            moment: Moment,
            /// Since boot, in seconds.
            uptime_s: f64,
            /// The epoch that the lanes' numbers belong to.
            epoch: u64,
            lanes: BTreeMap<String, Lane>,
            replaced: u64,
            connections: u64,
            refusals_lost: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            memory_bytes: Option<u64>,
            /// Written to flash since the start.
            flash_bytes: u64,
            sent_bytes: usize,
            received_bytes: usize,
            #[serde(skip_serializing_if = "Option::is_none")]
            certificate_days: Option<i64>,
        }
        let now = time::now();
        let lane = |status: LaneStatus| {
            let LaneStatus { lane, depth, bytes, oldest, next_seq, at_start, totals, .. } = status;
            let oldest = oldest.map(|age| age.as_secs_f64());
            (lane.to_string(), Lane { depth, bytes, oldest, next_seq, at_start, totals })
        };
        let moment = Moment::new(&now, &now);
        let health = Health {
            moment,
            uptime_s: now.uptime.as_secs_f64(),
            epoch: self.parts.queue.epoch(),
            lanes: self.parts.queue.status().into_iter().map(lane).collect(),
            replaced: self.parts.queue.replaced(),
            connections: self.counters.connections,
            refusals_lost: self.counters.refusals_lost + *self.parts.refusals_lost.borrow(),
            memory_bytes: (self.parts.memory)(),
            flash_bytes: self.parts.queue.flash_bytes(),
            sent_bytes: kept.traffic.sent.load(Ordering::Relaxed),
            received_bytes: kept.traffic.received.load(Ordering::Relaxed),
            certificate_days: kept
                .identity()
                .and_then(|identity| identity.expires())
                .map(|end| days_until(end, time::at_least())),
        };
        retained(self.topics.own("health"), plain::json(&health))
    }
}

/// Whole days until then; negative once it is past.
fn days_until(end: Duration, now: Duration) -> i64 {
    const DAY: i64 = 24 * 3600;
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    (seconds(end) - seconds(now)).div_euclid(DAY)
}

/// One problem as it is published.
#[derive(Debug, Serialize)]
struct Told {
    code: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    about: String,
    text: String,
    since: Option<String>,
}

impl Told {
    fn new(code: &'static str, about: &str, text: &str, since: &Timestamp) -> Self {
        Told { code, about: about.to_owned(), text: text.to_owned(), since: since.dated(&time::now()).rfc3339() }
    }
}
