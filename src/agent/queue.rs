//! `sluicegate queue`: what waits, of a gateway that runs or of one that does not.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::control_path;
use crate::config::Config;
use crate::model::{Body, Lane, Record, Timestamp, Verdict};
use crate::queue::{LaneStatus, Look, Totals};
use crate::service::control::{self, Question};

/// The queue's folder in the state directory.
pub(super) fn folder(state_directory: &Path) -> PathBuf {
    state_directory.join("queue")
}

/// One lane, as `status` and `queue` show it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LaneLine {
    depth: u64,
    bytes: u64,
    ram: usize,
    /// In seconds.
    oldest: Option<f64>,
    next_seq: u64,
    durable: u64,
    at_start: u64,
    trouble: Option<String>,
    totals: Totals,
}

impl LaneLine {
    pub(super) fn new(status: LaneStatus) -> Self {
        let LaneStatus { depth, bytes, ram, oldest, next_seq, durable, at_start, trouble, totals, .. } = status;
        let oldest = oldest.map(|age| age.as_secs_f64());
        LaneLine { depth, bytes, ram, oldest, next_seq, durable, at_start, trouble, totals }
    }

    fn row(&self, lane: &str) -> String {
        let oldest = self.oldest.map_or_else(|| "-".to_owned(), |age| format!("{}", Age(age)));
        let Totals { dropped_bytes, dropped_age, dropped_memory, dropped_disk, damaged, refused, published } =
            self.totals;
        let dropped = dropped_bytes + dropped_age + dropped_memory + dropped_disk;
        let mut row = format!(
            "{lane:<10} {:>9} {oldest:>9} {:>11} {:>9} {published:>11} {dropped:>9} {damaged:>8} {refused:>8}",
            self.depth, self.bytes, self.ram
        );
        if let Some(trouble) = &self.trouble {
            row += &format!("  in RAM: {trouble}");
        }
        row
    }
}

const HEAD: &str = "lane         waiting    oldest   flash (B)   RAM (B)   published   dropped  damaged  refused";

/// An age for people: `93s`, `12m`, `31h`, `9d`.
struct Age(f64);

impl std::fmt::Display for Age {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Age(seconds) = *self;
        let (size, unit) = match seconds {
            ..120.0 => (1.0, "s"),
            ..7200.0 => (60.0, "m"),
            ..172_800.0 => (3600.0, "h"),
            _ => (86400.0, "d"),
        };
        write!(f, "{:.0}{unit}", seconds / size)
    }
}

/// The lanes, a line each.
///
/// # Errors
/// When no gateway runs, and none left a queue.
pub async fn show_queue(config: &Config, mut say: impl FnMut(&str) -> bool + Send) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Status {
        queue: std::collections::BTreeMap<String, LaneLine>,
    }
    let mut lines = None;
    let read = |line: &str| {
        lines = serde_json::from_str::<Status>(line).ok();
        false
    };
    let (lanes, note) = match control::ask(&control_path(config), &Question::Status, read).await {
        Ok(()) => {
            let Status { queue } =
                lines.context("the gateway's answer is not understood: is it of another version?")?;
            (queue, "")
        }
        Err(_) => {
            let look = look(config)?;
            let lanes = look.status().into_iter().map(|status| (status.lane.to_string(), LaneLine::new(status)));
            (lanes.collect(), "no gateway runs here; this is what waits on flash for the next start")
        }
    };
    say(HEAD);
    for lane in Lane::ALL {
        if let Some(line) = lanes.get(&lane.to_string()) {
            say(&line.row(&lane.to_string()));
        }
    }
    if !note.is_empty() {
        say(note);
    }
    Ok(())
}

/// The records that wait, a line of JSON each; of one lane, or of all.
///
/// # Errors
/// When no gateway runs, and none left a queue.
pub async fn dump_queue(
    config: &Config,
    lane: Option<Lane>,
    mut say: impl FnMut(&str) -> bool + Send,
) -> anyhow::Result<()> {
    let question = Question::Records { lane: lane.map(|lane| lane.to_string()) };
    if control::ask(&control_path(config), &question, &mut say).await.is_ok() {
        return Ok(());
    }
    look(config)?.records(|record| lane.is_some_and(|lane| lane != record.lane) || say(&show(&record)));
    Ok(())
}

fn look(config: &Config) -> anyhow::Result<Look> {
    let folder = folder(&config.gateway.state_directory);
    Look::into_folder(&config.queue, &folder)
        .with_context(|| format!("no gateway answers, and the queue in {} can't be read", folder.display()))
}

/// A record as a line of JSON.
pub(super) fn show(record: &Record) -> String {
    let mut line = json!({ "lane": record.lane, "epoch": record.number.epoch, "seq": record.number.seq });
    let Timestamp { uptime, boot, .. } = record.body.timestamp();
    let date = record.body.timestamp().rfc3339();
    let mut put = |key: &str, value: serde_json::Value| {
        if let Some(object) = line.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    };
    if date.is_none() {
        put("uptime", json!(uptime.as_secs_f64()));
        put("boot", json!(boot.to_string()));
    }
    put("ts", json!(date));
    match &record.body {
        Body::Reading(reading) => {
            put("device", json!(reading.device));
            put("point", json!(reading.point));
            put("value", json!(reading.value));
            put("unit", json!(reading.unit));
            put("quality", json!(reading.quality));
            put("cause", json!(reading.cause.as_ref().map(ToString::to_string)));
        }
        Body::Outcome(outcome) => {
            put("device", json!(outcome.device));
            put("point", json!(outcome.point));
            put("id", json!(outcome.id));
            put("outcome", json!(outcome.verdict.word()));
            if let Verdict::Rejected(reason) = outcome.verdict {
                put("reason", json!(reason.word()));
            }
            put("text", json!(outcome.text));
        }
    }
    line.to_string()
}
