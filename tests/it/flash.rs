//! What a real gateway makes of a flash in trouble: it always starts, always goes on, and always says so.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Agent, Flash, Gate, Mosquitto, Observer, Pty, Report, audit, until};

fn config(port: u16, pty: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
[queue]
telemetry = {{ sync = "always" }}
replay = {{ rate = "off" }}
[device.meter]
kind = "serial"
port = "{pty}"
max_rate = "off"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.meter.point.count]
from = "n"
type = "int"
retain = false
"#
    )
}

/// A gateway that is not started yet, so that its flash can be prepared.
struct Site {
    folder: tempfile::TempDir,
    _broker: Mosquitto,
    gate: Gate,
    pty: Pty,
    observer: Observer,
    said: u64,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_queued_messages 0\n");
        let gate = Gate::to(broker.port);
        let pty = Pty::new(&folder.path().join("meter"));
        let observer = Observer::start(broker.port);
        Site { folder, _broker: broker, gate, pty, observer, said: 0 }
    }

    fn start(&self) -> Agent {
        self.start_with(&[])
    }

    fn start_with(&self, environment: &[(&str, &str)]) -> Agent {
        let config = config(self.gate.port, self.pty.path());
        let agent = Agent::start_with(self.folder.path(), &config, environment);
        until("the device", || agent.status().is_some_and(|of| of["devices"]["meter"]["state"] == "online"));
        agent
    }

    /// The folder of the queue, made where it is not there.
    fn queue(&self) -> PathBuf {
        self.folder.path().join("state/queue")
    }

    /// The folder of the lane, made where it is not there.
    fn lane(&self) -> PathBuf {
        let lane = self.queue().join("telemetry");
        fs::create_dir_all(&lane).unwrap();
        lane
    }

    fn say(&mut self, count: u64) {
        let text: String = (self.said + 1..=self.said + count).map(|n| format!("n={n}\n")).collect();
        self.pty.say(text.as_bytes());
        self.said += count;
    }

    #[track_caller]
    fn wait_last(&self) {
        self.observer.wait_json("sluicegate/g/meter/count", "value", self.said);
    }

    #[track_caller]
    fn wait_durable(&self, agent: &Agent, seq: u64) {
        let durable = || agent.status().and_then(|of| of["queue"]["telemetry"]["durable"].as_u64());
        until("the readings to be durable", || durable() == Some(seq));
    }

    #[track_caller]
    fn wait_empty(&self, agent: &Agent) {
        self.wait_last();
        until("all to be acknowledged", || agent.status().is_some_and(|of| of["queue"]["telemetry"]["depth"] == 0));
    }

    /// Whether the newest list of problems names the lane.
    fn has_problem(&self) -> bool {
        let all = self.observer.all();
        let problems = all.iter().rev().find(|heard| heard.topic == "sluicegate/g/problem");
        problems.is_some_and(|problems| {
            let list = problems.json();
            list.as_array().unwrap().iter().any(|one| one["code"] == "queue" && one["about"] == "telemetry")
        })
    }

    /// Whether the gateway's newest status is the one of a stop.
    fn farewell_came(&self) -> bool {
        let all = self.observer.all();
        let statuses = all.iter().rev().find(|heard| heard.topic == "sluicegate/g/status");
        statuses.is_some_and(|status| status.payload == "offline")
    }

    /// Stops the gateway, and audits all that was heard.
    #[track_caller]
    fn stop_and_audit(&self, agent: &mut Agent) -> Report {
        assert!(agent.stop().success());
        until("the farewell", || self.farewell_came());
        audit(&self.observer, &["--counter", "meter/count", "--to", &self.said.to_string()])
    }
}

/// Lines of the log with this text.
fn logged(agent: &Agent, text: &str) -> usize {
    agent.log().lines().filter(|line| line.contains(text)).count()
}

/// The one segment that holds records.
fn segment(lane: &Path) -> PathBuf {
    let segments = fs::read_dir(lane).unwrap().map(|entry| entry.unwrap().path());
    let segments: Vec<PathBuf> = segments.filter(|path| path.extension().is_some_and(|of| of == "seg")).collect();
    let [segment] = segments.as_slice() else { panic!("{segments:?}") };
    segment.clone()
}

