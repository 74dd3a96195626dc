//! The examples of serial protocols in `config/examples`, each with a recorded capture in `tests/samples/serial`: played to
//! the driver over a terminal, and mutated ten thousand times.
//!
//! A line of a capture is what is sent (`>`), what comes back (`<`), as text in quotes or as hexadecimal digits, or a reading
//! (`=`) that is made of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::frame::Frame;
use super::tests::{Line, device_of};
use super::{Serial, make};
use crate::device::decode::Slot;
use crate::device::testing::{Rig, parts};
use crate::model::{Value, time};

/// An example: its config, its capture, and an independent judge of its frames.
struct Example {
    name: &'static str,
    config: &'static str,
    capture: &'static str,
    judge: fn(&[u8]) -> bool,
    /// Its frames are found whatever surrounds them.
    finds_its_way: bool,
}

macro_rules! example {
    ($name:literal, $judge:expr, $finds:literal) => {
        Example {
            name: $name,
            config: include_str!(concat!("../../../config/examples/serial-", $name, ".toml")),
            capture: include_str!(concat!("../../../tests/samples/serial/", $name, ".txt")),
            judge: $judge,
            finds_its_way: $finds,
        }
    };
}

const EXAMPLES: [Example; 6] = [
    example!("nmea", is_nmea, true),
    example!("dlt645", is_dlt645, true),
    example!("pms5003", is_pms5003, true),
    example!("mhz19", is_mhz19, true),
    example!("vedirect", is_vedirect, false),
    example!("iec62056", is_iec62056, true),
];

/// `$`, what is summed up, `*`, two digits, and the end of the line.
fn is_nmea(frame: &[u8]) -> bool {
    let Some(inner) = frame.strip_prefix(b"$").and_then(|rest| rest.strip_suffix(b"\r\n")) else { return false };
    let Some((content, digits)) = inner.len().checked_sub(2).map(|at| inner.split_at(at)) else { return false };
    let Some(content) = content.get(..content.len().saturating_sub(1)) else { return false };
    let mut sum = 0;
    for byte in content {
        sum ^= byte;
    }
    let mut written = String::new();
    write!(written, "{sum:02x}").unwrap();
    digits.to_ascii_lowercase() == written.as_bytes()
}

fn is_dlt645(frame: &[u8]) -> bool {
    let length = frame.len();
    let total: u32 = frame.iter().take(length - 2).map(|byte| u32::from(*byte)).sum();
    frame[0] == 0x68
        && length == usize::from(frame[9]) + 12
        && frame[length - 1] == 0x16
        && total % 256 == u32::from(frame[length - 2])
}

fn is_pms5003(frame: &[u8]) -> bool {
    let length = frame.len();
    let total: u32 = frame.iter().take(length - 2).map(|byte| u32::from(*byte)).sum();
    frame.starts_with(&[0x42, 0x4d])
        && length == usize::from(frame[2]) * 256 + usize::from(frame[3]) + 4
        && total == u32::from(frame[length - 2]) * 256 + u32::from(frame[length - 1])
}

fn is_mhz19(frame: &[u8]) -> bool {
    let total: u32 = frame.iter().skip(1).map(|byte| u32::from(*byte)).sum();
    frame.len() == 9 && frame[0] == 0xff && total.is_multiple_of(256)
}

fn is_vedirect(frame: &[u8]) -> bool {
    let total: u32 = frame.iter().map(|byte| u32::from(*byte)).sum();
    total.is_multiple_of(256) && frame[..frame.len() - 1].ends_with(b"\r\nChecksum\t")
}

fn is_iec62056(frame: &[u8]) -> bool {
    let mut sum = 0;
    for byte in &frame[1..frame.len() - 1] {
        sum ^= byte;
    }
    frame[0] == 2 && frame[frame.len() - 2] == 3 && sum == frame[frame.len() - 1]
}

/// One line of a capture.
enum Step {
    Sent(Vec<u8>),
    Came(Vec<u8>),
    Reading(String, Value),
}

fn steps(capture: &str) -> Vec<Step> {
    let bytes = |text: &str| -> Vec<u8> {
        if text.starts_with('"') {
            return serde_json::from_str::<String>(text).unwrap().into_bytes();
        }
        text.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    };
    let lines = capture.lines().filter(|line| !line.starts_with('#'));
    let step = |line: &str| {
        let (kind, rest) = line.split_once(' ').unwrap();
        match kind {
            ">" => Step::Sent(bytes(rest)),
            "<" => Step::Came(bytes(rest)),
            _ => {
                let (point, value) = rest.split_once(' ').unwrap();
                Step::Reading(point.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::text(value)))
            }
        }
    };
    lines.map(step).collect()
}

