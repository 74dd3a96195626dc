//! What is on the wire proves that nothing was lost untold: real runs, and the auditor that stands for those who write
//! the receiving side (`tests/audit`). What it should notice is in [`samples`].

mod samples;

use serde_json::Value;

use crate::support::{Agent, Gate, Mosquitto, Observer, Pty, Report, audit, audit_lines, lines, until};

fn config(port: u16, pty: &str, telemetry: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
[queue]
telemetry = {{ {telemetry} }}
replay = {{ rate = "off" }}
[device.meter]
kind = "serial"
port = "{pty}"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.meter.point.count]
from = "n"
type = "int"
"#
    )
}

/// A gateway with a sensor that counts, its broker, and a gate between.
struct Site {
    broker: Mosquitto,
    gate: Gate,
    pty: Pty,
    observer: Observer,
    agent: Agent,
    said: u64,
    /// Goes last.
    folder: tempfile::TempDir,
}

impl Site {
    /// With these settings of the telemetry lane.
    fn new(telemetry: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Nothing is dropped on the observer's way.
        let broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_queued_messages 0\n");
        let gate = Gate::to(broker.port);
        let pty = Pty::new(&folder.path().join("meter"));
        let observer = Observer::start(broker.port);
        let agent = Agent::start(folder.path(), &config(gate.port, pty.path(), telemetry));
        observer.wait_payload("sluicegate/g/meter/status", "online");
        Site { broker, gate, pty, observer, agent, said: 0, folder }
    }

    /// The sensor counts on.
    fn say(&mut self, count: u64) {
        let text: String = (self.said + 1..=self.said + count).map(|n| format!("n={n}\n")).collect();
        self.pty.say(text.as_bytes());
        self.said += count;
    }

    /// Waits until the last value is at the broker.
    #[track_caller]
    fn wait_last(&self) {
        self.observer.wait_json("sluicegate/g/meter/count", "value", self.said);
    }

    /// Waits until the gateway has numbered so many in its first run: they wait, or came to their end.
    #[track_caller]
    fn wait_numbered(&self, count: u64) {
        until("the readings to be in the queue", || {
            let status = Agent::ask(self.folder.path(), &["status"]);
            let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
            let lane = &status["queue"]["telemetry"];
            let ended = lane["totals"].as_object().into_iter().flat_map(|totals| totals.values());
            lane["depth"].as_u64().unwrap_or(0) + ended.filter_map(Value::as_u64).sum::<u64>() == count
        });
    }

    /// Stops the gateway, and audits all that was heard.
    #[track_caller]
    fn stop_and_audit(&mut self, arguments: &[&str]) -> Report {
        let before = self.farewells();
        assert!(self.agent.stop().success());
        until("the farewell", || self.farewells() > before);
        let report = audit(&self.observer, arguments);
        eprintln!("{}", report.text);
        report
    }

    fn farewells(&self) -> usize {
        self.observer
            .all()
            .iter()
            .filter(|heard| heard.topic.ends_with("g/status") && heard.payload == "offline")
            .count()
    }
}

