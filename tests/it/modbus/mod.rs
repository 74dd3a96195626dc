//! Modbus slaves that others wrote (libmodbus), on a line that the test plays, and by TCP. What is judged is the line's
//! record and the broker's.

mod decode;
mod unanswered;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::{Agent, Faults, Gate, Line, Mosquitto, Observer, publish, take_time, tcp_slave, until};

/// Slaves on one line, and a gateway that asks them.
struct Site {
    broker: Mosquitto,
    observer: Observer,
    line: Line,
    agent: Agent,
    folder: tempfile::TempDir,
}

/// With these slaves, faults, keys of the bus, and devices. Without slaves the config has no such bus.
fn site(units: &[u8], faults: Faults, bus: &str, devices: &str) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let line = Line::new(&folder.path().join("line"), units);
    line.set(faults);
    let bus = if units.is_empty() { String::new() } else { format!("[bus.line]\nport = \"{}\"\n{bus}\n", line.path()) };
    let agent = Agent::start(folder.path(), &config(broker.port, &format!("{bus}{devices}")));
    Site { broker, observer, line, agent, folder }
}

fn config(port: u16, more: &str) -> String {
    format!(
        "[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n\
         [queue]\ntelemetry.sync = \"never\"\n{more}"
    )
}

/// A device on the line, with points by their names and keys.
fn device(name: &str, keys: &str, points: &[(&str, &str)]) -> String {
    let mut text = format!("[device.{name}]\nkind = \"modbus\"\nmax_rate = \"off\"\n{keys}\n[device.{name}.point]\n");
    for (point, keys) in points {
        text.push_str(&format!("{point} = {{ {keys} }}\n"));
    }
    text
}

impl Site {
    fn topic(point: &str) -> String {
        format!("sluicegate/g/{point}")
    }

    /// Sets a point, and waits for its outcome.
    fn set(&self, point: &str, value: &str) -> serde_json::Value {
        let id = format!("c{}", self.observer.count());
        publish(
            self.broker.port,
            &format!("{}/set", Self::topic(point)),
            &format!("{{\"value\":{value},\"id\":\"{id}\"}}"),
        );
        let topic = format!("{}/outcome", Self::topic(point));
        self.observer.wait("the outcome", |heard| heard.topic == topic && heard.json()["id"] == id.as_str()).json()
    }

    /// The values of a point so far that are good.
    fn values(&self, point: &str) -> Vec<serde_json::Value> {
        let topic = Self::topic(point);
        let readings = self.observer.all().into_iter().filter(|heard| heard.topic == topic).map(|heard| heard.json());
        readings.filter(|json| json["quality"] != "bad").map(|json| json["value"].clone()).collect()
    }
}

/// What `modbus_server.c` puts there: encoding, the first register, the value.
fn table() -> Vec<(&'static str, u16, serde_json::Value)> {
    vec![
        ("u16", 100, 0xbeef.into()),
        ("s16", 116, (-12345).into()),
        ("u32", 132, 0xdead_beef_u32.into()),
        ("s32", 148, (-123_456_789).into()),
        ("u64", 164, 0x0123_4567_89ab_cdef_u64.into()),
        ("s64", 180, (-1_234_567_890_123_456_789_i64).into()),
        ("f32", 196, 230.1.into()),
        ("f64", 212, std::f64::consts::PI.into()),
        ("bcd16", 228, 1234.into()),
        ("bcd32", 244, 12_345_678.into()),
    ]
}

