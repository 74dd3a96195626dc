//! What the running gateway answers to those who ask through the control socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::queue::{LaneLine, show as show_record};
use super::reload::Ask;
use crate::device::Tapes;
use crate::model::{DeviceState, DeviceStates, GatewayId, Lane, Number, Reading, Record, time};
use crate::queue::{self, Look, Queue};
use crate::service::control::{Asker, Control, Question};
use crate::task::TaskSet;
use crate::uplink::Status;

/// Records on their way from the files to the one who asked; then the reading waits.
const LINES: usize = 64;

/// Devices that are away and named in the line for `systemctl status`; of more it says how many.
const NAMED: usize = 3;

/// Letters of each one's reason there.
const REASON: usize = 60;

/// After a socket error the next attempt waits, so that a broken one does not spin.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Where the answers come from.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub(super) gateway: GatewayId,
    pub(super) status: watch::Receiver<Status>,
    pub(super) states: watch::Receiver<DeviceStates>,
    pub(super) queue: Queue,
    pub(super) queue_config: watch::Receiver<queue::Config>,
    pub(super) queue_folder: PathBuf,
    pub(super) live: broadcast::Sender<Reading>,
    /// What the devices say can be recorded here.
    pub(super) tapes: Tapes,
    /// Who wants the config to be read again.
    pub(super) reloads: mpsc::Sender<Ask>,
}

