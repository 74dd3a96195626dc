//! From the site to the desk: what a device says is recorded by the real command while its readings go to a real broker;
//! the recording is replayed by the real command, and has to give the same readings, with their times.

mod decode;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use crate::support::{Agent, Faults, Killed, Line, Mosquitto, Observer, Pty, publish, signal, tcp_slave, until};

/// The readings of each point, in their order: time, value, quality.
type Readings = BTreeMap<String, Vec<(String, String, String)>>;

fn gateway(broker: u16) -> String {
    format!("[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{broker}\"\n")
}

/// The device of an example, at this port, with some texts replaced.
fn example(name: &str, port: &str, changes: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/examples/serial-{name}.toml"));
    let text = std::fs::read_to_string(path).unwrap();
    let here = |line: &str| if line.starts_with("port = ") { format!("port = {port:?}") } else { line.to_owned() };
    let lines: Vec<String> = text.lines().map(here).skip_while(|line| !line.starts_with("[device")).collect();
    changes.iter().fold(lines.join("\n"), |device, (from, to)| {
        assert!(device.contains(from), "{from}");
        device.replace(from, to)
    })
}

/// `sluicegate record`, under way.
struct Record {
    child: Killed,
    file: PathBuf,
}

impl Record {
    /// Starts it, and waits until it has begun.
    fn start(folder: &Path, device: &str) -> Self {
        let file = folder.join(format!("{device}.rec"));
        let record = Record { child: Agent::begin(folder, &["record", device], &file), file };
        until("the recording to begin", || record.text().contains("\"start\""));
        record
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap()
    }

    /// Ends it as a person does.
    fn end(mut self) -> PathBuf {
        signal(&self.child.0, Signal::INT);
        let mut status = None;
        until("the recording to end", || {
            status = self.child.0.try_wait().unwrap();
            status.is_some()
        });
        let errors = std::fs::read_to_string(self.file.with_extension("errors")).unwrap();
        assert!(status.unwrap().success(), "{errors}");
        assert!(self.text().lines().last().unwrap().contains("\"end\""), "{}", self.text());
        self.file.clone()
    }
}

/// The device's readings that the broker got since its recording began.
fn published(file: &Path, observer: &Observer, device: &str) -> Readings {
    // The first thing that dates readings: what was read before may have come in the millisecond in which it began.
    let text = std::fs::read_to_string(file).unwrap();
    let Some((_, rest)) = text.split_once("\"at\":\"") else { return Readings::new() };
    let begun = rest.split('"').next().unwrap().to_owned();
    let mut readings = Readings::new();
    for heard in observer.all() {
        let Some(point) = heard.topic.strip_prefix(&format!("sluicegate/g/{device}/")) else { continue };
        let Ok(json) = serde_json::from_str::<serde_json::Value>(&heard.payload) else { continue };
        let (Some(quality), Some(at)) = (json["quality"].as_str(), json["ts"].as_str()) else { continue };
        if heard.retained || at < begun.as_str() {
            continue;
        }
        let value = match &json["value"] {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            value if value.is_f64() => value.as_f64().unwrap().to_string(),
            value => value.to_string(),
        };
        readings.entry(point.to_owned()).or_default().push((at.to_owned(), value, quality.to_owned()));
    }
    readings
}

