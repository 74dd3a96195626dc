//! What a gateway makes of every sort of payload: the exact reason and sentence, or the value that acts. The far end of
//! the serial line is the record of what acted.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;
use sluicegate::model::time;

use crate::support::{Agent, Gate, Mosquitto, Observer, Pty, publish, publish_bytes, publish_with, until};

fn config(port: u16, version: &str, pty: &str) -> String {
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
command_max_age = "10s"
[device.tank.point.speed]
type = "float"
write = "SPEED {{value}}\n"
[device.tank.point.lamp]
type = "bool"
safe = false
write = "LAMP {{value}}\n"
[device.tank.point.display]
type = "text"
write = "SAY {{value}}\n"
"#
    )
}

struct Site {
    broker: Mosquitto,
    gate: Gate,
    observer: Observer,
    pty: Pty,
    agent: Agent,
    _folder: tempfile::TempDir,
}

fn site(version: &str, before: impl FnOnce(u16)) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_queued_messages 0\n");
    site_at(broker, folder, version, "", before)
}

fn site_at(broker: Mosquitto, folder: tempfile::TempDir, version: &str, more: &str, before: impl FnOnce(u16)) -> Site {
    before(broker.port);
    let gate = Gate::to(broker.port);
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("tank"));
    let agent = Agent::start(folder.path(), &(config(gate.port, version, pty.path()) + more));
    observer.wait_payload("sluicegate/g/tank/status", "online");
    observer.wait_json("sluicegate/g/info", "session", 1);
    // What has a safe value begins with it.
    pty.hear("LAMP 0\n");
    Site { broker, gate, observer, pty, agent, _folder: folder }
}

impl Site {
    /// The answer to what was published since the last look.
    fn answer(&self, to: &str, what: &str) -> Value {
        let topic = format!("sluicegate/g/{to}/outcome");
        self.observer.wait(what, |heard| heard.topic == topic).json()
    }

    /// A connection of its own, with all that the broker has stored.
    fn reconnect(&self) {
        let before = self.gate.connections();
        self.gate.close();
        self.gate.open();
        until("another connection", || self.gate.connections() > before);
    }