/// Every type and order of a slave that is reached so is read as libmodbus wrote it.
fn reads_every_type(site: impl FnOnce(&str) -> Site) -> Site {
    let mut points = Vec::new();
    let mut expected: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    for (encoding, address, value) in table() {
        for (place, order) in (0..).zip(["ABCD", "CDAB", "BADC", "DCBA"]) {
            for kind in ["holding", "input"] {
                let name = format!("{kind}-{encoding}-{order}");
                let address = address + 4 * place;
                let keys =
                    format!("table = \"{kind}\", address = {address}, encoding = \"{encoding}\", order = \"{order}\"");
                points.push((name.clone(), keys));
                expected.insert(name, value.clone());
            }
        }
    }
    for (name, keys, value) in [
        ("coil", "table = \"coil\", address = 3", true.into()),
        ("discrete", "table = \"discrete\", address = 31", false.into()),
        ("bit", "table = \"holding\", address = 100, bits = \"4\"", false.into()),
        ("bits", "table = \"holding\", address = 100, bits = \"8..11\"", 14.into()),
        ("digits", "table = \"holding\", address = 228, encoding = \"string\", length = 1", "\u{12}4".into()),
        ("scaled", "table = \"holding\", address = 116, encoding = \"s16\", scale = 0.1", (-1234.5).into()),
    ] {
        points.push((name.to_owned(), keys.to_owned()));
        expected.insert(name.to_owned(), value);
    }
    let points: Vec<(&str, &str)> = points.iter().map(|(name, keys)| (name.as_str(), keys.as_str())).collect();
    let site = site(&device("meter", "bus = \"line\"\nunit = 7", &points));
    for (name, value) in &expected {
        let topic = Site::topic(&format!("meter/{name}"));
        let reading = site.observer.wait(&topic, |heard| heard.topic == topic).json();
        assert_eq!(&reading["value"], value, "{topic}: {reading}");
    }
    site
}

#[test]
fn every_type_and_order_is_read_on_a_line() {
    let site = reads_every_type(|device| site(&[7], Faults::default(), "", device));
    // 86 points, 6 requests: 2 of each table of registers, 1 of each of bits.
    let asked: BTreeSet<Vec<u8>> =
        site.line.record().into_iter().filter(|carried| carried.is_request).map(|carried| carried.bytes).collect();
    assert_eq!(asked.len(), 6, "{asked:?}");
}

#[test]
fn every_type_and_order_is_read_by_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let (_slave, port) = tcp_slave(folder.path(), 7);
    reads_every_type(|device| {
        let device = device.replace("bus = \"line\"", &format!("bus = {{ address = \"127.0.0.1:{port}\" }}"));
        site(&[], Faults::default(), "", &device)
    });
}

#[test]
fn a_dead_slave_slows_no_other() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    /// The default turnaround.
    const TURNAROUND: Duration = Duration::from_millis(100);
    const WINDOW: Duration = Duration::from_secs(12);
    let units: Vec<u8> = (1..=32).collect();
    let dead = BTreeSet::from([3, 10, 17, 24, 31]);
    let living = units.len() - dead.len();
    // Faster than the line: each turn is used.
    let run = |with_dead: bool| {
        let units = units.iter().filter(|unit| with_dead || !dead.contains(unit));
        let devices: String = units
            .clone()
            .map(|unit| {
                let keys = format!("bus = \"line\"\nunit = {unit}\nevery = \"50ms\"");
                let points = [("x", "table = \"holding\", address = 0"), ("y", "table = \"holding\", address = 9")];
                device(&format!("u{unit}"), &keys, &points)
            })
            .collect();
        let faults = Faults { dead: dead.clone(), baud_rate: Some(19_200), ..Faults::default() };
        let units: Vec<u8> = units.copied().collect();
        let site = site(&units, faults, "timeout = \"200ms\"", &devices);
        let asked = |unit: &u8| {
            let record = site.line.record();
            record.iter().filter(|carried| carried.is_request && carried.unit() == *unit).count()
        };
        if with_dead {
            // Twice at once, then after up to 1, 2, 4 and 8 s: the last one is in the window.
            until("the dead to come seldom", || dead.iter().all(|unit| asked(unit) >= 5));
            for unit in &dead {
                site.observer.wait_payload(&format!("sluicegate/g/u{unit}/status"), "offline");
            }
        }
        until("all living to be asked often", || units.iter().all(|unit| dead.contains(unit) || asked(unit) >= 3));
        let from = Instant::now();
        let within = |at: Instant| at >= from && at <= from + WINDOW;
        until("the window to pass", || from.elapsed() > WINDOW);
        let record = site.line.record();
        let requests = record.iter().filter(|carried| carried.is_request && within(carried.at));
        let (of_dead, of_living): (Vec<_>, Vec<_>) = requests.partition(|carried| dead.contains(&carried.unit()));
        let mut each: BTreeMap<u8, usize> = BTreeMap::new();
        of_living.iter().for_each(|carried| *each.entry(carried.unit()).or_default() += 1);
        assert_eq!(each.len(), living);
        let (least, most) = (*each.values().min().unwrap(), *each.values().max().unwrap());
        assert!(most - least <= 2, "all by turns: {each:?}");
        let cycle = WINDOW.as_secs_f64() / (of_living.len() as f64 / living as f64);
        (cycle, of_dead.len(), least)
    };
    let (ideal, _, _) = run(false);
    let (cycle, of_dead, cycles) = run(true);
    eprintln!(
        "a cycle of {living} living slaves: {:.0} ms alone, {:.0} ms with 5 dead ({:.2}); {of_dead} questions to the dead in \
         {cycles} cycles",
        ideal * 1e3,
        cycle * 1e3,
        cycle / ideal
    );
    // The time that the dead cost, by the record: a third of all would make a cycle 1.5 times as long.
    let lost = (TIMEOUT + TURNAROUND) * u32::try_from(of_dead).unwrap();
    assert!(of_dead >= dead.len(), "{of_dead}: the window has none of what it is to show");
    assert!(lost * 3 <= WINDOW, "{of_dead} questions to the dead in {WINDOW:?}");
}

