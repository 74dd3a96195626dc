//! Random lives of the journal and the rules, judged by what can be seen from outside: what senders sent and were
//! answered, what devices did and when, and what their outputs were. Shares no code with what it judges.
//!
//! Commands, duplicates, slow and failing devices, a flash that fails and forgets, kills, power cuts, planned restarts and
//! clocks that jump, in any order. `SLUICEGATE_MODEL_STEPS` and `SLUICEGATE_SEED` choose another length and another life.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::dispatch::{Dispatcher, Effect};
use super::journal::{Bug, Job, Journal, Report};
use super::{Config, Interlock, LinkLoss, PointConfig, Queued, Then};
use crate::disk::fake::{Failing, Fake};
use crate::model::{
    Answer, BootId, Cause, Command, CommandId, DeviceName, DeviceState, DeviceStates, Outcome, Point, PointName, Span,
    Takeover, Timestamp, Value, ValueType, Verdict, Write, WriteError,
};

const DEAD_TIME: Duration = Duration::from_millis(500);
const MAX_ON: Duration = Duration::from_secs(20);
const LINK_LOSS: Duration = Duration::from_secs(15);
const MIN: Duration = Duration::from_secs(1);
const PULSE: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(2);

/// So long after its time, with nothing in the way, an output is safe.
const IN_TIME: Duration = Duration::from_secs(3);

/// At most so long after the device failed to make one safe, that is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// Time passes in steps of this length.
const STEP: Duration = Duration::from_millis(20);

/// Device, point, and whether the device can be asked for the output's value. Its safe value is 0.
const POINTS: [(&str, &str, bool); 5] =
    [("relays", "a", true), ("relays", "b", true), ("relays", "c", true), ("relays", "d", true), ("motor", "v", false)];

/// `a`, `b` and `v`: at most one is on.
const GROUP: [&str; 3] = ["a", "b", "v"];

fn config(point: &str) -> PointConfig {
    let mut config = PointConfig { timeout: Span(TIMEOUT), ..PointConfig::default() };
    match point {
        "c" => {
            config.pulse = Some(Span(PULSE));
            config.min_on = Some(Span(MIN));
            config.min_off = Some(Span(MIN));
        }
        "d" => {
            config.on_link_loss = Some(LinkLoss { then: Then::Safe, after: Span(LINK_LOSS) });
            config.on_stop = Then::Safe;
        }
        _ => {
            config.max_on = Some(Span(MAX_ON));
            config.interlock = Some(Interlock { group: "g".to_owned(), dead_time: Span(DEAD_TIME) });
        }
    }
    config
}

fn points() -> Vec<(Point, PointConfig)> {
    let point = |(device, name, _): &(&str, &str, bool)| {
        let point = Point {
            device: DeviceName::new(device).unwrap(),
            name: PointName::new(name).unwrap(),
            value_type: Some(ValueType::Int),
            unit: None,
            min: None,
            max: None,
            safe: Some(Value::Int(0)),
            writable: true,
        };
        (point, config(name))
    };
    POINTS.iter().map(point).collect()
}

/// A small generator of its own, so that a seed means the same for ever.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// An output as it really is.
#[derive(Debug, Clone, Default)]
struct Real {
    value: i64,
    on_since: Duration,
    /// When it must be off, by the `for` of the command that switched it on.
    lease: Option<Duration>,
    /// When it was on last; in the time of the whole test.
    last_on: Option<Duration>,
}

/// A device: what it was asked for, and what it is doing.
#[derive(Debug, Default)]
struct Machine {
    online: bool,
    asked: VecDeque<Write>,
    /// The write that it has begun, and how it will end.
    doing: Option<(Write, Result<(), WriteError>)>,
}

/// What a sender knows of its command.
#[derive(Debug)]
struct Sent {
    command: Command,
    /// In the time of the whole test: not to act after this.
    until: Option<Duration>,
    acted: u32,
    /// It makes safe, and the journal could not be written: then it acts, and nobody remembers it.
    loose: bool,
    /// The first outcome but a rejection.
    outcome: Option<Outcome>,
}

