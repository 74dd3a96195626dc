use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::lane::SLOT_BYTES;
use super::*;
use crate::disk::fake::{Failing, Fake};
use crate::model::{Arrival, DeviceName, Gap, PointName, Quality, Rate, Record, Size, Span, Value};
use crate::task::Pulse;

const EPOCH: u64 = 5 << 16;

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.replay.rate = Rate::Off;
    change(&mut config);
    config
}

/// A queue whose lanes stay in RAM.
fn in_ram(config: &Config, previous: Option<Previous>) -> Queue {
    let mut config = config.clone();
    for lane in [&mut config.alarm, &mut config.outcome, &mut config.telemetry] {
        lane.sync = Sync::Never;
    }
    let found = Found::open(&config, Box::new(Fake::new()));
    Opened { config, found }.begin(EPOCH, previous, 5_000_001, watch::channel(Problems::new()).0).0
}

pub(super) fn reading(point: &str, value: i64) -> Reading {
    Reading {
        device: DeviceName::new("d").unwrap(),
        point: PointName::new(point).unwrap(),
        timestamp: time::now(),
        value: Some(Value::Int(value)),
        unit: None,
        quality: Quality::Good,
        cause: None,
    }
}

fn push(queue: &Queue, lane: Lane, value: i64) -> u64 {
    queue.push(lane, &Body::Reading(reading("p", value)), 0).seq
}

fn seqs(reader: &mut Reader) -> Vec<(Lane, u64, bool)> {
    std::iter::from_fn(|| reader.next(time::uptime())).map(|r| (r.lane, r.number.seq, r.late)).collect()
}

/// Bytes of so many small records.
fn room_for(count: usize) -> Size {
    let mut payload = Vec::new();
    Body::Reading(reading("p", 0)).encode(&mut payload);
    Size((count * (SLOT_BYTES + payload.len())) as u64)
}

#[test]
fn live_goes_before_the_backlog_and_both_in_order() {
    let config = config(|_| {});
    let queue = in_ram(&config, None);
    let mut reader = queue.reader(&config);
    for value in 1..=3 {
        push(&queue, Lane::Telemetry, value);
    }
    assert_eq!(seqs(&mut reader), [], "nothing leaves without a connection");
    reader.begin();
    assert_eq!(reader.next(time::uptime()).map(|r| (r.number.seq, r.late)), Some((1, true)));
    push(&queue, Lane::Telemetry, 4);
    push(&queue, Lane::Telemetry, 5);
    let t = Lane::Telemetry;
    assert_eq!(seqs(&mut reader), [(t, 4, false), (t, 5, false), (t, 2, true), (t, 3, true)]);
    // Only what was acknowledged is gone; the rest is the next connection's backlog.
    for seq in [4, 2] {
        reader.acked(t, Number { epoch: EPOCH, seq });
    }
    reader.begin();
    assert_eq!(seqs(&mut reader), [(t, 1, true), (t, 3, true), (t, 5, true)]);
}

#[test]
fn alarms_go_first_and_telemetry_keeps_its_share() {
    let config = config(|_| {});
    let queue = in_ram(&config, None);
    let mut reader = queue.reader(&config);
    reader.begin();
    for value in 1..=8 {
        push(&queue, Lane::Telemetry, value);
        push(&queue, Lane::Alarm, value);
    }
    let lanes: Vec<Lane> = seqs(&mut reader).into_iter().map(|(lane, ..)| lane).collect();
    let (a, t) = (Lane::Alarm, Lane::Telemetry);
    assert_eq!(lanes, [a, a, a, t, a, a, a, t, a, a, t, t, t, t, t, t]);
}

