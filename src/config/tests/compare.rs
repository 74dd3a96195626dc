//! What a new config changes.

use super::*;

/// Every room has something in it.
const OLD: &str = r#"
gateway = { id = "g", state_directory = "/data" }
mqtt.url = "mqtt://b"
queue.telemetry = { max_bytes = "1MiB" }
[device.a]
kind = "sim"
[device.a.point.x]
wave = "sine"
unit = "Cel"
lane = "alarm"
[device.b]
kind = "sim"
[device.b.point.y]
wave = "switch"
timeout = "1s"
"#;

fn outline(text: &str) -> Outline {
    load(&Sources::text("test", text)).unwrap_or_else(|errors| panic!("{errors:?}: {text}")).outline()
}

/// Where `what` in the old config becomes `by`, this changes: lines, what comes later, what can't.
fn check(what: &str, by: &str, lines: &[&str], later: &[&str], fixed: &[&str]) {
    assert!(OLD.contains(what), "{what}");
    let difference = outline(OLD).compare(&outline(&OLD.replacen(what, by, 1)));
    let found = [difference.lines(), difference.later, difference.fixed];
    assert_eq!(found, [lines, later, fixed].map(|texts| texts.iter().map(ToString::to_string).collect::<Vec<_>>()));
}

#[test]
fn what_did_not_change_is_not_touched() {
    assert_eq!(outline(OLD).compare(&outline(OLD)), Difference::default());
    for (what, by) in [
        ("wave = \"sine\"\nunit = \"Cel\"", "# Written in another way.\nunit = \"Cel\"\nwave = 'sine'"),
        ("queue.telemetry = { max_bytes = \"1MiB\" }", "queue.telemetry.max_bytes = \"1024KiB\""),
        ("mqtt.url = \"mqtt://b\"", "mqtt = { url = [\"mqtt://b\"], window = 64, client_id = \"g\" }"),
        ("lane = \"alarm\"", "lane = \"alarm\"\nretain = true"),
    ] {
        check(what, by, &[], &[], &[]);
    }
}

#[test]
fn each_device_has_its_own_fate() {
    let b = &format!("[device.b]{}", OLD.split_once("[device.b]").unwrap().1);
    check(b, "", &["device b: removed"], &[], &[]);
    check(b, &b.replace(".b", ".c"), &["device b: removed", "device c: added"], &[], &[]);
    check("\"sine\"", "\"ramp\"", &["device a: started anew"], &[], &[]);
    check("\"Cel\"", "\"K\"", &["device a: started anew"], &[], &[]);
    check("kind = \"sim\"", "kind = \"sim\"\nmax_rate = \"5/s\"", &["device a: started anew"], &[], &[]);
    check("[device.b.point.y]", "[device.b.point.z]", &["device b: started anew"], &[], &[]);
    // What other rooms own is nothing to the driver.
    check("lane = \"alarm\"", "retain = false", &["device a: changed, and goes on"], &[], &[]);
    check("timeout = \"1s\"", "timeout = \"2s\"", &["device b: changed, and goes on"], &[], &[]);
}

#[test]
fn each_room_is_compared_by_itself() {
    for (what, by, line) in [
        ("\"mqtt://b\"", "\"mqtt://c\"", "[mqtt]: changed"),
        ("\"1MiB\"", "\"2MiB\"", "[queue.telemetry]: changed"),
        ("mqtt.url", "queue.replay.rate = \"off\"\nmqtt.url", "[queue]: changed"),
        ("mqtt.url", "command.remember = \"1h\"\nmqtt.url", "[command]: changed"),
        ("mqtt.url", "health.interval = \"5s\"\nmqtt.url", "[health]: changed"),
        ("mqtt.url", "clock.trust = \"always\"\nmqtt.url", "[clock]: changed"),
    ] {
        check(what, by, &[line], &[], &[]);
    }
}

#[test]
fn what_can_not_change_now_is_named() {
    check("\"1MiB\" }", "\"1MiB\", sync = \"never\" }", &[], &["queue.telemetry.sync"], &[]);
    let restart = "while the gateway runs: restart it";
    let id = format!("gateway.id is `h` now, and can't change from `g` {restart}");
    check("id = \"g\"", "id = \"h\"", &["[mqtt]: changed"], &[], &[&id]);
    let folder = format!("gateway.state_directory is `/other` now, and can't change from `/data` {restart}");
    check("\"/data\"", "\"/other\"", &[], &[], &[&folder]);
}

#[test]
fn the_state_directory_is_found_in_a_wrong_config() {
    let found = |text: &str| gateway(&Sources::text("test", text)).map(|gateway| gateway.state_directory);
    assert_eq!(found(&OLD.replace("wave", "wafe")), Some("/data".into()));
    assert_eq!(found("gateway = {"), None);
}
