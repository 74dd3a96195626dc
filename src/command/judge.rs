//! Whether a command may act, and if not, why. Functions of the command, the point and the time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::PointConfig;
use super::outputs::Setting;
use crate::model::{Command, DeviceName, Outcome, Point, Rate, Reason, Span, Timestamp, Value};

/// One point, as far as its commands are concerned.
#[derive(Debug)]
pub(super) struct Guard {
    point: Point,
    config: PointConfig,
    /// When the last commands acted, as many as its `rate` looks at.
    acted: VecDeque<Duration>,
}

/// A command that may act.
#[derive(Debug, PartialEq)]
pub(super) struct Accepted {
    pub(super) device: DeviceName,
    pub(super) settings: Vec<Setting>,
    /// What the device has to act.
    pub(super) timeout: Duration,
    /// For how long it may sleep before.
    pub(super) sleeps: Option<Duration>,
    /// When it ends to be valid, by `CLOCK_BOOTTIME`.
    pub(super) expires: Duration,
}

/// The shortest and the longest `for`.
const LEASE: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(7 * 24 * 3600);

/// A command that may not.
#[derive(Debug)]
pub(super) enum Refused {
    Because(Reason, String),
    /// It has been answered already: the first outcome once more.
    Again(Box<Outcome>),
    /// It has been answered already, or will be.
    Silently,
}

pub(super) type Guards = BTreeMap<String, BTreeMap<String, Guard>>;

impl Guard {
    /// `before`: the same point's, under another config.
    pub(super) fn new(point: Point, config: PointConfig, before: Option<Guard>) -> Self {
        Guard { point, config, acted: before.map(|guard| guard.acted).unwrap_or_default() }
    }

    /// The value in the point's type, or why it can't be one.
    fn value(&self, value: &Value) -> Result<Value, Refused> {
        let name = &self.point.name;
        let typed = self.point.value_type.map_or_else(|| Ok(value.clone()), |wanted| value.convert(wanted));
        let value = typed.map_err(|error| Refused::Because(Reason::Type, format!("{name}: {error}")))?;
        if !self.point.in_range(&value) {
            let text = format!("{name}: {value} is out of range: expected {}", self.point.range());
            return Err(Refused::Because(Reason::Range, text));
        }
        Ok(value)
    }

    /// Until when the command is not too old for this point.
    fn fresh(&self, command: &Command, now: &Timestamp) -> Result<Duration, Refused> {
        let (Some(max_age), Some(sent)) = (self.config.command_max_age, command.sent) else { return Ok(Duration::MAX) };
        if !now.synced {
            return Err(clock("ts"));
        }
        let (age, how) = if now.wall >= sent { (now.wall - sent, "old") } else { (sent - now.wall, "ahead") };
        if age <= max_age.0 {
            let left = if now.wall >= sent { max_age.0 - age } else { max_age.0 + age };
            return Ok(now.uptime + left);
        }
        let text = format!("it is {:.1} s {how}, allowed are {max_age}", age.as_secs_f64());
        Err(Refused::Because(Reason::Stale, text))
    }

    /// How long the value is to last: the command's `for`, or the point's `pulse`.
    fn lease(&self, value: &Value, asked: Option<Duration>) -> Result<Option<Duration>, Refused> {
        let name = &self.point.name;
        let refused = |text: String| Err(Refused::Because(Reason::Range, text));
        let is_on = self.point.safe.as_ref().is_some_and(|safe| safe != value);
        let Some(lease) = asked else {
            return Ok(self.config.pulse.map(|pulse| pulse.0).filter(|_| is_on));
        };
        if !is_on {
            return refused(format!("{name}: `for` needs a point with a safe value, and another value than that"));
        }
        let shown = Span(lease);
        if !LEASE.contains(&lease) {
            return refused(format!("{name}: `for` is {shown}: expected 10ms to 7d"));
        }
        match (self.config.max_on, self.config.min_on) {
            (Some(max), _) if shown > max => refused(format!("{name}: `for` is {shown}, and `max_on` is {max}")),
            (_, Some(min)) if shown < min => refused(format!("{name}: `for` is {shown}, and `min_on` is {min}")),
            _ => Ok(Some(lease)),
        }
    }

    fn rate_left(&mut self, now: Duration) -> bool {
        let Some(Rate::Limit { count, per }) = self.config.rate else { return true };
        while self.acted.front().is_some_and(|acted| now.saturating_sub(*acted) >= per) {
            self.acted.pop_front();
        }
        self.acted.len() < usize::try_from(count).unwrap_or(usize::MAX)
    }
}

