//! A file system that is full, and one that has room again: on a real ext4 of its own (root only; what the queue does
//! then on any machine, the tests beside it show on a file system that is none).

use std::fs::{self, File};
use std::io::Write;

use serde_json::Value;

use crate::support::{Agent, Gate, Mosquitto, Observer, Pty, Volume, audit, publish, until};

/// What the queue has to leave free, as the config says it.
const KEEP_FREE: u64 = 4 << 20;

fn config(port: u16, state: &str, pty: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{state}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
[health]
interval = "10s"
[queue]
telemetry = {{ max_bytes = "16MiB", sync = "100ms" }}
alarm.max_bytes = "1MiB"
outcome.max_bytes = "3MiB"
keep_free = "4MiB"
max_memory = "256KiB"
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
[device.panel]
kind = "sim"
[device.panel.point.valve]
wave = "switch"
safe = false
lane = "alarm"
"#
    )
}

/// A gateway with its state on a volume, a sensor that counts, a broker, and a gate between.
struct Site {
    agent: Agent,
    volume: Volume,
    broker: Mosquitto,
    gate: Gate,
    pty: Pty,
    observer: Observer,
    said: u64,
    /// Goes last.
    folder: tempfile::TempDir,
}

impl Site {
    fn new(check: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // Pages as on a board's card: mke2fs takes smaller ones where the file system is small.
        let volume = Volume::new(folder.path(), 48 << 20, &["-b", "4096"], check)?;
        let broker = Mosquitto::with(folder.path(), "allow_anonymous true\nmax_queued_messages 0\n");
        let gate = Gate::to(broker.port);
        let pty = Pty::new(&folder.path().join("meter"));
        let observer = Observer::start(broker.port);
        let state = volume.path().join("state");
        let agent = Agent::start(folder.path(), &config(gate.port, state.to_str().unwrap(), pty.path()));
        observer.wait_payload("sluicegate/g/meter/status", "online");
        Some(Site { agent, volume, broker, gate, pty, observer, said: 0, folder })
    }

    /// The sensor counts on.
    fn say(&mut self, count: u64) {
        let text: String = (self.said + 1..=self.said + count).map(|n| format!("n={n}\n")).collect();
        self.pty.say(text.as_bytes());
        self.said += count;
    }

    /// The link breaks.
    fn cut(&self) {
        let before = self.count_logged("link lost");
        self.gate.close();
        until("the link to be lost", || self.count_logged("link lost") > before);
    }

    /// The link comes back, and all that waits goes out.
    #[track_caller]
    fn reconnect(&self) {
        self.gate.open();
        self.observer.wait_json("sluicegate/g/meter/count", "value", self.said);
        until("the queue to be empty", || self.lane()["depth"] == 0);
    }

