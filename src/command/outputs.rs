//! The rules of outputs: how long they may be on and off, which exclude each other, and when they go to their safe value
//! by themselves.
//!
//! An output is a writable point with a safe value; it is *on* while it is not known to be at that value. All times are
//! `CLOCK_BOOTTIME`. Nothing here acts: [`Outputs::due`] and [`Outputs::wants_safe`] say what is to be done, and
//! [`Outputs::sent`] and [`Outputs::ended`] are told what was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::PointConfig;
use super::config::{Interlock, Then};
use super::journal::{Bug, Left, seeded};
use crate::model::{BootId, Cause, DeviceName, Point, PointKey, PointName, Reason, Value};

/// A change to the safe value that failed is tried again after this time, which doubles up to the second one.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// All outputs.
#[derive(Debug)]
pub(super) struct Outputs {
    outputs: BTreeMap<PointKey, Output>,
    /// Devices that answer.
    online: BTreeSet<DeviceName>,
    /// When the broker was heard last; at first, the start.
    heard: Duration,
    stopping: bool,
    bug: Option<Bug>,
}

/// One output.
#[derive(Debug)]
struct Output {
    safe: Value,
    config: PointConfig,
    state: State,
    /// The value that it has, where that is known.
    value: Option<Value>,
    /// Before the write that is under way.
    before: Option<(State, Option<Value>)>,
    /// Accepted commands that will switch it on and were not handed over yet.
    coming: u32,
    /// The gateway itself is about to make it safe.
    going: bool,
    /// That failed, and is tried again then; and after which pause.
    again: Option<(Duration, Duration)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Nobody knows. Counts as on.
    Unknown,
    /// At its safe value.
    Safe { since: Duration },
    /// Or maybe so.
    On { since: Duration, until: Option<Duration> },
}

/// A value for an output, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub(super) point: PointName,
    pub(super) value: Value,
    /// How long it lasts once it was written.
    pub(super) lease: Option<Duration>,
}

/// Whether a command may be handed to its device now.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    Now,
    /// At this time.
    At(Duration),
    /// Once these outputs were made safe, for these causes.
    After(Vec<(PointKey, Cause)>),
    /// No more; why.
    Never(String),
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    /// Nothing was touched.
    Untouched,
    Unknown,
}

impl Outputs {
    pub(super) fn new(now: Duration, bug: Option<Bug>) -> Self {
        Outputs { outputs: BTreeMap::new(), online: BTreeSet::new(), heard: now, stopping: false, bug }
    }

    /// These are the points there are. One that was there before keeps its state.
    pub(super) fn set(&mut self, points: &[(Point, PointConfig)]) {
        let mut before = std::mem::take(&mut self.outputs);
        for (point, config) in points {
            let Some(safe) = point.safe.clone().filter(|_| point.writable) else { continue };
            let config = config.clone();
            let output = match before.remove(&point.key()) {
                Some(known) if known.safe == safe => Output { config, ..known },
                Some(known) => Output { state: known.with_safe(&safe), safe, config, ..known },
                None => Output {
                    safe,
                    config,
                    state: State::Unknown,
                    value: None,
                    before: None,
                    coming: 0,
                    going: false,
                    again: None,
                },
            };
            self.outputs.insert(point.key(), output);
        }
    }

    /// How an output was left by the run before, in this boot.
    pub(super) fn restore(&mut self, left: &Left) {
        if let Some(output) = self.outputs.get_mut(&left.key) {
            output.value.clone_from(&left.value);
            output.state = if left.value.as_ref() == Some(&output.safe) {
                State::Safe { since: left.since }
            } else {
                State::On { since: left.since, until: left.until }
            };
        }
    }

    /// How outputs are, for the next run.
    pub(super) fn left(&self, boot: BootId) -> Vec<Left> {
        let left = |(key, output): (&PointKey, &Output)| {
            let (since, until) = match output.state {
                State::Unknown => return None,
                State::Safe { since } => (since, None),
                State::On { since, until } => (since, until),
            };
            Some(Left { key: key.clone(), value: output.value.clone(), since, until, boot })
        };
        self.outputs.iter().filter_map(left).collect()
    }

    /// A device was opened; these of its outputs have these values.
    pub(super) fn opened(&mut self, device: &DeviceName, values: &[(PointName, Value)], now: Duration) {
        // What failed before has another chance now.
        self.outputs.iter_mut().filter(|(key, _)| key.0 == *device).for_each(|(_, output)| output.again = None);
        for (point, value) in values {
            let Some(output) = self.outputs.get_mut(&PointKey(device.clone(), point.clone())) else { continue };
            output.value = Some(value.clone());
            output.before = None;
            output.state = match (output.state, *value == output.safe) {
                (known @ State::Safe { .. }, true) | (known @ State::On { .. }, false) => known,
                (_, true) => State::Safe { since: now },
                (State::Safe { .. }, false) => State::On { since: now, until: None },
                // Since when it is on, and for how long it was to be, nobody knows: it is made safe.
                (State::Unknown, false) => State::Unknown,
            };
        }
    }

