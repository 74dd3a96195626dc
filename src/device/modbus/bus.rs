//! A bus that several devices share: one of them speaks at a time.
//!
//! There is no task behind it. Whoever has the turn has the wire, and asks in its own task; so a device that is stopped
//! takes its question along, and nobody answers for one that is gone. Turns come in the order in which they were asked
//! for, those of commands before those of polls. Each device asks for one turn at a time, so a device with many polls
//! holds back no other.
//!
//! The first turn opens the wire, and it is closed with the last device. When it is lost, all devices are told why.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{MutexGuard, watch};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::config;
use super::pdu::Request;
use super::wire::{Trouble, Wire};
use crate::device::DeviceError;
use crate::device::tape::Tape;
use crate::model::Timestamp;

/// The buses that are in use. All clones are one.
#[derive(Debug, Clone, Default)]
pub(in crate::device) struct Buses(Arc<Mutex<Vec<Weak<Bus>>>>);

/// See the module.
#[derive(Debug)]
pub(super) struct Bus {
    config: config::Bus,
    wire: tokio::sync::Mutex<Option<Wire>>,
    /// Commands that wait for their turn.
    urgent: AtomicUsize,
    /// When it could not be opened last, and why: for those who waited for that.
    failed: Mutex<Option<(Instant, DeviceError)>>,
    /// Why the wire was lost last.
    lost: watch::Sender<Option<DeviceError>>,
}

/// A device's place on a bus.
#[derive(Debug)]
pub(in crate::device) struct Seat {
    bus: Arc<Bus>,
    tape: Tape,
    lost: watch::Receiver<Option<DeviceError>>,
}

/// While it lives, nobody else speaks.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    bus: &'a Bus,
    wire: MutexGuard<'a, Option<Wire>>,
}

/// What a turn is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Command,
    Poll,
}

impl Buses {
    /// A place on this bus, for the device of this tape.
    pub(super) fn join(&self, config: &config::Bus, tape: &Tape) -> Seat {
        let mut buses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buses.retain(|bus| bus.strong_count() > 0);
        let known = buses.iter().filter_map(Weak::upgrade).find(|bus| bus.config == *config);
        let bus = known.unwrap_or_else(|| {
            let (config, lost) = (config.clone(), watch::Sender::new(None));
            let bus = Arc::new(Bus {
                config,
                wire: tokio::sync::Mutex::default(),
                urgent: AtomicUsize::new(0),
                failed: Mutex::default(),
                lost,
            });
            buses.push(Arc::downgrade(&bus));
            bus
        });
        Seat { lost: bus.lost.subscribe(), tape: tape.clone(), bus }
    }
}

impl Seat {
    /// Waits for a turn, and opens the wire where it is not. Cancel-safe.
    pub(super) async fn turn(&self, reason: For) -> Result<Turn<'_>, DeviceError> {
        let (bus, began) = (&*self.bus, Instant::now());
        let _waiting = (reason == For::Command).then(|| Urgent::new(&bus.urgent));
        let mut wire = loop {
            let wire = bus.wire.lock().await;
            if reason == For::Command || bus.urgent.load(Ordering::Acquire) == 0 {
                break wire;
            }
            drop(wire);
            yield_now().await;
        };
        match wire.as_mut() {
            Some(wire) => wire.turn_to(&self.tape),
            None => {
                // A server that can't be reached takes its time: once for all who wait.
                let failed = bus.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some((_, error)) = failed.filter(|(at, _)| *at >= began) {
                    return Err(error);
                }
                match Wire::open(&bus.config, &self.tape).await {
                    Ok(opened) => *wire = Some(opened),
                    Err(error) => {
                        let mut failed = bus.failed.lock().unwrap_or_else(PoisonError::into_inner);
                        *failed = Some((Instant::now(), error.clone()));
                        return Err(error);
                    }
                }
            }
        }
        Ok(Turn { bus, wire })
    }

    /// Waits until the wire is lost in another device's turn. Cancel-safe.
    pub(super) async fn lost(&mut self) -> DeviceError {
        // The sender lives as long as the bus, which lives as long as this.
        let changed = self.lost.changed().await;
        let why = self.lost.borrow_and_update().clone().filter(|_| changed.is_ok());
        why.unwrap_or_else(|| DeviceError::Lost("the bus is gone".to_owned()))
    }

    /// Leaves; the last one closes the wire once what was said is out.
    pub(in crate::device) async fn leave(self) {
        if let Some(bus) = Arc::into_inner(self.bus)
            && let Some(wire) = bus.wire.into_inner()
        {
            wire.close().await;
        }
    }
}

impl Turn<'_> {
    /// Waits until the line is free: what is gone shows before anything was said.
    pub(super) async fn ready(&mut self) -> Result<(), Trouble> {
        let ready = match self.wire.as_mut() {
            Some(wire) => wire.make_ready().await,
            None => Err(gone()),
        };
        self.told(ready)
    }

    /// When the last answer came.
    pub(super) fn heard(&self) -> Option<Timestamp> {
        self.wire.as_ref().map(Wire::heard)
    }

    /// A device's life begins: whether the line echoes is what the life before knew, where that is known.
    pub(super) fn begin(mut self, echoes: Option<bool>) {
        if let (Some(wire), Some(echoes)) = (self.wire.as_mut(), echoes) {
            wire.set_echoes(echoes);
        }
    }

    /// Whether the line echoes, as far as it is known.
    pub(super) fn echoes(&self) -> Option<bool> {
        self.wire.as_ref().and_then(Wire::echoes)
    }

    /// See [`Wire::ask`].
    pub(super) async fn ask(&mut self, unit: u8, request: &Request, may_refuse: bool) -> Result<Vec<u8>, Trouble> {
        let asked = match self.wire.as_mut() {
            Some(wire) => wire.ask(unit, request, may_refuse).await,
            None => Err(gone()),
        };
        self.told(asked)
    }

    /// Tells all devices where the wire is lost.
    fn told<T>(&mut self, result: Result<T, Trouble>) -> Result<T, Trouble> {
        if let Err(Trouble::Lost(error)) = &result {
            // Closed before anybody opens it anew.
            *self.wire = None;
            self.bus.lost.send_replace(Some(error.clone()));
        }
        result
    }
}

fn gone() -> Trouble {
    DeviceError::Lost("the bus is gone".to_owned()).into()
}

/// Counts a command that waits.
struct Urgent<'a>(&'a AtomicUsize);

impl<'a> Urgent<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Urgent(count)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
