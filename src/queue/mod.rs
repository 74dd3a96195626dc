//! The queue: keeps records until the broker acknowledged them, and tells what it could not keep.
//!
//! Three lanes, each with its own numbers, bound and order. A push gives a record its number at once and puts it into
//! RAM; the keeper ([`flash`]), a thread of its own, writes it to flash by the lane's `sync` rule, unless it was
//! acknowledged before. A [`Reader`] hands records out, the higher lanes first, and begins again with all that was not
//! acknowledged on each new connection. Each number ends as exactly one of published, dropped, damaged or refused, and
//! every end but the first stands in a gap ([`gaps`]), which is on flash before anything there makes the loss final.
//!
//! What can fail is the flash. A lane that it does not take goes on in RAM, within `max_memory`, says so
//! ([`LaneStatus::trouble`], a problem, one line in the log), and comes back by itself.
//!
//! Never touches the network, and never looks into a payload beyond its time.

mod config;
mod dump;
mod feed;
mod flash;
#[cfg(fuzzing)]
pub mod fuzz;
mod gaps;
mod intake;
mod lane;
mod latest;
mod ranges;
mod reader;
mod sources;
mod state;

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::disk::Folder;
use crate::model::{Body, GapCause, GapRange, Lane, Number, Problems, Reading, time};
pub use config::{Config, Keep, LaneConfig, PointConfig, Sync};
pub use dump::Look;
use flash::{Found, Keeper};
pub use intake::{Change, Intake, Route, Taps};
use lane::Log;
pub use lane::Totals;
pub use reader::{Reader, Wanted};
use sources::Source;
use state::State;

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
    /// A device that had to wait may go on.
    room: Notify,
    /// Wakes the keeper.
    work: Condvar,
}

/// What `health` and `status` tell of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// The lane.
    pub lane: Lane,
    /// Records that wait.
    pub depth: u64,
    /// Bytes that its files take on flash.
    pub bytes: u64,
    /// Bytes of it in RAM.
    pub ram: usize,
    /// Age of the oldest record, where it is known.
    pub oldest: Option<Duration>,
    /// The number behind the last one that there is. With `always`, what is not on flash yet is not there yet, unless it
    /// was handed out already; nor does it count in `depth`.
    pub next_seq: u64,
    /// Every number of this epoch up to this one is on flash, or its end is: no power cut changes that.
    pub durable: u64,
    /// Records that were found on flash at the start.
    pub at_start: u64,
    /// Why the flash does not take the lane's records, where it does not.
    pub trouble: Option<String>,
    /// How the numbers of this start ended.
    pub totals: Totals,
}

/// The files of a queue, looked through but not yet in use: it lacks the epoch of this start, which has to be greater
/// than all that stand in them.
#[derive(Debug)]
pub struct Opened {
    config: Config,
    found: Found,
}

/// The run of the gateway before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// Its epoch.
    pub epoch: u64,
    /// It came to a clean stop, and had put on flash what waited.
    pub clean: bool,
}

/// How a start began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Where the numbers of the run before ended, for each lane: the next one.
    pub ended: [u64; 3],
    /// What its end may have cost is on flash. Only then may anybody note that this start has begun: the one after it
    /// will not look back further.
    pub noted: bool,
}

/// The keeper of a running queue.
#[derive(Debug)]
pub struct Keeping {
    thread: Option<std::thread::JoinHandle<()>>,
    queue: Queue,
}

impl Opened {
    /// The greatest epoch that stands in the files; 0: none.
    pub fn highest_epoch(&self) -> u64 {
        self.found.highest_epoch()
    }

