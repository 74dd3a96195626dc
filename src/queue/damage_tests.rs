//! What the queue makes of files that are not as it left them.

use std::collections::BTreeMap;

use super::feed::Stream;
use super::tests::reading;
use super::*;
use crate::disk::fake::{Failing, Fake};
use crate::model::{Gap, Rate, Record, Size, Timestamp, Value};

const EPOCH: u64 = 7 << 16;
const SEGMENT: &str = "telemetry/0000000700000001.seg";

fn config() -> Config {
    let mut config = Config::default();
    config.telemetry.max_bytes = Size(64 << 10);
    config.keep_free = Size(0);
    config.replay.rate = Rate::Off;
    config
}

/// A start on this disk.
struct Start {
    queue: Queue,
    keeper: Keeper,
    reader: Reader,
    problems: watch::Receiver<Problems>,
    now: Timestamp,
}

impl Start {
    fn on(disk: &Fake, starts: u64, previous: Option<Previous>) -> Self {
        let config = config();
        let found = Found::open(&config, Box::new(disk.clone()));
        let (tell, problems) = watch::channel(Problems::new());
        let (queue, keeper, _) =
            Opened { config: config.clone(), found }.begin(starts << 16, previous, starts * 1000, tell);
        let reader = queue.reader(&config);
        Start { queue, keeper, reader, problems, now: time::now() }
    }

    fn push(&self, values: std::ops::RangeInclusive<i64>) {
        for value in values {
            self.queue.push(Lane::Telemetry, &Body::Reading(reading("p", value)), 0);
        }
    }

    fn round(&mut self) {
        // Longer than the lane's interval, whenever the records were pushed.
        self.now.uptime += Duration::from_secs(2);
        while self.keeper.round(&self.now).is_some_and(|due| due <= self.now.uptime) {}
    }

    /// All that can be read.
    fn read(&mut self) -> Vec<Record> {
        self.reader.begin();
        let mut records = Vec::new();
        loop {
            self.keeper.round(&self.now);
            let before = records.len();
            records.extend(std::iter::from_fn(|| self.reader.next(self.now.uptime)));
            if records.len() == before && !self.queue.state().feeds.iter().any(|feed| feed.wants) {
                return records;
            }
        }
    }

    fn gaps(&mut self) -> Vec<Gap> {
        self.reader.hurry();
        std::iter::from_fn(|| self.reader.next_gap(self.now.uptime)).collect()
    }

    fn telemetry(&self) -> LaneStatus {
        self.queue.status().remove(2)
    }
}

/// A disk with so many records in one segment, after a clean stop.
fn filled(count: i64) -> Fake {
    let disk = Fake::new();
    let mut start = Start::on(&disk, 7, None);
    start.push(1..=count);
    start.round();
    start.keeper.close();
    disk
}

fn seq(record: &Record) -> u64 {
    record.number.seq
}

/// What is read after this was done to the segment: the numbers that come, and those that the gaps tell of.
fn after(damage: &[u8], count: u64) -> (Vec<u64>, u64, LaneStatus) {
    let disk = filled(i64::try_from(count).unwrap());
    disk.replace(SEGMENT, damage.to_vec());
    let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
    let records = start.read();
    for record in &records {
        let Body::Reading(reading) = &record.body else { panic!("an outcome") };
        assert_eq!(reading.value, Some(Value::Int(seq(record).cast_signed())));
    }
    let told = start.gaps().into_iter().map(|gap| match gap.range {
        GapRange::Numbers { count, .. } => count.unwrap_or(0),
        GapRange::Device { .. } => 0,
    });
    let told = told.sum();
    (records.iter().map(seq).collect(), told, start.telemetry())
}

#[test]
fn a_flipped_bit_loses_what_it_hit_and_counts_it() {
    const RECORDS: u64 = 12;
    let whole = filled(12).content(SEGMENT);
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let all: Vec<u64> = (1..=RECORDS).collect();
    for at in 0..used {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        let (came, told, status) = after(&damaged, RECORDS);
        let lost: Vec<u64> = all.iter().copied().filter(|seq| !came.contains(seq)).collect();
        assert!(came.is_sorted() && lost.len() <= 1, "byte {at}: {lost:?} lost");
        assert_eq!(told, lost.len() as u64, "byte {at}: {lost:?} lost");
        assert_eq!(status.totals.damaged, told, "byte {at}");
        assert_eq!(status.depth, came.len() as u64, "byte {at}");
    }
}

