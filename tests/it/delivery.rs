//! Nothing accepted is lost, and each stream comes in order, whatever happens to the broker.

use crate::support::{Agent, Audit, Gate, Heard, Mosquitto, Observer, Pty, free_port, until};

const READINGS: i64 = 20_000;
const KILLS: usize = 10;

fn config(port: u16, pty: &str, version: &str, window: u16) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
version = "{version}"
window = {window}
[queue]
max_memory = "64MiB"
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

/// `READINGS` readings at full speed through `KILLS` kills of a real mosquitto.
fn through_kills(version: &str, broker_window: u16) {
    const WINDOW: u16 = 50;
    let folder = tempfile::tempdir().unwrap();
    let lines = format!("allow_anonymous true\nmax_inflight_messages {broker_window}\nmax_queued_messages 0\n");
    let mut broker = Mosquitto::with(folder.path(), &lines);
    let gate = Gate::to(broker.port);
    let mut pty = Pty::new(&folder.path().join("meter"));
    let mut observer = Observer::start(broker.port);
    let _agent = Agent::start(folder.path(), &config(gate.port, pty.path(), version, WINDOW));
    observer.wait_payload("sluicegate/g/meter/status", "online");

    let (mut said, mut hits) = (0, 0);
    for kill in 0..=KILLS {
        // The sensor never waits: most of what it says during an outage is said while the broker is away.
        let until_here = READINGS * (i64::try_from(kill).unwrap() + 1) / (i64::try_from(KILLS).unwrap() + 1);
        let text = |from: i64, to: i64| (from..=to).map(|n| format!("n={n}\n")).collect::<String>();
        let first = (said + 200).min(until_here);
        let before = observer.count();
        pty.say(text(said + 1, first).as_bytes());
        if kill < KILLS {
            until("readings to flow", || observer.count() > before + 100);
            // From here on acknowledgements are lost, so what goes out now will go out again.
            gate.deafen();
        }
        pty.say(text(first + 1, until_here).as_bytes());
        said = until_here;
        if kill == KILLS {
            break;
        }
        until("publishes under way", || gate.under_way() >= 10);
        hits += usize::from(gate.under_way() > 0);
        broker.kill();
        gate.close();
        broker.run();
        // Nothing is published before the one who counts is there.
        observer = observer.again(broker.port);
        gate.open();
    }
    let topic = "sluicegate/g/meter/count";
    let mut audit = Audit::default();
    until("all readings", || {
        audit = Audit::of(&observer.all(), topic);
        audit.values.len() >= usize::try_from(READINGS).unwrap()
    });
    eprintln!(
        "MQTT {version}, the broker takes {broker_window}: {} readings, {} duplicates, {hits} of {KILLS} kills hit",
        audit.values.len(),
        audit.duplicates
    );
    assert_eq!(audit.values, (1..=READINGS).collect());
    assert!(audit.duplicates <= KILLS * usize::from(WINDOW), "{} duplicates", audit.duplicates);
    assert!(hits * 2 > KILLS, "only {hits} kills found a publish under way");
    assert!(audit.duplicates > 0, "no kill came between a publish and its acknowledgement");
    assert_eq!(observer.all().iter().filter(|heard| heard.topic.ends_with("/gap")).count(), 0, "nothing was dropped");
}

#[test]
fn readings_survive_broker_kills_on_mqtt_3() {
    through_kills("3.1.1", 100);
}

#[test]
fn readings_survive_broker_kills_on_mqtt_5_with_a_small_receive_maximum() {
    through_kills("5", 20);
}

#[test]
fn readings_survive_broker_kills_on_mqtt_5_with_a_large_receive_maximum() {
    through_kills("5", 100);
}

#[test]
fn the_backlog_does_not_overwrite_the_newest_retained_value() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let gate = Gate::to(broker.port);
    let mut pty = Pty::new(&folder.path().join("meter"));
    let observer = Observer::start(broker.port);
    let topic = "sluicegate/g/meter/count";
    // The first of two brokers is away; the second is tried by itself.
    let urls = format!("[\"mqtt://127.0.0.1:{}\", \"mqtt://127.0.0.1:{}\"]", free_port(), gate.port);
    let config = config(gate.port, pty.path(), "5", 50);
    let config = config.replace(&format!("\"mqtt://127.0.0.1:{}\"", gate.port), &urls);
    let agent = Agent::start(folder.path(), &config);
    observer.wait_payload("sluicegate/g/meter/status", "online");
    pty.say(b"n=1\n");
    observer.wait_json(topic, "value", 1);
    gate.close();
    agent.wait_log("link lost");
    for n in 2..=50 {
        pty.say(format!("n={n}\n").as_bytes());
    }
    // All of it is in the gateway before the link is back.
    until("the readings to wait", || {
        let status = Agent::ask(folder.path(), &["status"]);
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["queue"]["telemetry"]["depth"] == 49
    });
    gate.open();
    until("the backlog to be through", || Audit::of(&observer.all(), topic).values.len() == 50);
    let late = |heard: &&Heard| heard.topic == topic && heard.json()["late"] == true;
    assert_eq!(observer.all().iter().filter(late).count(), 49);
    let kept = Observer::retained(broker.port, topic);
    let kept: serde_json::Value = serde_json::from_str(&kept[topic]).unwrap();
    assert_eq!((&kept["value"], &kept["repeat"]), (&50.into(), &true.into()));
}