    /// A command that acts, so that all that came before it was looked at.
    fn act(&mut self, value: usize) -> String {
        until("a command to act", || {
            publish(
                self.broker.port,
                "sluicegate/g/tank/speed/set",
                &format!(r#"{{"value":{value},"id":"act-{value}"}}"#),
            );
            self.record().contains(&format!("SPEED {value}\n"))
        });
        format!("SPEED {value}\n")
    }

    /// The answers with this reason, so far.
    fn refused(&self, reason: &str) -> Vec<(String, String)> {
        let all = self.observer.all().into_iter().filter(|heard| heard.topic.ends_with("/outcome"));
        let of_reason = all.filter(|heard| heard.json()["reason"] == reason);
        of_reason.map(|heard| (heard.topic.clone(), heard.json()["id"].as_str().unwrap().to_owned())).collect()
    }

    /// What acted, but for the safe value at the beginning.
    fn record(&mut self) -> String {
        self.pty.heard_so_far().replacen("LAMP 0\n", "", 1)
    }
}

/// What comes of a payload.
enum Then {
    /// This stands in the record.
    Acts(&'static str),
    /// Rejected with this reason, and a sentence in which this stands.
    No(&'static str, &'static str),
    /// The device can't do it, and says this.
    Fails(&'static str),
}
use Then::{Acts, Fails, No};

/// To whom, what, the id that the answer has (a `*`: one that the gateway made), and what comes of it.
type Row = (&'static str, Cow<'static, [u8]>, &'static str, Then);

fn row(to: &'static str, payload: impl Into<Vec<u8>>, id: &'static str, then: Then) -> Row {
    (to, Cow::Owned(payload.into()), id, then)
}

/// Bare values.
fn bare() -> Vec<Row> {
    let valve =
        |payload: &[u8], then| row("tank/valve", payload, if matches!(then, Acts(_)) { "*" } else { "-" }, then);
    let int = |payload: &[u8]| valve(payload, No("type", "is not a whole number"));
    let mut rows = vec![
        valve(b"", No("type", "the payload is empty")),
        valve(b"-1", No("range", "valve: -1 is out of range: expected 0 to 100")),
        valve(b"101", No("range", "valve: 101 is out of range")),
        valve(b"\xff\xfe5\x00", No("type", "the payload is not UTF-8 text")),
        valve(b"5\xff", No("type", "the payload is not UTF-8 text")),
        valve(b"\xc0\xb5", No("type", "the payload is not UTF-8 text")),
        valve(b"5", Acts("VALVE 5\n")),
        valve(b" 6 \r\n", Acts("VALVE 6\n")),
        valve(b"7.0", Acts("VALVE 7\n")),
        valve(b"+8", Acts("VALVE 8\n")),
        valve(b"9e0", Acts("VALVE 9\n")),
        row("tank/speed", "NaN", "-", No("type", "speed: `NaN` is not a number")),
        row("tank/speed", "-inf", "-", No("type", "is not a number")),
        row("tank/speed", "1e400", "-", No("type", "is not a number")),
        row("tank/speed", "2.5", "*", Acts("SPEED 2.5\n")),
        row("tank/lamp", "yes", "-", No("type", "is not a switch value")),
        row("tank/lamp", "2", "-", No("type", "is not a switch value")),
        row("tank/lamp", "ON", "*", Acts("LAMP 1\n")),
        row("tank/display", b"\xff", "-", No("type", "the payload is not UTF-8 text")),
        row("tank/display", "", "-", No("type", "the payload is empty")),
        row("tank/display", " hello ", "*", Acts("SAY  hello \n")),
        row("tank/display", "{broken", "*", Acts("SAY {broken\n")),
        row("tank/display", "a\nb", "*", Fails("a text with control characters can't be sent")),
        row("tank/display", "a\0b", "*", Fails("a text with control characters can't be sent")),
        row("tank/level", "1", "-", No("read-only", "level can't be written")),
        row("tank/nothing", "1", "-", No("unknown", "there is no point `nothing` of `tank`")),
        row("boiler/valve", "1", "-", No("unknown", "there is no device `boiler`")),
        row("tank", "5", "-", No("type", "expected a JSON object with \"values\"")),
        row("tank", "", "-", No("type", "expected a JSON object with \"values\"")),
    ];
    rows.extend(
        [
            &b" "[..],
            b"much",
            b"NaN",
            b"inf",
            b"1e400",
            b"99999999999999999999",
            b"0x10",
            b"5.5",
            b"1,5",
            b"5 6",
            b"true",
            b"null",
            b"[5]",
            b"\"5\"",
            b"5\0",
            b"\0",
            b"\xef\xbb\xbf5",
            b"\xef\xbb\xbf{\"value\":5}",
            "\u{ff15}".as_bytes(),
        ]
        .map(int),
    );
    rows
}

/// Text that looks like JSON, and JSON that is no command.
fn objects() -> Vec<Row> {
    let mut rows: Vec<Row> = [
        r#"{"#,
        r#"{"value"}"#,
        r#"{"value":}"#,
        r#"{"value":5,}"#,
        r#"{'value':5}"#,
        r#"{value:5}"#,
        r#"{"value":5} {"value":6}"#,
        r#"{"value":5"#,
        r#"{"value":05}"#,
        r#"{"value":NaN}"#,
        r#"{"value":1e999}"#,
        r#"{"value":5 /* five */}"#,
        "{\"value\":5}\0",
        r#"{"value":"\ud800"}"#,
    ]
    .map(|payload| row("tank/valve", payload, "-", No("type", "the payload is no JSON")))
    .into();
    rows.push(row(
        "tank/valve",
        format!("{{\"value\":{}", "[".repeat(4000)),
        "-",
        No("type", "the payload is no JSON"),
    ));
    let valve = |payload: &'static str, id, then| row("tank/valve", payload, id, then);
    let tank = |payload: &'static str, id, then| row("tank", payload, id, then);
    rows.extend([
        valve("{}", "-", No("type", "expected \"value\"")),
        valve(r#"{"id":"a1","value":[5]}"#, "a1", No("type", "`[5]` is no value")),
        valve(r#"{"id":"a2","value":{"value":5}}"#, "a2", No("type", "is no value: expected a number")),
        valve(r#"{"id":"a3","value":null}"#, "a3", No("type", "`null` is no value")),
        valve(r#"{"id":"a4","value":true}"#, "a4", No("type", "valve: `true` is not a whole number")),
        valve(r#"{"id":"a5","value":5.5}"#, "a5", No("type", "`5.5` is not a whole number")),
        valve(r#"{"id":"a6","value":"much"}"#, "a6", No("type", "`much` is not a whole number")),
        valve(r#"{"id":"a7","value":1e300}"#, "a7", No("type", "is not a whole number")),
        valve(r#"{"id":"a8","value":18446744073709551621}"#, "a8", No("type", "is not a whole number")),
        valve(r#"{"id":"a9","value":101}"#, "a9", No("range", "101 is out of range")),
        valve(r#"{"id":"b1","value":5,"value":6}"#, "b1", No("type", "the key `value` is there twice")),
        valve(r#"{"id":"b2","value":5,"force":true}"#, "b2", No("type", "unknown key `force`")),
        valve(r#"{"id":"b3","Value":5}"#, "b3", No("type", "expected \"value\"")),
        valve(r#"{"id":"b4","values":{"valve":5}}"#, "b4", No("type", "expected \"value\"")),
        valve(r#"{"id":"b5","value":5,"values":{"valve":5}}"#, "b5", No("type", "expected \"value\"")),
        tank(r#"{"id":"b6","value":5}"#, "b6", No("type", "expected \"values\"")),
        tank(r#"{"id":"b7","values":[5]}"#, "b7", No("type", "expected \"values\"")),
        tank(r#"{"id":"b8","values":{}}"#, "b8", No("type", "expected \"values\"")),
        tank(r#"{"id":"b9","values":{"valve":5,"valve":6}}"#, "b9", No("type", "the key `valve` is there twice")),
        tank(r#"{"id":"c1","values":{"valve":null}}"#, "c1", No("type", "`null` is no value")),
        tank(r#"{"id":"c2","values":{"valve":5,"nothing":1}}"#, "c2", No("unknown", "there is no point `nothing`")),
        tank(r#"{"id":"c3","values":{"valve":5,"level":1}}"#, "c3", No("read-only", "level can't be written")),
        tank(r#"{"id":"c4","values":{"valve":5,"speed":"fast"}}"#, "c4", No("type", "speed: `fast` is not a number")),
        tank(r#"{"id":"c5","values":{"valve":21,"speed":0.5}}"#, "c5", Acts("SPEED 0.5\nVALVE 21\n")),
        valve(r#"{"id":"c6","value":"22"}"#, "c6", Acts("VALVE 22\n")),
        valve(r#"{"id":"c7","value":23.0}"#, "c7", Acts("VALVE 23\n")),
        valve(r#" {"id":"c8","valu\u0065":-0.0} "#, "c8", Acts("VALVE 0\n")),
        row("tank/display", r#"{"id":"c9","value":""}"#, "c9", Acts("SAY \n")),
        row("tank/display", r#"{"value":"a","value":"b"}"#, "-", No("type", "the key `value` is there twice")),
    ]);
    rows
}

/// Ids, and all times.
fn keys() -> Vec<Row> {
    let valve = |payload: &'static str, id, then| row("tank/valve", payload, id, then);
    let lamp = |payload: &'static str, id, then| row("tank/lamp", payload, id, then);
    let long = |length: usize| format!(r#"{{"id":"{}","value":5}}"#, "i".repeat(length));
    vec![
        row("tank/valve", long(65), "-", No("type", "an id has 1 to 64 bytes and no control characters")),
        valve(r#"{"id":"","value":5}"#, "-", No("type", "an id has 1 to 64 bytes")),
        valve(r#"{"id":"a\nb","value":5}"#, "-", No("type", "an id has 1 to 64 bytes")),
        valve(r#"{"id":"a\u0000","value":5}"#, "-", No("type", "an id has 1 to 64 bytes")),
        valve(r#"{"id":null,"value":5}"#, "-", No("type", "`null` is no id")),
        valve(r#"{"id":["x"],"value":5}"#, "-", No("type", "is no id: expected text")),
        valve(r#"{"id":true,"value":5}"#, "-", No("type", "`true` is no id")),
        valve(r#"{"id":"x","id":"y","value":5}"#, "y", No("type", "the key `id` is there twice")),
        valve(r#"{"id":7,"value":31}"#, "7", Acts("VALVE 31\n")),
        valve(r#"{"id":"grün und bunt","value":32}"#, "grün und bunt", Acts("VALVE 32\n")),
        valve(r#"{"id":"t1","value":5,"ts":"yesterday"}"#, "t1", No("type", "`yesterday` is not a time")),
        valve(r#"{"id":"t2","value":5,"ts":"2026-13-45T00:00:00Z"}"#, "t2", No("type", "is not a time")),
        valve(r#"{"id":"t3","value":5,"ts":true}"#, "t3", No("type", "`ts` is no time")),
        valve(r#"{"id":"t4","value":5,"ts":-5}"#, "t4", No("type", "`-5` is not a time")),
        valve(r#"{"id":"t5","value":5,"ts":1795341600123}"#, "t5", No("stale", "s ahead, allowed are 10s")),
        valve(r#"{"id":"t6","value":5,"ts":"2020-01-01T00:00:00Z"}"#, "t6", No("stale", "s old, allowed are 10s")),
        valve(r#"{"id":"t7","value":5,"ts":0}"#, "t7", No("stale", "s old, allowed are 10s")),
        valve(r#"{"id":"t8","value":5,"ts":[2026]}"#, "t8", No("type", "`ts` is no time")),
        valve(r#"{"id":"e1","value":5,"expires":false}"#, "e1", No("type", "`expires` is no time")),
        valve(r#"{"id":"e2","value":5,"expires":""}"#, "e2", No("type", "`` is not a time")),
        valve(r#"{"id":"e3","value":5,"expires":0}"#, "e3", No("stale", "its expiry has passed")),
        valve(r#"{"id":"e4","value":5,"expires":1e18}"#, "e4", No("range", "ids are remembered for 86400 s only")),
        valve(r#"{"id":"e5","value":5,"expires":1e300}"#, "e5", No("type", "is not a time")),
        valve(r#"{"id":"e6","value":5,"expires":"2020-01-01T00:00:00Z"}"#, "e6", No("stale", "its expiry has passed")),
        valve(r#"{"id":"l1","value":5,"ttl":"30"}"#, "l1", No("type", "`30` is not a duration")),
        valve(r#"{"id":"l2","value":5,"ttl":"-1s"}"#, "l2", No("type", "`-1s` is not a duration")),
        valve(r#"{"id":"l3","value":5,"ttl":-1}"#, "l3", No("type", "`-1` is not a duration")),
        valve(r#"{"id":"l4","value":5,"ttl":0}"#, "l4", No("stale", "its expiry has passed")),
        valve(r#"{"id":"l5","value":5,"ttl":"25h"}"#, "l5", No("range", "it is valid for 90000 s")),
        valve(r#"{"id":"l6","value":5,"ttl":1e300}"#, "l6", No("type", "is not a duration")),
        valve(r#"{"id":"l7","value":5,"ttl":{"s":1}}"#, "l7", No("type", "`ttl` is no duration")),
        valve(r#"{"id":"f1","value":5,"for":"5m"}"#, "f1", No("range", "`for` needs a point with a safe value")),
        lamp(r#"{"id":"f2","value":false,"for":"5m"}"#, "f2", No("range", "`for` needs a point with a safe value")),
        lamp(r#"{"id":"f3","value":true,"for":"0s"}"#, "f3", No("range", "expected 10ms to 7d")),
        lamp(r#"{"id":"f4","value":true,"for":"8d"}"#, "f4", No("range", "expected 10ms to 7d")),
        lamp(r#"{"id":"f5","value":true,"for":"long"}"#, "f5", No("type", "`long` is not a duration")),
        lamp(r#"{"id":"f6","value":true,"for":true}"#, "f6", No("type", "`for` is no duration")),
        lamp(r#"{"id":"f7","value":true,"for":-1}"#, "f7", No("type", "`-1` is not a duration")),
        lamp(r#"{"id":"f8","value":true,"for":1e300}"#, "f8", No("type", "is not a duration")),
        lamp(r#"{"id":"f9","value":true,"for":["1s"]}"#, "f9", No("type", "`for` is no duration")),
        valve(r#"{"id":"g1","value":33,"ts":null,"expires":null,"ttl":null,"for":null}"#, "g1", Acts("VALVE 33\n")),
        valve(r#"{"id":"g2","value":34,"ttl":1.5}"#, "g2", Acts("VALVE 34\n")),
        lamp(r#"{"id":"g3","value":true,"for":"7d"}"#, "g3", Acts("LAMP 1\n")),
    ]
}

fn check(version: &str) {
    let mut site = site(version, |_| {});
    let mut acted = String::new();
    let rows: Vec<Row> = [bare(), objects(), keys()].into_iter().flatten().collect();
    assert!(rows.len() > 100);
    for (to, payload, id, then) in rows {
        let shown = String::from_utf8_lossy(&payload).chars().take(80).collect::<String>();
        site.observer.clear();
        let arguments: &[&str] = if version == "5" { &["-V", "5"] } else { &[] };
        publish_bytes(site.broker.port, &format!("sluicegate/g/{to}/set"), &payload, arguments);
        let answer = site.answer(to, &format!("an answer to {shown}"));
        let (outcome, reason, part) = match then {
            Acts(text) => {
                acted += text;
                ("done", Value::Null, "")
            }
            No(reason, part) => ("rejected", reason.into(), part),
            Fails(part) => ("failed", Value::Null, part),
        };
        assert_eq!((&answer["outcome"], &answer["reason"]), (&outcome.into(), &reason), "{shown}: {answer}");
        assert!(answer["text"].as_str().unwrap_or_default().contains(part), "{shown}: {answer}");
        let told = answer["id"].as_str().unwrap();
        assert!(told == id || (id == "*" && told.starts_with("auto-")), "{shown}: {answer}");
        assert!(answer.to_string().len() < 2000, "{shown}: {answer}");
        assert_eq!(site.record(), acted, "after {shown}");
    }
    assert!(!site.agent.log().contains("link lost"));
}

#[test]
fn every_payload_acts_or_is_refused_with_its_reason_on_mqtt_3() {
    check("3.1.1");
}

#[test]
fn every_payload_acts_or_is_refused_with_its_reason_on_mqtt_5() {
    check("5");
}

/// Stored at the broker before the gateway came, and again at each connection (MQTT 3.1.1).
#[test]
fn a_retained_command_is_refused_once_for_each_content_and_never_acts() {
    const STORED: [(&str, &str, &str); 4] = [
        ("tank/valve", r#"{"value":66,"id":"old"}"#, "old"),
        ("tank/lamp", "ON", "-"),
        ("tank", r#"{"values":{"valve":67},"id":"all"}"#, "all"),
        ("tank/display", "{", "-"),
    ];
    for version in ["3.1.1", "5"] {
        let store = |port: u16, to: &str, payload: &str| {
            let topic = format!("sluicegate/g/{to}/set");
            assert!(publish_with(port, &topic, payload, &["-r"]).status.success());
        };
        let mut site = site(version, |port| {
            STORED.iter().for_each(|(to, payload, _)| store(port, to, payload));
        });
        let mut acted = site.act(1);
        let told = |to: &str, id: &str| (format!("sluicegate/g/{to}/outcome"), id.to_owned());
        let mut expected: Vec<_> = STORED.iter().map(|(to, _, id)| told(to, id)).collect();
        if version == "5" {
            // They are not even sent.
            expected.clear();
        }
        for round in 2..5 {
            site.reconnect();
            acted += &site.act(round);
        }
        // What is published as retained while the gateway listens: MQTT 3.1.1 delivers it like any other.
        store(site.broker.port, "tank/valve", r#"{"value":68,"id":"live"}"#);
        if version == "5" {
            expected.push(told("tank/valve", "live"));
            until("the refusal", || site.refused("retained").len() == expected.len());
        } else {
            site.pty.hear("VALVE 68\n");
            acted += "VALVE 68\n";
            site.observer.wait_json("sluicegate/g/tank/valve/outcome", "id", "live");
        }
        for round in 5..8 {
            site.reconnect();
            acted += &site.act(round);
        }
        let mut refused = site.refused("retained");
        refused.sort();
        expected.sort();
        assert_eq!(refused, expected, "MQTT {version}");
        assert_eq!(site.record(), acted, "MQTT {version}");
    }
}

/// Two pumps of a group: the second may begin ten minutes after the first has ended, and no command is valid for so long.
#[test]
fn a_command_whose_time_is_over_before_its_turn_expires() {
    for version in ["3.1.1", "5"] {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(folder.path());
        let mut line = Pty::new(&folder.path().join("pumps"));
        let pumps = format!(
            r#"
[device.pumps]
kind = "serial"
port = "{}"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.pumps.point.a]
type = "bool"
safe = false
write = "A {{value}}\n"
timeout = "20m"
interlock = {{ group = "pumps", dead_time = "10m" }}
[device.pumps.point.b]
type = "bool"
safe = false
write = "B {{value}}\n"
interlock = {{ group = "pumps", dead_time = "10m" }}
"#,
            line.path()
        );
        let port = broker.port;
        let site = site_at(broker, folder, version, &pumps, |_| {});
        until("the pumps to be off", || line.heard_so_far().matches(" 0\n").count() == 2);
        site.observer.wait_payload("sluicegate/g/pumps/status", "online");
        let topic = "sluicegate/g/pumps/a/set";
        let soon = (time::now().wall + Duration::from_millis(1500)).as_secs_f64();
        let mut ids = vec!["ttl", "expires"];
        publish(port, topic, r#"{"value":true,"id":"ttl","ttl":"1s"}"#);
        publish(port, topic, &format!(r#"{{"value":true,"id":"expires","expires":{soon}}}"#));
        if version == "5" {
            ids.push("message");
            let arguments = ["-V", "5", "-D", "publish", "message-expiry-interval", "1"];
            assert!(publish_with(port, topic, r#"{"value":true,"id":"message"}"#, &arguments).status.success());
        }
        for id in ids {
            let outcome = site.observer.wait_json("sluicegate/g/pumps/a/outcome", "id", id);
            assert_eq!(outcome["outcome"], "expired", "MQTT {version}: {outcome}");
            assert_eq!(outcome["text"], "its time was over before its turn came", "MQTT {version}: {outcome}");
        }
        assert_eq!(line.heard_so_far().matches(" 1\n").count(), 0, "MQTT {version}");
    }
}

/// Sends what is too large in all ways, and looks whether anybody suffers.
fn oversize(mut site: Site, version: &str) {
    let valve = "sluicegate/g/tank/valve/set";
    let arguments: &[&str] = if version == "5" { &["-V", "5"] } else { &[] };
    let mut acted = site.act(1);
    let refusal = |site: &Site, to: &str, id: &str, text: &str| {
        let answer = site.answer(to, text);
        assert_eq!((&answer["outcome"], &answer["id"]), (&"rejected".into(), &id.into()), "{answer}");
        assert!(answer["text"].as_str().unwrap().contains(text), "{answer}");
        answer["reason"].as_str().unwrap().to_owned()
    };
    if version == "3.1.1" {
        assert_eq!(refusal(&site, "tank/valve", "-", "must not be published as retained"), "retained");
    }
    let limit = "the payload is too large: a command has at most 8192 bytes";
    // A whole command at the beginning makes it none.
    for size in [8193, 100_000, 260_000, 262_144, 300_000, 1_000_000] {
        site.observer.clear();
        let mut payload = br#"{"value":5,"id":"large"}"#.to_vec();
        payload.resize(size, b' ');
        publish_bytes(site.broker.port, valve, &payload, arguments);
        assert_eq!(refusal(&site, "tank/valve", "-", limit), "type");
    }
    let before = site.agent.memory();
    for _ in 0..20 {
        publish_bytes(site.broker.port, valve, &vec![b'5'; 1_000_000], arguments);
        site.observer.clear();
    }
    acted += &site.act(2);
    let after = site.agent.memory();
    assert!(after <= before + 1024, "{before} KiB became {after} KiB");
    // The largest that there is.
    let text = "x".repeat(8192);
    publish_bytes(site.broker.port, "sluicegate/g/tank/display/set", text.as_bytes(), arguments);
    site.pty.hear(&format!("SAY {text}\n"));
    acted += &format!("SAY {text}\n");
    let outcome = site.answer("tank/display", "the largest command to be done");
    assert_eq!(outcome["value"].as_str().unwrap().len(), 8192);
    assert_eq!(site.gate.connections(), 1, "the link broke: {}", site.agent.log());
    // What is stored comes again, and is not answered again.
    site.observer.clear();
    site.reconnect();
    acted += &site.act(3);
    assert_eq!(site.refused("retained"), []);
    assert_eq!(site.gate.connections(), 2);
    assert_eq!(site.record(), acted, "MQTT {version}");
    eprintln!("MQTT {version}: {before} KiB before 20 messages of 1 MB, {after} KiB after");
}

fn store_large(port: u16) {
    publish_bytes(port, "sluicegate/g/tank/valve/set", &vec![b'5'; 300_000], &["-r"]);
}

#[test]
fn what_is_too_large_is_refused_and_does_no_harm_on_mqtt_3() {
    oversize(site("3.1.1", store_large), "3.1.1");
}

#[test]
fn what_is_too_large_is_refused_and_does_no_harm_on_mqtt_5() {
    oversize(site("5", store_large), "5");
}

#[test]
fn the_answer_goes_nowhere_where_its_address_is_too_long() {
    let site = site("5", |_| {});
    let topic = |length: usize| format!("app/{}", "r".repeat(length - 4));
    for (id, topic, tag, answered) in [
        ("a", topic(9), 1024, true),
        ("b", topic(10), 1025, false),
        ("c", topic(1024), 1, true),
        ("d", topic(1025), 1, false),
    ] {
        let (topic, tag) = (topic.as_str(), "t".repeat(tag));
        let arguments =
            ["-V", "5", "-D", "publish", "response-topic", topic, "-D", "publish", "correlation-data", &tag];
        let command = format!(r#"{{"value":1,"id":"{id}"}}"#);
        assert!(publish_with(site.broker.port, "sluicegate/g/tank/speed/set", &command, &arguments).status.success());
        assert_eq!(site.observer.wait_json("sluicegate/g/tank/speed/outcome", "id", id)["outcome"], "done");
        if answered {
            site.observer.wait_json(topic, "id", id);
        }
        assert_eq!(site.observer.all().iter().any(|heard| heard.topic == topic), answered, "{id}");
    }
}