#[test]
fn a_run_with_a_broker_that_was_killed_is_complete() {
    let mut site = Site::new(r#"max_bytes = "64MiB""#);
    site.say(500);
    site.wait_last();
    // Acknowledgements are lost, so what goes out now goes out again.
    site.gate.deafen();
    site.say(500);
    until("publishes under way", || site.gate.under_way() >= 10);
    site.broker.kill();
    site.gate.close();
    site.broker.run();
    site.observer = site.observer.again(site.broker.port);
    site.gate.open();
    site.say(500);
    site.wait_last();
    let report = site.stop_and_audit(&["--counter", "meter/count", "--to", "1500"]);
    report.assert_complete();
    assert_eq!((report.total("came"), report.total("lost")), (1500, 0));
    assert!(report.total("duplicates") > 0, "the kill came between no publish and its acknowledgement");
    // The same without one of the records is not.
    let mut without = site.observer.all();
    without.retain(|heard| !heard.payload.contains(r#""seq":700"#));
    audit_lines(&lines(&without), &[]).assert_says(1, "1 unexplained: 700");
}

#[test]
fn what_a_lane_could_not_hold_is_told() {
    let mut site = Site::new(r#"max_bytes = "64KiB""#);
    site.say(100);
    site.wait_last();
    site.gate.close();
    site.agent.wait_log("link lost");
    site.say(9900);
    site.wait_numbered(10_000);
    site.gate.open();
    site.wait_last();
    site.observer.wait_json("sluicegate/g/gap", "cause", "bytes");
    let report = site.stop_and_audit(&["--counter", "meter/count", "--to", "10000"]);
    report.assert_complete();
    assert!(report.total("lost") > 1000, "{}", report.text);
    assert_eq!(report.total("came") + report.total("lost"), 10_000, "{}", report.text);
}

#[test]
fn what_a_killed_gateway_had_is_there_or_told() {
    let mut site = Site::new(r#"max_bytes = "64MiB""#);
    site.say(100);
    site.wait_last();
    site.gate.close();
    site.agent.wait_log("link lost");
    site.say(400);
    site.wait_numbered(500);
    site.agent.kill();
    site.gate.open();
    site.agent.run();
    site.observer.wait_json("sluicegate/g/gap", "cause", "stop");
    site.say(100);
    site.wait_last();
    let report = site.stop_and_audit(&["--counter", "meter/count", "--to", "600"]);
    report.assert_complete();
    assert!(report.total("came") >= 200, "{}", report.text);
    // What it said has no key that is not explained.
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/WIRE.md")).unwrap();
    for heard in site.observer.all().iter().filter(|heard| heard.payload.starts_with('{')) {
        for key in keys(&heard.json()) {
            assert!(document.contains(&format!("\"{key}\"")), "{key} of {heard:?}");
        }
    }
}

/// All keys, but for the names of devices and points.
fn keys(message: &Value) -> Vec<String> {
    let Value::Object(message) = message else { return Vec::new() };
    let of_config = |key: &str| key == "devices" || key == "points";
    let below = |(key, value): (&String, &Value)| match value {
        Value::Object(named) if of_config(key) => named.values().flat_map(keys).collect(),
        value => keys(value),
    };
    message.keys().cloned().chain(message.iter().flat_map(below)).collect()
}

#[test]
fn a_wiped_state_directory_is_found() {
    let mut site = Site::new(r#"max_bytes = "64MiB""#);
    site.say(100);
    site.wait_last();
    site.stop_and_audit(&["--counter", "meter/count"]).assert_complete();
    std::fs::remove_dir_all(site.folder.path().join("state")).unwrap();
    site.agent.run();
    site.observer.wait("a second info", |heard| {
        heard.topic == "sluicegate/g/info" && heard.json()["last_exit"] == "first start"
    });
    site.say(100);
    site.wait_last();
    let report = site.stop_and_audit(&["--counter", "meter/count", "--to", "200"]);
    report.assert_says(2, "the state directory was wiped or restored: start 1 came twice");
    assert_eq!(report.total("came"), 200, "{}", report.text);
}

#[test]
fn one_who_was_away_proves_it_from_the_retained_health() {
    let mut site = Site::new(r#"max_bytes = "64MiB""#);
    site.say(300);
    site.wait_last();
    let late = Observer::start(site.broker.port);
    site.say(200);
    site.wait_last();
    let report = site.stop_and_audit(&["--counter", "meter/count", "--to", "500"]);
    report.assert_complete();
    until("the late one to hear the farewell", || late.all().iter().any(|heard| heard.payload == "offline"));
    // The retained copy of the 300th is one of those that came.
    let report = audit(&late, &["--away", "--counter", "meter/count", "--to", "500"]);
    report.assert_says(0, "1..500: 201 came; 299 not seen here, acknowledged by the broker");
    assert_eq!(audit(&late, &[]).total("unexplained"), 299);
}
