//! The queue against a model that shares no code with it, on a file system that keeps as little as it may.
//!
//! Random steps: records come in, go out, are acknowledged and refused; the link comes and goes; the keeper works; the
//! flash is full, fails, comes back; and again and again the process dies in the middle of whatever the keeper does,
//! with the power or without. After each death the queue is opened, and read to the end in a copy.
//!
//! What must hold: a record that was durable and did not come to its end is there. What is there was pushed so, comes
//! in order and once. What is not there is told in a gap, and not in one that speaks of an unclean end if it was
//! durable. A gap's number stands for one content. The totals of each start add up.
//!
//! `SLUICEGATE_MODEL_STEPS` sets how many steps are made (100 000).
#![expect(clippy::print_stderr, reason = "how much was tried belongs into a test's report")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestError, TestRng, TestRunner};

use super::flash::Bug;
use super::tests::reading;
use super::*;
use crate::disk::fake::{Failing, Fake};
use crate::model::{Gap, Rate, Record, Size, Timestamp, Value};

/// Steps of one run, between two fresh starts.
const STEPS: usize = 100;

#[derive(Debug, Clone)]
enum Step {
    Push {
        lane: usize,
        count: usize,
    },
    Round {
        millis: u64,
    },
    Connect,
    Disconnect,
    Next(usize),
    Ack {
        place: usize,
        count: usize,
    },
    Refuse(usize),
    Gap {
        ack: bool,
    },
    Full(bool),
    Fail(Option<Failing>),
    Stop,
    /// A bit turns over, in what is on flash.
    Rot {
        lane: usize,
        segment: usize,
        place: usize,
    },
    Die {
        after: u64,
        power: bool,
        chance: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0usize..3, 1usize..60).prop_map(|(lane, count)| Step::Push { lane, count }),
        8 => (0u64..3000).prop_map(|millis| Step::Round { millis }),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        6 => (1usize..80).prop_map(Step::Next),
        5 => (0usize..64, 1usize..60).prop_map(|(place, count)| Step::Ack { place, count }),
        1 => (0usize..64).prop_map(Step::Refuse),
        2 => any::<bool>().prop_map(|ack| Step::Gap { ack }),
        1 => any::<bool>().prop_map(Step::Full),
        1 => prop_oneof![2 => Just(None), 1 => Just(Some(Failing::Io)), 1 => Just(Some(Failing::ReadOnly))].prop_map(Step::Fail),
        1 => Just(Step::Stop),
        1 => (0usize..3, any::<usize>(), any::<usize>()).prop_map(|(lane, segment, place)| Step::Rot { lane, segment, place }),
        3 => (0u64..14, any::<bool>(), any::<u32>()).prop_map(|(after, power, chance)| Step::Die { after, power, chance }),
    ]
}

/// What the model knows of a record.
#[derive(Debug)]
struct Known {
    value: i64,
    acked: bool,
    durable: bool,
}

type Place = (usize, Number);

struct World {
    config: Config,
    disk: Fake,
    bug: Option<Bug>,
    queue: Queue,
    keeper: Keeper,
    reader: Reader,
    connected: bool,
    now: Timestamp,
    starts: u64,
    next_value: i64,
    records: BTreeMap<Place, Known>,
    under_way: Vec<Record>,
    /// Gaps that were handed out, by their numbers.
    handed: BTreeMap<u64, Gap>,
    /// Where each stream stands on this connection.
    streams: BTreeMap<(usize, bool), Number>,
    reused: bool,
}

fn config() -> Config {
    let mut config = Config::default();
    for lane in [&mut config.alarm, &mut config.outcome, &mut config.telemetry] {
        lane.max_bytes = Size(64 << 10);
    }
    config.outcome.sync = Sync::Every(crate::model::Span::secs(1));
    config.max_memory = Size(256 << 10);
    config.keep_free = Size(8 << 10);
    config.replay.rate = Rate::Off;
    config
}

fn open(
    config: &Config,
    disk: &Fake,
    bug: Option<Bug>,
    epoch: Option<u64>,
    clean: bool,
    starts: u64,
) -> (Queue, Keeper) {
    let found = Found::open_with(config, Box::new(disk.clone()), bug);
    let opened = Opened { config: config.clone(), found };
    let previous = epoch.map(|epoch| Previous { epoch, clean });
    let (queue, keeper, _) =
        opened.begin(starts << 16, previous, starts * 1_000_000, watch::channel(Problems::new()).0);
    (queue, keeper)
}

