//! The broker's side of the gateway: presence, topics, payloads, what is published and what is subscribed.
//!
//! One task. It opens a link, runs a [`session`] on it until it ends, waits, and opens the next. On each connection:
//! CONNECT with the Last Will, subscribe, and on the SUBACK `online`, the states of all devices, the problems and the
//! last values of retained points (a broker without persistence may have forgotten all); after the echo of `online`
//! the `info`; only then records. Online so means: connected, subscribed, able to act.
//!
//! Reads records from the queue, takes refusals from `command`, and gives commands to it. Touches no device and no
//! file.

mod births;
mod change;
mod config;
mod episode;
mod format;
mod plain;
mod poison;
mod presence;
mod publisher;
mod session;
mod topics;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::link::{self, Backoff, Kept, LinkError};
use crate::model::{
    Bucket, Command, DeviceName, DeviceStates, Fault, Outcome, Point, PointKey, Problem, Problems, Rate, Reading, time,
};
use crate::queue::{Queue, Reader};
use crate::task::Pulse;
pub use change::Change;
use change::{Obsolete, Spelling, by_key, spellings};
pub use config::{DeviceConfig, HealthConfig, Payload, PointConfig};
use episode::Episode;
use poison::Poison;
use session::{End, Session};
use topics::Topics;

/// Another gateway with our id is only told by a person; coming back sooner would only fight it.
const DUPLICATE_PAUSE: Duration = Duration::from_secs(60);

/// The device of [`check_topics`]; a reserved name, so that no real one has it.
const CHECK_DEVICE: &str = "command";

/// Outcomes of refused commands that wait for the link; older ones are lost with a count.
const REFUSALS: usize = 64;

/// See [`Shared::refusal_rate`].
const REFUSAL_RATE: Rate = Rate::Limit { count: 50, per: Duration::from_secs(1) };

/// What `info` says about this start of the gateway.
#[derive(Debug, Clone)]
pub struct Start {
    /// Random, per start: two of them under one id are two gateways.
    pub instance: String,
    /// Counts the starts.
    pub session: u32,
    /// Why the run before ended.
    pub last_exit: String,
    /// The run before, where there was one.
    pub before: Option<RunBefore>,
}

/// Where the numbers of the run before ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBefore {
    /// Its epoch.
    pub epoch: u64,
    /// It came to a clean stop: no number from `next_seq` on was ever given to a record.
    pub clean: bool,
    /// The number behind the last one that is known, for each lane.
    pub next_seq: [u64; 3],
}

/// One point, as far as the uplink is concerned.
#[derive(Debug, Clone)]
pub struct PointPlan {
    /// Its declaration.
    pub point: Point,
    /// How it looks at the broker.
    pub config: PointConfig,
}

/// All that an uplink is made of.
#[derive(Debug)]
pub struct Parts {
    /// `[mqtt]`.
    pub link: link::Config,
    /// `[health]`.
    pub health: HealthConfig,
    /// This start.
    pub start: Start,
    /// The devices and their kinds.
    pub devices: BTreeMap<DeviceName, &'static str>,
    /// All points.
    pub points: Vec<PointPlan>,
    /// The queue, for its status.
    pub queue: Queue,
    /// The queue's one reader.
    pub reader: Reader,
    /// The states of the devices.
    pub states: watch::Receiver<DeviceStates>,
    /// The last readings of retained points.
    pub last: watch::Receiver<BTreeMap<PointKey, Reading>>,
    /// Problems of other rooms.
    pub problems: Vec<watch::Receiver<Problems>>,
    /// Where commands go.
    pub commands: mpsc::Sender<Command>,
    /// Outcomes of commands that were refused or repeated: not journalled, not numbered.
    pub refusals: mpsc::Receiver<Outcome>,
    /// How many of them found no place on the way here.
    pub refusals_lost: watch::Receiver<u64>,
    /// How the link is, for people and for systemd.
    pub status: watch::Sender<Status>,
    /// Resident memory of the process, in bytes.
    pub memory: fn() -> Option<u64>,
    /// The loop's sign of life.
    pub pulse: Pulse,
    /// Say farewell now: what waits may still go out for as long as [`Parts::farewell`].
    pub stop: CancellationToken,
    /// How long the farewell may take.
    pub farewell: Duration,
    /// Counts how often the wall clock was set, or begun or ceased to be believed.
    pub clock: watch::Receiver<u32>,
    /// How long after the first connection readings wait for the clock to be set.
    pub clock_wait: Duration,
    /// Gets when the broker was heard last, by `CLOCK_BOOTTIME`; not more often than each half second.
    pub heard: watch::Sender<Duration>,
    /// What changes while the gateway runs.
    pub changes: mpsc::Receiver<Change>,
}

