//! One device that floods the gateway takes nothing from another one: no reading, no number, no time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::{Agent, Flash, Gate, Mosquitto, Observer, Pty, audit, until};

/// The fast device says so much at each look at what is waited for: about 10 000 readings a second.
const FLOOD: usize = 50;

fn config(port: u16, fast: &str, slow: &str, max_rate: &str, sync: &str) -> String {
    let device = |name: &str, port: &str, max_rate: &str| {
        format!(
            r#"
[device.{name}]
kind = "serial"
port = "{port}"
{max_rate}
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.{name}.point.count]
from = "n"
type = "int"
retain = false
"#
        )
    };
    let devices = device("fast", fast, max_rate) + &device("slow", slow, "");
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
[queue]
telemetry = {{ sync = "{sync}" }}
replay = {{ rate = "off" }}
{devices}
"#
    )
}

/// A gateway with two devices on a flash that can be slow.
struct Site {
    flash: Flash,
    gate: Gate,
    fast: Counter,
    slow: Counter,
    observer: Observer,
    agent: Agent,
    _broker: Mosquitto,
    /// Goes last.
    _folder: tempfile::TempDir,
}

struct Counter {
    pty: Pty,
    said: usize,
}

impl Counter {
    fn say(&mut self, count: usize) {
        let text: String = (self.said + 1..=self.said + count).map(|n| format!("n={n}\n")).collect();
        self.pty.say(text.as_bytes());
        self.said += count;
    }
}

impl Site {
    fn new(max_rate: &str, sync: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lines = "allow_anonymous true\nmax_inflight_messages 1000\nmax_queued_messages 0\n";
        let broker = Mosquitto::with(folder.path(), lines);
        let gate = Gate::to(broker.port);
        let counter = |name| Counter { pty: Pty::new(&folder.path().join(name)), said: 0 };
        let (fast, slow) = (counter("fast"), counter("slow"));
        let observer = Observer::with(broker.port, &["-q", "1", "-t", "#"]);
        let flash = Flash::new(folder.path());
        let config = config(gate.port, fast.pty.path(), slow.pty.path(), max_rate, sync);
        let agent = Agent::start_with(folder.path(), &config, &flash.environment());
        observer.wait_payload("sluicegate/g/fast/status", "online");
        observer.wait_payload("sluicegate/g/slow/status", "online");
        Site { flash, gate, fast, slow, observer, agent, _broker: broker, _folder: folder }
    }

    /// The fast device floods, and the slow one says something ten times a second, for so long.
    fn flood(&mut self, time: Duration) {
        let start = Instant::now();
        let before = self.slow.said;
        until("the end of the flood", || {
            self.fast.say(FLOOD);
            let due = before + usize::try_from(start.elapsed().as_millis() / 100).unwrap() + 1;
            if self.slow.said < due {
                self.slow.say(1);
            }
            start.elapsed() >= time
        });
    }

    /// The values of a device that came.
    fn came(&self, device: &str) -> BTreeSet<u64> {
        let topic = format!("sluicegate/g/{device}/count");
        let all = self.observer.all();
        let of_device = all.iter().filter(|heard| heard.topic == topic).map(crate::support::Heard::json);
        of_device.filter(|reading| reading["repeat"] != true).map(|of| of["value"].as_u64().unwrap()).collect()
    }

    /// Everything goes out, the gateway stops, and nothing of the slow device is missing.
    #[track_caller]
    fn end(mut self) -> (usize, usize, u64) {
        let last = |counter: &Counter, device: &str| {
            self.observer.wait_json(&format!("sluicegate/g/{device}/count"), "value", counter.said);
        };
        last(&self.slow, "slow");
        last(&self.fast, "fast");
        until("the backlog to be through", || {
            self.agent.status().is_some_and(|status| status["queue"]["telemetry"]["depth"] == 0)
        });
        assert!(self.agent.stop().success());
        until("the farewell", || self.observer.all().last().is_some_and(|last| last.payload == "offline"));
        let report = audit(&self.observer, &[]);
        report.assert_complete();
        assert_eq!(report.total("lost"), 0, "{}", report.text);
        assert!(self.came("slow").into_iter().eq(1..=self.slow.said as u64), "the slow device lost readings");
        let gaps: Vec<_> = self.observer.all().into_iter().filter(|heard| heard.topic.ends_with("g/gap")).collect();
        let overflow = gaps.iter().map(|gap| {
            let gap = gap.json();
            assert_eq!((&gap["device"], &gap["cause"]), (&"fast".into(), &"overflow".into()), "{gap}");
            gap["count"].as_u64().unwrap()
        });
        (self.fast.said, self.came("fast").len(), overflow.sum())
    }
}

/// A flood while the link is there, cut, and there again.
fn a_flood(max_rate: &str) -> (usize, usize, u64) {
    let mut site = Site::new(max_rate, "1s");
    site.flood(Duration::from_millis(500));
    site.gate.close();
    site.flood(Duration::from_millis(3000));
    let flash = site.agent.status().unwrap()["queue"]["telemetry"]["durable"].as_u64();
    assert!(flash > Some(0), "the flash was not used");
    site.gate.open();
    site.flood(Duration::from_millis(500));
    site.end()
}

#[test]
fn a_flood_within_max_rate_costs_the_other_device_nothing() {
    let (said, came, overflow) = a_flood("");
    eprintln!("the fast device: {said} said, {came} came, {overflow} told as coalesced");
    assert!(overflow > 0, "the fast device was not above its max_rate");
    assert_eq!(came as u64 + overflow, said as u64);
}

#[test]
fn a_flood_without_max_rate_costs_the_other_device_nothing() {
    let (said, came, overflow) = a_flood(r#"max_rate = "off""#);
    eprintln!("the fast device: {said} said, {came} came");
    assert_eq!((came, overflow), (said, 0));
}

#[test]
fn a_device_waits_for_no_sync_of_another_one() {
    const SYNC: Duration = Duration::from_secs(2);
    let mut site = Site::new(r#"max_rate = "off""#, "always");
    site.fast.say(FLOOD);
    site.flash.slow(SYNC);
    let mut worst = Duration::ZERO;
    for _ in 0..10 {
        site.fast.say(FLOOD * 4);
        // Each of these is said while a sync is running: with `always` one begins as soon as there is something.
        site.slow.say(1);
        let start = Instant::now();
        let value = site.slow.said as u64;
        let came =
            |heard: &crate::support::Heard| heard.topic.ends_with("slow/count") && heard.json()["value"] == value;
        site.observer.wait("the slow device's reading", came);
        worst = worst.max(start.elapsed());
        let queue = &site.agent.status().unwrap()["queue"]["telemetry"];
        let (next_seq, durable) = (queue["next_seq"].as_u64().unwrap(), queue["durable"].as_u64().unwrap());
        assert!(durable + 1 < next_seq, "no sync was running: {queue}");
    }
    eprintln!("with syncs of {SYNC:?}, a reading took up to {worst:?}");
    assert!(worst < SYNC / 2, "a reading took {worst:?}");
    site.flash.recover();
    let (said, came, _) = site.end();
    assert_eq!(came, said);
}

#[test]
fn a_device_loses_nothing_while_another_one_waits_for_the_flash() {
    let mut site = Site::new(r#"max_rate = "off""#, "1s");
    site.gate.close();
    site.agent.wait_log("link lost");
    site.flash.slow(Duration::from_millis(400));
    site.flood(Duration::from_secs(4));
    site.flash.recover();
    site.gate.open();
    let (said, came, _) = site.end();
    eprintln!("the fast device: {said} said, {came} came");
    assert_eq!(came, said);
}
