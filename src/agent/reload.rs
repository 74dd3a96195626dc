//! A new config while the gateway runs: read again, compared with the one in use, and taken over where it differs.
//!
//! The order is such that no reading and no command falls between two configs: the router first, so that no command
//! goes to a driver that is about to stop; then the drivers that go; then the intake and the uplink, which so know each
//! point before its first reading comes; then the drivers that come. A config that is wrong, or that can't be taken
//! over while the gateway runs, changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::devices::{Devices, Views};
use crate::config::{self, Config, ConfigError, Device, Difference, Fate, Outline, Places, Sources};
use crate::model::{DeviceName, Lane, Problem, Problems, event, time};
use crate::queue::{self, Queue};
use crate::service::control::{self, Question};
use crate::{command, link, uplink};

/// For the drivers that have to stop: a write that is under way may take 5 s.
const BUDGET: Duration = Duration::from_secs(6);

/// For a loop to take a change over; one that takes longer gets to it when it comes around.
const PATIENCE: Duration = Duration::from_secs(3);

/// Changes that may wait for one loop; then the next reload waits.
pub(super) const CHANGES: usize = 8;

/// Where the answer to one who asked for a reload goes.
pub(super) type Ask = oneshot::Sender<Reloaded>;

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reloaded {
    /// The new config is in use.
    Done {
        /// What changed, a line each.
        changed: Vec<String>,
        /// Keys that take effect at the next start.
        later: Vec<String>,
    },
    /// The old config goes on, because of these faults of the new one.
    Refused(Vec<String>),
}

/// The files that the config names, as they were looked at: of `[mqtt]`, and of devices that are links.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Files {
    mqtt: link::Files,
    devices: BTreeMap<DeviceName, link::Files>,
}

impl Files {
    /// Looks at them. Blocks on the file system.
    pub(super) fn of(config: &Config) -> Self {
        let of_device = |device: &config::Device| {
            let plan = &device.plan;
            plan.driver.link().map(|link| (plan.device.clone(), link.files()))
        };
        Files { mqtt: config.mqtt.files(), devices: config.devices.iter().filter_map(of_device).collect() }
    }
}

/// What is needed for a reload.
#[derive(Debug)]
pub(super) struct Reload {
    /// Where the config is read from: what it was at the start.
    pub(super) sources: Sources,
    pub(super) outline: Outline,
    pub(super) files: Files,
    pub(super) router: mpsc::Sender<command::Change>,
    pub(super) intake: mpsc::Sender<queue::Change>,
    pub(super) uplink: mpsc::Sender<uplink::Change>,
    pub(super) queue: Queue,
    pub(super) queue_config: watch::Sender<queue::Config>,
    pub(super) clock: watch::Sender<config::Clock>,
    pub(super) problems: watch::Sender<Problems>,
}

impl Reload {
    /// Reads the config again, and takes it over.
    pub(super) async fn run(&mut self, devices: &mut Devices) -> Reloaded {
        let reloaded = match self.read().await {
            Ok((config, files, has_link)) => self.compare(config, files, has_link, devices).await,
            Err(faults) => Reloaded::Refused(faults),
        };
        match &reloaded {
            Reloaded::Done { changed, later } => {
                let said = |lines: &[String]| if lines.is_empty() { "nothing".to_owned() } else { lines.join("; ") };
                let later =
                    if later.is_empty() { String::new() } else { format!("; at the next start: {}", later.join(", ")) };
                tracing::info!(MESSAGE_ID = event::CONFIG_TAKEN, "the config was read again: {}{later}", said(changed));
                self.problems.send_if_modified(|problems| problems.remove(&key()).is_some());
            }
            Reloaded::Refused(faults) => {
                let text = format!("the new config is refused, and the old one goes on: {}", faults.join("; "));
                tracing::error!(MESSAGE_ID = event::CONFIG_REFUSED, "{text}");
                self.problems.send_modify(|problems| {
                    let since = problems.get(&key()).map_or_else(time::now, |known| known.since);
                    problems.insert(key(), Problem { code: "config", text, since });
                });
            }
        }
        reloaded
    }

