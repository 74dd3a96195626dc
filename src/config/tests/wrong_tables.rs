//! Wrong tables of the gateway itself, each with all that is said of it.

use super::RIGHT;
use super::wrong::check;

/// Texts below [`RIGHT`].
const TABLES: &[(&str, &[&str])] = &[
    (
        r#"[mqqt]
window = 5"#,
        &["3:2: mqqt: unknown key (did you mean `mqtt`?)"],
    ),
    (
        r#"[time]
wait = "60s""#,
        &["3:2: time: unknown key, expected bus, clock, command, device, gateway, health, mqtt or queue"],
    ),
    (r#"clock.wait = "2h""#, &[r#"3:14: clock.wait: `2h`: expected a duration from "0s" to "1h""#]),
    ("clock.wait = 60", &[r#"3:14: clock.wait: expected a duration such as "30s", found 60"#]),
    (r#"clock.trust = "rtc""#, &[r#"3:15: clock.trust: expected "synchronized" or "always", found "rtc""#]),
    ("clock.trust = true", &[r#"3:15: clock.trust: expected "synchronized" or "always""#]),
    (r#"clock.tust = "always""#, &["3:7: clock.tust: unknown key (did you mean `trust`?)"]),
    (r#"devices.tank.kind = "serial""#, &["3:1: devices: unknown key (did you mean `device`?)"]),
    ("mqtt.windwo = 5", &["3:6: mqtt.windwo: unknown key (did you mean `window`?)"]),
    (r#"mqtt.window = "64""#, &[r#"3:15: mqtt.window: expected a whole number from 1 to 1000, found "64""#]),
    ("mqtt.window = 0", &["3:15: mqtt.window: expected a whole number from 1 to 1000, found 0"]),
    ("mqtt.window = 1.5", &["3:15: mqtt.window: expected a whole number from 1 to 1000, found 1.5"]),
    (r#"mqtt.version = "4""#, &[r#"3:16: mqtt.version: expected "3.1.1" or "5", found "4""#]),
    ("mqtt.version = 5", &[r#"3:16: mqtt.version: expected "3.1.1" or "5""#]),
    (r#"mqtt.root = "plant/#""#, &["3:13: mqtt.root: `plant/#`: expected no wildcard (`+`, `#`)"]),
    (r#"mqtt.root = "/plant""#, &["3:13: mqtt.root: `/plant`: expected no `/` at its ends and no empty level"]),
    (r#"mqtt.root = "{site}/{id}""#, &["3:13: mqtt.root: `{site}/pump-7`: expected no braces but in `{id}`"]),
    (r#"mqtt.client_id = """#, &["3:18: mqtt.client_id: expected 1 to 128 bytes without control characters"]),
    ("mqtt.keep_alive = 30", &[r#"3:19: mqtt.keep_alive: expected a duration such as "30s", found 30"#]),
    (
        r#"mqtt.keep_alive = "30""#,
        &[r#"3:19: mqtt.keep_alive: `30` is not a duration: expected one such as "500ms", "30s" or "7d""#],
    ),
    (r#"mqtt.keep_alive = "0s""#, &[r#"3:19: mqtt.keep_alive: `0s`: expected whole seconds from "5s" to "1h""#]),
    (r#"mqtt.keep_alive = "2h""#, &[r#"3:19: mqtt.keep_alive: `2h`: expected whole seconds from "5s" to "1h""#]),
    (r#"mqtt.connect_timeout = "0s""#, &[r#"3:24: mqtt.connect_timeout: `0s`: expected a duration from "1s" to "5m""#]),
    ("mqtt.username = 7", &["3:17: mqtt.username: expected text in quotes, found 7"]),
    (
        r#"mqtt.password = "hunter2"
mqtt.username = "u""#,
        &[
            r#"3:17: mqtt.password: a secret is not written into the config: expected { file = "…" }, { env = "…" } or { credential = "…" }"#,
        ],
    ),
    (
        r#"mqtt.password = 12345
mqtt.username = "u""#,
        &[
            r#"3:17: mqtt.password: a secret is not written into the config: expected { file = "…" }, { env = "…" } or { credential = "…" }"#,
        ],
    ),
    (r#"mqtt.password = { env = "P" }"#, &["3:6: mqtt.password: expected a `username` beside it"]),
    (
        r#"mqtt.password = { env = "P", file = "/p" }
mqtt.username = "u""#,
        &[
            r#"3:6: mqtt.password: expected { file = "…" }, { env = "…" } or { credential = "…" }, and only one of them"#,
        ],
    ),
    (
        r#"mqtt.password = { path = "/p" }
mqtt.username = "u""#,
        &[
            r#"3:6: mqtt.password: expected { file = "…" }, { env = "…" } or { credential = "…" }, and only one of them"#,
            "3:19: mqtt.password.path: unknown key, expected credential, env or file",
        ],
    ),
    (
        r#"mqtt.password = { credential = "../p" }
mqtt.username = "u""#,
        &[
            "3:6: mqtt.password: expected the name of a systemd credential, which has no `/` and does not start with a dot",
        ],
    ),
    (
        "mqtt.tls = { insecure = true }",
        &["3:14: mqtt.tls.insecure: unknown key, expected alpn, ca, cert, key or server_name"],
    ),
    (
        "mqtt.tls = { verify = false }",
        &["3:14: mqtt.tls.verify: unknown key, expected alpn, ca, cert, key or server_name"],
    ),
    (
        "mqtt.tls = { skip_verify = true }",
        &["3:14: mqtt.tls.skip_verify: unknown key, expected alpn, ca, cert, key or server_name"],
    ),
    (r#"mqtt.tls = { cert = "/c.pem" }"#, &["3:21: mqtt.tls.cert: expected a `key` beside it"]),
    (r#"mqtt.tls = { key = { file = "/k.pem" } }"#, &["3:14: mqtt.tls.key: expected a `cert` beside it"]),
    (
        r#"mqtt.tls = { cert = "/c.pem", key = "/k.pem" }"#,
        &[
            r#"3:37: mqtt.tls.key: a secret is not written into the config: expected { file = "…" }, { env = "…" } or { credential = "…" }"#,
        ],
    ),
    ("mqtt.tls = true", &["3:12: mqtt.tls: expected a table, found true"]),
    (
        r#"mqtt.tls = { server_name = "a b" }"#,
        &[r#"3:28: mqtt.tls.server_name: `a b` is not a host name: expected one such as "broker.example.com""#],
    ),
    (
        "queue.telemetry.max_bytes = 64",
        &[r#"3:29: queue.telemetry.max_bytes: expected a size such as "16MiB", found 64"#],
    ),
    (
        r#"queue.telemetry.max_bytes = "64M""#,
        &[r#"3:29: queue.telemetry.max_bytes: `64M` is not a size: expected one such as "64KiB" or "16MiB""#],
    ),
    (r#"queue.telemetry.max_bytes = "1KiB""#, &["3:29: queue.telemetry.max_bytes: `1KiB`: expected at least 64KiB"]),
    (
        r#"queue.telemetry.max_age = "1 week ago""#,
        &[
            r#"3:27: queue.telemetry.max_age: `1 week ago` is not a duration: expected one such as "500ms", "30s" or "7d""#,
        ],
    ),
    (
        r#"queue.alarm.sync = "often""#,
        &[r#"3:20: queue.alarm.sync: expected "always", "never" or a duration such as "1s", found "often""#],
    ),
    (
        "queue.alarm.sync = true",
        &[r#"3:20: queue.alarm.sync: expected "always", "never" or a duration such as "1s", found true"#],
    ),
    (r#"queue.alarms.max_age = "1d""#, &["3:7: queue.alarms: unknown key (did you mean `alarm`?)"]),
    (r#"queue.replay = "200/s""#, &[r#"3:16: queue.replay: expected a table, found "200/s""#]),
    (
        r#"queue.replay = { rate = "200/d" }"#,
        &[r#"3:25: queue.replay.rate: `200/d` is not a rate: expected one such as "200/s", "6/m", "1/h" or "off""#],
    ),
    (r#"queue.max_memory = "10GiB""#, &[r#"3:20: queue.max_memory: `10GiB`: expected a size from "256KiB" to "1GiB""#]),
    ("queue.keep_free = 0", &[r#"3:19: queue.keep_free: expected a size such as "16MiB", found 0"#]),
    (r#"command.remember = "1s""#, &[r#"3:20: command.remember: `1s`: expected a duration from "1m" to "7d""#]),
    (r#"command.remeber = "1d""#, &["3:9: command.remeber: unknown key (did you mean `remember`?)"]),
    (r#"health.interval = "0s""#, &[r#"3:19: health.interval: `0s`: expected a duration from "1s" to "24h""#]),
    ("health.interval = false", &[r#"3:19: health.interval: expected a duration such as "30s", found false"#]),
    ("device = []", &["3:10: device: expected a table [device]"]),
    (r#"device.tank = "serial""#, &["3:15: device.tank: expected a table [device.NAME]"]),
    (
        r#"[device.tank]
port = "/dev/ttyUSB0""#,
        &["3:9: device.tank.kind: this key is missing: expected {kinds}"],
    ),
    (
        r#"[device.tank]
kind = "serail""#,
        &[r#"4:8: device.tank.kind: expected {kinds}, found "serail" (did you mean `serial`?)"#],
    ),
    (
        r#"[device.tank]
kind = 5"#,
        &["4:8: device.tank.kind: expected the name of a kind in quotes (see `sluicegate list-kinds`)"],
    ),
    (
        r#"[device."tank 1"]
kind = "sim""#,
        &[
            r#"3:9: device."tank 1": `tank 1` is not a name: expected 1 to 64 characters out of A-Z, a-z, 0-9, `_` and `-`"#,
        ],
    ),
    (
        r#"[device.info]
kind = "sim""#,
        &[
            "3:9: device.info: `info` is reserved: it would collide with a topic of the gateway (reserved: set, outcome, status, problem, info, health, gap, command)",
        ],
    ),
    (
        r#"[device.tank]
kind = "sim"
max_rate = 1000"#,
        &[r#"5:12: device.tank.max_rate: expected a rate such as "200/s", found 1000"#],
    ),
    (
        r#"[device.tank]
kind = "sim"
port = "/dev/ttyUSB0""#,
        &[r#"5:1: device.tank.port: unknown key: it belongs to kind "serial""#],
    ),
    (
        r#"[device.tank]
kind = "sim"
wave = "sine""#,
        &["5:1: device.tank.wave: unknown key: it belongs to a point, below [device.tank.point.NAME]"],
    ),
    (
        r#"[device.tank]
kind = "sim"
point = 5"#,
        &["5:9: device.tank.point: expected tables [device.NAME.point.NAME]"],
    ),
    (
        r#"[device.tank]
kind = "sim"
points.level.wave = "sine""#,
        &["5:1: device.tank.points: unknown key (did you mean `point`?)"],
    ),
    (
        r#"[device.tank]
kind = "serial"
[device.tank.point.level]
unit = "cm""#,
        &["3:9: device.tank.port: this key is missing: expected text in quotes"],
    ),
    (
        r#"[device.tank]
kind = "serial"
port = "/dev/ttyUSB0"
[device.tank.point."fill level"]"#,
        &[
            r#"6:20: device.tank.point."fill level": `fill level` is not a name: expected 1 to 64 characters out of A-Z, a-z, 0-9, `_` and `-`"#,
        ],
    ),
    (
        r#"[device.tank]
kind = "serial"
port = "/dev/ttyUSB0"
[device.tank.point.status]"#,
        &[
            "6:20: device.tank.point.status: `status` is reserved: it would collide with a topic of the gateway (reserved: set, outcome, status, problem, info, health, gap, command)",
        ],
    ),
    (
        r#"[device.tank]
kind = "serial"
port = "/dev/ttyUSB0"
point.level = "cm""#,
        &["6:15: device.tank.point.level: expected a table [device.NAME.point.NAME]"],
    ),
];

#[test]
fn a_wrong_table_says_where_and_what_was_expected() {
    check(RIGHT, &[]);
    TABLES.iter().for_each(|(text, expected)| check(&format!("{RIGHT}{text}\n"), expected));
}
