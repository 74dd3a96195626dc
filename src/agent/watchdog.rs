//! Whether all loops of the gateway come around: only then systemd is told that it is alive.

use std::time::Duration;

use tokio::time::Instant;

use crate::task::Pulse;

/// A loop that did not come around for so long has stopped.
const STUCK: Duration = Duration::from_secs(15);

/// Feeds on progress: a loop that does not come around is told by its name.
#[derive(Debug)]
pub(super) struct Watchdog {
    loops: Vec<(Pulse, u32, Instant)>,
}

impl Watchdog {
    pub(super) fn new(pulses: &[Pulse]) -> Self {
        let now = Instant::now();
        Watchdog { loops: pulses.iter().map(|pulse| (pulse.clone(), pulse.beats(), now)).collect() }
    }

    /// The name of one that did not.
    pub(super) fn stuck(&mut self) -> Option<&str> {
        let now = Instant::now();
        for (pulse, seen, since) in &mut self.loops {
            if pulse.beats() != *seen {
                *seen = pulse.beats();
                *since = now;
            }
        }
        self.loops.iter().find(|(_, _, since)| now - *since > STUCK).map(|(pulse, _, _)| pulse.name())
    }
}