/// A gateway from TCP to a line: one question after the other, and for a slave that is dead it has a patience of its own.
fn converter(dead: u8, patience: Duration) -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut question = [0; 12];
            while stream.read_exact(&mut question).is_ok() {
                let [t0, t1, _, _, _, _, unit, function, ..] = question;
                let answer = if unit == dead {
                    take_time(patience);
                    vec![t0, t1, 0, 0, 0, 3, unit, function | 0x80, 11]
                } else {
                    let count = question[11] * 2;
                    [&[t0, t1, 0, 0, 0, 3 + count, unit, function, count][..], &vec![0; usize::from(count)]].concat()
                };
                if stream.write_all(&answer).is_err() {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn a_dead_slave_behind_a_gateway_takes_no_other_along() {
    let port = converter(2, Duration::from_millis(1600));
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let bus = format!("[bus.hall]\naddress = \"127.0.0.1:{port}\"\ntimeout = \"500ms\"\n");
    let each = |unit: u8| {
        let keys = format!("bus = \"hall\"\nunit = {unit}\nevery = \"50ms\"");
        device(&format!("u{unit}"), &keys, &[("x", "table = \"holding\", address = 0")])
    };
    let agent = Agent::start(folder.path(), &config(broker.port, &[bus, each(1), each(2)].concat()));
    observer.wait_payload("sluicegate/g/u1/status", "online");
    observer.wait_payload("sluicegate/g/u2/status", "offline");
    let count = || observer.all().iter().filter(|heard| heard.topic == "sluicegate/g/u1/x").count();
    let before = count();
    until("the living to be read on", || count() > before + 60);
    assert!(!agent.log().contains("device u1 offline"), "{}", agent.log());
}

#[test]
fn noise_and_wrong_bits_are_survived() {
    let points =
        [("a", "table = \"holding\", address = 0"), ("b", "table = \"input\", address = 196, encoding = \"f32\"")];
    let keys = "bus = \"line\"\nunit = 1\nevery = \"20ms\"";
    let faults = Faults { noise: true, flip: Some(4), ..Faults::default() };
    let site = site(&[1], faults, "turnaround = \"5ms\"", &device("m", keys, &points));
    site.observer.wait_payload("sluicegate/g/m/status", "online");
    site.observer.clear();
    until("many readings", || site.values("m/a").len() > 50 && site.values("m/b").len() > 50);
    assert!(site.values("m/a").iter().all(|value| *value == 1121));
    assert!(site.values("m/b").iter().all(|value| *value == 230.1));
    let record = site.line.record();
    let asked: Vec<_> = record.iter().filter(|carried| carried.is_request).collect();
    // Behind a damaged answer the same question.
    let damaged = record.windows(3).filter(|three| three[1].fate == "damaged").collect::<Vec<_>>();
    assert!(damaged.len() > 10);
    assert!(damaged.iter().all(|three| three[0].bytes == three[2].bytes));
    eprintln!("{} questions, {} answers damaged", asked.len(), damaged.len());
    assert_eq!(site.agent.log().matches("an answer of unit 1 came damaged (wrong CRC): asked again").count(), 1);
    let offline =
        site.observer.all().iter().any(|heard| heard.topic == "sluicegate/g/m/status" && heard.payload == "offline");
    assert!(!offline, "each damaged answer was asked for again");
}

#[test]
fn an_exception_is_told_by_its_name_and_harms_no_other_point() {
    let register = |address: u16| format!("table = \"holding\", address = {address}");
    let (good, gone, after, failing) = (register(296), register(300), register(303), register(320));
    let points = [("good", good.as_str()), ("gone", &gone), ("after", &after), ("failing", &failing)];
    let site = site(&[1], Faults::default(), "", &device("m", "bus = \"line\"\nunit = 1\nevery = \"100ms\"", &points));
    site.observer.wait_json("sluicegate/g/m/good", "value", 0);
    site.observer.wait_json("sluicegate/g/m/after", "value", 0);
    site.observer.wait_json("sluicegate/g/m/gone", "quality", "bad");
    site.observer.wait_json("sluicegate/g/m/failing", "quality", "bad");
    for text in [
        "gone at holding register 300 can't be read: illegal data address (exception 2)",
        "failing at holding register 320 can't be read: server device failure (exception 4)",
    ] {
        site.agent.wait_log(text);
    }
    // Once the range was found, it is asked for alone: each round is four questions at most, and none goes over a hole.
    site.line.forget();
    until("some rounds", || site.line.record().len() > 24);
    let over = |first: u16, count: u16| first < 300 && first + count > 300;
    for carried in site.line.record().iter().filter(|carried| carried.is_request) {
        let word = |at: usize| u16::from_be_bytes([carried.bytes[at], carried.bytes[at + 1]]);
        assert!(!over(word(2), word(4)), "{:?}", carried.bytes);
    }
    assert!(site.values("m/gone").is_empty() && site.values("m/failing").is_empty());
}

#[test]
fn a_write_is_said_once_and_read_back() {
    let out = |more: &str| format!("table = \"holding\", write = true, type = \"int\", {more}");
    let (plain, clamped, missing) = (out("address = 500"), out("address = 400"), out("address = 300, verify = false"));
    let (many, scaled) = (
        out("address = 501, function = 16"),
        "table = \"holding\", write = true, type = \"float\", address = 502, encoding = \"s16\", scale = 0.1"
            .to_owned(),
    );
    let (float, again) = (
        "table = \"holding\", write = true, address = 504, encoding = \"f32\", order = \"CDAB\"".to_owned(),
        out("address = 506, retry_write = true"),
    );
    let coil = "table = \"coil\", write = true, address = 1".to_owned();
    let points = [
        ("plain", plain.as_str()),
        ("clamped", &clamped),
        ("missing", &missing),
        ("many", &many),
        ("scaled", &scaled),
        ("float", &float),
        ("again", &again),
        ("coil", &coil),
    ];
    let keys = "bus = \"line\"\nunit = 1\nevery = \"1m\"\ngap = 0";
    let site = site(&[1], Faults::default(), "timeout = \"100ms\"", &device("m", keys, &points));
    site.observer.wait_payload("sluicegate/g/m/status", "online");
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    // Point, value, outcome, and what is written, without unit and CRC.
    for (point, value, outcome, written) in [
        ("plain", "4711", "done", &[6, 1, 0xf4, 0x12, 0x67][..]),
        ("many", "65535", "done", &[16, 1, 0xf5, 0, 1, 2, 0xff, 0xff]),
        ("scaled", "-21.5", "done", &[6, 1, 0xf6, 0xff, 0x29]),
        ("float", "230.1", "done", &[16, 1, 0xf8, 0, 2, 4, 0x19, 0x9a, 0x43, 0x66]),
        // No number of 32 bits is quite that: it is the nearest one that has to come back.
        ("float", "0.333333333333", "done", &[16, 1, 0xf8, 0, 2, 4, 0xaa, 0xab, 0x3e, 0xaa]),
        ("coil", "true", "done", &[5, 0, 1, 0xff, 0]),
        ("clamped", "500", "failed", &[6, 1, 0x90, 1, 0xf4]),
        ("missing", "1", "failed", &[6, 1, 0x2c, 0, 1]),
        ("plain", "65536", "failed", &[]),
        ("scaled", "21.55", "failed", &[]),
    ] {
        site.line.forget();
        let said = site.set(&format!("m/{point}"), value);
        assert_eq!(said["outcome"], outcome, "{point} {value}: {said}");
        let writes = site.line.writes();
        let bodies: Vec<&[u8]> = writes.iter().map(|bytes| &bytes[1..bytes.len() - 2]).collect();
        let expected: Vec<&[u8]> = if written.is_empty() { vec![] } else { vec![written] };
        assert_eq!(bodies, expected, "{point} {value}");
        let text = said["text"].as_str().unwrap_or_default();
        match point {
            "clamped" => assert!(text.contains("`500` was taken, and it reads `100`"), "{said}"),
            "missing" => assert!(text.contains("illegal data address (exception 2)"), "{said}"),
            _ if value == "0.333333333333" => assert_eq!(said["value"].to_string(), "0.33333334", "{said}"),
            _ if outcome == "done" => assert_eq!(said["value"].to_string(), value, "{said}"),
            _ => assert!(text.contains("does not fit"), "{said}"),
        }
    }
    // The slave acts, and what it says is lost.
    site.line.set(Faults { deaf_to_writes: true, ..Faults::default() });
    for (point, times) in [("plain", 1), ("again", 3)] {
        site.line.forget();
        let said = site.set(&format!("m/{point}"), "7");
        assert_eq!(said["outcome"], "unknown", "{said}");
        // The slave is asked again before the next command, and nothing is written meanwhile.
        until("the slave to be asked", || {
            site.line.record().iter().any(|carried| carried.is_request && !carried.is_write())
        });
        assert_eq!(site.line.writes().len(), times, "{point}: {said}");
    }
}

#[test]
fn what_is_said_to_all_is_answered_by_none() {
    let all = device(
        "all",
        "bus = \"line\"\nunit = 0",
        &[("x", "table = \"holding\", address = 505, write = true, type = \"int\"")],
    );
    let units: String = (1..=3)
        .map(|unit| {
            let keys = format!("bus = \"line\"\nunit = {unit}\nevery = \"50ms\"");
            device(&format!("u{unit}"), &keys, &[("x", "table = \"holding\", address = 505")])
        })
        .collect();
    let site = site(&[1, 2, 3], Faults::default(), "", &format!("{all}{units}"));
    site.observer.wait_json("sluicegate/g/u3/x", "value", 0);
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    site.line.forget();
    let said = site.set("all/x", "42");
    assert_eq!((&said["outcome"], &said["value"]), (&"done".into(), &42.into()), "{said}");
    for unit in 1..=3 {
        site.observer.wait_json(&format!("sluicegate/g/u{unit}/x"), "value", 42);
    }
    let record = site.line.record();
    let place = record.iter().position(|carried| carried.unit() == 0).unwrap();
    assert_eq!(record.iter().filter(|carried| carried.unit() == 0).count(), 1);
    let next = &record[place + 1];
    let pause = next.at - record[place].at;
    assert!(next.is_request && pause >= Duration::from_millis(100), "all had the turnaround: {pause:?}");
}

#[test]
fn a_command_waits_for_no_polls() {
    let units: Vec<u8> = (1..=12).collect();
    let devices: String = units
        .iter()
        .map(|unit| {
            let keys = format!("bus = \"line\"\nunit = {unit}\nevery = \"50ms\"");
            let point = "table = \"holding\", address = 500, write = true, type = \"int\"";
            device(&format!("u{unit}"), &keys, &[("x", point)])
        })
        .collect();
    // 330 ms for each question: eleven other devices are asked in 3.6 s.
    let slow = Faults { baud_rate: Some(500), ..Faults::default() };
    let site = site(&units, slow, "timeout = \"2s\"", &devices);
    for unit in &units {
        site.observer.wait_payload(&format!("sluicegate/g/u{unit}/status"), "online");
    }
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    for value in 1..=3 {
        site.line.forget();
        let said = site.set("u5/x", &value.to_string());
        assert_eq!(said["outcome"], "done", "{said}");
        let record = site.line.record();
        let requests: Vec<_> = record.iter().filter(|carried| carried.is_request).collect();
        let before = requests.iter().position(|carried| carried.is_write()).unwrap();
        // What was under way when it came, and what began while it was on its way to the driver.
        assert!(before <= 3, "{before} questions before the command");
        eprintln!("{before} questions before the command");
    }
}

#[test]
fn a_connection_that_was_ended_while_nobody_spoke_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (_slave, port) = tcp_slave(folder.path(), 1);
    let gate = Gate::to(port);
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let keys = format!("bus = {{ address = \"127.0.0.1:{}\" }}\nunit = 1\nevery = \"1h\"", gate.port);
    let points = [("x", "table = \"holding\", address = 500, write = true, type = \"int\"")];
    let agent = Agent::start(folder.path(), &config(broker.port, &device("m", &keys, &points)));
    observer.wait_payload("sluicegate/g/m/status", "online");
    observer.wait_json("sluicegate/g/info", "session", 1);
    observer.clear();
    gate.close();
    gate.open();
    publish(broker.port, "sluicegate/g/m/x/set", "{\"value\":7,\"id\":\"a\"}");
    let said = observer.wait("the outcome", |heard| heard.topic == "sluicegate/g/m/x/outcome").json();
    assert_eq!((&said["outcome"], &said["value"]), (&"done".into(), &7.into()), "{said}");
    assert_eq!(gate.connections(), 2);
    assert!(!agent.log().contains("device m offline"), "nothing was lost");
}

#[test]
fn rtu_is_spoken_through_a_converter() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::new(&folder.path().join("line"), &[9]);
    let port = line.converter();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let keys = format!("bus = {{ address = \"127.0.0.1:{port}\", framing = \"rtu\" }}\nunit = 9\nevery = \"50ms\"");
    let points = [("x", "table = \"holding\", address = 0")];
    let _agent = Agent::start(folder.path(), &config(broker.port, &device("m", &keys, &points)));
    observer.wait_json("sluicegate/g/m/x", "value", 1201);
    assert!(line.record().iter().all(|carried| carried.unit() == 9), "{:?}", line.record());
}

