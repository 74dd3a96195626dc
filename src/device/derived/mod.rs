//! Points made of points of other devices: sums, differences, means, the smallest and the largest one, integrals over time.
//!
//! A source counts as it comes in, before its report rules. What is made of several is made a moment after one of them
//! changed, since points of one poll come one behind the other. It is `bad` once a source can't be believed or its device is
//! away, and `stale` once a source is.
//!
//! An integral is kept as a counter's total is (`device/totals.rs`): saved before it is reported, so a power cut costs at most what
//! came since the last report. Time in which the source was not known is left out, and the next report is `stale`, as is
//! the first one after a start.

mod config;
mod formula;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use self::config::{POINT_KEYS, PointConfig};
use self::formula::{Formula, Integral, Made, Source};
use super::io::at;
use super::totals::{self, Amount, Flash};
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Kind, Raw, Run, Shape, Spec, Write};
use crate::model::{
    DeviceName, DeviceState, DeviceStates, Fault, PointKey, PointName, Quality, Reading, Timestamp, Value, ValueType,
    time,
};

/// Derived points.
pub(super) const KIND: Kind = Kind {
    name: "derived",
    summary: "points made of others: sum, difference, mean, smallest, largest, and integrals that outlive power cuts",
    sample: include_str!("sample.toml"),
    device_keys: || &[],
    point_keys: || POINT_KEYS,
    build,
    discover: |_| {},
};

/// Points of one poll come one behind the other: what is made of several waits so long for the others.
const TOGETHER: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Derived {
    points: Vec<(PointName, PointConfig)>,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let (mut faults, mut points, mut shapes) = (Vec::new(), Vec::new(), Vec::new());
    for point in spec.points {
        match PointConfig::read(&point.table, &point.declaration) {
            Ok(keys) => {
                let value_type = point.declaration.value_type.or(Some(ValueType::Float));
                shapes.push(Shape { writable: keys.settable, value_type, holds: true });
                points.push((point.name, keys));
            }
            Err(found) => faults.extend(found.into_iter().map(|fault| fault.under(&["point", point.name.as_str()]))),
        }
    }
    let is_kept = |keys: &PointConfig| keys.formula == Formula::Integral;
    faults.extend(totals::fault(points.iter().filter(|(_, keys)| is_kept(keys)).map(|(name, _)| (name, false))));
    if faults.is_empty() { Ok(Built { driver: Arc::new(Derived { points }), points: shapes }) } else { Err(faults) }
}

impl Driver for Derived {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(self.life(io))
    }

    fn reads(&self) -> Vec<(&PointName, &'static str, &PointKey)> {
        self.points.iter().flat_map(|(name, keys)| keys.of.iter().map(move |of| (name, keys.key, of))).collect()
    }

    fn raw(&self, point: &PointName) -> Raw {
        let of = self.points.iter().find(|(name, _)| name == point).map(|(_, keys)| keys.formula);
        if matches!(of, Some(Formula::Mean | Formula::Integral)) { Raw::Fraction } else { Raw::Number }
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async { Ok("nothing to open".to_owned()) })
    }
}

/// What is known now.
#[derive(Debug)]
struct Book {
    /// By the places of the points, and of their sources.
    sources: Vec<Vec<Source>>,
    /// By the places of the points.
    integrals: BTreeMap<usize, Integral>,
    /// When they are saved and reported next.
    due: BTreeMap<usize, Instant>,
    /// Points of which a source has changed.
    changed: BTreeSet<usize>,
    /// When what changed is told.
    tell_at: Option<Instant>,
    /// When the newest of their values was taken.
    taken: Option<Timestamp>,
    /// Devices that are there.
    online: BTreeSet<DeviceName>,
}

