//! Point rules: from the raw value of a device to a reading's value and quality, and whether it is worth sending.
//!
//! Everything here is a pure function of values and times (`CLOCK_BOOTTIME`).

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Table;

use super::Raw;
use super::filter::{Chain, Filter, Window};
use crate::model::{
    DeviceName, Fault, Keys, Limit, Point, PointName, Quality, Reading, Span, Timestamp, Value, ValueType,
};

/// The keys of a point's table that the point rules read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    /// The value is the raw value times this (1), plus `offset`.
    pub scale: Option<f64>,
    /// See `scale` (0).
    pub offset: Option<f64>,
    /// Digits kept behind the point, 0 to 9; default: all.
    pub round: Option<u32>,
    /// Names for raw values, written as text: `map = { "0" = "closed", "1" = "open" }`. What is not in it is bad.
    pub map: BTreeMap<String, Value>,
    /// What takes noise out of the numbers, one behind the other; default: nothing.
    pub filter: Vec<Filter>,
    /// One reading for all numbers of a time; default: each is one.
    pub window: Option<Window>,
    /// When a value is worth a reading; default: always.
    pub report: Option<Report>,
    /// Whoever passes one of these is an alarm; default: none is.
    pub limits: Option<Limits>,
}

/// Limits of right values. The value that passes one is sent at once, in the lane `alarm`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// At this or above it is high, in the point's unit.
    pub high: Option<f64>,
    /// At this or below it is low.
    pub low: Option<f64>,
    /// It is normal again only this far away from the limit (0), so that noise around it is one alarm.
    pub hysteresis: f64,
}

impl Limits {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let (high, low) = (keys.number("high"), keys.number("low"));
        let hysteresis = keys.number("hysteresis").unwrap_or_default();
        keys.end(Limits { high, low, hysteresis })
    }

    /// What is wrong with them, and where.
    fn fault(&self) -> Option<(&'static str, &'static str)> {
        let numbers = [self.high, self.low, Some(self.hysteresis)];
        if self.high.is_none() && self.low.is_none() {
            return Some(("", "expected `high`, `low` or both"));
        }
        if numbers.iter().flatten().any(|number| !number.is_finite()) || self.hysteresis < 0.0 {
            return Some((".hysteresis", "expected numbers, and `hysteresis` of at least 0"));
        }
        let between = self.high.unwrap_or(f64::MAX) - self.low.unwrap_or(f64::MIN);
        if between <= 0.0 {
            return Some((".high", "expected more than `low`"));
        }
        let text = "expected less than what is between `low` and `high`: nothing would be normal again";
        (between <= self.hysteresis).then_some((".hysteresis", text))
    }

    /// Where a number is, from where the one before was.
    fn place(&self, number: f64, before: Limit) -> Limit {
        let slack = |of: Limit| if before == of { self.hysteresis } else { 0.0 };
        // Away from a limit by the whole slack it is normal; without any, at the limit it is not.
        let beyond = |excess: f64, of: Limit| excess >= 0.0 || excess > rounding(number, excess) - slack(of);
        if self.high.is_some_and(|high| beyond(number - high, Limit::High)) {
            Limit::High
        } else if self.low.is_some_and(|low| beyond(low - number, Limit::Low)) {
            Limit::Low
        } else {
            Limit::Normal
        }
    }
}

/// When a value is worth a reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When it differs from the last one sent by this much, in the point's unit or as a share of it (`"5%"`); 0: at any
    /// difference. Without this key every value counts as a change.
    pub change: Option<Change>,
    /// Readings are at least this far apart; the newest value waits.
    pub at_most: Option<Span>,
    /// After this time without a reading the value is sent again: as it is where it is known to hold, else as stale, once, and
    /// only a good one.
    pub at_least: Option<Span>,
}

impl Report {
    fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let read = Report {
            change: keys.any("change", Change::of, "a number, or a share such as \"5%\""),
            at_most: keys.time("at_most"),
            at_least: keys.time("at_least"),
        };
        keys.end(read)
    }
}

