//! Chance that can be repeated.

use std::time::Duration;

/// Random numbers from a seed (xorshift64*), which is printed.
#[derive(Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// From `SLUICEGATE_SEED`, or from one that the system gives.
    pub(crate) fn new() -> Self {
        let seed =
            std::env::var("SLUICEGATE_SEED").map_or_else(|_| getrandom::u64().unwrap(), |seed| seed.parse().unwrap());
        eprintln!("SLUICEGATE_SEED={seed}");
        Chance(seed | 1)
    }

    /// From 0 to below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(random).unwrap() % end
    }

    /// A part of this time.
    pub(crate) fn within(&mut self, longest: Duration) -> Duration {
        longest * u32::try_from(self.below(1000)).unwrap() / 1000
    }

    /// In random order.
    pub(crate) fn shuffled<T>(&mut self, mut things: Vec<T>) -> Vec<T> {
        for place in (1..things.len()).rev() {
            things.swap(place, self.below(place + 1));
        }
        things
    }
}