struct Process {
    dispatcher: Dispatcher,
    journal: Journal,
    report: Report,
    jobs: VecDeque<Job>,
    /// Outcomes handed to the queue in this start.
    told: u64,
}

struct World {
    chance: Chance,
    bug: Option<Bug>,
    disk: Fake,
    process: Option<Process>,
    now: Timestamp,
    /// Time since the beginning of the test, which no boot begins anew.
    clock: Duration,
    machines: BTreeMap<&'static str, Machine>,
    reals: BTreeMap<&'static str, Real>,
    sent: BTreeMap<String, Sent>,
    /// Since when nothing stands in the way of the rules.
    quiet: Duration,
    heard: Duration,
    ids: u32,
    boots: u128,
    acts: u32,
    starts: u64,
}

impl World {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let machine = || Machine { online: true, ..Machine::default() };
        World {
            chance: Chance(seed | 1),
            bug,
            disk: Fake::new(),
            process: None,
            now: Timestamp {
                uptime: Duration::from_secs(10),
                wall: Duration::from_secs(1_795_341_600),
                synced: true,
                boot: BootId(1),
            },
            clock: Duration::from_secs(1000),
            machines: [("relays", machine()), ("motor", machine())].into(),
            reals: POINTS.iter().map(|(_, point, _)| (*point, Real::default())).collect(),
            sent: BTreeMap::new(),
            quiet: Duration::ZERO,
            heard: Duration::ZERO,
            ids: 0,
            boots: 1,
            acts: 0,
            starts: 0,
        }
    }

    /// A process begins.
    fn start(&mut self, takeover: Takeover) {
        self.starts += 1;
        self.quiet = self.clock;
        for machine in self.machines.values_mut() {
            machine.asked.clear();
            machine.doing = None;
        }
        if takeover == Takeover::Safe {
            // What the driver does before anything else, where it can.
            for (_, point, _) in POINTS.iter().filter(|(_, _, asked)| *asked) {
                self.set(point, 0, None);
            }
        }
        let mut journal = Journal::on(Box::new(self.disk.clone()), self.bug);
        let found = journal.take_found();
        let dispatcher =
            Dispatcher::new(Config::default(), points(), found, takeover, self.starts, &self.now, self.bug);
        self.heard = self.now.uptime;
        self.process = Some(Process { dispatcher, journal, report: Report::default(), jobs: VecDeque::new(), told: 0 });
        for device in ["relays", "motor"] {
            self.open(device);
        }
        self.tell_states();
    }

    fn open(&mut self, device: &'static str) {
        let outputs = POINTS.iter().filter(|(of, _, asked)| *of == device && *asked);
        let outputs =
            outputs.map(|(_, point, _)| (PointName::new(point).unwrap(), Value::Int(self.reals[point].value)));
        let answer = Answer::Opened { device: DeviceName::new(device).unwrap(), outputs: outputs.collect() };
        let now = self.now;
        if let Some(process) = &mut self.process {
            process.dispatcher.answer(answer, &now);
        }
    }

    fn tell_states(&mut self) {
        let state = |online| match online {
            true => DeviceState::Online,
            false => DeviceState::Offline { why: "unplugged".to_owned(), since: self.now },
        };
        let states: DeviceStates = self
            .machines
            .iter()
            .map(|(name, machine)| (DeviceName::new(name).unwrap(), state(machine.online)))
            .collect();
        let now = self.now;
        if let Some(process) = &mut self.process {
            process.dispatcher.states(&states, &now);
        }
        self.effects();
    }

    /// Does what the dispatcher wants.
    fn effects(&mut self) {
        let now = self.now;
        while let Some(effect) = self.process.as_mut().and_then(|process| process.dispatcher.next_effect()) {
            match effect {
                Effect::Journal(job) => self.process.as_mut().unwrap().jobs.push_back(job),
                Effect::Write(device, write) => {
                    let machine = self.machines.get_mut(device.as_str()).unwrap();
                    if machine.online {
                        machine.asked.push_back(write);
                    } else {
                        self.process.as_mut().unwrap().dispatcher.not_taken(write.ticket, &now);
                    }
                }
                Effect::Outcome(outcome) => {
                    self.process.as_mut().unwrap().told += 1;
                    self.answered(outcome);
                }
                Effect::Refusal(outcome) => self.answered(outcome),
            }
        }
    }

    /// A sender hears of its command.
    fn answered(&mut self, outcome: Outcome) {
        let Some(sent) = self.sent.get_mut(outcome.id.as_str()) else {
            assert!(!matches!(outcome.verdict, Verdict::Rejected(_)) || outcome.id.as_str() == "-", "{outcome:?}");
            return;
        };
        if let Verdict::Rejected(_) = outcome.verdict {
            assert!(sent.acted == 0 || sent.loose, "rejected, but it acted: {outcome:?}");
            assert!(sent.outcome.is_none() || sent.loose, "rejected after {:?}: {outcome:?}", sent.outcome);
            return;
        }
        match &sent.outcome {
            None => {
                match outcome.verdict {
                    Verdict::Done => assert!(sent.acted >= 1, "done: {outcome:?}"),
                    Verdict::Expired | Verdict::Failed if sent.loose => {}
                    Verdict::Expired | Verdict::Failed => assert_eq!(sent.acted, 0, "{outcome:?}"),
                    Verdict::Unknown | Verdict::Rejected(_) => {}
                }
                sent.outcome = Some(outcome);
            }
            Some(_) if sent.loose => {}
            Some(first) => assert_eq!(
                (first.verdict, &first.text, &first.values),
                (outcome.verdict, &outcome.text, &outcome.values),
                "a second outcome of {}",
                outcome.id
            ),
        }
    }

    fn set(&mut self, point: &'static str, value: i64, lease: Option<Duration>) {
        let clock = self.clock;
        if value != 0 && GROUP.contains(&point) {
            for other in GROUP.iter().filter(|other| **other != point) {
                let real = &self.reals[other];
                assert_eq!(real.value, 0, "{point} and {other} are on together");
                let apart = real.last_on.map_or(Duration::MAX, |on| clock - on);
                assert!(apart >= DEAD_TIME, "{point} is on {apart:?} after {other}");
            }
        }
        let real = self.reals.get_mut(point).unwrap();
        if real.value != 0 {
            real.last_on = Some(clock);
        } else if value != 0 {
            real.on_since = clock;
        }
        real.value = value;
        real.lease = lease.filter(|_| value != 0).map(|lease| clock + lease);
    }

    /// A device goes on with what it does.
    fn work(&mut self, device: &'static str, kind: bool) {
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        let machine = self.machines.get_mut(device).unwrap();
        if let Some((write, result)) = machine.doing.take() {
            let ticket = write.ticket;
            let result = result.map(|()| write.values.clone());
            process.dispatcher.answer(Answer::Ended { ticket, result }, &now);
            return self.effects();
        }
        let Some(write) = machine.asked.pop_front() else { return };
        if now.uptime > write.deadline {
            let answer = Answer::Ended { ticket: write.ticket, result: Err(WriteError::Expired) };
            process.dispatcher.answer(answer, &now);
            return self.effects();
        }
        if !kind && self.chance.one_in(8) {
            // A rule may wait so long before it tries again.
            self.quiet = self.clock + AGAIN;
            let result = Err(WriteError::Failed("stuck".to_owned()));
            process.dispatcher.answer(Answer::Ended { ticket: write.ticket, result }, &now);
            return self.effects();
        }
        process.dispatcher.answer(Answer::Began { ticket: write.ticket }, &now);
        let lost = !kind && self.chance.one_in(12);
        if lost {
            self.quiet = self.clock + AGAIN;
        }
        if !lost || self.chance.one_in(2) {
            self.act(&write);
        }
        let result = if lost { Err(WriteError::Unknown("no answer".to_owned())) } else { Ok(()) };
        self.machines.get_mut(device).unwrap().doing = Some((write, result));
        self.effects();
    }

    fn loosen(&mut self, id: Option<&CommandId>) {
        let trouble = self.process.as_ref().is_some_and(|process| process.dispatcher.trouble().is_some());
        let sent = id.and_then(|id| self.sent.get_mut(id.as_str())).filter(|_| trouble);
        if let Some(sent) = sent {
            let makes_safe = |(_, value): &(String, Value)| *value == Value::Int(0);
            sent.loose |= sent.command.values.iter().flatten().all(makes_safe);
        }
    }

    /// The outputs change.
    fn act(&mut self, write: &Write) {
        if let Cause::Command(id) = &write.cause {
            self.loosen(Some(id));
        }
        self.acts += 1;
        let mut lease = None;
        if let Cause::Command(id) = &write.cause
            && let Some(sent) = self.sent.get_mut(id.as_str())
        {
            sent.acted += 1;
            assert!(sent.acted == 1 || sent.loose, "{id} acts a second time");
            assert!(sent.outcome.is_none() || sent.loose, "{id} acts after its outcome {:?}", sent.outcome);
            assert!(!sent.command.retained, "{id} was retained");
            if let Some(until) = sent.until {
                assert!(self.clock <= until, "{id} acts {:?} after its expiry", self.clock - until);
            }
            lease = sent.command.lease;
        }
        for (point, value) in &write.values {
            let (_, point, _) = POINTS.iter().find(|(_, name, _)| *name == point.as_str()).unwrap();
            let Value::Int(value) = value else { panic!("{value:?}") };
            let lease = lease.or((*point == "c").then_some(PULSE));
            self.set(point, *value, lease);
        }
    }

    /// The flash does one job.
    fn flash(&mut self) {
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        let Some(job) = process.jobs.pop_front() else { return };
        process.journal.write(&job, &mut process.report);
        if self.disk.is_dead() {
            return self.kill();
        }
        process.dispatcher.journalled(&process.report, &now);
        self.effects();
    }

    /// The process is gone at once.
    fn kill(&mut self) {
        self.process = None;
        self.disk.set_fuse(None);
        if self.chance.one_in(2) {
            // And with it the power: the next boot.
            let chance = &mut self.chance;
            self.disk.cut(|| u32::try_from(chance.next() & 0xffff_ffff).unwrap());
            self.boots += 1;
            self.now.boot = BootId(self.boots);
            self.now.uptime = Duration::from_secs(1 + self.chance.below(20));
            self.now.synced = self.chance.one_in(2);
        }
        self.disk.set_failing(None);
    }

    fn stop(&mut self) {
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        process.dispatcher.stop(&now);
        self.effects();
        for _ in 0..500 {
            if self.process.as_ref().is_none_or(|process| process.dispatcher.is_idle()) {
                break;
            }
            self.pass(STEP, true);
        }
        let now = self.now;
        let Some(process) = &mut self.process else { return };
        assert!(process.dispatcher.is_idle(), "the stop does not end");
        process.dispatcher.leave(&now);
        self.effects();
        while self.process.as_ref().is_some_and(|process| !process.jobs.is_empty()) {
            self.flash();
        }
        if self.process.take().is_some() {
            self.start(Takeover::Keep);
        }
    }

    /// Time passes. `kind`: with a flash and devices that do their work at once.
    fn pass(&mut self, length: Duration, kind: bool) {
        let mut left = length;
        while left > Duration::ZERO {
            let step = left.min(STEP);
            left -= step;
            self.now.uptime += step;
            self.now.wall += step;
            self.clock += step;
            for device in ["relays", "motor"] {
                for _ in 0..2 {
                    if kind || self.chance.one_in(3) {
                        self.work(device, kind);
                    }
                }
            }
            for _ in 0..4 {
                if kind || self.chance.one_in(2) {
                    self.flash();
                }
            }
            let now = self.now;
            if let Some(process) = &mut self.process {
                if process.dispatcher.due().is_some_and(|due| due <= now.uptime) {
                    process.dispatcher.tick(&now);
                }
                self.effects();
            }
            self.look();
        }
    }

    /// Whether each output is off that should be.
    fn look(&mut self) {
        if self.process.is_none() || self.machines.values().any(|machine| !machine.online || machine.asked.len() > 1) {
            self.quiet = self.quiet.max(self.clock);
            return;
        }
        let since_heard = self.now.uptime.saturating_sub(self.heard);
        for (point, real) in self.reals.iter().filter(|(_, real)| real.value != 0) {
            let mut over = real.lease;
            if GROUP.contains(point) {
                over = Some(over.unwrap_or(Duration::MAX).min(real.on_since + MAX_ON));
            }
            if *point == "d" && since_heard > LINK_LOSS {
                over = Some(over.unwrap_or(Duration::MAX).min(self.clock - (since_heard - LINK_LOSS)));
            }
            if let Some(over) = over {
                let late = self.clock.saturating_sub(over.max(self.quiet));
                assert!(late <= IN_TIME, "{point} is still on, {late:?} after its time: {real:?}");
            }
        }
    }

    fn send(&mut self, command: Command) {
        self.loosen(command.id.as_ref());
        let now = self.now;
        self.heard = now.uptime;
        let queued = |process: &Process| Queued { durable: process.told, waiting: 0 };
        if let Some(process) = &mut self.process {
            process.dispatcher.queued(queued(process));
            process.dispatcher.command(Command { arrived: now, ..command }, &now);
        }
        self.effects();
    }

    fn send_new(&mut self) {
        self.ids += 1;
        let (device, point, _) = POINTS[usize::try_from(self.chance.below(5)).unwrap()];
        let on = self.chance.below(3) < 2;
        let mut values = vec![(point.to_owned(), Value::Int(i64::from(on)))];
        if self.chance.one_in(6) && device == "relays" {
            let (_, other, _) = POINTS[usize::try_from(self.chance.below(4)).unwrap()];
            if other != point {
                values.push((other.to_owned(), Value::Int(0)));
            }
        }
        let millis = |chance: &mut Chance, most| Duration::from_millis(chance.below(most));
        let ttl = self.chance.one_in(3).then(|| millis(&mut self.chance, 3000));
        let expires = self.chance.one_in(4).then(|| self.now.wall + millis(&mut self.chance, 3000));
        let id = self.chance.below(8) > 0;
        // Without an id nobody here knows which command it was that acted.
        let lease =
            (id && on && self.chance.one_in(3)).then(|| Duration::from_secs(2) + millis(&mut self.chance, 8000));
        let name = format!("c-{}", self.ids);
        let command = Command {
            id: id.then(|| CommandId::new(&name).unwrap()),
            device: device.to_owned(),
            point: Some(point.to_owned()),
            values: Ok(values),
            arrived: self.now,
            sent: None,
            expires,
            ttl,
            lease,
            retained: self.chance.one_in(20),
            reply: None,
        };
        if id {
            let until = ttl.into_iter().chain(expires.map(|expires| expires.saturating_sub(self.now.wall))).min();
            let until = until.map(|left| self.clock + left);
            let command = command.clone();
            let (acted, outcome) = (0, None);
            self.sent.insert(name, Sent { command, until, acted, loose: false, outcome });
        }
        self.send(command);
    }

    fn send_again(&mut self) {
        let near = u32::try_from(self.chance.below(12)).unwrap();
        let name = format!("c-{}", self.ids.saturating_sub(near));
        let Some(sent) = self.sent.get_mut(&name) else { return };
        // The same words may say something else now: valid from now on, or by a clock that was set.
        let left = sent.command.expires.map(|expires| expires.saturating_sub(self.now.wall));
        if let Some(left) = sent.command.ttl.into_iter().chain(left).min() {
            sent.until = sent.until.max(Some(self.clock + left));
        }
        let command = sent.command.clone();
        self.send(command);
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..20 => self.send_new(),
            20..32 => self.send_again(),
            32..80 => {
                let millis = self.chance.below(400);
                self.pass(Duration::from_millis(millis), false);
            }
            80..83 => {
                let millis = self.chance.below(40_000);
                self.pass(Duration::from_millis(millis), true);
            }
            83..87 => {
                let device = if self.chance.one_in(2) { "relays" } else { "motor" };
                self.plug(device);
            }
            87..91 => {
                self.heard = self.now.uptime;
                let at = self.heard;
                if let Some(process) = &mut self.process {
                    process.dispatcher.heard(at);
                }
            }
            91 => {
                // Ids are forgotten by the clock, across boots: it may be wrong by hours, not by days.
                let jump = Duration::from_secs(self.chance.below(3600));
                let back = self.chance.one_in(2);
                self.now.wall = if back { self.now.wall - jump } else { self.now.wall + jump };
                self.now.synced = self.chance.below(4) > 0;
            }
            92 => {
                let failing =
                    [Failing::Io, Failing::Sync, Failing::ReadOnly][usize::try_from(self.chance.below(3)).unwrap()];
                let failing = self.chance.one_in(2).then_some(failing);
                self.disk.set_failing(failing);
            }
            93..96 => {
                let operations = self.chance.below(12);
                self.disk.set_fuse(Some(operations));
            }
            96 => self.kill(),
            97 => {
                self.disk.set_failing(None);
                self.stop();
            }
            _ => {
                self.disk.set_failing(None);
                self.pass(Duration::from_secs(2), true);
            }
        }
        if self.process.is_none() {
            self.start(Takeover::Safe);
        }
    }

    fn plug(&mut self, device: &'static str) {
        let now = self.now;
        let machine = self.machines.get_mut(device).unwrap();
        machine.online = !machine.online;
        let online = machine.online;
        let asked: Vec<Write> = machine.asked.drain(..).collect();
        let doing = machine.doing.take();
        self.quiet = self.clock;
        if let Some(process) = &mut self.process {
            if let Some((write, _)) = doing {
                let result = Err(WriteError::Unknown("unplugged".to_owned()));
                process.dispatcher.answer(Answer::Ended { ticket: write.ticket, result }, &now);
            }
            for write in asked {
                let result = Err(WriteError::Failed("unplugged".to_owned()));
                process.dispatcher.answer(Answer::Ended { ticket: write.ticket, result }, &now);
            }
        }
        if online {
            self.open(device);
        }
        self.tell_states();
    }

    /// With nothing in the way, everybody hears.
    fn end(&mut self) {
        self.disk.set_fuse(None);
        self.disk.set_failing(None);
        for device in ["relays", "motor"] {
            if !self.machines[device].online {
                self.plug(device);
            }
        }
        self.pass(Duration::from_secs(200), true);
        for (id, sent) in &self.sent {
            let answered = sent.outcome.is_some() || sent.acted == 0 || sent.loose;
            assert!(answered, "{id} acted, and nobody heard of it");
        }
    }
}

