//! Decides what is read and written, and when. One thread; everything that waits for the flash waits here.
//!
//! A round reads what the reader waits for, makes room, writes what is due, notes what came to its end, and frees what
//! is not needed any more. It holds the queue's lock only to look and to note, never while it waits for the flash.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;

use super::cursor::Cursor;
use super::files::{Files, WriteError, attempt, fill, seeded};
use super::format::Later;
use super::ledger::{self, Pair};
use super::walk::Place;
use super::{Bug, MAX_PAYLOAD};
use crate::disk::Disk;
use crate::model::{Body, Gap, GapCause, GapRange, Lane, Number, Problem, Problems, Timestamp, event, time};
use crate::queue::feed::Stream;
use crate::queue::lane::{End, Segment};
use crate::queue::state::State;
use crate::queue::{Config, Previous, Queue, Sync, each_lane};

/// A commit is not larger: what it holds back is short, and so is its time on a slow card.
pub(super) const COMMIT: usize = 256 << 10;

/// The cursor is written so long after the first end that it does not know, or after so many.
const CURSOR_EVERY: Duration = Duration::from_secs(10);
const CURSOR_ENDS: u64 = 10_000;

/// A gap that nothing waits for is on flash after so long.
const LEDGER_EVERY: Duration = Duration::from_secs(10);

/// How often old segments are looked for.
const AGE_EVERY: Duration = Duration::from_secs(30);

/// How often the age of the oldest record on flash is looked up.
const OLDEST_EVERY: Duration = Duration::from_secs(5);

/// A flash that failed is tried again after so long, and twice as long each time.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// How often a lane that drops its oldest for want of room looks whether there is some again.
const ROOM_EVERY: Duration = Duration::from_secs(10);

/// Telemetry leaves room for so many segments of the two other lanes each, above `keep_free`.
const ROOM_FOR_OTHERS: u64 = 2;

/// What the queue's folder held at the start.
#[derive(Debug)]
pub(in crate::queue) struct Found {
    disk: Box<dyn Disk>,
    config: Config,
    lanes: [(Files, Result<VecDeque<Segment>, std::io::Error>); 3],
    gaps: Vec<Gap>,
    ledger: Written,
    bug: Option<Bug>,
}

/// What the keeper works with.
#[derive(Debug)]
pub(in crate::queue) struct Kit {
    disk: Box<dyn Disk>,
    config: Config,
    lanes: [Keep; 3],
    ledger: Written,
    bug: Option<Bug>,
}

/// Where the ledger is.
#[derive(Debug, Clone, Copy)]
struct Written {
    pair: Pair,
    /// Of the last file.
    serial: u64,
    /// Why it is not where it belongs.
    later: Option<Later>,
    /// What stood in for it is there, and to be removed once this has all of it.
    beside: bool,
}

/// A lane's files and how they do.
#[derive(Debug)]
struct Keep {
    files: Files,
    /// The folder was read.
    opened: bool,
    /// After a failure: when it is tried again, and the pause after that.
    retry: Option<(Duration, Duration)>,
    /// The cursor's last write.
    cursor_at: Duration,
    /// The cursor is to be written whatever happened.
    cursor_stale: bool,
    /// The file system is full, and the lane drops its oldest for what is new; when that was last looked at.
    short: Option<Duration>,
}

/// The keeper.
#[derive(Debug)]
pub(in crate::queue) struct Keeper {
    queue: Queue,
    kit: Kit,
    problems: watch::Sender<Problems>,
    /// The last write of the ledger, or the last attempt.
    ledger_at: Duration,
    age_at: Duration,
    oldest_at: Duration,
    /// When the round began.
    now: Timestamp,
    bytes: Vec<u8>,
}

impl Found {
    pub(in crate::queue) fn open(config: &Config, disk: Box<dyn Disk>) -> Self {
        Self::open_with(config, disk, None)
    }

    pub(in crate::queue) fn open_with(config: &Config, mut disk: Box<dyn Disk>, bug: Option<Bug>) -> Self {
        let lanes = each_lane(|lane| {
            let mut files = Files::new(lane, config.lane(lane));
            let found = files.open(&mut *disk, bug);
            (files, found)
        });
        let (ledger, gaps) = read_ledgers(&mut *disk);
        let Written { pair, serial, .. } = ledger;
        // The start before may have died between its write and the syncs, so that only the cache has this ledger, or its
        // name. The next one is written over the older file, and would leave nothing behind.
        if serial > 0 {
            attempt(disk.sync(pair.file(serial)), "the ledger could not be synced");
            attempt(disk.sync_folder(""), "the queue's folder could not be synced");
        }
        Found { disk, config: config.clone(), lanes, gaps, ledger, bug }
    }

