//! Hands records out, in the order in which they should leave, and takes their acknowledgements.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use super::{Latest, Queue, Stream};
use crate::model::{Body, Bucket, Gap, GapCause, Lane, Number, PointKey, Rate, Reading, Record};

/// Each so many records, one is telemetry while any waits: a flood of alarms does not silence all else.
const TELEMETRY_SHARE: u32 = 4;

/// The one reader of the queue.
#[derive(Debug)]
pub struct Reader {
    queue: Queue,
    /// The bound on how fast the backlog is replayed.
    replay: Bucket,
    /// Alarms and outcomes: one stream each.
    alarm: Stream,
    outcome: Stream,
    /// Telemetry has two: what waited when this connection began, and what came since.
    live: Stream,
    backlog: Stream,
    /// Where each lane stood when this connection began: what is numbered below is late.
    marks: [u64; 3],
    /// Records without telemetry since the last one of it.
    since_telemetry: u32,
    /// Records the broker asked to be sent again later.
    again: BTreeSet<(Lane, u64)>,
    /// The `keep = "latest"` point that had the last turn.
    last_latest: Option<PointKey>,
    /// Only alarms and outcomes are handed out.
    held: bool,
}

/// Of the replay's rate, so much at once: smooth for the line, cheap for the processor.
const REPLAY_BURST: Duration = Duration::from_millis(100);

impl Reader {
    pub(super) fn new(queue: Queue, rate: Rate) -> Self {
        let idle = Stream { cursor: 0, end: Some(0) };
        let replay = Bucket::new(rate, REPLAY_BURST);
        let (alarm, outcome, live, backlog) = (idle, idle, idle, idle);
        let again = BTreeSet::new();
        Reader {
            queue,
            replay,
            alarm,
            outcome,
            live,
            backlog,
            marks: [0; 3],
            since_telemetry: 0,
            again,
            last_latest: None,
            held: false,
        }
    }

    /// A new connection: all that was not acknowledged is to be sent again, and what waits now is its backlog.
    pub fn begin(&mut self) {
        let mut state = self.queue.state();
        self.marks = Lane::ALL.map(|lane| state.lanes[lane.index()].next_seq());
        let from = |lane: Lane| Stream { cursor: state.lanes[lane.index()].first_seq(), end: None };
        self.alarm = from(Lane::Alarm);
        self.outcome = from(Lane::Outcome);
        let mark = self.marks[Lane::Telemetry.index()];
        self.backlog = Stream { end: Some(mark), ..from(Lane::Telemetry) };
        self.live = Stream { cursor: mark, end: None };
        self.again.clear();
        state.gaps.begin();
        for latest in state.latest.values_mut() {
            (latest.handed, latest.waits) = (false, false);
        }
    }

    /// Whether telemetry stays here for now, the newest values among it.
    pub fn hold_telemetry(&mut self, hold: bool) {
        self.held = hold;
    }

    /// The next record to send.
    pub fn next(&mut self, now: Duration) -> Option<Record> {
        let queue = self.queue.clone();
        let mut state = queue.state();
        state.expire(now);
        if self.since_telemetry + 1 >= TELEMETRY_SHARE
            && let Some(record) = self.telemetry(&state, now)
        {
            self.since_telemetry = 0;
            return Some(record);
        }
        let higher = self.stream(&state, Lane::Alarm).or_else(|| self.stream(&state, Lane::Outcome));
        if higher.is_some() {
            self.since_telemetry = self.since_telemetry.saturating_add(1);
            return higher;
        }
        self.since_telemetry = 0;
        self.telemetry(&state, now)
    }

    fn telemetry(&mut self, state: &super::State, now: Duration) -> Option<Record> {
        if self.held {
            return None;
        }
        let log = &state.lanes[Lane::Telemetry.index()];
        if let Some((seq, body)) = log.next(&mut self.live) {
            return Some(self.record(state.epoch, Lane::Telemetry, seq, body));
        }
        let before = self.backlog;
        let (seq, body) = log.next(&mut self.backlog)?;
        if !self.replay.take(now) {
            self.backlog = before;
            return None;
        }
        Some(self.record(state.epoch, Lane::Telemetry, seq, body))
    }

