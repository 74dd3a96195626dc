//! How often something may happen: the one way in which rates are kept.

use std::time::Duration;

use super::Rate;

/// A bucket that fills at a rate up to a bound; each event takes one. Times are `CLOCK_BOOTTIME`.
#[derive(Debug, Clone)]
pub struct Bucket {
    rate: Rate,
    burst: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    /// A full bucket that holds what comes in `burst`, at least one.
    pub fn new(rate: Rate, burst: Duration) -> Self {
        let burst = (per_second(rate) * burst.as_secs_f64()).max(1.0);
        Bucket { rate, burst, tokens: burst, filled: Duration::ZERO }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Duration) -> bool {
        if self.rate == Rate::Off {
            return true;
        }
        let grown = now.saturating_sub(self.filled).as_secs_f64() * per_second(self.rate);
        self.tokens = (self.tokens + grown).min(self.burst);
        self.filled = self.filled.max(now);
        let fits = self.tokens >= 1.0;
        if fits {
            self.tokens -= 1.0;
        }
        fits
    }

    /// When there is one again.
    pub fn next(&self, now: Duration) -> Duration {
        if self.rate == Rate::Off || self.tokens >= 1.0 {
            return now;
        }
        // A microsecond more than computed, so that rounding does not wake anybody too early.
        let missing = (1.0 - self.tokens) / per_second(self.rate);
        self.filled + Duration::from_secs_f64(missing) + Duration::from_micros(1)
    }
}

fn per_second(rate: Rate) -> f64 {
    match rate {
        Rate::Off => 0.0,
        Rate::Limit { count, per } => f64::from(count) / per.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let secs = Duration::from_secs;
        let mut bucket = Bucket::new(Rate::Limit { count: 60, per: secs(60) }, secs(3));
        let taken = |bucket: &mut Bucket, at| (0..10).filter(|_| bucket.take(at)).count();
        assert_eq!(taken(&mut bucket, secs(100)), 3);
        assert!(bucket.next(secs(100)) > secs(100));
        assert_eq!(taken(&mut bucket, secs(102)), 2);
        assert_eq!(taken(&mut bucket, secs(1000)), 3, "no more than the burst is saved up");
        assert_eq!(taken(&mut Bucket::new(Rate::Off, secs(0)), secs(0)), 10);
        let at = bucket.next(secs(1000));
        assert_eq!(taken(&mut bucket, at), 1);
    }
}