    pub(in crate::queue) fn highest_epoch(&self) -> u64 {
        let of = |(files, found): &(Files, Result<VecDeque<Segment>, _>)| {
            let known = found.as_ref().map_or(files.cursor.high, |segments| files.highest(segments));
            known.epoch.max(files.later_epoch())
        };
        self.lanes.iter().map(of).max().unwrap_or_default()
    }

    /// Gives what was found to the queue, and tells what the end of the run before may have cost. The second result is
    /// where the numbers of that run ended.
    pub(in crate::queue) fn into_state(self, state: &mut State, previous: Option<Previous>) -> (Kit, [u64; 3]) {
        let Found { disk, config, lanes, gaps, ledger, bug } = self;
        state.gaps.restore(gaps);
        let mut ended = [1; 3];
        let now = time::now();
        let epoch = state.epoch;
        let lanes = lanes.map(|(mut files, found)| {
            let lane = files.lane;
            files.number_from(epoch);
            let always = config.lane(lane).sync == Sync::Always;
            let mut known = files.cursor.high;
            let opened = match found {
                Ok(found) => {
                    known = files.highest(&found);
                    adopt(state, lane, found);
                    true
                }
                Err(error) => {
                    state.lane(lane).trouble = Some(error.to_string());
                    false
                }
            };
            if let Some(Previous { epoch, clean }) = previous {
                let next = if known.epoch == epoch { known.seq + 1 } else { 1 };
                ended[lane.index()] = next;
                // What was on flash before anybody was told of it needs no gap.
                let was_always = if files.cursor.serial > 0 { files.cursor.always } else { always };
                if !clean && (!was_always || files.cursor.ram || !opened) {
                    let range = GapRange::Numbers { lane, epoch, from: next, to: None, count: None };
                    state.gaps.add(GapCause::Stop, range, now);
                }
            }
            let retry = (!opened).then_some((Duration::ZERO, RETRY_FIRST));
            Keep { files, opened, retry, cursor_at: now.uptime, cursor_stale: true, short: None }
        });
        (Kit { disk, config, lanes, ledger, bug }, ended)
    }
}

/// The lane's segments become part of the queue.
fn adopt(state: &mut State, lane: Lane, found: VecDeque<Segment>) {
    let log = state.lane(lane);
    log.at_start += found.iter().map(|segment| u64::from(segment.waiting())).sum::<u64>();
    log.segments = found;
}

/// The ledger, with what stood in for it, or, while a later version has it, what does so now.
fn read_ledgers(disk: &mut dyn Disk) -> (Written, Vec<Gap>) {
    let main = read_ledger(disk, Pair::Main);
    let beside = read_ledger(disk, Pair::Beside).unwrap_or_default();
    match main {
        Ok(main) => {
            let is_beside = beside.is_some();
            let (serial, mut gaps) = main.unwrap_or_default();
            for gap in beside.unwrap_or_default().1 {
                if gaps.iter().all(|known| known.n != gap.n) {
                    gaps.push(gap);
                }
            }
            (Written { pair: Pair::Main, serial, later: None, beside: is_beside }, gaps)
        }
        Err(later) => {
            let (serial, gaps) = beside.unwrap_or_default();
            (Written { pair: Pair::Beside, serial, later: Some(later), beside: false }, gaps)
        }
    }
}

fn read_ledger(disk: &mut dyn Disk, pair: Pair) -> Result<Option<(u64, Vec<Gap>)>, Later> {
    let mut newest = None;
    for serial in 0..2 {
        let name = pair.file(serial);
        let size = disk.size(name).ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(0).min(16 << 20);
        let mut bytes = vec![0; size];
        if let Ok(read) = disk.read(name, 0, &mut bytes)
            && let Some(found) = ledger::decode(bytes.get(..read).unwrap_or_default())?
            && newest.as_ref().is_none_or(|(serial, _)| *serial < found.0)
        {
            newest = Some(found);
        }
    }
    Ok(newest)
}

impl Keeper {
    pub(in crate::queue) fn new(queue: Queue, kit: Kit, problems: watch::Sender<Problems>) -> Self {
        let now = time::now();
        let keeper = Keeper {
            queue,
            kit,
            problems,
            ledger_at: now.uptime,
            age_at: now.uptime,
            oldest_at: Duration::ZERO,
            now,
            bytes: Vec::new(),
        };
        Lane::ALL.into_iter().for_each(|lane| keeper.tell_later(lane));
        keeper.tell_later_ledger();
        keeper
    }

    /// Tells of records that only a later version can read.
    fn tell_later(&self, lane: Lane) {
        let files = &self.kit.lanes[lane.index()].files;
        let Some(oldest) = files.later.iter().min() else { return };
        let text = format!(
            "files of the lane {lane} ({}, from {} on) were written by a later sluicegate; they are left alone, and only \
             such a one will publish what is in them",
            files.later.len(),
            files.name(*oldest)
        );
        tracing::error!(LANE = %lane, "{text}");
        let problem = Problem { code: "queue", text, since: time::now() };
        self.problems.send_modify(|problems| _ = problems.insert(("queue", format!("{lane}, later")), problem));
    }

