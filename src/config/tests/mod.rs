//! The config as a whole: layers, precedence, and what is put together from them.

mod buses;
mod compare;
mod shipped;
mod wrong;
mod wrong_devices;
mod wrong_tables;

use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::device::Kind;
use crate::model::{Lane, Rate, Size, Span};
use crate::queue::{Keep, Sync};
use crate::uplink::Payload;

/// What a config can't do without.
const RIGHT: &str = "gateway.id = \"pump-7\"\nmqtt.url = \"mqtts://b\"\n";

const BASE: &str = r#"
[gateway]
id = "pump-house-7"

[mqtt]
url = "mqtts://broker.example.com"
password = { file = "/etc/sluicegate/{id}.password" }
username = "{id}"

[device.Tank-1]
kind = "serial"
port = "/dev/ttyUSB0"
[device.Tank-1.point.Level]
unit = "cm"
[device.Tank-1.point.Valve]
type = "int"
write = "VALVE {value}\n"
timeout = "5s"
lane = "alarm"
payload = "value"
"#;

/// The config that these files below an empty root make, with these variables.
fn layered(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    load(&sources(root.path(), variables)).map_err(|errors| {
        let shown = |error: &ConfigError| error.to_string().replace(&format!("{}/", root.path().display()), "");
        errors.iter().map(shown).collect()
    })
}

fn sources(root: &Path, variables: &[(&str, &str)]) -> Sources {
    Sources {
        places: Places::Standard(root.to_owned()),
        instance: None,
        environment: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        host_name: "host-7".to_owned(),
    }
}

const MAIN: &str = "etc/sluicegate/sluicegate.toml";

#[test]
fn a_point_gets_its_keys_from_all_owners() {
    let config = layered(&[(MAIN, BASE)], &[]).unwrap();
    assert_eq!(config.gateway.id.as_str(), "pump-house-7");
    assert_eq!(config.mqtt.username.as_deref(), Some("pump-house-7"));
    assert_eq!(config.mqtt.password, Some(link::Secret::File("/etc/sluicegate/pump-house-7.password".into())));
    let [device] = config.devices.as_slice() else { panic!("one device") };
    assert_eq!((device.plan.device.as_str(), device.plan.kind), ("Tank-1", "serial"));
    assert_eq!(device.plan.max_rate, Rate::Limit { count: 1000, per: std::time::Duration::from_secs(1) });
    let [level, valve] = device.points.as_slice() else { panic!("two points") };
    assert_eq!((level.point.name.as_str(), level.point.unit.as_deref()), ("Level", Some("cm")));
    assert!(!level.point.writable && valve.point.writable);
    assert_eq!(level.queue, queue::PointConfig::default());
    assert_eq!(level.uplink, uplink::PointConfig::default());
    assert_eq!(valve.command.timeout, Span::secs(5));
    assert_eq!((valve.queue.lane, valve.uplink.payload), (Lane::Alarm, Payload::Value));
    assert_eq!(valve.queue.keep, Keep::Latest, "implied by the bare value");
    let planned: Vec<_> = device.plan.points.iter().map(|(point, _, _)| point).collect();
    assert_eq!(planned, [&level.point, &valve.point]);
}

#[test]
fn a_later_layer_wins_and_changes_no_more_than_it_says() {
    let vendor = ("usr/lib/sluicegate/conf.d/10-vendor.toml", "mqtt.window = 10\nmqtt.keep_alive = \"10s\"");
    let main = format!("{BASE}[queue]\ntelemetry.max_bytes = \"32MiB\"\n");
    let main = (MAIN, main.as_str());
    let first = ("etc/sluicegate/conf.d/10-a.toml", "mqtt.window = 20\ndevice.Tank-1.baud_rate = 19200");
    let second = ("etc/sluicegate/conf.d/20-b.toml", "mqtt.window = 30\nqueue.telemetry.sync = \"never\"");
    let variable = ("SLUICEGATE__MQTT__WINDOW", "40");
    let window = |files: &[_], variables: &[_]| layered(files, variables).unwrap().mqtt.window;
    assert_eq!(window(&[main], &[]), 64);
    assert_eq!(window(&[vendor, main], &[]), 10);
    assert_eq!(window(&[second, vendor, main, first], &[]), 30);
    assert_eq!(window(&[vendor, main, first, second], &[variable]), 40);

    let config = layered(&[vendor, main, first, second], &[]).unwrap();
    assert_eq!(config.mqtt.keep_alive, Span::secs(10));
    assert_eq!((config.queue.telemetry.max_bytes, config.queue.telemetry.sync), (Size(32 << 20), Sync::Never));
    assert_eq!(config.devices[0].points.len(), 2);
}

#[test]
fn a_drop_in_changes_one_key_of_one_device() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("etc/sluicegate/conf.d")).unwrap();
    std::fs::write(root.path().join(MAIN), BASE).unwrap();
    let shown = || print(&sources(root.path(), &[])).unwrap();
    let before = shown();
    let drop_in = "[device.Tank-1]\nport = \"/dev/ttyUSB1\"\n";
    std::fs::write(root.path().join("etc/sluicegate/conf.d/port.toml"), drop_in).unwrap();
    assert_eq!(shown(), before.replace("/dev/ttyUSB0", "/dev/ttyUSB1"));
    assert_ne!(shown(), before);
}

