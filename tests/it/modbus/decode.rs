//! `sluicegate decode` of what libmodbus said, as it went over the line, and of what is wrong with it.

use super::{device, site};
use crate::support::{Agent, Faults};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn frames_of_a_slave_are_shown_step_by_step() {
    let points = [
        ("power", "table = \"holding\", address = 196, encoding = \"f32\", unit = \"W\""),
        ("count", "table = \"holding\", address = 132, encoding = \"u32\""),
        ("digits", "table = \"holding\", address = 100, encoding = \"bcd16\", every = \"1m\""),
        ("on", "table = \"coil\", address = 3"),
        ("gone", "table = \"input\", address = 300"),
        ("wanted", "table = \"holding\", address = 500, write = true, type = \"float\", scale = 0.1"),
    ];
    let tcp = device("t", "bus = { address = \"h:502\" }\nunit = 7", &points[..1]);
    let config = device("m", "bus = \"line\"\nunit = 1\nevery = \"100ms\"\ngap = 0", &points) + &tcp;
    let site = site(&[1], Faults::default(), "", &config);
    site.observer.wait_json("sluicegate/g/m/on", "value", true);
    site.observer.wait_json("sluicegate/g/m/gone", "quality", "bad");
    site.observer.wait_json("sluicegate/g/m/digits", "quality", "bad");
    site.observer.wait_json("sluicegate/g/m/count", "value", 0xdead_beef_u32);
    site.observer.wait_json("sluicegate/g/m/power", "value", 230.1);
    site.observer.wait_json("sluicegate/g/m/wanted", "value", 0.0);
    site.observer.wait_json("sluicegate/g/info", "session", 1);
    assert_eq!(site.set("m/wanted", "21.5")["outcome"], "done");
    let record = site.line.record();
    let pair = |begin: &[u8]| {
        let place = record.iter().position(|carried| carried.is_request && carried.bytes[1..].starts_with(begin));
        let place = place.unwrap_or_else(|| panic!("no question {begin:02x?}"));
        assert!(!record[place + 1].is_request);
        (record[place].bytes.clone(), record[place + 1].bytes.clone())
    };
    let (asked, power) = pair(&[3, 0, 196]);
    let (_, digits) = pair(&[3, 0, 100]);
    let (_, coil) = pair(&[1]);
    let (wants, gone) = pair(&[4]);
    let (sets, has_set) = pair(&[6]);
    let all = hex(&[&asked[..], &power].concat());
    let flipped = hex(&[&asked[..], &power[..4], &[power[4] ^ 1], &power[5..]].concat());
    let tcp = format!("00 01 00 00 00 07 {}", hex(&[&[7], &power[1..power.len() - 2]].concat()));
    let cases: &[(&str, String, i32, &[&str])] = &[
        (
            "m",
            all.clone(),
            0,
            &[
                "frame: bytes 0 to 7, 8 bytes: 01 03 00 c4 00 02",
                ": right",
                "question: function 3: 2 from holding register 196 on",
                "answer: function 3: 4 bytes of data",
                "power: holding register 196: 43 66 19 9a: 230.1 -> 230.1 W",
            ],
        ),
        // Alone it may answer two questions.
        (
            "m",
            hex(&power),
            0,
            &["if it answers for 2 from holding register 132 on:", "count: ", "-> 1130764698", "power: ", "-> 230.1 W"],
        ),
        (
            "m",
            flipped,
            69,
            &["question: ", "failed: frame: bytes 8 to 16: ", "check: CRC-16/MODBUS of 7 bytes: ", ": wrong"],
        ),
        ("m", format!("00 ff {all}"), 69, &["failed: bytes 0 to 1: no frame begins there: 00 ff", "-> 230.1 W"]),
        ("m", hex(&power[..6]), 69, &["failed: frame: bytes 0 to 5: ", "its end is missing"]),
        ("m", hex(&digits), 69, &["failed: digits: holding register 100: be ef: it is no bcd16"]),
        ("m", hex(&coil), 0, &["on: coil 3: 1: true -> true"]),
        (
            "m",
            hex(&[wants, gone].concat()),
            69,
            &[
                "question: function 4: 1 from input register 300 on",
                "failed: function 4 is refused: illegal data address (exception 2)",
            ],
        ),
        (
            "m",
            hex(&[sets, has_set].concat()),
            0,
            &["write: function 6: ", "wanted: holding register 500: 00 d7: 215 -> 21.5"],
        ),
        ("t", tcp.clone(), 0, &["power: holding register 196: 43 66 19 9a: 230.1 -> 230.1 W"]),
        ("t", tcp.replace("07 07", "07 08"), 69, &["failed: unit: 8: this device is 7"]),
        ("t", all, 69, &["failed: frame: ", "expected transaction (2 bytes), 00 00, length (2)"]),
    ];
    for (device, bytes, status, expected) in cases {
        let output = Agent::ask(site.folder.path(), &["decode", device, bytes]);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(*status), "{device} {bytes}: {text}");
        for part in *expected {
            assert!(text.contains(part), "{device} {bytes}: no `{part}` in\n{text}");
        }
    }
}
