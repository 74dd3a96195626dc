use super::line::{FORMAT, read, sum};
use super::*;
use crate::model::{BootId, Limit};

fn head() -> Head {
    Head {
        device: DeviceName::new("gps").unwrap(),
        kind: "serial".to_owned(),
        version: "1 \"x\"".to_owned(),
        start: Timestamp {
            uptime: Duration::from_micros(12_345_678),
            wall: Duration::from_millis(1_795_341_600_123),
            synced: true,
            boot: BootId::UNKNOWN,
        },
    }
}

fn events() -> Vec<Event> {
    let point = |name| PointName::new(name).unwrap();
    let seed = Seed {
        held: b"$GP".to_vec(),
        skip: Some(true),
        owed: vec![vec![3, 0, 0, 0, 2], vec![6, 0, 1, 0, 7]],
        known: vec![vec![3, 0, 0, 0, 1], vec![4, 0, 7, 0, 2]],
        echoes: Some(true),
        places: vec![(point("a"), Limit::High), (point("b"), Limit::Normal)],
    };
    let values = vec![
        (point("a"), Value::Float(0.1 + 0.2)),
        (point("b"), Value::text("x\"\n")),
        (point("c"), Value::Int(i64::MIN)),
    ];
    let all = vec![
        What::Start(seed),
        What::Start(Seed::default()),
        What::In(vec![0, 0x0a, 0xff]),
        What::Out(vec![1]),
        What::Baud(300),
        What::Write(values, Duration::from_millis(1500)),
        What::Lost("a \"b\"".to_owned()),
        What::Report(Report::Value(point("a"), Value::Bool(true))),
        What::Report(Report::Stale(point("a"), Value::Float(f64::INFINITY))),
        What::Report(Report::Output(point("a"), Value::text(""))),
        What::Report(Report::Bad(point("a"))),
        What::Report(Report::Online),
        What::Report(Report::Offline("why".to_owned())),
        What::Missed(3),
        What::End(0x0123_4567),
    ];
    let dated = |what: &What| matches!(what, What::In(_)).then(|| Duration::from_millis(1_795_341_601_007));
    let event = |(t, what): (u64, What)| Event { t: Duration::from_micros(t * 1_000_001), date: dated(&what), what };
    (0..).zip(all).map(event).collect()
}

fn file() -> Vec<String> {
    std::iter::once(head().line()).chain(events().iter().map(Event::line)).collect()
}

#[test]
fn a_recording_is_read_as_it_was_written() {
    assert_eq!(read(&file().join("\n")), Ok((head(), events())));
    let undated = Head { start: Timestamp { wall: Duration::ZERO, synced: false, ..head().start }, ..head() };
    let start = events().remove(1);
    assert_eq!(read(&format!("{}\n{}\n\n", undated.line(), start.line())), Ok((undated, vec![start])));
    assert_eq!(sum(["a", "b"].into_iter()), crc32fast::hash(b"a\nb\n"));
}

