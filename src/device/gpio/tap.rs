//! The lines of one device, and what was last seen on each: debounce, missed edges, and the look now and then.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::config::Drive;
use super::line::{Edge, Line};
use super::{POLL, Want};
use crate::device::{DeviceError, DeviceIo};
use crate::model::{PointName, Timestamp, Value, time};

/// A line of a point.
pub(super) struct Tap {
    name: PointName,
    /// As the config names it, for messages.
    place: String,
    line: Box<dyn Line>,
    is_output: bool,
    /// An output that is driven to both levels, so that it reads as it was set.
    pushes: bool,
    /// What was last reported.
    level: bool,
    /// The debounce that is left to us.
    debounce: Option<Duration>,
    /// When the level counts, if nothing moves until then.
    settles: Option<Instant>,
    /// When the line is to be asked next, where it does not tell by itself.
    poll: Option<Instant>,
}

/// The lines of a device.
#[derive(Default)]
pub(super) struct Taps {
    taps: Vec<Tap>,
    edges: Vec<Edge>,
    /// Where the next look for edges begins, so that a bouncing line does not silence those after it.
    first: usize,
}

/// Something to tell of a point.
#[derive(Debug, PartialEq)]
pub(super) enum Report {
    /// Its level, and since when.
    Level(PointName, bool, Timestamp),
    /// So many edges that nobody took in time.
    Lost(PointName, u32),
}

impl Report {
    pub(super) async fn send(self, io: &mut DeviceIo) {
        match self {
            Report::Level(name, level, at) => io.report_at(&name, &Value::Bool(level), at).await,
            Report::Lost(name, count) => io.lost(Some(&name), u64::from(count)),
        }
    }
}

impl Tap {
    pub(super) fn new(want: &Want, line: Box<dyn Line>) -> Self {
        let skill = line.skill();
        let debounce = want.config.debounce.map(|span| span.0).filter(|_| !skill.debounced);
        let is_output = want.output.is_some();
        Tap {
            name: want.point.clone(),
            place: want.config.line.to_string(),
            line,
            is_output,
            pushes: matches!(want.config.drive, None | Some(Drive::PushPull)),
            level: false,
            debounce,
            settles: None,
            poll: (!is_output && !skill.edges).then(|| Instant::now() + POLL),
        }
    }

    pub(super) fn name(&self) -> &PointName {
        &self.name
    }

    pub(super) fn is_output(&self) -> bool {
        self.is_output
    }

    /// Asks for the level; from now on it is the known one.
    pub(super) fn ask(&mut self) -> Result<bool, DeviceError> {
        self.level = self.line.level().map_err(|error| self.lost(&error))?;
        Ok(self.level)
    }

    fn lost(&self, error: &io::Error) -> DeviceError {
        DeviceError::Lost(format!("point `{}`: {} is gone: {error}", self.name, self.place))
    }

    /// What these edges are worth telling.
    fn take(&mut self, edges: &[Edge], reports: &mut Vec<Report>) -> Result<(), DeviceError> {
        if let Some(debounce) = self.debounce {
            self.settles = Some(Instant::now() + debounce);
            return Ok(());
        }
        for edge in edges {
            if let Some(missed @ 1..) = edge.missed {
                // After an odd number of them this one brings no other level: it is told with them.
                let silent = u32::from(edge.level == self.level);
                reports.push(Report::Lost(self.name.clone(), missed.saturating_add(silent)));
            }
            self.found(edge.level, edge.at, reports);
        }
        // Where they are not counted, the newest ones are dropped. Else the last edge has yet to be read, and has its date.
        if edges.iter().any(|edge| edge.missed.is_none()) {
            let level = self.line.level().map_err(|error| self.lost(&error))?;
            self.found(level, time::now(), reports);
        }
        Ok(())
    }

    /// What waits at the kernel.
    fn rest(&mut self, reports: &mut Vec<Report>) -> Result<(), DeviceError> {
        let mut edges = Vec::new();
        let waiting = self.line.waiting(&mut edges).map_err(|error| self.lost(&error));
        if edges.is_empty() { waiting } else { self.take(&edges, reports).and(waiting) }
    }

