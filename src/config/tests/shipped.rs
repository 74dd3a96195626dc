//! The config that is installed, and the examples.

use std::path::PathBuf;

use super::super::{Places, Sources, load};
use super::{MAIN, layered};
use crate::device::{KINDS, PointRulesConfig};
use crate::model::Declaration;
use crate::{command, link, queue, uplink};

/// As cargo says it when it runs the tests: a test that is packed for a board does not carry where it was built.
fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("config")
}

fn shipped() -> String {
    std::fs::read_to_string(folder().join("sluicegate.toml")).unwrap()
}

/// With every line that shows a key as one that sets it.
fn uncommented() -> String {
    let set = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    shipped().lines().map(set).collect()
}

#[test]
fn the_shipped_config_shows_the_defaults() {
    let text = uncommented();
    let mut shown = load(&Sources::text("sluicegate.toml", &text)).unwrap();
    let least = load(&Sources::text(
        "least",
        "gateway.id = \"pump-house-7\"\nmqtt.url = [\"mqtts://broker.example.com\", \"wss://broker.example.com\"]",
    ));

    let least = least.unwrap();
    assert_eq!(shown.gateway, least.gateway);
    assert!(shown.mqtt.username.take().is_some() && shown.mqtt.password.take().is_some());
    assert_eq!(shown.mqtt.topic.take().as_deref(), Some("plant/pump-house-7/{device}/{point}"));
    let tls = shown.mqtt.tls.take().unwrap();
    assert!(tls.ca.is_some() && tls.cert.is_some() && tls.key.is_some() && tls.server_name.is_some());
    assert!(!tls.alpn.is_empty() && shown.mqtt.websocket.take().is_some() && shown.mqtt.proxy.take().is_some());
    assert_eq!(shown.mqtt, least.mqtt);
    assert_eq!(shown.queue, least.queue);
    assert_eq!(shown.command, least.command);
    assert_eq!(shown.health, least.health);
    assert_eq!(shown.clock, least.clock);
    for point in &shown.devices[0].points {
        assert_eq!(point.queue, queue::PointConfig::default());
        assert_eq!(point.uplink, uplink::PointConfig::default());
        assert_eq!(point.command.timeout, command::PointConfig::default().timeout);
    }
}

#[test]
fn the_shipped_config_shows_every_key() {
    let table: toml::Table = uncommented().parse().unwrap();
    let at = |path: &[&str]| {
        let mut value = &toml::Value::Table(table.clone());
        let mut found = Vec::new();
        for key in path {
            value = value.get(key).unwrap();
        }
        found.extend(value.as_table().unwrap().keys().cloned());
        found
    };
    let mut points = at(&["device", "demo", "point", "temperature"]);
    points.extend(at(&["device", "demo", "point", "pump"]));
    let point_keys = [
        Declaration::KEYS,
        PointRulesConfig::KEYS,
        command::PointConfig::KEYS,
        queue::PointConfig::KEYS,
        uplink::PointConfig::KEYS,
    ];
    for (shown, keys) in [
        (at(&["mqtt"]), link::Config::KEYS),
        (at(&["mqtt", "tls"]), link::Tls::KEYS),
        (at(&["queue"]), queue::Config::KEYS),
        (at(&["command"]), command::Config::KEYS),
        (at(&["health"]), uplink::HealthConfig::KEYS),
        (at(&["clock"]), super::super::Clock::KEYS),
        (at(&["device", "demo"]), crate::device::Config::KEYS),
        (at(&["device", "demo"]), uplink::DeviceConfig::KEYS),
    ]
    .into_iter()
    .chain(point_keys.map(|keys| (points.clone(), keys)))
    {
        assert!(!keys.is_empty());
        for key in keys {
            assert!(shown.iter().any(|shown| shown == key), "`{key}` is not shown");
        }
    }
}

#[test]
fn the_shipped_config_asks_for_the_broker() {
    let mut sources = Sources::text("sluicegate.toml", &shipped());
    "pump-house-7".clone_into(&mut sources.host_name);
    let errors = load(&sources).unwrap_err();
    let line = shipped().lines().position(|line| line == "[mqtt]").unwrap() + 1;
    let expected = format!(
        "sluicegate.toml:{line}:2: mqtt.url: this key is missing: expected a URL such as \
         \"mqtts://broker.example.com\", or a list of them"
    );
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[test]
fn the_shipped_config_is_left_to_its_owner_and_a_wrong_one_is_not() {
    let shipped = shipped();
    for (host_name, text, expected) in [
        ("pump-house-7", shipped.clone(), vec!["mqtt.url"]),
        ("raspberrypi", shipped.clone(), vec!["gateway.id", "mqtt.url"]),
        ("raspberrypi", shipped.replace("#url", "url"), vec!["gateway.id"]),
        ("raspberrypi", shipped.replace("#url = [\"mqtts", "url = [\"http"), vec![]),
        ("pump-house-7", shipped.replace("#url = [\"mqtts", "url = [\"http"), vec![]),
        ("pump-house-7", shipped.replace("#url", "ulr"), vec![]),
        ("pump-house-7", shipped.replace("#window = 64", "window = 0"), vec![]),
    ] {
        let mut sources = Sources::text("sluicegate.toml", &text);
        host_name.clone_into(&mut sources.host_name);
        let errors = load(&sources).unwrap_err();
        assert_eq!(super::super::left_to_the_owner(&errors), expected, "{errors:#?}");
    }
}

#[test]
fn every_example_is_right_and_every_kind_has_one() {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        if !table.contains_key("device") {
            let base = "mqtt.url = \"mqtt://broker\"\ndevice = {}\n";
            let text = std::fs::read_to_string(&path).unwrap();
            let laid = layered(&[(MAIN, base), ("etc/sluicegate/conf.d/drop-in.toml", &text)], &[]);
            assert!(laid.is_ok(), "{}: {laid:#?}", path.display());
            continue;
        }
        let kinds = table["device"].as_table().unwrap().values().map(|device| device["kind"].as_str().unwrap());
        if kinds.into_iter().any(|name| !KINDS.iter().any(|kind| kind.name == name)) {
            // Of a kind that is not built in.
            continue;
        }
        let mut sources = Sources::text("", "");
        sources.places = Places::File(path.clone());
        let config = load(&sources);
        assert!(config.is_ok(), "{:#?}", config.err());
        names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
    }
    for kind in KINDS {
        assert!(names.iter().any(|name| name == kind.name), "config/examples/{}.toml is missing", kind.name);
    }
}

#[test]
fn every_profile_is_right_and_says_where_its_registers_are_from() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder().join("profiles")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(text.contains("# Registers: "), "{name} has no source");
        let main = format!(
            "gateway.id = \"g\"\nmqtt.url = \"mqtt://b\"\n[device.x]\nprofile = \"{name}\"\nbus = {{ address = \"h:502\" }}\nunit = 1\n"
        );
        let installed = format!("usr/share/sluicegate/profiles/{name}.toml");
        let kind = text.parse::<toml::Table>().unwrap()["kind"].as_str().unwrap().to_owned();
        if crate::device::kind(&kind).is_none() {
            // Of a kind that is not built in.
            continue;
        }
        let config = layered(&[(MAIN, &main), (&installed, &text)], &[]).unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert!(!config.devices[0].points.is_empty(), "{name}");
        count += 1;
    }
    assert!(count >= 5 || crate::device::kind("modbus").is_none(), "{count} profiles");
}
