//! Points in somebody else's tree of topics: `mqtt.topic`.

use crate::support::{Agent, Mosquitto, Observer, publish, until};

const CONFIG: &str = r#"
[gateway]
id = "g"
state_directory = "{state}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
topic = "plant/hall-3/{gateway}/{point}/of/{device}"
[device.tank]
kind = "sim"
[device.tank.point.level]
wave = "counter"
every = "50ms"
[device.tank.point.valve]
wave = "switch"
safe = false
"#;

#[test]
fn points_stand_where_the_template_puts_them() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start(folder.path());
    let observer = Observer::start(broker.port);
    let config = CONFIG.replace("{port}", &broker.port.to_string());
    let mut agent = Agent::start(folder.path(), &config);
    let info = observer.wait("info", |heard| heard.topic == "sluicegate/g/info").json();
    assert_eq!(info["topic"], "plant/hall-3/g/{point}/of/{device}");
    observer.wait("a reading", |heard| heard.topic == "plant/hall-3/g/level/of/tank");

    // Where the point was by default is nobody now: if that acted, its outcome would come before the next one's.
    publish(broker.port, "sluicegate/g/tank/valve/set", r#"{"value":true,"id":"nobody"}"#);
    let valve = "plant/hall-3/g/valve/of/tank";
    publish(broker.port, &format!("{valve}/set"), r#"{"value":true,"id":"c-1"}"#);
    observer.wait_json(&format!("{valve}/outcome"), "id", "c-1");
    observer.wait_json(valve, "cause", "command:c-1");
    publish(broker.port, "sluicegate/g/tank/set", r#"{"values":{"valve":false},"id":"c-2"}"#);
    observer.wait_json("sluicegate/g/tank/outcome", "id", "c-2");
    assert!(!observer.all().iter().any(|heard| heard.payload.contains("nobody\",\"outcome")));
    let ours = |heard: &crate::support::Heard| heard.topic.starts_with("sluicegate/g/tank/level");
    assert!(!observer.all().iter().any(ours));

    // What is not here may be another gateway's; a point that this one's device does not have is nobody's.
    publish(broker.port, "plant/hall-3/g/valve/of/well/set", r#"{"value":true,"id":"well"}"#);
    publish(broker.port, "plant/hall-3/g/lid/of/tank/set", r#"{"value":true,"id":"lid"}"#);
    observer.wait_json("plant/hall-3/g/lid/of/tank/outcome", "id", "lid");
    assert!(!observer.all().iter().any(|heard| heard.topic.ends_with("well/outcome")));

    let checked = Agent::ask(folder.path(), &["check", "--broker"]);
    assert!(checked.status.success(), "{checked:?}");

    // A template that moves takes what the broker retains with it: by a reload, and by a restart.
    let retained = || Observer::retained(broker.port, "plant/#").into_keys().collect::<Vec<_>>();
    assert!(retained().contains(&valve.to_owned()));
    let moved = config.replace("plant/hall-3/{gateway}/{point}/of/{device}", "plant/{id}/{device}/{point}");
    Agent::configure(folder.path(), &moved);
    agent.hang_up();
    until("the topics to move", || retained() == ["plant/g/tank/level", "plant/g/tank/valve"]);
    agent.stop();
    Agent::configure(folder.path(), &config.replace("topic =", "#"));
    agent.run();
    until("the topics to move below the root", || retained().is_empty());
    observer.wait("a reading below the root", ours);
}

#[test]
fn topics_that_would_be_two_things_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG
        .replace("{port}", "1")
        .replace("plant/hall-3/{gateway}/{point}/of/{device}", "sluicegate/{device}/{point}")
        .replace("device.tank.point.valve", "device.tank.point.g")
        .replace("[device.tank", "[device.g")
        + "[device.level]\nkind = \"sim\"\n[device.level.point.x]\nwave = \"counter\"\n";
    Agent::configure(folder.path(), &config);
    let checked = Agent::ask(folder.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(78));
    let text = String::from_utf8_lossy(&checked.stderr);
    let expected =
        "mqtt.topic: `sluicegate/g/level/outcome` would be both the outcomes of g.level and `outcome` of level";
    assert!(text.contains(expected) && text.contains(":7:"), "{text}");
}
