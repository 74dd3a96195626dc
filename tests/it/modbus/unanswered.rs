//! Answers that are lost, late, refused or echoed: no value is taken for another one's, no slave is given up for one
//! question, and no command is called done, or said again, without knowing.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{config, device, site};
use crate::support::{Agent, Faults, Mosquitto, Observer, publish, take_time, until};

#[test]
fn a_late_answer_is_never_taken_for_another() {
    // Two requests of one length and function: nothing but the order of things tells their answers apart.
    let points = [("a", "table = \"holding\", address = 0"), ("b", "table = \"holding\", address = 20")];
    let keys = "bus = \"line\"\nunit = 1\nevery = \"20ms\"";
    let late = Faults { late: Some((3, Duration::from_millis(350))), ..Faults::default() };
    let site = site(&[1], late, "timeout = \"200ms\"", &device("m", keys, &points));
    let count = |fate: &str| site.line.record().iter().filter(|carried| carried.fate == fate).count();
    until("20 late answers", || count("late") >= 20);
    site.line.set(Faults::default());
    let (a, b) = (site.values("m/a").len(), site.values("m/b").len());
    until("more readings", || site.values("m/a").len() > a && site.values("m/b").len() > b);
    let (a, b) = (site.values("m/a"), site.values("m/b"));
    eprintln!("{} late answers, {} readings of a, {} of b", count("late"), a.len(), b.len());
    assert!(a.iter().all(|value| *value == 1121), "{a:?}");
    assert!(b.iter().all(|value| *value == 2232), "{b:?}");
    assert!(a.len() > 5 && b.len() > 5, "{} {}", a.len(), b.len());
}

#[test]
fn a_question_that_a_slave_ignores_starves_no_other() {
    // The first is ignored as a part of a block, the second alone.
    for (name, ignored, gap) in [("together", 4, 8), ("alone", 20, 0)] {
        let bad = format!("table = \"holding\", address = {ignored}");
        let points = [
            ("a", "table = \"holding\", address = 0"),
            ("bad", bad.as_str()),
            ("c", "table = \"input\", address = 196, encoding = \"f32\""),
        ];
        let faults = Faults { ignored: BTreeSet::from([ignored]), ..Faults::default() };
        let keys = format!("bus = \"line\"\nunit = 1\nevery = \"100ms\"\ngap = {gap}");
        let site = site(&[1], faults, "timeout = \"100ms\"", &device("m", &keys, &points));
        until("the others to be read", || site.values("m/a").len() > 20 && site.values("m/c").len() > 20);
        site.observer.wait_json("sluicegate/g/m/bad", "quality", "bad");
        let (a, c) = (site.values("m/a").len(), site.values("m/c").len());
        until("the others to be read on", || site.values("m/a").len() > a + 20 && site.values("m/c").len() > c + 20);
        assert!(site.values("m/bad").is_empty(), "{name}");
        assert!(!site.agent.log().contains("device m offline"), "{name}: it answers");
        assert!(site.agent.log().contains("bad at holding register"), "{name}: nobody was told why");
    }
}

#[test]
fn one_refusal_splits_no_question() {
    let points = [("a", "table = \"holding\", address = 0"), ("b", "table = \"holding\", address = 4")];
    let keys = "bus = \"line\"\nunit = 1\nevery = \"100ms\"";
    let site = site(&[1], Faults::default(), "", &device("m", keys, &points));
    site.observer.wait_json("sluicegate/g/m/a", "value", 1121);
    site.line.refuse(1);
    site.line.forget();
    until("some questions", || site.line.record().len() > 20);
    let record = site.line.record();
    let lengths: BTreeSet<u8> =
        record.iter().filter(|carried| carried.is_request).map(|carried| carried.bytes[5]).collect();
    assert_eq!(lengths, BTreeSet::from([5]), "one question for both, as before");
}