/// Who watches the link needs no finer grain.
const HEARD_GRAIN: Duration = Duration::from_millis(500);

/// How the link is.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Status {
    /// The first attempt is under way.
    #[default]
    Starting,
    /// Connected and subscribed.
    Online {
        /// Where to.
        url: String,
    },
    /// Not connected.
    Offline {
        /// Why.
        error: String,
    },
}

/// Runs the uplink until it is told to stop and has said farewell.
#[derive(Debug)]
pub struct Uplink {
    shared: Shared,
    kept: Kept,
    backoff: Backoff,
}

/// What outlives a connection.
#[derive(Debug)]
struct Shared {
    parts: Parts,
    topics: Topics,
    points: HashMap<PointKey, PointPlan>,
    /// Points that a new config does not have: what of them still waits is spelled as it was, and never retained.
    former: HashMap<PointKey, PointConfig>,
    /// What the broker may retain of what the config does not have any more, and whether it was cleared there.
    obsolete: BTreeMap<Obsolete, bool>,
    /// The next connection is made with this.
    new_link: Option<link::Config>,
    /// Points and devices by the words of a topic.
    /// How commands to a point, or to several of a device, are spelled.
    spellings: HashMap<(String, String), Spelling>,
    refusals: VecDeque<Outcome>,
    /// Who floods the gateway with wrong commands does not flood the broker with their outcomes.
    refusal_rate: Bucket,
    poison: Poison,
    counters: Counters,
    /// Problems of the link and of the broker.
    problems: Problems,
    /// They, or those of a device, changed.
    problems_dirty: bool,
    /// Whether the broker has acknowledged the `info` of this process. Until then the one that it keeps may still be
    /// that of the run before.
    introduced: bool,
    /// The instance of the run before, as the broker remembered it.
    run_before: Option<String>,
    last_health: Option<Duration>,
    /// When the first connection stood.
    first_up: Option<Duration>,
}

/// What `health` counts, since this start.
#[derive(Debug, Default, Clone, Copy)]
struct Counters {
    connections: u64,
    refusals_lost: u64,
}

impl Uplink {
    /// An uplink, not yet connected.
    pub fn new(parts: Parts) -> Self {
        let shared = Shared {
            topics: Topics::new(&parts.link),
            points: by_key(&parts.points),
            former: HashMap::new(),
            obsolete: BTreeMap::new(),
            new_link: None,
            spellings: spellings(&parts.points),
            parts,
            refusals: VecDeque::new(),
            refusal_rate: Bucket::new(REFUSAL_RATE, Duration::from_secs(1)),
            poison: Poison::default(),
            counters: Counters::default(),
            problems: Problems::new(),
            problems_dirty: true,
            introduced: false,
            run_before: None,
            last_health: None,
            first_up: None,
        };
        Uplink { shared, kept: Kept::default(), backoff: Backoff::default() }
    }

    /// Connects, and connects again, until it is told to stop.
    pub async fn run(mut self) {
        let mut episode = Episode::default();
        loop {
            if self.shared.take_link() {
                self.kept.renew();
                self.backoff.reset();
            }
            let clock = *self.shared.parts.clock.borrow();
            let end = match Session::open(&mut self.shared, &mut self.kept) {
                Ok(mut session) => {
                    let end = session.run(&mut episode).await;
                    session.close().await;
                    end
                }
                Err(error) => End::Lost { error, was_up: false },
            };
            self.shared.parts.reader.end();
            // The clock decides which certificates are valid: a connection that failed by them may stand once it is set.
            let clock = matches!(end, End::Lost { error: LinkError::Tls(_), .. }).then_some(clock);
            let pause = match end {
                End::Stopped => return,
                End::Changed => {
                    self.shared.tell(Status::Offline { error: "connecting with the new config".to_owned() });
                    continue;
                }
                End::Duplicate(instance) => {
                    let text = format!(
                        "another gateway uses this gateway's id or topics (its instance is {instance}): give each an \
                         id of its own"
                    );
                    episode.lost(&text);
                    self.shared.raise("duplicate", text.clone());
                    self.shared.tell(Status::Offline { error: text });
                    DUPLICATE_PAUSE
                }
                End::Lost { error, was_up } => {
                    episode.lost(&error.to_string());
                    self.shared.raise("link", error.to_string());
                    self.shared.tell(Status::Offline { error: error.to_string() });
                    self.pause(&error, was_up)
                }
            };
            if self.shared.wait(pause, clock).await {
                return;
            }
        }
    }

    fn pause(&mut self, error: &LinkError, was_up: bool) -> Duration {
        if was_up {
            self.backoff.reset();
        }
        if error.needs_a_person() { self.backoff.long_pause(random()) } else { self.backoff.pause(random()) }
    }
}

