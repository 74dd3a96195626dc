//! A command acts once, or not at all, and answers.

use std::time::{Duration, Instant};

use crate::support::{Agent, Mosquitto, Observer, Pty, publish, publish_lines, publish_with, until};

fn config(port: u16, version: &str, pty: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
version = "{version}"
[device.tank]
kind = "serial"
port = "{pty}"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.tank.point.level]
from = "level"
type = "float"
[device.tank.point.valve]
type = "int"
min = 0
max = 100
write = "VALVE {{value}}\n"
from = "valve"
command_max_age = "10s"
"#
    )
}

struct Site {
    broker: Mosquitto,
    observer: Observer,
    pty: Pty,
    _agent: Agent,
    _folder: tempfile::TempDir,
}

const SET: &str = "sluicegate/g/tank/valve/set";
const OUTCOME: &str = "sluicegate/g/tank/valve/outcome";

fn site(version: &str, before: impl FnOnce(u16)) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    before(broker.port);
    let observer = Observer::start(broker.port);
    let pty = Pty::new(&folder.path().join("tank"));
    let agent = Agent::start(folder.path(), &config(broker.port, version, pty.path()));
    observer.wait_payload("sluicegate/g/tank/status", "online");
    observer.wait_json("sluicegate/g/info", "session", 1);
    Site { broker, observer, pty, _agent: agent, _folder: folder }
}