/// What `sluicegate try DEVICE --from FILE` printed, its errors and its exit status.
fn replay(folder: &Path, device: &str, file: &Path) -> (String, String, Option<i32>) {
    let output = Agent::ask(folder, &["try", device, "--from", file.to_str().unwrap()]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// The readings in what it printed: `TIME  DEVICE/POINT = VALUE  (QUALITY)`.
fn readings(printed: &str) -> Readings {
    let mut readings = Readings::new();
    for line in printed.lines().filter(|line| !line.starts_with('#')) {
        let (at, rest) = line.split_once("  ").unwrap();
        let (key, rest) = rest.split_once(" = ").unwrap();
        let (value, quality) = rest.rsplit_once("  (").unwrap();
        let (_, point) = key.split_once('/').unwrap();
        let reading = (at.to_owned(), value.to_owned(), quality.trim_end_matches(')').to_owned());
        readings.entry(point.to_owned()).or_default().push(reading);
    }
    readings
}

/// The same without their times, for what a timer or a command makes: the board's are late by as much as it is busy.
fn untimed(readings: &Readings) -> BTreeMap<&str, Vec<(&str, &str)>> {
    let values = readings.iter().map(|(point, of)| {
        (point.as_str(), of.iter().map(|(_, value, quality)| (value.as_str(), quality.as_str())).collect())
    });
    values.collect()
}

/// As many readings of the board as the desk has, from its first one on. The gateway went on when the recording had ended,
/// and what it read before may have come in the millisecond in which it began.
fn same_stretch(site: &Readings, desk: &Readings, point: &str) -> Vec<(String, String, String)> {
    let (site, desk) = (&site[point], &desk[point]);
    let before = site.iter().take_while(|of| **of != desk[0] && of.0 == desk[0].0).count();
    site.iter().skip(before).take(desk.len()).cloned().collect()
}

fn count(readings: &Readings) -> usize {
    readings.values().map(Vec::len).sum()
}

/// A sentence with its check.
fn sentence(body: &str) -> String {
    format!("${body}*{:02X}\r\n", body.bytes().fold(0, |sum, byte| sum ^ byte))
}

fn gga(n: usize) -> String {
    sentence(&format!("GPGGA,123519,4807.{n:03},N,01131.000,E,1,{n},0.9,{n}.4,M,46.9,M,,"))
}

#[test]
fn a_stream_with_noise_and_an_unplugged_adapter_gives_the_same_readings() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("mast"));
    // Rules with a memory: a filter, limits, a deadband.
    let rules = "unit = \"m\"\nreport = { change = 1.5 }\nlimits = { high = 20, hysteresis = 5 }\nfilter = [{ kind = \"mean\", of = 3 }]";
    let changes = [("unit = \"m\"\n", &*format!("{rules}\n")), ("silence = \"1m\"\n", "")];
    let device = example("nmea", pty.path(), &changes);
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + &device));
    observer.wait_payload("sluicegate/g/status", "online");
    for n in 1..30 {
        pty.say(gga(n).as_bytes());
    }
    observer.wait_json("sluicegate/g/mast/satellites", "value", 29);
    // It begins within a frame, of which the rest comes later.
    let (start, rest) = gga(30).split_at(20).to_owned_pair();
    pty.say(start.as_bytes());
    let record = Record::start(folder.path(), "mast");
    until("what was held", || record.text().contains("\"held\""));
    pty.say(rest.as_bytes());
    for n in 31..120 {
        let wrong = gga(777).replacen("777", "778", 1);
        let noise = ["", "$GPGGA,", &wrong, "\u{7f}\0\u{1}"][n % 4];
        pty.say(noise.as_bytes());
        let (start, rest) = gga(n).split_at(n % 50).to_owned_pair();
        pty.say(start.as_bytes());
        pty.say(rest.as_bytes());
        pty.say(sentence("WIMDA,29.796,I,1.009,B,31.7,C,,,,,,,82.3,T,72.3,M,7.4,N,3.8,M").as_bytes());
        if n == 70 {
            observer.wait_json("sluicegate/g/mast/satellites", "value", 70);
            pty.unplug();
            observer.wait_payload("sluicegate/g/mast/status", "offline");
            pty.plug();
            let online =
                |heard: &crate::support::Heard| heard.topic == "sluicegate/g/mast/status" && heard.payload == "online";
            until("the adapter to be opened again", || {
                observer.all().iter().filter(|heard| online(heard)).count() >= 2
            });
        }
    }
    observer.wait_json("sluicegate/g/mast/satellites", "value", 119);
    observer.catch_up(broker.port);
    let site = published(&record.file, &observer, "mast");
    let file = record.end();
    assert!(agent.stop().success());

    let (printed, errors, status) = replay(folder.path(), "mast", &file);
    assert_eq!(status, Some(0), "{printed}{errors}");
    assert_eq!(readings(&printed), site);
    let numbers: Vec<&str> = site["satellites"].iter().map(|(_, value, _)| value.as_str()).collect();
    let wanted: Vec<String> = (30..120).map(|n| n.to_string()).collect();
    assert_eq!(numbers, wanted);
    assert!(printed.contains("# offline: ") && !printed.contains("not as it was recorded"), "{printed}");
    eprintln!("{} readings are the same", count(&site));

    // A flipped bit, in a frame that was good: its readings are gone, and both the frame and the file are told.
    let text = std::fs::read_to_string(&file).unwrap();
    let from = hex("4807.090");
    assert_eq!(text.matches(&from).count(), 1);
    std::fs::write(&file, text.replace(&from, &hex("4807.091"))).unwrap();
    let (printed, errors, status) = replay(folder.path(), "mast", &file);
    assert_eq!(status, Some(0), "{errors}");
    assert!(printed.contains("# the file is not as it was recorded"), "{printed}");
    assert!(errors.contains("its check is wrong"), "{errors}");
    let less = readings(&printed);
    assert_eq!(less["satellites"].len(), site["satellites"].len() - 1);
    assert!(less["satellites"].iter().all(|(_, value, _)| value != "90"));
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A CO2 sensor's answer, with its check.
fn answer(value: u16) -> Vec<u8> {
    let [high, low] = value.to_be_bytes();
    let mut frame = vec![0xff, 0x86, high, low, 0, 0, 0, 0];
    let sum = frame.iter().skip(1).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    frame.push(sum.wrapping_neg());
    frame
}

