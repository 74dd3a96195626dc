//! What goes to the journal, and what has to wait for it.

use std::time::Duration;

use super::super::Queued;
use super::super::journal::{Bug, Entry, Found, Job, Report, seeded};
use super::turns::Open;
use super::{Dispatcher, Effect};
use crate::model::{Outcome, Reason, Takeover, Timestamp, event};

/// The journal is written anew when it has grown by so much, and by as much as it has to keep.
pub(super) const GROWTH: usize = 64 << 10;

/// The journal is tried again so long after it failed, at first and at most.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The journal, as far as it is known here.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// The number of the last entry.
    pub(super) entries: u64,
    pub(super) durable: u64,
    /// Bytes appended since it was written anew.
    pub(super) grown: usize,
    /// Entries that may wait for the next ones.
    pub(super) lazy: Vec<u8>,
    pub(super) trouble: Option<Trouble>,
    /// It was left by a later version, and stays so.
    pub(super) foreign: bool,
}

#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) why: String,
    /// When it is tried again; `None`: that is under way.
    pub(super) retry: Option<Duration>,
    pub(super) pause: Duration,
}

impl Dispatcher {
    /// Goes on from what the journal says.
    pub(super) fn restore(&mut self, found: Found, takeover: Takeover, now: &Timestamp) {
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
            tracing::error!(MESSAGE_ID = event::COMMANDS_UNSAFE, "the journal of commands can't be written: {why}");
            self.storage.trouble = Some(Trouble { why, retry: Some(now.uptime + RETRY.0), pause: RETRY.0 });
        }
        for outcome in again {
            self.tell(outcome);
        }
        for outcome in under_way {
            self.finish(Outcome { timestamp: *now, ..outcome }, true);
        }
    }

    /// What the queue keeps of the outcomes.
    pub(in crate::command) fn queued(&mut self, queued: Queued) {
        self.queued = queued;
        while self.untold.front().is_some_and(|(number, _)| *number <= queued.durable)
            && let Some((_, id)) = self.untold.pop_front()
        {
            self.memory.told(&id);
            // When it is written anew, this is in it.
            if self.storage.trouble.is_none() {
                Entry::Told(id).frame(&mut self.storage.lazy);
            }
        }
        // They need not be on flash; but they must not wait for ever in RAM either.
        if self.storage.lazy.len() > GROWTH && self.storage.trouble.is_none() {
            self.flush_lazy();
        }
    }

    /// The outcome is fixed here, and told once it is on flash.
    pub(super) fn finish(&mut self, outcome: Outcome, journalled: bool) {
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
    pub(super) fn journal(&mut self, entry: &Entry) -> u64 {
        let mut frames = std::mem::take(&mut self.storage.lazy);
        entry.frame(&mut frames);
        self.append(frames)
    }

    pub(super) fn flush_lazy(&mut self) {
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

    /// Writes the journal anew where it has grown.
    pub(super) fn compact(&mut self) {
        if self.storage.grown > GROWTH.max(self.memory.bytes()) && self.storage.trouble.is_none() {
            self.replace_journal();
        }
    }

    /// Writes the journal anew: what is remembered, what has just ended, and nothing else.
    pub(super) fn replace_journal(&mut self) {
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
    pub(in crate::command) fn journalled(&mut self, report: &Report, now: &Timestamp) {
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
                tracing::info!(MESSAGE_ID = event::COMMANDS_SAFE, "the journal of commands can be written again");
                *trouble = None;
                // What ended while it was being written anew is not in it.
                for (_, outcome) in std::mem::take(&mut self.ending) {
                    let number = self.journal(&Entry::Ended(outcome.clone()));
                    self.ending.push_back((number, outcome));
                }
            }
            (Some(why), None) => {
                tracing::error!(MESSAGE_ID = event::COMMANDS_UNSAFE, "the journal of commands can't be written: {why}");
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
