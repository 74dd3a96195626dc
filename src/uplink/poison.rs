//! Finding the one record that makes a broker close the connection.
//!
//! A broker that closes while records are under way may have met one that it can't take, and would close again and
//! again. Only a close by the broker counts, never a time-out. A record that was under way at three closes in a row, and
//! never acknowledged, is a candidate, however many others came through meanwhile: new readings go before the backlog, so
//! there is progress on every connection. Then records go one at a time; the one that was alone under way at a close is
//! the suspect. It is passed over, and tried again once another record was acknowledged meanwhile: if the broker then
//! closes again, it is refused for good.

use crate::model::{Lane, Number};

/// A record's place in the queue.
pub(super) type Place = (Lane, Number);

/// A single close is a broker that restarts; three with the same record under way are a pattern.
const PATTERN: u32 = 3;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Poison {
    /// Nothing is wrong, or not often enough.
    #[default]
    Calm,
    /// The broker closed, and again.
    Closed {
        /// So many times in a row,
        closes: u32,
        /// with each of these under way.
        candidates: Vec<Place>,
    },
    /// This one was alone under way at a close, and is passed over.
    Suspect {
        place: Place,
        /// Another one was acknowledged meanwhile, so it is the record and not the broker.
        cleared: bool,
    },
}

impl Poison {
    /// Whether records go one at a time.
    pub(super) fn is_narrow(&self) -> bool {
        match self {
            Poison::Calm => false,
            Poison::Closed { closes, .. } => *closes >= PATTERN,
            Poison::Suspect { .. } => true,
        }
    }

    /// Whether this record is to be passed over for now.
    pub(super) fn passes_over(&self, place: Place) -> bool {
        matches!(self, Poison::Suspect { place: suspect, cleared: false } if *suspect == place)
    }

    /// The suspect, once it is time to try it again.
    pub(super) fn to_retry(&self) -> Option<Place> {
        match self {
            Poison::Suspect { place, cleared: true } => Some(*place),
            _ => None,
        }
    }

    /// A record was acknowledged.
    pub(super) fn acked(&mut self, place: Place) {
        *self = match std::mem::take(self) {
            Poison::Suspect { place: suspect, .. } if suspect != place => {
                Poison::Suspect { place: suspect, cleared: true }
            }
            Poison::Closed { closes, mut candidates } => {
                candidates.retain(|candidate| *candidate != place);
                if candidates.is_empty() { Poison::Calm } else { Poison::Closed { closes, candidates } }
            }
            _ => Poison::Calm,
        };
    }

    /// The broker closed the connection while these records were under way. The result is to be refused for good.
    pub(super) fn closed(&mut self, under_way: &[Place]) -> Option<Place> {
        let &first = under_way.first()?;
        let alone = (under_way.len() == 1).then_some(first);
        let (next, refused) = match (std::mem::take(self), alone) {
            (Poison::Suspect { place, cleared: true }, Some(alone)) if place == alone => (Poison::Calm, Some(place)),
            (_, Some(place)) => (Poison::Suspect { place, cleared: false }, None),
            (Poison::Calm, None) => (Poison::Closed { closes: 1, candidates: under_way.to_vec() }, None),
            (Poison::Closed { closes, mut candidates }, None) => {
                candidates.retain(|candidate| under_way.contains(candidate));
                let again = !candidates.is_empty();
                let closes = if again { closes.saturating_add(1) } else { 1 };
                let candidates = if again { candidates } else { under_way.to_vec() };
                (Poison::Closed { closes, candidates }, None)
            }
            (suspect @ Poison::Suspect { .. }, None) => (suspect, None),
        };
        *self = next;
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(seq: u64) -> Place {
        (Lane::Telemetry, Number { epoch: 1, seq })
    }

    #[test]
    fn a_poisonous_record_is_found_and_refused_and_no_other_one() {
        let mut poison = Poison::default();
        let window = [place(1), place(2), place(3)];
        for _ in 0..3 {
            assert!(!poison.is_narrow());
            assert_eq!(poison.closed(&window), None);
        }
        assert!(poison.is_narrow(), "one at a time now");
        assert_eq!(poison.closed(&[place(1)]), None);
        assert!(poison.passes_over(place(1)) && !poison.passes_over(place(2)));
        assert_eq!(poison.to_retry(), None);
        poison.acked(place(2));
        assert_eq!(poison.to_retry(), Some(place(1)));
        assert_eq!(poison.closed(&[place(1)]), Some(place(1)));
        assert_eq!(poison, Poison::Calm);
    }

    #[test]
    fn a_broker_that_restarts_makes_no_suspect_of_a_whole_window() {
        let mut poison = Poison::default();
        assert_eq!(poison.closed(&[place(1), place(2)]), None);
        assert_eq!(poison.closed(&[]), None, "nothing was under way");
        poison.acked(place(1));
        poison.acked(place(2));
        assert_eq!(poison, Poison::Calm);
        for seq in 0..10 {
            poison.closed(&[place(seq * 2), place(seq * 2 + 1)]);
            assert!(!poison.is_narrow(), "other records each time");
        }
    }

    #[test]
    fn new_readings_that_come_through_do_not_hide_it() {
        let mut poison = Poison::default();
        for connection in 1..=3 {
            poison.acked(place(100 + connection));
            poison.closed(&[place(1), place(200 + connection)]);
        }
        assert!(poison.is_narrow());
    }

    #[test]
    fn a_suspect_that_is_taken_after_all_is_none() {
        let mut poison = Poison::default();
        poison.closed(&[place(1)]);
        poison.acked(place(2));
        poison.acked(place(1));
        assert_eq!(poison, Poison::Calm);
    }
}
