//! What a driver's life has of the one before it, and what of it goes on tape.

use std::time::Duration;

#[cfg(feature = "serial")]
use tokio::time::Instant;

use super::DeviceIo;
use crate::device::point::Rules;
use crate::device::tape::{Report, Seed, Tape};
use crate::model::{Limit, PointName, Timestamp, time};

impl DeviceIo {
    /// What is between the device and this driver, on tape.
    pub(in crate::device) fn tape(&self) -> &Tape {
        &self.tape
    }

    /// The driver hands over to a life of its own that begins at once, since somebody wants to record it from its beginning.
    /// It returns `Ok` after this; the way to the device may stay open.
    #[cfg(any(feature = "modbus", feature = "serial"))]
    pub(in crate::device) fn begin_anew(&mut self, seed: Seed) {
        (self.seed, self.handed) = (seed, true);
    }

    /// A port that stays open from one life to the next, and when what was sent last is out, or the last byte came.
    #[cfg(feature = "serial")]
    pub(in crate::device) fn keep_port(&mut self, port: crate::device::port::Port, busy_until: Instant) {
        self.port = Some((port, busy_until));
    }

    /// A place on a bus that is kept from one life to the next.
    #[cfg(feature = "modbus")]
    pub(in crate::device) fn keep_seat(&mut self, seat: crate::device::modbus::Seat) {
        self.seat = Some(seat);
    }

    /// The place that was kept.
    #[cfg(feature = "modbus")]
    pub(in crate::device) fn take_seat(&mut self) -> Option<crate::device::modbus::Seat> {
        self.seat.take()
    }

    /// Whether the device has this point.
    #[cfg(feature = "desk")]
    pub(in crate::device) fn has_point(&self, point: &PointName) -> bool {
        self.rules.contains_key(point)
    }

    /// The port that was kept, with that time.
    #[cfg(feature = "serial")]
    pub(in crate::device) fn take_port(&mut self) -> Option<(crate::device::port::Port, Instant)> {
        self.port.take()
    }

    /// The device is stopped while the way to it waits for another life: what was sent last still goes out.
    #[cfg(any(feature = "modbus", feature = "serial"))]
    pub(in crate::device) async fn close_kept(&mut self) {
        #[cfg(feature = "serial")]
        if let Some((port, _)) = self.port.take() {
            port.close().await;
        }
        #[cfg(feature = "modbus")]
        if let Some(seat) = self.seat.take() {
            seat.leave().await;
        }
    }

    /// What the life before handed over; taken by the driver as its life begins.
    pub(in crate::device) fn take_seed(&mut self) -> Seed {
        std::mem::take(&mut self.seed)
    }

    /// A life of the driver is about to begin.
    pub(in crate::device) async fn begin_life(&mut self) {
        let mut seed = self.take_seed();
        seed.places = self.places();
        let seed = self.tape.begin(seed).await;
        for (point, place) in &seed.places {
            if let Some(rules) = self.rules.get_mut(point) {
                rules.set_place(*place);
            }
        }
        self.seed = seed;
    }

    /// Whether the driver handed over: then all that is known of its points is forgotten, but for the limits.
    pub(in crate::device) async fn hands_over(&mut self) -> bool {
        let is_handed = std::mem::take(&mut self.handed);
        if is_handed {
            self.start_points();
            self.send_ready().await;
        }
        is_handed
    }

    fn places(&self) -> Vec<(PointName, Limit)> {
        let place = |(name, rules): (&PointName, &Rules)| Some((name.clone(), rules.place()?));
        self.rules.iter().filter_map(place).collect()
    }

    /// What a recording begins with: as after a start, the next value of each point is news. One of which none comes is said
    /// again as before.
    fn start_points(&mut self) {
        let now = time::now();
        for (name, rules) in &mut self.rules {
            self.ready.extend(rules.take_held(now).map(|(cooked, at)| (name.clone(), cooked, at, None)));
            rules.restart();
        }
        while let Some((point, cooked, at)) = self.allowance.take_waiting() {
            self.ready.push_back((point, cooked, at, None));
        }
        self.allowance.refill();
    }

    /// Puts on tape the write that the driver has in hand, once: here its bytes follow. It may have been taken while a question
    /// was under way. [`DeviceIo::begin`] does it, unless the driver asks something for the write's sake before.
    pub(in crate::device) fn put_write_on_tape(&mut self, timeout: Duration) {
        if let Some(values) = self.taken.take() {
            self.tape.wrote(values, timeout);
        }
    }

    /// Puts on tape what a driver says that has no bytes.
    #[inline(never)]
    pub(super) fn put_on_tape(&mut self, at: Timestamp, report: &dyn Fn() -> Report) {
        let Some(begins) = self.tape.reports() else { return };
        if begins {
            self.start_points();
            self.tape.begin_on_board(&Seed { places: self.places(), ..Seed::default() });
        }
        self.tape.report(report, at);
    }
}