/// See [`Report::change`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// In the point's unit.
    By(f64),
    /// Of the last one sent: 0.05 for `"5%"`.
    Share(f64),
}

impl Change {
    fn of(value: &toml::Value) -> Option<Self> {
        match value {
            toml::Value::String(text) => {
                let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
                Some(Change::Share(percent / 100.0))
            }
            other => Value::of(other)?.as_f64().map(Change::By),
        }
    }

    fn number(self) -> f64 {
        match self {
            Change::By(number) | Change::Share(number) => number,
        }
    }

    /// How much that is, from this number on.
    fn from(self, number: f64) -> f64 {
        match self {
            Change::By(by) => by,
            Change::Share(share) => share * number.abs(),
        }
    }
}

impl Config {
    /// Its keys.
    pub const KEYS: &[&str] = &["scale", "offset", "round", "map", "filter", "window", "report", "limits"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let read = Config {
            scale: keys.number("scale"),
            offset: keys.number("offset"),
            round: keys.unsigned("round"),
            map: keys.map("map", Value::of, Value::EXPECTED),
            filter: keys.list("filter", Filter::read),
            window: keys.inner("window", Window::read),
            report: keys.inner("report", Report::read),
            limits: keys.inner("limits", Limits::read),
        };
        keys.end(read)
    }

    /// Checks that raw values of this kind can become values of the point's type.
    pub fn check_type(&self, point: &Point, raw: Raw) -> Option<Fault> {
        let text = match (point.value_type?, raw) {
            // What a map makes of them, it says.
            _ if !self.map.is_empty() => return None,
            (ValueType::Bool, Raw::Number | Raw::Fraction) => {
                "its values are numbers: expected float or int, or a `map`"
            }
            (ValueType::Int, Raw::Fraction) if self.round != Some(0) => {
                "its values are not whole: expected float, or `round = 0` beside it"
            }
            _ => return None,
        };
        Some(Fault::at("type", text))
    }

    /// Checks what the types can't say, against the point's declaration.
    pub fn check(&self, point: &Point) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut wrong = |path: &str, text: &str| faults.push(Fault::at(path, text));
        let scaled = self.scale.is_some() || self.offset.is_some();
        if self.scale.is_some_and(|scale| scale == 0.0 || !scale.is_finite()) {
            wrong("scale", "expected a number other than 0");
        }
        if self.offset.is_some_and(|offset| !offset.is_finite()) {
            wrong("offset", "expected a number");
        }
        if scaled && !self.map.is_empty() {
            wrong("map", "expected either `map` or `scale` and `offset`, not both");
        }
        if scaled && matches!(point.value_type, Some(ValueType::Bool | ValueType::Text)) {
            wrong("scale", "only a point of type int or float can be scaled");
        }
        let of_numbers =
            [("filter", !self.filter.is_empty()), ("window", self.window.is_some()), ("limits", self.limits.is_some())];
        for (key, _) in of_numbers.iter().filter(|(_, is_set)| *is_set) {
            if point.writable {
                wrong(key, "only a point that is not written has it");
            }
            if !self.map.is_empty() {
                wrong(key, "expected either `map` or this, which is for numbers, not both");
            }
            if matches!(point.value_type, Some(ValueType::Bool | ValueType::Text)) {
                wrong(key, "only a point of type int or float has it");
            }
        }
        for (index, filter) in self.filter.iter().enumerate() {
            if let Some((key, text)) = filter.fault() {
                wrong(&format!("filter[{index}].{key}"), &text);
            }
        }
        if let Some((key, text)) = self.window.as_ref().and_then(Window::fault) {
            wrong(&format!("window.{key}"), &text);
        }
        if self.round.is_some_and(|digits| digits > 9) {
            wrong("round", "expected 0 to 9 digits");
        }
        let names: Vec<String> = self.map.values().map(Value::to_string).collect();
        if point.writable && names.iter().enumerate().any(|(i, name)| names.iter().skip(i + 1).any(|n| n == name)) {
            wrong("map", "a writable point needs a different name for each raw value");
        }
        if let Some((key, text)) = self.limits.as_ref().and_then(Limits::fault) {
            wrong(&format!("limits{key}"), text);
        }
        for (key, limit) in self.limits.iter().flat_map(|limits| [("high", limits.high), ("low", limits.low)]) {
            if limit.is_some_and(|limit| !point.in_range(&Value::Float(limit))) {
                let text = format!("no alarm ever, for what is out of range is bad: expected {}", point.range());
                wrong(&format!("limits.{key}"), &text);
            }
        }
        if let Some(report) = &self.report {
            if report.change.is_some_and(|change| change.number() < 0.0 || !change.number().is_finite()) {
                wrong("report.change", "expected a number of at least 0");
            }
            if let (Some(most), Some(least)) = (report.at_most, report.at_least)
                && most > least
            {
                wrong("report.at_most", "expected at most `at_least`");
            }
            if report.at_least.is_some_and(|least| least.0.is_zero()) {
                wrong(
                    "report.at_least",
                    "without a pause it never ends: expected a time such as \"5m\", or no such key",
                );
            }
        }
        faults
    }
}

