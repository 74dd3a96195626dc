//! A new config while the gateway runs: what changed is taken over, and nothing else notices.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::{Agent, Audit, Gate, Mosquitto, Observer, Pty, publish, publish_lines, until};

fn head(port: u16, mqtt: &str) -> String {
    format!(
        "[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n{mqtt}\n"
    )
}

/// A device that counts, with more keys of its point.
fn meter(name: &str, pty: &Pty, point: &str) -> String {
    format!(
        r#"
[device.{name}]
kind = "serial"
port = "{}"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.{name}.point.n]
from = "n"
type = "int"
{point}
"#,
        pty.path()
    )
}

const VALVE: &str = "[device.third.point.valve]\ntype = \"int\"\nwrite = \"VALVE {value}\\n\"\n";

/// Writes a new config, and has it read: exit status, and what was printed on both outputs.
fn reload(folder: &Path, config: &str) -> (Option<i32>, String, String) {
    Agent::configure(folder, config);
    let output = Agent::ask(folder, &["reload"]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn done(lines: &str) -> (Option<i32>, String, String) {
    (Some(0), lines.to_owned(), String::new())
}

/// How often this client connected.
fn connections(broker: &Mosquitto, client: &str) -> usize {
    let as_client = format!(" as {client} ");
    broker.log().lines().filter(|line| line.contains("New client connected") && line.contains(&as_client)).count()
}

/// Sensors that count on, no faster than the observer hears, until they are told to stop; what each said last.
fn counting<T>(ptys: &mut [Pty], heard: impl Fn() -> usize + Sync, meanwhile: impl FnOnce() -> T) -> (Vec<i64>, T) {
    let (stop, said) = (AtomicBool::new(false), AtomicUsize::new(0));
    let first = heard();
    let count = |pty: &mut Pty| {
        let mut n = 0;
        while !stop.load(Ordering::Relaxed) {
            n += 1;
            pty.say(format!("n={n}\n").as_bytes());
            let all = said.fetch_add(1, Ordering::Relaxed);
            until("the readings to pass", || stop.load(Ordering::Relaxed) || first + all < heard() + 100);
        }
        n
    };
    std::thread::scope(|scope| {
        // A test that fails has to end all the same.
        let sensors: Vec<_> = ptys.iter_mut().map(|pty| scope.spawn(|| count(pty))).collect();
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stopped = Stop(&stop);
        let result = meanwhile();
        drop(stopped);
        (sensors.into_iter().map(|sensor| sensor.join().unwrap()).collect(), result)
    })
}

/// All that a sensor said has come, at each observer in order; how many copies came besides.
fn complete(observers: &[&Observer], device: &str, last: i64) -> usize {
    let topic = format!("sluicegate/g/{device}/n");
    let (mut values, mut copies) = (HashSet::new(), 0);
    until("all readings", || {
        (values, copies) = (HashSet::new(), 0);
        for observer in observers {
            // Not what clears a topic.
            let heard = observer.all().into_iter().filter(|heard| !heard.payload.is_empty());
            let audit = Audit::of(&heard.collect::<Vec<_>>(), &topic);
            copies += audit.duplicates + audit.values.intersection(&values).count();
            values.extend(audit.values);
        }
        i64::try_from(values.len()).unwrap() >= last
    });
    assert_eq!(values, (1..=last).collect::<HashSet<i64>>(), "{device}");
    copies
}

/// Whether somebody heard `offline` on this topic after it had been `online`.
fn went_offline(observer: &Observer, topic: &str) -> bool {
    let all = observer.all();
    let said = all.iter().filter(|heard| heard.topic == topic).skip_while(|heard| heard.payload != "online");
    said.into_iter().any(|heard| heard.payload == "offline")
}

#[test]
fn devices_come_change_and_go_while_others_run_on() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_queued_messages 0\n");
    let observer = Observer::start(broker.port);
    let [one, two, mut third] = ["one", "two", "third"].map(|name| Pty::new(&folder.path().join(name)));
    let two_devices = head(broker.port, "") + &meter("one", &one, "") + &meter("two", &two, "");
    let mut agent = Agent::start(folder.path(), &two_devices);
    for device in ["one", "two"] {
        observer.wait_payload(&format!("sluicegate/g/{device}/status"), "online");
    }
    let status = "sluicegate/g/third/status";
    let statuses = || -> Vec<String> {
        let all = observer.all();
        all.into_iter().filter(|heard| heard.topic == status).map(|heard| heard.payload).collect()
    };
    let mut sensors = [one, two];
    let (last, ()) = counting(
        &mut sensors,
        || observer.count(),
        || {
            // Added, by the control socket.
            let added = two_devices.clone() + &meter("third", &third, "") + VALVE;
            assert_eq!(reload(folder.path(), &added), done("device third: added\n"));
            observer.wait_payload(status, "online");
            observer
                .wait("info with it", |heard| heard.topic == "sluicegate/g/info" && heard.payload.contains("third"));
            third.say(b"n=1\n");
            observer.wait_json("sluicegate/g/third/n", "value", 1);

            // Changed, by SIGHUP, with commands on their way.
            let commands: String = (1..=20).map(|n| format!("{{\"value\":{n},\"id\":\"c-{n}\"}}\n")).collect();
            let changed = two_devices.clone() + &meter("third", &third, "unit = \"V\"") + VALVE;
            Agent::configure(folder.path(), &changed);
            publish_lines(broker.port, "sluicegate/g/third/valve/set", &commands);
            agent.hang_up();
            agent.wait_log("the config was read again: device third: started anew");
            // Asked of the agent: a broker need not hear of a state that lasted for a moment.
            let online = |status: serde_json::Value| status["devices"]["third"]["state"] == "online";
            until("it to be online again", || agent.status().is_some_and(online));
            third.say(b"n=2\n");
            assert_eq!(observer.wait_json("sluicegate/g/third/n", "value", 2)["unit"], "V");
            let outcomes = || {
                let mut outcomes = BTreeMap::<String, Vec<String>>::new();
                for heard in observer.all().iter().filter(|heard| heard.topic.ends_with("/outcome")) {
                    let json = heard.json();
                    let text = |key: &str| json[key].as_str().unwrap().to_owned();
                    outcomes.entry(text("id")).or_default().push(text("outcome"));
                }
                outcomes
            };
            until("an outcome for each command", || outcomes().len() >= 20);
            assert!(outcomes().values().all(|of| of.len() == 1), "{:?}", outcomes());
            // One that came after, and is done.
            publish(broker.port, "sluicegate/g/third/valve/set", r#"{"value":21,"id":"c-21"}"#);
            third.hear("VALVE 21\n");

            // Another lane for its readings is nothing to the device itself.
            let before = statuses();
            let kept = two_devices.clone() + &meter("third", &third, "unit = \"V\"\nlane = \"alarm\"") + VALVE;
            assert_eq!(reload(folder.path(), &kept), done("device third: changed, and goes on\n"));
            third.say(b"n=3\n");
            assert_eq!(observer.wait_json("sluicegate/g/third/n", "value", 3)["lane"], "alarm");
            assert_eq!(statuses(), before);

            // Removed: what the broker retained of it is cleared.
            assert_eq!(reload(folder.path(), &two_devices), done("device third: removed\n"));
            let of_third = || Observer::retained(broker.port, "sluicegate/g/third/#");
            until("all to be cleared", || of_third().is_empty());
            until("info without it", || {
                !Observer::retained(broker.port, "sluicegate/g/info").is_empty()
                    && !Observer::retained(broker.port, "sluicegate/g/info").values().any(|info| info.contains("third"))
            });
            publish(broker.port, "sluicegate/g/third/valve/set", r#"{"value":22,"id":"c-22"}"#);
            let outcome = observer.wait_json("sluicegate/g/third/valve/outcome", "id", "c-22");
            assert_eq!((&outcome["outcome"], &outcome["reason"]), (&"rejected".into(), &"unknown".into()));
            assert_eq!(agent.status().unwrap()["devices"].as_object().unwrap().len(), 2);
            assert_eq!(statuses().last().unwrap(), "", "no status after it was cleared");
        },
    );
    for (device, last) in ["one", "two"].into_iter().zip(last) {
        let copies = complete(&[&observer], device, last);
        assert!(last > 200 && copies == 0, "{device}: {last} said, {copies} came twice");
    }
    for topic in ["sluicegate/g/status", "sluicegate/g/one/status", "sluicegate/g/two/status"] {
        assert!(!went_offline(&observer, topic), "{topic}");
    }
    assert_eq!(connections(&broker, "g"), 1);
    assert!(!agent.log().contains("not configured\n") && !agent.log().contains(" ERROR "), "{}", agent.log());
    assert!(agent.stop().success());
}

#[test]
fn a_wrong_config_is_refused_and_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let sim = "[device.plant]\nkind = \"sim\"\n[device.plant.point.level]\nwave = \"counter\"\nevery = \"20ms\"\n";
    let right = head(broker.port, "") + sim;
    let mut agent = Agent::start(folder.path(), &right);
    observer.wait_json("sluicegate/g/plant/level", "value", 5);
    assert_eq!(reload(folder.path(), &right), done("nothing changed\n"));

    let file = folder.path().join("agent.toml");
    let refused = "refused: the gateway goes on with the config that it has\n";
    let (code, printed, said) = reload(folder.path(), &right.replace("wave", "wafe"));
    assert_eq!((code, printed.as_str()), (Some(78), ""));
    let fault = format!("{}:10:1: device.plant.point.level.wafe: unknown key", file.display());
    assert!(said.contains(&fault) && said.ends_with(refused), "{said}");
    let problem = observer
        .wait("the problem", |heard| heard.topic == "sluicegate/g/problem" && heard.payload.contains("\"config\""));
    assert!(problem.payload.contains("the new config is refused, and the old one goes on"), "{}", problem.payload);
    assert!(agent.log().contains(" ERROR "), "{}", agent.log());
    // So does `check`.
    let checked = Agent::ask(folder.path(), &["check"]);
    assert_eq!(said.strip_suffix(refused), Some(&*String::from_utf8_lossy(&checked.stderr)));

    // What the daemon can't be found by is wrong all the same.
    let (code, _, said) = reload(folder.path(), "[gateway\n");
    assert_eq!((code, said.contains(":1:9: not TOML")), (Some(78), true), "{said}");
    agent.hang_up();
    agent.wait_log(":1:9: not TOML");

    // What only a start can do.
    let (code, _, said) = reload(folder.path(), &right.replace("\"g\"", "\"h\""));
    let text = "gateway.id is `h` now, and can't change from `g` while the gateway runs: restart it\n";
    assert_eq!((code, said), (Some(78), format!("{text}{refused}")));

    observer.clear();
    let (code, printed, _) = reload(folder.path(), &(right.clone() + "[queue]\ntelemetry.sync = \"never\"\n"));
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "nothing changed\nqueue.telemetry.sync: takes effect at the next start\n")
    );
    observer.wait_payload("sluicegate/g/problem", "[]");
    observer.wait("a reading", |heard| heard.topic == "sluicegate/g/plant/level");
    let last = observer.all().iter().rfind(|heard| heard.topic == "sluicegate/g/plant/level").unwrap().json();
    assert!(last["value"].as_i64().unwrap() > 5, "it counts on: {last}");
    assert_eq!(connections(&broker, "g"), 1);
    assert!(agent.stop().success());
    let gone = Agent::ask(folder.path(), &["reload"]);
    assert_eq!(gone.status.code(), Some(69), "{gone:?}");
    assert!(String::from_utf8_lossy(&gone.stderr).contains("is it running?"), "{gone:?}");
}