    fn stream(&mut self, state: &super::State, lane: Lane) -> Option<Record> {
        let stream = if lane == Lane::Alarm { &mut self.alarm } else { &mut self.outcome };
        let (seq, body) = state.lanes[lane.index()].next(stream)?;
        Some(self.record(state.epoch, lane, seq, body))
    }

    /// A copy of a record for the link. What is numbered below the mark is this connection's backlog.
    fn record(&self, epoch: u64, lane: Lane, seq: u64, body: &Body) -> Record {
        let late = seq < self.marks[lane.index()];
        Record { lane, number: Number { epoch, seq }, late, body: body.clone() }
    }

    /// The newest value of a `keep = "latest"` point that waits.
    pub fn next_latest(&mut self) -> Option<Reading> {
        if self.held {
            return None;
        }
        let mut state = self.queue.state();
        // In turns, from the one behind the last: none keeps the others waiting.
        let ready = |(_, latest): &(&PointKey, &Latest)| !latest.handed && !latest.waits;
        let behind = self.last_latest.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut points = state.latest.range((behind, Bound::Unbounded)).chain(&state.latest);
        let key = points.find(ready).map(|(key, _)| key.clone())?;
        let latest = state.latest.get_mut(&key)?;
        latest.handed = true;
        self.last_latest = Some(key);
        Some(latest.reading.clone())
    }

    /// A value of a `keep = "latest"` point was acknowledged.
    pub fn latest_acked(&mut self, reading: &Reading) {
        let key = reading.key();
        let mut state = self.queue.state();
        if let Some(latest) = state.latest.get_mut(&key) {
            latest.waits = false;
            if latest.reading == *reading {
                state.latest.remove(&key);
            }
        }
    }

    /// A value of a `keep = "latest"` point is to be sent again.
    pub fn latest_again(&mut self, reading: &Reading) {
        if let Some(latest) = self.queue.state().latest.get_mut(&reading.key()) {
            (latest.handed, latest.waits) = (false, false);
        }
    }

    /// The next gap to send.
    pub fn next_gap(&mut self, now: Duration) -> Option<Gap> {
        self.queue.state().gap(now)
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
        self.queue.state().lanes[lane.index()].acked(number.seq);
    }

    /// The broker will never have this record: it leaves the queue, and a gap says so.
    pub fn refused(&mut self, lane: Lane, number: Number) {
        let mut state = self.queue.state();
        if state.lanes[lane.index()].refused(number.seq) {
            state.tell(lane, number.seq, GapCause::Refused);
        }
    }

    /// The broker asked to be sent this record again, later.
    pub fn put_back(&mut self, lane: Lane, number: Number) {
        self.again.insert((lane, number.seq));
    }

    /// One of the records that were put back.
    pub fn next_again(&mut self) -> Option<Record> {
        while let Some((lane, seq)) = self.again.pop_first() {
            let epoch = self.queue.state().epoch;
            if let Some(record) = self.get(lane, Number { epoch, seq }) {
                return Some(record);
            }
        }
        None
    }

    /// This record, out of turn; `None` if it is there no longer.
    pub fn get(&self, lane: Lane, number: Number) -> Option<Record> {
        let state = self.queue.state();
        let body = state.lanes[lane.index()].get(number.seq)?;
        Some(self.record(number.epoch, lane, number.seq, body))
    }

    /// When there may be something to send although nothing was pushed: the next step of a bounded replay, a gap whose
    /// time has come.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        let state = self.queue.state();
        let backlog = state.lanes[Lane::Telemetry.index()].next(&mut { self.backlog });
        let replay = backlog.filter(|_| !self.held).map(|_| self.replay.next(now));
        replay.into_iter().chain(state.gaps.next_due(now)).min()
    }

    /// Waits until something was pushed. Cancel-safe; may wake without reason.
    pub async fn filled(&self) {
        self.queue.shared.filled.notified().await;
    }
}