/// The rules of one point, and what was last sent.
#[derive(Debug)]
pub struct Rules {
    point: Point,
    config: Config,
    holds: bool,
    chain: Chain,
    /// It is bad or stale until it is said to be good again: a window that ends meanwhile must not say so.
    is_lost: bool,
    /// Where the last good value was to the limits; `None`: there was none since the start, and the first one tells.
    place: Option<Limit>,
    sent: Option<Sent>,
    /// The next value is the first one since a new beginning.
    is_new: bool,
    /// What came in last, for [`Rules::came`].
    came: Option<Cooked>,
    /// The newest value that could not be sent yet.
    held: Option<(Cooked, Timestamp)>,
    /// When the device last gave a value.
    seen: Duration,
}

#[derive(Debug)]
struct Sent {
    cooked: Cooked,
    at: Duration,
}

/// A value after the rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Cooked {
    /// In the point's unit and type; `None` where the raw value is no such thing.
    pub value: Option<Value>,
    /// Whether it can be believed.
    pub quality: Quality,
    /// The limit that it passed, where it did.
    pub passed: Option<Limit>,
}

impl Cooked {
    /// As others see it.
    pub fn reading(self, device: &DeviceName, point: &PointName, timestamp: Timestamp) -> Reading {
        let (device, point) = (device.clone(), point.clone());
        Reading { device, point, timestamp, value: self.value, unit: None, quality: self.quality, cause: None }
    }
}

impl Rules {
    /// Rules for a point. `holds`: see [`super::Shape::holds`].
    pub fn new(point: Point, config: Config, holds: bool) -> Self {
        let chain = Chain::new(&config.filter, config.window.as_ref());
        Rules {
            point,
            config,
            holds,
            chain,
            is_lost: false,
            place: None,
            sent: None,
            is_new: false,
            came: None,
            held: None,
            seen: Duration::ZERO,
        }
    }

    /// The point's declaration.
    pub fn point(&self) -> &Point {
        &self.point
    }

    /// What a raw value is worth in the point's unit and type.
    pub fn cook(&self, raw: &Value) -> Cooked {
        let mapped = if self.config.map.is_empty() {
            raw.clone()
        } else {
            match self.name(raw) {
                Some(name) => name.clone(),
                None => return bad(Some(raw.clone()).filter(|raw| self.fits(raw))),
            }
        };
        self.finish(self.scale(mapped))
    }

    /// A value in the point's unit, as a reading has it.
    fn finish(&self, value: Value) -> Cooked {
        let value = self.round(value);
        let Ok(value) = self.point.value_type.map_or_else(|| Ok(value.clone()), |wanted| value.convert(wanted)) else {
            return bad(None);
        };
        if !value.is_finite() {
            return bad(None);
        }
        let quality = if self.point.in_range(&value) { Quality::Good } else { Quality::Bad };
        Cooked { value: Some(value), quality, passed: None }
    }

