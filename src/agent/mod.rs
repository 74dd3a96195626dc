//! The gateway put together: rooms made, joined by channels, started and stopped in order.
//!
//! Reads like a list of parts. Whatever could live in a room does: here is only who is connected with whom, and when
//! each starts and ends.

mod answers;
mod check;
mod clock;
#[cfg(feature = "desk")]
mod desk;
mod devices;
mod handed;
mod kernel_clock;
mod looker;
mod queue;
mod record;
mod reload;
mod state;
mod watchdog;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::command::{Journal, Queued};
use crate::config::{Config, Sources};
use crate::device::{Held, Supervisor};
use crate::model::{Lane, Problem, Problems, Takeover, event, time};
use crate::queue::{Intake, Opened, Previous, Queue, Taps};
use crate::service::control::{self, Control};
use crate::service::{self, HangUp, Notifier, Signals, resident_memory};
use crate::task::{Ended, Pulse, TaskSet};
use crate::uplink::{RunBefore, Start, Uplink};
use crate::{command, config, uplink};
use answers::Answers;
pub use check::{check_broker, check_devices, check_rights};
use clock::Clock;
pub use clock::watch_clock;
#[cfg(feature = "desk")]
pub use desk::{decode, replay};
use devices::{Devices, Views};
pub use handed::Handed;
pub use looker::try_device;
pub use queue::{dump_queue, show_queue};
pub use record::record_device;
use reload::{CHANGES, Reload};
pub use reload::{Reloaded, ask_to_reload};
use state::State;
pub use state::StateError;
use watchdog::Watchdog;

/// Readings that a driver may be ahead of the intake; then it waits.
const ARRIVALS: usize = 32;

/// Writes that may wait for one device; more are refused as busy.
const WRITES: usize = 8;

/// Commands between the uplink and the router; more are refused as busy.
const COMMANDS: usize = 32;

/// Outcomes of refusals between the router and the uplink; more are not told, but counted.
const REFUSALS: usize = 64;

/// Answers of all devices: two for each write that may be under way.
const ANSWERS: usize = 1024;

/// Descriptors of outputs on their way to systemd; then the driver that opens its lines waits.
const DESCRIPTORS: usize = 8;

/// Who asks for a reload; more wait.
const RELOADS: usize = 8;

/// Readings that one who looks on may be behind.
const LOOK: usize = 64;

/// The stop in all. systemd's own patience is 90 s; a person's is shorter.
const STOP_BUDGET: Duration = Duration::from_secs(10);

/// Of that, for publishing what waits, and the farewell.
const FAREWELL: Duration = Duration::from_secs(4);

/// Beyond that, for the queue to be on flash.
const CLOSE: Duration = Duration::from_secs(5);

/// The numbers of gaps have 52 bits, so that every JSON reader keeps them exactly.
const GAP_BITS: u32 = 12;

/// How often the time is saved.
const SAVE_TIME: Duration = Duration::from_secs(3600);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to.
    Stopped,
    /// A part of it broke; the text says which.
    Broken(String),
}

/// Where the one who asks finds the control socket of the gateway with this config: beside its state, or where the
/// unit's `RuntimeDirectory=` has it.
pub fn control_path(config: &Config) -> PathBuf {
    control_path_of(&config.gateway)
}

fn control_path_of(gateway: &config::Gateway) -> PathBuf {
    let beside = control::path(None, &gateway.state_directory);
    let of_unit = control::path(Some(&gateway.runtime_directory), &beside);
    // Where neither is there yet, a gateway that is about to start is meant, and not the system's.
    if of_unit.exists() && !beside.exists() { of_unit } else { beside }
}

