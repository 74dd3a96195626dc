//! Who is connected, who wants what, what is kept for newcomers, and what was taken.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::mischief::{Mischief, Place, Treatment};
use super::packet::{Connect, Filter, Limits, Publish, Retained, reason};

/// Messages that a client may be behind; who is slower than that is disconnected, as there is no way to tell it what
/// it missed.
const BEHIND: usize = 32 * 1024;

/// Messages that a tap may be behind; then it misses the oldest.
const TAP: usize = 4096;

/// All that the broker knows.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    limits: Limits,
    tap: broadcast::Sender<Publish>,
}

#[derive(Debug)]
struct State {
    /// Counts the connections.
    next: u64,
    members: HashMap<u64, Member>,
    retained: BTreeMap<String, Publish>,
    mischief: Mischief,
    /// What the mischief lets come late, and whether it is due.
    late: Option<(Publish, bool)>,
    journal: Option<Journal>,
}

#[derive(Debug)]
struct Member {
    client_id: String,
    will: Option<Publish>,
    filters: Vec<Filter>,
    out: mpsc::Sender<Publish>,
    kick: CancellationToken,
}

/// A place in the hub, for a connection.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) number: u64,
    pub(super) limits: Limits,
    /// Messages for it.
    pub(super) out: mpsc::Receiver<Publish>,
    /// Another one took its place, or it was too slow.
    pub(super) kick: CancellationToken,
}

/// What is to be done with a publish that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Treated(Treatment),
    Cut(Place),
}

/// What happened, for those who check it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Journal {
    /// Every publish that was taken, in the order in which they came.
    pub(crate) taken: Vec<Taken>,
    /// Publishes that were without acknowledgement at each cut at random.
    pub(crate) cuts: Vec<usize>,
    /// Connections that were closed on a publish which was judged so.
    pub(crate) closes: usize,
    /// Connections that were closed because more was sent than the Receive Maximum allows.
    pub(crate) exceeded: usize,
}

/// A publish that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    /// Who sent it.
    pub(crate) client_id: String,
    /// What it is.
    pub(crate) publish: Publish,
    /// Whether its PUBACK left; a copy may come otherwise.
    pub(crate) acknowledged: bool,
}