#[test]
fn slaves_are_found_on_demand_and_never_on_a_port_that_a_gateway_has() {
    let folder = tempfile::tempdir().unwrap();
    let line = Line::new(&folder.path().join("line"), &[2, 5]);
    let ask = |units: &str| {
        let words =
            ["discover", "--modbus", line.path(), "--units", units, "--baud-rates", "19200", "--parities", "even"];
        Agent::ask(folder.path(), &words)
    };
    let found = ask("1-6");
    let text = String::from_utf8(found.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("# ") && lines[0].contains("units 1 to 6") && lines[0].contains("nothing is written"),
        "{text}"
    );
    let expected = [
        "unit 2 at 19200, parity even: holding register 0 is 0x046b",
        "unit 5 at 19200, parity even: holding register 0 is 0x0489",
    ];
    assert_eq!(&lines[1..], expected);
    assert!(found.status.success() && line.writes().is_empty());
    let asked: Vec<u8> =
        line.record().iter().filter(|carried| carried.is_request).map(|carried| carried.unit()).collect();
    assert_eq!(asked, [1, 2, 3, 4, 5, 6], "each once");

    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let bus = format!("bus = {{ port = \"{}\" }}\nunit = 2\nevery = \"1h\"", line.path());
    let config = config(broker.port, &device("m", &bus, &[("x", "table = \"holding\", address = 0")]));
    let _agent = Agent::start(folder.path(), &config);
    observer.wait_payload("sluicegate/g/m/status", "online");
    line.forget();
    let refused = ask("5");
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(69) && text.contains("is in use by another program"), "{text}");
    assert!(line.record().is_empty(), "nobody was asked");
}

