//! Who decides what becomes of each command, and when: a state machine without clocks, channels or files.
//!
//! It is told what happened ([`Dispatcher::command`], [`Dispatcher::answer`], [`Dispatcher::journalled`], …) and when,
//! and says what to do in [`Effect`]s. A command goes through these states, and leaves them in no other way:
//!
//! ```text
//!  judged ──▶ journalled ──▶ at its device ──▶ begun ──▶ ended ──▶ journalled ──▶ told
//!    │refused      │ its time is over, the interlock holds, a stop: `expired`, `failed`
//! ```
//!
//! [`turns`] is what happens between the second state and the fifth, [`storage`] what has to do with the journal. A device
//! has one write at a time, in the order in which its commands came; what a rule wants goes first.

mod storage;
mod turns;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use self::storage::Storage;
use self::turns::{Device, GRACE, Open, Running, What};
use super::journal::{Bug, Entry, Found, Job, seeded};
use super::judge::{self, Accepted, Guards, Refused};
use super::memory::{Memory, Seen};
use super::outputs::Outputs;
use super::{Config, Guard, PointConfig, Queued};
use crate::model::{
    Answer, Bucket, Command, CommandId, DeviceName, DeviceState, DeviceStates, Outcome, Point, PointName, Rate, Reason,
    Takeover, Timestamp, Value, Verdict, Write, WriteError, event,
};

/// Commands that may be open and outcomes that may wait for the broker, together.
pub(super) const MAX_OPEN: usize = 256;

/// Commands that may wait for one device.
const MAX_WAITING: usize = 8;

/// A command to a safe value waits no longer for the journal.
const FLASH_PATIENCE: Duration = Duration::from_secs(1);

/// After its deadline and not at it a command is over.
const TICK: Duration = Duration::from_millis(1);

/// Contents of retained commands that were refused; a broker repeats them at each connection.
const MAX_RETAINED: usize = 1024;

/// A sentence in an outcome is not longer, in bytes.
const MAX_TEXT: usize = 500;

/// Refusals in the log: who floods the gateway does not flood that as well.
const TALK: Rate = Rate::Limit { count: 1, per: Duration::from_secs(1) };

/// Something to do.
#[derive(Debug, PartialEq)]
pub(super) enum Effect {
    /// Write to the journal, then say [`Dispatcher::journalled`].
    Journal(Job),
    /// Hand this to the device.
    Write(DeviceName, Write),
    /// Tell this outcome of an accepted command, by the queue.
    Outcome(Outcome),
    /// Tell this one if there is room, and forget it.
    Refusal(Outcome),
}

/// The state of all commands.
#[derive(Debug)]
pub(super) struct Dispatcher {
    config: Config,
    guards: Guards,
    outputs: Outputs,
    memory: Memory,
    devices: BTreeMap<DeviceName, Device>,
    effects: VecDeque<Effect>,
    storage: Storage,
    /// Outcomes that wait for the flash, with the number of their entry.
    ending: VecDeque<(u64, Outcome)>,
    /// Outcomes that were handed to the queue in this start, those it does not keep yet by their number.
    untold: VecDeque<(u64, CommandId)>,
    told: u64,
    /// What the queue says.
    queued: Queued,
    /// Why devices do not answer.
    states: DeviceStates,
    retained: HashSet<u64>,
    stopping: bool,
    epoch: u64,
    next_ticket: u32,
    made_ids: u64,
    /// When it was last looked whose turn it is.
    looked_at: Duration,
    /// How often a refusal is logged.
    talk: Bucket,
    /// Refusals that were not logged.
    unsaid: u64,
    bug: Option<Bug>,
}

impl Dispatcher {
    /// With what the run before left in the journal.
    pub(super) fn new(
        config: Config,
        points: Vec<(Point, PointConfig)>,
        found: Found,
        takeover: Takeover,
        epoch: u64,
        now: &Timestamp,
        bug: Option<Bug>,
    ) -> Self {
        let memory = Memory::new(config.remember.0);
        let outputs = Outputs::new(now.uptime, bug);
        let mut dispatcher = Dispatcher {
            config,
            guards: Guards::new(),
            outputs,
            memory,
            devices: BTreeMap::new(),
            effects: VecDeque::new(),
            storage: Storage::default(),
            ending: VecDeque::new(),
            untold: VecDeque::new(),
            told: 0,
            queued: Queued::default(),
            states: DeviceStates::new(),
            retained: HashSet::new(),
            stopping: false,
            epoch,
            next_ticket: 0,
            made_ids: 0,
            looked_at: Duration::ZERO,
            talk: Bucket::new(TALK, Duration::from_secs(10)),
            unsaid: 0,
            bug,
        };
        dispatcher.set_points(points);
        dispatcher.restore(found, takeover, now);
        dispatcher
    }

