//! Time without a clock, as far as this machine's clock lets it be seen; tests/lab/clock has a board that boots in 1970.

use serde_json::Value;

use crate::support::{Agent, Mosquitto, Observer, Pty, publish};

const LEVEL: &str = "sluicegate/g/tank/level";
const DOOR: &str = "sluicegate/g/tank/door";
const SET: &str = "sluicegate/g/tank/valve/set";
const OUTCOME: &str = "sluicegate/g/tank/valve/outcome";

fn config(port: u16, pty: &str, wait: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
[clock]
wait = "{wait}"
[device.tank]
kind = "serial"
port = "{pty}"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.tank.point]
level = {{ from = "level", type = "int", retain = false }}
count = {{ from = "count", type = "int", retain = false, keep = "latest" }}
door = {{ from = "door", type = "bool", lane = "alarm" }}
valve = {{ type = "int", write = "VALVE {{value}}\n", command_max_age = "10s" }}
"#
    )
}

struct Site {
    observer: Observer,
    broker: Mosquitto,
    agent: Agent,
    pty: Pty,
    _folder: tempfile::TempDir,
}

impl Site {
    /// A gateway that believes its clock only when a time service keeps it, or always.
    fn new(trust: &str, wait: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(folder.path());
        let observer = Observer::start(broker.port);
        let pty = Pty::new(&folder.path().join("tank"));
        let config = config(broker.port, pty.path(), wait);
        let agent = Agent::start_with(folder.path(), &config, &[("SLUICEGATE__CLOCK__TRUST", trust)]);
        observer.wait_payload("sluicegate/g/tank/status", "online");
        observer.wait_json("sluicegate/g/info", "session", 1);
        Site { observer, broker, agent, pty, _folder: folder }
    }

    /// Whether the gateway says that its clock is not set: whether a time service keeps this machine's is its affair.
    fn is_unset(&self) -> bool {
        let problems = self.observer.wait("the problems", |heard| heard.topic == "sluicegate/g/problem").json();
        problems.as_array().unwrap().iter().any(|problem| problem["code"] == "clock")
    }

    fn heard(&self, topic: &str) -> bool {
        self.observer.all().iter().any(|heard| heard.topic == topic)
    }
}

/// A date, or all that stands in its place.
#[track_caller]
fn check_moment(payload: &Value, unset: bool) {
    assert_eq!(payload["ts"].is_null(), unset, "{payload}");
    assert_eq!(payload["uptime"].as_f64().is_some_and(|uptime| uptime > 0.0), unset, "{payload}");
    assert_eq!(payload["boot"].as_str().is_some_and(|boot| boot.len() == 32), unset, "{payload}");
    assert_eq!(payload["clock"].as_str() == Some("unsynced"), unset, "{payload}");
}

#[test]
fn without_a_clock_alarms_go_at_once_and_readings_after_the_wait() {
    for trust in ["always", "synchronized"] {
        let mut site = Site::new(trust, "5s");
        let unset = site.is_unset();
        assert!(trust == "synchronized" || !unset, "a clock that is trusted is no problem");
        site.pty.say(b"level=7 count=8 door=on\n");
        check_moment(&site.observer.wait_json(DOOR, "value", true), unset);
        if unset {
            // The connection is younger than the wait: all came within a moment of its `info`.
            assert!(!site.heard(LEVEL) && !site.heard("sluicegate/g/tank/count"), "readings did not wait");
        }
        check_moment(&site.observer.wait_json(LEVEL, "value", 7), unset);
        check_moment(&site.observer.wait_json("sluicegate/g/tank/count", "value", 8), unset);
        // Later ones do not wait any more.
        site.pty.say(b"level=9\n");
        check_moment(&site.observer.wait_json(LEVEL, "value", 9), unset);

        let now = sluicegate::model::time::now().wall.as_secs();
        publish(site.broker.port, SET, &format!(r#"{{"value":1,"id":"dated","ts":{now}}}"#));
        let outcome = site.observer.wait_json(OUTCOME, "id", "dated");
        let expected = if unset { "rejected" } else { "done" };
        assert_eq!((&outcome["outcome"], outcome["reason"] == "clock"), (&expected.into(), unset), "{outcome}");
        publish(site.broker.port, SET, r#"{"value":2,"id":"lasting","ttl":"30s"}"#);
        let outcome = site.observer.wait_json(OUTCOME, "id", "lasting");
        assert_eq!(outcome["outcome"], "done", "{outcome}");
        check_moment(&outcome, unset);
    }
}

#[test]
fn at_the_stop_no_reading_waits_for_the_clock() {
    let mut site = Site::new("synchronized", "1h");
    let unset = site.is_unset();
    site.pty.say(b"level=7 door=on\n");
    site.observer.wait_json(DOOR, "value", true);
    assert!(!unset || !site.heard(LEVEL), "a reading did not wait");
    assert!(site.agent.stop().success());
    check_moment(&site.observer.wait_json(LEVEL, "value", 7), unset);
}
