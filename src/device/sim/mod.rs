//! A device without hardware: for first looks, for load tests, and to see what a driver's panic does (nothing to
//! others).
//!
//! Each point follows its own clock. What came due while the gateway was busy is made up for at once, so that a value
//! each 50 µs needs no timer of that grain; after more than a second the missed ticks are left out, without a hole in a
//! counter's numbers.

mod config;
mod wave;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::config::{POINT_KEYS, PointConfig, Wave};
use self::wave::Signal;
use super::io::at;
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Kind, Run, Shape, Spec, Write, WriteError};
use crate::model::{Fault, PointName, Value, ValueType, time};

/// Simulated devices.
pub(super) const KIND: Kind = Kind {
    name: "sim",
    summary: "a device without hardware: sine, ramp, random walk, counter, a switch that answers commands",
    sample: include_str!("sample.toml"),
    device_keys: || &[],
    point_keys: || POINT_KEYS,
    build,
    discover: |_| {},
};

/// So many values at most before the driver listens to the gateway again.
const BURST: usize = 1000;

/// Ticks older than this are left out.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Sim {
    points: Vec<SimPoint>,
}

#[derive(Debug)]
struct SimPoint {
    name: PointName,
    config: PointConfig,
    /// A switch's value at the start.
    first: Value,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let (mut faults, mut points, mut shapes) = (Vec::new(), Vec::new(), Vec::new());
    for point in spec.points {
        let name = point.name;
        let under = |fault: Fault| fault.under(&["point", name.as_str()]);
        match PointConfig::read(&point.table) {
            Err(found) => faults.extend(found.into_iter().map(under)),
            Ok(config) => {
                faults.extend(config.check(&point.declaration).into_iter().map(under));
                let is_switch = config.wave == Wave::Switch;
                let value_type = config.value_type(point.declaration.value_type);
                shapes.push(Shape { writable: is_switch, value_type, holds: is_switch });
                let first = config.first(point.declaration.safe.as_ref());
                points.push(SimPoint { name, config, first });
            }
        }
    }
    if faults.is_empty() { Ok(Built { driver: Arc::new(Sim { points }), points: shapes }) } else { Err(faults) }
}

impl Driver for Sim {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(self.life(io))
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async { Ok("simulated: there is nothing to open".to_owned()) })
    }
}

impl Sim {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let switches = self.points.iter().filter(|point| point.config.wave == Wave::Switch);
        io.opened(switches.map(|point| (point.name.clone(), point.first.clone())).collect()).await;
        io.online();
        let start = Instant::now();
        let mut sources: Vec<Source<'_>> = self.points.iter().filter_map(|point| Source::new(point, start)).collect();
        loop {
            let due = sources.iter().map(|source| source.due).min();
            tokio::select! {
                biased;
                ask = io.next() => match ask {
                    Ask::Stop => return Ok(()),
                    Ask::Write(write) => switch(io, write).await,
                },
                () = at(due) => tick(&mut sources, io).await,
            }
        }
    }
}

/// A point that speaks by itself, and when it does next.
#[derive(Debug)]
struct Source<'a> {
    name: &'a PointName,
    signal: Signal,
    panics: bool,
    due: Instant,
}

impl<'a> Source<'a> {
    fn new(point: &'a SimPoint, start: Instant) -> Option<Self> {
        let seed = getrandom::u64().unwrap_or_default();
        let signal = Signal::new(&point.config, seed);
        let panics = point.config.wave == Wave::Panic;
        let due = if panics { start + point.config.after() } else { start };
        (point.config.wave != Wave::Switch).then_some(Source { name: &point.name, signal, panics, due })
    }
}