#[test]
fn another_mqtt_config_makes_a_clean_new_connection() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    fs::create_dir(&first).unwrap();
    fs::create_dir(&second).unwrap();
    let brokers =
        [&first, &second].map(|folder| Mosquitto::with(folder, "allow_anonymous true\nmax_queued_messages 0\n"));
    let [here, there] = [&brokers[0], &brokers[1]].map(|broker| Observer::start(broker.port));
    // Somebody else's, of long ago, is no duplicate.
    publish_retained(brokers[1].port, "sluicegate/g/info", r#"{"instance":"old","devices":{"gone":{}}}"#);
    let mut sensors = [Pty::new(&folder.path().join("one"))];
    let device = meter("one", &sensors[0], "");
    let config = |port: u16, mqtt: &str| head(port, mqtt) + &device;
    let extra = "[device.extra]\nkind = \"sim\"\n[device.extra.point.x]\nwave = \"switch\"\n";
    let mut agent = Agent::start(folder.path(), &(config(brokers[0].port, "") + extra));
    here.wait_payload("sluicegate/g/extra/status", "online");
    here.wait_payload("sluicegate/g/one/status", "online");
    let (last, ()) = counting(
        &mut sensors,
        || here.count() + there.count(),
        || {
            let statuses = |observer: &Observer| -> Vec<String> {
                let all = observer.all();
                all.into_iter()
                    .filter(|heard| heard.topic == "sluicegate/g/status")
                    .map(|heard| heard.payload)
                    .collect()
            };
            let more = || {
                let before = here.count() + there.count();
                until("readings to flow", || here.count() + there.count() > before + 200);
            };
            more();
            let named = config(brokers[0].port, "client_id = \"another\"\nkeep_alive = \"10s\"") + extra;
            assert_eq!(reload(folder.path(), &named), done("[mqtt]: changed\n"));
            until("the new session", || connections(&brokers[0], "another") == 1);
            until("online", || statuses(&here) == ["online", "offline", "online"]);
            until("the old session's clean end", || brokers[0].log().contains("Client g disconnected."));
            more();
            // To another broker, where no Last Will has to speak for the old one.
            assert_eq!(reload(folder.path(), &(config(brokers[1].port, "") + extra)), done("[mqtt]: changed\n"));
            until("online there", || statuses(&there) == ["online"]);
            until("offline here", || statuses(&here) == ["online", "offline", "online", "offline"]);
            there.wait_payload("sluicegate/g/gone/status", "");
            more();
            // What goes while the gateway is elsewhere is cleared here when it is back.
            let retained = |broker: &Mosquitto| Observer::retained(broker.port, "sluicegate/g/extra/#");
            there.wait_payload("sluicegate/g/extra/status", "online");
            assert_eq!(reload(folder.path(), &config(brokers[1].port, "")), done("device extra: removed\n"));
            until("it to be cleared there", || retained(&brokers[1]).is_empty());
            assert!(!retained(&brokers[0]).is_empty());
            assert_eq!(reload(folder.path(), &config(brokers[0].port, "")), done("[mqtt]: changed\n"));
            until("it to be cleared here", || retained(&brokers[0]).is_empty());
            more();
        },
    );
    let copies = complete(&[&here, &there], "one", last[0]);
    eprintln!("{} readings, {copies} came twice", last[0]);
    for observer in [&here, &there] {
        assert!(!went_offline(observer, "sluicegate/g/one/status"));
    }
    assert_eq!((connections(&brokers[0], "g"), connections(&brokers[1], "g")), (2, 1));
    assert!(!agent.log().contains("link lost") && !agent.log().contains("another gateway"), "{}", agent.log());
    assert!(agent.stop().success());
}