    /// Another program fills the file system up to here.
    fn fill(&self, free: u64) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        while let Some(more) = self.volume.free().checked_sub(free).filter(|more| *more > 0) {
            // Written at once, so that the file system knows what it has.
            file.write_all(&vec![1; usize::try_from(more.min(1 << 20)).unwrap()]).unwrap();
            file.sync_all().unwrap();
        }
    }

    /// And removes what it wrote.
    fn clear(&self) {
        fs::remove_file(self.filler()).unwrap();
        until("the room to be there", || self.volume.free() > 3 * KEEP_FREE);
    }

    fn filler(&self) -> std::path::PathBuf {
        self.volume.path().join("filler")
    }

    /// What `status` says of the telemetry.
    fn lane(&self) -> Value {
        let status = Agent::ask(self.folder.path(), &["status"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["queue"]["telemetry"].clone()
    }

    /// Waits until all that the sensor said waits or came to its end.
    #[track_caller]
    fn wait_numbered(&self) {
        until("the readings to be in the queue", || {
            let lane = self.lane();
            let ended = lane["totals"].as_object().into_iter().flat_map(|totals| totals.values());
            lane["depth"].as_u64().unwrap_or(0) + ended.filter_map(Value::as_u64).sum::<u64>() == self.said
        });
    }

    fn dropped(&self) -> u64 {
        self.lane()["totals"]["dropped_disk"].as_u64().unwrap()
    }

    fn count_logged(&self, text: &str) -> usize {
        self.agent.log().lines().filter(|line| line.contains(text)).count()
    }

    /// A command reaches its device.
    #[track_caller]
    fn assert_acts(&self, id: &str) {
        publish(self.broker.port, "sluicegate/g/panel/valve/set", &format!(r#"{{"value":true,"id":"{id}"}}"#));
        let outcome = self.observer.wait_json("sluicegate/g/panel/valve/outcome", "id", id);
        assert_eq!(outcome["outcome"], "done");
    }

    /// Stops the gateway, and audits all that was heard. The result is what was lost, and told.
    #[track_caller]
    fn stop_and_audit(&mut self) -> u64 {
        let farewells = |site: &Site| site.observer.all().iter().filter(|heard| heard.payload == "offline").count();
        let before = farewells(self);
        assert!(self.agent.stop().success());
        until("the farewell", || farewells(self) > before);
        let report = audit(&self.observer, &["--counter", "meter/count", "--to", &self.said.to_string()]);
        eprintln!("{}", report.text);
        report.assert_complete();
        report.total("lost")
    }
}

const REFUSED: &str = "the flash does not take the lane telemetry";
const TAKEN: &str = "the flash takes the lane telemetry again";

#[test]
fn a_full_file_system_turns_the_lane_to_ram_until_there_is_room() {
    let Some(mut site) = Site::new("a full file system: on to RAM and back") else { return };
    site.say(100);
    site.reconnect();
    // Nothing of the lane is on flash, and there is no room for a segment.
    site.fill(KEEP_FREE / 2);
    site.cut();
    site.say(500);
    site.agent.wait_log(REFUSED);
    site.wait_numbered();
    assert_eq!(site.dropped(), 0, "all of it fits into RAM");
    // More than max_memory.
    site.say(9_500);
    site.wait_numbered();
    assert!(site.dropped() > 1000, "{}", site.lane());
    let status = site.lane();
    assert_eq!((status["bytes"].as_u64(), site.volume.free() / 4096), (Some(0), KEEP_FREE / 2 / 4096), "{status}");

    // The link is back, the file system is still full: it is said, and commands act.
    site.reconnect();
    site.observer.wait("the problem", |heard| {
        heard.topic == "sluicegate/g/problem" && heard.payload.contains(REFUSED) && heard.payload.contains("keep_free")
    });
    site.observer.wait_json("sluicegate/g/gap", "cause", "disk");
    let told = site.dropped();
    site.observer.wait("the loss in health", |heard| {
        heard.topic == "sluicegate/g/health" && heard.json()["lanes"]["telemetry"]["dropped_disk"] == told
    });
    site.assert_acts("full");
    assert_eq!(site.count_logged(REFUSED), 1, "one line for an episode");
    // What it can't do yet keeps nothing busy.
    let before = site.agent.cpu_ticks();
    let start = std::time::Instant::now();
    until("a second to pass", || start.elapsed().as_secs() >= 1);
    assert!(site.agent.cpu_ticks() - before < 30, "the gateway spins");

    // With room it returns by itself, also while nothing waits.
    site.clear();
    site.agent.wait_log(TAKEN);
    site.observer.wait("no problem", |heard| heard.topic == "sluicegate/g/problem" && heard.payload == "[]");
    site.cut();
    site.say(2_000);
    site.wait_numbered();
    until("the lane to be on flash", || site.lane()["bytes"].as_u64() > Some(0));
    site.reconnect();
    let dropped = site.dropped();
    assert_eq!(site.stop_and_audit(), dropped);
}

#[test]
fn a_lane_that_finds_no_more_room_drops_its_oldest_and_leaves_the_rest_free() {
    let Some(mut site) = Site::new("a full file system: the oldest goes, keep_free is kept") else { return };
    site.fill(KEEP_FREE + (4 << 20));
    site.cut();
    // Three times what there is room for.
    let mut lowest = u64::MAX;
    for _ in 0..30 {
        site.say(5_000);
        site.wait_numbered();
        lowest = lowest.min(site.volume.free());
    }
    assert!(lowest >= KEEP_FREE, "only {lowest} bytes are free");
    let status = site.lane();
    assert!(status["bytes"].as_u64() >= Some(2 << 20) && site.dropped() > 10_000, "{status}");
    assert_eq!(site.count_logged("drops its oldest"), 1, "one line for an episode");
    // Another program takes what was left: the queue lives on in what it has.
    site.fill(KEEP_FREE / 2);
    site.say(20_000);
    site.wait_numbered();
    assert_eq!(site.volume.free() / 4096, KEEP_FREE / 2 / 4096);
    site.reconnect();
    site.observer.wait("the problem", |heard| {
        heard.topic == "sluicegate/g/problem" && heard.payload.contains("drops its oldest")
    });
    site.observer.wait_json("sluicegate/g/gap", "cause", "disk");
    site.assert_acts("full");
    site.clear();
    site.cut();
    site.say(10_000);
    let dropped = site.dropped();
    site.wait_numbered();
    site.reconnect();
    assert_eq!(site.dropped(), dropped, "there was room");
    site.observer.wait("no problem", |heard| heard.topic == "sluicegate/g/problem" && heard.payload == "[]");
    assert_eq!(site.stop_and_audit(), dropped);
}
