//! `kill -9` of the real agent at random moments, under load, with the network cut and mended: what was durable arrives,
//! and what a kill may cost is told.
//!
//! `SLUICEGATE_KILLS` sets how many kills, `SLUICEGATE_SEED` repeats the choices of a run whose seed was printed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Agent, Chance, Gate, Mosquitto, Observer, Pty, audit, until};

const KILLS: usize = 100;

/// The sensor says so much at each look at the condition that is waited for: about a thousand values a second.
const LOAD: usize = 5;

/// What a burst says at once: more than the line holds, so that the gateway is in the middle of it.
const BURST: usize = 1000;

/// Behind so many publishes, a connection's births are out, and what is under way are records.
const BIRTHS: usize = 30;

fn config(port: u16, pty: &str, sync: &str) -> String {
    format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
window = 50
[queue]
telemetry = {{ sync = "{sync}" }}
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
"#
    )
}

/// When the kill comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// While the gateway starts.
    Starting,
    /// Before it was connected at all.
    Offline,
    /// In the middle of a burst.
    Burst,
    /// While acknowledgements are lost.
    Deaf,
    /// After the network was cut.
    Cut,
    /// On the connection after that.
    Mended,
}

/// Of twenty kills, two come where nothing can be in flight.
const FATES: [(Fate, usize); 6] =
    [(Fate::Starting, 1), (Fate::Offline, 1), (Fate::Burst, 1), (Fate::Deaf, 8), (Fate::Cut, 7), (Fate::Mended, 2)];

/// What the test knows of a run of the gateway that it killed.
#[derive(Debug)]
struct Run {
    /// The epoch, and up to where it was durable, as the gateway said right before the kill; `None`: it did not answer.
    told: Option<(u64, u64)>,
    killed: Instant,
    /// The sensor's values of this run: from here on.
    first: i64,
}

struct Site {
    gate: Gate,
    pty: Pty,
    agent: Agent,
    chance: Chance,
    /// When the sensor had said each value: 1, 2, …
    said: Vec<Instant>,
}

impl Site {
    fn say(&mut self, count: usize) {
        let first = self.said.len() + 1;
        let text: String = (first..first + count).map(|n| format!("n={n}\n")).collect();
        self.pty.say(text.as_bytes());
        self.said.resize(self.said.len() + count, Instant::now());
    }

    /// The sensor counts on until the condition holds.
    #[track_caller]
    fn count_until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        until(what, || {
            self.say(LOAD);
            condition(self)
        });
    }

    #[track_caller]
    fn count_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.count_until("a random moment", |_| Instant::now() >= end);
    }

    /// Waits until the agent listens to the sensor.
    #[track_caller]
    fn wait_device(&self) {
        until("the device", || self.agent.status().is_some_and(|of| of["devices"]["meter"]["state"] == "online"));
    }

    /// A connection, records on it, and from a random one on no acknowledgements any more.
    #[track_caller]
    fn fly(&mut self, connections: usize) {
        let acks = BIRTHS + self.chance.below(200);
        let flows = |site: &Self| site.gate.connections() > connections && site.gate.acknowledged() >= acks;
        self.count_until("records to flow", flows);
        self.gate.deafen();
        self.count_until("records in flight", |site| site.gate.under_way() >= 10);
    }

    /// The epoch, and up to where it is durable.
    fn told(&self) -> Option<(u64, u64)> {
        let status = self.agent.status()?;
        Some((status["epoch"].as_u64()?, status["queue"]["telemetry"]["durable"].as_u64()?))
    }

    /// One run of the gateway up to its kill; whether records were in flight then.
    fn live_and_die(&mut self, fate: Fate, longest: Duration) -> (Run, bool) {
        let mut moment = self.chance.within(longest);
        let connections = self.gate.connections();
        let open_later = fate != Fate::Offline && self.chance.below(4) == 0;
        if fate == Fate::Offline || open_later {
            self.gate.close();
        } else {
            self.gate.open();
        }
        let first = i64::try_from(self.said.len()).unwrap() + 1;
        // What the run before had not read yet would otherwise be the first that this one reads.
        self.pty.plug();
        self.agent.run();
        if fate == Fate::Starting {
            moment = self.chance.within(Duration::from_millis(80));
            let end = Instant::now() + moment;
            until("a random moment", || Instant::now() >= end);
        } else {
            self.wait_device();
        }
        if open_later {
            self.gate.open();
        }
        let mut told = None;
        match fate {
            Fate::Starting => {}
            Fate::Offline => self.count_for(moment),
            Fate::Burst => {
                let flows = |site: &Self| site.gate.connections() > connections && site.gate.acknowledged() > BIRTHS;
                self.count_until("records to flow", flows);
                self.count_for(moment);
                // The answer would take as long as the burst.
                told = self.told();
                let some = self.gate.acknowledged() + self.chance.below(BURST / 3);
                self.say(BURST);
                until("some of it to be acknowledged", || self.gate.acknowledged() > some);
            }
            Fate::Deaf => {
                self.fly(connections);
                self.count_for(moment);
            }
            Fate::Cut => {
                self.fly(connections);
                self.gate.close();
                self.count_for(moment);
            }
            Fate::Mended => {
                self.fly(connections);
                self.gate.close();
                self.count_for(moment / 2);
                let connections = self.gate.connections();
                self.gate.open();
                self.fly(connections);
                self.count_for(moment / 2);
            }
        }
        let told = told.or_else(|| self.told());
        let killed = Instant::now();
        let hit = self.gate.under_way() > 0 && self.gate.connections() > connections;
        self.agent.kill();
        (Run { told, killed, first }, hit)
    }
}

