//! One lane: what of it is in RAM, and what is known of its segments on flash.
//!
//! Records come in at the end, in RAM. The keeper writes them to flash in their order ([`Log::batch`],
//! [`Log::written`]); from then on they may leave the RAM. A record that comes to its end before is never written.
//!
//! *Invariants.* All numbers of this epoch up to `settled` are on flash or came to their end. What is waiting before
//! `first` is on flash. Segments are in the order of their numbers. No I/O here: all of it is under the queue's lock.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::flash::{Damage, Seal};
use super::ranges::{Range, Ranges};
use super::sources::{Source, Sources};
use super::{LaneConfig, Sync};
use crate::model::{GapCause, Number, Timestamp, time};

/// How the numbers of a lane ended, since this start; those of earlier epochs included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Acknowledged by the broker.
    pub published: u64,
    /// Dropped because of `max_bytes`.
    pub dropped_bytes: u64,
    /// Dropped because of `max_age`.
    pub dropped_age: u64,
    /// Dropped because of `max_memory`.
    pub dropped_memory: u64,
    /// Dropped because the flash was full, or would not take them.
    pub dropped_disk: u64,
    /// Could not be read back from the flash.
    pub damaged: u64,
    /// Would not be had by the broker.
    pub refused: u64,
}

impl Totals {
    fn of(&mut self, end: End) -> &mut u64 {
        match end {
            End::Published => &mut self.published,
            End::Lost(GapCause::Age) => &mut self.dropped_age,
            End::Lost(GapCause::Memory) => &mut self.dropped_memory,
            End::Lost(GapCause::Disk) => &mut self.dropped_disk,
            End::Lost(GapCause::Damaged) => &mut self.damaged,
            End::Lost(GapCause::Refused) => &mut self.refused,
            End::Lost(GapCause::Bytes | GapCause::Stop | GapCause::Overflow) => &mut self.dropped_bytes,
        }
    }

    /// How many numbers ended so; for records that ended together.
    pub(super) fn add(&mut self, end: End, count: u64) {
        *self.of(end) += count;
    }
}

/// How a record comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The broker acknowledged it.
    Published,
    /// It is told in a gap.
    Lost(GapCause),
}

/// A record in RAM.
#[derive(Debug)]
struct Slot {
    /// Gone once the record came to its end.
    payload: Option<Box<[u8]>>,
    pushed: Duration,
    source: Source,
}

/// What is known of a segment on flash.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) id: u64,
    /// Of the file.
    pub(super) size: u64,
    pub(super) seal: Seal,
    pub(super) ended: Ranges,
    /// Damaged frames, among [`Seal::count`], that were told.
    pub(super) damaged: u32,
    /// The ordinals where that damage begins.
    told: Vec<u32>,
    /// It is about to be dropped: nothing of it is handed out any more.
    pub(super) dropping: bool,
}

impl Segment {
    pub(super) fn new(id: u64, size: u64, seal: Seal) -> Self {
        Segment { id, size, seal, ended: Ranges::default(), damaged: 0, told: Vec::new(), dropping: false }
    }

    /// What of it has come to its end, as the cursor is told. Of one that is about to be dropped that is all, so that it
    /// does not come again, and is not told again, where the process dies before its file is gone.
    pub(super) fn ends(&self) -> Vec<Range> {
        let Seal { first, last, count, .. } = self.seal;
        if self.dropping && first.epoch == last.epoch {
            vec![Range { first, last: last.seq, records: count }]
        } else {
            self.ended.iter().collect()
        }
    }

    /// Records that wait.
    pub(super) fn waiting(&self) -> u32 {
        if self.dropping {
            0
        } else {
            self.seal.count.saturating_sub(self.ended.records()).saturating_sub(self.damaged)
        }
    }
}

/// What the keeper is to write: see [`Log::batch`].
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) seqs: Vec<u64>,
    /// With it, everything up to here is settled.
    pub(super) to: u64,
    pub(super) seal: Seal,
}

/// The records of one lane.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) epoch: u64,
    pub(super) config: LaneConfig,
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    settled: u64,
    /// The same, and no power cut can change it: what ended is told on flash.
    durable: u64,
    /// Records in RAM that are not on flash, and the bytes they take.
    fresh: usize,
    fresh_bytes: usize,
    /// Bytes of all that is in RAM.
    ram_bytes: usize,
    pub(super) segments: VecDeque<Segment>,
    /// What was handed out of RAM on this connection need not stay there; with no connection, nothing has to.
    pub(super) needed_from: u64,
    /// Numbers up to this one may be known outside: see [`Log::told`].
    told: u64,
    /// Why the flash does not take this lane at the moment.
    pub(super) trouble: Option<String>,
    /// Records that were found on flash.
    pub(super) at_start: u64,
    pub(super) totals: Totals,
    /// So many ends of records on flash are not in the cursor yet.
    pub(super) ends_untold: u64,
    /// When the oldest record on flash was taken, as of the last time the keeper looked, and its number.
    pub(super) oldest_on_flash: Option<(Number, Timestamp)>,
}