/// Runs the gateway until a signal ends it, or `stop` does. `sources` is where the config came from, and is read again
/// for a reload; `handed` is what the process before left.
///
/// # Errors
/// When another process runs on the same state directory, or the system refuses signals.
pub async fn run(config: Config, sources: Sources, handed: Handed, stop: CancellationToken) -> anyhow::Result<Exit> {
    let mut signals = Signals::new().context("signals can't be taken over")?;
    let mut hang_up = HangUp::new().context("SIGHUP can't be taken over")?;
    let mut notifier = Notifier::default();
    let (mut state, opened, before, state_problem) = begin(&config)?;
    tracing::info!(
        MESSAGE_ID = event::STARTED,
        "sluicegate {} starts as {} (start {}; before: {})",
        env!("CARGO_PKG_VERSION"),
        config.gateway.id,
        before.session,
        before.last_exit
    );
    let (problems, own_problems) = watch::channel(state_problem);
    // Before anything asks for the time.
    let (clock_config, clock_config_seen) = watch::channel(config.clock);
    let (clock, clock_changes, clock_problems) = Clock::new(clock_config_seen, state.saved_time());

    // Each stage of the stop has its own token; see `end`.
    let stop_commands = CancellationToken::new();
    let stop_devices = CancellationToken::new();
    let stop_uplink = CancellationToken::new();

    let pulses = ["intake", "router", "uplink"].map(Pulse::new);
    let [intake_pulse, router_pulse, uplink_pulse] = pulses.clone();

    // The queue is there before anything that could fill it.
    let (queue_problems_tx, queue_problems) = watch::channel(Problems::new());
    let first_gap = random_number()? >> GAP_BITS;
    let (queue, keeping, begun) = opened.start(before.epoch, before.previous, first_gap, queue_problems_tx);
    if begun.noted {
        note(state.begin(), &problems);
    }

    // Outputs, as the process before left them.
    let (descriptors, takeover, mark) = handed.resolve(&config.gateway.state_directory);
    match (descriptors.len(), takeover) {
        (0, _) => {}
        (count, Takeover::Keep) => {
            tracing::info!(MESSAGE_ID = event::OUTPUTS_KEPT, "{count} outputs are taken over and keep their values")
        }
        (count, Takeover::Safe) => tracing::warn!(
            MESSAGE_ID = event::OUTPUTS_SAFE,
            "{count} outputs were set to safe: there was no clean stop before"
        ),
    }
    let (descriptors_tx, descriptors_rx) = mpsc::channel(DESCRIPTORS);
    let held = Held::new(descriptors, takeover, descriptors_tx).with_folder(&config.gateway.state_directory);
    let mut storing = TaskSet::new();
    storing.spawn("descriptors", service::store(descriptors_rx));

    // What is in use, for a reload to compare with.
    let (outline, files) = (config.outline(), reload::Files::of(&config));
    let (queue_config, queue_config_seen) = watch::channel(config.queue.clone());
    let (intake_changes, new_routes) = mpsc::channel(CHANGES);
    let (router_changes, new_guards) = mpsc::channel(CHANGES);
    let (uplink_changes, new_uplink) = mpsc::channel(CHANGES);

    // Devices, each with a channel of its own in both directions.
    let supervisor = Supervisor::new(held, stop_devices.clone());
    let (states, tapes) = (supervisor.states(), supervisor.tapes());
    let (answers_tx, answers_rx) = mpsc::channel(ANSWERS);
    let Views { routes, guards, points, kinds } = Views::of(&config.devices);
    let mut devices = Devices::new(supervisor, answers_tx);
    let mut device_sources = Vec::new();
    for device in config.devices {
        device_sources.extend(devices.prepare(&device.plan.device));
        devices.start(device.plan);
    }
    devices.release_unwanted().await;

    // The router's outcomes reach the queue like readings do.
    let (outcomes, outcome_source) = mpsc::channel(ARRIVALS);
    device_sources.push(outcome_source);
    let (last_tx, last) = watch::channel(std::collections::BTreeMap::new());
    let (live, _) = broadcast::channel(LOOK);
    let taps = Taps { last: last_tx, live: live.clone() };
    let mut core = TaskSet::new();
    core.spawn("intake", Intake::new(device_sources, routes, queue.clone(), taps, new_routes, intake_pulse).run());

    let (commands_tx, commands) = mpsc::channel(COMMANDS);
    let (refusals_tx, refusals) = mpsc::channel(REFUSALS);
    let (lost, refusals_lost) = watch::channel(0);
    let (heard_tx, heard) = watch::channel(Duration::ZERO);
    let (command_problems_tx, command_problems) = watch::channel(Problems::new());
    let outcome_lane = queue.clone();
    let parts = command::Parts {
        config: config.command,
        points: guards,
        devices: devices.ways(),
        answers: answers_rx,
        states: states.clone(),
        commands,
        outcomes,
        refusals: refusals_tx,
        lost,
        epoch: before.epoch,
        queued: Box::new(move || queued(&outcome_lane)),
        heard,
        takeover,
        problems: command_problems_tx,
        changes: new_guards,
        pulse: router_pulse,
        stop: stop_commands.clone(),
    };
    let router = command::Router::new(parts, Journal::open(&config.gateway.state_directory));
    core.spawn("router", router.run());

    let (status_tx, mut status) = watch::channel(uplink::Status::Starting);
    let run_before = before.previous.map(|Previous { epoch, clean }| RunBefore { epoch, clean, next_seq: begun.ended });
    let instance = format!("{:016x}", random_number()?);
    let start = Start { instance, session: before.session, last_exit: before.last_exit, before: run_before };
    let uplink = Uplink::new(uplink::Parts {
        link: config.mqtt,
        health: config.health,
        start,
        devices: kinds,
        points,
        queue: queue.clone(),
        reader: queue.reader(&config.queue),
        states: states.clone(),
        last,
        problems: vec![own_problems, queue_problems, clock_problems, command_problems],
        commands: commands_tx,
        refusals,
        refusals_lost,
        status: status_tx,
        memory: resident_memory,
        pulse: uplink_pulse,
        stop: stop_uplink.clone(),
        farewell: FAREWELL,
        clock: clock_changes.clone(),
        clock_wait: config.clock.wait.0,
        heard: heard_tx,
        changes: new_uplink,
    });
    core.spawn("uplink", uplink.run());
    // To the end: what goes out last is dated as well.
    core.spawn("clock", clock.run(stop_uplink.clone()));

    // People may ask from here on.
    let runtime = service::runtime_directory();
    let control_path = control::path(runtime.as_deref(), &config.gateway.state_directory);
    let control = match Control::open(&control_path) {
        Ok(control) => Some(control),
        Err(error) => {
            tracing::warn!("no control socket at {}: {error}", control_path.display());
            None
        }
    };
    let (reloads, mut reloads_asked) = mpsc::channel(RELOADS);
    let answers = Answers {
        gateway: config.gateway.id,
        status: status.clone(),
        states,
        queue: queue.clone(),
        queue_config: queue_config_seen,
        queue_folder: queue::folder(&config.gateway.state_directory),
        live,
        tapes,
        reloads,
    };
    let mut asked = TaskSet::new();
    if let Some(control) = control {
        asked.spawn("control", answers.clone().run(control));
    }

    let mut reload = Reload {
        sources,
        outline,
        files,
        router: router_changes,
        intake: intake_changes,
        uplink: uplink_changes,
        queue: queue.clone(),
        queue_config,
        clock: clock_config,
        problems: problems.clone(),
    };

    // Run: until a signal, or until a part ends that should not.
    let mut watchdog = Watchdog::new(&pulses);
    let period = notifier.watchdog().map_or(Pulse::EVERY, |period| (period / 3).min(Pulse::EVERY));
    let mut tick = tokio::time::interval(period);
    let mut saved = Instant::now();
    let mut stuck = false;
    let mut clock_changes = clock_changes;
    // What the first look found is to be saved as well.
    clock_changes.mark_changed();
    let exit = loop {
        // To whom the answer goes, where a reload is asked for.
        let mut wanted: Option<Option<reload::Ask>> = None;
        tokio::select! {
            signal = signals.end() => {
                tracing::info!(MESSAGE_ID = event::STOPPING, "stopping: {signal}");
                break Exit::Stopped;
            }
            () = hang_up.next() => wanted = Some(None),
            Some(ask) = reloads_asked.recv() => wanted = Some(Some(ask)),
            () = stop.cancelled() => break Exit::Stopped,
            Some(ended) = core.next_ended() => break broken(ended),
            // The supervisor catches what a driver does; this is the supervisor itself.
            Some(ended) = devices.next_ended() => break broken(ended),
            Ok(()) = status.changed() => {}
            Ok(()) = clock_changes.changed() => {
                // Soon, since a board that is switched off by its plug may not see the next hour.
                if time::now().synced {
                    note(state.tick(), &problems);
                }
            }
            _ = tick.tick() => {
                let hangs = watchdog.stuck();
                match hangs {
                    None => notifier.alive(),
                    Some(_) if stuck => {}
                    Some(name) => tracing::error!(MESSAGE_ID = event::STUCK, "{name} is stuck; the watchdog is not fed"),
                }
                stuck = hangs.is_some();
                if saved.elapsed() >= SAVE_TIME {
                    saved = Instant::now();
                    note(state.tick(), &problems);
                }
            }
        }
        if let Some(ask) = wanted {
            notifier.reloading();
            // To its end, which takes some seconds at most: half of it would leave outputs that nobody can make safe. A
            // signal waits for so long.
            let reloaded = reload.run(&mut devices).await;
            notifier.reloaded();
            if ask.is_some_and(|ask| ask.send(reloaded).is_err()) {
                tracing::debug!("who asked for the reload is gone");
            }
        }
        let now = status.borrow().clone();
        if now != uplink::Status::Starting {
            notifier.ready();
        }
        notifier.status(&answers.line());
    };

    // The stop, in the direction of the data: no new commands, those under way end, the devices end, what they sent
    // goes into the queue, what is there goes out, the farewell.
    notifier.stopping();
    notifier.status("stopping");
    let deadline = Instant::now() + STOP_BUDGET;
    stop_commands.cancel();
    wait_for(&mut core, "router", deadline - FAREWELL * 2).await;
    stop_devices.cancel();
    late(devices.end(deadline - FAREWELL - FAREWELL / 2).await);
    wait_for(&mut core, "intake", deadline - FAREWELL - FAREWELL / 2).await;
    stop_uplink.cancel();
    late(core.drain(deadline).await);
    late(storing.drain(deadline).await);
    drop(asked);
    let waiting: u64 = queue.status().iter().map(|lane| lane.depth).sum();
    let kept = tokio::time::timeout(CLOSE, keeping.close()).await.unwrap_or(false);
    // What systemd shows from now on.
    notifier.status(&format!("stopped; {}", answers::waiting_records(waiting)));
    match (waiting, kept) {
        (0, true) => {}
        (_, true) => tracing::info!(MESSAGE_ID = event::RECORDS_WAIT, "{waiting} records wait for the next start"),
        (_, false) => tracing::error!(
            MESSAGE_ID = event::RECORDS_LOST,
            "not all of {waiting} records could be kept; the next start will tell"
        ),
    }
    let reason = match &exit {
        Exit::Stopped => "stop",
        Exit::Broken(why) => {
            tracing::error!(MESSAGE_ID = event::BROKEN, "stopped because {why}");
            why
        }
    };
    note(state.end(reason, kept), &problems);
    if exit == Exit::Stopped
        && let Err(error) = handed::leave_mark(&mark)
    {
        tracing::warn!("the next start will take this stop for a crash: {}: {error}", mark.display());
    }
    Ok(exit)
}

