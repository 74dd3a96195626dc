//! Devices that only the config describes, by the examples as they are shipped: a device is played at the far end of a
//! terminal, and its record says what the gateway sent.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::{Agent, Mosquitto, Observer, Pty, pause, publish, until};

/// The device of an example, at this port and this broker, with some texts replaced.
fn config(broker: u16, example: &str, port: &str, changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/examples/serial-{example}.toml"));
    let text = std::fs::read_to_string(path).unwrap();
    let here = |line: &str| if line.starts_with("port = ") { format!("port = {port:?}") } else { line.to_owned() };
    let lines: Vec<String> = text.lines().map(here).skip_while(|line| !line.starts_with("[device")).collect();
    let mut device = lines.join("\n");
    for (from, to) in changes {
        assert!(device.contains(from), "{from}");
        device = device.replace(from, to);
    }
    gateway(broker) + &device
}

fn gateway(broker: u16) -> String {
    format!("[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{broker}\"\n")
}

/// What the far end does with what it heard: how much of it is used up, and what it says to that.
type Reaction = Box<dyn FnMut(&Pty, &[u8]) -> Option<(usize, Vec<u8>)> + Send>;

/// A device at the far end.
struct Played {
    /// Each thing that it reacted to.
    record: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Played {
    fn start(mut pty: Pty, mut react: Reaction) -> Self {
        let (record, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (its_record, its_stop) = (Arc::clone(&record), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut used = 0;
            while !its_stop.load(Ordering::Relaxed) {
                let heard = pty.heard_bytes()[used..].to_vec();
                let Some((count, answer)) = react(&pty, &heard) else {
                    pause();
                    continue;
                };
                used += count;
                its_record.lock().unwrap().push(heard[..count].to_vec());
                pty.say(&answer);
            }
        });
        Played { record, stop, thread: Some(thread) }
    }

    fn count(&self, message: &[u8]) -> usize {
        self.record.lock().unwrap().iter().filter(|heard| *heard == message).count()
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the device at the far end failed");
    }
}

/// A line that ends where this does.
fn line(heard: &[u8]) -> Option<&[u8]> {
    heard.iter().position(|byte| *byte == b'\n').map(|end| &heard[..=end])
}

/// What the observer heard of a point, as numbers.
fn values(observer: &Observer, topic: &str) -> Vec<i64> {
    let heard = observer.all().into_iter().filter(|heard| heard.topic == topic);
    heard.filter_map(|heard| heard.json()["value"].as_i64()).collect()
}

static ASK: [u8; 9] = [0xff, 1, 0x86, 0, 0, 0, 0, 0, 0x79];
static RIGHT: [u8; 9] = [0xff, 0x86, 2, 0x20, 0, 0, 0, 0, 0x58];
/// 546 ppm, if it were not for the check.
static WRONG: [u8; 9] = [0xff, 0x86, 2, 0x22, 0, 0, 0, 0, 0x58];

/// A CO2 sensor that answers this to its requests, by their number.
fn sensor(pty: Pty, mut answer: impl FnMut(usize) -> &'static [u8] + Send + 'static) -> Played {
    let mut count = 0;
    Played::start(
        pty,
        Box::new(move |_, heard| {
            let message = heard.get(..ASK.len())?.to_vec();
            let said = answer(count);
            count += 1;
            Some((message.len(), said.to_vec()))
        }),
    )
}

#[test]
fn a_sensor_is_asked_again_until_it_answers_rightly() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let pty = Pty::new(&folder.path().join("room"));
    // One poll in the whole test.
    let text = config(broker.port, "mhz19", pty.path(), &[("every = \"10s\"", "every = \"1h\", retries = 2")]);
    let played = sensor(pty, |count| match count {
        0 => &WRONG,
        1 => &[],
        _ => &RIGHT,
    });
    let mut agent = Agent::start(folder.path(), &text);
    observer.wait_json("sluicegate/g/room/co2", "value", 544);
    observer.wait_payload("sluicegate/g/room/status", "online");
    // A command that has no reply is sent once, with its check.
    publish(broker.port, "sluicegate/g/room/self_calibration/set", r#"{"id":"c","value":true}"#);
    observer.wait_json("sluicegate/g/room/self_calibration/outcome", "outcome", "done");
    let command = [0xff, 1, 0x79, 0xa0, 0, 0, 0, 0, 0xe6];
    until("the command at the device", || played.count(&command) == 1);
    assert!(agent.stop().success());
    assert_eq!(*played.record.lock().unwrap(), [ASK, ASK, ASK, command]);
    assert!(values(&observer, "sluicegate/g/room/co2").iter().all(|value| *value == 544));
}

#[test]
fn a_silent_sensor_is_offline_and_comes_back_and_an_echo_is_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let pty = Pty::new(&folder.path().join("room"));
    // Its request has a right check and would count as an answer.
    let changes = [
        ("expect = { at = 1, is = [0x86] }, every = \"10s\"", "every = \"200ms\""),
        ("[device.room]\n", "[device.room]\necho = true\n"),
    ];
    let text = config(broker.port, "mhz19", pty.path(), &changes);
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = Arc::clone(&silent);
    let _played = sensor(pty, move |_| {
        const BOTH: [u8; 18] = [0xff, 1, 0x86, 0, 0, 0, 0, 0, 0x79, 0xff, 0x86, 2, 0x20, 0, 0, 0, 0, 0x58];
        if is_silent.load(Ordering::Relaxed) { &ASK } else { &BOTH }
    });
    let mut agent = Agent::start(folder.path(), &text);
    observer.wait_json("sluicegate/g/room/co2", "value", 544);
    observer.wait_payload("sluicegate/g/room/status", "online");
    silent.store(true, Ordering::Relaxed);
    let problem = observer.wait("the reason", |heard| {
        heard.topic == "sluicegate/g/room/problem" && heard.payload.contains("it did not answer 3 polls in a row")
    });
    eprintln!("{}", problem.payload);
    observer.wait_payload("sluicegate/g/room/status", "offline");
    observer.clear();
    silent.store(false, Ordering::Relaxed);
    observer.wait_payload("sluicegate/g/room/status", "online");
    observer.wait_json("sluicegate/g/room/co2", "value", 544);
    assert!(agent.stop().success());
}