#[test]
fn a_bus_that_changes_at_a_reload_is_opened_anew_for_all_its_devices() {
    let devices: String = (1..=2)
        .map(|unit| {
            let keys = format!("bus = \"line\"\nunit = {unit}\nevery = \"50ms\"");
            device(&format!("u{unit}"), &keys, &[("x", "table = \"holding\", address = 0")])
        })
        .collect();
    let mut site = site(&[1, 2], Faults::default(), "baud_rate = 9600", &devices);
    for unit in 1..=2 {
        site.observer.wait_payload(&format!("sluicegate/g/u{unit}/status"), "online");
    }
    let folder = site.folder.path().to_owned();
    let before = std::fs::read_to_string(folder.join("agent.toml")).unwrap();
    // A device that goes leaves the bus to the other one.
    let one = before.split("[device.u2]").next().unwrap().to_owned();
    for (text, said) in [
        (&one, "device u2: removed"),
        (&before, "device u2: added"),
        (&before.replace("9600", "19200"), "device u1: started anew"),
    ] {
        std::fs::write(folder.join("agent.toml"), text).unwrap();
        let reloaded = Agent::ask(&folder, &["reload"]);
        let printed = String::from_utf8(reloaded.stdout).unwrap();
        assert!(reloaded.status.success() && printed.contains(said), "{printed}");
        site.line.forget();
        let units: &[u8] = if said.contains("removed") { &[1] } else { &[1, 2] };
        let asked = |unit: &u8| site.line.record().iter().any(|carried| !carried.is_request && carried.unit() == *unit);
        until("all to be asked", || units.iter().all(asked));
    }
    assert!(!site.agent.log().contains("is in use by another program"), "it was closed before it was opened");
    assert!(site.agent.stop().success());
}

