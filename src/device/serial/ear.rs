//! From a frame to the readings of its points.

use tokio::time::Instant;

use super::Serial;
use super::frame::Frame;
use crate::device::DeviceIo;
use crate::device::decode::{Noise, Slot, Undecodable};
use crate::model::Timestamp;

/// What is known of the frames so far.
pub(super) struct Ear<'a> {
    serial: &'a Serial,
    slots: Vec<Slot>,
    /// When the last valid frame was passed on; first, when the port was opened.
    pub(super) valid_at: Instant,
    noise: Noise,
}

impl<'a> Ear<'a> {
    /// Nothing was heard yet.
    pub(super) fn new(serial: &'a Serial) -> Self {
        let slots = vec![Slot::Absent; serial.readers.len()];
        Ear { serial, slots, valid_at: Instant::now(), noise: Noise::of("frame") }
    }

    /// Reports what a frame has, that came at this moment. `poll`: the name of the poll that it answers. False: it can't be read.
    pub(super) async fn hear(
        &mut self,
        io: &mut DeviceIo,
        frame: Frame<'_>,
        poll: Option<&str>,
        now: Timestamp,
    ) -> bool {
        let (bytes, decoded) = match frame {
            Frame::Whole(bytes) => (bytes, self.serial.decode(bytes, &mut self.slots)),
            Frame::Bad(why, bytes) => (bytes, Err(Undecodable::Frame(why))),
        };
        if let Err(error) = decoded {
            self.noise.heard(io, &error, bytes, now);
            return false;
        }
        self.noise.over(io, now);
        io.online();
        for (reader, slot) in self.serial.readers.iter().zip(&self.slots) {
            match slot {
                _ if !reader.wants(bytes, poll) => {}
                Slot::Value(value) => io.report_at(&reader.name, value, now).await,
                Slot::Bad => io.report_bad_at(&reader.name, now).await,
                Slot::Absent => {}
            }
        }
        // Only now: the time that the gateway took to accept these readings is no silence of the device.
        self.valid_at = Instant::now();
        true
    }
}