#[test]
fn a_sensor_that_is_asked_gives_the_same_readings_and_its_commands_are_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("room"));
    let device = example("mhz19", pty.path(), &[("every = \"10s\"", "every = \"30ms\""), ("\"500ms\"", "\"100ms\"")]);
    let text = gateway(broker.port) + &device;
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let commands = Arc::new(Mutex::new(Vec::new()));
    let played = std::thread::spawn({
        let (over, asked, commands) = (Arc::clone(&over), Arc::clone(&asked), Arc::clone(&commands));
        move || {
            let mut used = 0;
            while !over.load(Ordering::Relaxed) {
                let heard = pty.heard_bytes().get(used..used + 9).map(<[u8]>::to_vec);
                let Some(heard) = heard else {
                    crate::support::pause();
                    continue;
                };
                used += 9;
                if heard[2] != 0x86 {
                    commands.lock().unwrap().push(heard);
                    continue;
                }
                let n = asked.fetch_add(1, Ordering::Relaxed);
                let mut said = answer(400 + u16::try_from(n % 1000).unwrap());
                match n % 7 {
                    // Silence, damage, and an answer in two pieces.
                    2 => continue,
                    4 => said[3] ^= 1,
                    5 => {
                        pty.say(&said[..4]);
                        crate::support::pause();
                        said.drain(..4);
                    }
                    _ => {}
                }
                pty.say(&said);
            }
        }
    });
    let mut agent = Agent::start(folder.path(), &text);
    observer.wait_payload("sluicegate/g/room/status", "online");
    until("some polls", || asked.load(Ordering::Relaxed) > 10);
    let record = Record::start(folder.path(), "room");
    for value in ["true", "false"] {
        let seen = asked.load(Ordering::Relaxed);
        until("more polls", || asked.load(Ordering::Relaxed) > seen + 20);
        let before = commands.lock().unwrap().len();
        publish(
            broker.port,
            "sluicegate/g/room/self_calibration/set",
            &format!("{{\"id\":\"{value}\",\"value\":{value}}}"),
        );
        until("the command", || commands.lock().unwrap().len() > before);
    }
    let seen = asked.load(Ordering::Relaxed);
    until("more polls", || asked.load(Ordering::Relaxed) > seen + 20);
    let file = folder.path().join("copy.rec");
    let recorded = record.end();
    until("what was recorded last at the broker", || {
        observer.catch_up(broker.port);
        let (printed, ..) = replay(folder.path(), "room", &recorded);
        let (desk, site) = (readings(&printed), published(&recorded, &observer, "room"));
        desk.iter().all(|(point, of)| site.get(point).is_some_and(|site| site.len() >= of.len()))
    });
    let site = published(&recorded, &observer, "room");
    assert!(agent.stop().success());
    over.store(true, Ordering::Relaxed);
    played.join().unwrap();

    let (printed, errors, status) = replay(folder.path(), "room", &recorded);
    assert_eq!(status, Some(0), "{printed}{errors}");
    let desk = readings(&printed);
    let co2 = &desk["co2"];
    assert!(co2.len() >= 40, "{}", co2.len());
    assert_eq!(*co2, same_stretch(&site, &desk, "co2"));
    assert_eq!(untimed(&desk)["self_calibration"], untimed(&site)["self_calibration"]);
    assert_eq!(desk["self_calibration"].len(), 2);
    eprintln!("{} readings are the same", count(&desk));

    // What the driver sends here and did not there is told, with both.
    Agent::configure(folder.path(), &text.replace("ff 01 86 00", "ff 02 86 00"));
    let (printed, errors, status) = replay(folder.path(), "room", &recorded);
    assert_eq!(status, Some(69), "{errors}");
    assert!(printed.contains("the driver sends ff02860000000000"), "{printed}");
    assert!(printed.contains("recorded is ff0186000000000079"), "{printed}");
    assert!(errors.contains("differs from the recording at "), "{errors}");
    // So is one that was flipped in the file.
    Agent::configure(folder.path(), &text);
    let text = std::fs::read_to_string(&recorded).unwrap();
    std::fs::write(&file, text.replacen("\"out\":\"ff0186", "\"out\":\"ff0187", 1)).unwrap();
    let (printed, errors, status) = replay(folder.path(), "room", &file);
    assert_eq!(status, Some(69), "{errors}");
    assert!(printed.contains("recorded is ff0187") && errors.contains("at 1 place"), "{printed}{errors}");
    assert_eq!(readings(&printed), desk);
}