    /// Begins. `first_gap` is where the numbers of this start's gaps begin: random, so that no clone and no restored
    /// backup of this board uses them again. `problems` gets what a person should look at.
    pub fn start(
        self,
        epoch: u64,
        previous: Option<Previous>,
        first_gap: u64,
        problems: watch::Sender<Problems>,
    ) -> (Queue, Keeping, Begun) {
        let (queue, mut keeper, begun) = self.begin(epoch, previous, first_gap, problems);
        let thread = std::thread::Builder::new().name("queue".to_owned()).spawn(move || keeper.run());
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                tracing::error!("the queue's thread could not be started, all stays in RAM: {error}");
                queue.state().give_up(&format!("no thread: {error}"));
                None
            }
        };
        (queue.clone(), Keeping { thread, queue }, begun)
    }

    fn begin(
        self,
        epoch: u64,
        previous: Option<Previous>,
        first_gap: u64,
        problems: watch::Sender<Problems>,
    ) -> (Queue, Keeper, Begun) {
        let Opened { config, found } = self;
        let mut state = State::new(&config, epoch, first_gap);
        let (files, ended) = found.into_state(&mut state, previous);
        let shared =
            Shared { state: Mutex::new(state), filled: Notify::new(), room: Notify::new(), work: Condvar::new() };
        let queue = Queue { shared: Arc::new(shared) };
        let mut keeper = Keeper::new(queue.clone(), files, problems);
        let noted = keeper.begin();
        (queue, keeper, Begun { ended, noted })
    }
}

impl Keeping {
    /// Writes all that waits to flash, and ends. True: nothing is lost with the process.
    pub async fn close(mut self) -> bool {
        self.queue.state().closing = true;
        self.queue.knock();
        let Some(thread) = self.thread.take() else { return self.queue.is_empty() };
        let ended = tokio::task::spawn_blocking(move || thread.join().is_ok()).await.unwrap_or(false);
        ended && self.queue.state().closed
    }
}

impl Queue {
    /// Looks through the queue's folder. Nothing in it keeps the gateway from starting.
    pub fn open(config: &Config, folder: &Path) -> Opened {
        Opened { config: config.clone(), found: Found::open(config, Box::new(Folder::new(folder))) }
    }

    /// Takes a record in, from the device at this place of the intake. What has to go for it goes now, and is told in a
    /// gap.
    pub fn push(&self, lane: Lane, body: &Body, source: u16) -> Number {
        let mut payload = Vec::with_capacity(96);
        body.encode(&mut payload);
        let number = self.push_bytes(lane, payload, source, time::uptime());
        self.shared.filled.notify_one();
        number
    }

    fn push_bytes(&self, lane: Lane, payload: Vec<u8>, source: u16, now: Duration) -> Number {
        let mut state = self.state();
        let number = state.push(lane, payload, Source(source), now);
        if state.is_due_earlier(lane, Source(source)) {
            drop(state);
            self.knock();
        }
        number
    }

    /// Takes the newest value of a point of which no other one counts.
    pub fn push_latest(&self, reading: Reading) {
        self.state().latest.push(reading);
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
        let mut state = self.state();
        let now = time::now();
        Lane::ALL.into_iter().map(|lane| state.status(lane, &now)).collect()
    }

    /// Values of `keep = "latest"` points that were replaced before they went out.
    pub fn replaced(&self) -> u64 {
        self.state().latest.replaced
    }

    /// Bytes written to flash since the start.
    pub fn flash_bytes(&self) -> u64 {
        self.state().flash_bytes
    }

    /// Whether nothing waits to be published or acknowledged.
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        state.lanes.iter().all(Log::is_empty) && state.latest.is_empty() && state.gaps.is_empty()
    }

    /// Takes new bounds over, of the lanes, the RAM and the file system. When a lane is on flash can't change before
    /// the next start, and how fast the backlog goes out is the reader's ([`Reader::replay_at`]).
    pub fn change(&self, config: &Config) {
        self.state().change(config);
        self.knock();
    }

    /// So many devices share the RAM, at places below `places`.
    fn share(&self, places: usize, count: usize) {
        self.state().share(places, count);
    }

    /// The sources that have to wait until what they sent is on flash; `None`: none has to.
    fn crowded(&self) -> Option<Vec<bool>> {
        self.state().crowded(time::uptime())
    }

    /// Waits until a source that had to wait may go on. To be made before [`Queue::crowded`] is asked. Cancel-safe.
    fn room(&self) -> impl Future<Output = ()> {
        self.shared.room.notified()
    }

    /// Wakes the keeper.
    fn knock(&self) {
        self.state().knocked = true;
        self.shared.work.notify_one();
    }

    /// The state is consistent between any two statements that can panic, so a poisoned lock is no reason to stop.
    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes as what they are in memory.
fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// For each lane.
fn each_lane<T>(of: impl FnMut(Lane) -> T) -> [T; 3] {
    Lane::ALL.map(of)
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