impl Hub {
    pub(super) fn new(limits: Limits, journal: bool) -> Self {
        let state = State {
            next: 0,
            members: HashMap::new(),
            retained: BTreeMap::new(),
            mischief: Mischief::default(),
            late: None,
            journal: journal.then(Journal::default),
        };
        Hub { state: Mutex::new(state), limits, tap: broadcast::channel(TAP).0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tap(&self) -> broadcast::Receiver<Publish> {
        self.tap.subscribe()
    }

    pub(super) fn misbehave(&self, mischief: Mischief) {
        self.state().mischief = mischief;
    }

    pub(super) fn journal(&self) -> Journal {
        self.state().journal.clone().unwrap_or_default()
    }

    /// Lets a client in. One that is there under the same name has to go, and its will is told.
    pub(super) fn join(&self, connect: Connect) -> Membership {
        let (out, messages) = mpsc::channel(BEHIND);
        let kick = CancellationToken::new();
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        let same = |member: &Member| !connect.client_id.is_empty() && member.client_id == connect.client_id;
        let before: Vec<u64> =
            state.members.iter().filter(|(_, member)| same(member)).map(|(number, _)| *number).collect();
        for number in before {
            self.remove(&mut state, number, true);
        }
        let Connect { client_id, will, .. } = connect;
        let member = Member { client_id, will, filters: Vec::new(), out, kick: kick.clone() };
        state.members.insert(number, member);
        Membership { number, limits: self.limits, out: messages, kick }
    }

    /// A connection ended; without a farewell its will is told.
    pub(super) fn leave(&self, number: u64, with_will: bool) {
        self.remove(&mut self.state(), number, with_will);
    }

    fn remove(&self, state: &mut State, number: u64, with_will: bool) {
        let Some(member) = state.members.remove(&number) else { return };
        member.kick.cancel();
        if let Some(will) = member.will.filter(|_| with_will) {
            self.route(state, &will, None);
        }
    }

    /// Adds subscriptions, and sends what was kept for them. The result is the code of each for the SUBACK.
    pub(super) fn subscribe(&self, number: u64, filters: Vec<Filter>) -> Vec<u8> {
        let state = &mut *self.state();
        let mut codes = Vec::with_capacity(filters.len());
        let Some(member) = state.members.get_mut(&number) else { return codes };
        for filter in filters {
            let refused = state.mischief.refused_filter.as_ref().is_some_and(|refused| *refused == filter.path);
            if refused && member.client_id == state.mischief.victim {
                codes.push(reason::SUBSCRIPTION_FAILED);
                continue;
            }
            codes.push(filter.qos);
            let known = member.filters.iter().position(|other| other.path == filter.path);
            let wanted = match filter.retained {
                Retained::Always => true,
                Retained::IfNew => known.is_none(),
                Retained::Never => false,
            };
            for kept in state.retained.values().filter(|kept| wanted && filter.matches(&kept.topic)) {
                let kept = Publish { qos: kept.qos.min(filter.qos), ..kept.clone() };
                if member.client_id == state.mischief.victim && state.mischief.late.as_ref() == Some(&kept.topic) {
                    state.late = Some((kept, false));
                } else {
                    member.send(kept);
                }
            }
            match known.and_then(|place| member.filters.get_mut(place)) {
                Some(place) => *place = filter,
                None => member.filters.push(filter),
            }
        }
        codes
    }

    pub(super) fn unsubscribe(&self, number: u64, filters: &[String]) {
        if let Some(member) = self.state().members.get_mut(&number) {
            member.filters.retain(|filter| !filters.contains(&filter.path));
        }
    }

    /// Takes a publish, of a client or of the broker's owner. The result is its place in the journal.
    pub(super) fn take(&self, publish: &Publish, from: Option<u64>) -> Option<usize> {
        let state = &mut *self.state();
        self.route(state, publish, from);
        let member = state.members.get(&from?)?;
        if member.client_id == state.mischief.victim {
            // The PUBACK of the publish before has left.
            match state.late.take() {
                Some((kept, true)) => member.send(kept),
                Some((kept, false)) => {
                    let due = kept.topic == publish.topic;
                    state.late = Some((kept, due));
                }
                None => {}
            }
        }
        let journal = state.journal.as_mut()?;
        let client_id = member.client_id.clone();
        journal.taken.push(Taken { client_id, publish: publish.clone(), acknowledged: false });
        Some(journal.taken.len() - 1)
    }

    fn route(&self, state: &mut State, publish: &Publish, from: Option<u64>) {
        let mut message = Publish { dup: false, packet_id: 0, ..publish.clone() };
        for (number, member) in &state.members {
            let matching =
                |filter: &&Filter| filter.matches(&message.topic) && !(filter.no_local && from == Some(*number));
            let Some(qos) = member.filters.iter().filter(matching).map(|filter| filter.qos).max() else { continue };
            let keeps_flag = member.filters.iter().filter(matching).any(|filter| filter.retain_as_published);
            let (qos, retain) = (qos.min(message.qos), message.retain && keeps_flag);
            member.send(Publish { qos, retain, ..message.clone() });
        }
        // Nobody may listen.
        drop(self.tap.send(message.clone()));
        if publish.retain {
            message.retain = true;
            match message.payload.is_empty() {
                true => drop(state.retained.remove(&publish.topic)),
                false => drop(state.retained.insert(publish.topic.clone(), message)),
            }
        }
    }

    /// What is to be done with a publish, of which `under_way` more wait for their acknowledgement.
    pub(super) fn fate(&self, number: u64, publish: &Publish, under_way: usize) -> Fate {
        let state = &mut *self.state();
        let mischief = &mut state.mischief;
        let is_victim = state.members.get(&number).is_some_and(|member| member.client_id == mischief.victim);
        if !is_victim {
            return Fate::Treated(Treatment::Take);
        }
        let mut journal = state.journal.as_mut();
        if let Some(place) = mischief.cut() {
            if let Some(journal) = &mut journal {
                journal.cuts.push(under_way + usize::from(place != Place::AfterItsAck));
            }
            return Fate::Cut(place);
        }
        let treatment = mischief.treatment(publish);
        if let (Treatment::Close(_), Some(journal)) = (treatment, journal) {
            journal.closes += 1;
        }
        Fate::Treated(treatment)
    }

    /// Whether so many publishes without acknowledgement are more than the client was told to send.
    pub(super) fn exceeds(&self, under_way: usize) -> bool {
        let exceeds = self.limits.receive_maximum.is_some_and(|maximum| under_way > usize::from(maximum));
        if let (true, Some(journal)) = (exceeds, self.state().journal.as_mut()) {
            journal.exceeded += 1;
        }
        exceeds
    }

    /// Which of the PUBACKs that are held back leaves now.
    pub(super) fn release(&self, number: u64, held: usize) -> Option<usize> {
        let state = &mut *self.state();
        let is_victim = state.members.get(&number).is_some_and(|member| member.client_id == state.mischief.victim);
        if is_victim { state.mischief.release(held) } else { held.checked_sub(1) }
    }

    /// Whether nobody is to be answered.
    pub(super) fn is_silent(&self, client_id: &str) -> bool {
        let state = self.state();
        state.mischief.silent && state.mischief.victim == client_id
    }

    /// A PUBACK leaves.
    pub(super) fn acknowledged(&self, place: Option<usize>) {
        if let (Some(place), Some(journal)) = (place, self.state().journal.as_mut())
            && let Some(taken) = journal.taken.get_mut(place)
        {
            taken.acknowledged = true;
        }
    }
}

impl Member {
    fn send(&self, publish: Publish) {
        if self.out.try_send(publish).is_err() {
            self.kick.cancel();
        }
    }
}