fn publish_retained(port: u16, topic: &str, payload: &str) {
    assert!(crate::support::publish_with(port, topic, payload, &["-r"]).status.success());
}

#[test]
fn what_waits_of_a_removed_point_is_still_published() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let gate = Gate::to(broker.port);
    let observer = Observer::start(broker.port);
    let [one, mut two] = ["one", "two"].map(|name| Pty::new(&folder.path().join(name)));
    let left = head(gate.port, "") + &meter("one", &one, "");
    let both = left.clone() + &meter("two", &two, "");
    let mut agent = Agent::start(folder.path(), &both);
    two.say(b"n=1\n");
    observer.wait_json("sluicegate/g/two/n", "value", 1);
    gate.close();
    agent.wait_log("link lost");
    // While nobody can be told.
    two.say((2..=50).map(|n| format!("n={n}\n")).collect::<String>().as_bytes());
    until("them to wait", || {
        agent.status().is_some_and(|status| status["queue"]["telemetry"]["depth"].as_u64() >= Some(49))
    });
    assert_eq!(reload(folder.path(), &left), done("device two: removed\n"));
    gate.open();
    let late = |n: i64| observer.wait_json("sluicegate/g/two/n", "value", n);
    assert_eq!((&late(50)["late"], &late(50)["repeat"]), (&true.into(), &serde_json::Value::Null));
    complete(&[&observer], "two", 50);
    until("its topics to be cleared", || Observer::retained(broker.port, "sluicegate/g/two/#").is_empty());
    assert!(!Observer::retained(broker.port, "sluicegate/g/one/status").is_empty());
    assert!(agent.stop().success());
}

