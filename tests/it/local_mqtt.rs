//! Devices on a broker of their own become devices of the gateway: a Tasmota plug and an ESPHome node that sleeps, on a
//! real mosquitto beside the gateway, which has another one for its cloud. What came and what did not is judged by the
//! brokers' records, and by the counters that the devices put into their values.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::{
    Agent, Audit, Esp, Gate, Heard, Mosquitto, Obeys, Observer, publish, publish_bytes, publish_lines,
    publish_lines_with, until,
};

/// A plug with Tasmota.
const PLUG: &str = r#"
[device.plug]
kind = "mqtt"
url = "mqtt://127.0.0.1:{local}"
version = "{version}"
status = { topic = "tele/plug/LWT" }
[device.plug.point.count]
topic = "tele/plug/SENSOR"
from = "/COUNTER/C1"
type = "int"
[device.plug.point.power]
topic = ["stat/plug/RESULT", "tele/plug/STATE"]
from = "/POWER"
type = "bool"
set = { topic = "cmnd/plug/POWER" }
"#;

/// A node with ESPHome, which sleeps between its messages.
const WEATHER: &str = r#"
[device.weather]
kind = "mqtt"
url = "mqtt://127.0.0.1:{local}"
version = "{version}"
status = { topic = "weather/status", online = "online", offline = "offline" }
interval = "1m"
awake = "10s"
[device.weather.point.count]
topic = "weather/sensor/count/state"
type = "int"
[device.weather.point.heater]
topic = "weather/switch/heater/state"
type = "bool"
map = { ON = true, OFF = false }
set = { topic = "weather/switch/heater/command" }
"#;

/// A broker that keeps what it has through `kill -9`, as far as it was saved.
const KEEPS: &str = "allow_anonymous true\nuser root\npersistence true\nautosave_on_changes true\nautosave_interval 1\n\
                     log_type all\nmax_queued_messages 0\nmax_inflight_messages 0\npersistence_location {folder}/\n";

/// A gateway, the broker of its devices, and the one in the cloud.
struct Site {
    _folder: tempfile::TempDir,
    local: Mosquitto,
    cloud: Mosquitto,
    gate: Gate,
    agent: Agent,
    observer: Observer,
}

impl Site {
    fn start(devices: &str) -> Self {
        Self::with(devices, "3.1.1")
    }

    fn with(devices: &str, version: &str) -> Self {
        Self::on(devices, version, KEEPS)
    }

    /// On a broker with this config.
    fn on(devices: &str, version: &str, broker: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let local = local_broker_with(&folder.path().join("local"), broker);
        std::fs::create_dir(folder.path().join("cloud")).unwrap();
        let cloud = Mosquitto::start(&folder.path().join("cloud"));
        let observer = Observer::start(cloud.port);
        let gate = Gate::to(cloud.port);
        let config = config(gate.port, local.port, devices, version);
        let agent = Agent::start(folder.path(), &config);
        // What comes before that is told twice: as the last value, and as the record.
        observer.wait_payload("sluicegate/g/status", "online");
        Site { _folder: folder, local, cloud, gate, agent, observer }
    }

    /// Waits until the broker sends the gateway what this device says.
    #[track_caller]
    fn is_subscribed(&self, device: &str) {
        let line = format!("Sending SUBACK to g-{device}");
        until("the gateway to subscribe", || self.local.log().contains(&line));
    }

    #[track_caller]
    fn wait_status(&self, device: &str, status: &str) {
        self.observer.wait_payload(&format!("sluicegate/g/{device}/status"), status);
    }

    /// Sends a command, whose outcome is this.
    #[track_caller]
    fn command(&self, point: &str, command: &str, outcome: &str) -> serde_json::Value {
        publish(self.cloud.port, &format!("sluicegate/g/{point}/set"), command);
        self.outcome(point, command, outcome)
    }

    #[track_caller]
    fn outcome(&self, point: &str, command: &str, outcome: &str) -> serde_json::Value {
        let id = serde_json::from_str::<serde_json::Value>(command).unwrap()["id"].clone();
        let found = self.observer.wait_json(&format!("sluicegate/g/{point}/outcome"), "id", id);
        assert_eq!(found["outcome"], outcome, "{found}");
        found
    }

