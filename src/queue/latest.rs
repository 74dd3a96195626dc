//! Points of which only the newest value counts: one each, in RAM, without a number.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::model::{PointKey, Reading};

#[derive(Debug, Default)]
pub(super) struct Latest {
    values: BTreeMap<PointKey, Newest>,
    /// Values that a newer one replaced before they went out.
    pub(super) replaced: u64,
    /// The point that had the last turn.
    turn: Option<PointKey>,
}

#[derive(Debug)]
struct Newest {
    reading: Reading,
    handed: bool,
    /// An older value is under way: this one waits for its acknowledgement, so that a point which changes faster than
    /// the broker acknowledges takes one place of the window and no more.
    waits: bool,
}

impl Latest {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn push(&mut self, reading: Reading) {
        let key = reading.key();
        let before = self.values.get(&key);
        let (replaced, waits) = before.map_or((false, false), |old| (!old.handed, old.handed || old.waits));
        self.replaced += u64::from(replaced);
        self.values.insert(key, Newest { reading, handed: false, waits });
    }

    /// A new connection: all go out again.
    pub(super) fn begin(&mut self) {
        for newest in self.values.values_mut() {
            (newest.handed, newest.waits) = (false, false);
        }
    }

    /// In turns, from the one behind the last: none keeps the others waiting.
    pub(super) fn next(&mut self) -> Option<Reading> {
        let ready = |(_, newest): &(&PointKey, &Newest)| !newest.handed && !newest.waits;
        let behind = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut points = self.values.range((behind, Bound::Unbounded)).chain(&self.values);
        let key = points.find(ready).map(|(key, _)| key.clone())?;
        let newest = self.values.get_mut(&key)?;
        newest.handed = true;
        self.turn = Some(key);
        Some(newest.reading.clone())
    }

    pub(super) fn acked(&mut self, reading: &Reading) {
        let key = reading.key();
        if let Some(newest) = self.values.get_mut(&key) {
            newest.waits = false;
            if newest.reading == *reading {
                self.values.remove(&key);
            }
        }
    }

    pub(super) fn again(&mut self, reading: &Reading) {
        if let Some(newest) = self.values.get_mut(&reading.key()) {
            (newest.handed, newest.waits) = (false, false);
        }
    }
}