    fn set_points(&mut self, points: Vec<(Point, PointConfig)>) {
        self.outputs.set(&points);
        let mut before = std::mem::take(&mut self.guards);
        self.devices.values_mut().for_each(|device| device.sleeps = false);
        for (point, config) in points {
            let of = self.devices.entry(point.device.clone()).or_default();
            of.sleeps |= config.sleeps.is_some();
            let device = self.guards.entry(point.device.to_string()).or_default();
            let known = before.get_mut(point.device.as_str()).and_then(|points| points.remove(point.name.as_str()));
            device.insert(point.name.to_string(), Guard::new(point, config, known));
        }
    }

    /// The config has changed. Commands that wait for a device that is no more end here.
    pub(super) fn change(&mut self, config: Config, points: Vec<(Point, PointConfig)>, now: &Timestamp) {
        self.memory.set_remember(config.remember.0);
        self.config = config;
        self.set_points(points);
        self.outputs.nothing_coming();
        for (name, device) in &self.devices {
            device.waiting.iter().for_each(|open| self.outputs.coming(name, &open.settings, true));
        }
        let guards = &self.guards;
        let gone: Vec<DeviceName> =
            self.devices.keys().filter(|device| !guards.contains_key(device.as_str())).cloned().collect();
        for name in gone {
            let Some(mut device) = self.devices.remove(&name) else { continue };
            for open in device.waiting.drain(..) {
                self.fail(open, "the device was removed from the config", now);
            }
            // Its driver has it, and may do it before it ends.
            if let Some(Running { what: What::Command(open), .. }) = device.running {
                self.conclude(
                    *open,
                    Verdict::Unknown,
                    Some("the device was removed from the config".to_owned()),
                    vec![],
                    now,
                );
            }
        }
        self.advance(now);
    }

    /// What is to be done, in this order.
    pub(super) fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether no command is under way, and no output is to be made safe for the stop.
    pub(super) fn is_idle(&self) -> bool {
        let idle = |device: &Device| device.urgent.is_empty() && device.waiting.is_empty() && device.running.is_none();
        self.devices.values().all(idle) && self.ending_is_idle() && self.outputs.is_settled()
    }

    /// Outcomes that can't be journalled now are for the next start.
    fn ending_is_idle(&self) -> bool {
        self.ending.is_empty() || self.storage.trouble.is_some()
    }

