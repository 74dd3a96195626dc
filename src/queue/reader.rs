//! Hands records out, in the order in which they should leave, and takes their acknowledgements.

use std::collections::BTreeSet;
use std::time::Duration;

use super::feed::Stream;
use super::lane::End;
use super::state::State;
use super::{Queue, Sync, each_lane};
use crate::model::{Body, Bucket, Gap, GapCause, Lane, Number, Rate, Reading, Record};

/// Each so many records, one is telemetry while any waits: a flood of alarms does not silence all else.
const TELEMETRY_SHARE: u32 = 4;

/// The one reader of the queue.
#[derive(Debug)]
pub struct Reader {
    queue: Queue,
    /// The bound on how fast the backlog is replayed.
    replay: Bucket,
    /// Where each lane stood when this connection began: what is numbered below is late.
    marks: [Number; 3],
    /// Records without telemetry since the last one of it.
    since_telemetry: u32,
    /// Records the broker asked to be sent again later.
    again: BTreeSet<(Lane, Number)>,
    /// Only alarms and outcomes are handed out.
    held: bool,
}

/// A record that is wanted out of turn.
#[derive(Debug, PartialEq)]
pub enum Wanted {
    /// Here it is.
    Here(Box<Record>),
    /// It is read from the flash; [`Reader::filled`] tells when it is there.
    Soon,
    /// It came to its end.
    Gone,
}

/// Of the replay's rate, so much at once: smooth for the line, cheap for the processor.
const REPLAY_BURST: Duration = Duration::from_millis(100);

impl Reader {
    pub(super) fn new(queue: Queue, rate: Rate) -> Self {
        let replay = Bucket::new(rate, REPLAY_BURST);
        let mut reader = Reader {
            queue,
            replay,
            marks: Default::default(),
            since_telemetry: 0,
            again: BTreeSet::new(),
            held: false,
        };
        reader.end();
        reader
    }

    /// A new connection: all that was not acknowledged is to be sent again, and what waits now is its backlog.
    pub fn begin(&mut self) {
        let mut state = self.queue.state();
        self.marks = each_lane(|lane| state.lane(lane).next_number());
        let mark = self.marks[Lane::Telemetry.index()];
        let start = Number::default();
        for (stream, from, end) in [
            (Stream::Alarm, start, None),
            (Stream::Outcome, start, None),
            (Stream::Backlog, start, Some(mark)),
            (Stream::Live, mark, None),
        ] {
            state.feeds[stream as usize].begin(from, end);
        }
        for log in &mut state.lanes {
            log.needed_from = 0;
        }
        self.again.clear();
        state.gaps.begin();
        state.latest.begin();
    }

    /// The connection is over: what is on flash need not stay in RAM.
    pub fn end(&mut self) {
        let mut state = self.queue.state();
        for feed in &mut state.feeds {
            feed.begin(Number::default(), Some(Number::default()));
        }
        for log in &mut state.lanes {
            log.needed_from = u64::MAX;
            log.tidy(false);
        }
    }

    /// From here on the backlog goes out as fast as this.
    pub fn replay_at(&mut self, rate: Rate) {
        self.replay = Bucket::new(rate, REPLAY_BURST);
    }

    /// Whether telemetry stays here for now, the newest values among it.
    pub fn hold_telemetry(&mut self, hold: bool) {
        self.held = hold;
    }

    /// The next record to send. Where it has to be read from the flash first, [`Reader::filled`] tells when it is there.
    pub fn next(&mut self, now: Duration) -> Option<Record> {
        let queue = self.queue.clone();
        let mut state = queue.state();
        state.expire(now);
        let record = self.choose(&mut state, now);
        if state.feeds.iter().any(|feed| feed.wants) {
            drop(state);
            queue.knock();
        }
        record
    }

    fn choose(&mut self, state: &mut State, now: Duration) -> Option<Record> {
        if self.since_telemetry + 1 >= TELEMETRY_SHARE
            && let Some(record) = self.telemetry(state, now)
        {
            self.since_telemetry = 0;
            return Some(record);
        }
        let higher = self.take(state, Stream::Alarm).or_else(|| self.take(state, Stream::Outcome));
        if higher.is_some() {
            self.since_telemetry = self.since_telemetry.saturating_add(1);
            return higher;
        }
        self.since_telemetry = 0;
        self.telemetry(state, now)
    }

    fn telemetry(&mut self, state: &mut State, now: Duration) -> Option<Record> {
        if self.held {
            return None;
        }
        // With `always`, what is live shows that there is a backlog: all of that has to be on flash first.
        let log = state.lane(Lane::Telemetry);
        log.oldest_fresh();
        let backlog_is_safe =
            log.config.sync != Sync::Always || log.settled() + 1 >= self.marks[Lane::Telemetry.index()].seq;
        if backlog_is_safe && let Some(record) = self.take(state, Stream::Live) {
            return Some(record);
        }
        let (feed, log) = state.feed(Stream::Backlog);
        feed.seek(log)?;
        if !self.replay.take(now) {
            return None;
        }
        self.take(state, Stream::Backlog)
    }