#[test]
fn an_echo_is_no_answer() {
    let point = "table = \"holding\", address = 500, write = true, type = \"int\"";
    let blind = format!("{point}, verify = false");
    let points = [("x", point), ("blind", &blind), ("a", "table = \"holding\", address = 0")];
    let faults = Faults { echo: true, ..Faults::default() };
    let keys = "bus = \"line\"\nunit = 1\nevery = \"100ms\"";
    let site = site(&[1], faults.clone(), "timeout = \"200ms\"", &device("m", keys, &points));
    site.observer.wait_json("sluicegate/g/m/a", "value", 1121);
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    for point in ["m/x", "m/blind"] {
        let said = site.set(point, "7");
        assert_eq!(said["outcome"], "done", "{said}");
    }
    // The slave acts, and its answer is lost: what comes back is the gateway's own word.
    site.line.set(Faults { deaf_to_writes: true, ..faults });
    let said = site.set("m/blind", "8");
    assert_eq!(said["outcome"], "unknown", "{said}");
}

#[test]
fn a_slave_that_can_only_be_written_takes_commands_after_a_lost_answer() {
    let point = "table = \"holding\", address = 500, write = true, type = \"int\", verify = false";
    let keys = "bus = \"line\"\nunit = 1";
    let site = site(&[1], Faults::default(), "timeout = \"100ms\"", &device("m", keys, &[("x", point)]));
    site.observer.wait_payload("sluicegate/g/m/status", "online");
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    // It answers no question, and its answer to one command is lost.
    let ignored = (0..1000).collect();
    site.line.set(Faults { deaf_to_writes: true, ignored, ..Faults::default() });
    assert_eq!(site.set("m/x", "1")["outcome"], "unknown");
    site.line.set(Faults { ignored: (0..1000).collect(), ..Faults::default() });
    let said = site.set("m/x", "2");
    assert_eq!(said["outcome"], "done", "{said}");
    let record = site.line.record();
    let questions = record.iter().filter(|carried| carried.is_request && !carried.is_write()).count();
    assert!(questions <= 1, "{questions}: one finds out whether the line echoes");
}

#[test]
fn a_command_takes_no_answer_to_the_one_before() {
    // Its answer names the register, and not what was written.
    let point = "table = \"holding\", address = 500, write = true, type = \"int\", function = 16, verify = false";
    let keys = "bus = \"line\"\nunit = 1\nevery = \"1h\"";
    let points = [("x", point), ("a", "table = \"holding\", address = 0")];
    let late = Faults { late_writes: Some(Duration::from_millis(900)), ..Faults::default() };
    let site = site(&[1], Faults::default(), "timeout = \"600ms\"", &device("m", keys, &points));
    site.observer.wait_json("sluicegate/g/m/a", "value", 1121);
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    site.line.set(late);
    for id in ["a", "b"] {
        publish(site.broker.port, "sluicegate/g/m/x/set", &format!("{{\"value\":7,\"id\":\"{id}\"}}"));
        until("it to be written", || !site.line.writes().is_empty());
        // It hears nothing from here on, but what it says of the first is still on its way.
        site.line.set(Faults { dead: BTreeSet::from([1]), ..Faults::default() });
    }
    let outcome = |id: &str| {
        let is_outcome = |topic: &str| topic == "sluicegate/g/m/x/outcome";
        site.observer.wait("the outcome", |heard| is_outcome(&heard.topic) && heard.json()["id"] == id).json()
    };
    assert_eq!(outcome("a")["outcome"], "unknown");
    let said = outcome("b");
    assert_eq!(said["outcome"], "failed", "nobody was told: {said}");
    assert_eq!(site.line.writes().len(), 1);
}

