//! A command acts once, or not at all, whatever is killed: `kill -9` of the real agent and of the broker at random
//! moments, commands in flight, each repeated until its sender has an outcome.
//!
//! The far end of a serial line is the record: each command writes a number of its own. `SLUICEGATE_COMMANDS` and
//! `SLUICEGATE_KILLS` set how many, `SLUICEGATE_SEED` repeats the choices of a run whose seed was printed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Agent, Chance, Mosquitto, Observer, Pty, Sender, until};

const COMMANDS: usize = 1000;
const KILLS: usize = 100;

/// Serial lines, each with an output.
const DEVICES: usize = 3;

/// The sender has no outcome yet, and sends the command again.
const PATIENCE: Duration = Duration::from_millis(400);

fn number_of(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |number| number.parse().unwrap())
}

fn config(port: u16, version: &str, lines: &[Line]) -> String {
    let mut config = format!(
        r#"
[gateway]
id = "g"
state_directory = "{{state}}"
[mqtt]
url = "mqtt://127.0.0.1:{port}"
version = "{version}"
"#
    );
    for (number, line) in lines.iter().enumerate() {
        config += &format!(
            r#"
[device.d{number}]
kind = "serial"
port = "{}"
frame = {{ kind = "line" }}
decode = {{ kind = "key-value" }}
[device.d{number}.point.out]
type = "int"
write = "SET {{value}}\n"
"#,
            line.pty.path()
        );
    }
    config
}

/// An output, its record, and who commands it.
struct Line {
    pty: Pty,
    sender: Sender,
    /// So much of the record was read.
    read: usize,
}

/// What the test knows of one command.
struct Sent {
    /// When it is sent next.
    due: Instant,
    /// It has ended, and its sender wants to hear that once more.
    wanted: bool,
    /// In these runs of the agent its write stood in the record.
    written: Vec<usize>,
    /// The run in which its first outcome came, and that outcome.
    ended: Option<(usize, Answer)>,
}

/// Outcome, reason and value.
type Answer = (String, Value, Value);

struct Site {
    broker: Mosquitto,
    observer: Observer,
    lines: Vec<Line>,
    agent: Agent,
    chance: Chance,
    folder: tempfile::TempDir,
    sent: Vec<Sent>,
    /// So many messages were looked at.
    heard: usize,
    /// Which run of the agent this is.
    run: usize,
    duplicates: usize,
    broker_kills: usize,
    rejected: BTreeMap<String, usize>,
    /// Refusals of what had an outcome already.
    late_refusals: usize,
    /// Answers told again.
    again: usize,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(folder.path());
        let observer = Observer::start(broker.port);
        let line = |number| Line {
            pty: Pty::new(&folder.path().join(format!("d{number}"))),
            sender: Sender::to(broker.port, &format!("sluicegate/g/d{number}/out/set")),
            read: 0,
        };
        let lines: Vec<Line> = (0..DEVICES).map(line).collect();
        let mut agent = Agent::start(folder.path(), &config(broker.port, "3.1.1", &lines));
        until("the first start", || agent.status().is_some());
        agent.kill();
        Site {
            broker,
            observer,
            lines,
            agent,
            chance: Chance::new(),
            folder,
            sent: Vec::new(),
            heard: 0,
            run: 0,
            duplicates: 0,
            broker_kills: 0,
            rejected: BTreeMap::new(),
            late_refusals: 0,
            again: 0,
        }
    }

    /// Starts the agent once more, with either version of MQTT.
    fn start(&mut self) {
        let version = if self.chance.below(2) == 0 { "3.1.1" } else { "5" };
        Agent::configure(self.folder.path(), &config(self.broker.port, version, &self.lines));
        self.run += 1;
        self.agent.run();
    }

    /// New commands, to be sent at once.
    fn command(&mut self, count: usize) {
        self.sent.extend((0..count).map(|_| Sent {
            due: Instant::now(),
            wanted: false,
            written: Vec::new(),
            ended: None,
        }));
    }

    /// Reads what was written and what was answered, and sends what is due.
    fn step(&mut self) {
        self.read();
        let now = Instant::now();
        let mut lines = vec![String::new(); DEVICES];
        for (number, sent) in self.sent.iter_mut().enumerate().filter(|(_, sent)| sent.due <= now) {
            if sent.ended.is_some() && !sent.wanted {
                continue;
            }
            let twice = self.chance.below(8) == 0;
            self.duplicates += usize::from(twice);
            for _ in 0..=usize::from(twice) {
                lines[number % DEVICES] += &format!("{{\"value\":{number},\"id\":\"c{number}\"}}\n");
            }
            sent.due = now + PATIENCE + self.chance.within(PATIENCE);
        }
        for (line, text) in self.lines.iter_mut().zip(lines).filter(|(_, text)| !text.is_empty()) {
            line.sender.send(&text);
        }
    }

    fn read(&mut self) {
        for (device, line) in self.lines.iter_mut().enumerate() {
            let record = line.pty.heard_so_far();
            let Some(whole) = record.rfind('\n').map(|end| end + 1).filter(|end| *end > line.read) else { continue };
            for text in record.get(line.read..whole).unwrap_or_default().lines() {
                let number: usize = text.strip_prefix("SET ").and_then(|number| number.parse().ok()).unwrap();
                assert_eq!(number % DEVICES, device, "{text}");
                let written = &mut self.sent[number].written;
                written.push(self.run);
                assert!(written.len() == 1, "c{number} acted in runs {written:?}");
            }
            line.read = whole;
        }
        for heard in self.observer.since(self.heard) {
            self.heard += 1;
            if heard.topic.ends_with("/outcome") {
                self.answered(&heard.json());
            }
        }
    }

    fn answered(&mut self, outcome: &Value) {
        let id = outcome["id"].as_str().unwrap();
        let sent = &mut self.sent[id.strip_prefix('c').unwrap().parse::<usize>().unwrap()];
        let word = outcome["outcome"].as_str().unwrap();
        if word == "rejected" {
            *self.rejected.entry(outcome["reason"].as_str().unwrap().to_owned()).or_default() += 1;
            // A crowd is turned away at the door, where nobody knows ids yet.
            let known = sent.ended.is_some() && outcome["text"] != "too many commands at once";
            self.late_refusals += usize::from(known);
            sent.due = Instant::now() + self.chance.within(Duration::from_millis(100));
            return;
        }
        let answer = (word.to_owned(), outcome["reason"].clone(), outcome["value"].clone());
        match &sent.ended {
            None => sent.ended = Some((self.run, answer)),
            Some((_, first)) => {
                assert_eq!(*first, answer, "{id} has two outcomes");
                sent.wanted = false;
                self.again += 1;
            }
        }
    }

    /// Steps until the condition holds.
    #[track_caller]
    fn step_until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        until(what, || {
            self.step();
            condition(self)
        });
    }

    #[track_caller]
    fn step_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.step_until("a random moment", |_| Instant::now() >= end);
    }

    /// `kill -9`, and all that it left is read.
    fn kill(&mut self) {
        self.agent.kill();
        self.observer.catch_up(self.broker.port);
        self.read();
    }

    fn kill_broker(&mut self) {
        self.broker_kills += 1;
        self.broker.kill();
        self.broker.run();
        for line in &mut self.lines {
            line.sender.drop_line();
        }
        self.observer.listen_again(self.broker.port);
    }

    fn written(&self) -> usize {
        self.sent.iter().map(|sent| sent.written.len()).sum()
    }

    fn ended(&self) -> usize {
        self.sent.iter().filter(|sent| sent.ended.is_some()).count()
    }

    /// One run of the agent, with new commands, up to its kill.
    fn live_and_die(&mut self, commands: usize) {
        self.command(commands / 2);
        if self.chance.below(10) == 0 {
            self.start();
            let moment = self.chance.within(Duration::from_millis(300));
            self.step_for(moment);
            return self.kill();
        }
        self.start();
        if self.chance.below(8) == 0 {
            // In the middle of it.
            let before = self.ended();
            self.step_until("an outcome", |site| site.ended() > before || site.ended() == site.sent.len());
            self.command(commands / 2);
            self.step();
            self.kill_broker();
        }
        let ended = self.ended();
        self.step_until("an outcome", |site| site.ended() > ended || site.ended() == site.sent.len());
        self.command(commands - commands / 2);
        // An outcome comes milliseconds after its write.
        let (before, some) = (self.written(), 1 + self.chance.below(commands.div_ceil(2)));
        self.step();
        let deadline = Instant::now() + PATIENCE;
        self.watch(|site| site.written() >= before + some || Instant::now() >= deadline);
        let end = Instant::now() + self.chance.within(Duration::from_millis(6));
        self.watch(|_| Instant::now() >= end);
        self.kill();
    }

    /// Looks without a pause.
    fn watch(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        while !condition(self) {
            std::thread::yield_now();
            self.step();
        }
    }
}

