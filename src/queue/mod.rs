//! The queue: keeps records until the broker acknowledged them, and tells what it could not keep.
//!
//! Three lanes, each with its own numbers, bound and order. A push gives a record its number at once; a [`Reader`]
//! hands records out, the higher lanes first, and begins again with all that was not acknowledged on each new
//! connection. Each number ends as exactly one of published, dropped or refused, and every end but the first stands
//! in a gap ([`gaps`]).
//!
//! In this version the lanes are in RAM: what waits is lost with the process, and the next start says so with a gap
//! of cause `stop`. The settings that only make sense with a file (`sync`, `keep_free`) are checked and have no
//! effect yet.
//!
//! Never touches the network, and never looks into a payload beyond its lane, point, size and times.

mod config;
mod gaps;
mod intake;
mod lane;
mod reader;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::{Body, Gap, GapCause, GapRange, Lane, Number, PointKey, Reading, time};
pub use config::{Config, Keep, LaneConfig, PointConfig, Sync};
use gaps::Ledger;
pub use intake::{Intake, Route, Taps};
pub use lane::Totals;
use lane::{Log, Stream};
pub use reader::Reader;

/// The queue. Clones are the same queue.
#[derive(Debug, Clone)]
pub struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something may be there for the reader.
    filled: Notify,
}

#[derive(Debug)]
struct State {
    epoch: u64,
    lanes: [Log; 3],
    max_memory: usize,
    /// Points of which only the newest value counts.
    latest: BTreeMap<PointKey, Latest>,
    /// Values of those points that a newer one replaced before they went out.
    replaced: u64,
    gaps: Ledger,
}

#[derive(Debug)]
struct Latest {
    reading: Reading,
    handed: bool,
    /// An older value is under way: this one waits for its acknowledgement, so that a point which changes faster than
    /// the broker acknowledges takes one place of the window and no more.
    waits: bool,
}

/// What `health` and `status` tell of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStatus {
    /// The lane.
    pub lane: Lane,
    /// Records that wait.
    pub depth: usize,
    /// Bytes that they take.
    pub bytes: usize,
    /// Age of the oldest.
    pub oldest: Option<Duration>,
    /// The number that the next record gets.
    pub next_seq: u64,
    /// How the numbers of this start ended.
    pub totals: Totals,
}

impl Queue {
    /// An empty queue for this start. `previous` is the epoch of a start that ended without publishing all: it is
    /// told in a gap.
    pub fn new(config: &Config, epoch: u64, previous: Option<u64>) -> Self {
        let log = |lane: &LaneConfig| Log::new(bytes(lane.max_bytes.0), lane.max_age.0);
        let mut gaps = Ledger::new(epoch);
        if let Some(previous) = previous {
            for lane in Lane::ALL {
                let range = GapRange::Numbers { lane, epoch: previous, from: 1, to: None, count: None };
                gaps.add(GapCause::Stop, range, time::now());
            }
        }
        let state = State {
            epoch,
            lanes: [log(&config.alarm), log(&config.outcome), log(&config.telemetry)],
            max_memory: bytes(config.max_memory.0),
            latest: BTreeMap::new(),
            replaced: 0,
            gaps,
        };
        Queue { shared: Arc::new(Shared { state: Mutex::new(state), filled: Notify::new() }) }
    }

    /// Takes a record in. What has to go for it goes now, and is told in a gap.
    pub fn push(&self, lane: Lane, body: Body) -> Number {
        let number = self.state().push(lane, body);
        self.shared.filled.notify_one();
        number
    }

    /// Takes the newest value of a point of which no other one counts.
    pub fn push_latest(&self, reading: Reading) {
        let mut state = self.state();
        let key = reading.key();
        let before = state.latest.get(&key);
        let (replaced, waits) = before.map_or((false, false), |old| (!old.handed, old.handed || old.waits));
        state.replaced += u64::from(replaced);
        state.latest.insert(key, Latest { reading, handed: false, waits });
        drop(state);
        self.shared.filled.notify_one();
    }

    /// Notes what a device lost before it had numbers.
    pub fn lost(&self, cause: GapCause, range: GapRange) {
        self.state().gaps.add(cause, range, time::now());
        self.shared.filled.notify_one();
    }

    /// The reader. There is one at a time: it owns the acknowledgements.
    pub fn reader(&self, config: &Config) -> Reader {
        Reader::new(self.clone(), config.replay.rate)
    }

    /// The epoch of this start.
    pub fn epoch(&self) -> u64 {
        self.state().epoch
    }

    /// How the lanes are.
    pub fn status(&self) -> Vec<LaneStatus> {
        let state = self.state();
        let now = time::uptime();
        let status = |lane: Lane| {
            let log = &state.lanes[lane.index()];
            LaneStatus {
                lane,
                depth: log.depth(),
                bytes: log.bytes(),
                oldest: log.oldest().map(|pushed| now.saturating_sub(pushed)),
                next_seq: log.next_seq(),
                totals: log.totals,
            }
        };
        Lane::ALL.into_iter().map(status).collect()
    }

    /// Values of `keep = "latest"` points that were replaced before they went out.
    pub fn replaced(&self) -> u64 {
        self.state().replaced
    }

    /// Whether nothing waits to be published or acknowledged.
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        state.lanes.iter().all(|log| log.depth() == 0) && state.latest.is_empty() && state.gaps.is_empty()
    }

    /// The state is consistent between any two statements that can panic, so a poisoned lock is no reason to stop.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, lane: Lane, body: Body) -> Number {
        let now = time::now();
        let log = &mut self.lanes[lane.index()];
        let seq = log.push(body, now.uptime);
        self.expire(now.uptime);
        while self.lanes[lane.index()].over_bytes() && self.drop_oldest(lane, GapCause::Bytes) {}
        // Telemetry goes first when all of it together is too much; the newest record of a lane always stays.
        while self.lanes.iter().map(Log::bytes).sum::<usize>() > self.max_memory {
            let gone = [Lane::Telemetry, Lane::Outcome, Lane::Alarm]
                .into_iter()
                .any(|lane| self.drop_oldest(lane, GapCause::Memory));
            if !gone {
                break;
            }
        }
        Number { epoch: self.epoch, seq }
    }

    /// Drops what is older than its lane allows.
    fn expire(&mut self, now: Duration) {
        for lane in Lane::ALL {
            while self.lanes[lane.index()].over_age(now) && self.drop_oldest(lane, GapCause::Age) {}
        }
    }

    /// Drops the oldest record of a lane, but not its last one.
    fn drop_oldest(&mut self, lane: Lane, cause: GapCause) -> bool {
        let log = &mut self.lanes[lane.index()];
        if log.depth() <= 1 && cause != GapCause::Age {
            return false;
        }
        let Some(seq) = log.drop_oldest(cause) else { return false };
        self.tell(lane, seq, cause);
        true
    }

    fn tell(&mut self, lane: Lane, seq: u64, cause: GapCause) {
        let range = GapRange::Numbers { lane, epoch: self.epoch, from: seq, to: Some(seq), count: Some(1) };
        self.gaps.add(cause, range, time::now());
    }

    fn gap(&mut self, now: Duration) -> Option<Gap> {
        self.gaps.next(now)
    }
}

fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