    /// The next record of a stream that can be read and is not too old.
    fn take(&self, state: &mut State, stream: Stream) -> Option<Record> {
        let lane = stream.lane();
        loop {
            let (feed, log) = state.feed(stream);
            let (number, payload) = feed.next(log)?;
            let body = Body::decode(payload);
            let log = state.lane(lane);
            if number.epoch == log.epoch {
                log.handed(number.seq);
            }
            match body {
                Ok(body) if log.is_too_old(body.timestamp()) => {
                    state.end(lane, number, End::Lost(GapCause::Age));
                }
                Ok(body) => return Some(self.record(lane, number, body)),
                // Its checksum is right, so it was written so: by a newer version, or by a fault of this one.
                Err(error) => {
                    tracing::error!(LANE = %lane, "record {number} can't be read: {error}");
                    state.end(lane, number, End::Lost(GapCause::Damaged));
                }
            }
        }
    }

    /// What is numbered below the mark is this connection's backlog.
    fn record(&self, lane: Lane, number: Number, body: Body) -> Record {
        Record { lane, number, late: number < self.marks[lane.index()], body }
    }

    /// The newest value of a `keep = "latest"` point that waits.
    pub fn next_latest(&mut self) -> Option<Reading> {
        if self.held { None } else { self.queue.state().latest.next() }
    }

    /// A value of a `keep = "latest"` point was acknowledged.
    pub fn latest_acked(&mut self, reading: &Reading) {
        self.queue.state().latest.acked(reading);
    }

    /// A value of a `keep = "latest"` point is to be sent again.
    pub fn latest_again(&mut self, reading: &Reading) {
        self.queue.state().latest.again(reading);
    }

    /// The next gap to send.
    pub fn next_gap(&mut self, now: Duration) -> Option<Gap> {
        let mut state = self.queue.state();
        let gap = state.gaps.next(now);
        if gap.is_none() && state.gaps.is_awaited() {
            drop(state);
            self.queue.knock();
        }
        gap
    }

    /// The gateway stops: gaps go out at once.
    pub fn hurry(&mut self) {
        self.queue.state().gaps.hurry = true;
    }

    /// A gap was acknowledged.
    pub fn gap_acked(&mut self, n: u64) {
        self.queue.state().gaps.acked(n);
    }

    /// A gap is to be sent again.
    pub fn gap_again(&mut self, n: u64) {
        self.queue.state().gaps.again(n);
    }

    /// A record was acknowledged: it leaves the queue.
    pub fn acked(&mut self, lane: Lane, number: Number) {
        self.queue.state().end(lane, number, End::Published);
    }

    /// The broker will never have this record: it leaves the queue, and a gap says so.
    pub fn refused(&mut self, lane: Lane, number: Number) {
        self.queue.state().end(lane, number, End::Lost(GapCause::Refused));
    }

    /// The broker asked to be sent this record again, later.
    pub fn put_back(&mut self, lane: Lane, number: Number) {
        self.again.insert((lane, number));
    }

    /// One of the records that were put back.
    pub fn next_again(&mut self) -> Option<Record> {
        while let Some(&(lane, number)) = self.again.first() {
            match self.get(lane, number) {
                Wanted::Soon => return None,
                Wanted::Here(record) => {
                    self.again.pop_first();
                    return Some(*record);
                }
                Wanted::Gone => self.again.pop_first(),
            };
        }
        None
    }

    /// This record, out of turn.
    pub fn get(&self, lane: Lane, number: Number) -> Wanted {
        let mut state = self.queue.state();
        let log = &state.lanes[lane.index()];
        let in_ram = number >= log.first_in_ram();
        let here = |payload: &[u8]| match Body::decode(payload) {
            Ok(body) => Wanted::Here(Box::new(self.record(lane, number, body))),
            Err(_) => Wanted::Gone,
        };
        if in_ram {
            return log.in_ram(number.seq).map_or(Wanted::Gone, here);
        }
        if !log.on_flash(number) {
            return Wanted::Gone;
        }
        if let Some((_, _, payload)) = state.lookup.found.take_if(|(of, found, _)| (*of, *found) == (lane, number)) {
            return payload.as_deref().map_or(Wanted::Gone, here);
        }
        if state.lookup.pending {
            return Wanted::Soon;
        }
        state.lookup.wanted = Some((lane, number));
        state.lookup.pending = true;
        drop(state);
        self.queue.knock();
        Wanted::Soon
    }

    /// When there may be something to send although nothing was pushed: the next step of a bounded replay, a gap whose
    /// time has come.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let mut state = self.queue.state();
        // While a record is looked up, others may have to wait for it; its coming wakes the reader.
        let pending = state.lookup.pending;
        let (feed, log) = state.feed(Stream::Backlog);
        let replay = feed.seek(log).filter(|_| !self.held && !pending).map(|_| self.replay.next(now));
        replay.into_iter().chain(state.gaps.next_due(now)).min()
    }

    /// Waits until something was pushed. Cancel-safe; may wake without reason.
    pub async fn filled(&self) {
        self.queue.shared.filled.notified().await;
    }
}