#[test]
fn a_lost_answer_puts_no_slave_offline_that_ignores_what_it_has_not() {
    // Nothing behind its last register is answered, not even by an exception: one block, two, and one that is long.
    let (a, b) = ("table = \"holding\", address = 0", "table = \"holding\", address = 20");
    let long = "table = \"holding\", address = 196, encoding = \"f64\"";
    for points in [vec![("a", a)], vec![("a", a), ("long", long)]] {
        let has: BTreeSet<u16> = [0, 20, 196, 197, 198, 199].into();
        let ignored: BTreeSet<u16> = (0..1000).filter(|register| !has.contains(register)).collect();
        let keys = "bus = \"line\"\nunit = 1\nevery = \"20ms\"";
        let faults = Faults { lost: Some(4), ignored: ignored.clone(), ..Faults::default() };
        let site = site(&[1], faults, "timeout = \"100ms\"", &device("m", keys, &points));
        let lost = || site.line.record().iter().filter(|carried| carried.fate == "lost").count();
        until("20 lost answers", || lost() >= 20);
        assert!(!site.agent.log().contains("device m offline"), "{points:?}: {}", site.agent.log());
        assert!(site.values("m/a").iter().all(|value| *value == 1121));
    }
    // Of two that differ in nothing but their address, one may have to wait, and none is taken for the other.
    let ignored = (0..1000).filter(|register| ![0, 20].contains(register)).collect();
    let faults = Faults { lost: Some(7), ignored, ..Faults::default() };
    let keys = "bus = \"line\"\nunit = 1\nevery = \"20ms\"";
    let site = site(&[1], faults, "timeout = \"100ms\"", &device("m", keys, &[("a", a), ("b", b)]));
    until("readings of both", || site.values("m/a").len() > 20 && site.values("m/b").len() > 20);
    assert!(site.values("m/a").iter().all(|value| *value == 1121));
    assert!(site.values("m/b").iter().all(|value| *value == 2232));
}

#[test]
fn a_slave_that_never_answered_a_whole_question_is_asked_for_its_points() {
    let points = [("bad", "table = \"holding\", address = 0"), ("b", "table = \"holding\", address = 4")];
    let faults = Faults { ignored: BTreeSet::from([0]), ..Faults::default() };
    let keys = "bus = \"line\"\nunit = 1\nevery = \"50ms\"";
    let site = site(&[1], faults, "timeout = \"100ms\"", &device("m", keys, &points));
    until("what it has to be read", || site.values("m/b").len() > 20);
    site.observer.wait_json("sluicegate/g/m/bad", "quality", "bad");
    site.observer.wait_payload("sluicegate/g/m/status", "online");
}

#[test]
fn a_late_exception_is_not_taken_for_the_answer_behind_it() {
    // The question behind the short one has an answer of just its length.
    let points = [
        ("a", "table = \"holding\", address = 0"),
        ("b", "table = \"holding\", address = 20"),
        ("c", "table = \"holding\", address = 132, encoding = \"u32\""),
    ];
    let keys = "bus = \"line\"\nunit = 1\nevery = \"20ms\"";
    let faults = Faults { late_refusals: Some(Duration::from_millis(350)), ..Faults::default() };
    let site = site(&[1], faults, "timeout = \"200ms\"", &device("m", keys, &points));
    until("each to be read", || ["m/a", "m/b", "m/c"].iter().all(|point| !site.values(point).is_empty()));
    for (round, point) in (1..=21).zip(["m/a", "m/b", "m/c"].iter().cycle()) {
        let seen = site.values(point).len();
        until("readings", || site.values(point).len() > seen + 2);
        site.line.refuse(1);
        let count = || site.line.record().iter().filter(|carried| carried.fate == "late").count();
        until("a late exception", || count() >= round);
    }
    let seen = site.values("m/c").len();
    until("readings behind the last one", || site.values("m/c").len() > seen + 2);
    for (point, value) in [("m/a", 1121u32), ("m/b", 2232), ("m/c", 0xdead_beef)] {
        let values = site.values(point);
        assert!(values.iter().all(|found| *found == value), "{point}: {values:?}");
    }
}

#[test]
fn a_slave_that_refuses_everything_is_not_doubted_for_ever() {
    let keys = "bus = \"line\"\nunit = 1\nevery = \"20ms\"";
    let point = "table = \"input\", address = 300, encoding = \"u32\"";
    let site = site(&[1], Faults::default(), "timeout = \"2s\"", &device("m", keys, &[("gone", point)]));
    site.observer.wait_json("sluicegate/g/m/gone", "quality", "bad");
    let count = |fate: &str| site.line.record().iter().filter(|carried| carried.fate == fate).count();
    site.line.set(Faults { lost: Some(1), ..Faults::default() });
    until("a lost answer", || count("lost") > 0);
    site.line.set(Faults::default());
    // While a refusal may be a late one, the end of the time is waited for.
    let before = count("whole");
    until("many questions", || count("whole") > before + 200);
}