    /// The values of a point, in the order in which they came, without those that are told once more.
    fn values(&self, point: &str) -> Vec<serde_json::Value> {
        let topic = format!("sluicegate/g/{point}");
        let fresh = |heard: &&Heard| heard.topic == topic && !heard.retained && heard.json()["repeat"] != true;
        self.observer.all().iter().filter(fresh).map(|heard| heard.json()["value"].clone()).collect()
    }

    /// Waits until the gateway has dealt with all that its broker sent for this device, which ends on this topic.
    #[track_caller]
    fn has_heard(&self, device: &str, topic: &str) {
        let (sending, received) =
            (format!("Sending PUBLISH to g-{device} "), format!("Received PUBACK from g-{device} "));
        until("the gateway to acknowledge what the device said", || {
            let log = self.local.log();
            let lines = || log.lines().filter(|line| line.contains(&sending));
            lines().next_back().is_some_and(|line| line.contains(topic))
                && lines().count() == log.lines().filter(|line| line.contains(&received)).count()
        });
    }

    /// Waits until all that the device has counted is in the cloud; how often something came twice.
    #[track_caller]
    fn all_came(&self, device: &str, esp: &Esp) -> usize {
        let topic = format!("sluicegate/g/{device}/count");
        let goal = esp.acked();
        self.observer.wait_json(&topic, "value", goal);
        // What came late may come behind what came live.
        let mut audit = Audit::default();
        until(&format!("{goal} numbers of {device} to come"), || {
            audit = Audit::of(&self.observer.all(), &topic);
            (1..=goal).all(|n| audit.values.contains(&n))
        });
        audit.duplicates
    }
}

fn local_broker(folder: &Path) -> Mosquitto {
    local_broker_with(folder, KEEPS)
}

fn local_broker_with(folder: &Path, config: &str) -> Mosquitto {
    std::fs::create_dir_all(folder).unwrap();
    Mosquitto::with(folder, &config.replace("{folder}", folder.to_str().unwrap()))
}

fn config(cloud: u16, local: u16, devices: &str, version: &str) -> String {
    let base =
        format!("[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{cloud}\"\n");
    base + &devices.replace("{local}", &local.to_string()).replace("{version}", version)
}

/// Waits until the broker has saved what it has: its file is younger than this call.
fn saved(site: &Site) {
    let file = site._folder.path().join("local/mosquitto.db");
    let modified = || std::fs::metadata(&file).and_then(|meta| meta.modified()).ok();
    let before = modified();
    until("the local broker to save", || {
        // Each of these is a change, and some changes make it save.
        publish_bytes(site.local.port, "nobody/hears", b"1", &["-r"]);
        modified() > before
    });
}

