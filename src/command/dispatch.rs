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
//! A device has one write at a time, in the order in which its commands came; what a rule wants goes first.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::journal::{Bug, Entry, Found, Job, Report, seeded};
use super::judge::{self, Accepted, Guards, Refused};
use super::memory::{Memory, Seen};
use super::outputs::{End, Outputs, Setting, Turn};
use super::{Config, Guard, PointConfig, Queued};
use crate::model::{
    Answer, Bucket, Cause, Command, CommandId, DeviceName, DeviceState, DeviceStates, Outcome, Point, PointKey,
    PointName, Rate, Reason, Takeover, Timestamp, Value, Verdict, Write, WriteError,
};

/// Commands that may be open and outcomes that may wait for the broker, together.
pub(super) const MAX_OPEN: usize = 256;

/// Commands that may wait for one device.
const MAX_WAITING: usize = 8;

/// An answer may come this much after the deadline: until then the device may not have had the time to tell.
const GRACE: Duration = Duration::from_secs(1);

/// After its deadline and not at it a command is over.
const TICK: Duration = Duration::from_millis(1);

/// Contents of retained commands that were refused; a broker repeats them at each connection.
const MAX_RETAINED: usize = 1024;

/// A sentence in an outcome is not longer, in bytes.
const MAX_TEXT: usize = 500;

/// Refusals in the log: who floods the gateway does not flood that as well.
const TALK: Rate = Rate::Limit { count: 1, per: Duration::from_secs(1) };

/// The journal is written anew when it has grown by so much, and by as much as it has to keep.
const GROWTH: usize = 64 << 10;

/// The journal is tried again so long after it failed, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
    /// How often a refusal is logged.
    talk: Bucket,
    /// Refusals that were not logged.
    unsaid: u64,
    bug: Option<Bug>,
}

/// The journal, as far as it is known here.
#[derive(Debug, Default)]
struct Storage {
    /// The number of the last entry.
    entries: u64,
    durable: u64,
    /// Bytes appended since it was written anew.
    grown: usize,
    /// Entries that may wait for the next ones.
    lazy: Vec<u8>,
    trouble: Option<Trouble>,
    /// It was left by a later version, and stays so.
    foreign: bool,
}

#[derive(Debug)]
struct Trouble {
    why: String,
    /// When it is tried again; `None`: that is under way.
    retry: Option<Duration>,
    pause: Duration,
}

#[derive(Debug, Default)]
struct Device {
    /// What rules want.
    urgent: VecDeque<(PointKey, Cause)>,
    waiting: VecDeque<Open>,
    running: Option<Running>,
}

/// An accepted command.
#[derive(Debug)]
struct Open {
    command: Command,
    id: CommandId,
    settings: Vec<Setting>,
    /// Not to be begun after this.
    deadline: Duration,
    /// The number of its entry, which must be on flash before it goes on; `None`: it has none.
    entry: Option<u64>,
}

#[derive(Debug)]
struct Running {
    ticket: u32,
    what: What,
    settings: Vec<Setting>,
    began: bool,
    deadline: Duration,
}