fn clock(key: &str) -> Refused {
    Refused::Because(Reason::Clock, format!("this board's clock is not set, so `{key}` can't be judged"))
}

/// Judges all but what depends on the state of the gateway. `remember`: how long ids are remembered.
pub(super) fn judge(
    guards: &mut Guards,
    command: &Command,
    now: &Timestamp,
    remember: Duration,
) -> Result<Accepted, Refused> {
    let unknown = |what: String| Refused::Because(Reason::Unknown, format!("there is no {what}"));
    let device = guards.get(&command.device).ok_or_else(|| unknown(format!("device `{}`", command.device)))?;
    let guard_of = |point: &str| {
        let guard = device.get(point).ok_or_else(|| unknown(format!("point `{point}` of `{}`", command.device)))?;
        if guard.point.writable {
            Ok(guard)
        } else {
            Err(Refused::Because(Reason::ReadOnly, format!("{point} can't be written")))
        }
    };
    // The topic's point first: it may be wrong although the payload can't be read.
    if let Some(point) = &command.point {
        guard_of(point)?;
    }
    let values = command.values.as_ref().map_err(|text| Refused::Because(Reason::Type, text.clone()))?;
    let mut typed = Vec::with_capacity(values.len());
    let (mut timeout, mut sleeps) = (Duration::ZERO, None);
    let mut name = None;
    let mut fresh_until = Duration::MAX;
    for (point, value) in values {
        let guard = guard_of(point)?;
        fresh_until = fresh_until.min(guard.fresh(command, now)?);
        let value = guard.value(value)?;
        let lease = guard.lease(&value, command.lease)?;
        if typed.iter().any(|setting: &Setting| setting.point == guard.point.name) {
            return Err(Refused::Because(Reason::Type, format!("{point} is there twice")));
        }
        typed.push(Setting { point: guard.point.name.clone(), value, lease });
        timeout = timeout.max(guard.config.timeout.0);
        sleeps = sleeps.max(guard.config.sleeps);
        name = Some(guard.point.device.clone());
    }
    let Some(name) = name else {
        return Err(Refused::Because(Reason::Type, "a command needs a value".to_owned()));
    };
    let expires = expires(command, now, remember)?.min(fresh_until);
    Ok(Accepted { device: name, settings: typed, timeout, sleeps, expires })
}

impl Accepted {
    /// The time after which the device may not begin any more, where it is free at `now`. For one that sleeps the sender
    /// says how long the command may wait; where that is not said, it is for as long as the device may sleep.
    pub(super) fn deadline(&self, now: Duration, remember: Duration) -> Duration {
        match self.sleeps {
            None => self.expires.min(now + self.timeout),
            // No id is remembered for longer.
            Some(_) if self.expires < Duration::MAX => self.expires.min(now + remember),
            Some(sleeps) => now + sleeps + self.timeout,
        }
    }
}

/// When the command ends to be valid.
fn expires(command: &Command, now: &Timestamp, remember: Duration) -> Result<Duration, Refused> {
    let too_long = |left: Duration| {
        let (left, remember) = (left.as_secs(), remember.as_secs());
        let text = format!("it is valid for {left} s, but ids are remembered for {remember} s only");
        Refused::Because(Reason::Range, text)
    };
    let stale = || Refused::Because(Reason::Stale, "its expiry has passed".to_owned());
    let mut deadline = Duration::MAX;
    if let Some(ttl) = command.ttl {
        if ttl > remember {
            return Err(too_long(ttl));
        }
        deadline = command.arrived.uptime + ttl;
        if now.uptime >= deadline {
            return Err(stale());
        }
    }
    if let Some(expires) = command.expires {
        if !now.synced {
            return Err(clock("expires"));
        }
        let left = expires.checked_sub(now.wall).filter(|left| !left.is_zero()).ok_or_else(stale)?;
        if left > remember {
            return Err(too_long(left));
        }
        deadline = deadline.min(now.uptime + left);
    }
    Ok(deadline)
}

/// Counts the command against the rates of its points; all or nothing.
pub(super) fn spend(guards: &mut Guards, command: &Command, now: Duration) -> Result<(), Refused> {
    let (Some(device), Ok(values)) = (guards.get_mut(&command.device), &command.values) else { return Ok(()) };
    for (point, _) in values {
        if device.get_mut(point).is_some_and(|guard| !guard.rate_left(now)) {
            return Err(Refused::Because(Reason::Rate, format!("{point} had as many commands as its rate allows")));
        }
    }
    for (point, _) in values {
        if let Some(guard) = device.get_mut(point)
            && guard.config.rate.is_some()
        {
            guard.acted.push_back(now);
        }
    }
    Ok(())
}
