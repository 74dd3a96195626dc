//! `sluicegate try DEVICE`: what a device would publish, live.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ANSWERS, ARRIVALS, STOP_BUDGET, WRITES, answers, clock, control_path};
use crate::config::Config;
use crate::device::{Held, Supervisor, Wiring};
use crate::model::{Arrival, DeviceState};
use crate::service::Signals;
use crate::service::control::{self, Question};
use crate::task::TaskSet;

/// Shows a device's readings, a line each, until `line` says that it is enough or a signal comes. Where the daemon
/// runs, it is asked; else the device is opened here.
///
/// # Errors
/// When the config has no such device.
pub async fn try_device(config: Config, name: &str, mut line: impl FnMut(&str) -> bool + Send) -> anyhow::Result<()> {
    let known: Vec<String> = config.devices.iter().map(|device| device.plan.device.to_string()).collect();
    let path = control_path(&config);
    let Some(device) = config.devices.into_iter().find(|device| device.plan.device.as_str() == name) else {
        bail!("there is no device `{name}` in the config: expected one of {}", known.join(", "));
    };
    let question = Question::Try { device: name.to_owned() };
    let mut signals = Signals::new().context("signals can't be taken over")?;
    if tokio::net::UnixStream::connect(&path).await.is_ok() {
        line(&format!("# asking the running gateway at {}", path.display()));
        return tokio::select! {
            asked = control::ask(&path, &question, line) => asked.context("the gateway went away"),
            _ = signals.end() => Ok(()),
        };
    }
    clock::look_once(config.clock);
    let stop = CancellationToken::new();
    let supervisor = Supervisor::new(Held::nothing(), stop.clone());
    let mut tasks = TaskSet::new();
    let (arrivals, mut readings) = mpsc::channel(ARRIVALS);
    // Nobody commands here; the ends are kept so that the driver does not take it for the end.
    let (_writes, writes) = mpsc::channel(WRITES);
    let (answers, _answers) = mpsc::channel(ANSWERS);
    let mut states = supervisor.states();
    supervisor.start(&mut tasks, device.plan, Wiring { arrivals, writes, answers });
    let mut shown = BTreeMap::new();
    loop {
        let text = tokio::select! {
            // A device's state is shown before what it read in that state.
            biased;
            _ = signals.end() => break,
            Ok(()) = states.changed() => {
                let now = states.borrow_and_update().clone();
                if now == shown {
                    continue;
                }
                shown = now;
                match shown.values().next() {
                    Some(DeviceState::Online) => "# online".to_owned(),
                    Some(DeviceState::Offline { why, .. }) => format!("# offline: {why}"),
                    Some(DeviceState::Starting) | None => continue,
                }
            }
            arrival = readings.recv() => match arrival {
                Some(Arrival::Reading(reading)) => answers::show(&reading),
                Some(Arrival::Lost { count, .. }) => format!("# {count} readings came too fast"),
                Some(Arrival::Outcome(_)) => continue,
                None => break,
            },
        };
        if !line(&text) {
            break;
        }
    }
    stop.cancel();
    drop(readings);
    tasks.drain(Instant::now() + STOP_BUDGET).await;
    Ok(())
}