#[test]
fn polls_of_several_questions_beside_what_a_device_says_by_itself_come_in_the_same_order() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("line"));
    let mut device = format!(
        r#"
[device.line]
kind = "serial"
port = {:?}
max_rate = "off"
decode = {{ kind = "key-value" }}
poll = [
    {{ name = "a", send = "A?\r\n", expect = {{ is = "V=" }}, every = "20ms", timeout = "60ms", retries = 1 }},
    {{ name = "b", first = [{{ send = "hello\r\n", expect = {{ is = "hi" }} }}], send = "B?\r\n", every = "35ms" }},
]
"#,
        pty.path()
    );
    for (point, keys) in
        [("a", "from = \"V\"\npoll = \"a\""), ("b", "from = \"V\"\npoll = \"b\""), ("e", "from = \"E\"")]
    {
        device.push_str(&format!("[device.line.point.{point}]\n{keys}\ntype = \"int\"\n"));
    }
    let over = Arc::new(AtomicBool::new(false));
    let played = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let (mut used, mut n) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                n += 1;
                let heard = String::from_utf8(pty.heard_bytes()[used..].to_vec()).unwrap();
                if let Some((line, _)) = heard.split_once('\n') {
                    used += line.len() + 1;
                    match line {
                        "hello\r" => pty.say(b"hi\r\n"),
                        // Some questions are not answered.
                        "A?\r" if n % 9 == 0 => {}
                        _ => pty.say(format!("V={n}\r\n").as_bytes()),
                    }
                } else {
                    if n % 3 == 0 {
                        pty.say(format!("E={n}\r\n").as_bytes());
                    }
                    crate::support::pause();
                }
            }
        }
    });
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + &device));
    observer.wait_payload("sluicegate/g/line/status", "online");
    let record = Record::start(folder.path(), "line");
    until("enough readings", || {
        let published = published(&record.file, &observer, "line");
        ["a", "b", "e"].iter().all(|point| published.get(*point).is_some_and(|of| of.len() >= 50))
    });
    let file = record.end();
    assert!(agent.stop().success());
    over.store(true, Ordering::Relaxed);
    played.join().unwrap();
    observer.catch_up(broker.port);
    let (printed, errors, status) = replay(folder.path(), "line", &file);
    assert_eq!(status, Some(0), "{printed}{errors}");
    let (desk, site) = (readings(&printed), published(&file, &observer, "line"));
    for point in ["a", "b", "e"] {
        assert!(desk[point].len() >= 50);
        assert_eq!(desk[point], same_stretch(&site, &desk, point), "{point}");
    }
    eprintln!("{} readings are the same", count(&desk));
}

