//! The command line.

use crate::support::{Agent, Pty, free_port};

#[test]
fn kinds_and_the_config_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config =
        format!("[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n");
    Agent::configure(folder.path(), &config);
    let kinds = Agent::ask(folder.path(), &["list-kinds"]);
    let kinds = String::from_utf8_lossy(&kinds.stdout).into_owned();
    for kind in ["gpio", "serial", "sim"] {
        assert!(kinds.lines().any(|line| line.starts_with(kind)), "{kinds}");
        let sample = Agent::ask(folder.path(), &["list-kinds", kind]);
        assert!(String::from_utf8_lossy(&sample.stdout).contains(&format!("kind = \"{kind}\"")));
    }
    let printed = Agent::ask(folder.path(), &["print-config"]);
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(text.contains("keep_alive = \"30s\"") && text.contains("window = 64"), "{text}");
    // What is printed is a config.
    Agent::configure(folder.path(), &text);
    let checked = Agent::ask(folder.path(), &["check"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert_eq!(String::from_utf8_lossy(&checked.stdout), "config: ok: gateway g, 0 devices\n");
}

#[test]
fn a_check_says_which_device_and_broker_do_not_work() {
    let folder = tempfile::tempdir().unwrap();
    let pty = Pty::new(&folder.path().join("there"));
    let port = free_port();
    let device = |name: &str, path: &str| {
        format!("[device.{name}]\nkind = \"serial\"\nport = \"{path}\"\n[device.{name}.point.x]\n")
    };
    let config = format!(
        "[gateway]\nid = \"g\"\nstate_directory = \"{{state}}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\n{}{}",
        device("there", pty.path()),
        device("away", "/dev/ttyUSB99")
    );
    Agent::configure(folder.path(), &config);
    let checked = Agent::ask(folder.path(), &["check", "--devices", "--broker"]);
    assert_eq!(checked.status.code(), Some(69), "{checked:?}");
    let text = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(text.contains("device there: ok: "), "{text}");
    assert!(text.contains("device away: failed: ") && text.contains("/dev/ttyUSB99"), "{text}");
    assert!(text.contains(&format!("broker mqtt://127.0.0.1:{port}: failed: no connection")), "{text}");
    assert!(text.contains("see whether mqtt.url has the right host and port"), "{text}");
    assert!(text.contains("\nclock: "), "{text}");
}

#[test]
fn what_is_discovered_is_a_config() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody has configured anything yet.
    let found = Agent::ask(folder.path(), &["discover"]);
    assert!(found.status.success() && found.stderr.is_empty(), "{found:?}");
    let text = String::from_utf8(found.stdout).unwrap();
    assert!(text.contains("\n# --- GPIO\n") && text.contains("\n# --- serial ports\n"), "{text}");
    let rest = "[gateway]\nid = \"g\"\n[mqtt]\nurl = \"mqtt://127.0.0.1\"\n";
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(config) if !config.starts_with(' ') => config.to_owned(),
        _ => line.to_owned(),
    };
    let all: Vec<String> = text.lines().map(switched_on).collect();
    for devices in [text.clone(), all.join("\n")] {
        Agent::configure(folder.path(), &format!("{rest}{devices}"));
        let checked = Agent::ask(folder.path(), &["check"]);
        assert!(checked.status.success(), "{checked:?}\n{devices}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    Agent::configure(folder.path(), "[gateway]\nid = \"g\"\n[mqtt]\nurl = \"mqtt://127.0.0.1\"\n");
    for command in [&["list-kinds"][..], &["discover"], &["list-kinds", "gpio"], &["print-config"], &["check"]] {
        let (status, errors) = Agent::unread(folder.path(), command);
        assert!(status.success() && errors.is_empty(), "{command:?}: {status:?} {errors}");
    }
}