#[test]
fn files_that_are_no_config_are_not_read() {
    let others = [".hidden.toml", "notes.txt", "sluicegate.toml~", "a.toml.dpkg-old"];
    let mut files: Vec<(String, &str)> =
        others.iter().map(|name| (format!("etc/sluicegate/conf.d/{name}"), "not = [toml")).collect();
    files.push((MAIN.to_owned(), BASE));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    assert!(layered(&files, &[]).is_ok());
}

#[test]
fn an_instance_has_files_of_its_own_above_those_of_the_image() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(MAIN, "not = [toml");
    write("etc/sluicegate/conf.d/a.toml", "not = [toml");
    write("usr/lib/sluicegate/conf.d/image.toml", &format!("{BASE}\n[health]\ninterval = \"5m\""));
    let mut sources = sources(root.path(), &[]);
    sources.instance = Some("pumps".parse().unwrap());
    let errors = load(&sources).unwrap_err();
    let expected = format!("config: no config was found: expected {}/etc/sluicegate/pumps.toml", root.path().display());
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    write("etc/sluicegate/pumps.toml", "mqtt.window = 7\nmqtt.keep_alive = \"20s\"");
    write("etc/sluicegate/pumps.d/more.toml", "mqtt.window = 8");
    let config = load(&sources).unwrap();
    assert_eq!((config.mqtt.window, config.mqtt.keep_alive.0.as_secs()), (8, 20));
    assert_eq!(config.health.interval.0.as_secs(), 300);
    // The image's id is that of the board's gateway without a name.
    assert_eq!(config.gateway.id.as_str(), "pump-house-7-pumps");
    write("etc/sluicegate/pumps.d/more.toml", "gateway.id = \"well\"");
    assert_eq!(load(&sources).unwrap().gateway.id.as_str(), "well");
}

#[test]
fn one_file_alone_is_read_when_it_is_named() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("my.toml");
    std::fs::write(&path, BASE).unwrap();
    let mut sources = sources(root.path(), &[("SLUICEGATE__MQTT__WINDOW", "7")]);
    std::fs::create_dir_all(root.path().join("etc/sluicegate")).unwrap();
    std::fs::write(root.path().join(MAIN), "not = [toml").unwrap();
    sources.places = Places::File(path.clone());
    assert_eq!(load(&sources).unwrap().mqtt.window, 7);
    std::fs::remove_file(&path).unwrap();
    let errors = load(&sources).unwrap_err();
    let expected = format!("{}: can't be read: No such file or directory (os error 2)", path.display());
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_variable_sets_a_key() {
    let with = |variables: &[(&str, &str)]| layered(&[(MAIN, BASE)], variables);
    let config = with(&[
        ("SLUICEGATE__MQTT__VERSION", "5"),
        ("SLUICEGATE__MQTT__USERNAME", "1234"),
        ("SLUICEGATE__MQTT__PASSWORD__ENV", "SECRET"),
        ("SLUICEGATE__MQTT__URL", "[\"mqtts://a\", \"mqtts://b\"]"),
        ("SLUICEGATE__QUEUE__REPLAY", "{ rate = \"off\" }"),
        ("SLUICEGATE__DEVICE__TANK_1__POINT__LEVEL__UNIT", "m"),
        ("SLUICEGATE_LOG", "debug"),
        ("HOME", "/root"),
    ])
    .unwrap();
    assert_eq!(config.mqtt.version, link::Version::V5);
    assert_eq!(config.mqtt.username.as_deref(), Some("1234"));
    assert_eq!(config.mqtt.password, Some(link::Secret::Env("SECRET".to_owned())));
    assert_eq!(config.mqtt.url.0.len(), 2);
    assert_eq!(config.queue.replay.rate, Rate::Off);
    assert_eq!(config.devices[0].points[0].point.unit.as_deref(), Some("m"));
}

#[test]
fn a_config_may_stand_in_variables_alone() {
    let config = layered(&[], &[("SLUICEGATE__MQTT__URL", "mqtt://broker"), ("STATE_DIRECTORY", "/data")]).unwrap();
    assert_eq!(config.gateway.id.as_str(), "host-7");
    assert_eq!(config.gateway.state_directory, Path::new("/data"));
    let nothing = "config: no config was found: expected /etc/sluicegate/sluicegate.toml, or --config FILE";
    assert_eq!(layered(&[], &[("HOME", "/root")]).unwrap_err(), [nothing]);
}

