//! Presence tells the truth.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::support::{Agent, Heard, Mosquitto, Observer, publish, until};

const CONFIG: &str = r#"
[gateway]
id = "g"
state_directory = "{state}"
[mqtt]
url = "mqtt://127.0.0.1:PORT"
version = "VERSION"
keep_alive = "5s"
[device.plant]
kind = "sim"
[device.plant.point.fan]
wave = "switch"
[device.plant.point.level]
wave = "ramp"
every = "1h"
"#;

fn config(port: u16, version: &str) -> String {
    CONFIG.replace("PORT", &port.to_string()).replace("VERSION", version)
}

const STATUS: &str = "sluicegate/g/status";

#[test]
fn a_killed_gateway_is_offline_by_its_last_will() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut agent = Agent::start(folder.path(), &config(broker.port, "3.1.1"));
    observer.wait_payload(STATUS, "online");
    observer.wait_json("sluicegate/g/info", "last_exit", "first start");
    agent.kill();
    observer.wait_payload(STATUS, "offline");
    assert_eq!(Observer::retained(broker.port, STATUS).get(STATUS).map(String::as_str), Some("offline"));
    agent.run();
    observer.wait_json("sluicegate/g/info", "last_exit", "unclean: crash, kill or power cut");
    // Nobody knows what the killed one had in its memory, and the next one says so.
    observer.wait_json("sluicegate/g/gap", "cause", "stop");
}

#[test]
fn a_stopped_gateway_says_offline_itself() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut agent = Agent::start(folder.path(), &config(broker.port, "5"));
    observer.wait_json("sluicegate/g/info", "session", 1);
    let start = Instant::now();
    let status = agent.stop();
    assert!(status.success(), "{status:?}");
    eprintln!("stopped after {:?}", start.elapsed());
    observer.wait_payload(STATUS, "offline");
    until("the broker to note the farewell", || broker.log().contains("Client g disconnected"));
    assert!(!broker.log().contains("exceeded timeout"), "{}", broker.log());
    let offline = observer.all().iter().filter(|heard| heard.topic == STATUS && heard.payload == "offline").count();
    assert_eq!(offline, 1, "the Last Will did not speak as well");
    // A clean stop leaves nothing to tell.
    agent.run();
    observer.wait_json("sluicegate/g/info", "last_exit", "stop");
    assert!(observer.all().iter().all(|heard| !heard.topic.ends_with("/gap")));
}

#[test]
fn the_last_health_of_a_stop_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut agent = Agent::start(folder.path(), &config(broker.port, "3.1.1"));
    observer.wait_json("sluicegate/g/info", "session", 1);
    // The health that is due at the beginning comes before any of these.
    for (id, value) in [("a", "ON"), ("b", "OFF"), ("c", "ON")] {
        let command = format!(r#"{{"value":"{value}","id":"{id}"}}"#);
        publish(broker.port, "sluicegate/g/plant/fan/set", &command);
        observer.wait_json("sluicegate/g/plant/fan/outcome", "id", id);
    }
    assert!(agent.stop().success());
    observer.wait_payload(STATUS, "offline");
    let own = |heard: &Heard| heard.topic == STATUS || heard.topic == "sluicegate/g/health";
    let last: Vec<Heard> = observer.all().into_iter().filter(own).collect();
    let [.., health, offline] = last.as_slice() else { panic!("{last:?}") };
    assert_eq!((offline.payload.as_str(), health.topic.as_str()), ("offline", "sluicegate/g/health"));
    let kept = Observer::retained(broker.port, "sluicegate/g/health");
    assert_eq!(kept["sluicegate/g/health"], health.payload);
    for lane in ["outcome", "telemetry"] {
        let numbers = observer.all().into_iter().filter(|heard| heard.payload.starts_with('{'));
        let numbers = numbers.map(|heard| heard.json()).filter(|json| json["lane"] == lane && json["seq"].is_u64());
        let greatest = numbers.filter_map(|json| json["seq"].as_u64()).max().unwrap();
        let health = &health.json()["lanes"][lane];
        let told = ["next_seq", "published", "depth"].map(|key| health[key].as_u64().unwrap());
        assert_eq!(told, [greatest + 1, greatest, 0], "{lane}");
        assert!(greatest >= 3, "{lane}: {greatest}");
    }
}

