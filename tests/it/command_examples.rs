//! The clients of docs/COMMANDS.md do what it says of them: each is taken out of it and run.

use std::path::Path;
use std::process::Command;

use crate::support::{Agent, Mosquitto, Observer};

fn config(port: u16, version: &str) -> String {
    format!(
        r#"
[gateway]
id = "pump-house-7"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
version = "{version}"
[device.relays]
kind = "sim"
[device.relays.point.pump]
wave = "switch"
safe = false
"#
    )
}

/// The blocks of code of this kind.
fn blocks(kind: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/COMMANDS.md")).unwrap();
    let begin = format!("```{kind}\n");
    text.split(&begin).skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned()).collect()
}

/// Runs an example against a gateway that speaks this version of MQTT.
fn run(version: &str, program: &[&str], example: &str) {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let _agent = Agent::start(folder.path(), &config(broker.port, version));
    observer.wait_payload("sluicegate/pump-house-7/status", "online");
    let file = folder.path().join("example");
    std::fs::write(&file, example).unwrap();
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(&file);
    // Where Debian's package of mqtt.js is, for a Node that is not Debian's.
    command.env("NODE_PATH", "/usr/share/nodejs");
    command.env("MQTT_HOST", "127.0.0.1").env("MQTT_PORT", broker.port.to_string());
    let output = command.output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("done"), "{said}");
    let outcome = observer.wait_json("sluicegate/pump-house-7/relays/pump/outcome", "outcome", "done");
    assert_eq!(outcome["value"], true);
}

#[test]
fn the_shell_example_waits_for_its_outcome() {
    run("3.1.1", &["sh"], &blocks("sh")[0]);
}

#[test]
fn the_request_and_response_example_waits_for_its_outcome() {
    run("5", &["sh"], &blocks("sh")[1]);
}

#[test]
fn the_python_example_waits_for_its_outcome() {
    // Debian's own Python has Debian's packages.
    run("3.1.1", &["/usr/bin/python3"], &blocks("python")[0]);
}

#[test]
fn the_node_example_waits_for_its_outcome() {
    run("3.1.1", &["node"], &blocks("js")[0]);
}
