//! A walk through a lane in the order of its numbers: over the segments on flash first, then in RAM.
//!
//! What is on flash comes in chunks, which the keeper reads ahead. A feed that has none asks for it ([`Feed::wants`]),
//! and whoever reads it is woken when it is there.

use std::collections::VecDeque;

use super::flash::{Chunk, Place};
use super::lane::Log;
use crate::model::{Lane, Number};

/// Chunks that wait in a feed: one is handed out while the next one is read.
const AHEAD: usize = 2;

/// The feeds of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Alarm,
    Outcome,
    /// Telemetry since this connection began.
    Live,
    /// Telemetry that waited when this connection began.
    Backlog,
}

impl Stream {
    pub(super) const ALL: [Stream; 4] = [Stream::Alarm, Stream::Outcome, Stream::Live, Stream::Backlog];

    pub(super) fn lane(self) -> Lane {
        match self {
            Stream::Alarm => Lane::Alarm,
            Stream::Outcome => Lane::Outcome,
            Stream::Live | Stream::Backlog => Lane::Telemetry,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Feed {
    /// The least number that is still to come.
    pub(super) cursor: Number,
    /// The first number that is not part of the stream; `None`: none.
    end: Option<Number>,
    chunks: VecDeque<Chunk>,
    /// Where on flash the next chunk begins; `None`: at the cursor.
    pub(super) place: Option<Place>,
    /// The keeper is to read on.
    pub(super) wants: bool,
    /// Which walk this is: what was read for an earlier one is not taken.
    pub(super) walk: u64,
}

impl Feed {
    /// Begins a new walk, from one number to another.
    pub(super) fn begin(&mut self, from: Number, end: Option<Number>) {
        *self = Feed { cursor: from, end, walk: self.walk + 1, ..Feed::default() };
    }

    /// The next record that waits, behind which the cursor moves. `None`: there is none, or not yet.
    pub(super) fn next<'a>(&'a mut self, log: &'a Log) -> Option<(Number, &'a [u8])> {
        let number = self.seek(log)?;
        self.cursor = Number { seq: number.seq + 1, ..number };
        if number >= log.first_in_ram() {
            return Some((number, log.in_ram(number.seq)?));
        }
        // Popped with the next one.
        let (_, payload) = self.chunks.front()?.front()?;
        Some((number, payload))
    }

    /// The number of the next record that waits. Moves the cursor to it.
    pub(super) fn seek(&mut self, log: &Log) -> Option<Number> {
        loop {
            if self.end.is_some_and(|end| self.cursor >= end) {
                self.chunks.clear();
                return None;
            }
            if self.cursor >= log.first_in_ram() {
                if self.place.is_some() {
                    // What was read ahead, or is being read, lies behind the cursor. Where that leaves the RAM before
                    // its turn, it is looked up anew.
                    self.chunks.clear();
                    self.place = None;
                    self.walk += 1;
                }
                let (seq, _) = log.next_in_ram(self.cursor.seq)?;
                self.cursor.seq = seq;
                if self.end.is_none_or(|end| self.cursor < end) {
                    return Some(self.cursor);
                }
                continue;
            }
            let Some(chunk) = self.chunks.front_mut() else {
                if self.is_through_flash(log) {
                    self.cursor = log.first_in_ram();
                    continue;
                }
                self.wants = true;
                return None;
            };
            chunk.skip_to(self.cursor);
            let Some((number, _)) = chunk.front() else {
                self.chunks.pop_front();
                continue;
            };
            self.wants |= self.chunks.len() < AHEAD && !self.is_through_flash(log);
            self.cursor = number;
            if self.end.is_some_and(|end| number >= end) {
                continue;
            }
            if log.on_flash(number) {
                return Some(number);
            }
            self.cursor.seq += 1;
        }
    }

    /// Whether all that is on flash was read.
    fn is_through_flash(&self, log: &Log) -> bool {
        match self.place {
            Some(place) => log
                .segments
                .iter()
                .rev()
                .find(|segment| !segment.dropping)
                .is_none_or(|last| place.id > last.id || (place.id == last.id && place.offset >= last.seal.end)),
            // Where nothing waits on flash from the cursor on, there is nothing to be read.
            None => !log.segments.iter().any(|segment| segment.seal.last >= self.cursor && segment.waiting() > 0),
        }
    }

    /// Where the keeper is to read: the segment and the place in it. `None`: nowhere.
    pub(super) fn wanted(&mut self, log: &Log) -> Option<Place> {
        if !self.wants || self.chunks.len() >= AHEAD {
            return None;
        }
        // A feed that was in RAM for a while goes to the segment that has its cursor.
        let cursor = log.segments.iter().find(|segment| segment.seal.last >= self.cursor && segment.waiting() > 0);
        let place = match (self.place, cursor) {
            (Some(place), Some(segment)) if place.id < segment.id => Place::start_of(segment.id),
            (Some(place), _) => place,
            (None, Some(segment)) => Place::start_of(segment.id),
            (None, None) => {
                self.wants = false;
                return None;
            }
        };
        let segment = log.segments.iter().find(|segment| segment.id >= place.id && !segment.dropping);
        match segment {
            Some(segment) if segment.id > place.id => Some(Place::start_of(segment.id)),
            Some(segment) if place.offset < segment.seal.end => Some(place),
            // Through with this one: on to the next.
            Some(segment) => {
                let next = log.segments.iter().find(|next| next.id > segment.id && !next.dropping);
                if next.is_none() {
                    (self.place, self.wants) = (Some(place), false);
                }
                next.map(|next| Place::start_of(next.id))
            }
            None => {
                (self.place, self.wants) = (Some(place), false);
                None
            }
        }
    }

    /// The keeper has read on: to this place, and this was there.
    pub(super) fn fill(&mut self, walk: u64, to: Place, chunk: Chunk) {
        if walk != self.walk {
            return;
        }
        self.place = Some(to);
        self.wants = false;
        if chunk.len() > 0 {
            self.chunks.push_back(chunk);
        }
    }
}