impl Answers {
    /// Answers until it is dropped.
    pub(super) async fn run(self, control: Control) {
        let mut askers = TaskSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = control.accept() => accepted,
                Some(_) = askers.next_ended() => continue,
            };
            match accepted {
                Ok(asker) => {
                    let answers = self.clone();
                    askers.spawn("asker", async move {
                        if let Err(error) = answers.answer(asker).await {
                            tracing::debug!("control socket: {error}");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("control socket: {error}");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
    }

    async fn answer(&self, mut asker: Asker) -> std::io::Result<()> {
        match asker.question().await? {
            Question::Status => asker.line(&self.status_json().to_string()).await,
            Question::Records { lane } => self.records(&mut asker, lane.as_deref()).await,
            Question::Reload => {
                let (ask, answer) = oneshot::channel();
                if self.reloads.send(ask).await.is_err() {
                    return Ok(());
                }
                // None comes where the gateway stops meanwhile.
                let Ok(reloaded) = answer.await else { return Ok(()) };
                asker.line(&serde_json::to_string(&reloaded).map_err(std::io::Error::other)?).await
            }
            Question::Record { device } => self.record(&mut asker, &device).await,
            Question::Try { device } => {
                let mut live = self.live.subscribe();
                loop {
                    // A device may say nothing for long: the end of the asker must not wait for its next reading.
                    let next = tokio::select! {
                        next = live.recv() => next,
                        () = asker.gone() => return Ok(()),
                    };
                    match next {
                        Ok(reading) if reading.device.as_str() == device => asker.line(&show(&reading)).await?,
                        Ok(_) => {}
                        Err(broadcast::error::RecvError::Lagged(count)) => {
                            asker.line(&format!("… {count} readings passed by too fast to show")).await?;
                        }
                        Err(broadcast::error::RecvError::Closed) => return Ok(()),
                    }
                }
            }
        }
    }

    /// What goes between a device and its driver, until the asker or the device ends it.
    async fn record(&self, asker: &mut Asker, device: &str) -> std::io::Result<()> {
        let mut recording = match self.tapes.record(device) {
            Ok(recording) => recording,
            Err(text) => return asker.line(&json!({ "error": text }).to_string()).await,
        };
        loop {
            let line = tokio::select! {
                line = recording.next() => line,
                () = asker.gone() => None,
            };
            let Some(line) = line else { break };
            asker.line(&line).await?;
        }
        for line in recording.finish() {
            asker.line(&line).await?;
        }
        Ok(())
    }

    /// The records that wait: those on flash, read in a thread of their own, and then those in RAM.
    async fn records(&self, asker: &mut Asker, lane: Option<&str>) -> std::io::Result<()> {
        let lanes: Vec<Lane> =
            Lane::ALL.into_iter().filter(|of| lane.is_none_or(|lane| lane == of.to_string())).collect();
        // First, so that what goes from RAM to flash meanwhile is not missed.
        let in_ram: Vec<Record> = lanes.iter().flat_map(|lane| self.queue.in_ram(*lane)).collect();
        let ram_from = |lane: Lane| in_ram.iter().find(|of| of.lane == lane).map(|of| of.number);
        let ram_from: [Option<Number>; 3] = Lane::ALL.map(ram_from);
        let (lines, mut read) = mpsc::channel(LINES);
        let (config, folder) = (self.queue_config.borrow().clone(), self.queue_folder.clone());
        let reading = tokio::task::spawn_blocking(move || {
            if let Ok(mut look) = Look::into_folder(&config, &folder) {
                look.records(|record| lines.blocking_send(record).is_ok());
            }
        });
        while let Some(record) = read.recv().await {
            let is_in_ram = ram_from[record.lane.index()].is_some_and(|from| record.number >= from);
            if lanes.contains(&record.lane) && !is_in_ram {
                asker.line(&show_record(&record)).await?;
            }
        }
        reading.await.map_err(std::io::Error::other)?;
        for record in &in_ram {
            asker.line(&show_record(record)).await?;
        }
        Ok(())
    }

    fn status_json(&self) -> serde_json::Value {
        let now = time::now();
        let devices: BTreeMap<String, serde_json::Value> = self
            .states
            .borrow()
            .iter()
            .map(|(device, state)| {
                let state = match state {
                    DeviceState::Starting => json!({ "state": "starting" }),
                    DeviceState::Online => json!({ "state": "online" }),
                    DeviceState::Offline { why, since } => {
                        json!({ "state": "offline", "why": why, "since": since.dated(&now).rfc3339() })
                    }
                };
                (device.to_string(), state)
            })
            .collect();
        let lanes: BTreeMap<String, serde_json::Value> = self
            .queue
            .status()
            .into_iter()
            .map(|status| (status.lane.to_string(), json!(LaneLine::new(status))))
            .collect();
        json!({
            "gateway": self.gateway.as_str(),
            "link": self.status.borrow().to_string(),
            "devices": devices,
            "epoch": self.queue.epoch(),
            "queue": lanes,
        })
    }

    /// One line for `systemctl status`.
    pub(super) fn line(&self) -> String {
        let waiting = self.queue.status().iter().map(|lane| lane.depth).sum();
        at_a_glance(&self.status.borrow(), &self.states.borrow(), waiting)
    }
}

/// How many records wait, for people.
pub(super) fn waiting_records(count: u64) -> String {
    if count == 1 { "1 record waits".to_owned() } else { format!("{count} records wait") }
}

/// The link, the devices, and why those that are away are, and how many records wait.
fn at_a_glance(link: &Status, states: &DeviceStates, waiting: u64) -> String {
    let away = states.iter().filter_map(|(device, state)| match state {
        DeviceState::Online => None,
        DeviceState::Starting => Some(format!("{device}: starting")),
        DeviceState::Offline { why, .. } => Some(format!("{device}: {}", start_of(why))),
    });
    let away: Vec<String> = away.collect();
    let online = states.len() - away.len();
    let mut named = away.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    if away.len() > NAMED {
        named = format!("{named}; and {} more", away.len() - NAMED);
    }
    let devices = match states.len() {
        0 => "no devices".to_owned(),
        count if online == count => format!("{online} of {count} devices online"),
        count => format!("{online} of {count} devices online ({named})"),
    };
    format!("{link}; {devices}; {}", waiting_records(waiting))
}

/// As much of a reason as a line for all devices has room for. Most say what is wrong first, and then what to do.
fn start_of(why: &str) -> String {
    match why.char_indices().nth(REASON) {
        Some((end, _)) => format!("{}…", why.get(..end).unwrap_or(why).trim_end()),
        None => why.to_owned(),
    }
}

/// A reading as a line for a person.
pub(super) fn show(reading: &Reading) -> String {
    let time =
        reading.timestamp.rfc3339().unwrap_or_else(|| format!("+{:.3}s", reading.timestamp.uptime.as_secs_f64()));
    let value = reading.value.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let quality = format!("{:?}", reading.quality).to_lowercase();
    format!("{time}  {}/{} = {value}  ({quality})", reading.device, reading.point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DeviceName;

    #[test]
    fn systemctl_status_shows_link_devices_and_backlog_in_one_line() {
        let online = Status::Online { url: "mqtts://b".to_owned() };
        let away = |why: &str| DeviceState::Offline { why: why.to_owned(), since: time::now() };
        let long = "x".repeat(99);
        for (states, waiting, expected) in [
            (vec![], 0, "no devices; 0 records wait".to_owned()),
            (vec![DeviceState::Online], 1, "1 of 1 devices online; 1 record waits".to_owned()),
            (
                vec![DeviceState::Online, away("unplugged"), DeviceState::Starting],
                120,
                "1 of 3 devices online (d1: unplugged; d2: starting); 120 records wait".to_owned(),
            ),
            (
                vec![away(&long), away("b"), away("c"), away("d"), away("e")],
                0,
                format!("0 of 5 devices online (d0: {}…; d1: b; d2: c; and 2 more); 0 records wait", "x".repeat(60)),
            ),
        ] {
            let name = |number| DeviceName::new(&format!("d{number}")).unwrap();
            let states = states.into_iter().enumerate().map(|(number, state)| (name(number), state)).collect();
            assert_eq!(at_a_glance(&online, &states, waiting), format!("online at mqtts://b; {expected}"));
        }
    }
}
