//! The devices that run: each can be started and stopped alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ARRIVALS, WRITES};
use crate::config::{self, PointPlan};
use crate::device::{Plan, Supervisor, Wiring};
use crate::model::{Answer, Arrival, DeviceName, Point, PointKey, Write};
use crate::queue::Route;
use crate::task::{Ended, TaskSet};
use crate::{command, uplink};

/// The devices of the config in use.
#[derive(Debug)]
pub(super) struct Devices {
    supervisor: Supervisor,
    answers: mpsc::Sender<Answer>,
    places: BTreeMap<DeviceName, Place>,
}

/// What stays of a device while its driver is exchanged, and the driver.
#[derive(Debug)]
struct Place {
    /// Kept for the next driver, so that its readings come behind those of this one.
    arrivals: mpsc::Sender<Arrival>,
    way: mpsc::Sender<Write>,
    /// For the driver that is to be started.
    writes: Option<mpsc::Receiver<Write>>,
    tasks: TaskSet,
    stop: CancellationToken,
}

/// What the other rooms know of the devices of a config.
#[derive(Debug, Default)]
pub(super) struct Views {
    pub(super) routes: HashMap<PointKey, Route>,
    pub(super) guards: Vec<(Point, command::PointConfig)>,
    pub(super) points: Vec<uplink::PointPlan>,
    pub(super) kinds: BTreeMap<DeviceName, &'static str>,
}

impl Views {
    pub(super) fn of(devices: &[config::Device]) -> Self {
        let mut views = Views::default();
        for device in devices {
            views.kinds.insert(device.plan.device.clone(), device.plan.kind);
            for PointPlan { point, command, queue, uplink } in device.points.iter().cloned() {
                views.routes.insert(point.key(), Route { lane: queue.lane, keep: queue.keep, retain: uplink.retain });
                views.guards.push((point.clone(), command));
                views.points.push(uplink::PointPlan { point, config: uplink });
            }
        }
        views
    }
}

impl Devices {
    /// None yet. `answers`: what they say to commands.
    pub(super) fn new(supervisor: Supervisor, answers: mpsc::Sender<Answer>) -> Self {
        Devices { supervisor, answers, places: BTreeMap::new() }
    }

    /// Makes the channels for a driver that is about to be started: commands may come from now on, and wait for it. The
    /// result is where its readings will come from; `None` where they come from the same place as before.
    pub(super) fn prepare(&mut self, device: &DeviceName) -> Option<mpsc::Receiver<Arrival>> {
        let (way, writes) = mpsc::channel(WRITES);
        if let Some(place) = self.places.get_mut(device) {
            (place.way, place.writes) = (way, Some(writes));
            return None;
        }
        let (arrivals, source) = mpsc::channel(ARRIVALS);
        let (tasks, stop) = (TaskSet::new(), CancellationToken::new());
        self.places.insert(device.clone(), Place { arrivals, way, writes: Some(writes), tasks, stop });
        Some(source)
    }

    /// Starts a driver that was prepared.
    pub(super) fn start(&mut self, plan: Plan) {
        let Some(place) = self.places.get_mut(&plan.device) else { return };
        let Some(writes) = place.writes.take() else { return };
        let wiring = Wiring { arrivals: place.arrivals.clone(), writes, answers: self.answers.clone() };
        place.stop = self.supervisor.start(&mut place.tasks, plan, wiring);
    }

    /// Where each device takes its writes.
    pub(super) fn ways(&self) -> HashMap<DeviceName, mpsc::Sender<Write>> {
        self.places.iter().map(|(device, place)| (device.clone(), place.way.clone())).collect()
    }

    /// Stops the drivers of these devices. The result names those that did not end in time, and had to be ended.
    pub(super) async fn stop(&mut self, devices: &[DeviceName], deadline: Instant) -> Vec<Arc<str>> {
        for device in devices {
            if let Some(place) = self.places.get(device) {
                place.stop.cancel();
            }
        }
        let mut late = Vec::new();
        for device in devices {
            if let Some(place) = self.places.get_mut(device) {
                late.extend(place.tasks.drain(deadline).await);
            }
        }
        late
    }

    /// Lets go of a device that was stopped: no reading comes from it any more.
    pub(super) fn remove(&mut self, device: &DeviceName) {
        self.places.remove(device);
    }

    /// The state of a device that was removed goes as well.
    pub(super) fn forget(&self, device: &DeviceName) {
        self.supervisor.forget(device);
    }

    /// Lets go of the outputs that no device wants any more, at their safe values: once all have started.
    pub(super) async fn release_unwanted(&self) {
        self.supervisor.release_unwanted().await;
    }

    /// Waits until a driver's task ends that should not; `None`: there is none. Cancel-safe.
    pub(super) async fn next_ended(&mut self) -> Option<Ended> {
        let mut ends: FuturesUnordered<_> = self.places.values_mut().map(|place| place.tasks.next_ended()).collect();
        while let Some(ended) = ends.next().await {
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    /// Stops all of them, for good. The result names those that had to be ended.
    pub(super) async fn end(mut self, deadline: Instant) -> Vec<Arc<str>> {
        let all: Vec<DeviceName> = self.places.keys().cloned().collect();
        self.stop(&all, deadline).await
    }
}