    /// Tells of gaps that only a later version can read.
    fn tell_later_ledger(&self) {
        let Written { later: Some(Later(version)), .. } = self.kit.ledger else { return };
        let text = format!(
            "the gaps in gaps.0 and gaps.1 are of version {version}, which a later sluicegate wrote; they are left alone, \
             and only such a one will publish them; those of now are in {} and {}",
            Pair::Beside.file(0),
            Pair::Beside.file(1)
        );
        tracing::error!("{text}");
        let problem = Problem { code: "queue", text, since: time::now() };
        self.problems.send_modify(|problems| _ = problems.insert(("queue", "gaps, later".to_owned()), problem));
    }

    /// Puts on flash what the end of the run before may have cost. False: that failed.
    pub(in crate::queue) fn begin(&mut self) -> bool {
        let state = self.queue.state();
        let beside = self.kit.ledger.beside;
        let gaps = if beside { Some(snapshot(&state, &self.kit)) } else { urgent_gaps(&state, &self.kit) };
        drop(state);
        match self.make_ledger().and_then(|()| self.write_gaps(gaps)) {
            Ok(()) => {
                if beside {
                    attempt(self.remove_beside(), "what stood in for the ledger could not be removed");
                }
                true
            }
            Err(error) => {
                tracing::error!("the queue's ledger can't be written: {error}");
                false
            }
        }
    }

    /// Works until the queue is closed.
    pub(in crate::queue) fn run(&mut self) {
        loop {
            let now = time::now();
            let due = self.round(&now);
            let mut state = self.queue.state();
            state.busy_since = None;
            if state.closing {
                drop(state);
                return self.close();
            }
            if !state.knocked {
                let pause = due.map_or(AGE_EVERY, |due| due.saturating_sub(time::uptime()));
                state.keeper_due = Some(time::uptime() + pause);
                let shared = &self.queue.shared;
                state = shared.work.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
            }
            state.knocked = false;
            state.keeper_due = None;
            state.busy_since = Some(time::uptime());
        }
    }

    /// Does all that is due. The result is when there will be more.
    pub(in crate::queue) fn round(&mut self, now: &Timestamp) -> Option<Duration> {
        self.now = *now;
        self.take_config();
        self.feed();
        self.drop_old(now);
        let mut more = false;
        for lane in Lane::ALL {
            more |= self.write_lane(lane, now, false);
            self.feed();
        }
        for lane in Lane::ALL {
            self.note_ends(lane, now);
            self.free(lane, now);
        }
        self.note_gaps(now);
        self.look_for_room(now);
        self.look_at_oldest(now);
        if more { Some(now.uptime) } else { self.next_due(now) }
    }

    /// New segments are made by the new bounds; those that are there keep their size.
    fn take_config(&mut self) {
        let Some(config) = self.queue.state().new_config.take() else { return };
        for lane in Lane::ALL {
            self.kit.lanes[lane.index()].files.resize(config.lane(lane));
        }
        self.kit.config = config;
    }

    fn next_due(&mut self, now: &Timestamp) -> Option<Duration> {
        let mut state = self.queue.state();
        let mut due = vec![now.uptime + AGE_EVERY];
        for keep in &self.kit.lanes {
            let log = state.lane(keep.files.lane);
            match keep.retry {
                Some((at, _)) => due.push(at.max(now.uptime)),
                None => {
                    due.extend(log.write_due());
                    if log.ends_untold > 0 {
                        due.push(keep.cursor_at + CURSOR_EVERY);
                    }
                }
            }
            due.extend(keep.short.map(|at| at + ROOM_EVERY));
        }
        if state.gaps.is_dirty() {
            due.push(self.ledger_at + LEDGER_EVERY);
        }
        due.into_iter().min()
    }

    // --- reading -----------------------------------------------------------------------------------------------------

    /// Reads what the reader waits for.
    pub(in crate::queue) fn feed(&mut self) {
        for stream in Stream::ALL {
            while self.feed_stream(stream) {}
        }
        self.look_up();
    }

    /// Reads on for one stream. True: and it wants more.
    fn feed_stream(&mut self, stream: Stream) -> bool {
        let lane = stream.lane();
        let mut state = self.queue.state();
        let (feed, log) = state.feed(stream);
        let Some(mut place) = feed.wanted(log) else { return false };
        let walk = feed.walk;
        let Some(known) = log.segments.iter().find(|segment| segment.id == place.id).map(|segment| segment.seal) else {
            return false;
        };
        drop(state);
        let read = self.kit.lanes[lane.index()].files.read(&mut *self.kit.disk, &mut place, &known);
        let mut state = self.queue.state();
        match read {
            Ok((chunk, damages)) => {
                for damage in &damages {
                    state.damaged(lane, damage);
                }
                state.feeds[stream as usize].fill(walk, place, chunk);
            }
            Err(error) => {
                // What can't be read now is tried again on the next connection; what is behind it can.
                tracing::error!(LANE = %lane, "the queue can't be read: {error}");
                let next = Place::start_of(place.id + 1);
                state.feeds[stream as usize].fill(walk, next, Default::default());
            }
        }
        drop(state);
        self.queue.shared.filled.notify_one();
        true
    }

