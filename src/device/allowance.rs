//! How many readings a device may send.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::point::Cooked;
use crate::model::{Bucket, PointName, Rate, Timestamp};

/// The device's `max_rate`: a second's readings at once. What does not fit waits, one value for each point.
#[derive(Debug)]
pub(super) struct Allowance {
    rate: Rate,
    bucket: Bucket,
    waiting: BTreeMap<PointName, (Cooked, Timestamp)>,
}

impl Allowance {
    pub(super) fn new(rate: Rate) -> Self {
        Allowance { rate, bucket: Bucket::new(rate, Duration::from_secs(1)), waiting: BTreeMap::new() }
    }

    /// As at the start, but for what waits.
    pub(super) fn refill(&mut self) {
        self.bucket = Bucket::new(self.rate, Duration::from_secs(1));
    }

    /// What to send now, and whether an older value was replaced for it.
    pub(super) fn offer(&mut self, point: &PointName, cooked: Cooked, at: Timestamp) -> (Option<Cooked>, bool) {
        if self.bucket.take(at.uptime) {
            let before = self.waiting.remove(point);
            let passed = cooked.passed.or(before.as_ref().and_then(|(before, _)| before.passed));
            return (Some(Cooked { passed, ..cooked }), before.is_some());
        }
        let waits = self.waiting.entry(point.clone());
        let replaces = matches!(waits, Entry::Occupied(_));
        let (waiting, since) = waits.or_insert((cooked.clone(), at));
        // That a limit was passed is told with the value which stands for those that passed it.
        let passed = cooked.passed.or(waiting.passed);
        (*waiting, *since) = (Cooked { passed, ..cooked }, at);
        (None, replaces)
    }

    pub(super) fn next_due(&self, now: Duration) -> Option<Duration> {
        (!self.waiting.is_empty()).then(|| self.bucket.next(now))
    }

    pub(super) fn pop(&mut self, now: Duration) -> Option<(PointName, Cooked, Timestamp)> {
        if self.waiting.is_empty() || !self.bucket.take(now) {
            return None;
        }
        self.waiting.pop_first().map(|(point, (cooked, at))| (point, cooked, at))
    }

    /// What waits, whatever the rate.
    pub(super) fn take_waiting(&mut self) -> Option<(PointName, Cooked, Timestamp)> {
        self.waiting.pop_first().map(|(point, (cooked, at))| (point, cooked, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Limit, Quality, Value, time};

    #[test]
    fn what_comes_too_fast_waits_and_the_newest_stays() {
        let per = Duration::from_secs(1);
        let mut allowance = Allowance::new(Rate::Limit { count: 1, per });
        let point = PointName::new("x").unwrap();
        let cooked = |n| Cooked { value: Some(Value::Int(n)), quality: Quality::Good, passed: None };
        let start = time::uptime();
        let at = |after: u64| {
            let uptime = start + Duration::from_millis(after);
            Timestamp { uptime, wall: Duration::ZERO, synced: false, boot: crate::model::BootId::UNKNOWN }
        };
        assert_eq!(allowance.offer(&point, cooked(1), at(0)), (Some(cooked(1)), false));
        let passed = Some(Limit::High);
        assert_eq!(allowance.offer(&point, Cooked { passed, ..cooked(2) }, at(1)), (None, false));
        assert_eq!(allowance.offer(&point, cooked(3), at(2)), (None, true));
        assert_eq!(allowance.pop(at(500).uptime), None);
        assert_eq!(allowance.pop(at(1100).uptime).map(|(_, cooked, _)| cooked), Some(Cooked { passed, ..cooked(3) }));
        assert_eq!(allowance.next_due(at(1100).uptime), None);
        // Nor is it forgotten where a place is free before the one that waits was taken.
        assert_eq!(allowance.offer(&point, Cooked { passed, ..cooked(4) }, at(1200)), (None, false));
        assert_eq!(allowance.offer(&point, cooked(5), at(2300)), (Some(Cooked { passed, ..cooked(5) }), true));
    }
}
