//! Which numbers of a segment have come to their end.

use std::collections::BTreeMap;

use crate::model::Number;

/// Numbers of one segment, as ranges within an epoch. Each range knows how many records of the segment it stands for:
/// there may be numbers in it that never came to the flash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    /// By their first number: last seq, records.
    ranges: BTreeMap<Number, (u64, u32)>,
    records: u32,
}

/// One range, as it is kept on flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: Number,
    pub(super) last: u64,
    pub(super) records: u32,
}

impl Ranges {
    /// Records that have come to their end.
    pub(super) fn records(&self) -> u32 {
        self.records
    }

    pub(super) fn contains(&self, number: Number) -> bool {
        self.covering(number).is_some()
    }

    /// One record more. False: it was in.
    pub(super) fn insert(&mut self, number: Number) -> bool {
        if self.contains(number) {
            return false;
        }
        self.add(Range { first: number, last: number.seq, records: 1 });
        true
    }

    /// A range more, of which nothing is in yet.
    pub(super) fn add(&mut self, range: Range) {
        let Range { mut first, mut last, mut records } = range;
        self.records += records;
        if let Some((&before, &(end, count))) = self.ranges.range(..first).next_back()
            && before.epoch == first.epoch
            && end.checked_add(1) == Some(first.seq)
        {
            (first, records) = (before, records + count);
        }
        if let Some(next) = last.checked_add(1).map(|seq| Number { epoch: first.epoch, seq })
            && let Some((end, count)) = self.ranges.remove(&next)
        {
            (last, records) = (end, records + count);
        }
        self.ranges.insert(first, (last, records));
    }

    /// How many records between these two, which are not meant themselves, have ended: at most so many numbers, and where
    /// a range is all between them, as many records as it stands for.
    pub(super) fn between(&self, after: Number, until: Number) -> u64 {
        let width = |range: Range| {
            let epoch = range.first.epoch;
            let from = if epoch == after.epoch { range.first.seq.max(after.seq + 1) } else { range.first.seq };
            let to = if epoch == until.epoch { range.last.min(until.seq.saturating_sub(1)) } else { range.last };
            let inside = (after.epoch..=until.epoch).contains(&epoch);
            let numbers = if inside { (to + 1).saturating_sub(from) } else { 0 };
            numbers.min(u64::from(range.records))
        };
        self.iter().map(width).sum()
    }

    /// The first number at or behind this one that is in no range.
    pub(super) fn first_out(&self, mut number: Number) -> Number {
        while let Some(last) = self.covering(number) {
            number.seq = last + 1;
        }
        number
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range> {
        self.ranges.iter().map(|(&first, &(last, records))| Range { first, last, records })
    }

    /// The last seq of the range that this number is in.
    fn covering(&self, number: Number) -> Option<u64> {
        let (first, (last, _)) = self.ranges.range(..=number).next_back()?;
        (first.epoch == number.epoch && *last >= number.seq).then_some(*last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_a_set_of_numbers(numbers in prop::collection::vec((1u64..3, 0u64..40), 0..100)) {
            let mut ranges = Ranges::default();
            let mut set = std::collections::BTreeSet::new();
            for (epoch, seq) in numbers {
                let number = Number { epoch, seq };
                prop_assert_eq!(ranges.insert(number), set.insert(number));
            }
            prop_assert_eq!(ranges.records() as usize, set.len());
            for epoch in 1..3 {
                for seq in 0..41 {
                    let number = Number { epoch, seq };
                    prop_assert_eq!(ranges.contains(number), set.contains(&number));
                    let out = (seq..).map(|seq| Number { epoch, seq }).find(|number| !set.contains(number));
                    prop_assert_eq!(Some(ranges.first_out(number)), out);
                }
            }
            for (after, until) in [((1, 3), (1, 30)), ((1, 20), (2, 10)), ((1, 0), (2, 41)), ((2, 5), (2, 6))] {
                let number = |(epoch, seq)| Number { epoch, seq };
                let (after, until) = (number(after), number(until));
                let inside = set.iter().filter(|of| **of > after && **of < until).count();
                prop_assert_eq!(ranges.between(after, until), inside as u64);
            }
            let all: Vec<Range> = ranges.iter().collect();
            let mut again = Ranges::default();
            all.iter().rev().for_each(|range| again.add(*range));
            prop_assert_eq!(&again, &ranges);
            prop_assert!(all.windows(2).all(|pair| pair[0].first.epoch < pair[1].first.epoch || pair[0].last + 1 < pair[1].first.seq));
        }
    }
}
