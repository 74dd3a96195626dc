//! Wrong devices and points, each with all that is said of it.

use super::RIGHT;
use super::wrong::check;

/// Keys of a serial device.
const SERIAL: &[(&str, &[&str])] = &[
    ("baudrate = 19200", &["6:1: device.tank.baudrate: unknown key (did you mean `baud_rate`?)"]),
    (
        r#"baud_rate = "fast""#,
        &[r#"6:13: device.tank.baud_rate: expected a whole number from 0 to 4294967295, found "fast""#],
    ),
    ("baud_rate = 0", &["6:13: device.tank.baud_rate: expected bits per second, such as 9600"]),
    ("data_bits = 9", &["6:13: device.tank.data_bits: expected 5, 6, 7 or 8, not 9"]),
    (r#"parity = "mark""#, &[r#"6:10: device.tank.parity: expected "none", "odd" or "even", found "mark""#]),
    ("stop_bits = 3", &["6:13: device.tank.stop_bits: expected 1 or 2, not 3"]),
    (r#"frame = "line""#, &[r#"6:9: device.tank.frame: expected a table, found "line""#]),
    (
        r#"frame = { kind = "lines" }"#,
        &[
            r#"6:18: device.tank.frame.kind: expected "line", "delimiter", "length", "fixed", "between", "idle", "cobs" or "slip", found "lines" (did you mean `line`?)"#,
        ],
    ),
    (
        r#"frame = { kind = "line", size = 9 }"#,
        &[r#"6:33: device.tank.frame.size: a frame of kind "line" has no such key, but max"#],
    ),
    (
        r#"frame = { kind = "length", at = 2, as = "u8" }"#,
        &[r#"6:1: device.tank.frame: a frame of kind "length" needs `start`"#],
    ),
    (
        r#"frame = { kind = "length", start = "S", at = 2, as = "u9" }"#,
        &[
            r#"6:54: device.tank.frame.as: `u9` is no form of numbers: expected one such as "u8", "u16", "s32", "f32" or "bcd32""#,
        ],
    ),
    (
        r#"check = { kind = "crc", name = "CRC-17" }"#,
        &[
            r#"6:32: device.tank.check.name: expected the `name` of a CRC of the catalogue, such as "CRC-16/MODBUS" or "CRC-8/SMBUS""#,
        ],
    ),
    (
        r#"poll = [{ send = "A" }]"#,
        &[r#"6:9: device.tank.poll[0]: expected `every`: how often it is asked, such as "5s""#],
    ),
    (
        r#"poll = [{ send = "{check}", every = "1s" }]"#,
        &["6:18: device.tank.poll[0].send: `{check}` needs the device's `check`, which says how it is made"],
    ),
    (
        r#"poll = [{ send = "{value}", every = "1s" }]"#,
        &["6:18: device.tank.poll[0].send: a poll has no value: expected only text, `{hex:…}` and `{check}`"],
    ),
    (
        r#"poll = [{ send = "A", every = "1s", first = [{ send = "B", every = "1s" }] }]"#,
        &["6:60: device.tank.poll[0].first[0].every: unknown key, expected baud_rate, expect, frame, send or timeout"],
    ),
    (r#"pause = "1m""#, &[r#"6:9: device.tank.pause: expected at most "10s""#]),
    ("offline_after = 0", &["6:17: device.tank.offline_after: expected at least 1 poll"]),
    (r#"frame = { kind = "line", max = "2MiB" }"#, &["6:32: device.tank.frame.max: expected 1B to 1MiB"]),
    (
        r#"decode = { kind = "yaml" }"#,
        &[
            r#"6:19: device.tank.decode.kind: expected "json", "xml", "csv", "key-value", "regex", "fields", "text" or "bytes", found "yaml""#,
        ],
    ),
    (
        r#"decode = { kind = "regex", pattern = "(" }"#,
        &["6:1: device.tank.decode: `pattern` is wrong: found open group without closing ')'"],
    ),
    (
        r#"decode = { kind = "csv", separator = ";;" }"#,
        &[r#"6:1: device.tank.decode: `separator`: expected a character, found ";;""#],
    ),
    (
        r#"decode = { kind = "regex" }"#,
        &["6:1: device.tank.decode: expected a `pattern` such as '^T=(?<temp>[-0-9.]+)'"],
    ),
    (r#"decode = { kind = "json", pattern = "x" }"#, &["6:1: device.tank.decode: `pattern` is no key of this kind"]),
    ("silence = 60", &[r#"6:11: device.tank.silence: expected a duration such as "30s", found 60"#]),
];

/// Keys of a point of a serial device.
const POINT: &[(&str, &[&str])] = &[
    ("scael = 0.1", &["7:1: device.tank.point.level.scael: unknown key (did you mean `scale`?)"]),
    (r#"wave = "sine""#, &[r#"7:1: device.tank.point.level.wave: unknown key: it belongs to kind "sim""#]),
    (
        "from = true",
        &[
            r#"7:8: device.tank.point.level.from: expected text, a column number from 1, or a field such as { at = 4, as = "u16" }, found true"#,
        ],
    ),
    (
        r#"from = { at = 1, as = "u17" }"#,
        &[
            r#"7:23: device.tank.point.level.from.as: `u17` is no form of fields: expected one such as "u8", "s16", "f32" or "bcd32", or "digits", "hex", "text" or "bytes""#,
        ],
    ),
    (
        r#"poll = "t""#,
        &[r#"7:8: device.tank.point.level.poll: expected the `name` of one of the device's polls, found "t""#],
    ),
    (r#"reply = { is = "OK" }"#, &["7:1: device.tank.point.level.reply: it answers a `write`: expected both"]),
    (
        r#"from = "/level""#,
        &["7:8: device.tank.point.level.from: a frame taken as a whole has no parts: remove `from`, or set `decode`"],
    ),
    (
        r#"type = "integer""#,
        &[
            r#"7:8: device.tank.point.level.type: expected "bool", "int", "float" or "text", found "integer" (did you mean `int`?)"#,
        ],
    ),
    (
        r#"type = "bool"
min = 1"#,
        &["8:7: device.tank.point.level.min: only a point of type int or float has it"],
    ),
    (r#"unit = """#, &[r#"7:8: device.tank.point.level.unit: expected a text such as "Cel""#]),
    (r#"min = "low""#, &[r#"7:7: device.tank.point.level.min: expected a number, found "low""#]),
    (
        r#"min = 5
max = 1"#,
        &["7:7: device.tank.point.level.min: `5`: expected at most `max`, which is 1"],
    ),
    ("scale = 0", &["7:9: device.tank.point.level.scale: expected a number other than 0"]),
    (
        r#"scale = 2
map = { a = "b" }"#,
        &["8:1: device.tank.point.level.map: expected either `map` or `scale` and `offset`, not both"],
    ),
    ("round = 12", &["7:9: device.tank.point.level.round: expected 0 to 9 digits"]),
    (r#"map = "a""#, &[r#"7:7: device.tank.point.level.map: expected a table, found "a""#]),
    ("report = { change = -1 }", &["7:21: device.tank.point.level.report.change: expected a number of at least 0"]),
    (
        r#"report = { at_most = "5m", at_least = "1m" }"#,
        &["7:22: device.tank.point.level.report.at_most: expected at most `at_least`"],
    ),
    (
        r#"report = { every = "1s" }"#,
        &["7:12: device.tank.point.level.report.every: unknown key, expected at_least, at_most or change"],
    ),
    (
        r#"lane = "outcome""#,
        &[r#"7:8: device.tank.point.level.lane: expected "telemetry" or "alarm", found "outcome""#],
    ),
    (
        r#"lane = "telemtry""#,
        &[
            r#"7:8: device.tank.point.level.lane: expected "telemetry" or "alarm", found "telemtry" (did you mean `telemetry`?)"#,
        ],
    ),
    (
        r#"limits = { high = 5 }
keep = "latest""#,
        &[
            r#"7:1: device.tank.point.level.limits: an alarm is a record of its own: expected keep = "all" beside it, and no bare payload"#,
        ],
    ),
    (
        r#"keep = "last""#,
        &[r#"7:8: device.tank.point.level.keep: expected "all" or "latest", found "last" (did you mean `latest`?)"#],
    ),
    (
        r#"payload = "value"
keep = "all""#,
        &[r#"8:8: device.tank.point.level.keep: a bare value has no number: expected "latest", or payload = "json""#],
    ),
    (
        r#"payload = "bytes""#,
        &[
            r#"7:11: device.tank.point.level.payload: expected type = "text" beside it: the value of such a point is hexadecimal digits"#,
        ],
    ),
    (r#"retain = "yes""#, &[r#"7:10: device.tank.point.level.retain: expected true or false, found "yes""#]),
    (
        "safe = 0",
        &[
            "7:8: device.tank.point.level.safe: only a writable point has this key: remove it, or let commands change the point",
        ],
    ),
    (
        r#"timeout = "5s""#,
        &[
            "7:11: device.tank.point.level.timeout: only a writable point has this key: remove it, or let commands change the point",
        ],
    ),
    (
        r#"rate = "6/m""#,
        &[
            "7:8: device.tank.point.level.rate: only a writable point has this key: remove it, or let commands change the point",
        ],
    ),
    (
        r#"command_max_age = "10s""#,
        &[
            "7:19: device.tank.point.level.command_max_age: only a writable point has this key: remove it, or let commands change the point",
        ],
    ),
    (
        r#"write = "SET {value}""#,
        &["6:20: device.tank.point.level.type: a writable point needs a `type`: expected bool, int, float or text"],
    ),
    (
        r#"type = "int"
write = "SET {value}"
timeout = "0s""#,
        &[r#"9:11: device.tank.point.level.timeout: `0s`: expected a duration from "10ms" to "1h""#],
    ),
    (
        r#"type = "int"
write = "SET {value}"
rate = 6"#,
        &[r#"9:8: device.tank.point.level.rate: expected a rate such as "200/s", found 6"#],
    ),
    (
        r#"type = "int"
write = "SET {value}"
safe = "shut""#,
        &["9:8: device.tank.point.level.safe: `shut` is not a whole number"],
    ),
    (
        r#"type = "int"
write = "SET {value}"
max = 100
safe = 101"#,
        &["10:8: device.tank.point.level.safe: `101` is out of range: expected at most 100"],
    ),
    (
        r#"type = "int"
write = "SET {value}"
map = { 1 = "on", 2 = "on" }"#,
        &["9:1: device.tank.point.level.map: a writable point needs a different name for each raw value"],
    ),
];

/// Keys of a point of a simulated device.
const SIM: &[(&str, &[&str])] = &[
    (
        r#"wave = "sinus""#,
        &[
            r#"6:8: device.demo.point.x.wave: expected "sine", "ramp", "random-walk", "counter", "switch" or "panic", found "sinus" (did you mean `sine`?)"#,
        ],
    ),
    (
        r#"period = "1s""#,
        &[
            r#"5:20: device.demo.point.x.wave: this key is missing: expected "sine", "ramp", "random-walk", "counter", "switch" or "panic""#,
        ],
    ),
    (
        r#"wave = "sine"
every = "0s""#,
        &["7:9: device.demo.point.x.every: expected a duration from \"10us\" to \"1day\""],
    ),
    (
        r#"wave = "counter"
low = 5"#,
        &["7:7: device.demo.point.x.low: this wave does not use it: remove it"],
    ),
    (
        r#"wave = "sine"
low = 5
high = 1"#,
        &["8:8: device.demo.point.x.high: expected a number above `low` (0 where it is not set)"],
    ),
];

#[test]
fn a_wrong_device_says_where_and_what_was_expected() {
    for (keys, expected) in SERIAL {
        let device = format!("[device.tank]\nkind = \"serial\"\nport = \"/dev/ttyUSB0\"\n{keys}");
        check(&format!("{RIGHT}{device}\n[device.tank.point.level]\nunit = \"cm\"\n"), expected);
    }
}

#[test]
fn a_wrong_point_says_where_and_what_was_expected() {
    for (keys, expected) in POINT {
        let device = "[device.tank]\nkind = \"serial\"\nport = \"/dev/ttyUSB0\"";
        check(&format!("{RIGHT}{device}\n[device.tank.point.level]\n{keys}\n"), expected);
    }
}

#[test]
fn two_connections_of_one_name_are_refused() {
    let device = |name: &str, keys: &str| {
        format!("[device.{name}]\nkind = \"mqtt\"\n{keys}\n[device.{name}.point.x]\ntopic = \"a\"\n")
    };
    let text = "client_id = \"c\"\nurl = \"mqtt://b\"";
    check(&format!("{RIGHT}{}{}", device("one", text), device("two", "client_id = \"c\"")), &[]);
    let place = RIGHT.lines().count() + 9;
    check(
        &format!("{RIGHT}{}{}", device("one", text), device("two", text)),
        &[&format!(
            "{place}:13: device.two.client_id: `c`: device one has it at the same broker: expected another one"
        )],
    );
}

#[test]
fn a_wrong_simulation_says_where_and_what_was_expected() {
    for (keys, expected) in SIM {
        check(&format!("{RIGHT}[device.demo]\nkind = \"sim\"\n[device.demo.point.x]\n{keys}\n"), expected);
    }
}

#[test]
fn a_point_that_is_made_of_what_is_not_there_says_so() {
    for (of, expected) in [
        (
            r#"sum = ["demo/x", "dmo/x"]"#,
            r#"11:13: device.d.point.x.sum: expected "d" or "demo", found "dmo" (did you mean `demo`?)"#,
        ),
        (
            r#"sum = ["demo/x", "demo/z"]"#,
            r#"11:13: device.d.point.x.sum: device `demo`: expected "door" or "x", found "z""#,
        ),
        (
            r#"sum = ["demo/x", "d/other"]"#,
            "11:13: device.d.point.x.sum: `d` is made of others itself: expected points of a device that is not",
        ),
        (r#"sum = ["demo/x", "demo/door"]"#, "11:13: device.d.point.x.sum: `demo/door` is text: expected a number"),
    ] {
        let demo = "[device.demo]\nkind = \"sim\"\npoint.door = { wave = \"switch\", map = { 0 = \"shut\", 1 = \"open\" } }\n\
                    point.x = { wave = \"sine\" }\n";
        let other = "other = { integral = \"demo/x\" }";
        let text = format!("{RIGHT}{demo}[device.d]\nkind = \"derived\"\n[device.d.point]\n{other}\nx = {{ {of} }}\n");
        check(&text, &[expected]);
    }
}

#[test]
fn a_type_that_no_value_would_have_is_refused() {
    let whole = "its values are not whole: expected float, or `round = 0` beside it";
    let number = "its values are numbers: expected float or int, or a `map`";
    for (of, expected) in [
        (r#"mean = ["demo/x", "demo/y"], type = "int""#, Some(whole)),
        (r#"mean = ["demo/x", "demo/y"], round = 0, type = "int""#, None),
        (r#"mean = ["demo/x", "demo/y"], round = 1, type = "int""#, Some(whole)),
        (r#"integral = "demo/x", type = "int""#, Some(whole)),
        (r#"integral = "demo/x", type = "bool""#, Some(number)),
        (r#"sum = ["demo/x", "demo/y"], type = "int""#, None),
        (r#"largest = ["demo/x", "demo/y"], type = "bool""#, Some(number)),
        (r#"largest = ["demo/x", "demo/y"], map = { 0 = false, 1 = true }, type = "bool""#, None),
    ] {
        let demo =
            "[device.demo]\nkind = \"sim\"\n[device.demo.point]\nx = { wave = \"sine\" }\ny = { wave = \"sine\" }\n";
        let text = format!("{RIGHT}{demo}[device.d]\nkind = \"derived\"\n[device.d.point]\nx = {{ {of} }}\n");
        let column = format!("x = {{ {of}").find("type = ").unwrap() + "type = ".len() + 1;
        let expected = expected.map(|text| format!("11:{column}: device.d.point.x.type: {text}"));
        check(&text, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
