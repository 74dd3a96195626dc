//! Commands: judged, sent to their device once, and answered.
//!
//! The [`Router`] is one task. A command is judged ([`judge`]) against the point it is for; what is refused is
//! answered at once and forgotten. What is accepted is remembered by its id ([`memory`]), so that a second one of the
//! same id does not act, and handed to its device with a deadline. A device's answer becomes the outcome; where none
//! comes, the router says `expired` if the device had not begun, else `unknown`.
//!
//! In this version ids are remembered in RAM: a command that was under way when the process ended is not answered, and
//! its id is not known to the next process.
//!
//! Knows neither MQTT nor buses.

mod config;
mod judge;
mod memory;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::model::{
    Answer, Arrival, Cause, Command, CommandId, DeviceName, DeviceState, DeviceStates, Outcome, Point, PointName,
    Reason, Value, Verdict, Write, WriteError, time,
};
use crate::task::Pulse;
pub use config::{Config, PointConfig};
use judge::{Accepted, Guard, Refused};
use memory::{Memory, Seen};

/// Commands that may be under way in all devices together.
const MAX_OPEN: usize = 256;

/// An answer may come this much after the deadline: until then the device may not have had the time to tell.
const GRACE: Duration = Duration::from_secs(1);

/// Contents of retained commands that were refused; a broker repeats them at each connection.
const MAX_RETAINED: usize = 1024;

/// All that a router is made of.
#[derive(Debug)]
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
    /// Outcomes of accepted commands, to the queue.
    pub outcomes: mpsc::Sender<Arrival>,
    /// Outcomes of refused commands and those repeated to duplicates; what finds no place is lost.
    pub refusals: mpsc::Sender<Outcome>,
    /// The epoch of this start: it is part of the ids that the router makes.
    pub epoch: u64,
    /// What changes while the gateway runs.
    pub changes: mpsc::Receiver<Change>,
    /// The loop's sign of life.
    pub pulse: Pulse,
    /// Take no new commands, and end when those under way have ended.
    pub stop: CancellationToken,
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
    guards: BTreeMap<String, BTreeMap<String, Guard>>,
    memory: Memory,
    retained: HashSet<u64>,
    open: HashMap<u32, Open>,
    next_ticket: u32,
    made_ids: u64,
}

/// A command that its device has.
#[derive(Debug)]
struct Open {
    command: Command,
    id: CommandId,
    began: bool,
    deadline: Duration,
}

impl Router {
    /// A router.
    pub fn new(mut parts: Parts) -> Self {
        let guards = guards(std::mem::take(&mut parts.points));
        let memory = Memory::new(parts.config.remember.0);
        let (retained, open) = (HashSet::new(), HashMap::new());
        Router { parts, guards, memory, retained, open, next_ticket: 0, made_ids: 0 }
    }