    /// The name of a raw value. That of a level may stand under `1` or `0` as well as under `true` or `false`, and where it has
    /// none there, it is its own: `"255" = true` says how a device is told that it is on, which says by itself when it is.
    fn name(&self, raw: &Value) -> Option<&Value> {
        let digit = |on: bool| if on { "1" } else { "0" };
        let map = &self.config.map;
        map.get(&raw.to_string()).or_else(|| match raw {
            Value::Bool(on) => map.get(digit(*on)).or_else(|| map.values().find(|name| *name == raw)),
            _ => None,
        })
    }

    fn fits(&self, value: &Value) -> bool {
        value.is_finite() && self.point.value_type.is_none_or(|wanted| value.convert(wanted).as_ref() == Ok(value))
    }

    fn is_scaled(&self) -> bool {
        self.config.scale.is_some() || self.config.offset.is_some()
    }

    fn scale(&self, value: Value) -> Value {
        if !self.is_scaled() {
            return value;
        }
        // Numbers often come as text: from CSV, key=value, a pattern.
        match value.convert(ValueType::Float) {
            Ok(Value::Float(raw)) => {
                let (scale, offset) = (self.config.scale.unwrap_or(1.0), self.config.offset.unwrap_or(0.0));
                // A tenth of 3 is 0.3, and 3 times 0.1 is 0.30000000000000004.
                let parts = scale.recip().round();
                let scaled = if parts.recip() == scale { raw / parts } else { raw * scale };
                Value::Float(scaled + offset)
            }
            _ => value,
        }
    }

    fn round(&self, value: Value) -> Value {
        match (&value, self.config.round) {
            (Value::Float(x), Some(digits)) => {
                let factor = 10f64.powi(i32::try_from(digits).unwrap_or(9));
                Value::Float((x * factor).round() / factor)
            }
            // A scaled value is seldom whole; one that is not scaled is either whole or wrong.
            (Value::Float(x), None)
                if (self.is_scaled() || !self.chain.is_empty()) && self.point.value_type == Some(ValueType::Int) =>
            {
                Value::Float(x.round())
            }
            _ => value,
        }
    }

    /// The raw value that [`Rules::cook`] would turn into this one: for writing.
    ///
    /// # Errors
    /// When there is none.
    pub fn raw(&self, value: &Value) -> Result<Value, String> {
        if !self.config.map.is_empty() {
            let wanted = value.to_string();
            let found = self.config.map.iter().find(|(_, name)| name.to_string() == wanted);
            return found.map(|(raw, _)| Value::text(raw)).ok_or_else(|| {
                let names: Vec<String> = self.config.map.values().map(Value::to_string).collect();
                format!("`{wanted}` is none of: {}", names.join(", "))
            });
        }
        if !self.is_scaled() {
            return Ok(value.clone());
        }
        let number = value.as_f64().ok_or_else(|| format!("`{value}` is not a number"))?;
        let raw = (number - self.config.offset.unwrap_or(0.0)) / self.config.scale.unwrap_or(1.0);
        // An integer sensor wants `215`, not `215.00000000000003`.
        let near = raw.round();
        let raw = if (raw - near).abs() < 1e-9 * near.abs().max(1.0) { near } else { raw };
        let raw = Value::Float(raw);
        Ok(raw.convert(ValueType::Int).unwrap_or(raw))
    }