/// Where the payloads of a segment's frames begin: see `src/queue/flash/format.rs`.
fn payloads(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut found) = (128, Vec::new());
    loop {
        let length = usize::try_from(u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap())).unwrap();
        if length == 0 {
            return found;
        }
        found.push(at + 24);
        at += (24 + length).next_multiple_of(4);
    }
}

#[test]
fn the_queue_is_shown_while_the_gateway_runs_and_after() {
    let mut site = Site::new();
    let mut agent = site.start();
    site.gate.close();
    agent.wait_log("link lost");
    site.say(50);
    site.wait_durable(&agent, 50);
    let shown = |arguments: &[&str]| {
        let output = Agent::ask(site.folder.path(), arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let values = || -> Vec<i64> {
        let lines = shown(&["queue", "--dump", "telemetry"]);
        lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["value"].as_i64().unwrap())
            .collect()
    };
    let waiting = || {
        let table = shown(&["queue"]);
        let row = table.lines().find(|line| line.starts_with("telemetry")).unwrap().to_owned();
        row.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!((waiting().as_str(), values()), ("50", (1..=50).collect()));
    assert_eq!(shown(&["queue", "--dump", "alarm"]), "");
    assert!(agent.stop().success());
    assert_eq!((waiting().as_str(), values()), ("50", (1..=50).collect()));
    assert!(shown(&["queue"]).contains("no gateway runs here"));
}

#[test]
fn a_folder_that_is_not_there_is_made() {
    let mut site = Site::new();
    assert!(!site.queue().exists());
    let mut agent = site.start();
    site.say(10);
    site.wait_last();
    assert!(site.queue().join("telemetry").is_dir());
    site.stop_and_audit(&mut agent).assert_complete();
}

#[test]
fn a_file_where_the_queue_belongs_is_a_problem_until_it_is_gone() {
    let mut site = Site::new();
    fs::create_dir_all(site.folder.path().join("state")).unwrap();
    fs::write(site.queue(), "not a folder").unwrap();
    let mut agent = site.start();
    site.say(100);
    site.wait_last();
    until("the problem", || site.has_problem());
    let text = "the flash does not take the lane telemetry";
    assert_eq!(logged(&agent, text), 1, "{}", agent.log());
    assert_eq!(fs::read_to_string(site.queue()).unwrap(), "not a folder");

    fs::remove_file(site.queue()).unwrap();
    agent.wait_log("the flash takes the lane telemetry again");
    until("the problem to be gone", || !site.has_problem());
    site.gate.close();
    site.say(100);
    site.wait_durable(&agent, 200);
    agent.kill();
    site.gate.open();
    let mut agent = site.start();
    site.wait_last();
    let report = site.stop_and_audit(&mut agent);
    report.assert_complete();
    assert_eq!((report.total("came"), report.total("lost")), (200, 0), "{}", report.text);
}

#[test]
fn what_is_not_the_queues_is_left_alone() {
    let mut site = Site::new();
    // Too short, not hex, in capitals, nobody's, and an id that none can follow.
    let foreign = ["1.seg", "000000000000000g.seg", "00000000000000AB.seg", "notes.txt", "ffffffffffffffff.seg"];
    for name in foreign {
        fs::write(site.lane().join(name), name).unwrap();
    }
    fs::create_dir(site.lane().join("0000000000000007.seg")).unwrap();
    site.gate.close();
    let mut agent = site.start();
    site.say(100);
    site.wait_durable(&agent, 100);
    assert_eq!(logged(&agent, "5 files in the queue's folder are not the queue's"), 1, "{}", agent.log());
    agent.kill();
    site.gate.open();
    let mut agent = site.start();
    site.wait_last();
    let report = site.stop_and_audit(&mut agent);
    report.assert_complete();
    assert_eq!(report.total("came"), 100, "{}", report.text);
    for name in foreign {
        assert_eq!(fs::read_to_string(site.lane().join(name)).unwrap(), name);
    }
    assert!(site.lane().join("0000000000000007.seg").is_dir());
}

#[test]
fn a_segment_of_a_newer_version_is_left_alone() {
    let mut site = Site::new();
    let mut head = vec![0; 64];
    head[..8].copy_from_slice(b"SLUICESG");
    head[8..12].copy_from_slice(&2_u32.to_le_bytes());
    head[16..24].copy_from_slice(&5_u64.to_le_bytes());
    let crc = crc32fast::hash(&[&head[..12], &head[16..]].concat());
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    head.extend_from_slice(b"what only version 2 can read");
    let newer = site.lane().join("0000000000000005.seg");
    fs::write(&newer, &head).unwrap();
    site.gate.close();
    let mut agent = site.start();
    assert_eq!(
        logged(&agent, "(1, from telemetry/0000000000000005.seg on) were written by a later sluicegate"),
        1,
        "{}",
        agent.log()
    );
    site.say(100);
    site.wait_durable(&agent, 100);
    agent.kill();
    site.gate.open();
    let mut agent = site.start();
    site.wait_last();
    let report = site.stop_and_audit(&mut agent);
    report.assert_complete();
    assert_eq!(report.total("came"), 100, "{}", report.text);
    assert_eq!(fs::read(&newer).unwrap(), head);
}

/// Readings that wait for the next start, in one segment.
fn with_a_backlog(site: &mut Site, count: u64) -> PathBuf {
    site.gate.close();
    let mut agent = site.start();
    site.say(count);
    site.wait_durable(&agent, count);
    assert!(agent.stop().success());
    site.gate.open();
    segment(&site.lane())
}

#[test]
fn a_damaged_record_is_told_and_all_others_arrive() {
    let mut site = Site::new();
    let segment = with_a_backlog(&mut site, 200);
    let mut bytes = fs::read(&segment).unwrap();
    let payloads = payloads(&bytes);
    assert_eq!(payloads.len(), 200);
    bytes[payloads[99] + 3] ^= 0x10;
    fs::write(&segment, bytes).unwrap();
    let mut agent = site.start();
    site.wait_last();
    let gap = site.observer.wait_json("sluicegate/g/gap", "cause", "damaged");
    assert_eq!((&gap["from"], &gap["to"], &gap["count"]), (&100.into(), &100.into(), &1.into()), "{gap}");
    let report = site.stop_and_audit(&mut agent);
    report.assert_complete();
    assert_eq!((report.total("came"), report.total("lost")), (199, 1), "{}", report.text);
}

#[test]
fn a_flash_that_fails_is_a_problem_until_it_works_again() {
    let mut site = Site::new();
    let flash = Flash::new(site.folder.path());
    site.gate.close();
    let mut agent = site.start_with(&flash.environment());
    site.say(100);
    site.wait_durable(&agent, 100);
    site.gate.open();
    site.wait_empty(&agent);
    // All that its segment holds was acknowledged, and the next records don't come to flash.
    site.gate.close();
    flash.fail();
    site.say(100);
    agent.wait_log("the flash does not take the lane telemetry");
    site.gate.open();
    site.wait_empty(&agent);
    until("the problem", || site.has_problem());
    site.gate.close();
    site.say(100);
    flash.recover();
    agent.wait_log("the flash takes the lane telemetry again");
    site.wait_durable(&agent, 300);
    agent.kill();
    site.gate.open();
    let mut agent = site.start();
    site.wait_last();
    until("the problem to be gone", || !site.has_problem());
    let report = site.stop_and_audit(&mut agent);
    report.assert_complete();
    assert_eq!((report.total("came"), report.total("lost")), (300, 0), "{}", report.text);
}

#[test]
fn a_folder_that_can_only_be_read_is_read() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        return eprintln!("not as root, who may write everywhere");
    }
    let mut site = Site::new();
    with_a_backlog(&mut site, 100);
    let lane = site.lane();
    let allow = |mode: u32| {
        for file in fs::read_dir(&lane).unwrap() {
            fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(mode & 0o666)).unwrap();
        }
        fs::set_permissions(&lane, fs::Permissions::from_mode(mode)).unwrap();
    };
    allow(0o555);
    let mut agent = site.start();
    site.say(10);
    site.wait_last();
    until("the problem", || site.has_problem());
    allow(0o755);
    agent.wait_log("the flash takes the lane telemetry again");
    let report = site.stop_and_audit(&mut agent);
    report.assert_complete();
    assert_eq!((report.total("came"), report.total("lost")), (110, 0), "{}", report.text);
}