#[test]
fn a_command_acts_once_or_not_at_all() {
    let commands = number_of("SLUICEGATE_COMMANDS", COMMANDS);
    let kills = number_of("SLUICEGATE_KILLS", KILLS);
    let mut site = Site::new();
    let start = Instant::now();
    for kill in 0..kills {
        let share = (commands * (kill + 1) / kills).saturating_sub(site.sent.len());
        site.live_and_die(share);
    }
    let took = start.elapsed();
    site.start();
    site.step_until("all outcomes", |site| site.ended() == site.sent.len());

    // A sender may still repeat what has long ended.
    let first = site.sent.len().saturating_sub(40);
    for sent in site.sent.iter_mut().skip(first) {
        sent.wanted = true;
        sent.due = Instant::now();
    }
    site.step_until("the answers to what was repeated", |site| site.sent.iter().all(|sent| !sent.wanted));
    assert!(site.agent.stop().success());
    site.observer.catch_up(site.broker.port);
    site.read();

    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    let mut hit: BTreeSet<usize> = BTreeSet::new();
    for (number, sent) in site.sent.iter().enumerate() {
        let (run, (word, _, value)) = sent.ended.as_ref().unwrap();
        *words.entry(word).or_default() += 1;
        match (word.as_str(), sent.written.first()) {
            ("done", Some(_)) => assert_eq!(*value, number, "c{number}"),
            ("unknown", _) => drop(hit.insert(run - 1)),
            ("expired" | "failed", None) => {}
            other => panic!("c{number}: {other:?}"),
        }
        hit.extend(sent.written.first().filter(|written| *written < run));
    }
    eprintln!(
        "{} commands, {} duplicates besides, {kills} kills in {:.1} s, of which {} hit a command under way, and {} of \
         the broker: {words:?}; refused and sent again: {:?}; {} answers were told again, {} ids refused after their outcome",
        site.sent.len(),
        site.duplicates,
        took.as_secs_f64(),
        hit.len(),
        site.broker_kills,
        site.rejected,
        site.again,
        site.late_refusals
    );
    // A third on a quiet machine, less on a busy one.
    assert!(hit.len() * 6 >= kills, "only {} of {kills} kills hit a command under way", hit.len());
    assert!(site.broker_kills > 0 || kills < 50, "no kill of the broker among {kills} runs");
    assert_eq!(site.late_refusals, 0, "an id that had ended was refused");
}
