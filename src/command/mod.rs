//! Commands: judged, written down, sent to their device once, and answered; and the rules of outputs.
//!
//! The [`Router`] is one task around a state machine: [`dispatch`] decides what becomes of each command, [`judge`] whether
//! it may act (functions of command, point and time), [`outputs`] what an output may do and when it goes to its safe value
//! by itself. [`memory`] knows ids, so that none acts twice, and [`mod@journal`] keeps them on flash: a command is there
//! before its device gets it, and its outcome before anybody is told. What is refused is answered at once and forgotten.
//! A device's answer becomes the outcome; where none comes, it is `expired` if the device had not begun, else `unknown`;
//! and `unknown` too where the process ended in between.
//!
//! docs/COMMANDS.md is the contract. Knows neither MQTT nor buses.

mod config;
mod dispatch;
mod journal;
mod judge;
mod memory;
mod outputs;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::model::{
    Answer, Arrival, Command, DeviceName, DeviceStates, Outcome, Point, Problem, Problems, Takeover, Write, time,
};
use crate::task::Pulse;
pub use config::{Config, Interlock, LinkLoss, PointConfig, Then};
use dispatch::{Dispatcher, Effect};
pub use journal::Journal;
use journal::{Report, Writing};
use judge::Guard;

/// What an outcome may take in its lane, in bytes: a payload of a command, its texts, and where the answer goes.
pub const MAX_OUTCOME: u64 = 12 << 10;

/// The lane of outcomes has room for so many, and so never drops one for want of bytes.
pub const MAX_OPEN: u64 = dispatch::MAX_OPEN as u64;

/// How often the queue is asked whether it keeps the outcomes that it was given.
const ASK_QUEUE: Duration = Duration::from_secs(1);

/// All that a router is made of.
pub struct Parts {
    /// `[command]`.
    pub config: Config,
    /// The points, with their guards.
    pub points: Vec<(Point, PointConfig)>,
    /// Where each device takes its writes: 8 places each; a full one refuses.
    pub devices: HashMap<DeviceName, mpsc::Sender<Write>>,
    /// What devices say to them.
    pub answers: mpsc::Receiver<Answer>,
    /// The states of the devices.
    pub states: watch::Receiver<DeviceStates>,
    /// Commands as they arrive.
    pub commands: mpsc::Receiver<Command>,
    /// Outcomes of accepted commands, to the queue. Nobody else puts anything into their lane.
    pub outcomes: mpsc::Sender<Arrival>,
    /// What the queue keeps of them.
    pub queued: Box<dyn Fn() -> Queued + Send>,
    /// Outcomes of refused commands and those repeated to duplicates; what finds no place is lost.
    pub refusals: mpsc::Sender<Outcome>,
    /// How many of them were lost so.
    pub lost: watch::Sender<u64>,
    /// When the broker was heard last, by `CLOCK_BOOTTIME`; zero: never.
    pub heard: watch::Receiver<Duration>,
    /// How the outputs are taken over.
    pub takeover: Takeover,
    /// What a person should look at.
    pub problems: watch::Sender<Problems>,
    /// The epoch of this start: it is part of the ids that the router makes.
    pub epoch: u64,
    /// What changes while the gateway runs.
    pub changes: mpsc::Receiver<Change>,
    /// The loop's sign of life.
    pub pulse: Pulse,
    /// Take no new commands, and end when those under way have ended.
    pub stop: CancellationToken,
}

/// The lane of outcomes, as the queue has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Queued {
    /// So many of the outcomes of this start, the first ones, are on flash or acknowledged.
    pub durable: u64,
    /// So many wait for the broker, those of earlier starts included.
    pub waiting: u64,
}

/// A new config, all of it. An output that is in both keeps its state and its timers.
#[derive(Debug)]
pub struct Change {
    /// `[command]`.
    pub config: Config,
    /// The points, with their guards.
    pub points: Vec<(Point, PointConfig)>,
    /// Where each device takes its writes.
    pub devices: HashMap<DeviceName, mpsc::Sender<Write>>,
}

/// Takes commands to their devices, and brings the outcomes back.
#[derive(Debug)]
pub struct Router {
    parts: Parts,
    dispatcher: Dispatcher,
    journal: Writing,
    report: Report,
}