/// A task that should not have ended did.
fn broken(ended: Ended) -> Exit {
    Exit::Broken(format!("{} ended: {}", ended.name, ended.panic.unwrap_or_default()))
}

/// Takes the state directory over. One that can't be written is a problem and no reason not to start.
fn begin(config: &Config) -> anyhow::Result<(State, Opened, state::Before, Problems)> {
    let directory = &config.gateway.state_directory;
    let mut problems = Problems::new();
    let mut raise = |error: StateError| {
        tracing::error!(MESSAGE_ID = event::STATE_UNWRITTEN, "{error}");
        raise(&mut problems, error.to_string());
    };
    let mut state = match State::open(directory) {
        Ok(state) => state,
        Err(error @ StateError::Locked(_)) => return Err(error.into()),
        Err(error) => {
            raise(error);
            State::nowhere(directory)
        }
    };
    if let Some(text) = state.told() {
        tracing::error!("{text}");
        let problem = Problem { code: "state", text, since: time::now() };
        problems.insert(("state", "later".to_owned()), problem);
    }
    let opened = Queue::open(&config.queue, &queue::folder(directory));
    let random = u16::try_from(random_number()? >> 48).unwrap_or_default();
    let before = state.count(random, opened.highest_epoch());
    Ok((state, opened, before, problems))
}

