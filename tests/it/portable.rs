//! What is shown on each processor that the gateway is built for, besides TLS, presence and the service's ways: what it
//! keeps on disk lasts, and is the same for a program of another processor. There are no serial ports here: the emulator
//! of a foreign program knows none.

use std::path::Path;

use serde_json::Value;

use crate::support::{Agent, Mosquitto, Observer, Program, audit, free_port, publish, until};

/// A gateway with a pump, and a counter in each lane that takes readings.
fn config(port: u16, every: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
[queue]
telemetry = {{ sync = "100ms" }}
replay = {{ rate = "off" }}
keep_free = "0B"
[device.plant]
kind = "sim"
[device.plant.point]
count = {{ wave = "counter", every = "{every}", retain = false }}
level = {{ wave = "sine", period = "1s", every = "10ms", lane = "alarm", unit = "Cel" }}
pump = {{ wave = "switch" }}
"#
    )
}

/// The records that wait, as this program reads them.
fn records(program: Program, folder: &Path) -> Vec<String> {
    let read = Agent::ask_as(program, folder, &["queue", "--dump"]);
    assert!(read.status.success(), "{read:?}");
    String::from_utf8(read.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Whether so many readings wait on disk.
fn waits(agent: &Agent, count: u64) -> bool {
    agent.status().is_some_and(|status| status["queue"]["telemetry"]["durable"].as_u64() > Some(count))
}

#[test]
fn what_waits_on_disk_is_published_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing is dropped on the observer's way.
    let mut broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_queued_messages 0\n");
    broker.kill();
    let mut agent = Agent::start(folder.path(), &config(broker.port, "5ms"));
    for _ in 0..3 {
        until("readings on disk", || waits(&agent, 100));
        agent.kill();
        agent.run();
    }
    // The observer is there first.
    agent.kill();
    broker.run();
    let observer = Observer::start(broker.port);
    agent.run();
    let is_drained = |status: Value| status["queue"]["telemetry"]["depth"].as_u64() < Some(50);
    observer.wait_payload("sluicegate/g/status", "online");
    until("the backlog to be through", || agent.status().is_some_and(is_drained));
    assert!(agent.stop().success());
    observer.wait_payload("sluicegate/g/status", "offline");
    audit(&observer, &[]).assert_complete();
}

#[test]
fn another_processor_reads_the_same_queue() {
    for writer in [Program::Tested, Program::Here] {
        let folder = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(folder.path(), &config(free_port(), "2ms"));
        agent.kill();
        agent.run_as(writer);
        // Enough for some segments of the small lane.
        until("records on disk", || waits(&agent, 1000));
        assert!(agent.stop().success());
        let read = records(writer, folder.path());
        assert!(read.len() > 1000, "{}", read.len());
        for reader in [Program::Tested, Program::Here] {
            assert_eq!(records(reader, folder.path()), read, "written by {writer:?}, read by {reader:?}");
        }
    }
}

#[test]
fn another_processor_knows_which_commands_have_acted() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut agent = Agent::start(folder.path(), &config(broker.port, "1s"));
    let send = |value: bool, id: &str| {
        publish(broker.port, "sluicegate/g/plant/pump/set", &format!("{{\"value\":{value},\"id\":\"{id}\"}}"));
    };
    let outcomes = |id: &str| -> Vec<Value> {
        let all = observer.all();
        let outcomes = all.iter().filter(|heard| heard.topic == "sluicegate/g/plant/pump/outcome" && !heard.retained);
        outcomes.map(|heard| heard.json()).filter(|outcome| outcome["id"] == id).collect()
    };
    for (turn, program) in [Program::Here, Program::Tested, Program::Here, Program::Tested].into_iter().enumerate() {
        agent.kill();
        observer.clear();
        agent.run_as(program);
        observer.wait_payload("sluicegate/g/plant/status", "online");
        // All that came in the turns before, once more, and it does not act.
        for before in 0..turn {
            let id = format!("c-{before}");
            send(before % 2 == 0, &id);
            until("the first outcome again", || !outcomes(&id).is_empty());
            let first = outcomes(&id);
            assert_eq!((&first[0]["outcome"], &first[0]["value"]), (&"done".into(), &(before % 2 == 0).into()));
        }
        let id = format!("c-{turn}");
        send(turn % 2 == 0, &id);
        until("the outcome", || !outcomes(&id).is_empty());
        assert_eq!(outcomes(&id)[0]["outcome"], "done");
        let acts = |id: &str| {
            let cause = format!("command:{id}");
            let all = observer.all();
            let pump = all.iter().filter(|heard| heard.topic == "sluicegate/g/plant/pump" && !heard.retained);
            pump.filter(|heard| heard.json()["cause"] == cause.as_str() && heard.json()["repeat"] != true).count()
        };
        until("the new value", || acts(&id) == 1);
        for before in 0..turn {
            assert_eq!(acts(&format!("c-{before}")), 0, "in turn {turn}, as {program:?}");
        }
    }
}
