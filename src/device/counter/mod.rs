//! Pulses on GPIO lines, and those that a counter of the kernel's counts: meters for water, gas, heat and energy, flow
//! sensors, rain gauges.
//!
//! The kernel counts (`gpio::pulses`, `kernel`); this adds up, and keeps the totals on flash (`device/totals.rs`). A total is
//! saved before it is reported, so what anybody has seen never goes back: a power cut costs at most what came since the last
//! report, which is `every`, or `pulses` where that is reached before. What came on a line while the gateway did not run,
//! nobody counted: the first reading after a start is the total as it was saved, and stale. A counter of the kernel's goes on
//! meanwhile, so only a boot makes its total stale. `rate` is how fast a total grows.

mod config;
mod kernel;
mod rate;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::config::{POINT_KEYS, PointConfig, SHORTEST};
use self::rate::Rate;
use super::gpio::pulses::{self, Pulses};
use super::totals::{self, Amount, Flash};
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Kind, Raw, Run, Shape, Spec, Write};
use crate::model::{self, Fault, PointName, Value, time};

/// Counters.
pub(super) const KIND: Kind = Kind {
    name: "counter",
    summary: "pulses on lines of a GPIO chip, or of the kernel's counters: totals that outlive power cuts, and rates",
    sample: include_str!("sample.toml"),
    device_keys: || &[],
    point_keys: || POINT_KEYS,
    build,
    discover: |_| {},
};

/// How often the kernel is asked: it counts by itself.
const LOOK: Duration = Duration::from_millis(200);

/// A counter of the kernel's that does not answer for so long is lost: some stand behind an I2C bus.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is counted.
#[derive(Debug, Clone)]
enum Wanted {
    Line(pulses::Wanted),
    Kernel(kernel::Wanted),
}

/// The same, in use.
#[derive(Debug)]
enum Source {
    Line(Pulses),
    Kernel(kernel::Count),
}

#[derive(Debug)]
struct Counter {
    totals: Vec<Total>,
    rates: Vec<RatePoint>,
}

/// A point that is a total.
#[derive(Debug)]
struct Total {
    name: PointName,
    wanted: Wanted,
    every: Duration,
    pulses: Option<u64>,
}

/// A point that is a rate.
#[derive(Debug)]
struct RatePoint {
    name: PointName,
    /// The place of its total.
    of: usize,
    every: Duration,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let (mut faults, mut shapes, mut totals, mut rates) = (Vec::new(), Vec::new(), Vec::<Total>::new(), Vec::new());
    for point in spec.points {
        let under = |fault: Fault| fault.under(&["point", point.name.as_str()]);
        let keys = match PointConfig::read(&point.table) {
            Ok(keys) => keys,
            Err(found) => {
                faults.extend(found.into_iter().map(under));
                continue;
            }
        };
        faults.extend(keys.check(&point.declaration).into_iter().map(under));
        let value_type = point.declaration.value_type;
        shapes.push(Shape { writable: keys.settable, value_type, holds: keys.line.is_some() });
        let every = keys.every().0;
        if let Some(wanted) = keys.wanted() {
            if let Some(other) = totals.iter().find(|other| other.wanted.is_same(&wanted)) {
                let key = if matches!(wanted, Wanted::Line(_)) { "line" } else { "path" };
                faults.push(under(Fault::at(key, format!("the point `{}` counts this already", other.name))));
            }
            totals.push(Total { name: point.name, wanted, every, pulses: keys.pulses });
        } else if let Some(of) = keys.rate_of {
            rates.push((point.name, of, every));
        }
    }
    let mut found = Vec::new();
    for (name, of, every) in rates {
        match totals.iter().position(|total| total.name.as_str() == of) {
            Some(of) => found.push(RatePoint { name, of, every }),
            None => {
                let text = format!("`{of}` is no total of this device");
                faults.push(Fault::at("rate_of", text).under(&["point", name.as_str()]));
            }
        }
    }
    faults.extend(totals::fault(totals.iter().map(|total| (&total.name, matches!(total.wanted, Wanted::Kernel(_))))));
    let driver = Arc::new(Counter { totals, rates: found });
    if faults.is_empty() { Ok(Built { driver, points: shapes }) } else { Err(faults) }
}

impl Driver for Counter {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(self.life(io))
    }

    fn opens(&self) -> Vec<PathBuf> {
        let opened = |total: &Total| match &total.wanted {
            Wanted::Line(line) => line.chip().ok(),
            Wanted::Kernel(count) => count.switch(),
        };
        let mut all: Vec<_> = self.totals.iter().filter_map(opened).collect();
        all.sort();
        all.dedup();
        all
    }

    fn raw(&self, point: &PointName) -> Raw {
        if self.rates.iter().any(|rate| rate.name == *point) { Raw::Fraction } else { Raw::Number }
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async {
            let looks = self.totals.iter().map(|total| match total.wanted.look() {
                Ok(text) => Ok(format!("{}: {text}", total.name)),
                Err(text) => Err(total.failed(&text)),
            });
            Ok(looks.collect::<Result<Vec<_>, _>>()?.join("; "))
        })
    }
}