#[test]
fn a_duplicate_does_not_act_and_gets_the_first_outcome() {
    let mut site = site("3.1.1", |_| {});
    for _ in 0..3 {
        publish(site.broker.port, SET, r#"{"value":7,"id":"a"}"#);
    }
    until("three answers", || {
        let all = site.observer.all();
        all.iter().filter(|heard| heard.topic == OUTCOME && heard.payload.contains(r#""done""#)).count() >= 1
            && all.iter().filter(|heard| heard.topic == SET).count() == 3
    });
    publish(site.broker.port, SET, r#"{"value":8,"id":"b"}"#);
    site.pty.hear("VALVE 8\n");
    assert_eq!(site.pty.heard_so_far(), "VALVE 7\nVALVE 8\n");
    let all = site.observer.all();
    let of_a: Vec<_> = all.iter().filter(|heard| heard.topic == OUTCOME && heard.payload.contains(r#""a""#)).collect();
    assert!(of_a.iter().all(|heard| heard.json()["outcome"] == "done"), "{of_a:?}");
    assert_eq!(of_a.iter().filter(|heard| !heard.json()["seq"].is_null()).count(), 1, "one of them is the record");
    let reading = site.observer.wait("the reading", |heard| heard.topic == "sluicegate/g/tank/valve").json();
    assert_eq!((&reading["value"], &reading["cause"]), (&7.into(), &"command:a".into()));
}

#[test]
fn a_wrong_command_is_refused_with_its_reason() {
    let mut site = site("3.1.1", |_| {});
    let cases = [
        (SET, "much", "type"),
        (SET, "{", "type"),
        (SET, "101", "range"),
        (SET, r#"{"value":1,"id":"x","ttl":"0s"}"#, "stale"),
        (SET, r#"{"value":1,"id":"x","ts":"2020-01-01T00:00:00Z"}"#, "stale"),
        (SET, r#"{"value":1,"id":"x","expires":"2020-01-01T00:00:00Z"}"#, "stale"),
        ("sluicegate/g/tank/level/set", "1", "read-only"),
        ("sluicegate/g/tank/volve/set", "1", "unknown"),
        ("sluicegate/g/tonk/valve/set", "1", "unknown"),
    ];
    for (topic, payload, reason) in cases {
        site.observer.clear();
        publish(site.broker.port, topic, payload);
        let outcome = topic.replace("/set", "/outcome");
        let outcome = site.observer.wait("an answer", |heard| heard.topic == outcome).json();
        assert_eq!((&outcome["outcome"], &outcome["reason"]), (&"rejected".into(), &reason.into()), "{payload}");
    }
    assert_eq!(site.pty.heard_so_far(), "", "nothing acted");
}

#[test]
fn a_retained_command_never_acts() {
    for version in ["3.1.1", "5"] {
        let mut site = site(version, |port| {
            assert!(publish_with(port, SET, r#"{"value":66,"id":"old"}"#, &["-r"]).status.success());
        });
        publish(site.broker.port, SET, r#"{"value":1,"id":"new"}"#);
        site.pty.hear("VALVE 1\n");
        assert_eq!(site.pty.heard_so_far(), "VALVE 1\n", "MQTT {version}");
        if version == "3.1.1" {
            // MQTT 5 is not even sent it.
            let outcome = site.observer.wait_json(OUTCOME, "id", "old");
            assert_eq!(outcome["reason"], "retained");
        }
    }
}

#[test]
fn the_outcome_goes_to_the_response_topic_as_well() {
    let mut site = site("5", |_| {});
    let arguments = ["-V", "5", "-D", "publish", "response-topic", "app/answers"];
    let arguments = [&arguments[..], &["-D", "publish", "correlation-data", "tag-7"]].concat();
    assert!(publish_with(site.broker.port, SET, r#"{"value":3,"id":"r"}"#, &arguments).status.success());
    site.pty.hear("VALVE 3\n");
    assert_eq!(site.observer.wait_json("app/answers", "id", "r")["outcome"], "done");
    site.observer.wait_json(OUTCOME, "id", "r");
    // A response topic in the gateway's own tree would be a command or a lie.
    let arguments = ["-V", "5", "-D", "publish", "response-topic", "sluicegate/g/status"];
    assert!(publish_with(site.broker.port, SET, r#"{"value":4,"id":"s"}"#, &arguments).status.success());
    site.observer.wait_json(OUTCOME, "id", "s");
    let statuses = site.observer.all().into_iter().filter(|heard| heard.topic == "sluicegate/g/status");
    assert!(statuses.into_iter().all(|heard| heard.payload == "online"));
}

#[test]
fn a_command_to_a_device_that_is_away_is_refused() {
    let mut site = site("3.1.1", |_| {});
    site.pty.unplug();
    site.observer.wait_payload("sluicegate/g/tank/status", "offline");
    publish(site.broker.port, SET, r#"{"value":1,"id":"x"}"#);
    assert_eq!(site.observer.wait_json(OUTCOME, "id", "x")["reason"], "offline");
}

#[test]
fn several_points_are_set_by_one_command() {
    let mut site = site("3.1.1", |_| {});
    publish(site.broker.port, "sluicegate/g/tank/set", r#"{"values":{"valve":9},"id":"m"}"#);
    site.pty.hear("VALVE 9\n");
    let outcome = site.observer.wait_json("sluicegate/g/tank/outcome", "id", "m");
    assert_eq!(outcome["values"]["valve"], 9);
}

#[test]
fn a_flood_of_commands_does_not_stop_those_that_come_later() {
    for version in ["3.1.1", "5"] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(folder.path());
        let observer = Observer::start(broker.port);
        let mut pty = Pty::new(&folder.path().join("tank"));
        // The smallest window leaves the least room for acknowledgements of what comes.
        let config = config(broker.port, version, pty.path()).replace("[mqtt]", "[mqtt]\nwindow = 1");
        let agent = Agent::start(folder.path(), &config);
        observer.wait_json("sluicegate/g/info", "session", 1);
        for _ in 0..4 {
            publish_lines(broker.port, "sluicegate/g/tank/nothing/set", &"1\n".repeat(500));
        }
        // Behind the flood one may still be refused as busy; nobody is told of each of so many refusals.
        let (mut sent, mut at) = (0, None::<Instant>);
        until("a later command to act", || {
            if at.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                (sent, at) = (sent + 1, Some(Instant::now()));
                publish_with(broker.port, SET, &format!(r#"{{"value":9,"id":"later-{sent}"}}"#), &["-q", "1"]);
            }
            pty.heard_so_far().contains("VALVE 9\n")
        });
        observer.wait("its outcome", |heard| {
            heard.topic == OUTCOME && heard.payload.contains("\"id\":\"later-") && heard.payload.contains("\"done\"")
        });
        assert!(!agent.log().contains("link lost"), "{}", agent.log());
    }
}
