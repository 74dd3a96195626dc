//! What the gateway hears about itself: its own status, and the `info` of whoever else uses its id.

use std::time::Duration;

use serde::Deserialize;

/// Corrections of a foreign `offline` in [`PER`]. Who sends more is at war, and a war helps nobody.
const CORRECTIONS: usize = 3;

/// See [`CORRECTIONS`].
const PER: Duration = Duration::from_secs(60);

/// A broker may take long to echo, and one that never does must not keep the records for ever.
pub(super) const ECHO_PATIENCE: Duration = Duration::from_secs(5);

/// How far the introduction to the broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// CONNECT is under way.
    Connecting,
    /// SUBSCRIBE is under way.
    Subscribing,
    /// `online` was sent; its echo, or the end of the patience since the acknowledgement, opens the way for records.
    Introducing {
        /// When the wait for the echo began.
        since: Duration,
        /// It came.
        echoed: bool,
    },
    /// Records flow.
    Open,
}

/// Corrections of the own status within the last minute.
#[derive(Debug, Default)]
pub(super) struct Corrections {
    made: Vec<Duration>,
    /// Somebody said that the gateway is offline, and it was not contradicted yet.
    wanted: bool,
}

impl Corrections {
    /// Somebody said that the gateway is offline, or that it is online after all.
    pub(super) fn heard(&mut self, online: bool) {
        self.wanted = !online;
    }

    /// Whether to correct it now. What is too much for this minute waits for the next, since the last word stays.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        self.made.retain(|at| now.saturating_sub(*at) < PER);
        let allowed = self.wanted && self.made.len() < CORRECTIONS;
        if allowed {
            self.wanted = false;
            self.made.push(now);
        }
        allowed
    }

    /// When [`Corrections::take`] will say yes.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let oldest = self.made.first().filter(|_| self.made.len() >= CORRECTIONS);
        self.wanted.then(|| oldest.map_or(Duration::ZERO, |made| *made + PER))
    }
}

/// What is read from an `info`, the own one or that of another run.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    pub(super) instance: String,
    /// The template of the topics of points, where it is not the usual one.
    #[serde(default)]
    pub(super) topic: Option<String>,
    #[serde(default)]
    pub(super) devices: std::collections::BTreeMap<String, InfoDevice>,
}

/// See [`Info`].
#[derive(Debug, Deserialize)]
pub(super) struct InfoDevice {
    #[serde(default)]
    pub(super) points: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_offline_is_corrected_three_times_a_minute() {
        let mut corrections = Corrections::default();
        let at = Duration::from_secs;
        let mut allowed = |secs| {
            corrections.heard(false);
            corrections.take(at(secs))
        };
        assert_eq!([0, 1, 2, 3, 59, 60, 60].map(&mut allowed), [true, true, true, false, false, true, false]);
        assert_eq!(corrections.next_due(), Some(at(61)), "the last one is not forgotten");
        assert!(!corrections.take(at(60)) && corrections.take(at(61)) && !corrections.take(at(200)));
        corrections.heard(false);
        corrections.heard(true);
        assert!(corrections.next_due().is_none() && !corrections.take(at(200)), "somebody was faster");
    }
}