impl Wanted {
    fn is_same(&self, other: &Wanted) -> bool {
        match (self, other) {
            (Wanted::Line(one), Wanted::Line(other)) => one.line == other.line,
            (Wanted::Kernel(one), Wanted::Kernel(other)) => one == other,
            _ => false,
        }
    }

    /// What is known of it; opens nothing. Blocks.
    fn look(&self) -> Result<String, String> {
        match self {
            Wanted::Line(line) => line.look(),
            Wanted::Kernel(count) => count.look(),
        }
    }

    /// Opens it; `name` is what others see of who has a line.
    async fn open(&self, name: &PointName) -> Result<Source, String> {
        match self {
            Wanted::Line(line) => Pulses::open(line, name.as_str()).map(Source::Line),
            Wanted::Kernel(count) => {
                let count = count.clone();
                let opened = timeout(PATIENCE, spawn_blocking(move || count.open())).await;
                let opened = opened.map_err(|_| SILENT.to_owned())?;
                opened.map_err(|error| error.to_string())?.map(Source::Kernel)
            }
        }
    }
}

impl Total {
    fn failed(&self, text: &str) -> DeviceError {
        DeviceError::Open(format!("point `{}`: {text}", self.name))
    }
}

/// What is counted, while it is.
#[derive(Debug)]
struct Counting {
    source: Source,
    total: u64,
    rate: Rate,
    /// When it is saved and reported next.
    due: Instant,
    /// The total of the last report, and when that was.
    told: u64,
    told_at: Instant,
}

