//! Starts drivers, restarts those that end, and publishes whether each device answers.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::others::Others;
use super::point::{Config as PointRulesConfig, Rules};
#[cfg(feature = "desk")]
use super::replay::Replay;
use super::tape::{Tape, Tapes};
use super::{DeviceError, DeviceIo, Driver, Held};
use crate::model::{Answer, Arrival, DeviceName, DeviceState, DeviceStates, Point, Rate, Write, event, time};
use crate::task::{self, TaskSet};

/// The first pause after a failure: an adapter that was pulled out and put back is there again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a device that was repaired is back within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A device that answered for this long starts again with the first pause.
const STEADY: Duration = Duration::from_secs(30);

/// One device, ready to be started.
pub struct Plan {
    /// Its name.
    pub device: DeviceName,
    /// The kind's name, for people.
    pub kind: &'static str,
    /// Readings that it may send.
    pub max_rate: Rate,
    /// Its driver.
    pub driver: Arc<dyn Driver>,
    /// Its points, with their rules and whether their values hold (see [`super::Shape::holds`]).
    pub points: Vec<(Point, PointRulesConfig, bool)>,
}

/// The ends of the channels that connect one device with the gateway.
#[derive(Debug)]
pub struct Wiring {
    /// Where its readings go.
    pub arrivals: mpsc::Sender<Arrival>,
    /// Where its writes come from.
    pub writes: mpsc::Receiver<Write>,
    /// Where its answers go.
    pub answers: mpsc::Sender<Answer>,
}

/// Starts the devices and keeps them going.
pub struct Supervisor {
    states: Arc<watch::Sender<DeviceStates>>,
    held: Held,
    #[cfg(feature = "modbus")]
    buses: super::modbus::Buses,
    others: Others,
    stop: CancellationToken,
    tapes: Tapes,
    /// On the desk: what is played to the device.
    #[cfg(feature = "desk")]
    played: Option<Tape>,
    /// Those that were started; what has ended is gone from here by itself.
    drivers: Mutex<Vec<Weak<dyn Driver>>>,
}

impl Supervisor {
    /// A supervisor whose devices end at `stop`, and whose outputs are `held`.
    pub fn new(held: Held, stop: CancellationToken) -> Self {
        Supervisor {
            states: Arc::new(watch::Sender::default()),
            held,
            #[cfg(feature = "modbus")]
            buses: super::modbus::Buses::default(),
            others: Others::default(),
            stop,
            tapes: Tapes::default(),
            #[cfg(feature = "desk")]
            played: None,
            drivers: Mutex::default(),
        }
    }

    /// A supervisor for one device, whose driver hears what is on this tape, and reaches nothing else.
    #[cfg(feature = "desk")]
    pub fn on_desk(tape: Tape, stop: CancellationToken) -> Self {
        Supervisor { played: Some(tape), ..Supervisor::new(Held::nothing(), stop) }
    }

    /// For who wants to record a device.
    pub fn tapes(&self) -> Tapes {
        self.tapes.clone()
    }

    /// The states of all devices, as they change.
    pub fn states(&self) -> watch::Receiver<DeviceStates> {
        self.states.subscribe()
    }

    /// A device is there no more: it has no state either.
    pub fn forget(&self, device: &DeviceName) {
        self.states.send_if_modified(|states| states.remove(device).is_some());
        self.others.forget(device);
        self.tapes.forget(device);
    }

    /// Starts one device in a task of its own. The result ends this one alone.
    pub fn start(&self, tasks: &mut TaskSet, plan: Plan, wiring: Wiring) -> CancellationToken {
        let stop = self.stop.child_token();
        let rules: BTreeMap<_, _> = plan
            .points
            .into_iter()
            .map(|(point, config, holds)| (point.name.clone(), Rules::new(point, config, holds)))
            .collect();
        let is_of_bytes = plan.driver.is_of_bytes();
        let (tape, driver) = (self.tapes.thread(&plan.device, plan.kind, is_of_bytes), plan.driver);
        #[cfg(feature = "desk")]
        let (tape, driver) = match &self.played {
            None => (tape, driver),
            Some(tape) if is_of_bytes => (tape.clone(), driver),
            // What such a driver does is on no wire, and it might switch something: what it said is played.
            Some(tape) => (tape.clone(), Arc::new(Replay) as Arc<dyn Driver>),
        };
        let mut io = DeviceIo::new(
            plan.device.clone(),
            rules,
            plan.max_rate,
            wiring.arrivals,
            wiring.writes,
            wiring.answers,
            Arc::clone(&self.states),
            self.held.clone(),
            #[cfg(feature = "modbus")]
            self.buses.clone(),
            self.others.clone(),
            stop.clone(),
            tape,
        );
        // One of this name may have run before, by another config.
        self.others.forget(&plan.device);
        io.set_state(DeviceState::Starting);
        self.drivers().push(Arc::downgrade(&driver));
        tasks.spawn(format!("device-{}", plan.device), supervise(driver, io));
        stop
    }
}