    pub(super) fn set_online(&mut self, online: BTreeSet<DeviceName>) {
        self.online = online;
    }

    /// The broker was heard at this time.
    pub(super) fn heard(&mut self, at: Duration) {
        self.heard = self.heard.max(at);
    }

    /// From now on `on_stop` counts.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether all these are outputs that are to go to their safe values.
    pub(super) fn all_safe(&self, device: &DeviceName, settings: &[Setting]) -> bool {
        settings.iter().all(|setting| {
            let key = PointKey(device.clone(), setting.point.clone());
            self.outputs.get(&key).is_some_and(|output| output.safe == setting.value)
        })
    }

    /// Whether a command may set these, as far as can be said before its turn comes; how long it may have to wait for
    /// others of a group.
    pub(super) fn judge(
        &self,
        device: &DeviceName,
        settings: &[Setting],
        now: Duration,
    ) -> Result<Duration, (Reason, String)> {
        let mut wait = Duration::ZERO;
        let mut groups = BTreeSet::new();
        for setting in settings {
            let key = PointKey(device.clone(), setting.point.clone());
            let Some(output) = self.outputs.get(&key) else {
                continue;
            };
            output.may(&setting.point, &setting.value, now).map_err(|text| (Reason::Rate, text))?;
            if setting.value == output.safe {
                continue;
            }
            if output.state == State::Unknown {
                wait = wait.max(output.config.timeout.0);
            }
            let Some(interlock) = &output.config.interlock else { continue };
            let refused = |text| Err((Reason::Interlock, text));
            if !groups.insert(&interlock.group) {
                return refused(format!("two of the group `{}` can't be on together", interlock.group));
            }
            for (other_key, other) in self.others(&key, &interlock.group) {
                let name = &other_key.1;
                if other.coming > 0 || other.is_being_switched_on() {
                    return refused(format!("`{name}` of the same group is being switched on"));
                }
                match other.dead_until(interlock) {
                    Some(end) => wait = wait.max(end.saturating_sub(now)),
                    None => {
                        if !self.online.contains(&other_key.0) {
                            return refused(format!("`{name}` of the same group may be on, and does not answer"));
                        }
                        other.may(name, &other.safe, now).map_err(|text| (Reason::Interlock, text))?;
                        wait = wait.max(other.config.timeout.0 + other.dead_time(interlock));
                    }
                }
            }
        }
        Ok(wait)
    }

    /// Whether a command may set these now: its turn at the device has come.
    pub(super) fn turn(&self, device: &DeviceName, settings: &[Setting], now: Duration) -> Turn {
        let mut at = now;
        let mut after = Vec::new();
        for setting in settings {
            let key = PointKey(device.clone(), setting.point.clone());
            let Some(output) = self.outputs.get(&key) else { continue };
            if let Err(text) = output.may(&setting.point, &setting.value, now) {
                return Turn::Never(text);
            }
            if output.state == State::Unknown && setting.value != output.safe {
                // It may have been on for long, so its times can't begin with this command.
                if output.again.is_some() {
                    return Turn::Never(format!("`{}` could not be set to its safe value first", key.1));
                }
                after.push((key.clone(), Cause::Start));
            }
            let interlock = output.config.interlock.as_ref().filter(|_| setting.value != output.safe);
            let Some(interlock) = interlock.filter(|_| !seeded(self.bug, Bug::NoBreak)) else { continue };
            for (other_key, other) in self.others(&key, &interlock.group) {
                match other.dead_until(interlock) {
                    Some(end) => at = at.max(end),
                    None if other.again.is_some() => {
                        return Turn::Never(format!("`{}` of the same group could not be switched off", other_key.1));
                    }
                    None => after.push((other_key.clone(), Cause::Interlock)),
                }
            }
        }
        match (after.is_empty(), at > now) {
            (false, _) => Turn::After(after),
            (true, true) => Turn::At(at),
            (true, false) => Turn::Now,
        }
    }