#[test]
fn a_file_that_was_cut_short_keeps_its_beginning() {
    let whole = filled(12).content(SEGMENT);
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut before = 0;
    // The last bytes of a record may be zeros.
    for length in 0..=used + 16 {
        let (came, told, _) = after(&whole[..length], 12);
        assert_eq!(came, (1..=came.len() as u64).collect::<Vec<_>>(), "cut at {length}");
        assert!(came.len() == before || came.len() == before + 1, "cut at {length}");
        // The stop has noted how many there were; of a file without that, nobody knows.
        assert_eq!(told, if length < 128 { 0 } else { 12 - came.len() as u64 }, "cut at {length}");
        before = came.len();
    }
    assert_eq!(before, 12);
}

#[test]
fn damage_in_a_full_segment_is_counted_to_its_end() {
    let disk = Fake::new();
    let mut start = Start::on(&disk, 7, None);
    start.push(1..=200);
    start.round();
    start.keeper.close();
    let whole = disk.content(SEGMENT);
    disk.replace(SEGMENT, whole[..2000].to_vec());
    let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
    let came: Vec<u64> = start.read().iter().map(seq).collect();
    let gaps = start.gaps();
    let [Gap { cause: GapCause::Damaged, range, .. }] = &gaps[..] else { panic!("{gaps:?}") };
    let GapRange::Numbers { from, to: Some(to), count: Some(count), .. } = *range else { panic!("{range:?}") };
    assert_eq!(came.len() as u64 + count, 200);
    assert!(!(from..=to).any(|seq| came.contains(&seq)) && to - from + 1 == count, "{range:?}");
    // The next start knows that it was told.
    start.keeper.close();
    let mut start = Start::on(&disk, 9, Some(Previous { epoch: 8 << 16, clean: true }));
    assert_eq!(start.read().len(), came.len());
    assert_eq!(start.telemetry().totals.damaged, 0);
    let again: Vec<_> = start.gaps().into_iter().map(|gap| (gap.n, gap.range)).collect();
    assert_eq!(again, [(gaps[0].n, range.clone())], "still the one that nobody acknowledged");
}

#[test]
fn what_is_not_the_queues_is_left_alone() {
    let disk = filled(10);
    let mut newer = disk.content(SEGMENT);
    newer[8] = 2;
    let crc = {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&newer[..12]);
        crc.update(&newer[16..64]);
        crc.finalize()
    };
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    let foreign = [
        ("telemetry/0000000900000001.seg", newer),
        ("telemetry/notes.txt", b"mine".to_vec()),
        ("telemetry/1.seg", b"mine too".to_vec()),
    ];
    for (name, content) in &foreign {
        disk.replace(name, content.clone());
    }
    let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
    start.push(11..=20);
    start.round();
    assert_eq!(start.read().len(), 20);
    for (name, content) in &foreign {
        assert_eq!(&disk.content(name), content, "{name}");
    }
}

#[test]
fn a_flash_that_fails_turns_the_lane_to_ram_and_comes_back() {
    for failing in [Failing::Io, Failing::ReadOnly] {
        let disk = filled(10);
        let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
        disk.set_failing(Some(failing));
        start.push(1..=10);
        start.round();
        assert!(start.telemetry().trouble.is_some(), "{failing:?}");
        assert!(start.problems.borrow().contains_key(&("queue", "telemetry".to_owned())));
        assert_eq!(start.read().len(), 20, "all is there all the same");
        disk.set_failing(None);
        start.now.uptime += Duration::from_secs(61);
        start.keeper.round(&start.now);
        let status = start.telemetry();
        assert_eq!((status.trouble, status.durable), (None, 10), "{failing:?}");
        assert!(start.problems.borrow().is_empty());
        disk.cut(|| 0);
        let mut start = Start::on(&disk, 9, Some(Previous { epoch: 8 << 16, clean: false }));
        assert_eq!(start.read().len(), 20, "{failing:?}");
    }
}

#[test]
fn a_full_flash_costs_the_oldest_and_is_told() {
    let disk = Fake::new();
    let mut start = Start::on(&disk, 7, None);
    start.push(1..=150);
    start.round();
    let used: usize = disk.names().iter().map(|name| disk.content(name).len()).sum();
    disk.set_capacity(Some(used + 1000));
    start.push(151..=300);
    start.round();
    let status = start.telemetry();
    assert_eq!(status.trouble, None, "its own oldest make room");
    assert!(status.totals.dropped_disk > 0);
    let came: Vec<u64> = start.read().iter().map(seq).collect();
    assert_eq!(came, (301 - came.len() as u64..=300).collect::<Vec<_>>());
    let told: BTreeMap<GapCause, u64> = start
        .gaps()
        .into_iter()
        .map(|gap| match gap.range {
            GapRange::Numbers { count: Some(count), .. } => (gap.cause, count),
            _ => panic!("{gap:?}"),
        })
        .collect();
    assert_eq!(told, BTreeMap::from([(GapCause::Disk, 300 - came.len() as u64)]));
}