impl Counter {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let mut flash = Flash::load(io, self.totals.iter().map(|total| total.name.clone()).collect()).await?;
        let mut counting = Vec::with_capacity(self.totals.len());
        let now = Instant::now();
        let mut is_known = Vec::with_capacity(self.totals.len());
        for total in &self.totals {
            let source = total.wanted.open(&total.name).await.map_err(|text| total.failed(&text))?;
            let before = flash.of(&total.name).map(counted).unwrap_or_default();
            let mut value = before;
            let mut is_whole = flash.is_new(&total.name);
            if let (Source::Kernel(count), Wanted::Kernel(wanted)) = (&source, &total.wanted)
                // Another count's number says nothing of this one.
                && let Some((counted, same_boot)) = flash.count_of(&total.name, wanted.id())
            {
                // With each boot it begins at 0. Where nobody knows whether there was one, only what surely came is added.
                let came = match same_boot {
                    Some(true) => count.since(counted),
                    Some(false) => count.last(),
                    None => count.since(counted).min(count.last()),
                };
                value = value.saturating_add(came);
                is_whole |= same_boot == Some(true);
            }
            is_known.push(is_whole);
            counting.push(Counting {
                source,
                total: value,
                rate: Rate::default(),
                due: now + total.every,
                told: value,
                told_at: now,
            });
        }
        // What they are is told below: of lines nobody knows what was missed.
        io.opened(Vec::new()).await;
        io.online();
        let saved = match counting.iter().any(|counting| matches!(counting.source, Source::Kernel(_))) {
            true => flash.save(io, self.amounts(&counting)).await,
            false => Ok(()),
        };
        for ((total, counting), is_known) in self.totals.iter().zip(&counting).zip(is_known) {
            totals::tell(io, &total.name, &number(counting.total), is_known && saved.is_ok()).await;
        }
        let mut rates_due: Vec<Instant> = self.rates.iter().map(|rate| now + rate.every).collect();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ask = tokio::select! {
                biased;
                ask = io.next() => Some(ask),
                _ = looks.tick() => None,
            };
            let counted = self.look(&mut counting).await;
            let is_end = counted.is_err() || matches!(ask, Some(Ask::Stop));
            if let Some(Ask::Write(write)) = ask {
                self.write(io, write, &mut counting, &mut flash).await;
            }
            self.tell(io, &mut counting, &mut flash, is_end).await;
            for (rate, due) in self.rates.iter().zip(&mut rates_due) {
                if *due <= Instant::now() {
                    *due = next(*due, rate.every);
                    if let Some(line) = counting.get_mut(rate.of) {
                        let value = Value::Float(line.rate.take(time::monotonic()));
                        io.report(&rate.name, &value).await;
                    }
                }
            }
            counted?;
            if is_end {
                return Ok(());
            }
        }
    }

    /// Takes what the kernel has counted.
    async fn look(&self, counting: &mut [Counting]) -> Result<(), DeviceError> {
        let mut all = Ok(());
        for (total, counting) in self.totals.iter().zip(counting) {
            let found = match &mut counting.source {
                Source::Line(pulses) => pulses
                    .take()
                    .map(|found| found.map(|found| (found.pulses, found.last)))
                    .map_err(|error| error.to_string()),
                Source::Kernel(count) => {
                    let file = count.file();
                    match timeout(PATIENCE, spawn_blocking(move || kernel::read(&file))).await {
                        Ok(Ok(read)) => {
                            read.map(|now| Some((count.take(now), time::monotonic())).filter(|(pulses, _)| *pulses > 0))
                        }
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err(SILENT.to_owned()),
                    }
                }
            };
            match found {
                Ok(Some((pulses, last))) => {
                    counting.total = counting.total.saturating_add(pulses);
                    counting.rate.add(pulses, last);
                }
                Ok(None) => {}
                // The others are counted to the end.
                Err(error) => all = Err(DeviceError::Lost(format!("point `{}`: {error}", total.name))),
            }
        }
        all
    }

    /// What is to be kept of all of them.
    fn amounts(&self, counting: &[Counting]) -> Vec<Amount> {
        let amount = |(total, counting): (&Total, &Counting)| Amount {
            point: total.name.clone(),
            total: kept(counting.total),
            count: match (&counting.source, &total.wanted) {
                (Source::Kernel(count), Wanted::Kernel(wanted)) => Some((count.last(), wanted.id())),
                _ => None,
            },
        };
        self.totals.iter().zip(counting).map(amount).collect()
    }

    /// Saves and reports the totals whose time has come, or all of them at the end.
    async fn tell(&self, io: &mut DeviceIo, counting: &mut [Counting], flash: &mut Flash, is_end: bool) {
        let (now, was_refused) = (Instant::now(), flash.is_refused());
        let is_due = |total: &Total, line: &Counting| {
            let more = line.total.saturating_sub(line.told);
            // Flash wears, however fast they come.
            let is_full = total.pulses.is_some_and(|pulses| more >= pulses) && now >= line.told_at + SHORTEST.0;
            line.due <= now || is_full || (is_end && (more > 0 || was_refused))
        };
        if !self.totals.iter().zip(&*counting).any(|(total, line)| is_due(total, line)) {
            return;
        }
        let saved = flash.save(io, self.amounts(counting)).await;
        for (total, line) in self.totals.iter().zip(counting) {
            if !is_due(total, line) {
                continue;
            }
            totals::tell(io, &total.name, &number(line.total), saved.is_ok()).await;
            (line.told, line.told_at) = (line.total, now);
            line.due = if line.due <= now { next(line.due, total.every) } else { now + total.every };
        }
    }

    /// Sets totals, on flash first.
    async fn write(&self, io: &mut DeviceIo, write: Write, counting: &mut [Counting], flash: &mut Flash) {
        let places = write.values.iter().map(|(name, value)| {
            let place = self.totals.iter().position(|total| total.name == *name);
            place.zip(whole(value)).ok_or_else(|| format!("`{value}` is no number of pulses: expected 0 to 2^53"))
        });
        let places = places.collect::<Result<Vec<_>, String>>();
        // With what the kernel has counted of the others: their totals are as they were when it was that far.
        let mut amounts = self.amounts(counting);
        for (place, total) in places.iter().flatten() {
            if let Some(amount) = amounts.get_mut(*place) {
                amount.total = kept(*total);
            }
        }
        let set = flash.set(io, &write, places.clone().map(|_| amounts)).await;
        let mut values = Vec::with_capacity(write.values.len());
        for (place, total) in places.into_iter().flatten().filter(|_| set.is_ok()) {
            if let Some((counting, known)) = counting.get_mut(place).zip(self.totals.get(place)) {
                (counting.total, counting.told) = (total, total);
                values.push((known.name.clone(), number(total)));
            }
        }
        io.answer(write, set.map(|()| values)).await;
    }
}

const SILENT: &str = "the kernel's counter does not answer";

/// The next time after this one, without those that were missed.
fn next(due: Instant, every: Duration) -> Instant {
    (due + every).max(Instant::now())
}

/// As it is kept.
#[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 pulses: ten thousand a second for 28000 years")]
fn kept(total: u64) -> f64 {
    total as f64
}

/// As it was kept.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a whole number from 0 on")]
fn counted(total: f64) -> u64 {
    total as u64
}

fn number(total: u64) -> Value {
    Value::Int(i64::try_from(total).unwrap_or(i64::MAX))
}

/// A number of pulses, the nearest one: what a meter shows is seldom a whole number of them.
fn whole(value: &Value) -> Option<u64> {
    /// 2^53: up to here every whole number is kept as it is.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let pulses = value.convert(model::ValueType::Float).ok()?.as_f64()?;
    (0.0..=MOST).contains(&pulses).then(|| counted(pulses.round()))
}
