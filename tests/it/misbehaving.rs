//! Nothing accepted is lost, and the rest is told, at a broker that cuts at random, acknowledges out of order, refuses
//! single publishes, closes on a record that it can't take, or keeps silent.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::demo_broker::{Limits, Mischief, Publish, Treatment, reason};
use crate::support::{Agent, Audit, Mischievous, Observer, Pty, publish, publish_with, until};

const METER: &str = "sluicegate/g/meter/count";

/// A gateway with a meter that counts, at a broker that behaves so far.
struct Site {
    broker: Mischievous,
    observer: Observer,
    pty: Pty,
    agent: Agent,
    _folder: tempfile::TempDir,
}

const WINDOW: usize = 50;

const CONFIG: &str = r#"
[gateway]
id = "g"
state_directory = "{state}"
[mqtt]
url = "mqtt://127.0.0.1:PORT"
version = "VERSION"
keep_alive = "5s"
window = 50
[queue]
max_memory = "64MiB"
replay = { rate = "off" }
[device.meter]
kind = "serial"
port = "PTY"
max_rate = "off"
frame = { kind = "line" }
decode = { kind = "key-value" }
[device.meter.point.count]
from = "n"
type = "int"
"#;

fn site(version: &str, more: &str) -> Site {
    site_at(Mischievous::start(), version, more)
}

fn site_at(broker: Mischievous, version: &str, more: &str) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let pty = Pty::new(&folder.path().join("meter"));
    let observer = Observer::start(broker.port);
    let config = CONFIG.replace("PORT", &broker.port.to_string()).replace("VERSION", version);
    let agent = Agent::start(folder.path(), &format!("{}{more}", config.replace("PTY", pty.path())));
    observer.wait_payload("sluicegate/g/meter/status", "online");
    observer.wait_json("sluicegate/g/info", "session", 1);
    Site { broker, observer, pty, agent, _folder: folder }
}

impl Site {
    /// The meter says these values, as fast as the gateway takes them.
    fn say(&mut self, values: std::ops::RangeInclusive<i64>) {
        let text: String = values.map(|n| format!("n={n}\n")).collect();
        self.pty.say(text.as_bytes());
    }

    /// Waits until these values have come, each stream in order but for those that the broker wanted `later`.
    fn wait_all(&self, expected: &HashSet<i64>, later: &[i64]) -> Audit {
        let enough = || self.observer.count() >= expected.len();
        until("as many messages as there are readings", enough);
        let mut audit = Audit::default();
        until("all readings", || {
            audit = Audit::except(&self.observer.all(), METER, later);
            audit.values.len() >= expected.len()
        });
        assert_eq!(audit.values, *expected);
        audit
    }

    /// The gaps so far, each once: by their number, what they tell.
    fn gaps(&self) -> BTreeMap<u64, serde_json::Value> {
        let all = self.observer.all();
        let gaps = all.iter().filter(|heard| heard.topic == "sluicegate/g/gap").map(crate::support::Heard::json);
        gaps.map(|gap| (gap["n"].as_u64().unwrap(), gap)).collect()
    }

    /// Waits until gaps of cause `refused` tell of exactly these numbers, and no other gap of anything.
    fn wait_refused(&self, refused: &[i64]) {
        let count = |gap: &serde_json::Value| gap["count"].as_u64().unwrap();
        until("the gaps", || self.gaps().values().map(count).sum::<u64>() >= refused.len() as u64);
        let gaps = self.gaps();
        assert!(gaps.values().all(|gap| gap["cause"] == "refused" && gap["lane"] == "telemetry"), "{gaps:?}");
        for gap in gaps.values() {
            // The meter is alone in its lane, so that its values are the numbers.
            let (from, to) = (gap["from"].as_i64().unwrap(), gap["to"].as_i64().unwrap());
            assert!(refused.contains(&from) && refused.contains(&to), "{gap} of {refused:?}");
            let within = refused.iter().filter(|value| (from..=to).contains(*value)).count();
            assert_eq!(count(gap), within as u64, "{gap} of {refused:?}");
        }
    }
}

/// The meter's value in a publish, where it is one of its readings.
fn value(publish: &Publish) -> Option<i64> {
    let reading: serde_json::Value = serde_json::from_slice(&publish.payload).ok()?;
    (publish.topic == METER).then(|| reading["value"].as_i64()).flatten()
}