#[test]
fn slaves_of_modbus_give_the_same_readings() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let line = Line::new(&folder.path().join("line"), &[7, 8]);
    line.set(Faults { flip: Some(5), noise: true, ..Faults::default() });
    let (_slave, port) = tcp_slave(folder.path(), 7);
    let device = |name: &str, bus: &str, unit: u8| {
        format!(
            "[device.{name}]\nkind = \"modbus\"\nmax_rate = \"off\"\nbus = {bus}\nunit = {unit}\nevery = \"50ms\"\n\
             [device.{name}.point]\n\
             word = {{ table = \"holding\", address = 100, encoding = \"u16\" }}\n\
             real = {{ table = \"holding\", address = 196, encoding = \"f32\" }}\n\
             coil = {{ table = \"coil\", address = 3, write = true }}\n"
        )
    };
    let devices = [
        "[bus.line]\nport = ",
        &format!("{:?}", line.path()),
        "\ntimeout = \"300ms\"\n",
        &format!("[bus.server]\naddress = \"127.0.0.1:{port}\"\n"),
    ]
    .concat()
        + &device("pump", "\"line\"", 7)
        + &device("fan", "\"line\"", 8)
        + &device("plant", "\"server\"", 7)
        + &device("other", "\"server\"", 8);
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + &devices));
    for name in ["pump", "fan", "plant", "other"] {
        observer.wait_payload(&format!("sluicegate/g/{name}/status"), "online");
    }
    // Both share their way with another one.
    let records = ["pump", "plant"].map(|name| (name, Record::start(folder.path(), name)));
    for (name, _) in &records {
        for value in ["false", "true"] {
            let id = format!("{name}-{value}");
            publish(
                broker.port,
                &format!("sluicegate/g/{name}/coil/set"),
                &format!("{{\"id\":\"{id}\",\"value\":{value}}}"),
            );
            let told = observer.wait_json(&format!("sluicegate/g/{name}/coil/outcome"), "id", id);
            eprintln!("{told}");
        }
    }
    for (name, record) in &records {
        until("enough readings", || {
            let site = published(&record.file, &observer, name);
            ["word", "real", "coil"].iter().all(|point| site.get(*point).is_some_and(|of| of.len() >= 20))
        });
    }
    let files = records.map(|(name, record)| (name, record.end()));
    assert!(agent.stop().success());
    observer.catch_up(broker.port);
    for (name, file) in &files {
        let (printed, errors, status) = replay(folder.path(), name, file);
        assert_eq!(status, Some(0), "{name}: {printed}{errors}");
        let (desk, site) = (readings(&printed), published(file, &observer, name));
        for point in ["word", "real"] {
            let count = desk[point].len();
            assert!(count >= 20, "{name}/{point}: {count}");
            assert_eq!(desk[point], same_stretch(&site, &desk, point), "{name}/{point}");
        }
        let coils = untimed(&desk)["coil"].clone();
        let all = untimed(&site)["coil"].clone();
        assert!(all.windows(coils.len()).any(|part| part == coils), "{name}: {coils:?} in {all:?}");
        eprintln!("{name}: {} readings are the same", count(&desk));
        // By TCP another value; on a line a wrong CRC, after which the driver asks again where it did not.
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains("beef"), "{text}");
        std::fs::write(file, text.replace("beef", "bfef")).unwrap();
        let (printed, _, status) = replay(folder.path(), name, file);
        assert!(printed.contains("# the file is not as it was recorded"), "{printed}");
        assert!(status == Some(69) || readings(&printed) != desk, "{name}: {printed}");
    }
}