/// What a slot takes beside its payload.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>() + 16;

impl Log {
    pub(super) fn new(config: LaneConfig, epoch: u64) -> Self {
        Log {
            epoch,
            config,
            slots: VecDeque::new(),
            first: 1,
            settled: 0,
            durable: 0,
            fresh: 0,
            fresh_bytes: 0,
            ram_bytes: 0,
            segments: VecDeque::new(),
            needed_from: u64::MAX,
            told: 0,
            trouble: None,
            at_start: 0,
            totals: Totals::default(),
            ends_untold: 0,
            oldest_on_flash: None,
        }
    }

    /// A record comes in.
    pub(super) fn push(&mut self, payload: Box<[u8]>, now: Duration, source: Source, sources: &mut Sources) -> u64 {
        let seq = self.next_seq();
        let bytes = SLOT_BYTES + payload.len();
        self.fresh += 1;
        self.fresh_bytes += bytes;
        self.ram_bytes += bytes;
        sources.add(source, bytes);
        self.slots.push_back(Slot { payload: Some(payload), pushed: now, source });
        seq
    }

    /// A number whose record is not kept.
    pub(super) fn push_none(&mut self, now: Duration, source: Source, end: End) -> u64 {
        let seq = self.next_seq();
        self.slots.push_back(Slot { payload: None, pushed: now, source });
        self.ram_bytes += SLOT_BYTES;
        self.totals.add(end, 1);
        self.tidy(false);
        seq
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn next_number(&self) -> Number {
        Number { epoch: self.epoch, seq: self.next_seq() }
    }

    /// Where the RAM begins: what waits before is on flash.
    pub(super) fn first_in_ram(&self) -> Number {
        Number { epoch: self.epoch, seq: self.first }
    }

    /// Every number up to this one is on flash or has ended; `None`: none of this epoch.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// Every number up to this one is on flash, or its end is.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn ram_bytes(&self) -> usize {
        self.ram_bytes
    }

    pub(super) fn fresh_bytes(&self) -> usize {
        self.fresh_bytes
    }

    /// Bytes of its segments on flash.
    pub(super) fn flash_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Records that wait.
    pub(super) fn depth(&self) -> u64 {
        self.fresh as u64 + self.segments.iter().map(|segment| u64::from(segment.waiting())).sum::<u64>()
    }

    /// Whether records stay in RAM, by the config or because the flash does not take them.
    pub(super) fn stays_in_ram(&self) -> bool {
        self.config.sync == Sync::Never || self.trouble.is_some()
    }

    /// Whether what the lane has taken is on flash, or will be before anybody has to know of it.
    pub(super) fn is_always(&self) -> bool {
        self.config.sync == Sync::Always && self.trouble.is_none()
    }

    /// This record was handed out.
    pub(super) fn handed(&mut self, seq: u64) {
        self.needed_from = self.needed_from.max(seq + 1);
        self.told = self.told.max(seq);
    }

    /// The last number that others are told of. With `always` no gap tells what an unclean end costs, so nobody hears
    /// of a number that would be missing then: one that was neither handed out nor settled.
    pub(super) fn told(&mut self) -> u64 {
        let taken = self.next_seq() - 1;
        self.oldest_fresh();
        self.told = if self.is_always() { self.told.max(self.settled) } else { taken };
        self.told
    }

    /// Records behind that number.
    pub(super) fn untold(&self) -> u64 {
        let behind = self.place(self.told + 1).unwrap_or(0);
        self.slots.iter().skip(behind).filter(|slot| slot.payload.is_some()).count() as u64
    }

    /// When the oldest record that is in RAM alone came in.
    pub(super) fn oldest_fresh(&mut self) -> Option<Duration> {
        self.settled = self.settled.max(self.first - 1);
        while self.slot(self.settled + 1).is_some_and(|slot| slot.payload.is_none()) {
            self.settled += 1;
        }
        self.slot(self.settled + 1).map(|slot| slot.pushed)
    }

    /// When the keeper has to write what is fresh.
    pub(super) fn write_due(&mut self) -> Option<Duration> {
        let oldest = self.oldest_fresh()?;
        match self.config.sync {
            Sync::Never => None,
            Sync::Always => Some(oldest),
            Sync::Every(span) => Some(oldest + span.0),
        }
    }