    /// Reads the one record that is wanted out of turn.
    fn look_up(&mut self) {
        let wanted = self.queue.state().lookup.wanted.take();
        let Some((lane, number)) = wanted else { return };
        let payload = self.find(lane, number);
        let mut state = self.queue.state();
        state.lookup.found = Some((lane, number, payload));
        state.lookup.pending = false;
        drop(state);
        self.queue.shared.filled.notify_one();
    }

    /// One record on flash.
    fn find(&mut self, lane: Lane, number: Number) -> Option<Vec<u8>> {
        let known = {
            let mut state = self.queue.state();
            let log = state.lane(lane);
            let segment = log.segment_of(number).and_then(|place| log.segments.get(place))?;
            (segment.id, segment.seal)
        };
        let mut place = Place::start_of(known.0);
        let files = &self.kit.lanes[lane.index()].files;
        loop {
            let (mut chunk, _) = files.read(&mut *self.kit.disk, &mut place, &known.1).ok()?;
            if chunk.len() == 0 {
                return None;
            }
            chunk.skip_to(number);
            if let Some((found, payload)) = chunk.front() {
                return (found == number).then(|| payload.to_vec());
            }
        }
    }

    fn look_at_oldest(&mut self, now: &Timestamp) {
        if now.uptime.saturating_sub(self.oldest_at) < OLDEST_EVERY && !self.oldest_at.is_zero() {
            return;
        }
        self.oldest_at = now.uptime;
        for lane in Lane::ALL {
            let first = {
                let mut state = self.queue.state();
                let log = state.lane(lane);
                let known = log.oldest_on_flash.map(|(number, _)| number);
                log.first_on_flash().filter(|first| Some(*first) != known)
            };
            if let Some(first) = first
                && let Some(at) = self.find(lane, first).and_then(|payload| Body::decode_timestamp(&payload).ok())
            {
                self.queue.state().lane(lane).oldest_on_flash = Some((first, at));
            }
        }
    }

    // --- writing -----------------------------------------------------------------------------------------------------

    /// Writes what is due of a lane. True: there is more.
    fn write_lane(&mut self, lane: Lane, now: &Timestamp, all: bool) -> bool {
        if !self.can_try(lane, now) {
            return false;
        }
        let due = {
            let mut state = self.queue.state();
            let pressed = state.is_pressed();
            let log = state.lane(lane);
            log.write_due().is_some_and(|due| due <= now.uptime || pressed || all)
        };
        if !due && self.kit.lanes[lane.index()].retry.is_none() {
            return false;
        }
        let written = if due { self.commit(lane) } else { self.probe(lane, now) };
        match written {
            Ok(more) => {
                self.works_again(lane);
                more
            }
            Err(error) => {
                self.failed(lane, &error, now);
                false
            }
        }
    }

    /// Whether the lane's files may be used: after a failure only from time to time, and once their folder was read.
    fn can_try(&mut self, lane: Lane, now: &Timestamp) -> bool {
        let keep = &mut self.kit.lanes[lane.index()];
        if keep.retry.is_some_and(|(at, _)| now.uptime < at) {
            return false;
        }
        if keep.opened {
            return true;
        }
        match keep.files.open(&mut *self.kit.disk, self.kit.bug) {
            Ok(found) => {
                keep.opened = true;
                keep.files.number_from(self.queue.epoch());
                adopt(&mut self.queue.state(), lane, found);
                self.works_again(lane);
                self.tell_later(lane);
                true
            }
            Err(error) => {
                self.failed(lane, &error.into(), now);
                false
            }
        }
    }

    /// With nothing to write, room and the cursor show whether the flash takes a lane again.
    fn probe(&mut self, lane: Lane, now: &Timestamp) -> Result<bool, WriteError> {
        let size = self.kit.lanes[lane.index()].files.size;
        if !self.has_room(lane, size)? {
            return Err(WriteError::Full);
        }
        self.write_cursor(lane, now).map(|()| false)
    }