    /// Why the journal can't be written.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.storage.trouble.as_ref().map(|trouble| trouble.why.as_str())
    }

    /// When [`Dispatcher::tick`] has something to do.
    pub(super) fn due(&self) -> Option<Duration> {
        let devices = self.devices.iter().filter_map(|(name, device)| match &device.running {
            Some(running) => Some(running.deadline + GRACE),
            None => {
                let head = device.waiting.front()?;
                let over = head.deadline + TICK;
                let turn = match head.entry {
                    Some(entry) if entry > self.storage.durable => head.patience.filter(|at| *at > self.looked_at),
                    _ => self.outputs.dead_until(name, &head.settings).filter(|at| *at > self.looked_at),
                };
                Some(turn.map_or(over, |turn| turn.min(over)))
            }
        });
        let retry = self.storage.trouble.as_ref().and_then(|trouble| trouble.retry);
        devices.chain(self.outputs.due()).chain(retry).min()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: &Timestamp) {
        self.overdue(now);
        if let Some(trouble) = &self.storage.trouble
            && trouble.retry.is_some_and(|retry| retry <= now.uptime)
        {
            self.replace_journal();
        }
        self.advance(now);
    }

    /// The gateway stops: new commands are refused, what was not handed over ends, what has `on_stop` becomes safe.
    pub(super) fn stop(&mut self, now: &Timestamp) {
        self.stopping = true;
        self.outputs.stop();
        let waiting: Vec<Open> = self.devices.values_mut().flat_map(|device| device.waiting.drain(..)).collect();
        self.outputs.nothing_coming();
        for open in waiting {
            self.fail(open, "the gateway stopped before the device could begin", now);
        }
        self.advance(now);
    }

    /// The last entries of this run: how outputs are left.
    pub(super) fn leave(&mut self, now: &Timestamp) {
        if self.storage.trouble.is_some() && !self.storage.foreign {
            // The last chance for what has ended and could not be written.
            self.replace_journal();
        }
        for left in self.outputs.left(now.boot) {
            Entry::Left(left).frame(&mut self.storage.lazy);
        }
        if !self.storage.foreign {
            self.flush_lazy();
        }
    }

    /// The states of the devices have changed.
    pub(super) fn states(&mut self, states: &DeviceStates, now: &Timestamp) {
        let online = |(name, state): (&DeviceName, &DeviceState)| (*state == DeviceState::Online).then(|| name.clone());
        let online: BTreeSet<DeviceName> = states.iter().filter_map(online).collect();
        self.outputs.set_online(online);
        self.states.clone_from(states);
        self.advance(now);
    }

    /// The broker was heard at this time.
    pub(super) fn heard(&mut self, at: Duration) {
        self.outputs.heard(at);
    }

    /// Whether outcomes are under way into the queue.
    pub(super) fn is_telling(&self) -> bool {
        !self.untold.is_empty()
    }

    /// A command has come.
    pub(super) fn command(&mut self, command: Command, now: &Timestamp) {
        self.outputs.heard(command.arrived.uptime);
        match self.judge(&command, now) {
            Ok((accepted, deadline)) => self.accept(command, accepted, deadline, now),
            Err(Refused::Silently) => {}
            Err(Refused::Again(first)) => {
                let again = Outcome { reply: command.reply, ..*first };
                self.effects.push_back(Effect::Refusal(again));
            }
            Err(Refused::Because(reason, text)) => self.refuse(&command, reason, text, now),
        }
        self.advance(now);
    }

    fn refuse(&mut self, command: &Command, reason: Reason, text: String, now: &Timestamp) {
        // The log may be on flash.
        if self.talk.take(now.uptime) {
            let more = std::mem::take(&mut self.unsaid);
            tracing::info!(
                MESSAGE_ID = event::COMMAND_REJECTED,
                DEVICE = command.device,
                POINT = command.point,
                ID = command.id.as_ref().map(CommandId::as_str),
                "command rejected: {}: {}{}",
                reason.word(),
                short(text.clone()),
                if more > 0 { format!(" ({more} more since the last line)") } else { String::new() }
            );
        } else {
            self.unsaid += 1;
        }
        let outcome = Outcome::of(command, Verdict::Rejected(reason), Some(short(text)));
        self.effects.push_back(Effect::Refusal(Outcome { timestamp: *now, ..outcome }));
    }

    /// The checks, in an order in which the first that fails explains the most. The result has the time after which the
    /// device may not begin any more.
    fn judge(&mut self, command: &Command, now: &Timestamp) -> Result<(Accepted, Duration), Refused> {
        let because = |reason, text: &str| Err(Refused::Because(reason, text.to_owned()));
        if command.retained {
            return Err(self.refuse_retained(command, now));
        }
        if let Some(id) = &command.id {
            match self.memory.seen(id, now.uptime) {
                Seen::Never => {}
                // Its outcome will come.
                Seen::UnderWay => return Err(Refused::Silently),
                Seen::Ended(first) => return Err(Refused::Again(first)),
            }
        }
        if self.stopping {
            return because(Reason::Stopping, "the gateway stops");
        }
        let accepted = judge::judge(&mut self.guards, command, now, self.config.remember.0)?;
        match self.states.get(&accepted.device) {
            Some(DeviceState::Online) => {}
            Some(DeviceState::Offline { why, .. }) => {
                return because(Reason::Offline, &format!("the device does not answer: {why}"));
            }
            Some(DeviceState::Starting) | None => return because(Reason::Offline, "the device has not answered yet"),
        }
        if let Some(trouble) = &self.storage.trouble
            && !self.outputs.all_safe(&accepted.device, &accepted.settings)
        {
            let text = format!("the journal can't be written ({}): only safe values can be set", trouble.why);
            return because(Reason::Storage, &text);
        }
        let open: usize = self.devices.values().map(Device::commands).sum();
        let waiting = usize::try_from(self.queued.waiting).unwrap_or(usize::MAX);
        let (ending, untold) = (self.ending.len(), self.untold.len());
        if open.saturating_add(ending).saturating_add(waiting.max(untold)) >= MAX_OPEN {
            let text = format!("{open} commands are open and {waiting} outcomes wait: {MAX_OPEN} may");
            return because(Reason::Full, &text);
        }
        if !self.memory.has_room(now.uptime) {
            return because(Reason::Full, "as many command ids are remembered as there may be; try again later");
        }
        let commands = self.devices.get(&accepted.device).map_or(0, Device::commands);
        if commands >= MAX_WAITING {
            return because(Reason::Busy, "the device has as many commands waiting as it may");
        }
        let wait = self.outputs.judge(&accepted.device, &accepted.settings, now.uptime);
        let wait = wait.map_err(|(reason, text)| Refused::Because(reason, text))?;
        judge::spend(&mut self.guards, command, now.uptime)?;
        let deadline = accepted.deadline(now.uptime + wait, self.config.remember.0);
        Ok((accepted, deadline))
    }

    /// A retained command never acts, and is refused once for each content.
    fn refuse_retained(&mut self, command: &Command, now: &Timestamp) -> Refused {
        // It acted when it came live, where the broker does not tell (MQTT 3.1.1); an id has one outcome.
        if let Some(id) = &command.id
            && !matches!(self.memory.seen(id, now.uptime), Seen::Never)
        {
            return Refused::Silently;
        }
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

    fn accept(&mut self, command: Command, accepted: Accepted, deadline: Duration, now: &Timestamp) {
        let named = command.id.is_some();
        let id = command.id.clone().unwrap_or_else(|| self.make_id(now));
        let text = "the gateway was restarted while the command was under way".to_owned();
        let unknown =
            Outcome { id: id.clone(), timestamp: *now, ..Outcome::of(&command, Verdict::Unknown, Some(text)) };
        let entry = self
            .storage
            .trouble
            .is_none()
            .then(|| self.journal(&Entry::Accepted { at: *now, named, unknown: unknown.clone() }));
        self.memory.accepted(*now, named, entry.is_some(), unknown, now);
        let Accepted { device, settings, timeout, .. } = accepted;
        self.outputs.coming(&device, &settings, true);
        let entry = entry.filter(|_| !seeded(self.bug, Bug::NotJournalled));
        // A flash that hangs must not keep anything from being made safe.
        let safe = self.outputs.all_safe(&device, &settings);
        let patience = safe.then(|| now.uptime + FLASH_PATIENCE);
        let open = Open { command, id, settings, deadline, timeout, entry, patience };
        self.devices.entry(device).or_default().waiting.push_back(open);
    }

    /// An id for a command that came without one. It can't be repeated, so it need not be remembered.
    fn make_id(&mut self, now: &Timestamp) -> CommandId {
        loop {
            self.made_ids += 1;
            let id = CommandId::new(&format!("auto-{}-{}", self.epoch, self.made_ids))
                .expect("two numbers and a word are short and printable");
            // A sender may have taken it for one of its own.
            if matches!(self.memory.seen(&id, now.uptime), Seen::Never) {
                return id;
            }
        }
    }

    /// A device says something.
    pub(super) fn answer(&mut self, answer: Answer, now: &Timestamp) {
        match answer {
            Answer::Opened { device, outputs } => self.outputs.opened(&device, &outputs, now.uptime),
            Answer::Awake { device, until } => {
                if let Some(device) = self.devices.get_mut(&device) {
                    device.awake_until = until;
                }
            }
            Answer::Began { ticket } => {
                if let Some(running) = self.running(ticket) {
                    running.began = true;
                    // It may have begun at the end of the time it had for that.
                    running.deadline = now.uptime + running.timeout;
                }
            }
            Answer::Ended { ticket, result } => {
                let Some(name) = self.device_of(ticket) else {
                    tracing::warn!("a device answered a command after its outcome was told");
                    return;
                };
                let (verdict, text, values) = match result {
                    Ok(values) => (Verdict::Done, None, values),
                    Err(WriteError::Expired) => (Verdict::Expired, Some(WriteError::Expired.to_string()), Vec::new()),
                    Err(WriteError::Failed(text)) => (Verdict::Failed, Some(text), Vec::new()),
                    Err(WriteError::Unknown(text)) => (Verdict::Unknown, Some(text), Vec::new()),
                };
                self.end_running(&name, verdict, text, values, now);
            }
        }
        self.advance(now);
    }

    fn fail(&mut self, open: Open, text: &str, now: &Timestamp) {
        self.conclude(open, Verdict::Failed, Some(text.to_owned()), Vec::new(), now);
    }

    /// A command has ended.
    fn conclude(
        &mut self,
        open: Open,
        verdict: Verdict,
        text: Option<String>,
        values: Vec<(PointName, Value)>,
        now: &Timestamp,
    ) {
        let outcome = Outcome::of(&open.command, verdict, text.map(short));
        let outcome = Outcome { id: open.id, values, timestamp: *now, ..outcome };
        tracing::info!(
            MESSAGE_ID = event::COMMAND_ENDED,
            DEVICE = outcome.device, POINT = outcome.point, ID = %outcome.id,
            "command {}{}", verdict.word(), outcome.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default()
        );
        self.finish(outcome, open.entry.is_some());
    }
}

/// Texts of devices may be long.
fn short(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}