#[test]
fn nothing_is_written_while_acknowledgements_return_in_time() {
    let disk = Fake::new();
    let mut start = Start::on(&disk, 7, None);
    start.round();
    let before = disk.operations();
    start.reader.begin();
    for turn in 0..50 {
        start.push(turn * 10 + 1..=turn * 10 + 10);
        for record in std::iter::from_fn(|| start.reader.next(start.now.uptime)).collect::<Vec<_>>() {
            start.reader.acked(record.lane, record.number);
        }
        start.now.uptime += Duration::from_millis(300);
        start.keeper.round(&start.now);
    }
    assert_eq!(disk.operations(), before);
    assert_eq!(start.telemetry().totals.published, 500);
}

#[test]
fn what_is_read_for_an_earlier_place_is_not_taken() {
    let disk = filled(50);
    let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
    start.reader.begin();
    assert_eq!(start.reader.next(start.now.uptime), None, "it has to be read first");
    let (walk, place) = {
        let mut state = start.queue.state();
        let (feed, log) = state.feed(Stream::Backlog);
        (feed.walk, feed.wanted(log).unwrap())
    };
    // A new connection begins while the read is on its way.
    start.reader.begin();
    let mut state = start.queue.state();
    state.feeds[Stream::Backlog as usize].fill(walk, place, Default::default());
    assert!(state.feeds[Stream::Backlog as usize].place.is_none());
    drop(state);
    assert_eq!(start.read().len(), 50);
}

#[test]
fn a_record_out_of_turn_is_read_from_the_flash() {
    let disk = filled(50);
    let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
    let number = |seq| Number { epoch: EPOCH, seq };
    assert_eq!(start.reader.get(Lane::Telemetry, number(40)), Wanted::Soon);
    start.keeper.round(&start.now);
    let Wanted::Here(record) = start.reader.get(Lane::Telemetry, number(40)) else { panic!() };
    assert_eq!(seq(&record), 40);
    start.reader.acked(Lane::Telemetry, number(40));
    assert_eq!(start.reader.get(Lane::Telemetry, number(40)), Wanted::Gone);
    start.reader.put_back(Lane::Telemetry, number(41));
    assert_eq!(start.reader.next_again(), None);
    start.keeper.round(&start.now);
    assert_eq!(start.reader.next_again().as_ref().map(seq), Some(41));
}

#[test]
fn a_device_that_fills_the_ram_waits_and_another_does_not() {
    let disk = Fake::new();
    let mut start = Start::on(&disk, 7, None);
    start.queue.share(2, 2);
    while start.queue.crowded().is_none() {
        start.push(1..=100);
    }
    assert_eq!(start.queue.crowded(), Some(vec![true, false]));
    assert_eq!(start.telemetry().totals, Totals::default(), "nothing is dropped for it");
    // It is written before its time.
    start.round();
    assert_eq!(start.queue.crowded(), None);
}

#[test]
fn a_segment_that_somebody_removed_is_no_trouble() {
    let disk = filled(200);
    let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
    let records = start.read();
    for name in disk.names().into_iter().filter(|name| name.ends_with(".seg")) {
        crate::disk::Disk::remove(&mut disk.clone(), &name).unwrap();
    }
    for record in &records {
        start.reader.acked(record.lane, record.number);
    }
    start.now.uptime += Duration::from_secs(60);
    start.round();
    assert_eq!(start.telemetry().trouble, None);
    start.push(1..=10);
    start.round();
    let status = start.telemetry();
    assert_eq!((status.trouble, status.durable, status.depth), (None, 10, 10));
}

#[test]
fn the_cursor_says_that_records_were_in_ram_alone() {
    let disk = filled(10);
    let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
    start.round();
    // Nothing can be made any more; what is there can be written.
    let used: usize = disk.names().iter().map(|name| disk.content(name).len()).sum();
    disk.set_capacity(Some(used));
    let alarm = Body::Reading(reading("p", 1));
    start.queue.push(Lane::Alarm, &alarm, 0);
    start.round();
    assert!(start.queue.status()[0].trouble.is_some());
    disk.cut(|| 0);
    let mut start = Start::on(&disk, 9, Some(Previous { epoch: 8 << 16, clean: false }));
    let told = |gap: &Gap| matches!(gap.range, GapRange::Numbers { lane: Lane::Alarm, from: 1, to: None, .. });
    assert!(start.gaps().iter().any(told), "an always lane tells what it had in RAM alone");
}

