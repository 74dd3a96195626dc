//! Between the devices and the lanes: takes from all devices by turns, so that none crowds out another.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::task::Poll;

use tokio::sync::{broadcast, mpsc, watch};

use super::{Keep, Queue};
use crate::model::{Arrival, Body, Cause, GapCause, GapRange, Lane, PointKey, Reading};
use crate::task::Pulse;

/// How many arrivals one device may hand over before the next one's turn.
const TURN: usize = 16;

/// Where the readings of a point go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The lane.
    pub lane: Lane,
    /// All of them, or only the newest.
    pub keep: Keep,
    /// Whether newcomers at the broker are shown the last one.
    pub retain: bool,
}

/// What the intake shows to others on the way.
#[derive(Debug)]
pub struct Taps {
    /// The last reading of each retained point.
    pub last: watch::Sender<BTreeMap<PointKey, Reading>>,
    /// All readings, for a person who looks on. A listener that is too slow misses some and is told so.
    pub live: broadcast::Sender<Reading>,
}

/// A new config, as far as the intake is concerned. Sources whose devices ended leave by themselves.
#[derive(Debug)]
pub struct Change {
    /// Where the readings of all points go from now on. What was sent before goes where it went before.
    pub routes: HashMap<PointKey, Route>,
    /// New devices.
    pub sources: Vec<mpsc::Receiver<Arrival>>,
}

/// Takes readings from the devices into the lanes.
#[derive(Debug)]
pub struct Intake {
    /// What the devices send, and their places: a place stays when another device ends.
    sources: Vec<(mpsc::Receiver<Arrival>, u16)>,
    routes: HashMap<PointKey, Route>,
    queue: Queue,
    taps: Taps,
    changes: mpsc::Receiver<Change>,
    pulse: Pulse,
    turn: usize,
}

impl Intake {
    /// An intake from these devices, and from the commands.
    pub fn new(
        sources: Vec<mpsc::Receiver<Arrival>>,
        routes: HashMap<PointKey, Route>,
        queue: Queue,
        taps: Taps,
        changes: mpsc::Receiver<Change>,
        pulse: Pulse,
    ) -> Self {
        let mut intake = Intake { sources: Vec::new(), routes, queue, taps, changes, pulse, turn: 0 };
        intake.add(sources);
        intake
    }

    /// Each gets the first place that is free.
    fn add(&mut self, sources: Vec<mpsc::Receiver<Arrival>>) {
        for source in sources {
            let place = (0..).find(|place| self.sources.iter().all(|(_, other)| other != place));
            self.sources.extend(place.map(|place| (source, place)));
        }
        let places = self.sources.iter().map(|(_, place)| usize::from(*place) + 1).max();
        self.queue.share(places.unwrap_or_default(), self.sources.len());
    }

    /// Takes until all devices have ended and all that they sent is in the queue.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(TURN);
        let mut tick = tokio::time::interval(Pulse::EVERY);
        loop {
            self.pulse.beat();
            let queue = self.queue.clone();
            let room = queue.room();
            // A device whose records wait for the flash waits with them; the others go on.
            let crowded = self.queue.crowded();
            let place = tokio::select! {
                place = Self::next(&mut self.sources, crowded.as_deref(), &mut self.turn, &mut batch) => place,
                () = room, if crowded.is_some() => continue,
                Some(change) = self.changes.recv() => {
                    self.change(change);
                    continue;
                }
                _ = tick.tick() => continue,
            };
            let Some(place) = place else {
                // A change may bring new devices, though the last of the old ones has ended.
                match self.changes.try_recv() {
                    Ok(change) => self.change(change),
                    Err(_) => return,
                }
                continue;
            };
            for arrival in batch.drain(..) {
                self.take(arrival, place);
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Waits for one device that has something, and takes up to a turn's worth of it; its place. `None`: all devices
    /// have ended.
    async fn next(
        sources: &mut Vec<(mpsc::Receiver<Arrival>, u16)>,
        crowded: Option<&[bool]>,
        turn: &mut usize,
        batch: &mut Vec<Arrival>,
    ) -> Option<u16> {
        let waits = |place: u16| crowded.is_some_and(|crowded| crowded.get(usize::from(place)) == Some(&true));
        poll_fn(|context| {
            let mut ended = None;
            for step in 0..sources.len() {
                let place = (*turn + step) % sources.len();
                let Some((source, of)) = sources.get_mut(place).filter(|(_, of)| !waits(*of)) else { continue };
                match source.poll_recv_many(context, batch, TURN) {
                    Poll::Ready(0) => ended = Some(place),
                    Poll::Ready(_) => {
                        *turn = place + 1;
                        return Poll::Ready(Some(*of));
                    }
                    Poll::Pending => {}
                }
            }
            if let Some(place) = ended {
                sources.swap_remove(place);
                // Looked at again at once, without the one that ended.
                context.waker().wake_by_ref();
            }
            if sources.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    fn change(&mut self, change: Change) {
        let mut before = Vec::new();
        for (source, place) in &mut self.sources {
            let waiting = source.len();
            before.extend(std::iter::from_fn(|| source.try_recv().ok()).take(waiting).map(|arrival| (arrival, *place)));
        }
        for (arrival, place) in before {
            self.take(arrival, place);
        }
        self.routes = change.routes;
        // What is no longer retained is not shown to newcomers either.
        self.taps.last.send_if_modified(|values| {
            values.retain(|key, _| self.routes.get(key).is_some_and(|route| route.retain));
            false
        });
        self.sources.retain(|(source, _)| !(source.is_closed() && source.is_empty()));
        self.add(change.sources);
    }

    fn take(&self, arrival: Arrival, place: u16) {
        match arrival {
            Arrival::Reading(reading) => self.take_reading(reading, place),
            Arrival::Outcome(outcome) => {
                self.queue.push(Lane::Outcome, &Body::Outcome(outcome), place);
            }
            Arrival::Lost { device, point, count } => {
                self.queue.lost(GapCause::Overflow, GapRange::Device { device, point, count });
            }
        }
    }

    fn take_reading(&self, reading: Reading, place: u16) {
        let key = reading.key();
        let Some(route) = self.routes.get(&key) else {
            tracing::error!(DEVICE = %key.0, POINT = %key.1, "a reading of a point that is not configured");
            return;
        };
        // An error means only that nobody looks on.
        if self.taps.live.receiver_count() > 0 && self.taps.live.send(reading.clone()).is_err() {
            tracing::trace!("the last one who looked on is gone");
        }
        if route.retain {
            let last = reading.clone();
            self.taps.last.send_if_modified(|values| {
                values.insert(key, last);
                false
            });
        }
        match route.keep {
            Keep::All => {
                let is_alarm = matches!(reading.cause, Some(Cause::Limit(_)));
                let lane = if is_alarm { Lane::Alarm } else { route.lane };
                self.queue.push(lane, &Body::Reading(reading), place);
            }
            Keep::Latest => self.queue.push_latest(reading),
        }
    }
}