    fn place(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.first)?).ok()
    }

    fn slot(&self, seq: u64) -> Option<&Slot> {
        self.slots.get(self.place(seq)?)
    }

    /// The record of this number, where it is in RAM.
    pub(super) fn in_ram(&self, seq: u64) -> Option<&[u8]> {
        self.slot(seq)?.payload.as_deref()
    }

    /// The first record in RAM from this seq on.
    pub(super) fn next_in_ram(&self, seq: u64) -> Option<(u64, &[u8])> {
        let start = self.place(seq.max(self.first))?;
        let slots = self.slots.iter().enumerate().skip(start);
        slots.filter_map(|(place, slot)| Some((self.first + place as u64, slot.payload.as_deref()?))).next()
    }

    /// Whether the record of this number waits on flash.
    pub(super) fn on_flash(&self, number: Number) -> bool {
        self.segment_of(number)
            .and_then(|place| self.segments.get(place))
            .is_some_and(|segment| !segment.dropping && !segment.ended.contains(number))
    }

    /// The segment that this number would be in.
    pub(super) fn segment_of(&self, number: Number) -> Option<usize> {
        let place = self.segments.partition_point(|segment| segment.seal.last < number);
        self.segments.get(place).filter(|segment| segment.seal.first <= number).map(|_| place)
    }

    /// A record comes to its end. False: it had come to it before.
    pub(super) fn end(&mut self, number: Number, end: End, sources: &mut Sources) -> bool {
        let place = if number.epoch == self.epoch { self.place(number.seq) } else { None };
        let ended = match place.and_then(|place| self.slots.get_mut(place)) {
            Some(slot) => {
                let Some(payload) = slot.payload.take() else { return false };
                let bytes = SLOT_BYTES + payload.len();
                // The slot itself stays until those before it are gone.
                self.ram_bytes -= payload.len();
                if number.seq > self.settled {
                    self.fresh -= 1;
                    self.fresh_bytes -= bytes;
                    sources.free(slot.source, bytes);
                    true
                } else {
                    self.end_on_flash(number)
                }
            }
            None => self.end_on_flash(number),
        };
        if ended {
            *self.totals.of(end) += 1;
            self.tidy(false);
        }
        ended
    }

    /// The oldest segment is about to be dropped: from here on nothing of it is handed out, so that each of its records
    /// ends once. The result is how it was.
    pub(super) fn begin_drop(&mut self) -> Option<Segment> {
        let segment = self.segments.front_mut()?;
        let before = segment.clone();
        segment.dropping = true;
        let last = if before.seal.last.epoch == self.epoch { before.seal.last.seq } else { 0 };
        let behind = usize::try_from((last + 1).saturating_sub(self.first)).unwrap_or(0);
        for slot in self.slots.iter_mut().take(behind) {
            if let Some(payload) = slot.payload.take() {
                self.ram_bytes -= payload.len();
            }
        }
        self.tidy(false);
        Some(before)
    }

    fn end_on_flash(&mut self, number: Number) -> bool {
        let Some(segment) = self.segment_of(number).and_then(|place| self.segments.get_mut(place)) else {
            return false;
        };
        // Never more ends than the seal has counted records.
        let ended = segment.waiting() > 0 && segment.ended.insert(number);
        self.ends_untold += u64::from(ended);
        ended
    }

    /// The oldest record that is only in RAM.
    pub(super) fn oldest_number_fresh(&mut self) -> Option<Number> {
        self.oldest_fresh()?;
        Some(Number { epoch: self.epoch, seq: self.settled + 1 })
    }

    /// Bytes of the oldest record that is fresh.
    pub(super) fn next_fresh_size(&mut self) -> Option<usize> {
        self.oldest_fresh()?;
        self.in_ram(self.settled + 1).map(<[u8]>::len)
    }

    /// The end of the process settles what is left: a gap has told it.
    pub(super) fn settle(&mut self) {
        self.settled = self.next_seq() - 1;
        self.durable = self.settled;
    }

    /// What is fresh and fits, each given to `take` with its number; `None` where nothing fits, or nothing is fresh.
    /// `take` says whether there was room.
    pub(super) fn batch(&mut self, mut take: impl FnMut(Number, &[u8]) -> bool) -> Option<(Vec<u64>, u64)> {
        self.oldest_fresh()?;
        let mut seqs = Vec::new();
        let mut to = self.settled;
        let start = self.place(self.settled + 1)?;
        for (place, slot) in self.slots.iter().enumerate().skip(start) {
            let seq = self.first + place as u64;
            if let Some(payload) = &slot.payload {
                if !take(Number { epoch: self.epoch, seq }, payload) {
                    break;
                }
                seqs.push(seq);
            }
            to = seq;
        }
        (!seqs.is_empty()).then_some((seqs, to))
    }

    /// The batch is on flash, in this segment.
    pub(super) fn written(&mut self, id: u64, size: u64, batch: &Batch, sources: &mut Sources) {
        if self.segments.back().is_none_or(|segment| segment.id != id) {
            self.segments.push_back(Segment::new(id, size, batch.seal));
        }
        let mut ended = Vec::new();
        for &seq in &batch.seqs {
            let slot = self.place(seq).and_then(|place| self.slots.get(place));
            match slot.and_then(|slot| Some((slot, slot.payload.as_ref()?))) {
                Some((slot, payload)) => {
                    let bytes = SLOT_BYTES + payload.len();
                    self.fresh -= 1;
                    self.fresh_bytes -= bytes;
                    sources.free(slot.source, bytes);
                }
                // It came to its end while it was written.
                None => ended.push(Number { epoch: self.epoch, seq }),
            }
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.seal = batch.seal;
            for number in ended {
                segment.ended.insert(number);
                self.ends_untold += 1;
            }
        }
        self.settled = self.settled.max(batch.to);
        self.durable = self.durable.max(batch.to);
        self.tidy(false);
    }

    /// Lets go of what need not be in RAM: what is on flash and was handed out, or, in need, all that is on flash.
    pub(super) fn tidy(&mut self, in_need: bool) {
        while let Some(slot) = self.slots.front() {
            if let Some(payload) = &slot.payload {
                if self.first > self.settled || (self.first >= self.needed_from && !in_need) {
                    break;
                }
                self.ram_bytes -= payload.len();
            }
            self.ram_bytes -= SLOT_BYTES;
            self.slots.pop_front();
            self.first += 1;
        }
        self.settled = self.settled.max(self.first - 1);
        // Memory taken by a burst is given back.
        if self.slots.capacity() > 1024 && self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
    }

    /// When the oldest record came in that is in RAM alone; `None` too where an older one is on flash.
    pub(super) fn too_old_in_ram(&mut self, now: Duration) -> Option<Number> {
        let oldest = self.oldest_fresh()?;
        (now.saturating_sub(oldest) > self.config.max_age.0)
            .then_some(Number { epoch: self.epoch, seq: self.settled + 1 })
    }

    /// Whether a record that was taken then is older than the lane allows. One whose age can't be known is not.
    pub(super) fn is_too_old(&self, taken: &Timestamp) -> bool {
        taken.age(&time::now()).is_some_and(|age| age > self.config.max_age.0)
    }

    /// Damage was found: how many records are lost by it that nobody told yet, and among which numbers they are.
    pub(super) fn damaged(&mut self, damage: &Damage) -> Option<(u32, Number, Number)> {
        let segment = self.segments.iter_mut().find(|segment| segment.id == damage.id && !segment.dropping)?;
        if segment.told.contains(&damage.ordinal) {
            return None;
        }
        segment.told.push(damage.ordinal);
        let Seal { first, last, .. } = segment.seal;
        let after = damage.around.0.unwrap_or(Number { seq: first.seq.saturating_sub(1), ..first });
        // Damage to the end: the last number is known.
        let until = damage.around.1.unwrap_or(Number { seq: last.seq + 1, ..last });
        // What was acknowledged, or told before a restart, is among what came to its end.
        let ended = segment.ended.between(after, until);
        let count = u64::from(damage.count).saturating_sub(ended);
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(segment.waiting());
        if after.epoch == until.epoch && ended == 0 && until.seq > after.seq + 1 {
            // Kept like every end, so that the next start does not tell it once more.
            let first = Number { seq: after.seq + 1, ..after };
            segment.ended.add(Range { first, last: until.seq - 1, records: count });
        } else {
            segment.damaged += count;
        }
        self.totals.damaged += u64::from(count);
        self.ends_untold += u64::from(count);
        (count > 0).then_some((count, after, until))
    }

    /// The first record that waits on flash.
    pub(super) fn first_on_flash(&self) -> Option<Number> {
        let segment = self.segments.iter().find(|segment| segment.waiting() > 0)?;
        Some(segment.ended.first_out(segment.seal.first))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh == 0 && self.segments.iter().all(|segment| segment.waiting() == 0)
    }

    /// The records that are in RAM alone.
    pub(super) fn fresh_records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let start = self.place((self.settled + 1).max(self.first)).unwrap_or(0);
        let slots = self.slots.iter().enumerate().skip(start);
        slots.filter_map(|(place, slot)| Some((self.first + place as u64, slot.payload.as_deref()?)))
    }

    /// Records that would be lost with the process.
    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    /// The first and last number that is fresh.
    pub(super) fn fresh_range(&mut self) -> Option<(u64, u64)> {
        self.oldest_fresh()?;
        Some((self.settled + 1, self.next_seq() - 1))
    }
}