fn live(seed: u64, steps: u32, bug: Option<Bug>) -> (u32, u64) {
    let mut world = World::new(seed, bug);
    world.start(Takeover::Safe);
    for _ in 0..steps {
        world.step();
    }
    world.end();
    (world.acts, world.starts)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_command_acts_twice_or_late_and_outputs_are_safe_in_time() {
    let steps = u32::try_from(number("SLUICEGATE_MODEL_STEPS", 60_000)).unwrap();
    let seed = number("SLUICEGATE_SEED", 20_261_122);
    let lives = (steps / 1000).max(1);
    let (mut acts, mut starts) = (0, 0);
    for life in 0..u64::from(lives) {
        let seed = seed.wrapping_add(life.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let lived = std::panic::catch_unwind(|| live(seed, steps.min(1000), None));
        let (acted, started) = lived.unwrap_or_else(|_| panic!("SLUICEGATE_SEED={seed} SLUICEGATE_MODEL_STEPS=1000"));
        acts += acted;
        starts += started;
    }
    // Else it tested nothing.
    assert!(acts > 50 * lives, "only {acts} acts in {lives} lives");
    assert!(starts > 20 * u64::from(lives), "only {starts} starts in {lives} lives");
}

#[test]
fn a_seeded_fault_is_found() {
    let seeded = [
        Bug::NotJournalled,
        Bug::NotSynced,
        Bug::TrustsTheCache,
        Bug::FolderNotSynced,
        Bug::ToldEarly,
        Bug::NoBreak,
        Bug::NoLease,
        Bug::Forgets,
    ];
    for bug in seeded {
        let found = (1..500_u64).any(|seed| {
            std::panic::catch_unwind(|| live(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), 300, Some(bug))).is_err()
        });
        assert!(found, "nobody noticed {bug:?}");
    }
}
