//! How fast pulses come. A pure function of how many there were and when.

use std::time::Duration;

/// The rate of one line, in pulses a second.
///
/// Where pulses came, it is their number over the time from the last one before them to the last of them, which is right for
/// two a day as for a thousand a second. Where none came, it can't be more than one pulse in the time since the last one, so
/// it falls from then on.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Pulses since it was asked for last.
    pulses: u64,
    /// The last pulse, and the last one when it was asked for last.
    last: Option<Duration>,
    before: Option<Duration>,
    rate: f64,
}

impl Rate {
    /// So many pulses came, the last of them at this time (CLOCK_MONOTONIC).
    pub(super) fn add(&mut self, pulses: u64, last: Duration) {
        self.pulses += pulses;
        // What the first ones took, nobody saw.
        if self.before.is_none() {
            self.before = Some(last);
            self.pulses = 0;
        }
        self.last = Some(last);
    }

    /// The rate now.
    #[expect(clippy::cast_precision_loss, reason = "2⁵³ pulses take longer than anybody waits")]
    pub(super) fn take(&mut self, now: Duration) -> f64 {
        let Some((before, last)) = self.before.zip(self.last) else { return 0.0 };
        let took = last.saturating_sub(before).as_secs_f64();
        if self.pulses > 0 && took > 0.0 {
            self.rate = self.pulses as f64 / took;
            self.before = Some(last);
            self.pulses = 0;
        }
        let since = now.saturating_sub(last).as_secs_f64();
        if since > 0.0 { self.rate.min(1.0 / since) } else { self.rate }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_is_exact_for_slow_and_for_fast_pulses() {
        let mut rate = Rate::default();
        assert_eq!(rate.take(at(0)), 0.0);
        rate.add(5, at(1000));
        assert_eq!(rate.take(at(1000)), 0.0, "how long the first ones took, nobody saw");
        // 1 kHz, then one each 100 s.
        rate.add(10_000, at(11_000));
        assert_eq!(rate.take(at(11_000)), 1000.0);
        rate.add(1, at(111_000));
        assert_eq!(rate.take(at(112_000)), 0.01);
    }

    #[test]
    fn it_falls_when_pulses_stay_away() {
        let mut rate = Rate::default();
        rate.add(1, at(0));
        rate.add(10, at(10_000));
        assert_eq!(rate.take(at(10_500)), 1.0);
        assert_eq!(rate.take(at(14_000)), 0.25);
        assert_eq!(rate.take(at(110_000)), 0.01);
        // And is right with the next pulse: one in a hundred seconds.
        rate.add(1, at(110_000));
        assert_eq!(rate.take(at(110_000)), 0.01);
    }
}
