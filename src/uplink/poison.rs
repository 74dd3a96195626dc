//! Finding the one record that makes a broker close the connection.
//!
//! A broker that closes while records are under way may have met one that it can't take, and would close again and
//! again. Only a close by the broker counts, never a time-out. A record that was under way at three closes in a row is
//! a candidate: those go first and one at a time then, with nothing else under way. What others are acknowledged in
//! between says nothing about it: fresh readings go out before the backlog in which it may stand.
//!
//! A candidate that was alone under way at a close is a suspect. It is passed over, and tried again once another record
//! was acknowledged meanwhile: if the broker then closes again, it is refused for good. There may be several.

use std::collections::BTreeSet;

use crate::model::{Lane, Number};

/// A record's place in the queue.
pub(super) type Place = (Lane, Number);

/// A close or two is a broker that restarts; three with the same record under way are a pattern.
const PATTERN: u32 = 3;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Poison {
    /// Nothing is wrong.
    #[default]
    Calm,
    /// The broker closed.
    Closed {
        /// So many times in a row.
        times: u32,
        /// What was under way at each of them, and has not come through since.
        candidates: BTreeSet<Place>,
    },
    /// Each of these was alone under way at a close, and is passed over.
    Suspects {
        places: BTreeSet<Place>,
        /// Another one was acknowledged meanwhile, so it is the record and not the broker.
        cleared: bool,
    },
}

impl Poison {
    /// Whether records go one at a time.
    pub(super) fn is_narrow(&self) -> bool {
        match self {
            Poison::Calm => false,
            Poison::Closed { times, .. } => *times >= PATTERN,
            Poison::Suspects { .. } => true,
        }
    }

    /// Whether this record is to be passed over for now.
    pub(super) fn passes_over(&self, place: Place) -> bool {
        matches!(self, Poison::Suspects { places, .. } if places.contains(&place))
    }

    /// The record to try next, where one is to be tried.
    pub(super) fn to_try(&self) -> Option<Place> {
        match self {
            Poison::Closed { times, candidates } if *times >= PATTERN => candidates.first().copied(),
            Poison::Suspects { places, cleared: true } => places.first().copied(),
            _ => None,
        }
    }

    /// A record was acknowledged.
    pub(super) fn acked(&mut self, place: Place) {
        match self {
            Poison::Suspects { places, cleared } if !places.contains(&place) => *cleared = true,
            _ => self.gone(place),
        }
    }

    /// A record is in the queue no longer.
    pub(super) fn gone(&mut self, place: Place) {
        let over = match self {
            Poison::Calm => true,
            Poison::Closed { candidates: places, .. } | Poison::Suspects { places, .. } => {
                places.remove(&place);
                places.is_empty()
            }
        };
        if over {
            *self = Poison::Calm;
        }
    }