    /// One commit of a lane. True: there is more to write.
    fn commit(&mut self, lane: Lane) -> Result<bool, WriteError> {
        self.make_room(lane)?;
        let files = &mut self.kit.lanes[lane.index()].files;
        let mut state = self.queue.state();
        let Some((batch, id, size)) = files.batch(state.lane(lane), &mut self.bytes) else { return Ok(false) };
        // What ended among these numbers, and is told in the ledger, is gone once they are settled.
        let gaps = urgent_gaps(&state, &self.kit);
        drop(state);
        self.write_gaps(gaps)?;
        self.kit.lanes[lane.index()].files.commit(&mut *self.kit.disk, &batch, &self.bytes, self.kit.bug)?;
        let mut state = self.queue.state();
        state.flash_bytes += self.bytes.len() as u64;
        let State { lanes, sources, .. } = &mut *state;
        lanes[lane.index()].written(id, size, &batch, sources);
        let more = lanes[lane.index()].oldest_fresh().is_some();
        drop(state);
        self.queue.shared.room.notify_one();
        // What is live may wait until its backlog is on flash.
        self.queue.shared.filled.notify_one();
        Ok(more && self.bytes.len() >= COMMIT)
    }

    /// Sees to it that the next record has a segment: makes one, and drops the oldest for it where it must.
    fn make_room(&mut self, lane: Lane) -> Result<(), WriteError> {
        let max_bytes = self.kit.config.lane(lane).max_bytes.0;
        let mut full = false;
        loop {
            let (first, next, held, droppable) = {
                let mut state = self.queue.state();
                let log = state.lane(lane);
                let Some((first, next)) = log.oldest_number_fresh().zip(log.next_fresh_size()) else { return Ok(()) };
                (first, next, log.flash_bytes(), !log.segments.is_empty())
            };
            let files = &mut self.kit.lanes[lane.index()].files;
            let Some(size) = files.needs_segment(next.min(MAX_PAYLOAD)) else { return Ok(()) };
            let spare = files.spare_bytes();
            if held + size.max(spare) > max_bytes && spare > 0 && spare != size {
                files.drop_spare(&mut *self.kit.disk)?;
            } else if held + size.max(spare) > max_bytes && droppable {
                self.drop_segment(lane, GapCause::Bytes)?;
            } else {
                match self.new_segment(lane, first, size) {
                    Err(WriteError::Full) if droppable => {
                        full = true;
                        self.is_short(lane);
                        self.drop_segment(lane, GapCause::Disk)?;
                    }
                    // A record that is larger than its lane is all that is there.
                    other => {
                        if other.is_ok() && !full {
                            self.has_room_again(lane);
                        }
                        return other;
                    }
                }
            }
        }
    }

    fn new_segment(&mut self, lane: Lane, first: Number, size: u64) -> Result<(), WriteError> {
        let keep_free = self.keep_free(lane);
        let files = &mut self.kit.lanes[lane.index()].files;
        let written = files.new_segment(&mut *self.kit.disk, (first, size), keep_free, self.kit.bug)?;
        self.queue.state().flash_bytes += written;
        Ok(())
    }

    /// What a lane leaves free.
    fn keep_free(&self, lane: Lane) -> u64 {
        let others: u64 = Lane::ALL
            .iter()
            .filter(|other| lane == Lane::Telemetry && **other != lane)
            .map(|other| self.kit.lanes[other.index()].files.size * ROOM_FOR_OTHERS)
            .sum();
        self.kit.config.keep_free.0.saturating_add(others)
    }

    /// Whether the file system has room for so much more of a lane.
    fn has_room(&mut self, lane: Lane, size: u64) -> Result<bool, WriteError> {
        Ok(self.kit.disk.free()? >= self.keep_free(lane).saturating_add(size))
    }

    /// Drops the oldest segment of a lane: tells it, and then lets go of it.
    fn drop_segment(&mut self, lane: Lane, cause: GapCause) -> Result<(), WriteError> {
        let first = self.queue.state().lane(lane).segments.front().cloned();
        if let Some(first) = first {
            // What is damaged is told as that, with the numbers around it.
            self.walk(lane, &first, |_| {});
        }
        let Some(segment) = self.queue.state().lane(lane).begin_drop() else { return Ok(()) };
        let lost = self.lost_with(lane, &segment);
        let mut state = self.queue.state();
        let now = self.now;
        for Lost { epoch, from, to, count } in lost {
            state.gaps.add(cause, GapRange::Numbers { lane, epoch, from, to: Some(to), count: Some(count) }, now);
        }
        state.lane(lane).totals.add(End::Lost(cause), u64::from(segment.waiting()));
        drop(state);
        self.release(lane, &now)
    }