/// How the lane of outcomes is.
fn queued(queue: &Queue) -> Queued {
    let status = queue.status();
    let lane = status.iter().find(|lane| lane.lane == Lane::Outcome);
    lane.map(|lane| Queued { durable: lane.durable, waiting: lane.depth }).unwrap_or_default()
}

fn raise(problems: &mut Problems, text: String) {
    problems.insert(("state", String::new()), Problem { code: "state", text, since: time::now() });
}

/// Tells once that the state could not be written, and that it can again.
fn note<E: std::fmt::Display>(written: Result<(), E>, problems: &watch::Sender<Problems>) {
    match written {
        Ok(()) => {}
        Err(error) => {
            tracing::error!(MESSAGE_ID = event::STATE_UNWRITTEN, "the state could not be written: {error}");
            problems.send_modify(|problems| raise(problems, format!("the state could not be written: {error}")));
        }
    }
}

/// Waits for one task of the set. Others that end meanwhile were told to.
async fn wait_for(tasks: &mut TaskSet, name: &str, deadline: Instant) {
    loop {
        match tokio::time::timeout_at(deadline, tasks.next_ended()).await {
            Ok(Some(ended)) if ended.name.as_ref() == name => return,
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(_) => return tracing::warn!("{name} did not end in its time"),
        }
    }
}

fn late(names: Vec<std::sync::Arc<str>>) {
    for name in names {
        tracing::warn!("{name} did not end in its time");
    }
}

fn random_number() -> anyhow::Result<u64> {
    getrandom::u64().context("no random numbers")
}