impl World {
    fn new(bug: Option<Bug>, reused: bool) -> Self {
        let (config, disk) = (config(), Fake::new());
        let (queue, keeper) = open(&config, &disk, bug, None, true, 1);
        let reader = queue.reader(&config);
        World {
            config,
            disk,
            bug,
            queue,
            keeper,
            reader,
            connected: false,
            now: time::now(),
            starts: 1,
            next_value: 1,
            records: BTreeMap::new(),
            under_way: Vec::new(),
            handed: BTreeMap::new(),
            streams: BTreeMap::new(),
            reused,
        }
    }

    fn epoch(&self) -> u64 {
        self.starts << 16
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        match *step {
            Step::Push { lane, count } => {
                for _ in 0..count {
                    self.push(lane)?;
                }
            }
            Step::Round { millis } => self.round(millis)?,
            Step::Connect => {
                self.reader.end();
                self.reader.begin();
                self.connected = true;
                self.under_way.clear();
                self.streams.clear();
            }
            Step::Disconnect => {
                self.reader.end();
                self.connected = false;
                self.under_way.clear();
            }
            Step::Next(count) if self.connected => {
                for _ in 0..count {
                    let Some(record) = self.reader.next(self.now.uptime) else { break };
                    self.check_handed(&record)?;
                    self.under_way.push(record);
                }
            }
            Step::Ack { place, count } => {
                for _ in 0..count.min(self.under_way.len()) {
                    let record = self.under_way.remove(place % self.under_way.len());
                    self.reader.acked(record.lane, record.number);
                    self.ended(&record);
                }
            }
            Step::Refuse(place) if !self.under_way.is_empty() => {
                let record = self.under_way.swap_remove(place % self.under_way.len());
                self.reader.refused(record.lane, record.number);
            }
            Step::Gap { ack } if self.connected => {
                if let Some(gap) = self.reader.next_gap(self.now.uptime) {
                    if ack {
                        self.reader.gap_acked(gap.n);
                    }
                    self.hear(gap)?;
                }
            }
            Step::Full(full) => {
                let used: usize = self.disk.names().iter().map(|name| self.disk.content(name).len()).sum();
                self.disk.set_capacity(full.then_some(used + (10 << 10)));
            }
            Step::Fail(failing) => self.disk.set_failing(failing),
            Step::Stop => {
                self.disk.set_failing(None);
                self.disk.set_capacity(None);
                self.now.uptime += Duration::from_secs(61);
                self.keeper.round(&self.now);
                self.note_durable();
                self.keeper.close();
                let closed = self.queue.state().closed;
                if !closed {
                    return Err("a stop on a good disk kept nothing".to_owned());
                }
                // A clean stop keeps all, durably.
                self.note_durable();
                self.again(true)?;
            }
            Step::Die { after, power, chance } => {
                self.disk.set_fuse(Some(after));
                for _ in 0..4 {
                    if !self.disk.is_dead() {
                        self.round(700)?;
                    }
                }
                self.note_durable();
                self.disk.set_capacity(None);
                if power {
                    let mut chance = u64::from(chance) | 1;
                    self.disk.cut(|| {
                        // xorshift64
                        chance ^= chance << 13;
                        chance ^= chance >> 7;
                        chance ^= chance << 17;
                        u32::try_from(chance >> 32).unwrap()
                    });
                } else {
                    self.disk.set_fuse(None);
                    self.disk.set_failing(None);
                }
                self.again(false)?;
            }
            Step::Rot { lane, segment, place } => {
                let state = self.queue.state();
                let segments = &state.lanes[lane].segments;
                // Not in the last record: nobody can tell that from one that was never written whole. Nor in the head: with
                // that and the first record gone, nobody knows whose record it was.
                if let Some(segment) = segments.get(segment % segments.len().max(1)).filter(|of| of.seal.count > 3) {
                    let name = format!("{}/{:016x}.seg", Lane::ALL[lane], segment.id);
                    let half = usize::try_from(segment.seal.end - 128).unwrap() / 2;
                    self.disk.rot(&name, 128 + place % half);
                }
            }
            Step::Next(_) | Step::Refuse(_) | Step::Gap { .. } => {}
        }
        self.check_totals()
    }

    fn push(&mut self, lane: usize) -> Result<(), String> {
        let value = self.next_value;
        self.next_value += 1;
        let mut payload = Vec::new();
        Body::Reading(reading("p", value)).encode(&mut payload);
        let number = self.queue.push_bytes(Lane::ALL[lane], payload, 0, self.now.uptime);
        let known = Known { value, acked: false, durable: false };
        match self.records.insert((lane, number), known) {
            None => Ok(()),
            Some(_) => Err(format!("number {number} is given out twice")),
        }
    }