    fn others<'a>(&'a self, key: &'a PointKey, group: &'a str) -> impl Iterator<Item = (&'a PointKey, &'a Output)> {
        self.outputs.iter().filter(move |(other, output)| {
            *other != key && output.config.interlock.as_ref().is_some_and(|interlock| interlock.group == group)
        })
    }

    /// A command was accepted that will set these (`+1`), or it is not waiting any more (`-1`).
    pub(super) fn coming(&mut self, device: &DeviceName, settings: &[Setting], more: bool) {
        for setting in settings {
            let key = PointKey(device.clone(), setting.point.clone());
            if let Some(output) = self.outputs.get_mut(&key).filter(|output| output.safe != setting.value) {
                output.coming = if more { output.coming + 1 } else { output.coming.saturating_sub(1) };
            }
        }
    }

    /// Nothing is coming; what still is will be said again.
    pub(super) fn nothing_coming(&mut self) {
        self.outputs.values_mut().for_each(|output| output.coming = 0);
    }

    /// When the dead times end that keep these from being set.
    pub(super) fn dead_until(&self, device: &DeviceName, settings: &[Setting]) -> Option<Duration> {
        let mut at = None;
        for setting in settings {
            let key = PointKey(device.clone(), setting.point.clone());
            let Some(output) = self.outputs.get(&key).filter(|output| output.safe != setting.value) else { continue };
            let Some(interlock) = &output.config.interlock else { continue };
            let ends = self.others(&key, &interlock.group).filter_map(|(_, other)| other.dead_until(interlock));
            at = at.max(ends.max());
        }
        at
    }

    /// A write was handed to the device: from now on the outputs may have these values.
    pub(super) fn sent(&mut self, device: &DeviceName, settings: &[Setting], now: Duration) {
        for setting in settings {
            let Some(output) = self.outputs.get_mut(&PointKey(device.clone(), setting.point.clone())) else { continue };
            output.before = Some((output.state, output.value.clone()));
            if setting.value != output.safe {
                output.state = State::On { since: output.on_since().unwrap_or(now), until: None };
            }
        }
    }

    /// A write has ended.
    pub(super) fn ended(&mut self, device: &DeviceName, settings: &[Setting], end: End, now: Duration) {
        let forgotten = seeded(self.bug, Bug::NoLease);
        for setting in settings {
            let Some(output) = self.outputs.get_mut(&PointKey(device.clone(), setting.point.clone())) else { continue };
            let before = output.before.take();
            match end {
                End::Untouched => {
                    if let Some((state, value)) = before {
                        (output.state, output.value) = (state, value);
                    }
                }
                End::Done | End::Unknown if setting.value != output.safe => {
                    let until = setting.lease.filter(|_| !forgotten).map(|lease| now + lease);
                    let until = match before {
                        // Nobody knows whether this one did it, so the lease of the one before still counts.
                        Some((State::On { until: Some(earlier), .. }, _)) if end == End::Unknown => {
                            Some(until.map_or(earlier, |until| until.min(earlier)))
                        }
                        _ => until,
                    };
                    output.state = State::On { since: output.on_since().unwrap_or(now), until };
                    output.value = (end == End::Done).then(|| setting.value.clone());
                }
                End::Done => {
                    output.again = None;
                    output.state = match output.state {
                        known @ State::Safe { .. } => known,
                        _ => State::Safe { since: now },
                    };
                    output.value = Some(setting.value.clone());
                }
                // It may be safe now or may not: whatever was to happen to it still is.
                End::Unknown => output.value = None,
            }
        }
    }

    /// The gateway itself is about to make this output safe.
    pub(super) fn going(&mut self, key: &PointKey) {
        if let Some(output) = self.outputs.get_mut(key) {
            output.going = true;
        }
    }

    /// That has ended. True: it is the first failure of several.
    pub(super) fn gone(&mut self, key: &PointKey, done: bool, now: Duration) -> bool {
        let Some(output) = self.outputs.get_mut(key) else { return false };
        let pause = output.again.map_or(AGAIN.0, |(_, pause)| (pause * 2).min(AGAIN.1));
        let before = std::mem::replace(&mut output.again, (!done).then_some((now + pause, pause)));
        output.going = false;
        !done && before.is_none()
    }

    /// Whether the last attempt to make it safe failed.
    pub(super) fn is_failing(&self, key: &PointKey) -> bool {
        self.outputs.get(key).is_some_and(|output| output.again.is_some())
    }

    /// What makes an output safe, and how long the device has for it.
    pub(super) fn safe(&self, key: &PointKey) -> Option<(Value, Duration)> {
        self.outputs.get(key).map(|output| (output.safe.clone(), output.config.timeout.0))
    }

    pub(super) fn is_going(&self, key: &PointKey) -> bool {
        self.outputs.get(key).is_some_and(|output| output.going)
    }

    /// The outputs that are to go to their safe values now, and why.
    pub(super) fn wants_safe(&self, now: Duration) -> Vec<(PointKey, Cause)> {
        let wanted = |(key, output): (&PointKey, &Output)| {
            let (at, cause) = self.next(key, output)?;
            (at <= now).then(|| (key.clone(), cause))
        };
        self.outputs.iter().filter_map(wanted).collect()
    }

    /// When [`Outputs::wants_safe`] has something next.
    pub(super) fn due(&self) -> Option<Duration> {
        self.outputs.iter().filter_map(|(key, output)| self.next(key, output)).map(|(at, _)| at).min()
    }

    /// Whether some output is to be made safe before the stop.
    pub(super) fn is_settled(&self) -> bool {
        // What failed once fails again: a stop does not wait for it.
        self.outputs.iter().all(|(key, output)| {
            !output.going && (output.again.is_some() || !matches!(self.next(key, output), Some((_, Cause::Stop))))
        })
    }

    /// Whether another one of its group was on before.
    fn is_second(&self, key: &PointKey, output: &Output, since: Duration) -> bool {
        let Some(interlock) = output.config.interlock.as_ref().filter(|_| !seeded(self.bug, Bug::NoBreak)) else {
            return false;
        };
        self.others(key, &interlock.group).any(|(other_key, other)| match other.state {
            State::On { since: earlier, .. } => (earlier, other_key) < (since, key),
            State::Safe { .. } | State::Unknown => false,
        })
    }

    /// When an output goes to its safe value by itself, and why.
    fn next(&self, key: &PointKey, output: &Output) -> Option<(Duration, Cause)> {
        if output.going || !self.online.contains(&key.0) {
            return None;
        }
        let config = &output.config;
        let next = match output.state {
            State::Safe { .. } => None,
            // Nobody has said what it is since the start.
            State::Unknown => Some((Duration::ZERO, Cause::Start)),
            State::On { .. } if self.stopping && config.on_stop == Then::Safe => Some((Duration::ZERO, Cause::Stop)),
            // Two of a group were found on: the one that was on before stays.
            State::On { since, .. } if self.is_second(key, output, since) => Some((Duration::ZERO, Cause::Interlock)),
            State::On { since, until } => {
                let lease = until.map(|until| (until, Cause::Lease));
                let max_on = config.max_on.map(|max| (since + max.0, Cause::MaxOn));
                let loss = config.on_link_loss.as_ref().filter(|loss| loss.then == Then::Safe);
                let loss = loss.map(|loss| (self.heard + loss.after.0, Cause::Link));
                [lease, max_on, loss].into_iter().flatten().min_by_key(|(at, _)| *at)
            }
        };
        next.map(|(at, cause)| (at.max(output.again.map_or(Duration::ZERO, |(at, _)| at)), cause))
    }
}