/// All that came.
fn came(capture: &str) -> Vec<u8> {
    let came = steps(capture).into_iter().filter_map(|step| match step {
        Step::Came(bytes) => Some(bytes),
        _ => None,
    });
    came.flatten().collect()
}

fn serial(example: &Example) -> Serial {
    make(parts(example.config).spec).unwrap_or_else(|faults| panic!("{}: {faults:?}", example.name)).0
}

/// The frames in these bytes, with what each has for the points.
fn read(serial: &Serial, bytes: &[u8], mut each: impl FnMut(&[u8], &[Slot])) {
    let mut framer = serial.framer();
    let mut slots = vec![Slot::Absent; serial.readers.len()];
    // As a terminal gives them, and then the silence.
    for piece in bytes.chunks(64).chain([&[][..]]) {
        framer.push(piece, time::uptime());
        if piece.is_empty() {
            framer.give_up();
        }
        while let Some(frame) = framer.next(time::uptime()) {
            if let Frame::Whole(frame) = frame
                && serial.decode(frame, &mut slots).is_ok()
            {
                for (reader, slot) in serial.readers.iter().zip(&mut slots) {
                    if !reader.wants(frame, None) {
                        *slot = Slot::Absent;
                    }
                }
                each(frame, &slots);
            }
        }
    }
}

#[tokio::test]
async fn each_capture_becomes_its_readings() {
    for example in &EXAMPLES {
        let mut line = Line::new();
        let mut rig = Rig::start(&device_of(example.config, &line.name));
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        let mut readings = 0;
        for step in steps(example.capture) {
            match step {
                Step::Sent(bytes) => assert_eq!(line.hears(bytes.len()).await, bytes, "{}", example.name),
                Step::Came(bytes) => line.say(&bytes),
                Step::Reading(point, value) => {
                    expected.push((point, Some(value)));
                    readings += 1;
                }
            }
        }
        for _ in 0..readings {
            found.push(rig.value().await);
        }
        // Those of one frame come in the order of the points' names.
        let as_number = |(point, value): (String, Option<Value>)| match value {
            Some(Value::Int(number)) => (point, Value::Int(number).as_f64().map(Value::Float)),
            value => (point, value),
        };
        let expected: Vec<_> = expected.into_iter().map(as_number).collect();
        let mut found: Vec<_> = found.into_iter().map(as_number).collect();
        let mut sorted = expected.clone();
        sorted.sort_by_key(|reading| format!("{reading:?}"));
        found.sort_by_key(|reading| format!("{reading:?}"));
        assert_eq!(found, sorted, "{}", example.name);
        rig.stop().await;
    }
}

#[test]
fn mutated_captures_give_no_value_that_the_check_can_tell() {
    // A generator of Knuth's (MMIX): the same mutations in each run.
    let mut state = 9u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for example in &EXAMPLES {
        let serial = serial(example);
        let capture = came(example.capture);
        let (mut frames, mut values) = (BTreeSet::new(), BTreeSet::new());
        read(&serial, &capture, |frame, slots| {
            frames.insert(frame.to_vec());
            values.insert(format!("{slots:?}"));
        });
        let (mut unseen, mut accepted) = (0, 0);
        for _ in 0..10_000 {
            let mut bytes = capture.clone();
            for _ in 0..=random(4) {
                let place = random(bytes.len());
                match random(4) {
                    0 | 1 => bytes[place] ^= 1 << random(8),
                    2 => bytes.insert(place, u8::try_from(random(256)).unwrap()),
                    _ => drop(bytes.remove(place)),
                }
            }
            // And what it says next, untouched.
            bytes.extend_from_slice(&capture);
            let mut found = Vec::new();
            read(&serial, &bytes, |frame, slots| {
                assert!((example.judge)(frame), "{}: {:x?} was accepted", example.name, frame);
                accepted += 1;
                if frames.contains(frame) {
                    assert!(values.contains(&format!("{slots:?}")), "{}: {slots:?}", example.name);
                } else {
                    unseen += 1;
                }
                found.push(frame.to_vec());
            });
            // Each frame that is still there was found, unless a false one that the check can't tell hid it.
            let is_hidden = found.iter().any(|frame| !frames.contains(frame));
            for frame in &frames {
                let count = |of: &[u8]| of.windows(frame.len()).filter(|window| window == frame).count();
                let is_found = found.iter().filter(|other| *other == frame).count() >= count(&bytes);
                let is_right = is_found || is_hidden || !example.finds_its_way;
                assert!(is_right, "{}: {frame:x?} in {bytes:x?}", example.name);
            }
        }
        // The chance that so short a check can't tell is one in 256 for each mutated frame, and much less of 16 bits.
        assert!(unseen * 50 < accepted, "{}: {unseen} of {accepted}", example.name);
        assert!(accepted > 10_000, "{}: {accepted}", example.name);
    }
}