impl Derived {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let mut live = io.others().listen();
        let mut states = io.states();
        let mut flash = Flash::default();
        if self.integrals().next().is_some() {
            flash = Flash::load(io, self.integrals().map(|(_, name, _)| name.clone()).collect()).await?;
        }
        let now = Instant::now();
        let mut book = Book {
            sources: self.points.iter().map(|(_, keys)| vec![Source::Unknown; keys.of.len()]).collect(),
            integrals: self
                .integrals()
                .map(|(place, name, _)| (place, Integral::from(flash.of(name).unwrap_or_default(), time::uptime())))
                .collect(),
            due: self.integrals().map(|(place, _, keys)| (place, now + keys.every)).collect(),
            changed: BTreeSet::new(),
            tell_at: None,
            taken: None,
            online: BTreeSet::new(),
        };
        // What they are is told below: nobody knows what was missed.
        io.opened(Vec::new()).await;
        io.online();
        for (place, name, _) in self.integrals() {
            let value = Value::Float(book.integrals[&place].total);
            totals::tell(io, name, &value, flash.is_new(name)).await;
        }
        let now = states.borrow_and_update().clone();
        self.meet(&mut book, io, &now);
        loop {
            let due = book.due.values().min().copied().into_iter().chain(book.tell_at).min();
            let mut is_end = false;
            tokio::select! {
                biased;
                ask = io.next() => match ask {
                    Ask::Write(write) => self.write(io, write, &mut book, &mut flash).await,
                    Ask::Stop => is_end = true,
                },
                reading = live.recv() => match reading {
                    Ok(reading) => self.hear(&mut book, &reading),
                    Err(RecvError::Lagged(_)) => {
                        // An outage may have been among it.
                        book.integrals.values_mut().for_each(Integral::miss);
                        let online = book.online.clone();
                        self.recall(&mut book, io, &online);
                    }
                    // The sender is in `io` as well.
                    Err(RecvError::Closed) => is_end = true,
                },
                // It ends with the gateway.
                Ok(()) = states.changed() => {
                    let now = states.borrow_and_update().clone();
                    self.meet(&mut book, io, &now);
                }
                () = at(due) => {}
            }
            if is_end || book.tell_at.is_some_and(|at| at <= Instant::now()) {
                self.tell(io, &mut book).await;
            }
            self.save(io, &mut book, &mut flash, is_end).await;
            if is_end {
                return Ok(());
            }
        }
    }

    fn integrals(&self) -> impl Iterator<Item = (usize, &PointName, &PointConfig)> {
        let all = self.points.iter().enumerate().map(|(place, (name, keys))| (place, name, keys));
        all.filter(|(_, _, keys)| keys.formula == Formula::Integral)
    }

    /// Takes what came in last of these devices: where they have come, or some was missed.
    fn recall(&self, book: &mut Book, io: &DeviceIo, devices: &BTreeSet<DeviceName>) {
        let all = self.points.iter().flat_map(|(_, keys)| &keys.of);
        for of in all.filter(|of| devices.contains(&of.0)) {
            if let Some(reading) = io.others().of(of) {
                self.hear(book, &reading);
            }
        }
    }

    /// A value came in. Of a device that is away it is an old one, or the first of a life: that is recalled once it is online.
    fn hear(&self, book: &mut Book, reading: &Reading) {
        if book.online.contains(&reading.device) {
            self.set(book, Source::of(reading), reading.timestamp, |of| {
                of.0 == reading.device && of.1 == reading.point
            });
        }
    }

    /// Devices have come and gone.
    fn meet(&self, book: &mut Book, io: &DeviceIo, states: &DeviceStates) {
        let online = states.iter().filter(|(_, state)| **state == DeviceState::Online);
        let online: BTreeSet<DeviceName> = online.map(|(device, _)| device.clone()).collect();
        let before = std::mem::replace(&mut book.online, online.clone());
        // One that has not been there since the start is as lost as one that went.
        let is_awaited = |device: &DeviceName| {
            let mut known =
                self.points.iter().zip(&book.sources).flat_map(|((_, keys), known)| keys.of.iter().zip(known));
            known.any(|(of, known)| of.0 == *device && *known == Source::Unknown)
        };
        let is_away = |state: &DeviceState| matches!(state, DeviceState::Offline { .. });
        let away = states.iter().filter(|(device, state)| is_away(state) && is_awaited(device));
        let gone: BTreeSet<DeviceName> =
            away.map(|(device, _)| device).chain(before.difference(&online)).cloned().collect();
        for gone in gone {
            self.set(book, Source::Lost, time::now(), |of| of.0 == gone);
        }
        let come: BTreeSet<DeviceName> = online.difference(&before).cloned().collect();
        self.recall(book, io, &come);
    }

    fn set(&self, book: &mut Book, source: Source, at: Timestamp, is: impl Fn(&PointKey) -> bool) {
        for (place, ((_, keys), known)) in self.points.iter().zip(&mut book.sources).enumerate() {
            for (_, known) in keys.of.iter().zip(known).filter(|(of, _)| is(of)) {
                *known = source;
                if let Some(integral) = book.integrals.get_mut(&place) {
                    integral.count(source, at.uptime, keys.per);
                } else {
                    book.changed.insert(place);
                    book.tell_at.get_or_insert(Instant::now() + TOGETHER);
                    book.taken = book.taken.filter(|taken| taken.uptime > at.uptime).or(Some(at));
                }
            }
        }
    }

    /// Reports what changed.
    async fn tell(&self, io: &mut DeviceIo, book: &mut Book) {
        book.tell_at = None;
        let at = book.taken.take().unwrap_or_else(time::now);
        for place in std::mem::take(&mut book.changed) {
            let (Some((name, keys)), Some(sources)) = (self.points.get(place), book.sources.get(place)) else {
                continue;
            };
            match keys.formula.make(sources) {
                Made::Nothing => {}
                Made::Bad => io.report_bad(name).await,
                Made::Is(value, Quality::Good) => io.report_at(name, &Value::Float(value), at).await,
                Made::Is(value, _) => io.report_stale(name, &Value::Float(value)).await,
            }
        }
    }

    /// Saves and reports the integrals whose time has come, or all of them at the end.
    async fn save(&self, io: &mut DeviceIo, book: &mut Book, flash: &mut Flash, is_end: bool) {
        let now = Instant::now();
        let due: Vec<usize> =
            book.due.iter().filter(|(_, due)| is_end || **due <= now).map(|(place, _)| *place).collect();
        if due.is_empty() {
            return;
        }
        let mut totals = Vec::new();
        for (place, name, keys) in self.integrals() {
            if let Some(integral) = book.integrals.get_mut(&place) {
                integral.advance(time::uptime(), keys.per);
                totals.push(Amount { point: name.clone(), total: integral.total, count: None });
            }
        }
        let saved = flash.save(io, totals).await;
        for place in due {
            let (Some((name, keys)), Some(integral)) = (self.points.get(place), book.integrals.get_mut(&place)) else {
                continue;
            };
            let is_whole = !integral.take_hole() && saved.is_ok();
            totals::tell(io, name, &Value::Float(integral.total), is_whole).await;
            let next = book.due.get(&place).map_or(now, |due| *due + keys.every);
            book.due.insert(place, next.max(now));
        }
    }

    /// Sets integrals, on flash first.
    async fn write(&self, io: &mut DeviceIo, write: Write, book: &mut Book, flash: &mut Flash) {
        let places = write.values.iter().map(|(name, value)| {
            let place = self.integrals().find(|(_, known, _)| *known == name).map(|(place, ..)| place);
            place.zip(value.as_f64().filter(|total| total.is_finite())).ok_or_else(|| format!("`{value}` is no number"))
        });
        let places = places.collect::<Result<Vec<_>, String>>();
        let amounts = places.as_ref().map_err(Clone::clone).map(|places| {
            let named = write.values.iter().zip(places);
            named.map(|((name, _), (_, total))| Amount { point: name.clone(), total: *total, count: None }).collect()
        });
        let set = flash.set(io, &write, amounts).await;
        for (place, total) in places.into_iter().flatten().filter(|_| set.is_ok()) {
            if let (Some(integral), Some((_, keys))) = (book.integrals.get_mut(&place), self.points.get(place)) {
                integral.advance(time::uptime(), keys.per);
                integral.total = total;
            }
        }
        let result = set.map(|()| write.values.clone());
        io.answer(write, result).await;
    }
}
