//! The ids of commands that were accepted, so that none acts twice; and all that the journal has to keep of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::journal::Entry;
use crate::model::{Body, CommandId, Outcome, Timestamp};

/// Ids that are remembered at most: a command each twenty seconds for a day.
const MAX_IDS: usize = 4096;

/// What they and their outcomes may take in RAM, and about as much on flash.
const MAX_BYTES: usize = 1 << 20;

/// What an id takes beside the bytes of its outcome, about.
const ID_BYTES: usize = 200;

/// An id whose command is still under way is remembered so much longer.
const FORGET_AGAIN: Duration = Duration::from_secs(60);

/// What is known of an id.
#[derive(Debug)]
pub(super) enum Seen {
    Never,
    UnderWay,
    Ended(Box<Outcome>),
}

/// Ids, their outcomes, and when each was accepted.
#[derive(Debug)]
pub(super) struct Memory {
    remember: Duration,
    ids: HashMap<CommandId, Known>,
    /// When each is forgotten, by `CLOCK_BOOTTIME`.
    order: BTreeSet<(Duration, CommandId)>,
    bytes: usize,
}

/// What is known of one.
#[derive(Debug)]
struct Known {
    at: Timestamp,
    forget: Duration,
    named: bool,
    /// The journal may have it. One that it has not is told of at once, and so must not be found there without its end.
    kept: bool,
    /// The outcome, or while there is none, what is told if there never is one.
    outcome: Outcome,
    ended: bool,
    /// The queue has the outcome.
    told: bool,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(remember: Duration) -> Self {
        Memory { remember, ids: HashMap::new(), order: BTreeSet::new(), bytes: 0 }
    }

    /// From now on ids are remembered for so long; those that are there stay as long as they were to.
    pub(super) fn set_remember(&mut self, remember: Duration) {
        self.remember = remember;
    }

    pub(super) fn seen(&mut self, id: &CommandId, now: Duration) -> Seen {
        self.forget(now);
        match self.ids.get(id) {
            None => Seen::Never,
            Some(Known { ended: false, .. }) => Seen::UnderWay,
            Some(Known { outcome, .. }) => Seen::Ended(Box::new(outcome.clone())),
        }
    }

    pub(super) fn has_room(&mut self, now: Duration) -> bool {
        self.forget(now);
        self.ids.len() < MAX_IDS && self.bytes < MAX_BYTES
    }

    /// A command is accepted, or was by an earlier run; `kept`: and the journal has it. `unknown` is what is told if
    /// nothing more is heard.
    pub(super) fn accepted(&mut self, at: Timestamp, named: bool, kept: bool, unknown: Outcome, now: &Timestamp) {
        // Of a time before a power cut only the clock can tell how long ago it was; else it counts from now.
        let age = at.age(now).unwrap_or_default();
        let forget = (now.uptime + self.remember).saturating_sub(age);
        let id = unknown.id.clone();
        let bytes = size(&unknown);
        self.bytes += bytes;
        if named {
            self.order.insert((forget, id.clone()));
        }
        let known = Known { at, forget, named, kept, outcome: unknown, ended: false, told: false, bytes };
        if let Some(before) = self.ids.insert(id, known) {
            self.bytes -= before.bytes;
        }
    }

    pub(super) fn ended(&mut self, outcome: &Outcome) {
        if let Some(known) = self.ids.get_mut(&outcome.id) {
            self.bytes -= known.bytes;
            *known = Known { outcome: outcome.clone(), ended: true, bytes: size(outcome), ..*known };
            self.bytes += known.bytes;
        }
    }

    /// A command that was accepted is refused after all: as if it had never come.
    pub(super) fn revoked(&mut self, id: &CommandId) {
        if let Some(known) = self.ids.remove(id) {
            self.bytes -= known.bytes;
            self.order.remove(&(known.forget, id.clone()));
        }
    }

    /// The queue keeps the outcome. An id that nobody can send again is forgotten with it.
    pub(super) fn told(&mut self, id: &CommandId) {
        let Some(known) = self.ids.get_mut(id) else { return };
        known.told = true;
        if !known.named
            && let Some(known) = self.ids.remove(id)
        {
            self.bytes -= known.bytes;
        }
    }

    /// Those that were accepted and have no outcome.
    pub(super) fn under_way(&self) -> Vec<Outcome> {
        self.ids.values().filter(|known| !known.ended).map(|known| known.outcome.clone()).collect()
    }

    /// Outcomes that the queue may not have.
    pub(super) fn untold(&self) -> Vec<Outcome> {
        let mut untold: Vec<&Known> = self.ids.values().filter(|known| known.ended && !known.told).collect();
        untold.sort_by_key(|known| known.at.uptime);
        untold.into_iter().map(|known| known.outcome.clone()).collect()
    }

    /// All of it, in frames of the journal.
    pub(super) fn frames(&self, out: &mut Vec<u8>) {
        for known in self.ids.values().filter(|known| known.kept || known.ended) {
            let unknown = known.outcome.clone();
            Entry::Accepted { at: known.at, named: known.named, unknown }.frame(out);
            if known.ended {
                Entry::Ended(known.outcome.clone()).frame(out);
            }
            if known.told {
                Entry::Told(known.outcome.id.clone()).frame(out);
            }
        }
    }

    /// About what it takes on flash.
    pub(super) fn bytes(&self) -> usize {
        self.bytes * 2
    }

    fn forget(&mut self, now: Duration) {
        while self.order.first().is_some_and(|(forget, _)| now >= *forget)
            && let Some((forget, id)) = self.order.pop_first()
        {
            match self.ids.get_mut(&id) {
                // It could act once more.
                Some(known) if !known.ended => {
                    known.forget = forget + FORGET_AGAIN;
                    self.order.insert((known.forget, id));
                }
                _ => {
                    if let Some(known) = self.ids.remove(&id) {
                        self.bytes -= known.bytes;
                    }
                }
            }
        }
    }
}

fn size(outcome: &Outcome) -> usize {
    let mut bytes = Vec::new();
    Body::Outcome(outcome.clone()).encode(&mut bytes);
    bytes.len() + ID_BYTES
}
