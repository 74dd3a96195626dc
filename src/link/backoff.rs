//! How long to wait before the next connection.

use std::time::Duration;

/// The first pause after a connection that worked.
const FIRST: Duration = Duration::from_secs(1);

/// A hundred gateways that come back at once after a broker's outage are spread over this.
const LONGEST: Duration = Duration::from_secs(60);

/// Pauses that double from 1 s to 60 s, each shortened by up to half at random.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A connection worked: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure. `random` is between 0 and 1.
    pub fn pause(&mut self, random: f64) -> Duration {
        let full = LONGEST.min(FIRST * 2u32.saturating_pow(self.failures.min(16)));
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// The pause after a failure that only a person can mend.
    pub fn long_pause(&mut self, random: f64) -> Duration {
        LONGEST.mul_f64(1.0 - random.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_again() {
        let mut backoff = Backoff::default();
        let full: Vec<u64> = (0..8).map(|_| backoff.pause(0.0).as_secs()).collect();
        assert_eq!(full, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.pause(1.0).as_secs(), 30);
        backoff.reset();
        assert_eq!(backoff.pause(1.0), Duration::from_millis(500));
    }
}
