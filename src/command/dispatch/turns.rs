//! Whose turn it is: each device has one write at a time, what rules want goes first.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::outputs::{End, Setting, Turn};
use super::{Dispatcher, Effect};
use crate::model::{
    Answer, Cause, Command, CommandId, DeviceName, PointKey, PointName, Timestamp, Value, Verdict, Write, WriteError,
    event,
};

/// An answer may come this much after the deadline: until then the device may not have had the time to tell.
pub(super) const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Device {
    /// What rules want.
    pub(super) urgent: VecDeque<(PointKey, Cause)>,
    pub(super) waiting: VecDeque<Open>,
    pub(super) running: Option<Running>,
    /// It listens only until [`Device::awake_until`].
    pub(super) sleeps: bool,
    pub(super) awake_until: Duration,
}

/// An accepted command.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) command: Command,
    pub(super) id: CommandId,
    pub(super) settings: Vec<Setting>,
    /// Not to be begun after this.
    pub(super) deadline: Duration,
    /// What the device has to act, once it began.
    pub(super) timeout: Duration,
    /// The number of its entry, which must be on flash before it goes on; `None`: it has none.
    pub(super) entry: Option<u64>,
    /// After this it does not wait for that any more.
    pub(super) patience: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) ticket: u32,
    pub(super) what: What,
    pub(super) settings: Vec<Setting>,
    pub(super) began: bool,
    /// Until it began, for that; then, for its end.
    pub(super) deadline: Duration,
    pub(super) timeout: Duration,
}

#[derive(Debug)]
pub(super) enum What {
    Command(Box<Open>),
    Rule(PointKey, Cause),
}

impl Dispatcher {
    /// Hands over what can be handed over, and makes safe what is to be.
    pub(super) fn advance(&mut self, now: &Timestamp) {
        self.looked_at = now.uptime;
        for (key, cause) in self.outputs.wants_safe(now.uptime) {
            self.make_safe(key, cause);
        }
        let names: Vec<DeviceName> = self.devices.keys().cloned().collect();
        // One that waits for others of its group has put them to work: a second round is enough for these.
        for name in names.iter().chain(&names) {
            self.advance_device(name, now);
        }
        // Only here, where all that was appended is known to the memory as well.
        self.compact();
    }

    pub(super) fn make_safe(&mut self, key: PointKey, cause: Cause) {
        if self.outputs.is_going(&key) {
            return;
        }
        self.outputs.going(&key);
        self.devices.entry(key.0.clone()).or_default().urgent.push_back((key, cause));
    }

    fn advance_device(&mut self, name: &DeviceName, now: &Timestamp) {
        loop {
            let Some(device) = self.devices.get_mut(name).filter(|device| device.running.is_none()) else { return };
            // Before the end it is tried anyway.
            let asleep = device.sleeps && now.uptime >= device.awake_until && !self.stopping;
            if !asleep && let Some((key, cause)) = device.urgent.pop_front() {
                self.run_rule(key, cause, now);
                continue;
            }
            let Some(head) = device.waiting.front() else { return };
            if now.uptime > head.deadline {
                let why = if asleep { "the device woke up" } else { "its turn came" };
                self.end_head(name, Verdict::Expired, format!("its time was over before {why}"), now);
                continue;
            }
            if head.entry.is_some_and(|entry| entry > self.storage.durable)
                && head.patience.is_none_or(|patience| now.uptime < patience)
            {
                return;
            }
            if asleep {
                return;
            }
            match self.outputs.turn(name, &head.settings, now.uptime) {
                Turn::Now => self.run_head(name, now),
                Turn::At(_) => return,
                Turn::After(keys) => {
                    for (key, cause) in keys {
                        self.make_safe(key, cause);
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
        let (settings, times) = (open.settings.clone(), (open.deadline, open.timeout));
        self.run(name, What::Command(Box::new(open)), cause, settings, times, now);
    }

    fn run_rule(&mut self, key: PointKey, cause: Cause, now: &Timestamp) {
        let Some((value, timeout)) = self.outputs.safe(&key) else { return };
        if !self.outputs.is_failing(&key) {
            tracing::info!(MESSAGE_ID = event::OUTPUT_SAFE, DEVICE = %key.0, POINT = %key.1, "{}/{}: to its safe value {value}: {cause}", key.0, key.1);
        }
        let settings = vec![Setting { point: key.1.clone(), value, lease: None }];
        let name = key.0.clone();
        self.run(&name, What::Rule(key, cause.clone()), cause, settings, (now.uptime + timeout, timeout), now);
    }

    fn run(
        &mut self,
        name: &DeviceName,
        what: What,
        cause: Cause,
        settings: Vec<Setting>,
        (deadline, timeout): (Duration, Duration),
        now: &Timestamp,
    ) {
        let ticket = self.next_ticket;
        self.next_ticket = self.next_ticket.wrapping_add(1);
        self.outputs.sent(name, &settings, now.uptime);
        let values = settings.iter().map(|setting| (setting.point.clone(), setting.value.clone())).collect();
        self.effects.push_back(Effect::Write(name.clone(), Write { ticket, cause, values, deadline, timeout }));
        if let Some(device) = self.devices.get_mut(name) {
            device.running = Some(Running { ticket, what, settings, began: false, deadline, timeout });
        }
    }

    fn end_head(&mut self, name: &DeviceName, verdict: Verdict, text: String, now: &Timestamp) {
        let Some(open) = self.devices.get_mut(name).and_then(|device| device.waiting.pop_front()) else { return };
        self.outputs.coming(name, &open.settings, false);
        self.conclude(open, verdict, Some(text), Vec::new(), now);
    }

    /// The device did not take the write.
    pub(in crate::command) fn not_taken(&mut self, ticket: u32, now: &Timestamp) {
        let error = WriteError::Failed("the device takes no commands now".to_owned());
        self.answer(Answer::Ended { ticket, result: Err(error) }, now);
    }

    pub(super) fn running(&mut self, ticket: u32) -> Option<&mut Running> {
        self.devices.values_mut().filter_map(|device| device.running.as_mut()).find(|running| running.ticket == ticket)
    }

    pub(super) fn device_of(&self, ticket: u32) -> Option<DeviceName> {
        let has = |device: &Device| device.running.as_ref().is_some_and(|running| running.ticket == ticket);
        self.devices.iter().find(|(_, device)| has(device)).map(|(name, _)| name.clone())
    }

    pub(super) fn end_running(
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
                if self.outputs.gone(&key, end == End::Done, now.uptime) {
                    let text = text.unwrap_or_default();
                    tracing::error!(MESSAGE_ID = event::OUTPUT_UNSAFE, DEVICE = %key.0, POINT = %key.1, "{}/{}: not at its safe value ({cause}): {text}", key.0, key.1);
                }
            }
        }
    }

    /// Ends the writes whose device said nothing in time.
    pub(super) fn overdue(&mut self, now: &Timestamp) {
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
}

impl Device {
    pub(super) fn commands(&self) -> usize {
        let running = matches!(self.running, Some(Running { what: What::Command(_), .. }));
        self.waiting.len() + usize::from(running)
    }
}