    /// What is lost with a segment, for each epoch. Of two epochs it has to be read for that.
    fn lost_with(&mut self, lane: Lane, segment: &Segment) -> Vec<Lost> {
        let count = u64::from(segment.waiting());
        let (first, last) = (segment.seal.first, segment.seal.last);
        if count == 0 {
            return Vec::new();
        }
        if first.epoch == last.epoch {
            let from = segment.ended.first_out(first).seq;
            return vec![Lost { epoch: first.epoch, from, to: last.seq, count }];
        }
        let mut lost: Vec<Lost> = Vec::new();
        self.walk(lane, segment, |number| {
            let Number { epoch, seq } = number;
            match lost.last_mut().filter(|of| of.epoch == epoch) {
                _ if segment.ended.contains(number) => {}
                Some(of) => (of.to, of.count) = (seq, of.count + 1),
                None => lost.push(Lost { epoch, from: seq, to: seq, count: 1 }),
            }
        });
        let read: u64 = lost.iter().map(|of| of.count).sum();
        match lost.last_mut() {
            // What can't be read is somewhere among them.
            Some(of) => of.count += count.saturating_sub(read),
            None => lost.push(Lost { epoch: last.epoch, from: 1, to: last.seq, count }),
        }
        lost
    }

    /// Goes through all frames of a segment, and tells the damage.
    fn walk(&mut self, lane: Lane, segment: &Segment, mut take: impl FnMut(Number)) {
        let mut place = Place::start_of(segment.id);
        let files = &self.kit.lanes[lane.index()].files;
        while let Ok((chunk, damages)) = files.read(&mut *self.kit.disk, &mut place, &segment.seal) {
            let mut state = self.queue.state();
            damages.iter().for_each(|damage| state.damaged(lane, damage));
            drop(state);
            chunk.iter().for_each(|(number, _)| take(number));
            if chunk.len() == 0 {
                break;
            }
        }
    }

    /// Drops the segments whose newest record is too old.
    fn drop_old(&mut self, now: &Timestamp) {
        if now.uptime.saturating_sub(self.age_at) < AGE_EVERY {
            return;
        }
        self.age_at = now.uptime;
        for lane in Lane::ALL {
            let max_age = self.kit.config.lane(lane).max_age.0;
            let is_old = |segment: &Segment| {
                let newest = Duration::from_millis(segment.seal.newest);
                now.synced && !newest.is_zero() && now.wall.saturating_sub(newest) > max_age
            };
            while self.kit.lanes[lane.index()].retry.is_none()
                && self.queue.state().lane(lane).segments.front().is_some_and(is_old)
            {
                if let Err(error) = self.drop_segment(lane, GapCause::Age) {
                    self.failed(lane, &error, now);
                }
            }
        }
    }

    /// Writes the cursor, where it is time.
    fn note_ends(&mut self, lane: Lane, now: &Timestamp) {
        let keep = &self.kit.lanes[lane.index()];
        if !keep.opened || keep.retry.is_some() {
            return;
        }
        let ends = self.queue.state().lane(lane).ends_untold;
        let due = ends >= CURSOR_ENDS || (ends > 0 && now.uptime.saturating_sub(keep.cursor_at) >= CURSOR_EVERY);
        if (due || keep.cursor_stale)
            && let Err(error) = self.write_cursor(lane, now)
        {
            self.failed(lane, &error, now);
        }
    }

    fn write_cursor(&mut self, lane: Lane, now: &Timestamp) -> Result<(), WriteError> {
        let mut state = self.queue.state();
        let log = state.lane(lane);
        log.oldest_fresh();
        let settled = Number { epoch: log.epoch, seq: log.settled() };
        let cursor = Cursor {
            serial: 0,
            high: if settled.seq > 0 { settled } else { self.kit.lanes[lane.index()].files.cursor.high },
            ram: log.trouble.is_some(),
            always: log.config.sync == Sync::Always,
            ranges: log.segments.iter().flat_map(Segment::ends).collect(),
        };
        log.ends_untold = 0;
        // Before the cursor says that a record has ended, the ledger has to say how.
        let gaps = urgent_gaps(&state, &self.kit);
        drop(state);
        self.write_gaps(gaps)?;
        let keep = &mut self.kit.lanes[lane.index()];
        keep.cursor_at = now.uptime;
        keep.cursor_stale = false;
        let written = keep.files.write_cursor(&mut *self.kit.disk, cursor)?;
        self.queue.state().flash_bytes += written;
        Ok(())
    }

    /// Lets go of segments of which nothing waits any more.
    fn free(&mut self, lane: Lane, now: &Timestamp) {
        let keep = &self.kit.lanes[lane.index()];
        if keep.opened
            && keep.retry.is_none()
            && let Err(error) = self.release(lane, now)
        {
            self.failed(lane, &error, now);
        }
    }

