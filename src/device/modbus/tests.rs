//! What is said of a wrong config. What the driver does on a bus, `tests/it/modbus` shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(feature = "desk")]
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::device::testing::{Rig, faults};
use crate::task::Owned;

fn check(device: &str, point: &str, expected: &[&str]) {
    let bus = if device.contains("bus") { "" } else { "bus = { port = \"/dev/ttyUSB0\" }\nunit = 7\n" };
    let text = format!("[device.m]\nkind = \"modbus\"\n{bus}{device}\n[device.m.point.x]\n{point}\n");
    assert_eq!(faults(&text), expected, "{text}");
}

const POINT: &str = "table = \"holding\"\naddress = 0\ntype = \"int\"";

#[test]
fn a_wrong_bus_is_told_at_its_key() {
    for (bus, expected) in [
        ("{ }", "bus.port: this key is missing: expected the path of a port, or `address`"),
        ("{ port = \"/dev/a\", address = \"h:502\" }", "bus.address: expected either `port` or `address`, not both"),
        ("{ address = \"h\" }", "bus.address: `h`: expected host and port, such as \"10.0.0.5:502\""),
        ("{ address = \":502\" }", "bus.address: `:502`: expected host and port, such as \"10.0.0.5:502\""),
        ("{ port = \"/dev/a\", framing = \"tcp\" }", "bus.framing: a serial line carries RTU: remove it"),
        ("{ port = \"/dev/a\", baud_rate = 0 }", "bus.baud_rate: expected bits per second, such as 9600"),
        ("{ port = \"/dev/a\", timeout = \"1m\" }", "bus.timeout: `1m`: expected a duration from \"10ms\" to \"10s\""),
        ("{ port = \"/dev/a\", turnaround = \"6s\" }", "bus.turnaround: `6s`: expected at most 5s"),
    ] {
        check(&format!("bus = {bus}\nunit = 7"), POINT, &[expected]);
    }
    check("bus = { port = \"/dev/a\" }\nunit = 248", POINT, &["unit: `248`: expected 1 to 247, or 0 for all slaves"]);
    check("bus = { address = \"h:502\" }\nunit = 255", POINT, &[]);
}

#[test]
fn a_wrong_point_is_told_at_its_key() {
    let input = |more: &str| format!("table = \"input\"\naddress = 0\n{more}");
    let holding = |more: &str| format!("{POINT}\nwrite = true\n{more}");
    for (point, expected) in [
        (input(""), &[][..]),
        (
            input("encoding = \"string\""),
            &["point.x.length: a string needs its number of registers: expected 1 to 125"],
        ),
        (input("length = 2"), &["point.x.length: only a string has it: remove it"]),
        (input("bits = \"16\""), &["point.x.bits: expected bits 0 to 15"]),
        (
            input("encoding = \"f32\"\nbits = \"1\""),
            &["point.x.bits: bits are taken out of a number without sign: expected encoding u16, u32 or u64 beside it"],
        ),
        (
            input("write = true\ntype = \"int\""),
            &["point.x.write: inputs can only be read: remove it, or expected table holding or coil"],
        ),
        (input("function = 6"), &["point.x.function: only a point with `write = true` has it"]),
        (
            "table = \"input\"\naddress = 65535\nencoding = \"u32\"".to_owned(),
            &["point.x.address: it ends behind the last address, which is 65535"],
        ),
        (
            "table = \"coil\"\naddress = 0\nencoding = \"u16\"".to_owned(),
            &["point.x.encoding: a coil or a discrete input is one bit: remove it"],
        ),
        (holding("function = 16"), &[]),
        (holding("function = 6\nencoding = \"u32\""), &["point.x.function: 6 writes one register: expected 16"]),
        (holding("function = 5"), &["point.x.function: expected 6 or 16, which write registers"]),
        (
            holding("bits = \"1\""),
            &["point.x.bits: a part of a register can't be written alone: remove it, or `write`"],
        ),
        (
            "table = \"holding\"\naddress = 0\nwrite = true".to_owned(),
            &["point.x.type: a writable point needs a `type`: expected int, or float where it has a scale"],
        ),
    ] {
        check("", &point, expected);
    }
    let all = "bus = { port = \"/dev/a\" }\nunit = 0";
    check(all, POINT, &["point.x.write: nobody answers for all slaves of a line: expected true"]);
    check(all, &holding(""), &[]);
}

/// Takes one connection after the other, and says of every register that it is 7.
async fn serve(listener: TcpListener, opened: Arc<AtomicU32>) {
    loop {
        let mut stream = listener.accept().await.unwrap().0;
        opened.fetch_add(1, Ordering::Relaxed);
        let mut question = [0; 12];
        while stream.read_exact(&mut question).await.is_ok() {
            let [high, low, _, _, _, _, unit, function, ..] = question;
            stream.write_all(&[high, low, 0, 0, 0, 5, unit, function, 2, 0, 7]).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_recording_leaves_the_bus_of_an_only_device_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, opened) = (listener.local_addr().unwrap(), Arc::new(AtomicU32::new(0)));
    let _server = Owned::spawn(serve(listener, opened.clone()));
    let mut rig = Rig::start(&format!(
        "[device.m]\nkind = \"modbus\"\nbus = {{ address = \"{address}\" }}\nunit = 7\nevery = \"10ms\"\n[device.m.point.x]\n{POINT}\n"
    ));
    rig.online().await;
    let mut recording = rig.record();
    while !recording.next().await.unwrap().contains("\"in\"") {}
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    rig.stop().await;
}

#[cfg(feature = "desk")]
proptest! {
    /// What is no frame is told, in whatever it stands.
    #[test]
    fn all_bytes_are_accounted_for(before: Vec<u8>, frames in prop::collection::vec(0u8..5, 0..4), behind: Vec<u8>) {
        use crate::device::Finding;
        use super::frame;
        for bus in ["port = \"/dev/ttyUSB0\"", "address = \"h:502\""] {
            let text = format!("[device.m]\nkind = \"modbus\"\nbus = {{ {bus} }}\nunit = 7\n[device.m.point.x]\n{POINT}\n");
            let driver = super::build(crate::device::testing::parts(&text).spec).ok().unwrap().driver;
            let pdus = [&[3, 0, 0, 0, 1][..], &[3, 2, 0, 1], &[0x83, 2], &[6, 0, 0, 0, 1], &[16, 0, 0, 0, 1, 2, 0, 1]];
            let framed = |place: &u8| match pdus[usize::from(*place)] {
                pdu if bus.starts_with("port") => frame::rtu(7, pdu),
                pdu => frame::tcp(1, 7, pdu),
            };
            let whole: Vec<u8> = frames.iter().flat_map(framed).collect();
            let found = driver.examine(&whole).unwrap();
            let starts = found.iter().filter(|finding| matches!(finding, Finding::Step(text) if text.starts_with("frame: ")));
            prop_assert_eq!(starts.count(), frames.len());
            // Whatever is around them: no panic, and something is said of it.
            let bytes = [&before[..], &whole, &behind].concat();
            prop_assert!(bytes.is_empty() || !driver.examine(&bytes).unwrap().is_empty());
        }
    }
}