    /// A raw value came from the device. The result is what to send now, if anything.
    pub fn offer(&mut self, raw: &Value, at: Timestamp) -> Option<Cooked> {
        if self.chain.is_empty() {
            let cooked = self.cook(raw);
            return self.take(cooked, at);
        }
        let Some(number) = self.number(raw) else { return self.offer_bad(at) };
        self.seen = at.uptime;
        // A sensor's number for an error must not hide in a mean.
        if self.chain.keeps_the_unit() && !self.point.in_range(&Value::Float(number)) {
            let cooked = self.finish(Value::Float(number));
            self.is_lost = self.holds;
            return self.take(cooked, at);
        }
        self.is_lost = false;
        let made = self.chain.feed(number, at.uptime)?;
        let cooked = self.finish(Value::Float(made));
        self.take(cooked, at)
    }

    /// A raw value as a number in the point's unit.
    fn number(&self, raw: &Value) -> Option<f64> {
        let number = match self.scale(raw.clone()) {
            Value::Text(text) => Value::Text(text).convert(ValueType::Float).ok()?.as_f64()?,
            other => other.as_f64()?,
        };
        number.is_finite().then_some(number)
    }

    /// A raw value that was right once. Filters don't take it in: what they made last is stale.
    pub fn offer_stale(&mut self, raw: &Value, at: Timestamp) -> Option<Cooked> {
        self.is_lost = self.holds;
        let cooked = if self.chain.is_empty() { self.cook(raw) } else { self.sent.as_ref()?.cooked.clone() };
        let quality = if cooked.quality == Quality::Good { Quality::Stale } else { cooked.quality };
        Some(self.send(Cooked { quality, ..cooked }, at.uptime))
    }

    /// The device gave something that is no value.
    pub fn offer_bad(&mut self, at: Timestamp) -> Option<Cooked> {
        self.is_lost = self.holds;
        self.take(bad(None), at)
    }

    /// What came in since this was asked last, whether it is sent or not: behind the filters, before the report rules.
    pub fn came(&mut self) -> Option<Cooked> {
        self.came.take()
    }

    fn take(&mut self, cooked: Cooked, at: Timestamp) -> Option<Cooked> {
        let now = at.uptime;
        self.came = Some(cooked.clone());
        self.seen = now;
        if let Some(passed) = self.pass(&cooked) {
            return Some(self.send(Cooked { passed: Some(passed), ..cooked }, now));
        }
        if self.is_new {
            return Some(self.send(cooked, now));
        }
        let report = self.config.report.as_ref();
        let worth = self.sent.as_ref().is_none_or(|sent| {
            differs(&sent.cooked, &cooked, report.and_then(|report| report.change))
                || report.and_then(|r| r.at_least).is_some_and(|least| now >= sent.at + least.0)
        });
        if !worth {
            // It came back to what was sent: nothing is left to say.
            self.held = None;
            return None;
        }
        let wait = report.and_then(|report| report.at_most);
        if let (Some(sent), Some(wait)) = (&self.sent, wait)
            && now < sent.at + wait.0
        {
            self.held = Some((cooked, at));
            return None;
        }
        Some(self.send(cooked, now))
    }

    /// The limit that this value passes. What can't be believed passes none.
    fn pass(&mut self, cooked: &Cooked) -> Option<Limit> {
        let limits = self.config.limits.as_ref().filter(|_| cooked.quality == Quality::Good)?;
        let place = limits.place(cooked.value.as_ref()?.as_f64()?, self.place.unwrap_or_default());
        (self.place.replace(place) != Some(place)).then_some(place)
    }

    /// Notes that this is being sent, whatever the rules say: for outputs, each change of which is a reading.
    pub fn send(&mut self, cooked: Cooked, now: Duration) -> Cooked {
        (self.held, self.is_new) = (None, false);
        self.seen = now;
        self.came = Some(cooked.clone());
        // Said again it is no alarm.
        self.sent = Some(Sent { cooked: Cooked { passed: None, ..cooked.clone() }, at: now });
        cooked
    }

    /// When [`Rules::due`] has something to say next, if nothing else happens.
    pub fn next_due(&self) -> Option<Duration> {
        self.chain.ends().into_iter().chain(self.report_due()).min()
    }