impl Supervisor {
    /// Sets the outputs that are held and that no driver wants to their safe values, and lets them go: the config has
    /// them no more. Called when all devices are started, and after some were ended.
    pub async fn release_unwanted(&self) {
        for name in self.held.names() {
            let wanted = {
                let mut drivers = self.drivers();
                drivers.retain(|driver| driver.strong_count() > 0);
                drivers.iter().filter_map(Weak::upgrade).any(|driver| driver.wants(&name))
            };
            if wanted || self.held.is_in_use(&name) {
                continue;
            }
            let safe = self.held.get(&name).map(|descriptor| super::make_safe(&name, descriptor.as_fd()));
            match safe {
                Some(Err(error)) => tracing::warn!("{name} can't be set to its safe value: {error}"),
                _ => tracing::info!("{name} is no output any more: safe, and let go"),
            }
            self.held.release(&name).await;
        }
    }

    fn drivers(&self) -> MutexGuard<'_, Vec<Weak<dyn Driver>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("held", &self.held).finish_non_exhaustive()
    }
}

/// Puts on tape that a driver ended.
fn ended(tape: &Tape, error: DeviceError) -> DeviceError {
    tape.ended(&error);
    error
}

async fn supervise(driver: Arc<dyn Driver>, mut io: DeviceIo) {
    let stop = io.stop_token();
    let mut pause = FIRST_PAUSE;
    let mut away: Option<Duration> = None;
    loop {
        let tape = io.tape().clone();
        let begun = tokio::select! {
            // On the board it never waits, and a driver is run at least once.
            biased;
            () = io.begin_life() => true,
            () = stop.cancelled() => false,
        };
        if !begun {
            break;
        }
        let started = time::uptime();
        let life = AssertUnwindSafe(async {
            tokio::select! {
                biased;
                ended = driver.run(&mut io) => ended.map_err(|error| (error, false)),
                // On the desk, where it ended on the board by what is on no tape.
                error = tape.lost() => Err((error, true)),
            }
        });
        let life = life.catch_unwind().await;
        let error = match life {
            Ok(Ok(())) if io.stopping() => break,
            Ok(Ok(())) if io.hands_over().await => continue,
            Ok(Ok(())) => ended(&tape, DeviceError::Lost("the driver ended by itself".to_owned())),
            Ok(Err((error, true))) => error,
            Ok(Err((error, false))) => ended(&tape, error),
            Err(panic) => ended(&tape, DeviceError::Panic(task::panic_message(panic.as_ref()))),
        };
        let was_online = io.is_online();
        io.settle(&error);
        io.send_ready().await;
        io.set_offline(&error);
        let now = time::uptime();
        // One line for each episode; an attempt that failed again is not news.
        if was_online || away.is_none() {
            tracing::warn!(MESSAGE_ID = event::DEVICE_OFFLINE, DEVICE = %io.device(), "device {} offline: {error}", io.device());
            away = Some(now);
        }
        if was_online && now.saturating_sub(started) >= STEADY {
            pause = FIRST_PAUSE;
        }
        // On the desk the tape says when it begins again.
        let wait = if tape.player().is_some() { Duration::ZERO } else { pause };
        if io.refuse_for(wait, &error).await {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    // A stop may come right behind a hand-over.
    #[cfg(any(feature = "modbus", feature = "serial"))]
    io.close_kept().await;
    io.tell_the_last().await;
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("device", &self.device).field("kind", &self.kind).finish_non_exhaustive()
    }
}