    fn round(&mut self, millis: u64) -> Result<(), String> {
        self.now.uptime += Duration::from_millis(millis);
        self.keeper.round(&self.now);
        self.note_durable();
        Ok(())
    }

    /// What the queue calls durable now must be there after any cut.
    fn note_durable(&mut self) {
        let epoch = self.epoch();
        for status in self.queue.status() {
            let lane = status.lane.index();
            let first = Number { epoch, seq: 0 };
            let last = Number { epoch, seq: status.durable };
            for (_, known) in self.records.range_mut((lane, first)..=(lane, last)) {
                known.durable = true;
            }
        }
    }

    fn ended(&mut self, record: &Record) {
        if let Some(known) = self.records.get_mut(&(record.lane.index(), record.number)) {
            known.acked = true;
        }
    }

    fn check_handed(&mut self, record: &Record) -> Result<(), String> {
        let lane = record.lane.index();
        self.check_content(lane, record)?;
        let stream = (lane, lane == 2 && record.late);
        if let Some(before) = self.streams.insert(stream, record.number)
            && before >= record.number
        {
            return Err(format!("{} after {before} in a stream", record.number));
        }
        Ok(())
    }

    fn check_content(&self, lane: usize, record: &Record) -> Result<(), String> {
        let Body::Reading(reading) = &record.body else { return Err("an outcome out of nowhere".to_owned()) };
        let known = self.records.get(&(lane, record.number)).ok_or(format!("{} was never pushed", record.number))?;
        if reading.value == Some(Value::Int(known.value)) {
            Ok(())
        } else {
            Err(format!("{} has another content than was pushed", record.number))
        }
    }

    fn hear(&mut self, gap: Gap) -> Result<(), String> {
        match self.handed.insert(gap.n, gap.clone()) {
            Some(before) if before.range != gap.range => Err(format!("gap {} changed: {before:?}, {gap:?}", gap.n)),
            _ => Ok(()),
        }
    }

    /// The next start.
    fn again(&mut self, clean: bool) -> Result<(), String> {
        let epoch = self.epoch();
        self.starts += u64::from(!self.reused);
        let (starts, bug) = (self.starts, self.bug);
        (self.queue, self.keeper) = open(&self.config, &self.disk, bug, Some(epoch), clean, starts);
        self.reader = self.queue.reader(&self.config);
        self.connected = false;
        self.under_way.clear();
        self.check_all(epoch, clean)
    }

    /// Reads all there is, in a copy.
    fn check_all(&mut self, epoch: u64, clean: bool) -> Result<(), String> {
        let copy = self.disk.copy();
        let (queue, mut keeper) = open(&self.config, &copy, self.bug, Some(epoch), clean, self.starts + 1);
        let mut reader = queue.reader(&self.config);
        reader.begin();
        let mut there: BTreeSet<Place> = BTreeSet::new();
        let mut last: BTreeMap<usize, Number> = BTreeMap::new();
        for _ in 0..1000 {
            keeper.round(&self.now);
            let mut any = false;
            while let Some(record) = reader.next(self.now.uptime) {
                any = true;
                let lane = record.lane.index();
                self.check_content(lane, &record)?;
                if last.insert(lane, record.number).is_some_and(|before| before >= record.number) {
                    return Err(format!("{} comes out of order after a restart", record.number));
                }
                there.insert((lane, record.number));
            }
            if !any && !queue.state().feeds.iter().any(|feed| feed.wants) {
                break;
            }
        }
        // Damage was found only now.
        let (_, gaps) = queue.state().gaps.snapshot_for_test();
        let told = gaps.into_iter().chain(self.handed.values().cloned().collect::<Vec<_>>());
        let mut told: BTreeMap<u64, Gap> = told.map(|gap| (gap.n, gap)).collect();
        for (n, gap) in &self.handed {
            if told.get(n).is_some_and(|other| other.range != gap.range) {
                return Err(format!("gap {n} was told otherwise before the restart"));
            }
        }
        let all: Vec<_> = told.values().map(|gap| (gap.n, gap.cause, gap.range.clone())).collect();
        for (place, known) in &self.records {
            if known.acked || there.contains(place) {
                continue;
            }
            // An alarm that was not on flash was not accepted.
            if !known.durable && place.0 == 0 {
                continue;
            }
            if !explain(&mut told, place.0, place.1, known.durable) {
                return Err(format!(
                    "{:?} {} is gone, {known:?}, and no gap tells it: {all:?}",
                    Lane::ALL[place.0],
                    place.1
                ));
            }
        }
        Ok(())
    }