impl Output {
    /// Its state where another value is the safe one.
    fn with_safe(&self, safe: &Value) -> State {
        match (self.state, &self.value) {
            (_, None) | (State::Unknown, _) => State::Unknown,
            (State::Safe { since } | State::On { since, .. }, Some(value)) if value == safe => State::Safe { since },
            (State::On { since, until }, Some(_)) => State::On { since, until },
            (State::Safe { since }, Some(_)) => State::On { since, until: None },
        }
    }

    fn on_since(&self) -> Option<Duration> {
        match self.state {
            State::On { since, .. } => Some(since),
            State::Safe { .. } | State::Unknown => None,
        }
    }

    fn is_being_switched_on(&self) -> bool {
        matches!(self.before, Some((State::Safe { .. } | State::Unknown, _))) && self.on_since().is_some()
    }

    /// How long it has to be off before one with this key is on: the longer dead time of the two.
    fn dead_time(&self, other: &Interlock) -> Duration {
        let own = self.config.interlock.as_ref().map(|interlock| interlock.dead_time.0);
        own.unwrap_or_default().max(other.dead_time.0)
    }

    /// When that time is over; `None`: it is not known to be off.
    fn dead_until(&self, other: &Interlock) -> Option<Duration> {
        match self.state {
            State::Safe { since } => Some(since + self.dead_time(other)),
            State::On { .. } | State::Unknown => None,
        }
    }

    /// Whether it may be set to this value, as far as its own times are concerned.
    fn may(&self, name: &PointName, value: &Value, now: Duration) -> Result<(), String> {
        let (least, since, how, key) = match self.state {
            State::Safe { since } if *value != self.safe => (self.config.min_off, since, "off", "min_off"),
            State::On { since, .. } if *value == self.safe => (self.config.min_on, since, "on", "min_on"),
            _ => return Ok(()),
        };
        let Some(least) = least else { return Ok(()) };
        let lasted = now.saturating_sub(since);
        if lasted >= least.0 {
            return Ok(());
        }
        Err(format!("`{name}` is {how} for {:.1} s, and must be for {least} (`{key}`)", lasted.as_secs_f64()))
    }
}
