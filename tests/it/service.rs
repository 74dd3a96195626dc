//! The gateway as a service: what systemd is told, and what people are answered.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use crate::support::{Agent, Mosquitto, Observer, free_port, until};

fn config(port: u16) -> String {
    format!(
        "[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n\
         [device.plant]\nkind = \"sim\"\n[device.plant.point.level]\nwave = \"counter\"\nevery = \"50ms\"\n"
    )
}

#[test]
fn systemd_is_told_when_it_is_ready_alive_and_about_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut told = Vec::new();
    let hear = |told: &mut Vec<String>| {
        let mut buffer = [0; 4096];
        while let Ok(count) = socket.recv(&mut buffer) {
            told.extend(String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned));
        }
    };
    // No broker at all: the service is ready all the same, and says what is wrong.
    let port = free_port();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let mut agent = Agent::start_with(folder.path(), &config(port), &environment);
    until("READY, a status and the watchdog", || {
        hear(&mut told);
        let has = |text: &str| told.iter().any(|line| line.starts_with(text));
        has("READY=1") && has("STATUS=offline: no connection to mqtt://127.0.0.1") && has("WATCHDOG=1")
    });
    assert_eq!(told.iter().filter(|line| *line == "READY=1").count(), 1);
    assert!(agent.log().contains("link lost: ") && !agent.log().contains("MESSAGE_ID"), "{}", agent.log());
    assert!(agent.stop().success());
    hear(&mut told);
    assert!(told.iter().any(|line| line == "STOPPING=1"), "{told:?}");
    let known: HashSet<&str> = told.iter().filter_map(|line| line.split('=').next()).collect();
    assert!(known.is_subset(&["READY", "STATUS", "WATCHDOG", "STOPPING"].into()), "{known:?}");
}

#[test]
fn a_clean_stop_leaves_its_mark_and_a_kill_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = folder.path().join("runtime");
    std::fs::create_dir(&runtime).unwrap();
    let port = free_port();
    let with_unit = [("RUNTIME_DIRECTORY", runtime.to_str().unwrap())];
    for (environment, mark) in
        [(&with_unit[..], runtime.join("clean-stop")), (&[], folder.path().join("state/clean-stop"))]
    {
        let control = mark.with_file_name("control.sock");
        let start = || {
            let agent = Agent::start_with(folder.path(), &config(port), environment);
            until("the control socket", || control.exists());
            agent
        };
        let mut agent = start();
        assert!(agent.stop().success());
        assert!(mark.exists(), "{}", agent.log());
        let mut agent = start();
        assert!(!mark.exists(), "it speaks for one start");
        agent.kill();
        assert!(!mark.exists());
        std::fs::remove_file(&control).unwrap();
    }
}

#[test]
fn the_running_gateway_answers_status_and_try() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let mut agent = Agent::start(folder.path(), &config(broker.port));
    let mut status = serde_json::Value::Null;
    until("the link to be up", || {
        let answer = Agent::ask(folder.path(), &["status"]);
        status = serde_json::from_slice(&answer.stdout).unwrap_or_default();
        status["link"].as_str().is_some_and(|link| link.starts_with("online at"))
    });
    assert_eq!(status["gateway"], "g");
    assert_eq!(status["devices"]["plant"]["state"], "online");
    assert!(status["queue"]["telemetry"]["totals"]["published"].is_u64(), "{status}");
    // A second daemon on the same state is refused, and says so.
    let second = Agent::ask(folder.path(), &["run"]);
    assert_eq!(second.status.code(), Some(75), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("another sluicegate runs"), "{second:?}");
    assert!(agent.stop().success());
    let gone = Agent::ask(folder.path(), &["status"]);
    assert!(!gone.status.success());
    assert!(String::from_utf8_lossy(&gone.stderr).contains("is it running?"), "{gone:?}");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_a_problem_and_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    // Not even root makes a folder there.
    let mut agent = Agent::start(folder.path(), &config(broker.port).replace("{state}", "/proc/sluicegate"));
    observer.wait("the problem", |heard| {
        heard.topic == "sluicegate/g/problem" && heard.payload.contains("the state directory /proc/sluicegate")
    });
    observer.wait("a reading", |heard| heard.topic == "sluicegate/g/plant/level");
    assert!(agent.stop().success());
}

#[test]
fn a_device_is_tried_with_and_without_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    Agent::configure(folder.path(), &config(broker.port));
    let alone = Agent::shown(folder.path(), &["try", "plant"], "plant/level = 3");
    assert!(alone.starts_with("# online"), "{alone}");
    let agent = Agent::start(folder.path(), &config(broker.port));
    until("the control socket", || agent.status().is_some());
    let asked = Agent::shown(folder.path(), &["try", "plant"], "plant/level = ");
    assert!(asked.starts_with("# asking the running gateway"), "{asked}");
    let unknown = Agent::ask(folder.path(), &["try", "plent"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("expected one of plant"), "{unknown:?}");
}

#[test]
fn a_config_that_is_wrong_ends_with_78() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(folder.path(), &config(free_port()).replace("wave", "wafe"));
    assert_eq!(agent.ended().code(), Some(78));
    assert!(agent.log().contains("agent.toml:9:1: device.plant.point.level.wafe: "), "{}", agent.log());
}

#[test]
fn a_gateway_that_nobody_configured_says_what_to_do_and_has_not_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let config = "[gateway]\nid = \"debian\"\nstate_directory = \"{state}\"\n";
    let mut agent = Agent::start_with(folder.path(), config, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(agent.ended().code(), Some(66), "{}", agent.log());
    let file = folder.path().join("agent.toml");
    let text = format!("not configured yet: set gateway.id and mqtt.url in {}, then: start it again", file.display());
    assert!(agent.log().contains(&text), "{}", agent.log());
    let mut buffer = [0; 4096];
    for expected in [format!("STATUS={text}"), "READY=1".to_owned()] {
        let count = socket.recv(&mut buffer).unwrap();
        assert_eq!(String::from_utf8_lossy(&buffer[..count]).trim_end(), expected);
    }
    // A person who asks for a check is told all of it, as of any other wrong config.
    assert_eq!(Agent::ask(folder.path(), &["check"]).status.code(), Some(78));
}

#[test]
fn those_who_looked_at_a_silent_device_and_went_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let silent = "[device.silent]\nkind = \"sim\"\n[device.silent.point.fan]\nwave = \"switch\"\n";
    let _agent = Agent::start(folder.path(), &format!("{}{silent}", config(broker.port)));
    until("the control socket", || Agent::ask(folder.path(), &["status"]).status.success());
    let socket = folder.path().join("state/control.sock");
    for _ in 0..20 {
        let mut asker = UnixStream::connect(&socket).unwrap();
        asker.write_all(b"{\"ask\":\"try\",\"device\":\"silent\"}\n").unwrap();
    }
    let mut asker = UnixStream::connect(&socket).unwrap();
    asker.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    asker.write_all(b"{\"ask\":\"status\"}\n").unwrap();
    let mut answer = String::new();
    asker.read_to_string(&mut answer).expect("an answer although others asked before");
    assert!(answer.contains("\"gateway\":\"g\""), "{answer}");
}
