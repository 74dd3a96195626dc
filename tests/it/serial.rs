//! One bad device harms nothing else.

use crate::support::{Agent, Mosquitto, Observer, Pty, until};

fn config(port: u16, devices: &[(&str, &str)]) -> String {
    let mut config =
        format!("[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n");
    for (name, path) in devices {
        config.push_str(&format!(
            r#"
[device.{name}]
kind = "serial"
port = "{path}"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.{name}.point.n]
from = "n"
type = "int"
"#
        ));
    }
    config
}

#[test]
fn an_unplugged_device_goes_offline_and_comes_back_alone() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let (mut bad, mut good) = (Pty::new(&folder.path().join("bad")), Pty::new(&folder.path().join("good")));
    let _agent = Agent::start(folder.path(), &config(broker.port, &[("bad", bad.path()), ("good", good.path())]));
    observer.wait_payload("sluicegate/g/bad/status", "online");
    observer.wait_payload("sluicegate/g/good/status", "online");
    let mut beat = 0;
    let mut beats = |until: i64, good: &mut Pty| {
        while beat < until {
            beat += 1;
            good.say(format!("n={beat}\n").as_bytes());
        }
    };
    bad.say(b"n=1\n");
    observer.wait_json("sluicegate/g/bad/n", "value", 1);
    beats(50, &mut good);
    observer.clear();
    bad.unplug();
    observer.wait_payload("sluicegate/g/bad/status", "offline");
    let problem = observer
        .wait("the reason", |heard| heard.topic == "sluicegate/g/bad/problem" && heard.payload.contains("device"));
    eprintln!("the reason: {}", problem.payload);
    beats(100, &mut good);
    bad.plug();
    observer.wait_payload("sluicegate/g/bad/status", "online");
    observer.wait_payload("sluicegate/g/bad/problem", "[]");
    bad.say(b"n=2\n");
    observer.wait_json("sluicegate/g/bad/n", "value", 2);
    beats(150, &mut good);
    observer.wait_json("sluicegate/g/good/n", "value", 150);
    let all = observer.all();
    let of_good = all.iter().filter(|heard| heard.topic == "sluicegate/g/good/n");
    let seen: Vec<i64> = of_good.filter_map(|heard| heard.json()["value"].as_i64()).collect();
    // What was heard since `clear` has no hole, so no beat was missed.
    let first = *seen.first().unwrap();
    assert_eq!(seen, (first..=150).collect::<Vec<_>>());
    assert!(first <= 51, "{first}");
    assert!(!all.iter().any(|heard| heard.topic == "sluicegate/g/good/status" && heard.payload == "offline"));
}

#[test]
fn a_limit_that_is_passed_is_an_alarm_of_its_own_lane() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("tank"));
    let limits = "limits = { high = 80, low = 20, hysteresis = 5 }\nreport = { change = 1000 }\n";
    let _agent = Agent::start(folder.path(), &(config(broker.port, &[("tank", pty.path())]) + limits));
    let topic = "sluicegate/g/tank/n";
    observer.wait_payload("sluicegate/g/status", "online");
    for n in [50, 79, 80, 85, 76, 75, 60, 20] {
        pty.say(format!("n={n}\n").as_bytes());
    }
    for n in [50, 20] {
        observer.wait_json(topic, "value", n);
    }
    let told = || {
        let all = observer.all();
        let readings = all.iter().filter(|heard| heard.topic == topic).map(|heard| heard.json());
        readings.map(|reading| (reading["value"].clone(), reading["lane"].clone(), reading["cause"].clone())).collect()
    };
    let mut told: Vec<_> = told();
    // Two lanes: each in its own order.
    told.sort_by_key(|(_, lane, _)| lane == "telemetry");
    let alarm = |value: i64, cause: &str| (value.into(), "alarm".into(), cause.into());
    assert_eq!(told, [alarm(50, "normal"), alarm(80, "high"), alarm(75, "normal"), alarm(20, "low")]);
}

#[test]
fn noise_neither_harms_nor_grows() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("noisy"));
    let mut agent = Agent::start(folder.path(), &config(broker.port, &[("noisy", pty.path())]));
    observer.wait_payload("sluicegate/g/noisy/status", "online");
    pty.say(b"n=1\n");
    observer.wait_json("sluicegate/g/noisy/n", "value", 1);
    let before = agent.memory();

    // A generator of Knuth's (MMIX): the same noise in each run.
    let mut state = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    })
    .take(1 << 20)
    .collect();
    let long_line = [vec![b'x'; 1 << 20], b"\n".to_vec()].concat();
    let not_text = b"n=\xff\xfe\xfd\nn=\xc3\x28\n\xed\xa0\x80=1\n".to_vec();
    for (place, rubbish) in [noise, long_line, not_text].into_iter().enumerate() {
        pty.say(&rubbish);
        let next = 10 + i64::try_from(place).unwrap();
        pty.say(format!("\nn={next}\n").as_bytes());
        observer.wait_json("sluicegate/g/noisy/n", "value", next);
    }
    let after = agent.memory();
    eprintln!("resident before {before} KiB, after {after} KiB");
    assert!(after < before + 2048, "from {before} KiB to {after} KiB");
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
    assert!(agent.stop().success());
}

#[test]
fn a_driver_that_panics_is_its_devices_failure() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut good = Pty::new(&folder.path().join("good"));
    let text = config(broker.port, &[("good", good.path())]);
    let text = format!("{text}[device.mad]\nkind = \"sim\"\n[device.mad.point.x]\nwave = \"panic\"\n");
    let mut agent = Agent::start(folder.path(), &text);
    observer.wait("the panic", |heard| heard.topic == "sluicegate/g/mad/problem" && heard.payload.contains("panicked"));
    observer.wait_payload("sluicegate/g/good/status", "online");
    good.say(b"n=1\n");
    observer.wait_json("sluicegate/g/good/n", "value", 1);
    until("the gateway to be online", || {
        Observer::retained(broker.port, "sluicegate/g/status").values().any(|status| status == "online")
    });
    assert!(agent.stop().success());
}