#[test]
fn what_does_not_fit_is_dropped_oldest_first_and_told() {
    let config = config(|config| config.telemetry.max_bytes = room_for(10));
    let queue = in_ram(&config, None);
    let mut reader = queue.reader(&config);
    for value in 1..=25 {
        push(&queue, Lane::Telemetry, value);
    }
    reader.begin();
    let kept: Vec<u64> = seqs(&mut reader).into_iter().map(|(_, seq, _)| seq).collect();
    assert_eq!(kept, (16..=25).collect::<Vec<_>>());
    let gap = reader.next_gap(time::uptime()).unwrap();
    let range = GapRange::Numbers { lane: Lane::Telemetry, epoch: EPOCH, from: 1, to: Some(15), count: Some(15) };
    assert_eq!((gap.cause, gap.range, gap.n), (GapCause::Bytes, range, 5_000_001));
    let telemetry = &queue.status()[2];
    assert_eq!((telemetry.depth, telemetry.next_seq, telemetry.totals.dropped_bytes), (10, 26, 15));
}

#[test]
fn memory_is_bounded_over_all_lanes_and_telemetry_goes_first() {
    let config = config(|config| config.max_memory = room_for(10));
    let queue = in_ram(&config, None);
    for value in 0..8 {
        push(&queue, Lane::Telemetry, value);
    }
    for value in 0..8 {
        push(&queue, Lane::Alarm, value);
    }
    let depth: Vec<u64> = queue.status().iter().map(|lane| lane.depth).collect();
    assert_eq!(depth, [8, 0, 2]);
    assert_eq!(queue.status()[2].totals.dropped_memory, 6);
}

#[test]
fn what_is_too_old_is_dropped_and_told() {
    let config = config(|config| config.telemetry.max_age = Span(Duration::ZERO));
    let queue = in_ram(&config, None);
    let mut reader = queue.reader(&config);
    push(&queue, Lane::Telemetry, 1);
    reader.begin();
    assert!(reader.next(time::uptime() + Duration::from_secs(1)).is_none());
    assert_eq!(reader.next_gap(time::uptime()).map(|gap| gap.cause), Some(GapCause::Age));
    assert!(queue.status()[2].depth == 0);
}

#[test]
fn a_refused_record_leaves_with_a_gap_and_one_put_back_comes_again() {
    let config = config(|_| {});
    let queue = in_ram(&config, None);
    let mut reader = queue.reader(&config);
    reader.begin();
    for value in 1..=2 {
        push(&queue, Lane::Telemetry, value);
    }
    seqs(&mut reader);
    let number = |seq| Number { epoch: EPOCH, seq };
    reader.refused(Lane::Telemetry, number(1));
    reader.put_back(Lane::Telemetry, number(2));
    assert_eq!(reader.next_again().map(|r| r.number), Some(number(2)));
    assert_eq!(reader.next_again(), None);
    let gap = reader.next_gap(time::uptime()).unwrap();
    assert_eq!(gap.cause, GapCause::Refused);
    reader.acked(Lane::Telemetry, number(2));
    assert!(!queue.is_empty(), "the gap is not through yet");
    reader.gap_acked(gap.n);
    assert!(queue.is_empty());
}

#[test]
fn an_unclean_end_is_told_for_each_lane() {
    let config = config(|_| {});
    let queue = in_ram(&config, Some(Previous { epoch: 4 << 16, clean: false }));
    let mut reader = queue.reader(&config);
    let gaps: Vec<Gap> = std::iter::from_fn(|| reader.next_gap(time::uptime())).collect();
    assert_eq!(gaps.len(), 3);
    for (gap, lane) in gaps.iter().zip(Lane::ALL) {
        let range = GapRange::Numbers { lane, epoch: 4 << 16, from: 1, to: None, count: None };
        assert_eq!((gap.cause, &gap.range), (GapCause::Stop, &range));
    }
}

/// A start after an unclean end of that epoch; whether it noted what that may have cost, and all gaps.
fn started(disk: &Fake, epoch: u64, before: Option<u64>) -> (bool, Vec<Gap>) {
    let config = config(|_| {});
    let previous = before.map(|epoch| Previous { epoch, clean: false });
    let found = Found::open(&config, Box::new(disk.clone()));
    let (queue, _, begun) = Opened { config, found }.begin(epoch, previous, epoch, watch::channel(Problems::new()).0);
    let gaps = queue.state().gaps.snapshot_for_test().1;
    (begun.noted, gaps)
}