#[derive(Debug)]
enum What {
    Command(Box<Open>),
    Rule(PointKey, Cause),
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
            talk: Bucket::new(TALK, Duration::from_secs(10)),
            unsaid: 0,
            bug,
        };
        dispatcher.set_points(points);
        dispatcher.restore(found, takeover, now);
        dispatcher
    }

    /// Goes on from what the journal says.
    fn restore(&mut self, found: Found, takeover: Takeover, now: &Timestamp) {
        if found.damaged > 0 {
            tracing::error!("{} entries of the journal of commands are damaged", found.damaged);
        }
        if let Some(why) = found.foreign {
            self.storage.foreign = true;
            self.storage.trouble = Some(Trouble { why, retry: None, pause: RETRY.0 });
        }
        for entry in found.entries.into_iter().filter(|_| !seeded(self.bug, Bug::Forgets)) {
            match entry {
                Entry::Accepted { at, named, unknown } => self.memory.accepted(at, named, true, unknown, now),
                Entry::Ended(outcome) => self.memory.ended(&outcome),
                Entry::Told(id) => self.memory.told(&id),
                Entry::Left(left) => {
                    if takeover == Takeover::Keep && left.boot == now.boot {
                        self.outputs.restore(&left);
                    }
                }
            }
        }
        let again = self.memory.untold();
        let under_way = self.memory.under_way();
        self.storage.grown = found.bytes;
        if let Some(why) = found.trouble {
            tracing::error!("the journal of commands can't be written: {why}");
            self.storage.trouble = Some(Trouble { why, retry: Some(now.uptime + RETRY.0), pause: RETRY.0 });
        }
        for outcome in again {
            self.tell(outcome);
        }
        for outcome in under_way {
            self.finish(Outcome { timestamp: *now, ..outcome }, true);
        }
    }

    fn set_points(&mut self, points: Vec<(Point, PointConfig)>) {
        self.outputs.set(&points);
        self.guards.clear();
        for (point, config) in points {
            self.devices.entry(point.device.clone()).or_default();
            let device = self.guards.entry(point.device.to_string()).or_default();
            device.insert(point.name.to_string(), Guard::new(point, config));
        }
    }

    /// The config has changed. Commands that wait for a device that is no more end here.
    pub(super) fn change(&mut self, config: Config, points: Vec<(Point, PointConfig)>, now: &Timestamp) {
        self.memory.set_remember(config.remember.0);
        self.config = config;
        self.set_points(points);
        let guards = &self.guards;
        let gone: Vec<DeviceName> =
            self.devices.keys().filter(|device| !guards.contains_key(device.as_str())).cloned().collect();
        for name in gone {
            let Some(mut device) = self.devices.remove(&name) else { continue };
            for open in device.waiting.drain(..) {
                self.fail(open, "the device was removed from the config", now);
            }
            // One that has begun is answered by its driver before that ends, or else has no answer.
            if let Some(Running { what: What::Command(open), began, .. }) = device.running {
                let verdict = if began { Verdict::Unknown } else { Verdict::Failed };
                self.conclude(*open, verdict, Some("the device was removed from the config".to_owned()), vec![], now);
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
                let waits_for_flash = head.entry.is_some_and(|entry| entry > self.storage.durable);
                let turn = match self.outputs.turn(name, &head.settings, Duration::ZERO) {
                    Turn::At(at) if !waits_for_flash => at,
                    _ => over,
                };
                Some(turn.min(over))
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
        for open in waiting {
            let settings = open.settings.clone();
            self.outputs.coming(&device_of(&open), &settings, false);
            self.conclude(
                open,
                Verdict::Failed,
                Some("the gateway stopped before the device could begin".to_owned()),
                vec![],
                now,
            );
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

    /// What the queue keeps of the outcomes.
    pub(super) fn queued(&mut self, queued: Queued) {
        self.queued = queued;
        while self.untold.front().is_some_and(|(number, _)| *number <= queued.durable)
            && let Some((_, id)) = self.untold.pop_front()
        {
            self.memory.told(&id);
            Entry::Told(id).frame(&mut self.storage.lazy);
        }
        // They need not be on flash; but they must not wait for ever in RAM either.
        if self.storage.lazy.len() > GROWTH && self.storage.trouble.is_none() {
            self.flush_lazy();
        }
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
        let deadline = accepted.expires.min(now.uptime + accepted.timeout + wait);
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
        let Accepted { device, settings, .. } = accepted;
        self.outputs.coming(&device, &settings, true);
        let entry = entry.filter(|_| !seeded(self.bug, Bug::NotJournalled));
        let open = Open { command, id, settings, deadline, entry };
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

    /// Hands over what can be handed over, and makes safe what is to be.
    fn advance(&mut self, now: &Timestamp) {
        for (key, cause) in self.outputs.wants_safe(now.uptime) {
            self.make_safe(key, cause);
        }
        let names: Vec<DeviceName> = self.devices.keys().cloned().collect();
        // One that waits for others of its group has put them to work: a second round is enough for these.
        for name in names.iter().chain(&names) {
            self.advance_device(name, now);
        }
        // Only here, where all that was appended is known to the memory as well.
        if self.storage.grown > GROWTH.max(self.memory.bytes()) && self.storage.trouble.is_none() {
            self.replace_journal();
        }
    }

    fn make_safe(&mut self, key: PointKey, cause: Cause) {
        if self.outputs.is_going(&key) {
            return;
        }
        self.outputs.going(&key);
        self.devices.entry(key.0.clone()).or_default().urgent.push_back((key, cause));
    }

    fn advance_device(&mut self, name: &DeviceName, now: &Timestamp) {
        loop {
            let Some(device) = self.devices.get_mut(name).filter(|device| device.running.is_none()) else { return };
            if let Some((key, cause)) = device.urgent.pop_front() {
                self.run_rule(key, cause, now);
                continue;
            }
            let Some(head) = device.waiting.front() else { return };
            if now.uptime > head.deadline {
                self.end_head(name, Verdict::Expired, "its time was over before its turn came".to_owned(), now);
                continue;
            }
            if head.entry.is_some_and(|entry| entry > self.storage.durable) {
                return;
            }
            match self.outputs.turn(name, &head.settings, now.uptime) {
                Turn::Now => self.run_head(name, now),
                Turn::At(_) => return,
                Turn::After(keys) => {
                    for key in keys {
                        self.make_safe(key, Cause::Interlock);
                    }
                    // One of them may be this device's own.
                    if self.devices.get(name).is_none_or(|device| device.urgent.is_empty()) {
                        return;
                    }
                }
                Turn::Never(text) => self.end_head(name, Verdict::Failed, text, now),
            }
        }
    }

    fn run_head(&mut self, name: &DeviceName, now: &Timestamp) {
        let Some(open) = self.devices.get_mut(name).and_then(|device| device.waiting.pop_front()) else { return };
        self.outputs.coming(name, &open.settings, false);
        let cause = Cause::Command(open.id.clone());
        let (settings, deadline) = (open.settings.clone(), open.deadline);
        self.run(name, What::Command(Box::new(open)), cause, settings, deadline, now);
    }

    fn run_rule(&mut self, key: PointKey, cause: Cause, now: &Timestamp) {
        let Some((value, timeout)) = self.outputs.safe(&key) else { return };
        tracing::info!(DEVICE = %key.0, POINT = %key.1, "to its safe value {value}: {cause}");
        let settings = vec![Setting { point: key.1.clone(), value, lease: None }];
        let name = key.0.clone();
        self.run(&name, What::Rule(key, cause.clone()), cause, settings, now.uptime + timeout, now);
    }

    fn run(
        &mut self,
        name: &DeviceName,
        what: What,
        cause: Cause,
        settings: Vec<Setting>,
        deadline: Duration,
        now: &Timestamp,
    ) {
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.outputs.sent(name, &settings, now.uptime);
        let values = settings.iter().map(|setting| (setting.point.clone(), setting.value.clone())).collect();
        self.effects.push_back(Effect::Write(name.clone(), Write { ticket, cause, values, deadline }));
        if let Some(device) = self.devices.get_mut(name) {
            device.running = Some(Running { ticket, what, settings, began: false, deadline });
        }
    }

    fn end_head(&mut self, name: &DeviceName, verdict: Verdict, text: String, now: &Timestamp) {
        let Some(open) = self.devices.get_mut(name).and_then(|device| device.waiting.pop_front()) else { return };
        self.outputs.coming(name, &open.settings, false);
        self.conclude(open, verdict, Some(text), Vec::new(), now);
    }

    fn fail(&mut self, open: Open, text: &str, now: &Timestamp) {
        self.conclude(open, Verdict::Failed, Some(text.to_owned()), Vec::new(), now);
    }

    /// The device did not take the write.
    pub(super) fn not_taken(&mut self, ticket: u32, now: &Timestamp) {
        let error = WriteError::Failed("the device takes no commands now".to_owned());
        self.answer(Answer::Ended { ticket, result: Err(error) }, now);
    }

    /// A device says something.
    pub(super) fn answer(&mut self, answer: Answer, now: &Timestamp) {
        match answer {
            Answer::Opened { device, outputs } => self.outputs.opened(&device, &outputs, now.uptime),
            Answer::Began { ticket } => {
                if let Some(running) = self.running(ticket) {
                    running.began = true;
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

    fn running(&mut self, ticket: u32) -> Option<&mut Running> {
        self.devices.values_mut().filter_map(|device| device.running.as_mut()).find(|running| running.ticket == ticket)
    }

    fn device_of(&self, ticket: u32) -> Option<DeviceName> {
        let has = |device: &Device| device.running.as_ref().is_some_and(|running| running.ticket == ticket);
        self.devices.iter().find(|(_, device)| has(device)).map(|(name, _)| name.clone())
    }

    fn end_running(
        &mut self,
        name: &DeviceName,
        verdict: Verdict,
        text: Option<String>,
        values: Vec<(PointName, Value)>,
        now: &Timestamp,
    ) {
        let Some(running) = self.devices.get_mut(name).and_then(|device| device.running.take()) else { return };
        let end = match verdict {
            Verdict::Done => End::Done,
            Verdict::Unknown => End::Unknown,
            Verdict::Failed | Verdict::Expired | Verdict::Rejected(_) => End::Untouched,
        };
        self.outputs.ended(name, &running.settings, end, now.uptime);
        match running.what {
            What::Command(open) => self.conclude(*open, verdict, text, values, now),
            What::Rule(key, cause) => {
                self.outputs.gone(&key, end == End::Done, now.uptime);
                if end != End::Done {
                    let text = text.unwrap_or_default();
                    tracing::error!(DEVICE = %key.0, POINT = %key.1, "not at its safe value ({cause}): {text}");
                }
            }
        }
    }

    /// Ends the writes whose device said nothing in time.
    fn overdue(&mut self, now: &Timestamp) {
        let late =
            |device: &Device| device.running.as_ref().is_some_and(|running| now.uptime >= running.deadline + GRACE);
        let names: Vec<DeviceName> =
            self.devices.iter().filter(|(_, device)| late(device)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let began = self.devices.get(&name).and_then(|device| device.running.as_ref()).is_some_and(|r| r.began);
            // A device does not begin after the deadline, so what had not begun by now never will.
            let (verdict, text) = if began {
                (Verdict::Unknown, "the device began and did not say how it ended")
            } else {
                (Verdict::Expired, "the device did not begin in time")
            };
            self.end_running(&name, verdict, Some(text.to_owned()), Vec::new(), now);
        }
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
            DEVICE = outcome.device, POINT = outcome.point, ID = %outcome.id,
            "command {}{}", verdict.word(), outcome.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default()
        );
        self.finish(outcome, open.entry.is_some());
    }

    /// The outcome is fixed here, and told once it is on flash.
    fn finish(&mut self, outcome: Outcome, journalled: bool) {
        if !journalled || seeded(self.bug, Bug::ToldEarly) {
            self.memory.ended(&outcome);
            return self.tell(outcome);
        }
        if self.storage.trouble.is_some() {
            // With the next attempt to write the journal anew.
            self.storage.entries += 1;
            self.ending.push_back((self.storage.entries, outcome));
        } else {
            let number = self.journal(&Entry::Ended(outcome.clone()));
            self.ending.push_back((number, outcome));
        }
    }

    fn tell(&mut self, outcome: Outcome) {
        self.told += 1;
        self.untold.push_back((self.told, outcome.id.clone()));
        self.effects.push_back(Effect::Outcome(outcome));
    }

    /// Appends an entry, and what could wait until now; its number.
    fn journal(&mut self, entry: &Entry) -> u64 {
        let mut frames = std::mem::take(&mut self.storage.lazy);
        entry.frame(&mut frames);
        self.append(frames)
    }

    fn flush_lazy(&mut self) {
        let frames = std::mem::take(&mut self.storage.lazy);
        if !frames.is_empty() {
            self.append(frames);
        }
    }

    fn append(&mut self, frames: Vec<u8>) -> u64 {
        self.storage.entries += 1;
        self.storage.grown += frames.len();
        self.effects.push_back(Effect::Journal(Job::Append(self.storage.entries, frames)));
        self.storage.entries
    }

    /// Writes the journal anew: what is remembered, what has just ended, and nothing else.
    fn replace_journal(&mut self) {
        self.storage.lazy.clear();
        self.storage.grown = 0;
        self.storage.entries += 1;
        let mut frames = Vec::new();
        self.memory.frames(&mut frames);
        for (_, outcome) in &self.ending {
            Entry::Ended(outcome.clone()).frame(&mut frames);
        }
        if let Some(trouble) = &mut self.storage.trouble {
            trouble.retry = None;
        }
        self.effects.push_back(Effect::Journal(Job::Replace(self.storage.entries, frames)));
    }

    /// The journal says how far it is.
    pub(super) fn journalled(&mut self, report: &Report, now: &Timestamp) {
        self.storage.durable = self.storage.durable.max(report.durable);
        while self.ending.front().is_some_and(|(number, _)| *number <= self.storage.durable)
            && let Some((_, outcome)) = self.ending.pop_front()
        {
            self.memory.ended(&outcome);
            self.tell(outcome);
        }
        match (&report.failed, &mut self.storage.trouble) {
            (None, None) => {}
            (None, Some(_)) if self.storage.foreign => {}
            (None, trouble) => {
                tracing::info!("the journal of commands can be written again");
                *trouble = None;
                // What ended while it was being written anew is not in it.
                for (_, outcome) in std::mem::take(&mut self.ending) {
                    let number = self.journal(&Entry::Ended(outcome.clone()));
                    self.ending.push_back((number, outcome));
                }
            }
            (Some(why), None) => {
                tracing::error!("the journal of commands can't be written: {why}");
                let retry = Some(now.uptime + RETRY.0);
                self.storage.trouble = Some(Trouble { why: why.clone(), retry, pause: RETRY.0 });
                self.without_journal(now);
            }
            (Some(why), Some(trouble)) => {
                why.clone_into(&mut trouble.why);
                if trouble.retry.is_none() {
                    trouble.pause = (trouble.pause * 2).min(RETRY.1);
                    trouble.retry = Some(now.uptime + trouble.pause);
                }
            }
        }
        self.advance(now);
    }

    /// The commands that wait for their entry are refused after all, but for those to safe values.
    fn without_journal(&mut self, now: &Timestamp) {
        let durable = self.storage.durable;
        for name in self.devices.keys().cloned().collect::<Vec<_>>() {
            let Some(device) = self.devices.get_mut(&name) else { continue };
            let (refused, kept): (Vec<Open>, Vec<Open>) = device.waiting.drain(..).partition(|open| {
                open.entry.is_some_and(|entry| entry > durable) && !self.outputs.all_safe(&name, &open.settings)
            });
            device.waiting = kept.into();
            for open in device.waiting.iter_mut().filter(|open| open.entry.is_some()) {
                // It need not wait. But it may be on flash, so what becomes of it has to be there before it is told.
                open.entry = Some(0);
            }
            for open in refused {
                self.outputs.coming(&name, &open.settings, false);
                self.memory.revoked(&open.id);
                let text = format!("the journal can't be written ({})", self.trouble().unwrap_or_default());
                self.refuse(&open.command, Reason::Storage, text, now);
            }
        }
    }
}

impl Device {
    fn commands(&self) -> usize {
        let running = matches!(self.running, Some(Running { what: What::Command(_), .. }));
        self.waiting.len() + usize::from(running)
    }
}

fn device_of(open: &Open) -> DeviceName {
    DeviceName::new(&open.command.device).expect("a command that was accepted is for a device that there is")
}

/// Texts of devices may be long.
fn short(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}