#[test]
fn what_is_damaged_is_told_with_its_line() {
    for (number, from, to, expected) in [
        (1, "recording", "letter", "line 1: it is no recording"),
        (1, "{", "", "line 1: it is no recording"),
        (1, "\"format\":1", "\"format\":2", "line 1: it has format 2: this program reads format 1"),
        (1, "gps", "g/ps", "line 1: "),
        (1, "date\":\"2026", "date\":\"x026", "is not a time"),
        (1, "date\":\"2026", "date\":\"9999", "line 1: `date` is no date of a recording"),
        (2, "\"start\"", "\"in\"", "line 2: expected `in`, a text"),
        (2, "high", "up", "line 2: `up` is no place to limits"),
        (4, "000aff", "000af", "line 4: `in` is not bytes in hexadecimal digits"),
        (4, "000aff", "000afg", "line 4: `in` is not bytes in hexadecimal digits"),
        (4, "}", "", "line 4: it is not JSON"),
        (4, "\"t\":", "\"t\":-", "line 4: expected `t`, a number of seconds"),
        (5, "\"out\"", "\"up\"", "line 5: `up` is nothing that is recorded"),
        (5, "\"out\"", "\"in\":\"00\",\"out\"", "line 5: expected one thing"),
        (6, "300", "-300", "line 6: expected `baud`, a whole number"),
        (7, "\"int\"", "\"u64\"", "line 7: `u64` is no type"),
        (7, "-9223372036854775808", "x", "line 7: `int` is no value of its type"),
        (16, "01234567", "x", "line 16: `end` is not the CRC-32"),
    ] {
        let mut lines = file();
        let line = &mut lines[number - 1];
        assert!(line.contains(from), "{line}: {from}");
        *line = line.replacen(from, to, 1);
        let error = read(&lines.join("\n")).unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(read("").unwrap_err().contains("line 1: it is empty"));
    assert!(read(&head().line()).unwrap_err().contains("line 2: expected the driver's start"));
    let end = events().pop().unwrap().line();
    let more = read(&[file().join("\n"), end].join("\n")).unwrap_err();
    assert!(more.contains("line 17: there is more behind the end"), "{more}");
    assert_eq!(FORMAT, 1);
}

fn threaded() -> (Tapes, Tape) {
    let tapes = Tapes::default();
    let tape = tapes.thread(&DeviceName::new("gps").unwrap(), "serial", true);
    (tapes, tape)
}

#[tokio::test]
async fn a_recording_begins_with_a_life_and_has_its_sum_at_the_end() {
    let (tapes, tape) = threaded();
    assert!(tape.board(WANTED).is_none());
    let mut recording = tapes.record("gps").unwrap();
    assert!(tapes.record("gps").unwrap_err().contains("already"));
    assert!(tapes.record("other").unwrap_err().contains("no device `other`"));
    tape.wanted().await;
    tape.heard(b"before");
    tape.begin(Seed { held: b"x".to_vec(), ..Seed::default() }).await;
    let at = tape.heard(b"after");
    tape.said(b"out");
    let mut lines = vec![recording.next().await.unwrap(), recording.next().await.unwrap()];
    lines.extend(recording.finish());
    let (head, events) = read(&lines.join("\n")).unwrap();
    assert_eq!((head.device.as_str(), head.kind.as_str()), ("gps", "serial"));
    let [start, came, sent, end] = &events[..] else { panic!("{events:?}") };
    assert!(matches!(&start.what, What::Start(seed) if seed.held == b"x"));
    assert_eq!((&came.what, head.start.uptime + came.t), (&What::In(b"after".to_vec()), at.uptime));
    assert_eq!(sent.what, What::Out(b"out".to_vec()));
    let (_, before) = lines.split_last().unwrap();
    assert_eq!(end.what, What::End(sum(before.iter().map(String::as_str))));
    // Nobody records any more, and another one may.
    tape.heard(b"later");
    drop(tapes.record("gps").unwrap());
    assert!(tape.board(WANTED).is_none());
}

#[tokio::test]
async fn what_is_not_taken_in_time_is_missed_and_said_to_be() {
    let (tapes, tape) = threaded();
    let mut recording = tapes.record("gps").unwrap();
    tape.begin(Seed::default()).await;
    // Head and start have their places.
    for n in 0..EVENTS {
        tape.heard(&[u8::try_from(n % 256).unwrap()]);
    }
    for _ in 0..3 {
        recording.next().await.unwrap();
    }
    tape.said(b"again");
    let (mut lines, mut missed) = (recording.finish(), 0);
    drop(lines.pop());
    for line in &lines {
        if let What::Missed(count) = Event::read(line).unwrap().what {
            missed += count;
        }
    }
    assert_eq!(missed, 2);
    assert!(lines.last().unwrap().contains("out"), "{lines:?}");
}

#[tokio::test]
async fn a_stopped_device_ends_its_recording() {
    let (tapes, tape) = threaded();
    let mut recording = tapes.record("gps").unwrap();
    tape.begin(Seed::default()).await;
    tape.stop();
    assert!(recording.next().await.is_some() && recording.next().await.is_some());
    assert_eq!(recording.next().await, None);
    assert!(recording.finish().pop().unwrap().contains("end"));
}

#[tokio::test]
async fn a_recording_that_never_began_has_nothing() {
    let (tapes, _tape) = threaded();
    assert!(tapes.record("gps").unwrap().finish().is_empty());
}

#[tokio::test]
async fn a_device_that_has_ended_is_not_waited_for() {
    let (tapes, tape) = threaded();
    // Somebody waits for its next life when it ends, and another one comes later.
    let mut recording = tapes.record("gps").unwrap();
    tape.stop();
    assert_eq!(recording.next().await, None);
    assert!(recording.finish().is_empty());
    assert!(tapes.record("gps").unwrap_err().contains("has ended"));
    // A new driver of this name can be recorded, one that was removed is gone.
    drop(tapes.thread(&DeviceName::new("gps").unwrap(), "serial", true));
    drop(tapes.record("gps").unwrap());
    tapes.forget(&DeviceName::new("gps").unwrap());
    assert!(tapes.record("gps").unwrap_err().contains("no device `gps`"));
}