    /// When the report rules have something to say next.
    fn report_due(&self) -> Option<Duration> {
        let report = self.config.report.as_ref()?;
        let sent = self.sent.as_ref()?;
        let held = self.held.as_ref().and(report.at_most).map(|wait| sent.at + wait.0);
        let again = report
            .at_least
            // What was not right is nothing that was right once.
            .filter(|_| self.holds || sent.cooked.quality == Quality::Good)
            .map(|least| if self.holds { sent.at + least.0 } else { self.seen.max(sent.at) + least.0 });
        held.into_iter().chain(again).min()
    }

    /// What is to be sent by now although the device said nothing, and when the value was taken.
    pub fn due(&mut self, now: Timestamp) -> Option<(Cooked, Timestamp)> {
        if let Some(made) = self.chain.close(now.uptime).filter(|_| !self.is_lost) {
            let cooked = self.finish(Value::Float(made));
            // Only the device itself refreshes a value.
            let seen = self.seen;
            let sent = self.take(cooked, now);
            self.seen = seen;
            return sent.map(|cooked| (cooked, now));
        }
        if self.report_due().is_none_or(|due| due > now.uptime) {
            return None;
        }
        let sent = self.sent.as_ref()?;
        let is_repeat = self.holds || self.held.is_some();
        let (cooked, at) = match self.held.take() {
            Some(held) => held,
            None if self.holds => (sent.cooked.clone(), now),
            None => (Cooked { value: sent.cooked.value.clone(), quality: Quality::Stale, passed: None }, now),
        };
        let seen = self.seen;
        let is_new = self.is_new;
        let cooked = self.send(cooked, now.uptime);
        self.is_new = is_new && is_repeat;
        // Only the device itself refreshes a value, and what is said again did not come in.
        self.seen = seen;
        if is_repeat {
            self.came = None;
        }
        Some((cooked, at))
    }

    /// At the end: the newest value that could not be sent yet, and that of a window that has not ended.
    pub fn take_held(&mut self, now: Timestamp) -> impl Iterator<Item = (Cooked, Timestamp)> + use<> {
        let part =
            self.chain.close(Duration::MAX).filter(|_| !self.is_lost).map(|made| self.finish(Value::Float(made)));
        let part = part.map(|cooked| (Cooked { passed: self.pass(&cooked), ..cooked }, now));
        self.held.take().into_iter().chain(part)
    }

    /// On which side of its limits the last good value was; `None`: there was none, or no limits are set.
    pub fn place(&self) -> Option<Limit> {
        self.place
    }

    /// Says on which side of its limits it was.
    pub fn set_place(&mut self, place: Limit) {
        self.place = Some(place);
    }

    /// Begins anew: the next value is sent as if it were the first one, and until then what was sent is said again as before.
    pub fn restart(&mut self) {
        self.is_new = true;
        self.held = None;
        self.is_lost = false;
        self.chain.reset();
    }

    /// Forgets what was sent, so that the next value is: the device was away.
    pub fn reset(&mut self) {
        self.sent = None;
        self.held = None;
        self.is_lost = false;
        self.chain.reset();
    }
}

fn bad(value: Option<Value>) -> Cooked {
    Cooked { value, quality: Quality::Bad, passed: None }
}

fn differs(old: &Cooked, new: &Cooked, change: Option<Change>) -> bool {
    let Some(change) = change else { return true };
    if old.quality != new.quality {
        return true;
    }
    match (old.value.as_ref().and_then(Value::as_f64), new.value.as_ref().and_then(Value::as_f64)) {
        (Some(a), Some(b)) if change.number() > 0.0 => a != b && (a - b).abs() + rounding(a, b) >= change.from(a),
        _ => old.value != new.value,
    }
}

/// What a difference of these may lack: 20.9 less 20.8 is a little less than 0.1.
fn rounding(a: f64, b: f64) -> f64 {
    4.0 * f64::EPSILON * a.abs().max(b.abs())
}

#[cfg(test)]
#[path = "point_tests.rs"]
mod tests;