impl Shared {
    /// Waits without a link, with `clock` no longer than until the count of the clock's changes is another one. True: it
    /// is time to stop.
    async fn wait(&mut self, pause: Duration, clock: Option<u32>) -> bool {
        let end = tokio::time::Instant::now() + pause;
        let mut tick = tokio::time::interval(Pulse::EVERY);
        let mut changes = self.parts.clock.clone();
        changes.mark_changed();
        loop {
            tokio::select! {
                () = self.parts.stop.cancelled() => return true,
                () = tokio::time::sleep_until(end) => return false,
                Ok(()) = changes.changed(), if clock.is_some() => {
                    if Some(*changes.borrow_and_update()) != clock {
                        return false;
                    }
                }
                _ = tick.tick() => self.parts.pulse.beat(),
                Some(outcome) = self.parts.refusals.recv() => self.keep_refusal(outcome),
                Some(change) = self.parts.changes.recv() => {
                    self.change(change);
                    if self.new_link.is_some() {
                        return false;
                    }
                }
            }
        }
    }

    /// The broker has shown that it is there.
    fn heard(&self) {
        let now = time::uptime();
        self.parts.heard.send_if_modified(|heard| {
            let news = now.saturating_sub(*heard) >= HEARD_GRAIN;
            if news {
                *heard = now;
            }
            news
        });
    }

    /// Until when readings wait for the clock to be set; `None` when they don't: it is, or they have waited long enough.
    fn clock_due(&self, now: Duration) -> Option<Duration> {
        if time::now().synced {
            return None;
        }
        // Before the first connection nothing goes out anyway.
        let due = self.first_up.unwrap_or(now) + self.parts.clock_wait;
        Some(due).filter(|due| now < *due)
    }

    fn keep_refusal(&mut self, outcome: Outcome) {
        if self.refusals.len() == REFUSALS {
            self.refusals.pop_front();
            self.counters.refusals_lost += 1;
        }
        self.refusals.push_back(outcome);
    }

    fn tell(&self, status: Status) {
        self.parts.status.send_if_modified(|before| {
            let changed = *before != status;
            *before = status;
            changed
        });
    }

    /// Notes a problem of the link; its beginning stays that of the first time.
    fn raise(&mut self, code: &'static str, text: String) {
        // A problem that can't be told must not be told again for that.
        self.problems_dirty |= self.problems.get(&(code, String::new())).is_none_or(|known| known.text != text);
        let since = self.problems.get(&(code, String::new())).map_or_else(time::now, |problem| problem.since);
        self.problems.insert((code, String::new()), Problem { code, text, since });
    }

    fn has(&self, code: &'static str) -> bool {
        self.problems.contains_key(&(code, String::new()))
    }

    fn clear(&mut self, code: &'static str) {
        self.problems_dirty |= self.problems.remove(&(code, String::new())).is_some();
    }

    /// Whether any room's problems changed since the last time this was asked.
    fn problems_changed(&mut self) -> bool {
        for problems in &mut self.parts.problems {
            // An error means that the room has ended; what it said last stands.
            if problems.has_changed().unwrap_or(false) {
                problems.mark_unchanged();
                self.problems_dirty = true;
            }
        }
        std::mem::take(&mut self.problems_dirty)
    }
}

/// Between 0 and 1, for spreading reconnections. A board without entropy spreads nothing, and works.
fn random() -> f64 {
    getrandom::u32().map_or(0.5, |bits| f64::from(bits) / f64::from(u32::MAX))
}

/// What the gateway subscribes to: commands to several points of a device, commands to a point, and its own status and
/// info.
pub fn filters(config: &link::Config) -> Vec<link::Filter> {
    let topics = Topics::new(config);
    let [device, point] = topics.commands("+", "+");
    let filter = |path, retained| link::Filter { path, retained };
    vec![
        filter(device, false),
        filter(point, false),
        filter(topics.own("status"), true),
        filter(topics.own("info"), true),
    ]
}

/// Where `check --broker` sends itself messages: within the rights that a gateway needs anyway, one for each kind of
/// command, and no command.
pub fn check_topics(config: &link::Config) -> [String; 2] {
    Topics::new(config).commands(CHECK_DEVICE, CHECK_DEVICE)
}

/// What is wrong with `mqtt.topic` once it is known which points there are: topics that would be two things at once.
pub fn collisions(config: &link::Config, points: &[&Point]) -> Vec<Fault> {
    Topics::new(config).collisions(points)
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Status::Starting => f.write_str("connecting"),
            Status::Online { url } => write!(f, "online at {url}"),
            Status::Offline { error } => write!(f, "offline: {error}"),
        }
    }
}
