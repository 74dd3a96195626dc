//! What somebody who listens at the broker knows of the gateway, and nothing more: built from messages only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::broker::Publish;

/// Values that are kept of a point, for its curve.
const HISTORY: usize = 24;

/// Commands that are kept for the view.
const COMMANDS: usize = 3;

/// The gateway as it looks from the broker.
#[derive(Debug)]
pub(crate) struct Picture {
    root: String,
    start: Instant,
    /// `online` or `offline`, where anybody said so.
    pub(crate) presence: Option<String>,
    /// By their names.
    pub(crate) devices: BTreeMap<String, Device>,
    /// The last ones, oldest first.
    pub(crate) commands: VecDeque<Command>,
    /// What happened since it was last shown, in a line each, and when.
    pub(crate) news: Vec<(Duration, String)>,
    /// What came so far.
    pub(crate) counts: Counts,
    numbers: Numbers,
}

/// A device as it looks from the broker.
#[derive(Debug, Default)]
pub(crate) struct Device {
    pub(crate) presence: Option<String>,
    pub(crate) points: BTreeMap<String, Point>,
}

/// The newest value of a point.
#[derive(Debug, Default)]
pub(crate) struct Point {
    pub(crate) value: String,
    pub(crate) unit: String,
    /// It was not shown yet.
    pub(crate) fresh: bool,
    /// Numbers before it, and it.
    pub(crate) history: VecDeque<f64>,
}

/// A command, by whomever, and what became of it.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) at: Duration,
    point: String,
    pub(crate) text: String,
    id: Option<String>,
    sent: Instant,
    pub(crate) outcome: Option<String>,
}

/// What came so far.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) live: u64,
    pub(crate) late: u64,
    pub(crate) done: u64,
    pub(crate) refused: u64,
    pub(crate) gaps: u64,
}

/// The gateway numbers its readings without a hole, so whoever listens can prove that none is missing.
#[derive(Debug, Default)]
struct Numbers {
    /// All up to here have come.
    complete: u64,
    ahead: BTreeSet<u64>,
    copies: u64,
}

impl Numbers {
    fn came(&mut self, seq: u64) {
        if seq <= self.complete || !self.ahead.insert(seq) {
            self.copies += 1;
        }
        while self.ahead.remove(&(self.complete + 1)) {
            self.complete += 1;
        }
    }

    fn missing(&self) -> u64 {
        let newest = self.ahead.last().copied().unwrap_or(self.complete);
        newest - self.complete - u64::try_from(self.ahead.len()).unwrap_or_default()
    }
}

impl Picture {
    /// Nothing is known yet of the gateway under this root.
    pub(crate) fn new(root: &str) -> Self {
        Picture {
            root: format!("{root}/"),
            start: Instant::now(),
            presence: None,
            devices: BTreeMap::new(),
            commands: VecDeque::new(),
            news: Vec::new(),
            counts: Counts::default(),
            numbers: Numbers::default(),
        }
    }

    /// How long this has been going on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Readings that must have been sent, as later ones came, and are not here.
    pub(crate) fn missing(&self) -> u64 {
        self.numbers.missing()
    }

    /// Readings that came more than once.
    pub(crate) fn copies(&self) -> u64 {
        self.numbers.copies
    }

    /// Something happened.
    pub(crate) fn tell(&mut self, text: String) {
        self.news.push((self.start.elapsed(), text));
    }

    /// The broker went away: nobody can say how the gateway is.
    pub(crate) fn forget_presence(&mut self) {
        self.presence = None;
        self.devices.values_mut().for_each(|device| device.presence = None);
    }

    /// A message at the broker.
    pub(crate) fn heard(&mut self, publish: &Publish) {
        let Some(topic) = publish.topic.strip_prefix(&self.root) else { return };
        let payload = String::from_utf8_lossy(&publish.payload);
        let json = || serde_json::from_str::<Value>(&payload).unwrap_or_default();
        match topic.split('/').collect::<Vec<_>>().as_slice() {
            ["status"] => {
                if self.presence.as_deref() != Some(&payload) {
                    self.tell(format!("the gateway is {payload}"));
                }
                self.presence = Some(payload.into_owned());
            }
            ["gap"] => {
                self.counts.gaps += 1;
                self.tell(format!("a gap: {payload}"));
            }
            [device, "status"] => {
                let known = self.devices.entry((*device).to_owned()).or_default();
                let before = known.presence.replace(payload.to_string());
                if before.as_deref() != Some(&payload) {
                    self.tell(format!("device {device} is {payload}"));
                }
            }
            [device, point, "set"] => self.command(&format!("{device}/{point}"), &payload),
            [device, point, "outcome"] => self.outcome(&format!("{device}/{point}"), &json()),
            [device, point] if *point != "problem" => self.reading(device, point, &json()),
            _ => {}
        }
    }

    fn reading(&mut self, device: &str, point: &str, reading: &Value) {
        if reading["repeat"] == true || reading["value"].is_null() {
            return;
        }
        if let Some(seq) = reading["seq"].as_u64() {
            self.numbers.came(seq);
        }
        if reading["late"] == true {
            // It is older than what is shown.
            self.counts.late += 1;
            return;
        }
        self.counts.live += 1;
        let point = self.devices.entry(device.to_owned()).or_default().points.entry(point.to_owned()).or_default();
        point.value = spoken(&reading["value"]);
        point.unit = reading["unit"].as_str().unwrap_or_default().to_owned();
        point.fresh = true;
        if let Some(number) = reading["value"].as_f64() {
            point.history.push_back(number);
            point.history.drain(..point.history.len().saturating_sub(HISTORY));
        }
    }

    fn command(&mut self, point: &str, payload: &str) {
        let json = serde_json::from_str::<Value>(payload).ok().filter(Value::is_object);
        let value = json.as_ref().map_or_else(|| payload.to_owned(), |json| spoken(&json["value"]));
        let id = json.and_then(|json| json["id"].as_str().map(str::to_owned));
        let text = format!("{point} {value}");
        let (point, sent, at) = (point.to_owned(), Instant::now(), self.elapsed());
        self.commands.push_back(Command { at, point, text, id, sent, outcome: None });
        self.commands.drain(..self.commands.len().saturating_sub(COMMANDS));
    }

    fn outcome(&mut self, point: &str, outcome: &Value) {
        let word = outcome["outcome"].as_str().unwrap_or("?");
        match word {
            "done" => self.counts.done += 1,
            _ => self.counts.refused += 1,
        }
        let reason = outcome["reason"].as_str().map_or_else(String::new, |reason| format!(" ({reason})"));
        // The gateway makes an id up for a command without one.
        let command = self.commands.iter_mut().find(|command| {
            let own = command.id.as_deref().is_none_or(|id| outcome["id"] == id);
            command.point == point && command.outcome.is_none() && own
        });
        if let Some(command) = command {
            let took = command.sent.elapsed().as_secs_f64() * 1000.0;
            let text = format!("{word}{reason} after {took:.0} ms");
            let news = format!("command {}: {text}", command.text);
            command.outcome = Some(text);
            self.tell(news);
        }
    }
}

/// A value as people say it.
fn spoken(value: &Value) -> String {
    match value {
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}
