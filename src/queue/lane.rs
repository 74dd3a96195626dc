//! One lane in RAM: records in the order of their numbers, until each is acknowledged or dropped.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::model::{Body, GapCause};

/// How the numbers of a lane ended, since this start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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

#[derive(Debug)]
struct Slot {
    /// Gone once the record came to its end.
    body: Option<Body>,
    weight: usize,
    pushed: Duration,
}

/// The records of one lane.
#[derive(Debug)]
pub(super) struct Log {
    /// From the oldest record that has not come to its end.
    slots: VecDeque<Slot>,
    /// The number of the first slot.
    first: u64,
    waiting: usize,
    bytes: usize,
    max_bytes: usize,
    max_age: Duration,
    pub(super) totals: Totals,
}

/// Which part of a lane a cursor walks through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    /// The next number to look at.
    pub(super) cursor: u64,
    /// The first number that is not part of it; `None`: none.
    pub(super) end: Option<u64>,
}

impl Log {
    pub(super) fn new(max_bytes: usize, max_age: Duration) -> Self {
        let totals = Totals::default();
        Log { slots: VecDeque::new(), first: 1, waiting: 0, bytes: 0, max_bytes, max_age, totals }
    }

    pub(super) fn push(&mut self, body: Body, now: Duration) -> u64 {
        let seq = self.next_seq();
        let weight = body.weight();
        self.bytes += weight;
        self.waiting += 1;
        self.slots.push_back(Slot { body: Some(body), weight, pushed: now });
        seq
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    pub(super) fn first_seq(&self) -> u64 {
        self.first
    }

    pub(super) fn depth(&self) -> usize {
        self.waiting
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn oldest(&self) -> Option<Duration> {
        self.slots.front().map(|slot| slot.pushed)
    }

    pub(super) fn over_bytes(&self) -> bool {
        self.bytes > self.max_bytes
    }

    pub(super) fn over_age(&self, now: Duration) -> bool {
        self.oldest().is_some_and(|pushed| now.saturating_sub(pushed) > self.max_age)
    }

    /// The next record of the stream, whose cursor moves behind it.
    pub(super) fn next(&self, stream: &mut Stream) -> Option<(u64, &Body)> {
        stream.cursor = stream.cursor.max(self.first);
        while stream.end.is_none_or(|end| stream.cursor < end) {
            let place = usize::try_from(stream.cursor - self.first).ok()?;
            let slot = self.slots.get(place)?;
            let seq = stream.cursor;
            stream.cursor += 1;
            if let Some(body) = &slot.body {
                return Some((seq, body));
            }
        }
        None
    }

    /// The record of this number, if it has not come to its end.
    pub(super) fn get(&self, seq: u64) -> Option<&Body> {
        let place = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.slots.get(place)?.body.as_ref()
    }

    /// The record of this number was acknowledged. False: it had come to its end before.
    pub(super) fn acked(&mut self, seq: u64) -> bool {
        let known = self.end(seq);
        self.totals.published += u64::from(known);
        known
    }

    /// The broker will not have the record of this number. False: it had come to its end before.
    pub(super) fn refused(&mut self, seq: u64) -> bool {
        let known = self.end(seq);
        self.totals.refused += u64::from(known);
        known
    }

    /// Drops the oldest record and tells its number.
    pub(super) fn drop_oldest(&mut self, cause: GapCause) -> Option<u64> {
        let seq = self.first;
        if !self.end(seq) {
            return None;
        }
        match cause {
            GapCause::Age => self.totals.dropped_age += 1,
            GapCause::Memory => self.totals.dropped_memory += 1,
            GapCause::Disk => self.totals.dropped_disk += 1,
            _ => self.totals.dropped_bytes += 1,
        }
        Some(seq)
    }

    fn end(&mut self, seq: u64) -> bool {
        let Some(slot) = seq
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| self.slots.get_mut(place))
        else {
            return false;
        };
        if slot.body.take().is_none() {
            return false;
        }
        self.bytes -= slot.weight;
        self.waiting -= 1;
        // The first slot always holds a record, so that `oldest` and `drop_oldest` need no search.
        while self.slots.front().is_some_and(|slot| slot.body.is_none()) {
            self.slots.pop_front();
            self.first += 1;
        }
        // Memory taken by a long outage is given back.
        if self.slots.capacity() > 1024 && self.slots.len() * 4 < self.slots.capacity() {
            self.slots.shrink_to(self.slots.len() * 2);
        }
        true
    }
}