/// A device that is never read knows by others of its bus that the line echoes.
#[test]
fn what_a_line_with_an_echo_says_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let line = Line::new(&folder.path().join("line"), &[7, 8]);
    let faults = Faults { echo: true, ..Faults::default() };
    line.set(faults.clone());
    let devices = format!(
        "[bus.line]\nport = {:?}\ntimeout = \"200ms\"\n\
         [device.fan]\nkind = \"modbus\"\nbus = \"line\"\nunit = 8\nevery = \"200ms\"\n\
         [device.fan.point]\na = {{ table = \"holding\", address = 0 }}\n\
         [device.pump]\nkind = \"modbus\"\nbus = \"line\"\nunit = 7\n[device.pump.point]\n\
         x = {{ table = \"holding\", address = 500, write = true, type = \"int\", verify = false }}\n",
        line.path()
    );
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + &devices));
    observer.wait_payload("sluicegate/g/pump/status", "online");
    observer.wait_json("sluicegate/g/fan/a", "value", 1191);
    let record = Record::start(folder.path(), "pump");
    let set = |value: i64| {
        let text = format!("{{\"id\":\"n{value}\",\"value\":{value}}}");
        publish(broker.port, "sluicegate/g/pump/x/set", &text);
        observer.wait_json("sluicegate/g/pump/x/outcome", "id", format!("n{value}"))["outcome"].clone()
    };
    assert_eq!(set(1), "done");
    line.set(Faults { deaf_to_writes: true, ..faults.clone() });
    assert_eq!(set(2), "unknown");
    line.set(faults);
    assert_eq!(set(3), "done");
    until("it to be published", || published(&record.file, &observer, "pump").get("x").is_some_and(|of| of.len() == 2));
    let file = record.end();
    assert!(agent.stop().success());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"echoes\":true"), "{text}");
    observer.catch_up(broker.port);
    let (printed, errors, status) = replay(folder.path(), "pump", &file);
    assert_eq!(status, Some(0), "{printed}{errors}{text}");
    assert_eq!(untimed(&readings(&printed)), untimed(&published(&file, &observer, "pump")), "{text}");
    // Who does not know of the echo takes it for an answer.
    std::fs::write(&file, text.replace("\"echoes\":true", "\"echoes\":false")).unwrap();
    let (printed, _, _) = replay(folder.path(), "pump", &file);
    assert!(printed.contains("pump/x = 2"), "its outcome was unknown: {printed}");
}

#[test]
fn a_meter_that_changes_its_speed_gives_the_same_readings() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("meter"));
    let changes = [("every = \"15m\"", "every = \"50ms\""), ("timeout = \"2s\"", "timeout = \"300ms\"")];
    let device = example("iec62056", pty.path(), &changes);
    let over = Arc::new(AtomicBool::new(false));
    let played = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let (mut used, mut readouts) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                let heard = pty.heard_bytes().get(used..).unwrap_or_default();
                let Some(end) = heard.iter().position(|byte| *byte == b'\n') else {
                    crate::support::pause();
                    continue;
                };
                let line = heard[..=end].to_vec();
                used += line.len();
                match line.as_slice() {
                    b"/?!\r\n" => {
                        assert_eq!(pty.baud_rate(), 300);
                        pty.say(b"/ISK5ME162-0033\r\n");
                    }
                    b"\x06050\r\n" => {
                        // What is acknowledged at the old speed is answered at the new one.
                        until("the new speed", || pty.baud_rate() == 9600);
                        readouts += 1;
                        let content =
                            format!("C.1.0(28342193)\r\n1.8.0({readouts:06}.5*kWh)\r\n2.8.0(0.25*kWh)\r\n!\r\n\u{3}");
                        let mut sum = content.bytes().fold(0, |sum, byte| sum ^ byte);
                        match readouts % 5 {
                            // A damaged readout, none at all, and one in two pieces.
                            2 => sum ^= 1,
                            3 => continue,
                            _ => {}
                        }
                        let data = [&[2], content.as_bytes(), &[sum]].concat();
                        let (first, rest) = data.split_at(if readouts % 5 == 4 { 30 } else { 0 });
                        pty.say(first);
                        crate::support::pause();
                        pty.say(rest);
                    }
                    other => panic!("{}", other.escape_ascii()),
                }
            }
            readouts
        }
    });
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + &device));
    observer.wait_payload("sluicegate/g/status", "online");
    observer.wait_json("sluicegate/g/meter/exported", "value", 0.25);
    let record = Record::start(folder.path(), "meter");
    until("some readouts", || count(&published(&record.file, &observer, "meter")) > 20);
    observer.catch_up(broker.port);
    let file = record.end();
    observer.catch_up(broker.port);
    assert!(agent.stop().success());
    observer.catch_up(broker.port);
    over.store(true, Ordering::Relaxed);
    played.join().unwrap();

    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"baud\":9600") && text.contains("\"baud\":300"));
    let (printed, errors, status) = replay(folder.path(), "meter", &file);
    assert_eq!(status, Some(0), "{printed}{errors}");
    let (desk, site) = (readings(&printed), published(&file, &observer, "meter"));
    assert!(desk["imported"].len() >= 5, "{printed}");
    for point in ["imported", "exported"] {
        assert_eq!(desk[point], same_stretch(&site, &desk, point), "{point}");
    }
    eprintln!("{} readings are the same", count(&desk));
}

