//! The values of a simulated point, one after the other: a function of their number, but for the random walk.

use std::f64::consts::TAU;
use std::time::Duration;

use super::config::{PointConfig, Wave};
use crate::model::Value;

/// The largest step of a random walk, as a part of its range.
const STEP: f64 = 0.02;

/// One simulated signal.
#[derive(Debug)]
pub(super) struct Signal {
    wave: Wave,
    low: f64,
    high: f64,
    every: Duration,
    period: Duration,
    /// How many values there were.
    count: i64,
    /// Where the walk is, and its dice.
    place: f64,
    dice: u64,
}

impl Signal {
    /// The signal from its first value on. The seed is for the random walk.
    pub(super) fn new(config: &PointConfig, seed: u64) -> Self {
        let (low, high) = config.range();
        let (every, period) = (config.every(), config.period());
        Signal {
            wave: config.wave,
            low,
            high,
            every,
            period,
            count: 0,
            place: f64::midpoint(low, high),
            dice: seed | 1,
        }
    }

    /// The time between two values.
    pub(super) fn every(&self) -> Duration {
        self.every
    }

    /// The next value; `None` for what has none of its own.
    pub(super) fn next(&mut self) -> Option<Value> {
        let range = self.high - self.low;
        #[expect(clippy::cast_precision_loss, reason = "the phase of a wave after 2^53 values interests nobody")]
        let turns = self.count as f64 * self.every.as_secs_f64() / self.period.as_secs_f64();
        self.count += 1;
        match self.wave {
            Wave::Sine => Some(Value::Float(self.low + range * (0.5 + 0.5 * (turns * TAU).sin()))),
            Wave::Ramp => Some(Value::Float(self.low + range * turns.fract())),
            Wave::RandomWalk => {
                let step = (self.throw() * 2.0 - 1.0) * STEP * range;
                self.place = (self.place + step).clamp(self.low, self.high);
                Some(Value::Float(self.place))
            }
            Wave::Counter => Some(Value::Int(self.count)),
            Wave::Switch | Wave::Panic => None,
        }
    }

    /// A number from 0 to 1 (xorshift64).
    fn throw(&mut self) -> f64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let high = u32::try_from(self.dice >> 32).unwrap_or_default();
        f64::from(high) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(config: &str) -> Signal {
        Signal::new(&PointConfig::read(&config.parse().unwrap()).unwrap(), 42)
    }

    fn numbers(config: &str, count: usize) -> Vec<f64> {
        let mut signal = signal(config);
        std::iter::from_fn(|| signal.next()?.as_f64()).take(count).collect()
    }

    #[test]
    fn a_wave_has_its_shape() {
        let round = |numbers: Vec<f64>| numbers.into_iter().map(f64::round).collect::<Vec<_>>();
        assert_eq!(round(numbers("wave = \"sine\"\nperiod = \"4s\"", 5)), [50.0, 100.0, 50.0, 0.0, 50.0]);
        assert_eq!(
            round(numbers("wave = \"ramp\"\nperiod = \"4s\"\nlow = -100", 5)),
            [-100.0, -50.0, 0.0, 50.0, -100.0]
        );
        assert_eq!(numbers("wave = \"counter\"", 3), [1.0, 2.0, 3.0]);
        assert_eq!(signal("wave = \"switch\"").next(), None);
    }

    #[test]
    fn a_random_walk_stays_in_its_range_and_moves_in_small_steps() {
        let walk = numbers("wave = \"random-walk\"\nlow = -1\nhigh = 1", 10_000);
        assert!(walk.iter().all(|place| (-1.0..=1.0).contains(place)));
        assert!(walk.windows(2).all(|pair| (pair[0] - pair[1]).abs() <= 0.04 + 1e-9));
        assert!(walk.iter().any(|place| *place < -0.5) && walk.iter().any(|place| *place > 0.5));
    }
}