#[test]
fn what_a_start_noted_outlives_a_power_cut_wherever_the_start_before_died() {
    for fuse in 0..30 {
        let disk = Fake::new();
        started(&disk, EPOCH, None);
        started(&disk, 2 * EPOCH, Some(EPOCH));
        disk.set_fuse(Some(fuse));
        let (noted, _) = started(&disk, 3 * EPOCH, Some(2 * EPOCH));
        disk.set_fuse(None);
        started(&disk, 4 * EPOCH, Some(if noted { 3 } else { 2 } * EPOCH));
        let (_, told) = started(&disk, 5 * EPOCH, Some(4 * EPOCH));
        // Whatever was not synced is gone.
        disk.cut(|| 5);
        let (_, after) = started(&disk, 6 * EPOCH, Some(5 * EPOCH));
        let lost: Vec<&Gap> = told.iter().filter(|gap| !after.iter().any(|kept| kept.range == gap.range)).collect();
        assert!(lost.is_empty(), "died after {fuse} operations, lost: {lost:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_told_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue");
    std::fs::write(&path, "not a folder").unwrap();
    let config = config(|_| {});
    let (problems, told) = watch::channel(Problems::new());
    let (queue, mut keeper, _) = Queue::open(&config, &path).begin(EPOCH, None, 5_000_001, problems);
    let mut now = time::now();
    for _ in 0..2 {
        keeper.round(&now);
        let lanes: Vec<String> = told.borrow().keys().map(|(_, lane)| lane.clone()).collect();
        assert_eq!(lanes, ["alarm", "outcome", "telemetry"]);
        now.uptime += Duration::from_secs(5);
    }
    push(&queue, Lane::Alarm, 1);
    std::fs::remove_file(&path).unwrap();
    keeper.round(&now);
    assert_eq!(*told.borrow(), Problems::new());
    assert_eq!(queue.status()[0].durable, 1);
}

#[test]
fn with_sync_always_nobody_hears_of_a_number_before_it_is_durable() {
    let config = config(|config| config.telemetry.sync = Sync::Always);
    let found = Found::open(&config, Box::new(Fake::new()));
    let (queue, mut keeper, _) =
        Opened { config: config.clone(), found }.begin(EPOCH, None, 5_000_001, watch::channel(Problems::new()).0);
    let mut reader = queue.reader(&config);
    let telemetry = Lane::Telemetry;
    let told = || (queue.status()[2].next_seq, queue.status()[2].depth);
    push(&queue, telemetry, 1);
    assert_eq!(told(), (1, 0));
    reader.begin();
    push(&queue, telemetry, 2);
    push(&queue, telemetry, 3);
    // What is live would show that there was something before.
    assert_eq!(reader.next(time::uptime()).map(|record| (record.number.seq, record.late)), Some((1, true)));
    assert_eq!(told(), (2, 1));
    keeper.round(&time::now());
    assert_eq!(told(), (4, 3));
    assert_eq!(seqs(&mut reader), [(telemetry, 2, false), (telemetry, 3, false)]);
    push(&queue, telemetry, 4);
    assert_eq!(told(), (4, 3));
    assert_eq!(
        seqs(&mut reader),
        [(telemetry, 4, false)],
        "on the way at once, as long as nothing before it is missing"
    );
    assert_eq!(told(), (5, 4));
    reader.begin();
    assert_eq!(told(), (5, 4), "what was told stays told");
}

#[test]
fn a_flash_that_failed_is_tried_again_where_nothing_is_to_be_written() {
    let config = config(|config| config.alarm.sync = Sync::Always);
    let disk = Fake::new();
    let found = Found::open(&config, Box::new(disk.clone()));
    let (problems, told) = watch::channel(Problems::new());
    let (queue, mut keeper, _) = Opened { config: config.clone(), found }.begin(EPOCH, None, 5_000_001, problems);
    let mut reader = queue.reader(&config);
    reader.begin();
    disk.set_failing(Some(Failing::Io));
    push(&queue, Lane::Alarm, 1);
    let mut now = time::now();
    keeper.round(&now);
    assert_eq!(told.borrow().len(), 3);
    assert_eq!(seqs(&mut reader).len(), 1);
    reader.acked(Lane::Alarm, Number { epoch: EPOCH, seq: 1 });
    for _ in 0..3 {
        now.uptime += Duration::from_secs(70);
        let due = keeper.round(&now).unwrap();
        assert!(due > now.uptime, "the keeper spins");
    }
    disk.set_failing(None);
    now.uptime += Duration::from_secs(70);
    keeper.round(&now);
    assert_eq!(*told.borrow(), Problems::new());
}

#[test]
fn what_is_in_ram_comes_after_a_segment_of_which_nothing_waits() {
    let config = config(|config| config.alarm.sync = Sync::Always);
    let found = Found::open(&config, Box::new(Fake::new()));
    let (queue, mut keeper, _) =
        Opened { config: config.clone(), found }.begin(EPOCH, None, 5_000_001, watch::channel(Problems::new()).0);
    let mut reader = queue.reader(&config);
    reader.begin();
    let alarm = Lane::Alarm;
    push(&queue, alarm, 1);
    assert_eq!(seqs(&mut reader), [(alarm, 1, false)]);
    keeper.round(&time::now());
    reader.acked(alarm, Number { epoch: EPOCH, seq: 1 });
    // The flash does not take this one: it is in RAM alone.
    push(&queue, alarm, 2);
    reader.begin();
    assert_eq!(seqs(&mut reader), [(alarm, 2, true)]);
}

#[test]
fn only_the_newest_value_of_a_latest_point_waits() {
    let config = config(|_| {});
    let queue = in_ram(&config, None);
    let mut reader = queue.reader(&config);
    for value in 1..=3 {
        queue.push_latest(reading("p", value));
    }
    assert_eq!(queue.replaced(), 2);
    let sent = reader.next_latest().unwrap();
    assert_eq!(sent.value, Some(Value::Int(3)));
    assert_eq!(reader.next_latest(), None);
    // A newer one came before the acknowledgement: it is not lost with it.
    queue.push_latest(reading("p", 4));
    reader.latest_acked(&sent);
    let sent = reader.next_latest().unwrap();
    assert_eq!(sent.value, Some(Value::Int(4)));
    reader.begin();
    assert_eq!(reader.next_latest().as_ref(), Some(&sent), "a new connection sends it again");
    reader.latest_acked(&sent);
    assert!(queue.is_empty());
}

#[test]
fn a_fast_latest_point_has_one_value_under_way_and_lets_the_others_pass() {
    let config = config(|_| {});
    let queue = in_ram(&config, None);
    let mut reader = queue.reader(&config);
    queue.push_latest(reading("fast", 1));
    queue.push_latest(reading("slow", 1));
    let first = reader.next_latest().unwrap();
    assert_eq!(first.point.as_str(), "fast");
    queue.push_latest(reading("fast", 2));
    queue.push_latest(reading("fast", 3));
    let slow = reader.next_latest().unwrap();
    assert_eq!(slow.point.as_str(), "slow");
    assert_eq!(reader.next_latest(), None, "the first value is still under way");
    reader.latest_acked(&first);
    assert_eq!(reader.next_latest().unwrap().value, Some(Value::Int(3)));
}

#[test]
fn the_backlog_is_replayed_at_its_rate() {
    let rate = Rate::Limit { count: 10, per: Duration::from_secs(1) };
    let config = config(|config| config.replay.rate = rate);
    let queue = in_ram(&config, None);
    let mut reader = queue.reader(&config);
    for value in 0..100 {
        push(&queue, Lane::Telemetry, value);
    }
    reader.begin();
    let start = time::uptime();
    let mut sent = 0;
    for step in 0..=50u32 {
        let now = start + Duration::from_millis(100) * step;
        while reader.next(now).is_some() {
            sent += 1;
        }
        assert!(reader.next_due(now).is_some_and(|due| due > now));
    }
    assert!((50..=52).contains(&sent), "{sent} in five seconds");
}

/// Small lanes, of which telemetry is on flash before anybody is told.
fn small() -> Config {
    config(|config| {
        config.telemetry.max_bytes = Size(256 << 10);
        config.telemetry.sync = Sync::Always;
        (config.alarm.max_bytes, config.outcome.max_bytes) = (Size(64 << 10), Size(64 << 10));
        config.keep_free = Size(0);
    })
}

/// A queue on a disk that has so much room beside its small files, with its keeper, and what it says to people.
fn on_flash(room: usize) -> (Fake, Queue, Keeper, watch::Receiver<Problems>) {
    let config = small();
    let disk = Fake::new();
    let (problems, said) = watch::channel(Problems::new());
    let found = Found::open(&config, Box::new(disk.clone()));
    let (queue, mut keeper, _) = Opened { config, found }.begin(EPOCH, None, 1, problems);
    keeper.round(&time::now());
    let used: usize = disk.names().iter().map(|name| disk.content(name).len()).sum();
    disk.set_capacity(Some(used + room));
    (disk, queue, keeper, said)
}

#[test]
fn new_bounds_hold_from_the_next_records_on() {
    let (_disk, queue, mut keeper, _problems) = on_flash(1 << 20);
    let fill = |keeper: &mut Keeper| {
        for value in 0..8000 {
            push(&queue, Lane::Telemetry, value);
            if value % 100 == 99 {
                keeper.round(&time::now());
            }
        }
        queue.status()[2].bytes
    };
    let before = fill(&mut keeper);
    assert!((192 << 10..=256 << 10).contains(&before), "{before}");
    let change = |max_bytes: u64| {
        let telemetry = LaneConfig { max_bytes: Size(max_bytes), sync: Sync::Never, ..small().telemetry };
        queue.change(&Config { telemetry, ..small() });
    };
    change(64 << 10);
    let after = fill(&mut keeper);
    assert!((1..=64 << 10).contains(&after), "{after} bytes; it stays on flash until the next start");
    change(512 << 10);
    let at_last = fill(&mut keeper);
    assert!((256 << 10..=512 << 10).contains(&at_last), "{at_last}");
    let LaneStatus { next_seq, depth, totals, .. } = queue.status()[2].clone();
    assert_eq!(next_seq - 1, depth + totals.dropped_bytes, "each number has one end");
}

#[test]
fn less_memory_counts_at_once() {
    let queue = in_ram(&config(|config| config.max_memory = Size(1 << 20)), None);
    for value in 0..2000 {
        push(&queue, Lane::Telemetry, value);
    }
    let before = queue.status()[2].ram;
    queue.change(&config(|config| config.max_memory = room_for(100)));
    push(&queue, Lane::Telemetry, 2000);
    let after = queue.status()[2].ram;
    assert!(after as u64 <= room_for(100).0 && before > 10 * after, "{before} to {after}");
}

#[tokio::test]
async fn what_was_sent_before_a_change_goes_where_it_went_before() {
    let queue = in_ram(&config(|_| {}), None);
    let route = |lane| Route { lane, keep: Keep::All, retain: true };
    let (devices, sources): (Vec<_>, Vec<_>) = (0..2).map(|_| tokio::sync::mpsc::channel(32)).unzip();
    let (changes, changed) = tokio::sync::mpsc::channel(1);
    let (last, shown) = watch::channel(BTreeMap::new());
    let taps = Taps { last, live: tokio::sync::broadcast::channel(1).0 };
    let mut sources = sources.into_iter();
    let routes = [(reading("p", 0).key(), route(Lane::Telemetry))].into();
    let intake = Intake::new(sources.by_ref().take(1).collect(), routes, queue.clone(), taps, changed, Pulse::new("i"));
    // All of it is there when the intake looks for the first time, whatever it looks at first.
    for value in 0..20 {
        devices[0].send(Arrival::Reading(reading("p", value))).await.unwrap();
    }
    let routes = [(reading("q", 0).key(), route(Lane::Alarm))].into();
    changes.send(Change { routes, sources: sources.collect() }).await.unwrap();
    devices[1].send(Arrival::Reading(reading("q", 1))).await.unwrap();
    drop(devices);
    intake.run().await;
    let depth = |lane: Lane| queue.status()[lane.index()].depth;
    assert_eq!((depth(Lane::Telemetry), depth(Lane::Alarm)), (20, 1));
    assert_eq!(shown.borrow().keys().collect::<Vec<_>>(), [&reading("q", 0).key()], "p is not shown any more");
}

fn said(problems: &watch::Receiver<Problems>) -> Vec<String> {
    problems.borrow().values().map(|problem| problem.text.clone()).collect()
}

#[test]
fn a_flash_that_failed_is_tried_again_though_nothing_waits() {
    let (disk, queue, mut keeper, problems) = on_flash(16 << 10);
    let mut reader = queue.reader(&Config::default());
    reader.begin();
    let seq = push(&queue, Lane::Telemetry, 1);
    let mut now = time::now();
    keeper.round(&now);
    let refused = "the flash does not take the lane telemetry, which goes on in RAM: the file system is full, but for what keep_free leaves to others";
    assert_eq!(said(&problems), [refused]);
    // It went to the broker, and nothing is to be written.
    assert_eq!(reader.next(now.uptime).map(|record| record.number.seq), Some(seq));
    reader.acked(Lane::Telemetry, Number { epoch: EPOCH, seq });
    for _ in 0..5 {
        now.uptime += Duration::from_secs(61);
        let due = keeper.round(&now);
        assert!(due.is_some_and(|due| due > now.uptime), "it would be busy with nothing");
        assert_eq!(said(&problems), [refused]);
    }
    disk.set_capacity(None);
    now.uptime += Duration::from_secs(61);
    keeper.round(&now);
    assert_eq!(said(&problems), [""; 0]);
    assert_eq!(queue.status()[2].trouble, None);
}

#[test]
fn a_flash_that_fails_is_not_filled_with_what_was_tried() {
    let (disk, queue, mut keeper, problems) = on_flash(1 << 20);
    disk.set_failing(Some(Failing::Sync));
    let mut now = time::now();
    for value in 0..10 {
        push(&queue, Lane::Telemetry, value);
        now.uptime += Duration::from_secs(61);
        keeper.round(&now);
        assert_eq!(said(&problems).len(), 1, "{:?}", said(&problems));
    }
    let segments = || disk.names().iter().filter(|name| name.ends_with(".seg")).count();
    assert_eq!(segments(), 0);
    disk.set_failing(None);
    now.uptime += Duration::from_secs(61);
    keeper.round(&now);
    assert_eq!((said(&problems).len(), segments(), queue.status()[2].durable), (0, 1, 10));
}

#[test]
fn a_lane_that_drops_its_oldest_for_want_of_room_says_so() {
    // Room for two segments of telemetry beside those of the other lanes.
    let (disk, queue, mut keeper, problems) = on_flash(100 << 10);
    let full = "the file system is full, but for what keep_free leaves to others: the lane telemetry drops its oldest";
    for value in 0..5000 {
        push(&queue, Lane::Telemetry, value);
    }
    let mut now = time::now();
    while queue.state().lane(Lane::Telemetry).fresh() > 0 {
        keeper.round(&now);
    }
    assert_eq!(said(&problems), [full]);
    let status = &queue.status()[2];
    assert!(status.totals.dropped_disk > 0 && status.trouble.is_none() && status.bytes > 0, "{status:?}");
    now.uptime += Duration::from_secs(30);
    keeper.round(&now);
    assert_eq!(said(&problems), [full]);
    // Also while nothing is written.
    disk.set_capacity(None);
    now.uptime += Duration::from_secs(30);
    keeper.round(&now);
    assert_eq!(said(&problems), [""; 0]);
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Next,
    Ack(usize),
    Refuse(usize),
    PutBack(usize),
    Reconnect,
    Gap,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..3).prop_map(Step::Push),
        6 => Just(Step::Next),
        4 => (0usize..64).prop_map(Step::Ack),
        1 => (0usize..64).prop_map(Step::Refuse),
        1 => (0usize..64).prop_map(Step::PutBack),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Gap),
    ]
}