#[test]
fn what_a_device_without_bytes_reports_goes_through_the_same_rules() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let device = "[device.s]\nkind = \"sim\"\nmax_rate = \"off\"\n[device.s.point.level]\n\
                  wave = \"sine\"\nlow = -10\nhigh = 10\nperiod = \"1s\"\nevery = \"10ms\"\ntype = \"float\"\nround = 1\n\
                  scale = 2\nreport = { change = 3 }\nlimits = { high = 15, hysteresis = 2 }\n";
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + device));
    observer.wait_payload("sluicegate/g/s/status", "online");
    let record = Record::start(folder.path(), "s");
    until("some readings", || count(&published(&record.file, &observer, "s")) > 30);
    let file = record.end();
    assert!(agent.stop().success());
    observer.catch_up(broker.port);
    let (printed, errors, status) = replay(folder.path(), "s", &file);
    assert_eq!(status, Some(0), "{printed}{errors}");
    let (desk, site) = (readings(&printed), published(&file, &observer, "s"));
    assert!(desk["level"].len() >= 30);
    assert_eq!(desk["level"], same_stretch(&site, &desk, "level"));
}

/// Of a device made of others its own reports are played: what it was made of is not needed.
#[test]
fn what_is_derived_is_played_alone() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let wave = "low = -10\nhigh = 10\nperiod = \"1s\"\nevery = \"10ms\"\ntype = \"float\"\n";
    let devices = format!(
        "[device.s]\nkind = \"sim\"\nmax_rate = \"off\"\n[device.s.point.a]\nwave = \"sine\"\n{wave}\
         [device.s.point.b]\nwave = \"ramp\"\n{wave}[device.d]\nkind = \"derived\"\nmax_rate = \"off\"\n\
         [device.d.point]\nsum = {{ sum = [\"s/a\", \"s/b\"], round = 1, report = {{ change = 2 }} }}\n\
         most = {{ largest = [\"s/a\", \"s/b\"], round = 2, limits = {{ high = 5, hysteresis = 1 }} }}\n"
    );
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + &devices));
    observer.wait_payload("sluicegate/g/d/status", "online");
    let record = Record::start(folder.path(), "d");
    until("some readings", || {
        let site = published(&record.file, &observer, "d");
        ["sum", "most"].iter().all(|point| site.get(*point).is_some_and(|of| of.len() > 30))
    });
    let file = record.end();
    assert!(agent.stop().success());
    observer.catch_up(broker.port);
    let (printed, errors, status) = replay(folder.path(), "d", &file);
    assert_eq!(status, Some(0), "{printed}{errors}");
    let (desk, site) = (readings(&printed), published(&file, &observer, "d"));
    for point in ["sum", "most"] {
        assert!(desk[point].len() >= 30);
        assert_eq!(desk[point], same_stretch(&site, &desk, point), "{point}");
    }
}

#[test]
fn who_records_too_slowly_holds_nobody_back_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let mut pty = Pty::new(&folder.path().join("mast"));
    let mut agent = Agent::start(folder.path(), &(gateway(broker.port) + &example("nmea", pty.path(), &[])));
    observer.wait_payload("sluicegate/g/status", "online");
    let mut record = Record::start(folder.path(), "mast");
    signal(&record.child.0, Signal::STOP);
    // More than the way to it holds: 256 lines of 8 KB, and what sockets do.
    for _ in 0..1000 {
        pty.say(&[b'x'; 4000]);
    }
    pty.say(gga(1).as_bytes());
    observer.wait_json("sluicegate/g/mast/satellites", "value", 1);
    signal(&record.child.0, Signal::CONT);
    until("what was missed", || {
        pty.say(gga(2).as_bytes());
        let text = record.text();
        text.contains("\"missed\"") && text.contains(&hex(&gga(2)))
    });
    signal(&record.child.0, Signal::INT);
    let mut status = None;
    until("the recording to end", || {
        status = record.child.0.try_wait().unwrap();
        status.is_some()
    });
    let errors = std::fs::read_to_string(record.file.with_extension("errors")).unwrap();
    assert_eq!(status.unwrap().code(), Some(69), "{errors}");
    assert!(errors.contains("events were missed: the recording is not whole"), "{errors}");
    assert!(agent.stop().success());
    let (printed, _, status) = replay(folder.path(), "mast", &record.file);
    assert!(status == Some(69) && printed.contains("events could not be recorded here"), "{printed}");
}