/// Sends what is due.
async fn tick(sources: &mut [Source<'_>], io: &mut DeviceIo) {
    let now = Instant::now();
    let taken = time::now();
    let mut left = BURST;
    while let Some(source) = sources.iter_mut().min_by_key(|source| source.due).filter(|source| source.due <= now)
        && left > 0
    {
        left -= 1;
        assert!(!source.panics, "the simulated point `{}` panics, as its config says", source.name);
        if let Some(value) = source.signal.next() {
            io.report_at(source.name, &value, taken).await;
        }
        let late = now.saturating_duration_since(source.due) > PATIENCE;
        source.due = if late { now } else { source.due } + source.signal.every();
    }
}

/// A switch takes any value that is on or off.
async fn switch(io: &mut DeviceIo, write: Write) {
    let values: Result<Vec<_>, WriteError> = write
        .values
        .iter()
        .map(|(name, value)| match value.convert(ValueType::Bool) {
            Ok(value) => Ok((name.clone(), value)),
            Err(error) => Err(WriteError::Failed(error.to_string())),
        })
        .collect();
    let result = values.and_then(|values| io.begin(&write).map(|()| values));
    io.answer(write, result).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Rig, faults, good};
    use crate::model::{Answer, Arrival, Cause};

    #[tokio::test]
    async fn a_fast_counter_keeps_its_pace_and_leaves_no_hole() {
        let mut rig = Rig::start(
            r#"
            [device.load]
            kind = "sim"
            max_rate = "off"
            [device.load.point.n]
            wave = "counter"
            every = "50us"
        "#,
        );
        let start = Instant::now();
        for n in 1..=20_000 {
            assert_eq!(rig.value().await, good("n", Value::Int(n)));
        }
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(990), "20 000 values at 20 kHz took only {took:?}");
        rig.stop().await;
    }

    #[tokio::test]
    async fn what_is_too_fast_is_told_as_lost_now_and_then_and_adds_up() {
        let mut rig = Rig::start(
            r#"
            [device.load]
            kind = "sim"
            max_rate = "100/s"
            [device.load.point.n]
            wave = "counter"
            every = "100us"
        "#,
        );
        let (mut last, mut seen, mut lost, mut notices) = (0, 0, 0, 0);
        let mut take = |arrival| {
            match arrival {
                Arrival::Reading(reading) => {
                    let Some(Value::Int(n)) = reading.value else { panic!("{reading:?}") };
                    assert!(n > last, "{n} after {last}");
                    (last, seen) = (n, seen + 1);
                }
                Arrival::Lost { count, .. } => (lost, notices) = (lost + count, notices + 1),
                Arrival::Outcome(outcome) => panic!("{outcome:?}"),
            }
            notices
        };
        while take(rig.arrival().await) < 2 {}
        // Some more are lost, and not told when the stop comes.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for arrival in rig.last_arrivals().await {
            take(arrival);
        }
        // Two notices are a second apart: 10 000 values, of which 100 may pass after the first burst of 100.
        assert!((100..=1000).contains(&seen), "{seen} readings");
        assert!(lost > 5_000, "{lost} lost");
        assert_eq!(seen + lost, u64::try_from(last).unwrap(), "each value is a reading, or told as lost");
    }

    #[tokio::test]
    async fn a_switch_begins_with_its_safe_value_and_obeys() {
        let mut rig = Rig::start(
            r#"
            [device.demo]
            kind = "sim"
            [device.demo.point.pump]
            wave = "switch"
            safe = true
            [device.demo.point.gate]
            wave = "switch"
            type = "text"
            map = { true = "open", false = "closed" }
        "#,
        );
        let first = rig.reading().await;
        assert_eq!((first.value, first.cause), (Some(Value::text("closed")), Some(Cause::Start)));
        assert_eq!(rig.value().await, good("pump", Value::Bool(true)));
        let answer = rig.write(&[("pump", Value::Bool(false)), ("gate", Value::text("open"))]).await;
        assert!(matches!(&answer, Answer::Ended { result: Ok(values), .. } if values.len() == 2), "{answer:?}");
        let reading = rig.reading().await;
        assert_eq!(reading.value, Some(Value::Bool(false)));
        assert!(matches!(reading.cause, Some(Cause::Command(_))));
        assert_eq!(rig.value().await, good("gate", Value::text("open")));
        rig.stop().await;
    }

    #[tokio::test]
    async fn a_write_that_waits_when_the_device_stops_is_answered() {
        let text = "[device.s]\nkind = \"sim\"\n[device.s.point.fan]\nwave = \"switch\"\n";
        let mut rig = Rig::start(text);
        rig.online().await;
        let answers = rig.stop_with_waiting(3, "fan", &Value::Bool(true)).await;
        let stopped = Err(WriteError::Failed("it was stopped".to_owned()));
        let expected: Vec<_> = (1..=3).map(|ticket| Answer::Ended { ticket, result: stopped.clone() }).collect();
        let ended: Vec<_> = answers.into_iter().filter(|answer| matches!(answer, Answer::Ended { .. })).collect();
        assert_eq!(ended, expected);
    }

    #[tokio::test]
    async fn a_panic_ends_the_driver_and_the_supervisor_starts_it_again() {
        let mut rig = Rig::start(
            r#"
            [device.demo]
            kind = "sim"
            [device.demo.point.trouble]
            wave = "panic"
            after = "100ms"
            [device.demo.point.n]
            wave = "counter"
            every = "1h"
        "#,
        );
        assert_eq!(rig.value().await, good("n", Value::Int(1)));
        let why = rig.offline().await;
        assert!(why.contains("the simulated point `trouble` panics"), "{why}");
        assert_eq!(rig.value().await, good("n", Value::Int(1)));
        rig.online().await;
        rig.stop().await;
    }

    #[test]
    fn a_wrong_table_is_told_key_by_key() {
        for (point, expected) in [
            ("", "point.x: missing field `wave`"),
            ("wave = \"square\"", "point.x.wave: unknown variant `square`"),
            ("wave = \"counter\"\nlow = 1", "point.x.low: this wave does not use it"),
            ("wave = \"sine\"\nafter = \"1s\"", "point.x.after: this wave does not use it"),
            ("wave = \"sine\"\nevery = \"0s\"", "point.x.every: expected a duration from \"10us\" to \"1day\""),
            ("wave = \"sine\"\nhigh = -1", "point.x.high: expected a number above `low`"),
            ("wave = \"sine\"\ntype = \"bool\"", "point.x.type: only a switch"),
            ("wave = \"switch\"\nsafe = 7", "point.x.safe: expected true or false"),
        ] {
            let found = faults(&format!("[device.demo]\nkind = \"sim\"\n[device.demo.point.x]\n{point}"));
            assert!(found.iter().any(|fault| fault.contains(expected)), "{point}: {found:?}");
        }
    }
}
