//! Who floods a gateway with commands that are refused costs it neither memory nor flash, and nobody else their readings
//! and commands; what is not answered is counted.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde_json::Value;

use crate::support::{Agent, Mosquitto, Observer, Pty, publish, publish_lines_with, until};

/// By each of four senders.
const EACH: usize = 2500;

fn config(port: u16, version: &str, tank: &str, meter: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
version = "{version}"
[health]
interval = "1s"
[queue]
telemetry = {{ sync = "never" }}
[device.tank]
kind = "serial"
port = "{tank}"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.tank.point.level]
from = "level"
type = "float"
[device.tank.point.valve]
type = "int"
write = "VALVE {{value}}\n"
[device.tank.point.door]
type = "int"
write = "DOOR {{value}}\n"
rate = "2/h"
[device.meter]
kind = "serial"
port = "{meter}"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.meter.point.count]
from = "n"
type = "int"
"#
    )
}

struct Site {
    broker: Mosquitto,
    observer: Observer,
    tank: Pty,
    meter: Pty,
    agent: Agent,
    folder: tempfile::TempDir,
    /// The meter said so much.
    said: usize,
    /// So many refusals were to be told.
    refused: u64,
    /// So many messages were looked at, and so many refusals were told in them.
    heard: usize,
    told: BTreeMap<String, u64>,
    health: Value,
    counted: Vec<Value>,
}

impl Site {
    fn new(version: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lines = "allow_anonymous true\nmax_inflight_messages 1000\nmax_queued_messages 0\n";
        let broker = Mosquitto::with(folder.path(), lines);
        let observer = Observer::with(broker.port, &["-q", "1", "-t", "#"]);
        let (tank, meter) = (Pty::new(&folder.path().join("tank")), Pty::new(&folder.path().join("meter")));
        let agent = Agent::start(folder.path(), &config(broker.port, version, tank.path(), meter.path()));
        observer.wait_json("sluicegate/g/info", "session", 1);
        observer.wait_payload("sluicegate/g/tank/status", "online");
        observer.wait_payload("sluicegate/g/meter/status", "online");
        let (told, counted) = (BTreeMap::new(), Vec::new());
        Site {
            broker,
            observer,
            tank,
            meter,
            agent,
            folder,
            said: 0,
            refused: 0,
            heard: 0,
            told,
            health: Value::Null,
            counted,
        }
    }

    fn look(&mut self) {
        for heard in self.observer.since(self.heard) {
            self.heard += 1;
            if heard.topic.ends_with("/outcome") && heard.json()["outcome"] == "rejected" {
                *self.told.entry(heard.json()["reason"].as_str().unwrap().to_owned()).or_default() += 1;
            } else if heard.topic == "sluicegate/g/meter/count" {
                self.counted.push(heard.json()["value"].clone());
            } else if heard.topic == "sluicegate/g/health" {
                self.health = heard.json();
            }
        }
    }

    /// Health that is younger than this call.
    fn health(&mut self) -> Value {
        self.look();
        let before = self.health["ts"].clone();
        until("the next health", || {
            self.look();
            self.health["ts"] != before
        });
        self.health.clone()
    }

    /// Length and time of the journal.
    fn journal(&self) -> Option<(u64, SystemTime)> {
        let of_file = std::fs::metadata(self.folder.path().join("state/commands/journal")).ok()?;
        Some((of_file.len(), of_file.modified().unwrap()))
    }

    fn set(&self, topic: &str, payload: &str) {
        publish(self.broker.port, &format!("sluicegate/g/{topic}/set"), payload);
    }