#[test]
fn what_can_not_be_recorded_or_replayed_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let pty = Pty::new(&folder.path().join("mast"));
    let text = gateway(broker.port)
        + &example("nmea", pty.path(), &[])
        + "\n[device.s]\nkind = \"sim\"\n[device.s.point.x]\nwave = \"sine\"\ntype = \"float\"\n";
    Agent::configure(folder.path(), &text);
    let ask = |arguments: &[&str]| {
        let output = Agent::ask(folder.path(), arguments);
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (status, errors, _) = ask(&["record", "mast"]);
    assert!(status == Some(69) && errors.contains("only a running one records"), "{errors}");
    let (status, errors, _) = ask(&["record", "nobody"]);
    assert!(status == Some(69) && errors.contains("there is no device `nobody`"), "{errors}");
    let quiet = "\n[device.quiet]\nkind = \"sim\"\n[device.quiet.point.x]\nwave = \"sine\"\nevery = \"1h\"\n\
                 type = \"float\"\n";
    let mut agent = Agent::start(folder.path(), &(text.clone() + quiet));
    observer.wait_payload("sluicegate/g/status", "online");
    let (status, errors, printed) = ask(&["record", "mast", "--for", "100ms"]);
    assert_eq!(status, Some(0), "{errors}");
    assert_eq!(printed.lines().count(), 3, "{printed}");
    let record = Record::start(folder.path(), "mast");
    let (status, errors, _) = ask(&["record", "mast", "--for", "100ms"]);
    assert!(status == Some(69) && errors.contains("is being recorded already"), "{errors}");
    let file = record.end();
    // One that says nothing is waited for, which is told; when it goes, so does who waits.
    let quiet = folder.path().join("quiet.rec");
    let mut waiting = Agent::begin(folder.path(), &["record", "quiet"], &quiet);
    let told = || std::fs::read_to_string(quiet.with_extension("errors")).unwrap();
    until("who waits to be told", || told().contains("nothing to record yet: `quiet` "));
    Agent::configure(folder.path(), &text);
    agent.hang_up();
    until("who waits to end", || waiting.0.try_wait().unwrap().is_some_and(|status| status.code() == Some(69)));
    assert!(told().contains("nothing was recorded: "), "{}", told());
    assert!(agent.stop().success());
    let whole = std::fs::read_to_string(&file).unwrap();
    for (device, text, expected) in [
        ("s", whole.clone(), "was recorded of a device of kind `serial`, and `s` is of kind `sim`"),
        ("mast", whole.replace("\"start\"", "\"stort\""), "line 2: `stort` is nothing that is recorded"),
        ("mast", String::new(), "line 1: it is empty"),
        ("mast", "[device.mast]\n".to_owned(), "line 1: it is no recording"),
        ("mast", whole.replace("\"format\":1", "\"format\":9"), "line 1: it has format 9: this program reads format 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (_, errors, status) = replay(folder.path(), device, &file);
        assert!(status == Some(69) && errors.contains(expected), "{errors}");
    }
    let cut: String = whole.lines().take(2).map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, cut).unwrap();
    let (printed, errors, status) = replay(folder.path(), "mast", &file);
    assert!(status == Some(0) && printed.contains("# the recording has no end"), "{printed}{errors}");
}

/// The two parts of a text, each its own.
trait Pair {
    fn to_owned_pair(self) -> (String, String);
}

impl Pair for (&str, &str) {
    fn to_owned_pair(self) -> (String, String) {
        (self.0.to_owned(), self.1.to_owned())
    }
}