    fn release(&mut self, lane: Lane, now: &Timestamp) -> Result<(), WriteError> {
        let files = &self.kit.lanes[lane.index()].files;
        let done: Vec<(u64, u64)> = {
            let mut state = self.queue.state();
            let segments = &state.lane(lane).segments;
            let done = segments.iter().filter(|of| of.waiting() == 0 && (of.dropping || !files.is_active(of.id)));
            done.map(|segment| (segment.id, segment.size)).collect()
        };
        if done.is_empty() {
            return Ok(());
        }
        // The cursor knows where the numbers ended when the last segment is gone, and the ledger what was lost.
        self.write_cursor(lane, now)?;
        for (id, size) in done {
            self.kit.lanes[lane.index()].files.release(&mut *self.kit.disk, id, size)?;
            self.queue.state().lane(lane).segments.retain(|segment| segment.id != id);
        }
        Ok(())
    }

    // --- the ledger --------------------------------------------------------------------------------------------------

    fn note_gaps(&mut self, now: &Timestamp) {
        let state = self.queue.state();
        let late = now.uptime.saturating_sub(self.ledger_at) >= LEDGER_EVERY;
        if !state.gaps.is_dirty() || !(late || state.gaps.is_awaited()) {
            return;
        }
        let snapshot = snapshot(&state, &self.kit);
        drop(state);
        if let Err(error) = self.write_ledger(snapshot) {
            tracing::debug!("the ledger of gaps could not be written: {error}");
        }
    }

    /// The ledger has its place, so that losses can be noted when the file system is full.
    fn make_ledger(&mut self) -> Result<(), WriteError> {
        let disk = &mut *self.kit.disk;
        for serial in 0..2 {
            let name = self.kit.ledger.pair.file(serial);
            if disk.size(name).unwrap_or(0) == 0 {
                disk.list("")?;
                fill(disk, name, ledger::ROOM)?;
                disk.sync(name)?;
                disk.sync_folder("")?;
            }
        }
        Ok(())
    }

    /// The ledger has what stood in for it. Where that stays, its gaps come once more, under the same numbers.
    fn remove_beside(&mut self) -> std::io::Result<()> {
        let disk = &mut *self.kit.disk;
        for serial in 0..2 {
            let name = Pair::Beside.file(serial);
            if disk.size(name).is_ok() {
                disk.remove(name)?;
            }
        }
        disk.sync_folder("")
    }

    /// Writes the gaps that have to be there first.
    fn write_gaps(&mut self, gaps: Option<Snapshot>) -> Result<(), WriteError> {
        match gaps {
            Some(_) if seeded(self.kit.bug, Bug::GapsLast) => Ok(()),
            Some(gaps) => self.write_ledger(gaps),
            None => Ok(()),
        }
    }

    fn write_ledger(&mut self, snapshot: Snapshot) -> Result<(), WriteError> {
        self.ledger_at = self.now.uptime;
        let Snapshot { serial, version, count, bytes } = snapshot;
        let name = self.kit.ledger.pair.file(serial);
        let disk = &mut self.kit.disk;
        if let Err(error) = disk.write(name, 0, &bytes).and_then(|()| disk.sync(name)) {
            disk.forget(name);
            self.queue.state().gaps.failing = true;
            return Err(error.into());
        }
        self.kit.ledger.serial = serial;
        let mut state = self.queue.state();
        state.gaps.stored(version, count);
        state.flash_bytes += bytes.len() as u64;
        drop(state);
        self.queue.shared.filled.notify_one();
        Ok(())
    }

    // --- trouble -----------------------------------------------------------------------------------------------------

    /// The lane goes on in RAM.
    fn failed(&mut self, lane: Lane, error: &WriteError, now: &Timestamp) {
        let keep = &mut self.kit.lanes[lane.index()];
        keep.files.abandon(&mut *self.kit.disk);
        // The problem is another one now.
        keep.short = None;
        let pause = keep.retry.map_or(RETRY_FIRST, |(_, pause)| pause);
        keep.retry = Some((now.uptime + pause, (pause * 2).min(RETRY_LAST)));
        self.queue.state().lane(lane).trouble = Some(error.to_string());
        let text = format!("the flash does not take the lane {lane}, which goes on in RAM: {error}");
        let since = time::now();
        // A lane may have been in trouble from the start on, and nobody was told yet.
        self.problems.send_if_modified(|problems| {
            let key = ("queue", lane.to_string());
            let known = problems.get(&key);
            if known.is_none() {
                tracing::error!(MESSAGE_ID = event::FLASH_FAILED, LANE = %lane, "{text}");
                keep.cursor_stale = true;
            }
            let (same, since) = known.map_or((false, since), |known| (known.text == text, known.since));
            problems.insert(key, Problem { code: "queue", text, since });
            !same
        });
        // Where it takes at least that: the next start has to know that there were records in RAM alone.
        let keep = &self.kit.lanes[lane.index()];
        if keep.cursor_stale
            && keep.opened
            && let Err(error) = self.write_cursor(lane, now)
        {
            tracing::debug!("nor the cursor: {error}");
        }
        self.queue.shared.room.notify_one();
    }

