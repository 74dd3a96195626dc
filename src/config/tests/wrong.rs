//! Wrong configs, each with all that is said of it.

use super::super::{Sources, load, words};
use crate::device::KINDS;

/// Checks that this is said of a text, and nothing else; each line without the name of the file.
pub(super) fn check(text: &str, expected: &[&str]) {
    let kinds = words::choices(KINDS.iter().map(|kind| kind.name));
    let expected: Vec<String> =
        expected.iter().map(|line| format!("wrong.toml:{}", line.replace("{kinds}", &kinds))).collect();
    let said: Vec<String> = match load(&Sources::text("wrong.toml", text)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(said, expected, "of:\n{text}");
}

/// Whole texts.
const WHOLE: &[(&str, &[&str])] = &[
    ("[mqtt", &["1:6: not TOML: unclosed table, expected `]`"]),
    (r#"mqtt.url = "mqtt://b"#, &[r#"1:21: not TOML: invalid basic string, expected `"`"#]),
    (
        r#"a = 1
a = 2"#,
        &["2:1: not TOML: duplicate key"],
    ),
    ("mqtt.url = broker", &["1:12: not TOML: string values must be quoted, expected literal string"]),
    ("mqtt.window = 08", &["1:15: not TOML: unexpected leading zero"]),
    (
        r#"[mqtt]
url = "a"
[mqtt]"#,
        &["3:2: not TOML: duplicate key"],
    ),
    ("Window: 5", &["1:9: not TOML: key with no value, expected `=`"]),
    (
        r#"mqtt.url = "\d""#,
        &[r#"1:14: not TOML: missing escaped value, expected `b`, `e`, `f`, `n`, `r`, `\`, `"`, `x`, `u`, `U`"#],
    ),
    (
        r#"gateway = "pump-7"
mqtt.url = "mqtt://b""#,
        &["1:11: gateway: expected a table [gateway]"],
    ),
    (
        r#"gateway.id = "pump-7""#,
        &[r#" mqtt.url: this key is missing: expected a URL such as "mqtts://broker.example.com", or a list of them"#],
    ),
    (
        r#"gateway.id = "pump-7"

[mqtt]
window = 5"#,
        &[
            r#"3:2: mqtt.url: this key is missing: expected a URL such as "mqtts://broker.example.com", or a list of them"#,
        ],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt = "mqtt://b""#,
        &["2:8: mqtt: expected a table [mqtt]"],
    ),
    (
        r#"mqtt.url = "mqtt://b""#,
        &[
            r#" gateway.id: it has no id yet: this host has no name to take for one: expected an id of its own such as "pump-house-7""#,
        ],
    ),
    (
        r#"[gateway]
id = "raspberrypi"
[mqtt]
url = "mqtt://b""#,
        &[
            r#"2:6: gateway.id: `raspberrypi` is generic, and two gateways of one id throw each other off the broker: expected an id of its own such as "pump-house-7""#,
        ],
    ),
    (
        r#"[gateway]
id = "pump house"
[mqtt]
url = "mqtt://b""#,
        &["2:6: gateway.id: `pump house` is not a name: expected 1 to 64 characters out of A-Z, a-z, 0-9, `_` and `-`"],
    ),
    (
        r#"[gateway]
id = 7
[mqtt]
url = "mqtt://b""#,
        &[r#"2:6: gateway.id: expected an id such as "pump-house-7", or { file = "…" }, found 7"#],
    ),
    (
        r#"[gateway]
id = { path = "/etc/id" }
[mqtt]
url = "mqtt://b""#,
        &[
            "2:1: gateway.id.file: this key is missing: expected text in quotes",
            "2:8: gateway.id.path: unknown key, expected file",
        ],
    ),
    (
        r#"[gateway]
id = { file = "/nowhere/id" }
[mqtt]
url = "mqtt://b""#,
        &["2:1: gateway.id: it has no id yet: there is no `/nowhere/id`, which holds it"],
    ),
    (
        r#"[gateway]
id = "status"
[mqtt]
url = "mqtt://b""#,
        &[
            "2:6: gateway.id: `status` is reserved: it would collide with a topic of the gateway (reserved: set, outcome, status, problem, info, health, gap, command)",
        ],
    ),
    (
        r#"[gateway]
id = "pump-7"
state_directory = "var/lib"
[mqtt]
url = "mqtt://b""#,
        &[r#"3:19: gateway.state_directory: `var/lib`: expected an absolute path such as "/var/lib/sluicegate""#],
    ),
    (
        r#"[gateway]
id = "pump-7"
name = "Pump 7"
[mqtt]
url = "mqtt://b""#,
        &["3:1: gateway.name: unknown key, expected id or state_directory"],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "broker.example.com""#,
        &[r#"2:12: mqtt.url: expected a URL such as "mqtts://broker.example.com""#],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "http://b""#,
        &["2:12: mqtt.url: `http://` is not known: expected mqtt://, mqtts://, ws:// or wss://"],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "mqtt://user:hunter2@b""#,
        &["2:12: mqtt.url: a user name and a password do not stand in the URL: use the keys `username` and `password`"],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "mqtt://b/topic""#,
        &["2:12: mqtt.url: `/topic`: expected no path behind mqtt://HOST:PORT"],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "mqtt://b:99999""#,
        &["2:12: mqtt.url: `99999` is not a port: expected a whole number from 1 to 65535"],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "mqtt://fd00::1""#,
        &["2:12: mqtt.url: expected an IPv6 address in brackets: mqtt://[fd00::1]"],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "mqtts://b/mqtt""#,
        &["2:12: mqtt.url: `/mqtt`: expected no path behind mqtts://HOST:PORT"],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "mqtts://b"
mqtt.proxy = "proxy:3128""#,
        &[r#"3:14: mqtt.proxy: expected a proxy such as "http://proxy.example.com:3128" or "socks5://10.0.0.1:1080""#],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = "wss://b"
mqtt.websocket = { headers = { a = 5 } }"#,
        &[
            r#"3:36: mqtt.websocket.headers.a: expected a text, or { file = "…" }, { env = "…" } or { credential = "…" }, found 5"#,
        ],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = 5"#,
        &[r#"2:12: mqtt.url: expected a URL such as "mqtts://broker.example.com", or a list of them, found 5"#],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = ["mqtts://a", "mqtt://b"]"#,
        &[
            "2:26: mqtt.url[1]: a list with and without TLS would fall back to plain text: expected mqtts:// or wss:// in all, or in none",
        ],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = ["mqtts://a", 5]"#,
        &[r#"2:26: mqtt.url[1]: expected a URL such as "mqtts://broker.example.com", found 5"#],
    ),
    (
        r#"gateway.id = "pump-7"
mqtt.url = []"#,
        &[r#"2:12: mqtt.url: expected at least one URL such as "mqtts://broker.example.com""#],
    ),
];

#[test]
fn a_wrong_text_says_where_and_what_was_expected() {
    WHOLE.iter().for_each(|(text, expected)| check(text, expected));
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let text = r#"[mqtt]
url = "mqt://b"
window = 0
keepalive = "30s"

[queue]
max_memory = "1B"

[device.tank]
kind = "serial"
port = "/dev/ttyUSB0"
parity = "mark"
[device.tank.point.level]
lane = "outcome"
scael = 2

[device.demo]
kind = "sin"
"#;
    check(
        text,
        &[
            r#" gateway.id: it has no id yet: this host has no name to take for one: expected an id of its own such as "pump-house-7""#,
            "2:7: mqtt.url: `mqt://` is not known: expected mqtt://, mqtts://, ws:// or wss://",
            "3:10: mqtt.window: expected a whole number from 1 to 1000, found 0",
            "4:1: mqtt.keepalive: unknown key (did you mean `keep_alive`?)",
            r#"7:14: queue.max_memory: `1B`: expected a size from "256KiB" to "1GiB""#,
            r#"12:10: device.tank.parity: expected "none", "odd" or "even", found "mark""#,
            r#"14:8: device.tank.point.level.lane: expected "telemetry" or "alarm", found "outcome""#,
            "15:1: device.tank.point.level.scael: unknown key (did you mean `scale`?)",
            r#"18:8: device.demo.kind: expected {kinds}, found "sin" (did you mean `sim`?)"#,
        ],
    );
}