#[test]
fn a_command_goes_between_polls_once_and_waits_for_its_reply() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let pty = Pty::new(&folder.path().join("tank"));
    let device = format!(
        r#"
[device.tank]
kind = "serial"
port = {:?}
decode = {{ kind = "key-value" }}
poll = [{{ send = "T?\r\n", expect = {{ is = "T=" }}, every = "20ms" }}]
[device.tank.point.temperature]
from = "T"
type = "float"
[device.tank.point.valve]
type = "int"
write = "SET {{value}}\r\n"
reply = {{ is = "OK" }}
refusal = {{ is = "ERR" }}
timeout = "3s"
"#,
        pty.path()
    );
    // Nothing is answered before the question before it was.
    let played = Played::start(
        pty,
        Box::new(|_, heard| {
            let line = line(heard)?;
            let answer: &[u8] = match line {
                b"T?\r\n" => b"T=21.5\r\n",
                b"SET 1\r\n" => b"OK\r\n",
                b"SET 2\r\n" => b"ERR 7\r\n",
                _ => b"",
            };
            assert!(heard.len() == line.len(), "two at once: {}", heard.escape_ascii());
            Some((line.len(), answer.to_vec()))
        }),
    );
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + &device));
    observer.wait_json("sluicegate/g/tank/temperature", "value", 21.5);
    for (value, outcome, text) in [
        (1, "done", None),
        (2, "failed", Some("the device refused it")),
        (3, "unknown", Some("the device did not reply")),
    ] {
        let id = format!("c-{value}");
        publish(broker.port, "sluicegate/g/tank/valve/set", &format!("{{\"id\":\"{id}\",\"value\":{value}}}"));
        let told = observer.wait_json("sluicegate/g/tank/valve/outcome", "id", id);
        assert_eq!(told["outcome"], outcome, "{told}");
        if let Some(text) = text {
            assert!(told["text"].as_str().is_some_and(|told| told.contains(text)), "{told}");
        }
    }
    // It is asked on after that, and no command was repeated.
    let asked = played.count(b"T?\r\n");
    until("more polls", || played.count(b"T?\r\n") > asked + 3);
    assert!(agent.stop().success());
    for value in 1..=3 {
        assert_eq!(played.count(format!("SET {value}\r\n").as_bytes()), 1, "{value}");
    }
}