    /// The broker closed the connection while these records were under way, and nothing else if they were `alone`.
    /// The result is to be refused for good.
    pub(super) fn closed(&mut self, under_way: &BTreeSet<Place>, alone: bool) -> Option<Place> {
        let &first = under_way.first()?;
        let single = (alone && under_way.len() == 1).then_some(first);
        match self {
            Poison::Suspects { places, cleared } => {
                let single = single?;
                if *cleared && places.remove(&single) {
                    *cleared = false;
                    if places.is_empty() {
                        *self = Poison::Calm;
                    }
                    return Some(single);
                }
                places.insert(single);
            }
            Poison::Closed { times, candidates } if !candidates.is_disjoint(under_way) => {
                match single.filter(|_| *times >= PATTERN) {
                    Some(single) => *self = Poison::Suspects { places: BTreeSet::from([single]), cleared: false },
                    None => {
                        *times = times.saturating_add(1);
                        candidates.retain(|candidate| under_way.contains(candidate));
                    }
                }
            }
            Poison::Calm | Poison::Closed { .. } => {
                *self = Poison::Closed { times: 1, candidates: under_way.clone() };
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(seq: u64) -> Place {
        (Lane::Telemetry, Number { epoch: 1, seq })
    }

    fn places(seqs: impl IntoIterator<Item = u64>) -> BTreeSet<Place> {
        seqs.into_iter().map(place).collect()
    }

    #[test]
    fn a_poisonous_record_is_found_and_refused_and_no_other_one() {
        let mut poison = Poison::default();
        for _ in 0..3 {
            assert!(!poison.is_narrow());
            assert_eq!(poison.closed(&places(1..=3), true), None);
            poison.acked(place(9));
        }
        assert!(poison.is_narrow(), "one at a time now, although others came through");
        assert_eq!(poison.to_try(), Some(place(1)));
        poison.acked(place(1));
        assert_eq!(poison.to_try(), Some(place(2)));
        assert_eq!(poison.closed(&places([2]), true), None);
        assert!(poison.passes_over(place(2)) && !poison.passes_over(place(3)));
        assert_eq!(poison.to_try(), None);
        poison.acked(place(3));
        assert_eq!(poison.to_try(), Some(place(2)));
        assert_eq!(poison.closed(&places([2]), true), Some(place(2)));
        assert_eq!(poison, Poison::Calm);
    }

    #[test]
    fn a_broker_that_restarts_makes_no_suspect() {
        let mut poison = Poison::default();
        for seq in 1..10 {
            assert_eq!(poison.closed(&places([seq]), true), None);
            assert!(!poison.is_narrow() && !poison.passes_over(place(seq)));
            assert_eq!(poison.closed(&BTreeSet::new(), true), None, "nothing was under way");
            assert_eq!(poison.closed(&places([seq, seq + 1]), true), None);
            poison.acked(place(seq));
        }
    }

    #[test]
    fn what_was_not_alone_is_no_suspect() {
        let mut poison = Poison::default();
        for _ in 0..9 {
            assert_eq!(poison.closed(&places([1]), false), None);
            assert!(!poison.passes_over(place(1)));
        }
        assert!(poison.is_narrow());
    }

    #[test]
    fn a_suspect_that_is_taken_after_all_is_none() {
        let mut poison = Poison::default();
        for _ in 0..4 {
            poison.closed(&places([1]), true);
        }
        assert!(poison.passes_over(place(1)));
        poison.acked(place(2));
        poison.acked(place(1));
        assert_eq!(poison, Poison::Calm);
    }

    #[test]
    fn two_poisonous_records_in_a_row_are_found() {
        let mut poison = Poison::default();
        let mut refused = Vec::new();
        // As the uplink goes about it: records 2 and 3 are the poisonous ones.
        let mut queue = places(1..=5);
        for _ in 0..20 {
            let next = poison.to_try().or_else(|| queue.iter().copied().find(|place| !poison.passes_over(*place)));
            let under_way = if poison.is_narrow() { next.into_iter().collect() } else { queue.clone() };
            let taken = under_way.iter().take_while(|place| !places(2..=3).contains(*place)).copied();
            for place in taken.collect::<Vec<_>>() {
                poison.acked(place);
                queue.remove(&place);
            }
            let under_way: BTreeSet<Place> = under_way.intersection(&queue).copied().collect();
            if let Some(place) = poison.closed(&under_way, true) {
                queue.remove(&place);
                refused.push(place);
            }
        }
        assert_eq!((refused, queue), (vec![place(2), place(3)], places([])));
        assert_eq!(poison, Poison::Calm);
    }

    #[test]
    fn candidates_that_are_dropped_end_the_search() {
        let mut poison = Poison::default();
        for _ in 0..3 {
            poison.closed(&places(1..=2), true);
        }
        poison.gone(place(1));
        assert_eq!(poison.to_try(), Some(place(2)));
        poison.gone(place(2));
        assert_eq!(poison, Poison::Calm);
    }
}