fn through_cuts(version: &str, receive_maximum: Option<u16>) {
    const READINGS: i64 = 20_000;
    let broker = Mischievous::with(Limits { receive_maximum, packet_size: None });
    let mut site = site_at(broker, version, "");
    site.broker.misbehave(Mischief { cut_every: Some(1500), hold_back: 20, ..Mischief::to("g", 7) });
    site.say(1..=READINGS);
    let audit = site.wait_all(&(1..=READINGS).collect(), &[]);
    let journal = site.broker.journal();
    let cuts = journal.cuts;
    assert_eq!(journal.exceeded, 0, "more was under way than the broker allows");
    let hits = cuts.iter().filter(|under_way| **under_way > 0).count();
    eprintln!("MQTT {version}: {} duplicates, {hits} of {} cuts hit", audit.duplicates, cuts.len());
    assert!(cuts.len() >= 5, "only {} cuts", cuts.len());
    assert!(hits * 2 > cuts.len(), "only {hits} of {} cuts found a publish under way", cuts.len());
    assert!(audit.duplicates > 0 && audit.duplicates <= cuts.len() * WINDOW, "{} duplicates", audit.duplicates);
    assert!(site.gaps().is_empty(), "{:?}", site.gaps());
}

#[test]
fn readings_survive_random_cuts_and_disorder_on_mqtt_3() {
    through_cuts("3.1.1", None);
}

#[test]
fn readings_survive_random_cuts_and_disorder_on_mqtt_5() {
    through_cuts("5", None);
}

#[test]
fn readings_survive_random_cuts_and_disorder_on_mqtt_5_with_a_small_receive_maximum() {
    through_cuts("5", Some(24));
}

#[test]
fn a_refused_record_ends_in_a_gap_and_a_deferred_one_arrives() {
    const READINGS: i64 = 5_000;
    const LATER: [i64; 4] = [1000, 1010, 1020, 3333];
    let refused: Vec<i64> = (1..=READINGS).filter(|value| value % 997 == 0).collect();
    let mut site = site("5", "");
    let mut deferred = HashSet::new();
    let judge = move |publish: &Publish| match value(publish) {
        Some(value) if value % 997 == 0 && value % 2 == 0 => Treatment::Refuse(reason::NOT_AUTHORIZED),
        Some(value) if value % 997 == 0 => Treatment::Refuse(reason::PAYLOAD_FORMAT_INVALID),
        // Each of them is deferred twice.
        Some(value) if LATER.contains(&value) && (deferred.insert(value) || deferred.insert(-value)) => {
            Treatment::Refuse(reason::QUOTA_EXCEEDED)
        }
        _ => Treatment::Take,
    };
    site.broker.misbehave(Mischief { judge: Some(Box::new(judge)), hold_back: 10, ..Mischief::to("g", 7) });
    site.say(1..=READINGS);
    let expected = (1..=READINGS).filter(|value| !refused.contains(value)).collect();
    let audit = site.wait_all(&expected, &LATER);
    assert_eq!(audit.duplicates, 0);
    site.wait_refused(&refused);
}

/// Two records on which the broker closes the connection, whenever they come.
fn poison(version: &str, hold_back: usize, more: &str) {
    const READINGS: i64 = 3_000;
    const POISON: [i64; 2] = [1_234, 1_235];
    let mut site = site(version, more);
    let judge = |publish: &Publish| match value(publish) {
        Some(value) if POISON.contains(&value) => Treatment::Close(reason::PAYLOAD_FORMAT_INVALID),
        _ => Treatment::Take,
    };
    site.broker.misbehave(Mischief { judge: Some(Box::new(judge)), hold_back, ..Mischief::to("g", 7) });
    site.say(1..=READINGS);
    let audit = site.wait_all(&(1..=READINGS).filter(|value| !POISON.contains(value)).collect(), &[]);
    let told = || site.gaps().values().map(|gap| gap["count"].as_u64().unwrap()).sum::<u64>();
    until("the gaps", || told() >= 2);
    let gaps = site.gaps();
    assert_eq!(told(), 2, "{gaps:?}");
    assert!(gaps.values().all(|gap| gap["cause"] == "refused" && gap["lane"] == "telemetry"), "{gaps:?}");
    let closes = site.broker.journal().closes;
    eprintln!("MQTT {version}: found after {closes} closes, {} duplicates", audit.duplicates);
    assert!(closes <= 16, "{closes} closes");
    assert!(audit.duplicates <= closes * WINDOW);
    site.agent.wait_log("makes the broker close the connection: refused");
}

#[test]
fn a_poisonous_record_is_found_and_set_aside_on_mqtt_3() {
    poison("3.1.1", 0, "");
}

#[test]
fn a_poisonous_record_is_found_and_set_aside_on_mqtt_5() {
    poison("5", 0, "");
}

#[test]
fn a_poisonous_record_is_found_although_acknowledgements_are_late() {
    poison("3.1.1", 10, "");
}

#[test]
fn a_poisonous_record_is_found_although_other_readings_are_acknowledged() {
    poison("5", 0, "[device.noise]\nkind = \"sim\"\n[device.noise.point.n]\nwave = \"counter\"\nevery = \"1ms\"\n");
}