#[test]
fn a_command_on_a_line_that_is_gone_has_not_begun() {
    let point = "table = \"holding\", address = 500, write = true, type = \"int\"";
    let site =
        site(&[1], Faults::default(), "", &device("m", "bus = \"line\"\nunit = 1\nevery = \"1h\"", &[("x", point)]));
    site.observer.wait_payload("sluicegate/g/m/status", "online");
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    // Nobody is asked, so nobody has noticed.
    site.line.unplug();
    let said = site.set("m/x", "7");
    assert_eq!(said["outcome"], "failed", "nothing was said to the slave: {said}");
    assert!(said["text"].as_str().unwrap().contains("is gone"), "{said}");
}

#[test]
fn a_line_that_is_pulled_out_takes_its_devices_along_and_brings_them_back() {
    let devices: String = (1..=2)
        .map(|unit| {
            // The second one is asked so seldom that it would not notice by itself.
            let every = if unit == 1 { "50ms" } else { "1h" };
            let keys = format!("bus = \"line\"\nunit = {unit}\nevery = \"{every}\"");
            device(&format!("u{unit}"), &keys, &[("x", "table = \"holding\", address = 0")])
        })
        .collect();
    let site = site(&[1, 2], Faults::default(), "", &devices);
    for unit in 1..=2 {
        site.observer.wait_payload(&format!("sluicegate/g/u{unit}/status"), "online");
    }
    site.observer.clear();
    site.line.unplug();
    for unit in 1..=2 {
        site.observer.wait_payload(&format!("sluicegate/g/u{unit}/status"), "offline");
        let topic = format!("sluicegate/g/u{unit}/problem");
        site.observer.wait("the reason", |heard| heard.topic == topic && heard.payload.contains("is gone"));
    }
    site.line.plug();
    for unit in 1..=2 {
        site.observer.wait_payload(&format!("sluicegate/g/u{unit}/status"), "online");
    }
}
