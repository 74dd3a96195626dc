//! What the points of all devices are, as they come in and before their report rules: for a kind that makes values of
//! values. All clones are one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::model::{DeviceName, PointKey, Quality, Reading, time};

/// So many values a listener may be behind; then it has missed some, and is told so.
const BEHIND: usize = 256;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Others {
    last: Arc<Mutex<BTreeMap<PointKey, Reading>>>,
    live: broadcast::Sender<Reading>,
}

impl Default for Others {
    fn default() -> Self {
        Others { last: Arc::default(), live: broadcast::channel(BEHIND).0 }
    }
}

impl Others {
    /// A value came in.
    pub(super) fn show(&self, reading: Reading) {
        if self.live.receiver_count() > 0 {
            // Whoever listened may just have ended.
            drop(self.live.send(reading.clone()));
        }
        self.last().insert(reading.key(), reading);
    }

    /// What comes in from now on.
    pub(super) fn listen(&self) -> broadcast::Receiver<Reading> {
        self.live.subscribe()
    }

    /// What came in last.
    pub(super) fn of(&self, point: &PointKey) -> Option<Reading> {
        self.last().get(point).cloned()
    }

    /// The device is away, there no more, or another one: what it was is shown as lost.
    pub(super) fn forget(&self, device: &DeviceName) {
        let mut gone = Vec::new();
        self.last().retain(|point, reading| {
            let is_other = point.0 != *device;
            if !is_other {
                gone.push(reading.clone());
            }
            is_other
        });
        for reading in gone {
            let lost = Reading { timestamp: time::now(), value: None, quality: Quality::Bad, ..reading };
            // Nobody may listen.
            drop(self.live.send(lost));
        }
    }

    fn last(&self) -> MutexGuard<'_, BTreeMap<PointKey, Reading>> {
        // Whole after each statement, so a panic elsewhere has not broken it.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