#[test]
fn a_gateway_that_may_not_take_commands_is_not_online_but_its_readings_flow() {
    for version in ["3.1.1", "5"] {
        let mut site = site(version, "");
        let refused_filter = Some("sluicegate/g/+/+/set".to_owned());
        // A close makes the gateway come again, and be refused.
        site.broker.misbehave(Mischief { refused_filter, cut_every: Some(1), ..Mischief::to("g", 7) });
        site.say(1..=1);
        site.agent.wait_log("link lost");
        let refused_filter = Some("sluicegate/g/+/+/set".to_owned());
        site.broker.misbehave(Mischief { refused_filter, ..Mischief::to("g", 7) });
        site.observer.wait("the problem", |heard| {
            heard.topic == "sluicegate/g/problem"
                && heard.payload.contains("subscription")
                && heard.payload.contains("sluicegate/g/+/+/set")
        });
        site.say(2..=10);
        site.observer.wait_json(METER, "value", 10);
        let status = Observer::retained(site.broker.port, "sluicegate/g/status");
        assert_eq!(status.get("sluicegate/g/status").map(String::as_str), Some("offline"));
    }
}

#[test]
fn a_cut_before_the_first_info_arrives_is_no_second_gateway() {
    let broker = Mischievous::start();
    // The run before left this; the broker keeps it until it gets the new one.
    let before = r#"{"instance":"before","devices":{}}"#;
    publish_with(broker.port, "sluicegate/g/info", before, &["-r"]);
    let mut cuts = 0;
    let judge = move |publish: &Publish| {
        let cut = publish.topic == "sluicegate/g/info" && cuts == 0;
        cuts += u32::from(cut);
        if cut { Treatment::Close(reason::NOT_AUTHORIZED) } else { Treatment::Take }
    };
    broker.misbehave(Mischief { judge: Some(Box::new(judge)), ..Mischief::to("g", 7) });
    let site = site_at(broker, "5", "");
    assert!(!site.agent.log().contains("another gateway"), "{}", site.agent.log());
}

#[test]
fn what_was_retained_may_come_late_and_is_no_second_gateway() {
    for version in ["3.1.1", "5"] {
        let broker = Mischievous::start();
        // The run before left this; the broker looks it up while the gateway tells the new one.
        publish_with(broker.port, "sluicegate/g/info", r#"{"instance":"before","devices":{}}"#, &["-r"]);
        broker.misbehave(Mischief { late: Some("sluicegate/g/info".to_owned()), ..Mischief::to("g", 7) });
        let mut site = site_at(broker, version, "");
        site.say(1..=10);
        site.observer.wait_json(METER, "value", 10);
        site.say(11..=20);
        site.observer.wait_json(METER, "value", 20);
        assert!(!site.agent.log().contains("another gateway"), "{}", site.agent.log());
    }
}

#[test]
fn a_broker_that_has_too_much_is_left_alone_for_a_while() {
    let mut site = site("5", "");
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&refused);
    let judge = move |_: &Publish| {
        counter.fetch_add(1, Ordering::Relaxed);
        Treatment::Refuse(reason::QUOTA_EXCEEDED)
    };
    site.broker.misbehave(Mischief { judge: Some(Box::new(judge)), ..Mischief::to("g", 7) });
    site.pty.unplug();
    let since = Instant::now();
    until("some refusals", || refused.load(Ordering::Relaxed) >= 6);
    let (refused, seconds) = (refused.load(Ordering::Relaxed), since.elapsed().as_secs_f64());
    assert!(seconds >= 1.0, "{refused} copies in {seconds} s");
    site.pty.plug();
    site.broker.misbehave(Mischief::to("g", 7));
    site.observer.clear();
    site.observer.wait_payload("sluicegate/g/meter/status", "online");
}

#[test]
fn a_silent_broker_is_left() {
    let site = site("5", "");
    site.broker.misbehave(Mischief { silent: true, ..Mischief::to("g", 7) });
    site.agent.wait_log("link lost: the broker was silent for 7.5 s");
    site.broker.misbehave(Mischief::to("g", 7));
    site.agent.wait_log("back after");
}

#[test]
fn the_broker_of_these_tests_serves_others_too() {
    let broker = Mischievous::start();
    for version in ["mqttv311", "mqttv5"] {
        let arguments = ["-V", version, "-t", "a/+/c", "-t", "observer/#"];
        let observer = Observer::with(broker.port, &arguments);
        publish_with(broker.port, "a/b/c", "kept", &["-V", version, "-r"]);
        observer.wait_payload("a/b/c", "kept");
        publish(broker.port, "a/b/c/d", "not asked for");
        let will =
            Observer::with(broker.port, &["-V", version, "-t", "#", "--will-topic", "a/will/c", "--will-payload", "w"]);
        drop(will);
        observer.wait_payload("a/will/c", "w");
        assert!(observer.all().iter().all(|heard| heard.topic != "a/b/c/d" && !heard.retained), "{:?}", observer.all());
        let kept = Observer::retained(broker.port, "#");
        assert_eq!(kept.get("a/b/c").map(String::as_str), Some("kept"));
        publish_with(broker.port, "a/b/c", "", &["-V", version, "-r"]);
        assert_eq!(Observer::retained(broker.port, "#").get("a/b/c"), None);
    }
}