    /// Reads all files, in a thread of their own. The last is whether the link has to be made anew.
    async fn read(&self) -> Result<(Config, Files, bool), Vec<String>> {
        let (sources, mqtt, files) = (self.sources.clone(), self.outline.mqtt.clone(), self.files.clone());
        let read = move || {
            let shown = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
            let config = config::load(&sources).map_err(shown)?;
            let new_files = Files::of(&config);
            let has_link = new_files.mqtt != files.mqtt || config.mqtt != mqtt;
            if has_link {
                // A good link is not given up for files that can't be used.
                config.mqtt.check_files().map_err(|error| vec![format!("mqtt: {error}")])?;
            }
            for Device { plan, .. } in &config.devices {
                let old = files.devices.get(&plan.device);
                if let Some(link) = plan.driver.link()
                    && old.is_some_and(|old| new_files.devices.get(&plan.device) != Some(old))
                {
                    link.check_files().map_err(|error| vec![format!("device.{}: {error}", plan.device)])?;
                }
            }
            Ok((config, new_files, has_link))
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.unwrap_or_else(|error| Err(vec![format!("the config could not be read: {error}")]))
    }

    async fn compare(&mut self, config: Config, files: Files, has_link: bool, devices: &mut Devices) -> Reloaded {
        let mut outline = config.outline();
        let mut difference = self.outline.compare(&outline);
        for (device, new) in &files.devices {
            if self.files.devices.get(device).is_some_and(|old| old != new) {
                difference.devices.insert(device.clone(), Fate::Changed);
            }
        }
        if !difference.fixed.is_empty() {
            return Reloaded::Refused(difference.fixed);
        }
        let mut changed = difference.lines();
        if files.mqtt != self.files.mqtt {
            changed.push("[mqtt]: the files that it names were replaced".to_owned());
        }
        if !changed.is_empty() {
            self.take_over(config, &difference, has_link, devices).await;
        }
        // Named again with each reload, until it is so.
        for lane in Lane::ALL {
            outline.queue.lane_mut(lane).sync = self.outline.queue.lane(lane).sync;
        }
        (self.outline, self.files) = (outline, files);
        Reloaded::Done { changed, later: difference.later }
    }

    async fn take_over(&self, config: Config, difference: &Difference, has_link: bool, devices: &mut Devices) {
        let coming = difference.devices_that_are(&[Fate::Added, Fate::Changed]);
        let going = difference.devices_that_are(&[Fate::Removed, Fate::Changed]);
        let removed = difference.devices_that_are(&[Fate::Removed]);
        let Views { routes, guards, points, kinds } = Views::of(&config.devices);
        let sources = coming.iter().filter_map(|device| devices.prepare(device)).collect();
        let mut ways = devices.ways();
        ways.retain(|device, _| !removed.contains(device));
        tell(&self.router, command::Change { config: config.command, points: guards, devices: ways }).await;
        for late in devices.stop(&going, Instant::now() + BUDGET).await {
            tracing::warn!("{late} did not end in its time");
        }
        for device in &removed {
            devices.remove(device);
        }
        self.queue.change(&config.queue);
        self.clock.send_replace(config.clock);
        tell(&self.intake, queue::Change { routes, sources }).await;
        let link = has_link.then_some(config.mqtt);
        let (health, clock_wait, replay) = (config.health, config.clock.wait.0, config.queue.replay.rate);
        tell(&self.uplink, uplink::Change { link, health, devices: kinds, points, replay, clock_wait }).await;
        self.queue_config.send_replace(config.queue);
        // Only now: the uplink clears what is retained of a device, and says no `offline` before that.
        for device in &removed {
            devices.forget(device);
        }
        for device in config.devices.into_iter().filter(|device| coming.contains(&device.plan.device)) {
            devices.start(device.plan);
        }
        devices.release_unwanted().await;
    }
}

/// Asks the gateway that runs to read its config again, wherever it has it from. `sources` only helps to find it, and
/// may be wrong.
///
/// # Errors
/// When none answers.
pub async fn ask_to_reload(sources: &Sources) -> anyhow::Result<Reloaded> {
    // systemd gives it to those that it starts in the service's name.
    let runtime =
        std::env::var_os("RUNTIME_DIRECTORY").map(|folder| control::path(Some(folder.as_ref()), Path::new("")));
    let known = || config::gateway(sources).map(|gateway| super::control_path_of(&gateway));
    // Who names a file means the gateway of that file, and not the system's.
    let is_system = matches!(sources.places, Places::Standard(_));
    let of_unit = || is_system.then(|| control::path(Some(&sources.runtime_directory()), Path::new("")));
    let path = runtime.filter(|path| path.exists()).or_else(known).or_else(of_unit);
    let path = path.context("no gateway is found by this config")?;
    let mut reloaded = None;
    let read = |line: &str| {
        reloaded = Some(serde_json::from_str(line));
        false
    };
    control::ask(&path, &Question::Reload, read)
        .await
        .with_context(|| format!("no gateway answers at {}; is it running?", path.display()))?;
    let answer = reloaded.context("the gateway did not answer: it ended, or is of another version")?;
    answer.context("the gateway's answer is not understood: is it of another version?")
}

/// Gives a change to a loop, and waits until it has taken it.
async fn tell<T>(loop_of: &mpsc::Sender<T>, change: T) {
    // A loop that has ended ends the gateway, which has nothing to do with this.
    if loop_of.send(change).await.is_err() {
        return;
    }
    if tokio::time::timeout(PATIENCE, loop_of.reserve_many(CHANGES)).await.is_err() {
        tracing::warn!("a part of the gateway takes long to take the new config over");
    }
}

fn key() -> (&'static str, String) {
    ("config", String::new())
}