#[test]
fn a_meter_is_read_over_a_change_of_speed() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let pty = Pty::new(&folder.path().join("meter"));
    let text = config(broker.port, "iec62056", pty.path(), &[("every = \"15m\"", "every = \"1s\"")]);
    let content = "C.1.0(28342193)\r\n1.8.0(0032916.425*kWh)\r\n2.8.0(0000000.001*kWh)\r\n!\r\n\u{3}";
    let sum = content.bytes().fold(0, |sum, byte| sum ^ byte);
    let data = [&[2], content.as_bytes(), &[sum]].concat();
    let speeds = Arc::new(Mutex::new(Vec::new()));
    let its_speeds = Arc::clone(&speeds);
    let mut named_at = Instant::now();
    let played = Played::start(
        pty,
        Box::new(move |pty, heard| {
            let line = line(heard)?;
            let answer = match line {
                b"/?!\r\n" => {
                    its_speeds.lock().unwrap().push(pty.baud_rate());
                    named_at = Instant::now();
                    b"/ISK5ME162-0033\r\n".to_vec()
                }
                b"\x06050\r\n" => {
                    assert!(named_at.elapsed() >= Duration::from_millis(200), "the example's `pause`");
                    // A meter changes its speed and speaks then: who listens at the old one would hear nothing.
                    if pty.baud_rate() != 9600 {
                        return None;
                    }
                    its_speeds.lock().unwrap().push(pty.baud_rate());
                    data.clone()
                }
                other => panic!("{}", other.escape_ascii()),
            };
            Some((line.len(), answer))
        }),
    );
    let mut agent = Agent::start(folder.path(), &text);
    observer.wait_json("sluicegate/g/meter/imported", "value", 32916.425);
    observer.wait_json("sluicegate/g/meter/serial_number", "value", "28342193");
    until("a second readout", || played.count(b"\x06050\r\n") >= 2);
    assert!(agent.stop().success());
    let speeds = speeds.lock().unwrap();
    assert_eq!(speeds[..4], [300, 9600, 300, 9600]);
}

#[test]
fn noise_costs_no_frame_of_a_particle_sensor() {
    const FRAMES: u16 = 300;
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("air"));
    let text = config(broker.port, "pms5003", pty.path(), &[("[device.air]\n", "[device.air]\nmax_rate = \"off\"\n")]);
    let mut agent = Agent::start(folder.path(), &text.replace("silence = \"10s\"", "silence = \"1m\""));
    let frame = |n: u16| {
        let mut frame = vec![0x42, 0x4d, 0, 28];
        // The number of the frame for all particles, and a false start in what the device leaves unsaid.
        frame.extend(std::iter::repeat_n(n.to_be_bytes(), 12).flatten());
        frame.extend([0x42, 0x4d]);
        let sum: u16 = frame.iter().map(|byte| u16::from(*byte)).sum();
        frame.extend(sum.to_be_bytes());
        frame
    };
    // A generator of Knuth's (MMIX): the same noise in each run.
    let mut state = 5u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    // What came before the broker did would be replayed beside.
    observer.wait_payload("sluicegate/g/status", "online");
    for n in 1..=FRAMES {
        let noise: Vec<u8> = match n % 4 {
            // The beginning of a frame that goes no further, and one with a wrong sum.
            0 => vec![0x42, 0x4d, 0, 28, 9, 9],
            1 => {
                let mut wrong = frame(7777);
                wrong[12] ^= 1;
                wrong
            }
            2 => std::iter::repeat_with(&mut random).take(40).collect(),
            _ => vec![0x42],
        };
        pty.say(&noise);
        pty.say(&frame(n));
    }
    let wanted: Vec<i64> = (1..=i64::from(FRAMES)).collect();
    until("all frames", || values(&observer, "sluicegate/g/air/pm2_5").len() >= wanted.len());
    assert_eq!(values(&observer, "sluicegate/g/air/pm2_5"), wanted);
    assert!(agent.stop().success());
    let told = agent.log().matches("a frame can't be read").count();
    assert_eq!(told, 1, "once an episode");
}