#[test]
fn what_is_wrong_is_blamed_on_the_layer_that_said_it() {
    let drop_in = ("etc/sluicegate/conf.d/10-a.toml", "[mqtt]\nwindow = 0\n");
    let main = (MAIN, BASE);
    let expected = "expected a whole number from 1 to 1000, found";
    for (files, variables, place) in [
        (vec![main, drop_in], vec![], "etc/sluicegate/conf.d/10-a.toml:2:10: mqtt.window: {expected} 0"),
        (
            vec![main, drop_in],
            vec![("SLUICEGATE__MQTT__WINDOW", "many")],
            "SLUICEGATE__MQTT__WINDOW: mqtt.window: {expected} \"many\"",
        ),
        (vec![main], vec![("SLUICEGATE__MQTT__WINDOW", "0")], "SLUICEGATE__MQTT__WINDOW: mqtt.window: {expected} 0"),
        (
            vec![main],
            vec![("SLUICEGATE__MQTT__WINDWO", "5")],
            "SLUICEGATE__MQTT__WINDWO: mqtt.windwo: unknown key (did you mean `window`?)",
        ),
        (
            vec![main],
            vec![("SLUICEGATE__MQQT__WINDOW", "5")],
            "SLUICEGATE__MQQT__WINDOW: mqqt: unknown key (did you mean `mqtt`?)",
        ),
        (
            vec![main],
            vec![("SLUICEGATE__DEVICE__TANK_1__POINT__LEVEL__SCALE", "x")],
            "SLUICEGATE__DEVICE__TANK_1__POINT__LEVEL__SCALE: device.Tank-1.point.Level.scale: expected a number, \
             found \"x\"",
        ),
        (
            vec![main],
            vec![("SLUICEGATE__MQTT__PASSWORD", "hunter2")],
            "SLUICEGATE__MQTT__PASSWORD: mqtt.password: a secret is not written into the config: expected \
             { file = \"…\" }, { env = \"…\" } or { credential = \"…\" }",
        ),
        (
            vec![main],
            vec![("SLUICEGATE__MQTT____WINDOW", "5")],
            "SLUICEGATE__MQTT____WINDOW: expected SLUICEGATE__TABLE__KEY, such as SLUICEGATE__MQTT__WINDOW",
        ),
    ] {
        assert_eq!(layered(&files, &variables).unwrap_err(), [place.replace("{expected}", expected)]);
    }
}

#[test]
fn every_broken_file_is_told() {
    let drop_in = ("etc/sluicegate/conf.d/10-a.toml", "[mqtt\n");
    assert_eq!(
        layered(&[(MAIN, "a = 1\na = 2"), drop_in], &[]).unwrap_err(),
        [
            "etc/sluicegate/sluicegate.toml:2:1: not TOML: duplicate key",
            "etc/sluicegate/conf.d/10-a.toml:1:6: not TOML: unclosed table, expected `]`",
        ]
    );
}

#[test]
fn what_is_printed_reads_as_the_same_config() {
    let (config, table) = load_with(&Sources::text("base", BASE), KINDS).unwrap();
    let text = print::text(&config, table);
    for line in ["window = 64", "baud_rate", "keep = \"latest\"", "sync = \"1s\"", "retain = true", "timeout = \"2s\""]
    {
        let said = text.lines().any(|shown| shown.starts_with(line));
        assert_eq!(said, !["baud_rate", "timeout = \"2s\""].contains(&line), "{line} in:\n{text}");
    }
    let (again, table) = load_with(&Sources::text("printed", &text), KINDS).unwrap();
    assert_eq!(print::text(&again, table), text);
    assert_eq!(again.mqtt, config.mqtt);
    assert_eq!(again.queue, config.queue);
    assert_eq!(again.devices[0].points, config.devices[0].points);
}

#[test]
fn no_key_of_a_point_has_two_owners() {
    for kind in KINDS {
        let mut owners: Vec<(&str, &[&str])> = devices::OWNERS.iter().map(|(name, keys)| (*name, *keys)).collect();
        owners.push((kind.name, (kind.point_keys)()));
        let mut seen = BTreeSet::new();
        for (owner, keys) in owners {
            for key in keys {
                assert!(seen.insert(*key), "`{key}` of {owner} has another owner, too (kind {})", kind.name);
            }
        }
        let common: Vec<_> = devices::of_device().chain(["point"]).collect();
        assert_eq!(common.iter().collect::<BTreeSet<_>>().len(), common.len(), "{common:?}");
        let both: Vec<_> = (kind.device_keys)().iter().filter(|key| common.contains(key)).collect();
        assert!(both.is_empty(), "{both:?} of kind {}", kind.name);
    }
}

#[test]
fn the_sample_of_every_kind_is_a_config() {
    for Kind { name, sample, .. } in KINDS {
        let mut text = format!("gateway.id = \"a\"\nmqtt.url = \"mqtt://b\"\n{sample}");
        for (device, points) in [("pump-1", ["power", "x"]), ("pump-2", ["power", "x"])]
            .into_iter()
            .chain([("boiler", ["flow", "return"]), ("hall", ["north", "south"])])
            // What a point is made of, another device has.
            .filter(|_| *name == "derived")
        {
            let [one, other] = points.map(|point| format!("{point} = {{ wave = \"sine\" }}\n"));
            text.push_str(&format!("[device.{device}]\nkind = \"sim\"\n[device.{device}.point]\n{one}{other}"));
        }
        let config = load(&Sources::text(name, &text));
        assert!(config.is_ok(), "{:#?}", config.err());
    }
}