    /// The lane stays on flash, but only by dropping its oldest.
    fn is_short(&mut self, lane: Lane) {
        if self.kit.lanes[lane.index()].short.replace(self.now.uptime).is_some() {
            return;
        }
        let text = format!("{}: the lane {lane} drops its oldest", WriteError::Full);
        tracing::error!(MESSAGE_ID = event::RECORDS_DROPPED, LANE = %lane, "{text}");
        let problem = Problem { code: "queue", text, since: time::now() };
        self.problems.send_modify(|problems| _ = problems.insert(("queue", lane.to_string()), problem));
    }

    fn has_room_again(&mut self, lane: Lane) {
        if self.kit.lanes[lane.index()].short.take().is_some() {
            tracing::info!(MESSAGE_ID = event::FLASH_BACK, LANE = %lane, "there is room for the lane {lane} again");
            self.problems.send_modify(|problems| _ = problems.remove(&("queue", lane.to_string())));
        }
    }

    /// Looks whether there is room again, also where nothing is written.
    fn look_for_room(&mut self, now: &Timestamp) {
        for lane in Lane::ALL {
            let keep = &mut self.kit.lanes[lane.index()];
            if keep.short.is_none_or(|at| now.uptime.saturating_sub(at) < ROOM_EVERY) {
                continue;
            }
            keep.short = Some(now.uptime);
            let size = keep.files.size;
            if matches!(self.has_room(lane, size), Ok(true)) {
                self.has_room_again(lane);
            }
        }
    }

    fn works_again(&mut self, lane: Lane) {
        let keep = &mut self.kit.lanes[lane.index()];
        keep.retry = None;
        if self.queue.state().lane(lane).trouble.take().is_some() {
            tracing::info!(MESSAGE_ID = event::FLASH_BACK, LANE = %lane, "the flash takes the lane {lane} again");
            keep.cursor_stale = true;
            self.problems.send_modify(|problems| _ = problems.remove(&("queue", lane.to_string())));
        }
    }

    // --- the end -----------------------------------------------------------------------------------------------------

    /// Writes all there is, and tells what can't be.
    pub(in crate::queue) fn close(&mut self) {
        let now = time::now();
        for keep in &mut self.kit.lanes {
            keep.retry = None;
        }
        for lane in Lane::ALL {
            while self.write_lane(lane, &now, true) {}
            // A batch ends with its segment.
            while self.kit.lanes[lane.index()].retry.is_none()
                && self.queue.state().lane(lane).write_due().is_some()
                && self.write_lane(lane, &now, true) | self.queue.state().lane(lane).write_due().is_some()
            {}
        }
        let mut kept = true;
        {
            let mut state = self.queue.state();
            let epoch = state.epoch;
            for lane in Lane::ALL {
                if let Some((from, to)) = state.lane(lane).fresh_range() {
                    let count = Some(state.lane(lane).fresh() as u64);
                    let range = GapRange::Numbers { lane, epoch, from, to: Some(to), count };
                    state.gaps.add(GapCause::Stop, range, now);
                }
            }
        }
        let snapshot = {
            let state = self.queue.state();
            state.gaps.is_dirty().then(|| snapshot(&state, &self.kit))
        };
        if let Some(snapshot) = snapshot
            && let Err(error) = self.write_ledger(snapshot)
        {
            tracing::error!("what is lost with this stop could not be noted: {error}");
            kept = false;
        }
        for lane in Lane::ALL {
            // With the ledger, every number of this start is settled.
            self.queue.state().lane(lane).settle();
            let files = &self.kit.lanes[lane.index()].files;
            if files.left {
                // The ledger has told what was in RAM.
                continue;
            }
            let sealed = files.seal_active(&mut *self.kit.disk).map_err(WriteError::from);
            if let Err(error) = sealed.and_then(|()| self.write_cursor(lane, &now)) {
                tracing::error!(LANE = %lane, "the queue could not be closed: {error}");
                kept = false;
            }
        }
        self.queue.state().closed = kept;
    }
}

/// What is lost with a segment, of one epoch.
#[derive(Debug)]
struct Lost {
    epoch: u64,
    from: u64,
    to: u64,
    count: u64,
}

/// The ledger as it is to be written.
struct Snapshot {
    serial: u64,
    version: u64,
    count: usize,
    bytes: Vec<u8>,
}

/// The ledger, where it has to be written before anything else is.
fn urgent_gaps(state: &State, kit: &Kit) -> Option<Snapshot> {
    state.gaps.is_urgent().then(|| snapshot(state, kit))
}

fn snapshot(state: &State, kit: &Kit) -> Snapshot {
    let serial = kit.ledger.serial + 1;
    let (version, gaps) = state.gaps.snapshot();
    let gaps: Vec<&Gap> = gaps.collect();
    let bytes = ledger::encode(serial, gaps.iter().copied());
    Snapshot { serial, version, count: gaps.len(), bytes }
}