#[test]
fn reloads_that_come_at_once_are_taken_one_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_queued_messages 0\n");
    let observer = Observer::start(broker.port);
    let mut sensors = [Pty::new(&folder.path().join("one"))];
    let sim = |name: &str| format!("[device.{name}]\nkind = \"sim\"\n[device.{name}.point.x]\nwave = \"ramp\"\n");
    let base = head(broker.port, "") + &meter("one", &sensors[0], "");
    let mut agent = Agent::start(folder.path(), &base);
    observer.wait_payload("sluicegate/g/one/status", "online");
    let (last, ()) = counting(
        &mut sensors,
        || observer.count(),
        || {
            for round in 0..5 {
                Agent::configure(folder.path(), &(base.clone() + &sim(&format!("d{round}")) + &sim("always")));
                std::thread::scope(|scope| {
                    for _ in 0..6 {
                        scope.spawn(|| {
                            agent.hang_up();
                            let output = Agent::ask(folder.path(), &["reload"]);
                            assert!(output.status.success(), "{output:?}");
                        });
                    }
                });
            }
        },
    );
    complete(&[&observer], "one", last[0]);
    let devices = || agent.status().map(|status| status["devices"].as_object().unwrap().keys().cloned().collect());
    assert_eq!(devices(), Some(vec!["always".to_owned(), "d4".to_owned(), "one".to_owned()]));
    observer.wait("the last info", |heard| {
        let info = || heard.json()["devices"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        heard.topic == "sluicegate/g/info" && info() == ["always", "d4", "one"]
    });
    let of_always = |heard: &&crate::support::Heard| heard.topic == "sluicegate/g/always/status";
    let said: Vec<String> = observer.all().iter().filter(of_always).map(|heard| heard.payload.clone()).collect();
    assert!(said.iter().filter(|word| *word == "online").count() <= 1, "{said:?}");
    assert_eq!(connections(&broker, "g"), 1);
    assert!(agent.stop().success());
}

#[test]
fn systemd_is_told_of_a_reload() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut told = Vec::new();
    let mut hear = |sought: &[&str]| {
        let mut buffer = [0; 4096];
        while let Ok(count) = socket.recv(&mut buffer) {
            let lines = String::from_utf8_lossy(&buffer[..count]).lines().map(str::to_owned).collect::<Vec<_>>();
            told.extend(lines.into_iter().filter_map(|line| line.split('=').next().map(str::to_owned)));
        }
        told.iter().filter(|word| ["READY", "RELOADING", "MONOTONIC_USEC"].contains(&word.as_str())).eq(sought.iter())
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let mut agent = Agent::start_with(folder.path(), &head(broker.port, ""), &environment);
    until("READY", || hear(&["READY"]));
    Agent::configure(folder.path(), &head(broker.port, "window = 0"));
    agent.hang_up();
    // A refused one is over as well.
    let all = ["READY", "RELOADING", "MONOTONIC_USEC", "READY"];
    until("the reload and its end", || hear(&all));
    assert!(agent.stop().success());
}