/// The retained messages, without what differs from one connection to the next.
fn steady(retained: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let steady = retained.iter().filter(|(topic, _)| !topic.ends_with("/health"));
    steady.map(|(topic, payload)| (topic.clone(), payload.replace(r#","repeat":true"#, ""))).collect()
}

#[test]
fn a_broker_that_forgot_all_is_told_all_again() {
    for version in ["3.1.1", "5"] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Mosquitto::start(folder.path());
        let observer = Observer::start(broker.port);
        let _agent = Agent::start(folder.path(), &config(broker.port, version));
        let complete = |retained: &BTreeMap<String, String>| {
            ["status", "info", "health", "problem", "plant/status", "plant/problem", "plant/fan", "plant/level"]
                .iter()
                .all(|topic| retained.contains_key(&format!("sluicegate/g/{topic}")))
        };
        observer.wait_json("sluicegate/g/info", "session", 1);
        publish(broker.port, "sluicegate/g/plant/fan/set", r#"{"value":"ON","id":"on"}"#);
        observer.wait_json("sluicegate/g/plant/fan/outcome", "id", "on");
        let mut before = BTreeMap::new();
        until("the whole retained set", || {
            before = Observer::retained(broker.port, "sluicegate/g/#");
            complete(&before) && before["sluicegate/g/plant/fan"].contains("true")
        });
        broker.kill();
        broker.run();
        let mut after = BTreeMap::new();
        until("the retained set again", || {
            after = Observer::retained(broker.port, "sluicegate/g/#");
            complete(&after)
        });
        let (mut before, mut after) = (steady(&before), steady(&after));
        // A repeated value is outside numbering.
        for set in [&mut before, &mut after] {
            for payload in set.values_mut() {
                *payload = without_number(payload);
            }
        }
        assert_eq!(before, after, "MQTT {version}");
        let observer = observer.again(broker.port);
        observer.clear();
        publish(broker.port, "sluicegate/g/plant/fan/set", r#"{"value":"OFF","id":"off"}"#);
        assert_eq!(observer.wait_json("sluicegate/g/plant/fan/outcome", "id", "off")["outcome"], "done");
    }
}

fn without_number(payload: &str) -> String {
    let Ok(serde_json::Value::Object(mut reading)) = serde_json::from_str(payload) else { return payload.to_owned() };
    for key in ["lane", "epoch", "seq"] {
        reading.remove(key);
    }
    serde_json::Value::Object(reading).to_string()
}

#[test]
fn a_frozen_broker_is_noticed_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let agent = Agent::start(folder.path(), &config(broker.port, "3.1.1"));
    observer.wait_json("sluicegate/g/info", "session", 1);
    broker.freeze();
    let start = Instant::now();
    agent.wait_log("link lost: the broker was silent for 7.5 s");
    // A figure, not a test: the machine may be slow.
    eprintln!("a half-open link was noticed after {:?}, keep-alive 5 s", start.elapsed());
    broker.thaw();
    agent.wait_log("back after");
    observer.wait_payload(STATUS, "offline");
    until("online again", || {
        observer.all().iter().filter(|heard| heard.topic == STATUS && heard.payload == "online").count() >= 2
    });
}

#[test]
fn a_foreign_offline_is_corrected() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let _agent = Agent::start(folder.path(), &config(broker.port, "3.1.1"));
    observer.wait_json("sluicegate/g/info", "session", 1);
    publish(broker.port, STATUS, "offline");
    until("a correction", || {
        let all = observer.all();
        let lie = all.iter().position(|heard| heard.topic == STATUS && heard.payload == "offline");
        lie.is_some_and(|lie| all[lie..].iter().any(|heard| heard.topic == STATUS && heard.payload == "online"))
    });
}

#[test]
fn two_gateways_with_one_id_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    std::fs::create_dir_all(&first).unwrap();
    std::fs::create_dir_all(&second).unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let one = Agent::start(&first, &config(broker.port, "3.1.1"));
    observer.wait_json("sluicegate/g/info", "session", 1);
    let two = Agent::start(&second, &config(broker.port, "3.1.1"));
    until("one of them to give way", || {
        [&one, &two].iter().any(|agent| agent.log().contains("another gateway uses this gateway's id"))
    });
    observer.wait("the problem", |heard| heard.topic == "sluicegate/g/problem" && heard.payload.contains("duplicate"));
}

#[test]
fn topics_of_points_that_are_gone_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut agent = Agent::start(folder.path(), &config(broker.port, "3.1.1"));
    let level = "sluicegate/g/plant/level";
    observer.wait("a level", |heard| heard.topic == level);
    observer.wait_json("sluicegate/g/info", "session", 1);
    assert!(agent.stop().success());
    let without = config(broker.port, "3.1.1").replace("plant.point.level", "tank.point.level");
    let without = format!("{without}[device.tank]\nkind = \"sim\"\n");
    Agent::configure(folder.path(), &without);
    agent.run();
    until("the old topic to be cleared", || !Observer::retained(broker.port, "sluicegate/g/#").contains_key(level));
    observer.wait("the new one", |heard| heard.topic == "sluicegate/g/tank/level");
}

#[test]
fn a_broker_of_small_packets_neither_spins_nor_ends_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    // Smaller than all but a status.
    let broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_packet_size 100\n");
    let observer = Observer::start(broker.port);
    let often = format!("{}\n[health]\ninterval = \"1s\"\n", config(broker.port, "5"));
    let mut agent = Agent::start(folder.path(), &often);
    observer.wait_payload(STATUS, "online");
    let noted = |what: &str| agent.log().matches(&format!("{what} is larger than the packets that the")).count();
    // Three seconds, in which it could have spun.
    until("the health to be too large three times", || noted("health") >= 3);
    let (ticks, noted) = (agent.cpu_ticks(), noted(""));
    eprintln!("{} ms of CPU, {noted} messages too large", ticks * 10);
    assert!(noted < 100, "{noted} messages were too large");
    assert!(agent.stop().success());
}

#[test]
fn a_broker_that_comes_back_from_an_older_state_is_no_second_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let lines = format!(
        "allow_anonymous true\nuser root\npersistence true\npersistence_location {}/\n",
        folder.path().display()
    );
    let mut broker = Mosquitto::with(folder.path(), &lines);
    let mut agent = Agent::start(folder.path(), &config(broker.port, "3.1.1"));
    let info = |port: u16| Observer::retained(port, "sluicegate/g/info").remove("sluicegate/g/info");
    let of_session = |port: u16, session: &str| info(port).is_some_and(|info| info.contains(session));
    until("the first info", || of_session(broker.port, "\"session\":1,"));
    assert!(agent.stop().success());
    broker.stop();
    broker.run();
    agent.run();
    until("the second info", || of_session(broker.port, "\"session\":2,"));
    // What it had since its last save is lost: the info of the first run is there again.
    broker.kill();
    broker.run();
    agent.wait_log("the broker has forgotten this run, and remembers the one before");
    until("the second info again", || of_session(broker.port, "\"session\":2,"));
    assert!(!agent.log().contains("another gateway"), "{}", agent.log());
}