    /// The line has this level.
    fn found(&mut self, level: bool, at: Timestamp, reports: &mut Vec<Report>) {
        if level != self.level && !self.is_output {
            self.level = level;
            reports.push(Report::Level(self.name.clone(), level, at));
        }
    }

    /// Asks for the level where its time has come, or anyway.
    fn settled(&mut self, now: Instant, anyway: bool, reports: &mut Vec<Report>) -> Result<(), DeviceError> {
        let polled = self.poll.is_some_and(|poll| poll <= now);
        if polled {
            self.poll = Some(now + POLL);
        }
        let is_settled = |settles: Option<Instant>| settles.is_some_and(|settles| settles <= now);
        if !is_settled(self.settles) && !polled && !anyway {
            return Ok(());
        }
        // An edge that nobody was told of yet has its own date, and not that of this look, and what it moves has not
        // settled.
        self.rest(reports)?;
        let settled = is_settled(self.settles);
        let level = self.line.level().map_err(|error| self.lost(&error))?;
        match (self.debounce, self.settles) {
            // It moved, and has not held for long enough.
            (Some(_), Some(_)) if !settled => {}
            (Some(debounce), None) if level != self.level => self.settles = Some(now + debounce),
            _ => {
                self.settles = None;
                self.found(level, time::now(), reports);
            }
        }
        Ok(())
    }
}

impl Taps {
    pub(super) fn push(&mut self, tap: Tap) {
        self.taps.push(tap);
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Tap> {
        self.taps.iter_mut()
    }

    /// When [`Taps::settled`] has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.taps.iter().flat_map(|tap| [tap.settles, tap.poll]).flatten().min()
    }

    /// Waits for edges. Cancel-safe. Here and below, what was found before a line was gone is among the reports all the same.
    pub(super) async fn moved(&mut self, reports: &mut Vec<Report>) -> Result<(), DeviceError> {
        poll_fn(|context| self.poll_moved(context, reports)).await
    }

    fn poll_moved(&mut self, context: &mut Context<'_>, reports: &mut Vec<Report>) -> Poll<Result<(), DeviceError>> {
        for step in 0..self.taps.len() {
            let index = (self.first + step) % self.taps.len();
            let Some(tap) = self.taps.get_mut(index) else { continue };
            self.edges.clear();
            if let Poll::Ready(moved) = tap.line.poll_edges(context, &mut self.edges) {
                self.first = index + 1;
                let moved = moved.map_err(|error| tap.lost(&error));
                return Poll::Ready(tap.take(&self.edges, reports).and(moved));
            }
        }
        Poll::Pending
    }

    /// Asks the lines whose time has come, or all of them.
    pub(super) fn settled(&mut self, now: Instant, all: bool, reports: &mut Vec<Report>) -> Result<(), DeviceError> {
        self.taps.iter_mut().try_for_each(|tap| tap.settled(now, all, reports))
    }

    /// What happened until now and was not told.
    pub(super) fn rest(&mut self, reports: &mut Vec<Report>) -> Result<(), DeviceError> {
        // One that is gone keeps none of the others from telling.
        self.taps.iter_mut().map(|tap| tap.rest(reports)).fold(Ok(()), Result::and)
    }

    /// Whether an output must read as it was set.
    pub(super) fn pushes(&self, name: &PointName) -> bool {
        self.taps.iter().any(|tap| tap.name == *name && tap.pushes)
    }

    /// Sets an output, and says which level it has then: as read back where the chip can tell.
    pub(super) fn set(&mut self, name: &PointName, level: bool) -> Result<bool, DeviceError> {
        let tap = self.taps.iter_mut().find(|tap| tap.name == *name && tap.is_output);
        let tap = tap.ok_or_else(|| DeviceError::Lost(format!("`{name}` is no output of this device")))?;
        tap.line.set(level).map_err(|error| tap.lost(&error))?;
        tap.level = tap.line.level().unwrap_or(level);
        Ok(tap.level)
    }
}