#[test]
fn two_devices_lose_nothing_through_kills_of_their_broker_and_of_the_gateway() {
    let mut site = Site::start(&format!("{PLUG}{WEATHER}"));
    let records = Observer::start(site.local.port);
    let (plug, weather) = (Esp::tasmota(site.local.port), Esp::esphome(site.local.port));
    site.wait_status("plug", "online");
    site.is_subscribed("weather");
    plug.count(true);
    weather.count(true);
    weather.run(true);
    site.wait_status("weather", "online");
    plug.count_on(20);

    // A command to the plug, which says itself what it did.
    site.command("plug/power", r#"{"value":true,"id":"on"}"#, "done");
    assert_eq!(plug.told(), [("cmnd/plug/POWER".to_owned(), "1".to_owned())]);
    let by_command = site.observer.wait_json("sluicegate/g/plug/power", "cause", "command:on");
    assert_eq!(by_command["value"], true);

    // Commands to the node wait until it is awake again, in their order, while the plug goes on.
    weather.run(false);
    site.has_heard("weather", "weather/status");
    let (first, second) = (r#"{"value":true,"id":"heat","ttl":"5m"}"#, r#"{"value":false,"id":"cool","ttl":"5m"}"#);
    for command in [first, second] {
        publish(site.cloud.port, "sluicegate/g/weather/heater/set", command);
    }
    plug.count_on(50);
    assert_eq!(site.all_came("plug", &plug), 0, "nothing comes twice while nothing fails");
    assert_eq!(weather.told(), [], "it sleeps");
    assert!(!records.all().iter().any(|heard| heard.topic == "weather/switch/heater/command"), "nothing was sent yet");
    weather.run(true);
    site.outcome("weather/heater", first, "done");
    site.outcome("weather/heater", second, "done");
    let command = |payload: &str| ("weather/switch/heater/command".to_owned(), payload.to_owned());
    assert_eq!(weather.told(), [command("ON"), command("OFF")]);

    // The cloud is cut off, and meanwhile the local broker is killed, with the devices and the gateway on it.
    site.gate.close();
    plug.count_on(50);
    weather.run(false);
    for round in 1..=3 {
        // What the broker sent and the gateway has not acknowledged is under way when it is killed, and what the devices
        // say next comes before the gateway has found it again.
        site.agent.freeze();
        plug.count_on(20);
        plug.count(false);
        saved(&site);
        site.local.kill();
        site.local.run();
        plug.count(true);
        plug.count_on(20);
        weather.run(true);
        weather.run(false);
        site.agent.thaw();
        let back = || site.agent.log().matches("device plug online again").count();
        until("the gateway to find the broker again", || back() == round);
    }
    plug.count_on(20);
    site.gate.open();
    let mut duplicates = site.all_came("plug", &plug);
    site.all_came("weather", &weather);
    assert!(duplicates > 0, "nothing was under way when the broker was killed");
    eprintln!("the broker killed three times: {} and {} numbers, {duplicates} twice", plug.acked(), weather.acked());

    // The gateway stops and comes back while the devices go on; then it is killed, and what they say meanwhile waits at
    // their broker, which is killed as well.
    assert!(site.agent.stop().success());
    plug.count_on(100);
    site.agent.run();
    plug.count_on(50);
    site.all_came("plug", &plug);
    plug.count(false);
    weather.run(false);
    site.all_came("weather", &weather);
    let before = site.all_came("plug", &plug);
    site.agent.kill();
    plug.count(true);
    plug.count_on(100);
    for _ in 0..5 {
        weather.run(true);
        weather.run(false);
    }
    plug.count(false);
    saved(&site);
    site.local.kill();
    site.local.run();
    let away = plug.acked();
    site.agent.run();
    duplicates = site.all_came("plug", &plug);
    assert_eq!(plug.acked(), away, "all of it waited at the broker");
    site.all_came("weather", &weather);
    eprintln!(
        "the gateway killed: {} and {} numbers, none lost, {} twice",
        plug.acked(),
        weather.acked(),
        duplicates.max(before)
    );
    weather.run(true);
    site.command("weather/heater", r#"{"value":true,"id":"again"}"#, "done");
    assert!(site.agent.stop().success());
}

#[test]
fn what_is_said_while_the_gateway_is_away_comes_later() {
    for version in ["3.1.1", "5"] {
        let mut site = Site::with(PLUG, version);
        let plug = Esp::tasmota(site.local.port);
        site.wait_status("plug", "online");
        plug.count(true);
        plug.count_on(10);
        assert!(site.agent.stop().success());
        plug.count_on(50);
        // A look at the device leaves what the broker keeps for the gateway as it is.
        let output = Agent::ask(site._folder.path(), &["check", "--devices"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("subscribed; tele/plug/LWT is `Online`"), "{output:?}");
        site.agent.run();
        site.all_came("plug", &plug);
        assert!(site.agent.stop().success());
    }
}

#[test]
fn a_device_is_as_it_says_itself() {
    let mut site = Site::start(PLUG);
    let plug = Esp::tasmota(site.local.port);
    site.wait_status("plug", "online");
    site.observer.clear();
    plug.run(false);
    site.wait_status("plug", "offline");
    let problem =
        site.observer.wait("why", |heard| heard.topic == "sluicegate/g/plug/problem" && heard.payload != "[]");
    assert!(problem.payload.contains("tele/plug/LWT is `Offline`"), "{}", problem.payload);
    let refused = site.command("plug/power", r#"{"value":true,"id":"off"}"#, "rejected");
    assert_eq!(refused["reason"], "offline");
    plug.run(true);
    site.wait_status("plug", "online");
    site.command("plug/power", r#"{"value":true,"id":"on"}"#, "done");
    assert_eq!(plug.told().len(), 1, "the one that was refused never came");

    // Its broker is away: so is it, and the reason says so. Nothing that was refused meanwhile is sent later.
    site.observer.clear();
    site.local.kill();
    site.wait_status("plug", "offline");
    let problem =
        site.observer.wait("why", |heard| heard.topic == "sluicegate/g/plug/problem" && heard.payload != "[]");
    assert!(problem.payload.contains("its broker mqtt://127.0.0.1:"), "{}", problem.payload);
    let refused = site.command("plug/power", r#"{"value":false,"id":"away"}"#, "rejected");
    assert_eq!(refused["reason"], "offline");
    site.local.run();
    site.wait_status("plug", "online");
    site.command("plug/power", r#"{"value":true,"id":"back"}"#, "done");
    let told: Vec<String> = plug.told().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, ["1", "1"]);
    assert!(site.agent.stop().success());
}

#[test]
fn what_waited_at_the_broker_says_nothing_of_now() {
    // As brokers are: what is under way at once is far less than what waits.
    let broker = KEEPS.replace("max_inflight_messages 0", "max_inflight_messages 20");
    let quick = PLUG.replace("cmnd/plug/POWER\" }", "cmnd/plug/POWER\" }\ntimeout = \"1s\"");
    for version in ["3.1.1", "5"] {
        let mut site = Site::on(&format!("{quick}{WEATHER}"), version, &broker);
        for device in ["plug", "weather"] {
            site.is_subscribed(device);
        }
        assert!(site.agent.stop().success());
        let local = site.local.port;
        let numbers = |range: std::ops::RangeInclusive<i32>| range.map(|n| format!("{n}\n")).collect::<String>();
        publish_lines(local, "weather/sensor/count/state", &numbers(1..=100));
        let sensor = |n: i32| format!("{{\"COUNTER\":{{\"C1\":{n}}}}}\n");
        publish_lines(local, "tele/plug/SENSOR", &(1..=90).map(sensor).collect::<String>());
        // It lost its power and came back; the broker does not keep what it says at QoS 0 but as the stored one.
        publish(local, "tele/plug/LWT", "Offline");
        publish_lines(local, "tele/plug/SENSOR", &(91..=100).map(sensor).collect::<String>());
        publish_lines_with(local, "tele/plug/LWT", "Online\n", &["-r", "-q", "0"]);
        let records = Observer::start(local);
        site.agent.run();
        for device in ["plug", "weather"] {
            site.observer.wait_json(&format!("sluicegate/g/{device}/count"), "value", 100);
        }
        site.wait_status("plug", "online");
        // Nobody is there to confirm it: but it was sent, since the plug is not taken for lost.
        site.command("plug/power", r#"{"value":true,"id":"on"}"#, "unknown");
        records.wait_payload("cmnd/plug/POWER", "1");
        // And the node was not heard since, so that it is not taken for awake.
        site.command("weather/heater", r#"{"value":true,"id":"late","ttl":"5m"}"#, "rejected");
        let sent = |heard: &Heard| heard.topic == "weather/switch/heater/command";
        assert!(!records.all().iter().any(sent), "it sleeps");
        // What it says now counts.
        publish(local, "weather/sensor/count/state", "101");
        site.wait_status("weather", "online");
        assert!(site.agent.stop().success());
    }
}

#[test]
fn a_command_does_not_outlive_its_outcome_at_the_broker() {
    let quick = PLUG.replace("cmnd/plug/POWER\" }", "cmnd/plug/POWER\" }\ntimeout = \"1s\"");
    let mut site = Site::with(&quick, "5");
    let plug = Esp::tasmota(site.local.port);
    site.wait_status("plug", "online");
    // A device with a session of its own that is away.
    let away = |arguments: &[&str]| {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &site.local.port.to_string(), "-q", "1", "-c", "-i", "away"]);
        command.args(["-t", "cmnd/plug/POWER", "-t", "last"]).args(arguments);
        command.output().expect("mosquitto_sub is installed")
    };
    assert!(away(&["-E"]).status.success());
    plug.obeys(Obeys::Silent);
    site.command("plug/power", r#"{"value":true,"id":"on"}"#, "unknown");
    // By the outcomes of two more, the life of the first one is over: they are what waits.
    for (id, value) in [("two", "false"), ("three", "false")] {
        site.command("plug/power", &format!(r#"{{"value":{value},"id":"{id}"}}"#), "unknown");
    }
    publish(site.local.port, "last", "end");
    let output = away(&["-W", "3"]);
    let came = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(came.ends_with("end\n") && !came.contains('1'), "{came}");
    assert!(site.agent.stop().success());
}

#[test]
fn a_broker_that_takes_no_marker_is_waited_for() {
    let rights = "topic readwrite tele/#\ntopic readwrite stat/#\ntopic readwrite cmnd/#\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rights");
    std::fs::write(&file, rights).unwrap();
    let broker = format!("{KEEPS}acl_file {}\n", file.display());
    for version in ["3.1.1", "5"] {
        let mut site = Site::on(PLUG, version, &broker);
        let _plug = Esp::tasmota(site.local.port);
        site.wait_status("plug", "online");
        assert!(site.local.log().contains("Denied PUBLISH from g-plug"), "{}", site.local.log());
        site.command("plug/power", r#"{"value":true,"id":"on"}"#, "done");
        assert!(site.agent.stop().success());
    }
}

#[test]
fn a_broker_that_is_away_at_the_start_harms_no_other_device() {
    let folder = tempfile::tempdir().unwrap();
    let mut local = local_broker(&folder.path().join("local"));
    local.kill();
    std::fs::create_dir(folder.path().join("cloud")).unwrap();
    let cloud = Mosquitto::start(&folder.path().join("cloud"));
    let observer = Observer::start(cloud.port);
    let other = "[device.demo]\nkind = \"sim\"\n[device.demo.point.x]\nwave = \"counter\"\nevery = \"10ms\"\n";
    let text = config(cloud.port, local.port, &format!("{PLUG}{other}"), "3.1.1");
    let mut agent = Agent::start(folder.path(), &text);
    observer.wait_json("sluicegate/g/demo/x", "value", 20);
    observer.wait_payload("sluicegate/g/plug/status", "offline");
    local.run();
    let _plug = Esp::tasmota(local.port);
    observer.wait_payload("sluicegate/g/plug/status", "online");
    assert!(agent.stop().success());
}

#[test]
fn an_outcome_is_what_the_device_says() {
    let heater = "[device.blind]\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{local}\"\n[device.blind.point.up]\n\
                  type = \"int\"\nset = { topic = \"blind/up\", payload = \"up {value}\" }\n\
                  [device.blind.point.down]\ntopic = \"blind/down/state\"\ntype = \"int\"\nconfirm = false\n\
                  set = { topic = \"blind/down\" }\n";
    let quick = PLUG.replace("cmnd/plug/POWER\" }", "cmnd/plug/POWER\" }\ntimeout = \"1s\"");
    let mut site = Site::start(&format!("{quick}{heater}"));
    let records = Observer::start(site.local.port);
    let plug = Esp::tasmota(site.local.port);
    site.wait_status("plug", "online");
    plug.obeys(Obeys::No);
    let failed = site.command("plug/power", r#"{"value":true,"id":"no"}"#, "failed");
    assert_eq!(failed["text"], "the device did not do it; it says that `power` is OFF");
    plug.obeys(Obeys::Silent);
    let unknown = site.command("plug/power", r#"{"value":true,"id":"silent"}"#, "unknown");
    assert_eq!(unknown["text"], "it was published, and the device did not say `power` in time");
    plug.obeys(Obeys::Yes);
    site.command("plug/power", r#"{"value":true,"id":"yes"}"#, "done");
    assert_eq!(plug.told().len(), 3, "each came once");
    // Where the device does not report, the broker's word is what there is. Several points go out together.
    publish(site.local.port, "blind/down/state", "0");
    site.wait_status("blind", "online");
    site.command("blind/up", r#"{"value":7,"id":"up"}"#, "done");
    records.wait_payload("blind/up", "up 7");
    publish(site.cloud.port, "sluicegate/g/blind/set", r#"{"values":{"up":1,"down":2},"id":"both"}"#);
    let both = site.observer.wait_json("sluicegate/g/blind/outcome", "id", "both");
    assert_eq!(both["outcome"], "done", "{both}");
    records.wait_payload("blind/up", "up 1");
    records.wait_payload("blind/down", "2");
    assert!(!records.all().iter().any(|heard| heard.retained), "no command is stored");
    assert_eq!(Observer::retained(site.local.port, "blind/#").len(), 0);
    assert!(site.agent.stop().success());
}

#[test]
fn a_rule_knows_what_was_switched_at_the_device() {
    let guarded = PLUG.replace("cmnd/plug/POWER\" }", "cmnd/plug/POWER\" }\nsafe = false\nmax_on = \"1s\"");
    let mut site = Site::start(&guarded);
    let plug = Esp::tasmota(site.local.port);
    site.wait_status("plug", "online");
    // Somebody keeps its button pressed: what the start wants may come in between.
    let by_rule = |heard: &Heard| heard.topic == "sluicegate/g/plug/power" && heard.json()["cause"] == "max_on";
    until("the rule to switch it off", || {
        publish(site.local.port, "stat/plug/RESULT", r#"{"POWER":"ON"}"#);
        site.observer.all().iter().any(by_rule)
    });
    assert_eq!(plug.told().last(), Some(&("cmnd/plug/POWER".to_owned(), "0".to_owned())));
    assert!(site.agent.stop().success());
}

#[test]
fn a_command_that_waits_for_a_sleeper_expires_unheard() {
    let mut site = Site::start(WEATHER);
    let weather = Esp::esphome(site.local.port);
    weather.count(true);
    site.is_subscribed("weather");
    weather.run(true);
    site.wait_status("weather", "online");
    weather.run(false);
    site.has_heard("weather", "weather/status");
    let expired = site.command("weather/heater", r#"{"value":true,"id":"late","ttl":"3s"}"#, "expired");
    assert!(expired["text"].as_str().unwrap().contains("woke up"), "{expired}");
    weather.run(true);
    site.command("weather/heater", r#"{"value":false,"id":"next"}"#, "done");
    let told: Vec<String> = weather.told().into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(told, ["OFF"], "the one that expired never came");
    assert!(site.agent.stop().success());
}

#[test]
fn what_a_broker_has_stored_counts_only_where_it_is_wanted() {
    let shelf = "[device.shelf]\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{local}\"\nversion = \"{version}\"\n\
                 [device.shelf.point.old]\ntopic = \"shelf/old\"\n[device.shelf.point.kept]\ntopic = \"shelf/kept\"\n\
                 stored = true\n";
    for version in ["3.1.1", "5"] {
        let mut site = Site::with("", version);
        for (topic, value) in [("shelf/old", "1"), ("shelf/kept", "2")] {
            publish_bytes(site.local.port, topic, value.as_bytes(), &["-r"]);
        }
        let text = config(site.gate.port, site.local.port, shelf, version);
        assert!(site.agent.stop().success());
        Agent::configure(site._folder.path(), &text);
        site.agent.run();
        site.observer.wait_json("sluicegate/g/shelf/kept", "value", "2");
        site.wait_status("shelf", "online");
        // What comes live counts, also when it is to be stored; and what is stored is not told again when the link is
        // made anew.
        publish_bytes(site.local.port, "shelf/old", b"3", &["-r"]);
        publish_bytes(site.local.port, "shelf/kept", b"4", &["-r"]);
        site.observer.wait_json("sluicegate/g/shelf/old", "value", "3");
        site.observer.wait_json("sluicegate/g/shelf/kept", "value", "4");
        saved(&site);
        site.observer.clear();
        site.local.kill();
        site.wait_status("shelf", "offline");
        site.local.run();
        site.agent.wait_log("device shelf online again");
        publish(site.local.port, "shelf/old", "5");
        publish(site.local.port, "shelf/kept", "6");
        site.observer.wait_json("sluicegate/g/shelf/old", "value", "5");
        site.observer.wait_json("sluicegate/g/shelf/kept", "value", "6");
        assert_eq!(site.values("shelf/old"), ["5"]);
        assert_eq!(site.values("shelf/kept"), ["6"]);
        assert!(site.agent.stop().success());
    }
}

#[test]
fn a_topic_that_is_too_long_is_passed_over() {
    let any = "[device.any]\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{local}\"\n[device.any.point.x]\n\
               topic = \"any/+\"\nstored = true\n";
    let mut site = Site::start(any);
    site.is_subscribed("any");
    publish(site.local.port, &format!("any/{}", "x".repeat(997)), "1");
    publish(site.local.port, &format!("any/{}", "x".repeat(996)), "2");
    site.observer.wait_json("sluicegate/g/any/x", "value", "2");
    assert_eq!(site.values("any/x"), ["2"]);
    assert!(site.agent.stop().success());
}

#[test]
fn a_device_may_speak_xml() {
    let tank = "[device.tank]\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{local}\"\ndecode = { kind = \"xml\" }\n\
                [device.tank.point.level]\ntopic = \"tank\"\nfrom = \"/tank/level\"\ntype = \"float\"\n\
                [device.tank.point.unit]\ntopic = \"tank\"\nfrom = \"/tank/level/@unit\"\n";
    let mut site = Site::start(tank);
    site.is_subscribed("tank");
    publish(site.local.port, "tank", "<tank><level unit='cm'>&boom;</level></tank>");
    publish(site.local.port, "tank", "<?xml version='1.0'?><tank><level unit='cm'>21.5</level></tank>");
    site.observer.wait_json("sluicegate/g/tank/level", "value", 21.5);
    site.observer.wait_json("sluicegate/g/tank/unit", "value", "cm");
    assert_eq!(site.values("tank/level"), [21.5], "the one with an entity of its own is no reading");
    assert!(site.agent.stop().success());
}

#[test]
fn hostile_messages_harm_nothing() {
    let mut site = Site::start(&format!("{PLUG}{WEATHER}"));
    let plug = Esp::tasmota(site.local.port);
    site.wait_status("plug", "online");
    plug.count(true);
    plug.count_on(10);
    let before = site.agent.memory();
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let long = format!(r#"{{"COUNTER":{{"C1":"{}"}}}}"#, "9".repeat(200_000));
    let huge = vec![b'{'; 300 * 1024];
    let hostile: [&[u8]; 9] = [
        b"",
        b"\0",
        b"\xff\xfe\x80",
        b"{\"COUNTER\":{\"C1\":null}}",
        b"{\"COUNTER\":1e999}",
        &deep,
        long.as_bytes(),
        &huge,
        b"NaN",
    ];
    for _ in 0..3 {
        for payload in hostile {
            for topic in ["tele/plug/SENSOR", "tele/plug/LWT", "stat/plug/RESULT", "weather/sensor/count/state"] {
                publish_bytes(site.local.port, topic, payload, &[]);
            }
        }
    }
    plug.count_on(10);
    plug.count(false);
    site.observer.wait_json("sluicegate/g/plug/count", "value", plug.acked());
    site.command("plug/power", r#"{"value":true,"id":"on"}"#, "done");
    let bad = |heard: &&Heard| heard.topic == "sluicegate/g/plug/count" && heard.json()["quality"] == "bad";
    assert!(site.observer.all().iter().filter(bad).count() >= 3, "what is null is no value, and is said");
    let values: BTreeSet<i64> = site.values("plug/count").iter().filter_map(serde_json::Value::as_i64).collect();
    assert_eq!(values, (1..=plug.acked()).collect());
    let after = site.agent.memory();
    eprintln!("resident before {before} KiB, after {after} KiB");
    assert!(after < before + 4096, "from {before} KiB to {after} KiB");
    let log = site.agent.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.matches("a message can't be read").count() <= 2, "once for each device");
    assert!(site.agent.stop().success());
}

#[test]
fn a_password_that_is_replaced_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    let users = folder.path().join("users");
    let mut tool = Command::new("mosquitto_passwd");
    let made = tool.args(["-b", "-c"]).arg(&users).args(["g-user", "right"]).status();
    assert!(made.expect("mosquitto_passwd is installed").success());
    std::fs::create_dir(folder.path().join("local")).unwrap();
    let local = Mosquitto::with(
        &folder.path().join("local"),
        &format!("allow_anonymous false\nuser root\npassword_file {}\n", users.display()),
    );
    std::fs::create_dir(folder.path().join("cloud")).unwrap();
    let cloud = Mosquitto::start(&folder.path().join("cloud"));
    let observer = Observer::start(cloud.port);
    std::fs::write(&password, "wrong").unwrap();
    let login = format!("version = \"3.1.1\"\nusername = \"{{id}}-user\"\npassword.file = {password:?}");
    let devices = PLUG.replace("version = \"{version}\"", &login);
    let mut agent = Agent::start(folder.path(), &config(cloud.port, local.port, &devices, "3.1.1"));
    let problem = observer.wait("why", |heard| heard.topic == "sluicegate/g/plug/problem" && heard.payload != "[]");
    assert!(problem.payload.contains("the broker refused the connection"), "{}", problem.payload);
    std::fs::write(&password, "right").unwrap();
    agent.hang_up();
    agent.wait_log("device plug: started anew");
    publish_lines_with(local.port, "tele/plug/LWT", "Online\n", &["-u", "g-user", "-P", "right"]);
    observer.wait_payload("sluicegate/g/plug/status", "online");
    // One that can't be read does not end what goes on.
    std::fs::remove_file(&password).unwrap();
    agent.hang_up();
    agent.wait_log("the new config is refused, and the old one goes on: device.plug: can't read the secret");
    assert!(agent.stop().success());
}