    /// All of these at once, each line a command that is refused, while the meter goes on; seconds that it took.
    fn flood(&mut self, senders: &[(&str, String, &[&str])]) -> f64 {
        let start = Instant::now();
        let port = self.broker.port;
        let took = std::thread::scope(|scope| {
            let threads: Vec<_> = senders
                .iter()
                .map(|(topic, lines, arguments)| {
                    let topic = format!("sluicegate/g/{topic}/set");
                    scope.spawn(move || publish_lines_with(port, &topic, lines, arguments))
                })
                .collect();
            until("the senders to end", || {
                self.said += 1;
                self.meter.say(format!("n={}\n", self.said).as_bytes());
                self.look();
                threads.iter().all(std::thread::ScopedJoinHandle::is_finished)
            });
            start.elapsed().as_secs_f64()
        });
        self.refused += senders.iter().map(|(_, lines, _)| lines.lines().count() as u64).sum::<u64>();
        until("all refusals to be told or counted", || {
            self.look();
            let told: u64 = self.told.values().sum();
            told + self.health["refusals_lost"].as_u64().unwrap_or_default() == self.refused
        });
        let all: Vec<Value> = (1..=self.said).map(Value::from).collect();
        until("all readings", || {
            self.look();
            self.counted.len() >= all.len()
        });
        assert_eq!(self.counted, all, "the other device's readings, in their order");
        took
    }
}

fn flood(version: &str) {
    let mut site = Site::new(version);
    let numbers = |from: usize| (from..from + EACH).map(|n| format!("{n}\n")).collect::<String>();
    let named = (0..EACH).map(|n| format!("{{\"value\":{n},\"id\":\"n{n}\"}}\n")).collect::<String>();
    // MQTT 3.1.1 delivers what is published as retained like any other, so there it must not be able to act.
    let (retained, flags): (_, &[&str]) =
        if version == "5" { ("tank/valve", &["-V", "5", "-r"]) } else { ("tank/level", &["-r"]) };
    // Once around, so that all that is ever needed is there.
    site.flood(&[("tank/nothing", numbers(0), &[])]);
    let before = (site.health(), site.journal(), site.agent.memory());
    let took = site.flood(&[
        ("tank/nothing", numbers(0), &[]),
        ("tank/valve", "much\n".repeat(EACH), &[]),
        ("boiler", named, &[]),
        (retained, numbers(0), flags),
    ]);
    let after = (site.health(), site.journal(), site.agent.memory());
    assert_eq!(after.1, before.1, "the journal was written");
    assert_eq!(after.0["flash_bytes"], before.0["flash_bytes"], "the queue's files were written");
    assert!(after.2 <= before.2 + 1024, "memory grew from {} to {} KiB", before.2, after.2);

    // Two act, and all others are above the rate.
    for (value, id) in [(1, "d1"), (2, "d2")] {
        site.set("tank/door", &format!(r#"{{"value":{value},"id":"{id}"}}"#));
        site.observer.wait_json("sluicegate/g/tank/door/outcome", "id", id);
    }
    let (journal, memory) = (site.journal(), site.agent.memory());
    let above = site.flood(&[
        ("tank/door", numbers(0), &[]),
        ("tank/door", numbers(10_000), &[]),
        ("tank/door", numbers(20_000), &[]),
        ("tank/door", numbers(30_000), &[]),
    ]);
    assert_eq!(site.journal(), journal, "the journal was written");
    assert!(site.agent.memory() <= memory + 1024, "memory grew from {memory} to {} KiB", site.agent.memory());

    site.set("tank/valve", r#"{"value":7,"id":"after"}"#);
    assert_eq!(site.observer.wait_json("sluicegate/g/tank/valve/outcome", "id", "after")["outcome"], "done");
    assert_eq!(site.tank.heard_so_far(), "DOOR 1\nDOOR 2\nVALVE 7\n");
    let log = site.agent.log();
    assert!(!log.contains("link lost"), "{log}");
    let lines = log.lines().filter(|line| line.contains("command rejected")).count();
    eprintln!(
        "MQTT {version}: {} refused commands in {took:.1} s, and in {above:.1} s above a rate; told: {:?}, counted: {}; \
         {} KiB before, {} KiB at the end; {} readings beside; {lines} lines in the log",
        site.refused,
        site.told,
        site.health["refusals_lost"],
        before.2,
        site.agent.memory(),
        site.said,
    );
    assert!(lines < 100, "{lines} lines in the log");
}

#[test]
fn a_flood_of_refused_commands_costs_nothing_on_mqtt_3() {
    flood("3.1.1");
}

#[test]
fn a_flood_of_refused_commands_costs_nothing_on_mqtt_5() {
    flood("5");
}
