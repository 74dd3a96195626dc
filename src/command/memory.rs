//! The ids of commands that were accepted, so that none acts twice.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::model::{CommandId, Outcome};

/// Ids that are remembered at most: a command every eleven seconds for a day.
const MAX_IDS: usize = 8192;

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
    ids: HashMap<CommandId, Option<Outcome>>,
    order: VecDeque<(Duration, CommandId)>,
}

impl Memory {
    pub(super) fn new(remember: Duration) -> Self {
        Memory { remember, ids: HashMap::new(), order: VecDeque::new() }
    }

    pub(super) fn seen(&mut self, id: &CommandId, now: Duration) -> Seen {
        self.forget(now);
        match self.ids.get(id) {
            None => Seen::Never,
            Some(None) => Seen::UnderWay,
            Some(Some(outcome)) => Seen::Ended(Box::new(outcome.clone())),
        }
    }

    pub(super) fn has_room(&mut self, now: Duration) -> bool {
        self.forget(now);
        self.ids.len() < MAX_IDS
    }

    pub(super) fn accepted(&mut self, id: CommandId, now: Duration) {
        self.order.push_back((now, id.clone()));
        self.ids.insert(id, None);
    }

    pub(super) fn ended(&mut self, outcome: &Outcome) {
        if let Some(known) = self.ids.get_mut(&outcome.id) {
            *known = Some(outcome.clone());
        }
    }

    fn forget(&mut self, now: Duration) {
        while let Some((accepted, id)) = self.order.front() {
            if now.saturating_sub(*accepted) < self.remember {
                return;
            }
            self.ids.remove(id);
            self.order.pop_front();
        }
    }
}