#[test]
fn the_first_word_on_a_line_that_echoes_is_no_answer_either() {
    let point = "table = \"holding\", address = 500, write = true, type = \"int\", verify = false";
    let faults = Faults { echo: true, deaf_to_writes: true, ..Faults::default() };
    let keys = "bus = \"line\"\nunit = 1";
    let site = site(&[1], faults.clone(), "timeout = \"200ms\"", &device("m", keys, &[("x", point)]));
    site.observer.wait_payload("sluicegate/g/m/status", "online");
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    let said = site.set("m/x", "7");
    assert_eq!(said["outcome"], "unknown", "{said}");
    site.line.set(Faults { deaf_to_writes: false, ..faults });
    let said = site.set("m/x", "8");
    assert_eq!(said["outcome"], "done", "{said}");
}

#[test]
fn nothing_is_said_again_once_the_outcome_is_told() {
    // The line rests longer behind a lost answer than the command has time.
    let again =
        "table = \"holding\", address = 506, write = true, type = \"int\", retry_write = true, timeout = \"1s\"";
    let keys = "bus = \"line\"\nunit = 1\nevery = \"1h\"";
    let points = [("again", again), ("a", "table = \"holding\", address = 0")];
    let bus = "timeout = \"200ms\"\nturnaround = \"2s\"";
    let site = site(&[1], Faults::default(), bus, &device("m", keys, &points));
    site.observer.wait_json("sluicegate/g/m/a", "value", 1121);
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    site.line.set(Faults { deaf_to_writes: true, ..Faults::default() });
    let said = site.set("m/again", "7");
    assert_eq!(said["outcome"], "unknown", "{said}");
    let told = Instant::now();
    site.line.set(Faults::default());
    let said = site.set("m/again", "8");
    assert_eq!(said["outcome"], "done", "{said}");
    let record = site.line.record();
    let writes = record.iter().filter(|carried| carried.is_request && carried.is_write());
    let late = writes.filter(|carried| carried.at > told && carried.bytes[5] == 7).count();
    assert_eq!(late, 0, "7 was said again when its outcome was told");
}

/// A slave by TCP that says each third answer in two parts, the second one when the asker has given up. Its port, and how
/// many connections it had.
fn slow_slave() -> (u16, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let mut question = [0; 12];
            let mut count = 0;
            while stream.read_exact(&mut question).is_ok() {
                let [t0, t1, _, _, _, _, unit, function, high, low, ..] = question;
                let answer = [t0, t1, 0, 0, 0, 5, unit, function, 2, high, low];
                count += 1;
                let (first, rest) = answer.split_at(if count % 3 == 0 { 4 + count % 5 } else { 0 });
                let is_said = stream.write_all(first).is_ok() && {
                    if !first.is_empty() {
                        take_time(Duration::from_millis(300));
                    }
                    stream.write_all(rest).is_ok()
                };
                if !is_said {
                    break;
                }
            }
        }
    });
    (port, connections)
}

#[test]
fn the_rest_of_an_answer_that_was_given_up_is_passed_over() {
    let (port, connections) = slow_slave();
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let points = [("a", "table = \"holding\", address = 7"), ("b", "table = \"holding\", address = 77")];
    let keys = format!("bus = {{ address = \"127.0.0.1:{port}\", timeout = \"200ms\" }}\nunit = 1\nevery = \"20ms\"");
    let _agent = Agent::start(folder.path(), &config(broker.port, &device("m", &keys, &points)));
    let values = |point: &str| {
        let topic = format!("sluicegate/g/m/{point}");
        let heard = observer.all().into_iter().filter(|heard| heard.topic == topic).map(|heard| heard.json());
        heard.filter(|json| json["quality"] == "good").map(|json| json["value"].clone()).collect::<Vec<_>>()
    };
    until("many readings", || values("a").len() > 30 && values("b").len() > 30);
    assert!(values("a").iter().all(|value| *value == 7) && values("b").iter().all(|value| *value == 77));
    assert_eq!(connections.load(Ordering::Relaxed), 1, "the connection was good all the time");
}
