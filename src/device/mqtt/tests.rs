//! What the config of a device may not say. The kind against real brokers is in `tests/it/local_mqtt.rs`.

use crate::device::testing::faults;

/// A device with these keys, and a point `x` with these.
fn config(device: &str, point: &str) -> String {
    format!("[device.plug]\nkind = \"mqtt\"\n{device}\n[device.plug.point.x]\n{point}\n")
}

#[track_caller]
fn check(device: &str, point: &str, expected: &[&str]) {
    assert_eq!(faults(&config(device, point)), expected, "{device}\n{point}");
}

#[test]
fn a_wrong_device_says_where_and_what_was_expected() {
    let good = "topic = \"a/b\"";
    for (keys, expected) in [
        ("", &[][..]),
        ("url = \"http://x\"", &["url: `http://` is not known: expected mqtt://, mqtts://, ws:// or wss://"]),
        ("tls = { ca = \"/x\" }", &["tls: needs TLS in the URL: expected url = \"mqtts://…\""]),
        ("client_id = \"\"", &["client_id: expected 1 to 128 bytes without control characters"]),
        ("keep_alive = \"1s\"", &["keep_alive: `1s`: expected whole seconds from \"5s\" to \"1h\""]),
        ("status.topic = \"tele/+/LWT\"", &["status.topic: `tele/+/LWT`: expected a topic without wildcards"]),
        ("status.topic = \"\"", &["status.topic: expected a topic of 1 to 1000 bytes without control characters"]),
        (
            "status = { topic = \"s\", online = \"1\", offline = \"1\" }",
            &["status.offline: `1`: expected another payload than `online` has"],
        ),
        (
            "status = { topic = \"s\", online = \"\" }",
            &["status.online: expected the payload: an empty one only clears what is stored"],
        ),
        ("interval = \"0s\"", &["interval: expected a duration from \"1s\" to \"7d\""]),
        (
            "awake = \"5s\"",
            &["awake: a device that sleeps needs an `interval` beside it: else nobody knows when it is lost"],
        ),
        (
            "decode = { kind = \"key-value\", assign = \"\" }",
            &["decode.assign: expected what stands between key and value, such as \"=\""],
        ),
        ("decode = { kind = \"regex\", pattern = \"(\" }\n[device.plug.point.y]\ntopic = \"c\"\nfrom = \"z\"", &[]),
    ] {
        if keys.contains("regex") {
            let found = faults(&config(keys, good));
            assert!(found.len() == 1 && found[0].starts_with("decode: `pattern` is wrong"), "{found:?}");
            continue;
        }
        check(keys, good, expected);
    }
}

#[test]
fn a_wrong_point_says_where_and_what_was_expected() {
    let beside = "expected a `topic` beside it, on which the device says the value";
    let (from, stored, confirm) =
        (format!("point.x.from: {beside}"), format!("point.x.stored: {beside}"), format!("point.x.confirm: {beside}"));
    for (keys, expected) in [
        ("topic = [\"a\", \"b/+\"]", &[][..]),
        ("unit = \"cm\"", &["point.x.topic: expected the topic of its values, or a `set` beside it"]),
        ("topic = []", &["point.x.topic: expected at least one topic"]),
        ("topic = [\"a\", \"a\"]", &["point.x.topic: `a` is there twice"]),
        ("topic = \"\"", &["point.x.topic: expected a topic of 1 to 1000 bytes without control characters"]),
        ("topic = \"a\\u0000b\"", &["point.x.topic: expected a topic of 1 to 1000 bytes without control characters"]),
        ("topic = \"a/#/b\"", &["point.x.topic: `a/#/b`: expected `#` as the last level only"]),
        ("topic = \"a/b+\"", &["point.x.topic: `a/b+`: expected `+` or `#` as a level of its own"]),
        ("topic = \"a\"\nfrom = \"b\"", &["point.x.from: expected a JSON pointer such as \"/level\""]),
        (
            "topic = [\"a/+/c\", \"a/b/+\"]",
            &["point.x.topic: `a/b/+` and `a/+/c` overlap, and a message on both would come twice: expected one of \
                 them to hold the other"],
        ),
        ("type = \"bool\"\nfrom = \"/x\"\nset.topic = \"c\"", &[from.as_str()]),
        ("type = \"bool\"\nstored = true\nset.topic = \"c\"", &[stored.as_str()]),
        ("type = \"bool\"\nconfirm = true\nset.topic = \"c\"", &[confirm.as_str()]),
        ("topic = \"a\"\nconfirm = false", &["point.x.confirm: expected a `set` beside it"]),
        ("set.topic = \"c\"", &["point.x.type: a writable point needs a `type`: expected bool, int, float or text"]),
        ("type = \"bool\"\nset.topic = \"c/+\"", &["point.x.set.topic: `c/+`: expected a topic without wildcards"]),
        (
            "type = \"bool\"\nset = { topic = \"c\", payload = \"{x}\" }",
            &[
                "point.x.set.payload: expected `{value}` for the value (`{value:u16}`, `{value:d4}` and `{value:x4}` for its bytes or digits), `{bytes}` for the bytes that it is in hexadecimal, `{hex:ff01}` for bytes, `{check}` for the check, and `{{` or `}}` for a brace",
            ],
        ),
        (
            "topic = \"a\"\nfrom = \"/x\"\n[device.plug.point.y]\ntopic = [\"b\", \"a\"]\nfrom = \"/x\"",
            &["point.y.from: `x` reads the same from `a`"],
        ),
        ("topic = \"a\"\n[device.plug.point.y]\ntopic = \"a\"", &["point.y.topic: `x` reads the same from `a`"]),
    ] {
        check("", keys, expected);
    }
    check("status.topic = \"a/b/c\"", "topic = \"a/+/c\"\n[device.plug.point.y]\ntopic = \"a/+/d\"", &[]);
}
