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

    /// The same, to a gateway that was started again, and may not listen yet.
    #[track_caller]
    fn say_to_newcomer(&mut self, count: u64) {
        until("the device", || {
            self.agent.status().is_some_and(|status| status["devices"]["meter"]["state"] == "online")
        });
        self.say(count);
        self.wait_last();
    }

    /// Waits until this start was told so many times.
    #[track_caller]
    fn wait_info(&self, session: u64, times: usize) {
        until("an info", || {
            let infos = self.observer.all().into_iter().filter(|heard| heard.topic == "sluicegate/g/info");
            infos.filter(|info| info.json()["session"] == session).count() == times
        });
    }

    /// Waits until the last value is at the broker.
    #[track_caller]
    fn wait_last(&self) {
        self.observer.wait_json("sluicegate/g/meter/count", "value", self.said);
    }

    /// Waits until the gateway has numbered so many in its first run: they wait, or came to their end.
    #[track_caller]
    fn wait_numbered(&self, count: u64) {
        let next_seq = || self.agent.status()?["queue"]["telemetry"]["next_seq"].as_u64();
        until("the readings to be in the queue", || next_seq() == Some(count + 1));
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
    let said =
        site.agent.log().matches("the lane telemetry drops its oldest records: its max_bytes is reached").count();
    assert_eq!(said, 1, "one line for an episode");
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
fn a_restored_state_directory_is_found() {
    let mut site = Site::new(r#"max_bytes = "64MiB""#);
    let (state, backup) = (site.folder.path().join("state"), site.folder.path().join("backup"));
    site.say(100);
    site.wait_last();
    site.gate.close();
    site.agent.wait_log("link lost");
    site.say(100);
    site.wait_numbered(200);
    assert!(site.agent.stop().success());
    copy(&state, &backup);
    // These go out, and others after them.
    site.gate.open();
    site.agent.run();
    site.wait_last();
    site.say_to_newcomer(100);
    site.stop_and_audit(&["--counter", "meter/count", "--to", "300"]).assert_complete();
    std::fs::remove_dir_all(&state).unwrap();
    copy(&backup, &state);
    site.agent.run();
    site.wait_info(2, 2);
    site.say_to_newcomer(100);
    let report = site.stop_and_audit(&["--counter", "meter/count", "--to", "400"]);
    report.assert_says(2, "the state directory was wiped or restored: start 2 came twice");
    assert_eq!(report.total("came"), 400, "{}", report.text);
    // What had waited in the backup came once more, under the same numbers.
    assert!(report.total("duplicates") >= 100, "{}", report.text);
}

#[test]
fn a_clone_of_a_card_is_found() {
    let mut site = Site::new(r#"max_bytes = "64MiB""#);
    site.say(100);
    site.wait_last();
    site.stop_and_audit(&["--counter", "meter/count"]).assert_complete();
    let clone = site.folder.path().join("clone");
    std::fs::create_dir(&clone).unwrap();
    copy(&site.folder.path().join("state"), &clone.join("state"));
    let pty = Pty::new(&clone.join("meter"));
    site.agent.run();
    site.wait_info(2, 1);
    let clone = Agent::start(&clone, &config(site.gate.port, pty.path(), r#"max_bytes = "64MiB""#));
    // The broker knows one client of a name: each one that comes drives the other one out.
    site.observer.wait("the problem", |heard| {
        heard.topic == "sluicegate/g/problem" && heard.payload.contains(r#""code":"duplicate""#)
    });
    let report = audit(&site.observer, &[]);
    eprintln!("{}", report.text);
    assert_eq!(report.code, Some(2), "{}", report.text);
    assert!(report.text.contains("FOUND sluicegate/g: two gateways (a cloned card?): "), "{}", report.text);
    assert!(site.agent.stop().success());
    drop(clone);
}

/// Copies a folder and all that is in it.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
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