/// A file of the queue, as a later version would have left it; its checksum is of the first bytes, so many.
fn of_a_later_version(disk: &Fake, name: &str, at: usize, length: usize) -> Vec<u8> {
    let mut bytes = disk.content(name);
    bytes[at + 4] += 1;
    let crc = crc32fast::hash(&bytes[at + 4..at + length]);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    disk.replace(name, bytes.clone());
    bytes
}

#[test]
fn a_lane_with_a_cursor_of_a_later_version_is_left_alone() {
    let disk = filled(50);
    // The first write of it, in the second slot, knows of no range.
    let was = disk.content("telemetry/cursor");
    let at = if was[4096..].iter().any(|byte| *byte != 0) { 4096 } else { 0 };
    let cursor = of_a_later_version(&disk, "telemetry/cursor", at, 40);
    let segment = disk.content(SEGMENT);

    let found = Found::open(&config(), Box::new(disk.clone()));
    assert_eq!(found.highest_epoch(), EPOCH, "its segments' names still tell of the start");
    let mut start = Start::on(&disk, 8, Some(Previous { epoch: EPOCH, clean: true }));
    start.push(51..=52);
    start.round();
    let records: Vec<u64> = start.read().iter().map(seq).collect();
    assert_eq!(records, [1, 2], "those of this start");
    let trouble = start.telemetry().trouble.unwrap();
    assert!(trouble.contains("telemetry/cursor is of version 2, which a later sluicegate wrote"), "{trouble}");
    assert!(start.problems.borrow().values().any(|problem| problem.text.contains(&trouble)));
    start.keeper.close();
    assert!(start.queue.state().closed, "what was in RAM is told");
    assert_eq!((disk.content("telemetry/cursor"), disk.content(SEGMENT)), (cursor, segment));
    let names = disk.names().into_iter().filter(|name| name.starts_with("telemetry/"));
    assert_eq!(names.count(), 2);

    // The later version has all that was there, and what the other one lost.
    disk.replace("telemetry/cursor", was);
    let mut start = Start::on(&disk, 9, Some(Previous { epoch: 8 << 16, clean: true }));
    assert_eq!(start.read().iter().map(seq).collect::<Vec<_>>(), (1..=50).collect::<Vec<_>>());
    let [gap] = &start.gaps()[..] else { panic!("one gap") };
    let lost = GapRange::Numbers { lane: Lane::Telemetry, epoch: 8 << 16, from: 1, to: Some(2), count: Some(2) };
    assert_eq!(gap.range, lost);
}

#[test]
fn a_ledger_of_a_later_version_is_left_alone_and_another_one_kept_beside_it() {
    let disk = filled(5);
    let unclean = |epoch: u64| Some(Previous { epoch: epoch << 16, clean: false });
    let told = |start: &mut Start| {
        let mut told: Vec<u64> = start.gaps().iter().map(|gap| gap.n).collect();
        told.sort_unstable();
        told
    };
    let mut start = Start::on(&disk, 8, unclean(7));
    assert_eq!(told(&mut start), [8000]);
    let was = disk.content("gaps.1");
    let of = usize::try_from(u32::from_le_bytes(was[20..24].try_into().unwrap())).unwrap();
    let later = of_a_later_version(&disk, "gaps.1", 0, 24 + of);
    let other = disk.content("gaps.0");

    for starts in [9, 10] {
        let mut start = Start::on(&disk, starts, unclean(starts - 1));
        start.push(1..=3);
        start.round();
        let mine = told(&mut start);
        assert_eq!(mine, (9..=starts).map(|starts| starts * 1000).collect::<Vec<_>>(), "none of them is forgotten");
        assert_eq!(start.telemetry().trouble, None, "the lane stays on flash");
        let problems = start.problems.borrow().clone();
        assert!(problems.values().any(|problem| problem.text.contains("gaps.0 and gaps.1 are of version 2")));
    }
    assert_eq!((disk.content("gaps.1"), disk.content("gaps.0")), (later, other));

    // The later version takes over what stood in for it, and removes it.
    disk.replace("gaps.1", was);
    for _ in 0..2 {
        let mut start = Start::on(&disk, 11, None);
        assert_eq!(told(&mut start), [8000, 9000, 10000]);
        assert!(disk.names().iter().all(|name| !name.starts_with("gaps-")), "{:?}", disk.names());
    }
}