    /// Every record of this start came to one end, or waits.
    fn check_totals(&self) -> Result<(), String> {
        for status in self.queue.status() {
            let Totals { published, dropped_bytes, dropped_age, dropped_memory, dropped_disk, damaged, refused } =
                status.totals;
            let ended = published + dropped_bytes + dropped_age + dropped_memory + dropped_disk + damaged + refused;
            if status.at_start + status.next_seq - 1 != ended + status.depth {
                return Err(format!("the totals do not add up: {status:?}"));
            }
        }
        Ok(())
    }
}

/// Finds a gap for a number, and takes one off its count. Of those with room the one that ends first: numbers come in
/// ascending order.
fn explain(told: &mut BTreeMap<u64, Gap>, of: usize, number: Number, durable: bool) -> bool {
    let mut best: Option<(u64, u64)> = None;
    for (n, gap) in told.iter() {
        let GapRange::Numbers { lane, epoch, from, to, count } = gap.range else { continue };
        let end = to.unwrap_or(u64::MAX);
        let stop = gap.cause == GapCause::Stop && count.is_none();
        // Damage where two epochs meet may have hit all of a third one between them, which nobody can name.
        let between = gap.cause == GapCause::Damaged && to.is_none() && epoch < number.epoch;
        if lane.index() == of
            && (between || epoch == number.epoch && (from..=end).contains(&number.seq))
            && count != Some(0)
            && !(durable && stop)
            && best.is_none_or(|(_, known)| end < known)
        {
            best = Some((*n, end));
        }
    }
    let Some(gap) = best.and_then(|(n, _)| told.get_mut(&n)) else { return false };
    if let GapRange::Numbers { count: Some(count), .. } = &mut gap.range {
        *count -= 1;
    }
    true
}

fn run(steps: &[Step], bug: Option<Bug>, reused: bool) -> Result<(), String> {
    let mut world = World::new(bug, reused);
    for step in steps {
        world.take(step)?;
    }
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    let config = RunnerConfig { cases, failure_persistence: None, max_shrink_iters: 4000, ..RunnerConfig::default() };
    TestRunner::new(config)
}

#[test]
fn nothing_durable_is_lost_whatever_the_flash_forgets() {
    let steps: usize = std::env::var("SLUICEGATE_MODEL_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let cases = u32::try_from(steps.div_ceil(STEPS)).unwrap();
    let result = runner(cases)
        .run(&prop::collection::vec(step(), STEPS), |steps| run(&steps, None, false).map_err(TestCaseError::fail));
    match result {
        Ok(()) => eprintln!("{} steps", cases as usize * STEPS),
        Err(TestError::Fail(why, steps)) => {
            let steps: Vec<String> = steps.iter().map(|step| format!("{step:?}")).collect();
            panic!("{why}\n{}", steps.join("\n"));
        }
        Err(error) => panic!("{error}"),
    }
}

/// The model notices each of these faults, or it would prove nothing.
#[test]
fn the_model_finds_seeded_faults() {
    let seeded = [Bug::NotSynced, Bug::CutAtDamage, Bug::FolderNotSynced, Bug::TrustsTheCache, Bug::GapsLast];
    for (bug, reused) in seeded.into_iter().map(|bug| (Some(bug), false)).chain([(None, true)]) {
        let mut runner =
            TestRunner::new_with_rng(RunnerConfig::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
        let strategy = prop::collection::vec(step(), STEPS);
        let found = (1..=2000).find_map(|case| {
            let steps = strategy.new_tree(&mut runner).unwrap().current();
            run(&steps, bug, reused).err().map(|why| (case, why))
        });
        let (case, why) = found.unwrap_or_else(|| panic!("nobody noticed {bug:?}"));
        let why: String = why.chars().take(100).collect();
        eprintln!("{}: run {case}: {why}", bug.map_or("a reused number".to_owned(), |bug| format!("{bug:?}")));
    }
}

/// A power cut keeps a record behind the seal of the stop before, and not that the seal was taken away for it; the flash then
/// fails, and the segment is filled on no more.
#[test]
fn a_record_behind_a_seal_is_not_forgotten() {
    let push = |count| Step::Push { lane: 1, count };
    let fails = Step::Fail(Some(Failing::Io));
    for after in 6..12 {
        for chance in 0..40 {
            let die = Step::Die { after, power: true, chance };
            let steps =
                [push(14), Step::Stop, push(1), die, fails.clone(), Step::Round { millis: 0 }, push(1), Step::Stop];
            assert_eq!(run(&steps, None, false), Ok(()), "{after} {chance}");
        }
    }
}