proptest! {
    /// Whatever happens: each number ends as exactly one of published, dropped or refused, all but the first are told
    /// in gaps whose counts add up, and first copies leave each stream in order.
    #[test]
    fn every_number_ends_exactly_once(steps in prop::collection::vec(step(), 1..400)) {
        let config = config(|config| {
            config.telemetry.max_bytes = room_for(12);
            config.alarm.max_bytes = room_for(6);
            config.max_memory = room_for(24);
        });
        let queue = in_ram(&config, None);
        let mut reader = queue.reader(&config);
        reader.begin();
        let now = time::uptime();
        let mut pushed = [0u64; 3];
        let mut under_way: Vec<Record> = Vec::new();
        let mut seen: BTreeSet<(usize, u64)> = BTreeSet::new();
        let mut last: BTreeMap<(usize, bool), u64> = BTreeMap::new();
        let mut told = [0u64; 3];
        let count = |gap: Gap, told: &mut [u64; 3]| {
            if let GapRange::Numbers { lane, count: Some(count), .. } = gap.range {
                told[lane.index()] += count;
            }
        };
        let mut later = now;
        for step in steps {
            match step {
                Step::Push(lane) => {
                    pushed[lane] += 1;
                    prop_assert_eq!(push(&queue, Lane::ALL[lane], 0), pushed[lane]);
                }
                Step::Next => if let Some(record) = reader.next(now) {
                    let (lane, seq) = (record.lane.index(), record.number.seq);
                    if seen.insert((lane, seq)) {
                        let stream = (lane, lane == 2 && record.late);
                        let before = last.insert(stream, seq);
                        prop_assert!(before < Some(seq), "{:?} after {:?}", record.number, before);
                    }
                    under_way.push(record);
                },
                Step::Ack(place) if !under_way.is_empty() => {
                    let record = under_way.swap_remove(place % under_way.len());
                    reader.acked(record.lane, record.number);
                }
                Step::Refuse(place) if !under_way.is_empty() => {
                    let record = under_way.swap_remove(place % under_way.len());
                    reader.refused(record.lane, record.number);
                }
                Step::PutBack(place) if !under_way.is_empty() => {
                    let record = under_way.swap_remove(place % under_way.len());
                    reader.put_back(record.lane, record.number);
                    under_way.extend(reader.next_again());
                }
                Step::Reconnect => {
                    under_way.clear();
                    reader.begin();
                }
                Step::Gap => {
                    later += Duration::from_secs(10);
                    if let Some(gap) = reader.next_gap(later) {
                        reader.gap_acked(gap.n);
                        count(gap, &mut told);
                    }
                }
                Step::Ack(_) | Step::Refuse(_) | Step::PutBack(_) => {}
            }
        }
        // To the end: all that is left is published, all gaps are told.
        reader.begin();
        while let Some(record) = reader.next(now) {
            reader.acked(record.lane, record.number);
        }
        loop {
            later += Duration::from_secs(10);
            let Some(gap) = reader.next_gap(later) else { break };
            reader.gap_acked(gap.n);
            count(gap, &mut told);
        }
        prop_assert!(queue.is_empty());
        for status in queue.status() {
            let Totals { published, dropped_bytes, dropped_age, dropped_memory, refused, .. } = status.totals;
            let lost = dropped_bytes + dropped_age + dropped_memory + refused;
            prop_assert_eq!(published + lost, pushed[status.lane.index()], "{:?}", status);
            prop_assert_eq!(told[status.lane.index()], lost, "{:?}", status);
        }
    }
}
