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
}

impl Corrections {
    /// Whether one more correction may be made now.
    pub(super) fn allow(&mut self, now: Duration) -> bool {
        self.made.retain(|at| now.saturating_sub(*at) < PER);
        let allowed = self.made.len() < CORRECTIONS;
        if allowed {
            self.made.push(now);
        }
        allowed
    }
}

/// What is read from an `info`, the own one or that of another run.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    pub(super) instance: String,
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
        let allowed = |secs| corrections.allow(Duration::from_secs(secs));
        assert_eq!([0, 1, 2, 3, 59, 60, 60].map(allowed), [true, true, true, false, false, true, false]);
    }
}