    /// Runs until it is told to stop and no command is under way.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(Pulse::EVERY);
        loop {
            self.parts.pulse.beat();
            let stopping = self.parts.stop.is_cancelled();
            if stopping && self.open.is_empty() {
                return;
            }
            let due = self.open.values().map(|open| open.deadline + GRACE).min();
            tokio::select! {
                // Answers first: a command that waits must not be judged by an older state of things.
                biased;
                Some(answer) = self.parts.answers.recv() => self.answer(answer).await,
                () = sleep_until(due), if due.is_some() => self.overdue().await,
                () = self.parts.stop.cancelled(), if !stopping => {}
                Some(change) = self.parts.changes.recv() => {
                    self.parts.config = change.config;
                    self.parts.devices = change.devices;
                    self.guards = guards(change.points);
                }
                command = self.parts.commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                _ = tick.tick() => {}
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match self.judge(&command) {
            Ok(accepted) => self.send(command, accepted).await,
            Err(Refused::Silently) => {}
            Err(Refused::Again(first)) => {
                let again = Outcome { reply: command.reply, ..*first };
                self.refuse(again);
            }
            Err(Refused::Because(reason, text)) => {
                tracing::info!(
                    DEVICE = command.device,
                    POINT = command.point,
                    ID = command.id.as_ref().map(CommandId::as_str),
                    "command rejected: {}: {text}",
                    reason.word()
                );
                self.refuse(Outcome::of(&command, Verdict::Rejected(reason), Some(text)));
            }
        }
    }

    /// The checks, in an order in which the first that fails explains the most.
    fn judge(&mut self, command: &Command) -> Result<Accepted, Refused> {
        let now = time::now();
        if self.parts.stop.is_cancelled() {
            return Err(Refused::Because(Reason::Stopping, "the gateway stops".to_owned()));
        }
        if command.retained {
            return Err(self.refuse_retained(command));
        }
        if let Some(id) = &command.id {
            match self.memory.seen(id, now.uptime) {
                Seen::Never => {}
                // Its outcome will come.
                Seen::UnderWay => return Err(Refused::Silently),
                Seen::Ended(first) => return Err(Refused::Again(first)),
            }
        }
        let (device, accepted) = judge::judge(&mut self.guards, command, &now, self.parts.config.remember.0)?;
        match self.parts.states.borrow().get(&device) {
            Some(DeviceState::Online) => {}
            Some(DeviceState::Offline { why, .. }) => {
                return Err(Refused::Because(Reason::Offline, format!("the device does not answer: {why}")));
            }
            Some(DeviceState::Starting) | None => {
                return Err(Refused::Because(Reason::Offline, "the device has not answered yet".to_owned()));
            }
        }
        if self.open.len() >= MAX_OPEN {
            let text = format!("{MAX_OPEN} commands are under way");
            return Err(Refused::Because(Reason::Full, text));
        }
        if command.id.is_some() && !self.memory.has_room(now.uptime) {
            let text = "as many command ids are remembered as there may be; try again later".to_owned();
            return Err(Refused::Because(Reason::Full, text));
        }
        judge::spend(&mut self.guards, command, now.uptime)?;
        Ok(accepted)
    }

    /// A retained command never acts, and is refused once for each content.
    fn refuse_retained(&mut self, command: &Command) -> Refused {
        let mut hasher = DefaultHasher::new();
        format!("{:?}", (&command.device, &command.point, &command.values, &command.id)).hash(&mut hasher);
        if self.retained.len() >= MAX_RETAINED {
            self.retained.clear();
        }
        if self.retained.insert(hasher.finish()) {
            let text = "a command must not be published as retained; clear the topic with an empty retained message";
            Refused::Because(Reason::Retained, text.to_owned())
        } else {
            Refused::Silently
        }
    }

    async fn send(&mut self, command: Command, accepted: Accepted) {
        let id = command.id.clone().unwrap_or_else(|| self.make_id());
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let Accepted { device, values, deadline } = accepted;
        let write = Write { ticket, cause: Cause::Command(id.clone()), values, deadline };
        let Some(way) = self.parts.devices.get(&device) else {
            // A device with points has a way; the configs of both come from one table.
            return self.refuse(Outcome::of(&command, Verdict::Rejected(Reason::Unknown), None));
        };
        if way.try_send(write).is_err() {
            let text = "the device has as many commands waiting as it may".to_owned();
            return self.refuse(Outcome::of(&command, Verdict::Rejected(Reason::Busy), Some(text)));
        }
        if command.id.is_some() {
            self.memory.accepted(id.clone(), time::uptime());
        }
        self.open.insert(ticket, Open { command, id, began: false, deadline });
    }

    async fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Opened { .. } => {}
            Answer::Began { ticket } => {
                if let Some(open) = self.open.get_mut(&ticket) {
                    open.began = true;
                }
            }
            Answer::Ended { ticket, result } => {
                let Some(open) = self.open.remove(&ticket) else {
                    tracing::warn!("a device answered a command after its outcome was told");
                    return;
                };
                let (verdict, text, values) = match result {
                    Ok(values) => (Verdict::Done, None, values),
                    Err(WriteError::Expired) => (Verdict::Expired, Some(WriteError::Expired.to_string()), Vec::new()),
                    Err(WriteError::Failed(text)) => (Verdict::Failed, Some(text), Vec::new()),
                    Err(WriteError::Unknown(text)) => (Verdict::Unknown, Some(text), Vec::new()),
                };
                self.end(open, verdict, text, values).await;
            }
        }
    }

    /// Tells the outcome of those whose device said nothing in time.
    async fn overdue(&mut self) {
        let now = time::uptime();
        let late: Vec<u32> =
            self.open.iter().filter(|(_, open)| now >= open.deadline + GRACE).map(|(ticket, _)| *ticket).collect();
        for ticket in late {
            let Some(open) = self.open.remove(&ticket) else { continue };
            // A device does not begin after the deadline, so what had not begun by now never will.
            let (verdict, text) = if open.began {
                (Verdict::Unknown, "the device began and did not say how it ended")
            } else {
                (Verdict::Expired, "the device did not begin in time")
            };
            self.end(open, verdict, Some(text.to_owned()), Vec::new()).await;
        }
    }

    async fn end(&mut self, open: Open, verdict: Verdict, text: Option<String>, values: Vec<(PointName, Value)>) {
        let Open { command, id, .. } = open;
        let remembered = command.id.is_some();
        let outcome = Outcome { id, values, ..Outcome::of(&command, verdict, text) };
        tracing::info!(
            DEVICE = outcome.device, POINT = outcome.point, ID = %outcome.id,
            "command {}{}", verdict.word(), outcome.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default()
        );
        if remembered {
            self.memory.ended(&outcome);
        }
        if self.parts.outcomes.send(Arrival::Outcome(outcome)).await.is_err() {
            tracing::error!("the outcome of a command came after the end of the queue");
        }
    }

    fn refuse(&self, outcome: Outcome) {
        if self.parts.refusals.try_send(outcome).is_err() {
            tracing::debug!("too many refusals at once: one is not told");
        }
    }

    /// An id for a command that came without one. It can't be repeated, so it need not be remembered.
    fn make_id(&mut self) -> CommandId {
        self.made_ids += 1;
        CommandId::new(&format!("auto-{}-{}", self.parts.epoch, self.made_ids))
            .expect("two numbers and a word are short and printable")
    }
}

fn guards(points: Vec<(Point, PointConfig)>) -> judge::Guards {
    let mut guards = judge::Guards::new();
    for (point, config) in points {
        let device = guards.entry(point.device.to_string()).or_default();
        device.insert(point.name.to_string(), Guard::new(point, config));
    }
    guards
}

async fn sleep_until(due: Option<Duration>) {
    if let Some(due) = due {
        tokio::time::sleep(due.saturating_sub(time::uptime())).await;
    }
}

#[cfg(test)]
mod tests;