impl Router {
    /// A router that goes on from what the run before left in the journal.
    pub fn new(mut parts: Parts, mut journal: Journal) -> Self {
        let (config, points) = (parts.config.clone(), std::mem::take(&mut parts.points));
        let found = journal.take_found();
        let dispatcher = Dispatcher::new(config, points, found, parts.takeover, parts.epoch, &time::now(), None);
        Router { parts, dispatcher, journal: journal.start(), report: Report::default() }
    }

    /// Runs until it is told to stop and no command is under way.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(Pulse::EVERY.min(ASK_QUEUE));
        let mut stopping = false;
        self.parts.states.mark_changed();
        // A journal that is not to be touched says nothing later.
        self.tell_problems();
        loop {
            self.parts.pulse.beat();
            self.act().await;
            if stopping && self.dispatcher.is_idle() {
                break;
            }
            let due = self.dispatcher.due();
            tokio::select! {
                // Answers first: a command that waits must not be judged by an older state of things.
                biased;
                Some(answer) = self.parts.answers.recv() => self.dispatcher.answer(answer, &time::now()),
                report = self.journal.changed(), if self.report.failed.as_deref() != Some(GONE) => {
                    self.report = report.unwrap_or_else(|_| Report { failed: Some(GONE.to_owned()), ..self.report });
                    self.dispatcher.journalled(&self.report, &time::now());
                    self.tell_problems();
                }
                Ok(()) = self.parts.states.changed() => {
                    let states = self.parts.states.borrow_and_update().clone();
                    self.dispatcher.states(&states, &time::now());
                }
                Ok(()) = self.parts.heard.changed() => {
                    let heard = *self.parts.heard.borrow_and_update();
                    self.dispatcher.heard(heard);
                }
                () = sleep_until(due), if due.is_some() => self.dispatcher.tick(&time::now()),
                () = self.parts.stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.dispatcher.stop(&time::now());
                }
                Some(change) = self.parts.changes.recv() => {
                    self.parts.devices = change.devices;
                    self.dispatcher.change(change.config, change.points, &time::now());
                }
                command = self.parts.commands.recv() => match command {
                    Some(command) => {
                        self.dispatcher.queued((self.parts.queued)());
                        self.dispatcher.command(command, &time::now());
                    }
                    None => break,
                },
                _ = tick.tick() => {
                    if self.dispatcher.is_telling() {
                        self.dispatcher.queued((self.parts.queued)());
                    }
                    self.dispatcher.tick(&time::now());
                }
            }
        }
        self.dispatcher.leave(&time::now());
        self.act().await;
        self.journal.close().await;
    }

    /// Does what the dispatcher wants.
    async fn act(&mut self) {
        while let Some(effect) = self.dispatcher.next_effect() {
            match effect {
                Effect::Journal(job) => self.journal.push(job),
                Effect::Write(device, write) => {
                    let ticket = write.ticket;
                    if self.parts.devices.get(&device).is_none_or(|way| way.try_send(write).is_err()) {
                        self.dispatcher.not_taken(ticket, &time::now());
                    }
                }
                Effect::Outcome(outcome) => {
                    if self.parts.outcomes.send(Arrival::Outcome(outcome)).await.is_err() {
                        tracing::error!("the outcome of a command came after the end of the queue");
                    }
                }
                Effect::Refusal(outcome) => {
                    if self.parts.refusals.try_send(outcome).is_err() {
                        self.parts.lost.send_modify(|lost| *lost += 1);
                    }
                }
            }
        }
    }

    fn tell_problems(&self) {
        let text = self
            .dispatcher
            .trouble()
            .map(|why| format!("the journal of commands can't be written, so outputs can only be made safe: {why}"));
        self.parts.problems.send_if_modified(|problems| {
            let key = ("commands", String::new());
            match text {
                None => problems.remove(&key).is_some(),
                Some(text) if problems.get(&key).is_some_and(|known| known.text == text) => false,
                Some(text) => {
                    problems.insert(key, Problem { code: "commands", text, since: time::now() });
                    true
                }
            }
        });
    }
}

/// Why nothing is ever written any more.
const GONE: &str = "its thread has ended";

async fn sleep_until(due: Option<Duration>) {
    if let Some(due) = due {
        tokio::time::sleep(due.saturating_sub(time::uptime())).await;
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
