//! What a device says and nobody can read: logged once per episode, and counted.

use std::time::Duration;

use super::Undecodable;
use crate::device::DeviceIo;
use crate::model::Timestamp;

/// Noise this long after other noise is a new episode, and a new line in the log.
const EPISODE: Duration = Duration::from_secs(60);

/// Frames, or messages, that could not be read.
#[derive(Debug)]
pub(in crate::device) struct Noise {
    /// What they are.
    what: &'static str,
    /// In this episode.
    count: u64,
    last: Option<Duration>,
}

impl Noise {
    /// None yet. `what`: the word for one of them.
    pub(in crate::device) fn of(what: &'static str) -> Self {
        Noise { what, count: 0, last: None }
    }

    /// One came.
    pub(in crate::device) fn heard(&mut self, io: &DeviceIo, error: &Undecodable, frame: &[u8], now: Timestamp) {
        let new = self.last.is_none_or(|last| now.uptime.saturating_sub(last) > EPISODE);
        self.count = if new { 1 } else { self.count + 1 };
        self.last = Some(now.uptime);
        let start = frame.get(..40).unwrap_or(frame).escape_ascii();
        if new {
            tracing::warn!(DEVICE = %io.device(), "a {} can't be read: {error} (`{start}`)", self.what);
        } else {
            tracing::debug!(DEVICE = %io.device(), "another {} can't be read: {error} (`{start}`)", self.what);
        }
    }

    /// A valid one came.
    pub(in crate::device) fn over(&mut self, io: &DeviceIo, now: Timestamp) {
        if self.last.is_some_and(|last| now.uptime.saturating_sub(last) > EPISODE) {
            tracing::info!(DEVICE = %io.device(), "{}s can be read again, {} could not", self.what, self.count);
            *self = Noise::of(self.what);
        }
    }
}
