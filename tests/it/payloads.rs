//! Payloads in other forms than JSON, as clients of MQTT 5 see them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::{Agent, Killed, Mosquitto, Observer, Pty, publish, publish_bytes, until};

const CONFIG: &str = r#"
[gateway]
id = "g"
state_directory = "{state}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
version = "5"
[device.plc]
kind = "sim"
payload = "xml"
[device.plc.point.level]
wave = "counter"
every = "1s"
unit = "mm"
[device.plc.point.valve]
wave = "switch"
safe = false
[device.node]
kind = "sim"
payload = "cbor"
[device.node.point.pump]
wave = "switch"
safe = false
[device.node.point.mode]
wave = "switch"
safe = false
payload = "value"
"#;

/// What mosquitto_sub says of each message: topic, content type, payload format, payload in hex.
fn listen(port: u16) -> (Killed, Arc<Mutex<Vec<[String; 4]>>>) {
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V", "5", "-t", "sluicegate/#", "-F", "%t|%C|%F|%x"]);
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heard);
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let parts: Vec<String> = line.splitn(4, '|').map(str::to_owned).collect();
            all.lock().unwrap().push(parts.try_into().unwrap());
        }
    });
    (child, heard)
}

#[test]
fn each_form_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let (_child, heard) = listen(broker.port);
    let observer = Observer::start(broker.port);
    let _agent = Agent::start(folder.path(), &CONFIG.replace("{port}", &broker.port.to_string()));
    let has = |topic: &str, content: &str, format: &str, begin: &str| {
        let topic = format!("sluicegate/g/{topic}");
        let begin: String = begin.bytes().map(|byte| format!("{byte:02x}")).collect();
        let fits = |found: &[String; 4]| {
            found[0] == topic
                && found[1] == content
                && found[2] == format
                && found[3].to_lowercase().starts_with(&begin)
        };
        until(&format!("{topic} as {content}"), || heard.lock().unwrap().iter().any(fits));
    };
    has("status", "text/plain", "1", "online");
    has("info", "application/json", "1", "{");
    has("plc/level", "application/xml", "1", "<reading><epoch>");
    let info = observer.wait("info", |heard| heard.topic == "sluicegate/g/info").json();
    let points = &info["devices"];
    assert_eq!(
        (&points["plc"]["points"]["valve"]["payload"], &points["node"]["points"]["mode"]["payload"]),
        (&"xml".into(), &"value".into())
    );

    publish(broker.port, "sluicegate/g/plc/valve/set", "<command><value>ON</value><id>x-1</id></command>");
    has("plc/valve/outcome", "application/xml", "1", "<outcome>");
    observer.wait("the outcome in XML", |heard| {
        heard.payload.starts_with("<outcome>")
            && heard.payload.contains("<id>x-1</id><lane>outcome</lane><outcome>done</outcome>")
    });
    publish(
        broker.port,
        "sluicegate/g/plc/set",
        "<command><values><value point=\"valve\">0</value></values></command>",
    );
    observer.wait("the outcome of several", |heard| {
        heard.topic == "sluicegate/g/plc/outcome"
            && heard.payload.contains("<values><value point=\"valve\">false</value></values>")
    });

    // {"value": true, "id": "c"} (RFC 8949, section 3.1).
    publish_bytes(broker.port, "sluicegate/g/node/pump/set", b"\xa2\x65value\xf5\x62id\x61c", &[]);
    has("node/pump/outcome", "application/cbor", "0", "");
    let outcome =
        heard.lock().unwrap().iter().find(|found| found[0] == "sluicegate/g/node/pump/outcome").unwrap().clone();
    // "outcome": "done".
    assert!(outcome[3].to_lowercase().contains("676f7574636f6d6564646f6e65"), "{outcome:?}");
    publish(broker.port, "sluicegate/g/node/mode/set", "ON");
    has("node/mode/outcome", "application/json", "1", "{");
    has("node/mode", "text/plain", "1", "true");
}

#[test]
fn bytes_go_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let (_child, heard) = listen(broker.port);
    let observer = Observer::start(broker.port);
    let mut device = Pty::new(&folder.path().join("meter"));
    let config = format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{}"
version = "5"
[device.meter]
kind = "serial"
port = "{}"
decode = {{ kind = "bytes" }}
payload = "bytes"
[device.meter.point.frame]
type = "text"
[device.meter.point.say]
type = "text"
write = "<{{bytes}}>"
"#,
        broker.port,
        device.path()
    );
    let _agent = Agent::start(folder.path(), &config);
    observer.wait_payload("sluicegate/g/meter/status", "online");
    device.say(b"\x00\xff\x80A\n");
    let frame = ["sluicegate/g/meter/frame", "application/octet-stream", "0", "00ff8041"].map(str::to_owned);
    until("the bytes", || {
        heard.lock().unwrap().iter().any(|found| found.each_ref().map(|s| s.to_lowercase()) == frame)
    });
    publish_bytes(broker.port, "sluicegate/g/meter/say/set", b"\x00\xfe{", &[]);
    device.hear("<\u{0}\u{fffd}{>");
    observer.wait_json("sluicegate/g/meter/say/outcome", "value", "00fe7b");
    publish_bytes(broker.port, "sluicegate/g/meter/say/set", &[b'x'; 4097], &[]);
    observer.wait("a refusal", |heard| heard.topic.ends_with("say/outcome") && heard.payload.contains("at most 4096"));
    publish(broker.port, "sluicegate/g/meter/set", r#"{"values":{"say":"00"},"id":"several"}"#);
    observer.wait_json("sluicegate/g/meter/outcome", "id", "several");
}

#[test]
fn a_reload_writes_what_the_broker_retains_in_the_new_form() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let config = CONFIG.replace("{port}", &broker.port.to_string());
    let agent = Agent::start(folder.path(), &config);
    observer.wait("info", |heard| heard.topic == "sluicegate/g/info");
    // It speaks only when somebody sets it.
    let valve = "sluicegate/g/plc/valve";
    publish(broker.port, &format!("{valve}/set"), "ON");
    observer.wait("the valve in XML", |heard| heard.topic == valve && heard.payload.contains("<value>true</value>"));
    Agent::configure(folder.path(), &config.replace("\"xml\"", "\"json\""));
    agent.hang_up();
    until("it in JSON", || {
        let retained = Observer::retained(broker.port, valve);
        retained.get(valve).is_some_and(|payload| payload.starts_with('{') && payload.contains("\"repeat\":true"))
    });
}