/// What came of the counter, for each epoch: number and value.
fn arrived(observer: &Observer) -> HashMap<u64, BTreeMap<u64, i64>> {
    let mut arrived: HashMap<u64, BTreeMap<u64, i64>> = HashMap::new();
    for heard in observer.all().iter().filter(|heard| heard.topic == "sluicegate/g/meter/count") {
        let reading = heard.json();
        if reading["repeat"] != true {
            let number = |key: &str| reading[key].as_u64().unwrap();
            arrived.entry(number("epoch")).or_default().insert(number("seq"), reading["value"].as_i64().unwrap());
        }
    }
    arrived
}

/// How long a sync of a few bytes takes at the worst on this machine, meanwhile: so long a commit may stall.
struct Probe {
    ended: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Probe {
    fn start(folder: &Path) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let mut file = File::create(folder.join("probe")).unwrap();
        let end = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !end.load(Ordering::SeqCst) {
                let start = Instant::now();
                file.write_all(&[0; 4096]).unwrap();
                file.sync_data().unwrap();
                longest = longest.max(start.elapsed());
                let next = Instant::now() + Duration::from_millis(100);
                until("the next look", || Instant::now() >= next);
            }
            longest
        });
        Probe { ended, thread }
    }

    fn longest(self) -> Duration {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Kills the agent, with this sync rule of the lane, at random moments, at most so long after records were in flight.
/// What is lost at a kill may be as old as `may_lose`; `None`: no number may be.
fn through_kills(sync: &str, longest: Duration, may_lose: Option<Duration>) {
    let kills = std::env::var("SLUICEGATE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let lines = "allow_anonymous true\nmax_inflight_messages 1000\nmax_queued_messages 0\n";
    let broker = Mosquitto::with(folder.path(), lines);
    let gate = Gate::to(broker.port);
    let pty = Pty::new(&folder.path().join("meter"));
    let observer = Observer::with(broker.port, &["-q", "1", "-t", "#"]);
    let mut agent = Agent::start(folder.path(), &config(gate.port, pty.path(), sync));
    until("the first start", || agent.status().is_some());
    agent.kill();
    let mut site = Site { gate, pty, agent, chance: Chance::new(), said: Vec::new() };
    let probe = Probe::start(folder.path());
    let start = Instant::now();
    let (mut runs, mut hits) = (Vec::new(), 0);
    while runs.len() < kills {
        let fates = FATES.iter().flat_map(|(fate, times)| std::iter::repeat_n(*fate, *times));
        for fate in site.chance.shuffled(fates.collect()) {
            let (run, hit) = site.live_and_die(fate, longest);
            runs.push(run);
            hits += usize::from(hit);
        }
    }
    let took = start.elapsed();
    let stalled = probe.longest();

    // All is mended, and the rest goes out.
    let first = i64::try_from(site.said.len()).unwrap() + 1;
    site.gate.open();
    site.pty.plug();
    site.agent.run();
    site.wait_device();
    site.say(100);
    let last = i64::try_from(site.said.len()).unwrap();
    observer.wait_json("sluicegate/g/meter/count", "value", last);
    let is_through = |status: Value| status["queue"]["telemetry"]["depth"] == 0;
    until("the backlog to be through", || site.agent.status().is_some_and(is_through));
    assert!(site.agent.stop().success());
    until("the farewell", || observer.all().last().is_some_and(|last| last.payload == "offline"));

    let counter = ["--counter", "meter/count", "--to", &last.to_string()];
    let report = audit(&observer, if may_lose.is_some() { &counter } else { &[] });
    let tail: Vec<&str> = report.text.lines().rev().take(3).collect();
    eprintln!(
        "sync = {sync}: {} kills in {:.1} s, records in flight at {hits}; {} numbers, {} duplicates, {} lost and told; {}",
        runs.len(),
        took.as_secs_f64(),
        report.total("numbers"),
        report.total("duplicates"),
        report.total("lost"),
        tail.get(1).unwrap_or(&"")
    );
    report.assert_complete();
    assert!(hits * 5 >= runs.len() * 4, "only {hits} of {} kills found records in flight", runs.len());
    assert!(report.total("duplicates") > 0, "nothing in flight came again");

    let ages = check_runs(&runs, &site.said, first, &arrived(&observer));
    let oldest = ages.iter().max().copied().unwrap_or_default();
    eprintln!(
        "sync = {sync}: {} values lost, none of them durable; the oldest was {oldest:?} old; a sync took up to {stalled:?}",
        ages.len()
    );
    if let Some(may_lose) = may_lose {
        // A commit is up to five syncs: the segment before, the new one and its name, the ledger, the records.
        let most = may_lose + stalled * 5 + Duration::from_millis(250);
        assert!(oldest <= most, "a value of {oldest:?} was lost, which is older than {most:?}");
        assert!(!ages.is_empty(), "no kill came before a commit");
    }
}

/// Holds what came of each run against what the test and the sensor know; the ages at the kill of what was lost.
fn check_runs(runs: &[Run], said: &[Instant], end: i64, arrived: &HashMap<u64, BTreeMap<u64, i64>>) -> Vec<Duration> {
    let mut ages = Vec::new();
    let nothing = BTreeMap::new();
    let mut durables = 0;
    let ends = runs.iter().skip(1).map(|run| run.first).chain([end]);
    for (run, end) in runs.iter().zip(ends) {
        let Some((epoch, durable)) = run.told else {
            assert_eq!(run.first, end, "the sensor spoke to a gateway that did not answer: {run:?}");
            continue;
        };
        let came = arrived.get(&epoch).unwrap_or(&nothing);
        for (seq, value) in came {
            let expected = run.first + i64::try_from(*seq).unwrap() - 1;
            assert_eq!(*value, expected, "{epoch}/{seq}: the sensor's values and the numbers go apart");
        }
        let lost: Vec<u64> = (1..=durable).filter(|seq| !came.contains_key(seq)).collect();
        assert!(lost.is_empty(), "epoch {epoch} was durable up to {durable}, and lost {lost:?}");
        durables += durable;
        let came: HashSet<i64> = came.values().copied().collect();
        let lost = (run.first..end).filter(|value| !came.contains(value));
        ages.extend(lost.map(|value| run.killed - said[usize::try_from(value).unwrap() - 1]));
    }
    assert!(durables > 0, "nothing was ever durable");
    ages
}

#[test]
fn with_sync_always_a_kill_costs_nothing_that_was_taken() {
    through_kills("always", Duration::from_millis(250), None);
}

#[test]
fn with_a_sync_interval_a_kill_costs_no_more_than_that_and_says_so() {
    through_kills("1s", Duration::from_millis(1400), Some(Duration::from_secs(1)));
}
