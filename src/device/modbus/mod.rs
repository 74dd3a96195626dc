//! Modbus slaves, RTU on a serial line and TCP: registers and bits, polled and written.
//!
//! A bus may be shared (`bus`), each slave is a device of its own. `pdu` and `frame` are the protocol, `encoding` is what
//! stands in registers, `plan` merges points into requests: pure functions, all of them. `wire` does the I/O.
//!
//! A slave that does not answer is asked less and less, by one short question that costs the others one time-out; it is
//! offline from the second one on, and its bus goes on. That question has an answer of another length than the one that
//! was not answered, so an answer that comes late is never taken for another one's: a slave answers in the order in
//! which it was asked, so what is behind the short answer is new. A lost bus ends the driver; the supervisor's next start
//! opens it again.
//!
//! A write is said once, unless its point has `retry_write`: where no answer comes, nobody knows.

mod bus;
mod config;
mod encoding;
mod frame;
mod pdu;
mod plan;
mod scan;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

pub(super) use self::bus::Buses;
use self::bus::{For, Seat, Turn};
use self::config::{Config, PointConfig};
use self::encoding::Layout;
use self::pdu::{Exception, Request, Table};
use self::plan::{Block, Spot};
pub use self::scan::{Scan, Units, scan};
use self::wire::Trouble;
use super::port;
use super::tape::{Seed, Tape};
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Kind, Run, Shape, Spec, Write, WriteError};
use crate::model::{self, Fault, PointName, Timestamp, Value, time};

/// Slaves on a bus.
pub(super) const KIND: Kind = Kind {
    name: "modbus",
    summary: "a Modbus slave, RTU on a serial line or TCP: meters, drives, inputs and outputs; several on one bus",
    sample: include_str!("sample.toml"),
    device_keys: || model::keys::<Config>(),
    point_keys: || model::keys::<PointConfig>(),
    build,
    discover: |_| {},
};

/// How often a question is asked whose answer came damaged.
const ATTEMPTS: u32 = 3;

/// So many sound answers end an episode of damaged ones.
const SOUND: u32 = 100;

/// A slave that was silent so often is offline: one may be lost by noise.
const PATIENCE: u32 = 2;

/// The pause before a silent slave is asked again, at first; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// One that was repaired is back within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The first questions of a device are spread over so much at most.
const SPREAD: Duration = Duration::from_secs(1);

/// A slave, and its points.
#[derive(Debug)]
struct Modbus {
    config: Config,
    points: Vec<Point>,
    /// Where the points are that are read, by their places in `points`.
    spots: Vec<Option<Spot>>,
}

#[derive(Debug)]
struct Point {
    name: PointName,
    layout: Layout,
    keys: PointConfig,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let config: Config = super::read(&spec.table).map_err(|fault| vec![fault])?;
    let mut faults = config.check();
    let (mut points, mut shapes) = (Vec::new(), Vec::new());
    for point in spec.points {
        let under = |fault: Fault| fault.under(&["point", point.name.as_str()]);
        match super::read::<PointConfig>(&point.table) {
            Ok(keys) => {
                faults.extend(keys.check(&config, &point.declaration).into_iter().map(under));
                let value_type = keys.value_type(&point.declaration);
                shapes.push(Shape { writable: keys.write, value_type, holds: false });
                points.push(Point { name: point.name, layout: keys.layout(), keys });
            }
            Err(fault) => faults.push(under(fault)),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let broadcast = config.is_broadcast();
    let spots = points.iter().map(|point| (!broadcast).then(|| point.keys.spot(&config))).collect();
    Ok(Built { driver: Arc::new(Modbus { config, points, spots }), points: shapes })
}

impl Driver for Modbus {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(self.life(io))
    }

    fn opens(&self) -> Vec<PathBuf> {
        self.config.bus.port.iter().map(PathBuf::from).collect()
    }

    fn is_of_bytes(&self) -> bool {
        true
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async {
            if let Some(settings) = self.config.bus.settings() {
                return port::probe(&settings).await;
            }
            let address = self.config.bus.address.as_deref().unwrap_or_default();
            wire::connect(address).await.map(|_| format!("{address} can be reached"))
        })
    }
}

/// What is to be read, and when.
#[derive(Debug)]
struct Polls(Vec<(Instant, Block)>);

impl Polls {
    fn new(blocks: Vec<Block>, now: Instant) -> Self {
        let count = u32::try_from(blocks.len()).unwrap_or(u32::MAX).max(1);
        let spread = |(place, block): (u32, Block)| (now + block.every.min(SPREAD) * place / count, block);
        Polls((0..).zip(blocks).map(spread).collect())
    }

    /// The place of the one whose turn is next.
    fn next(&self) -> Option<(usize, Instant)> {
        self.0.iter().enumerate().map(|(place, (due, _))| (place, *due)).min_by_key(|(_, due)| *due)
    }

    /// What was missed meanwhile is left out.
    fn done(&mut self, place: usize) {
        if let Some((due, block)) = self.0.get_mut(place) {
            let late = Instant::now().saturating_duration_since(*due).as_nanos();
            let missed = u32::try_from(late / block.every.as_nanos().max(1)).unwrap_or(u32::MAX - 1);
            *due += block.every * (missed + 1);
        }
    }

    /// Asks for each half by itself from now on; false: it is one point.
    fn split(&mut self, place: usize, spots: &[Option<Spot>]) -> bool {
        let Some(halves) = self.0.get(place).and_then(|(_, block)| block.split(spots)) else { return false };
        let now = Instant::now();
        self.0.splice(place..=place, halves.map(|half| (now, half)));
        true
    }
}

/// How it stands with the slave.
#[derive(Debug)]
struct Health {
    /// How often it was silent since it answered last.
    silent: u32,
    /// What may still come, late: so many bytes of data, for the question that was not answered.
    owed: Option<usize>,
    /// A silent slave is not asked before.
    not_before: Instant,
    pause: Duration,
    /// Answers that came damaged, in this episode.
    damaged: u32,
    /// Sound ones since the last of them.
    sound: u32,
    /// Points that are refused, or are no value, as it was told.
    trouble: BTreeMap<usize, String>,
    /// What outputs are, as the router knows it: others may set them as well.
    outputs: BTreeMap<usize, Value>,
}

impl Modbus {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let buses = io.buses().clone();
        let tape = io.tape().clone();
        let mut seat = buses.join(&self.config.bus, &tape);
        drop(seat.turn(For::Poll).await?);
        // What the outputs behind a slave are, its polls say.
        io.opened(Vec::new()).await;
        let now = Instant::now();
        let mut polls = Polls::new(plan::blocks(&self.spots, self.config.limits()), now);
        let mut health = Health {
            silent: 0,
            owed: io.take_seed().owed,
            not_before: now,
            pause: FIRST_PAUSE,
            damaged: 0,
            sound: 0,
            trouble: BTreeMap::new(),
            outputs: BTreeMap::new(),
        };
        if self.config.is_broadcast() {
            io.online();
        }
        let mut waiting = None;
        loop {
            if let Some(write) = waiting.take() {
                self.write(&seat, io, &mut health, write).await?;
                continue;
            }
            let next = polls.next().map(|(place, due)| (place, due.max(health.not_before)));
            let next = self.next_on(&tape, &polls, &health).or(next);
            let ask = tokio::select! {
                biased;
                ask = io.next() => Some(ask),
                error = seat.lost() => return Err(error),
                () = tape.wanted() => {
                    io.begin_anew(Seed { owed: health.owed, ..Seed::default() });
                    break;
                }
                () = turn(next.map(|(_, due)| due), &tape) => None,
            };
            match (ask, next) {
                (Some(Ask::Stop), _) => break,
                (Some(Ask::Write(write)), _) => waiting = Some(write),
                (None, Some((place, _))) => {
                    let Some(ask) = self.poll(&mut seat, io, &mut polls, &mut health, place).await? else { continue };
                    match ask {
                        Ask::Stop => break,
                        Ask::Write(write) => waiting = Some(write),
                    }
                }
                (None, None) => {}
            }
        }
        seat.leave().await;
        Ok(())
    }

    /// On the desk, the question that was asked next, and when.
    fn next_on(&self, tape: &Tape, polls: &Polls, health: &Health) -> Option<(usize, Instant)> {
        let (sent, due) = tape.player()?.next_sent()?;
        let asks = |(_, block): &(Instant, Block)| {
            let request = health.owed.map_or_else(|| block.request(), |owed| probe(block, owed));
            let asked = [&[self.config.unit][..], &request.pdu()].concat();
            sent.windows(asked.len()).any(|part| part == asked)
        };
        Some((polls.0.iter().position(asks)?, due))
    }

    /// Reads one block, or asks a silent slave whether it is there. What the gateway wanted meanwhile is the result.
    async fn poll(
        &self,
        seat: &mut Seat,
        io: &mut DeviceIo,
        polls: &mut Polls,
        health: &mut Health,
        place: usize,
    ) -> Result<Option<Ask>, DeviceError> {
        let Some(block) = polls.0.get(place).map(|(_, block)| block.clone()) else { return Ok(None) };
        let probe = health.owed.map(|owed| probe(&block, owed));
        let request = probe.clone().unwrap_or_else(|| block.request());
        let mut turn = tokio::select! {
            biased;
            ask = io.next() => return Ok(Some(ask)),
            turn = seat.turn(For::Poll) => turn?,
        };
        let mut asked = None;
        let (answer, damaged) = {
            let mut exchange = pin!(self.read(&mut turn, &request));
            loop {
                tokio::select! {
                    biased;
                    answer = &mut exchange => break answer,
                    ask = io.next(), if asked.is_none() => match ask {
                        Ask::Stop => return Ok(Some(Ask::Stop)),
                        Ask::Write(write) => asked = Some(Ask::Write(write)),
                    },
                }
            }
        };
        let came = turn.heard().unwrap_or_else(time::now);
        drop(turn);
        self.heard(io, health, damaged);
        match answer {
            Err(Trouble::Lost(error)) => {
                // The supervisor answers the write that came meanwhile.
                return Err(error);
            }
            Err(trouble @ (Trouble::Silence(_) | Trouble::Damaged)) => {
                self.silent(io, health, request, &trouble).await;
                return Ok(asked);
            }
            Ok(_) | Err(Trouble::Refused(_)) => self.answered(io, health),
        }
        if probe.is_some() {
            return Ok(asked);
        }
        match answer {
            Ok(data) => {
                polls.done(place);
                for point in &block.points {
                    self.report(io, health, *point, &block, &data, came).await;
                }
            }
            Err(Trouble::Refused(Exception::ADDRESS | Exception::VALUE)) if polls.split(place, &self.spots) => {}
            Err(Trouble::Refused(exception)) => {
                polls.done(place);
                for point in &block.points {
                    self.report_bad(io, health, *point, exception.to_string(), came).await;
                }
            }
            Err(_) => {}
        }
        Ok(asked)
    }

    /// Asks for what only reads, again where the answer came damaged; and says how often it did.
    async fn read(&self, turn: &mut Turn<'_>, request: &Request) -> (Result<Vec<u8>, Trouble>, u32) {
        let mut damaged = 0;
        loop {
            let answer = turn.ask(self.config.unit, request).await;
            if answer != Err(Trouble::Damaged) {
                return (answer, damaged);
            }
            damaged += 1;
            if damaged == ATTEMPTS {
                return (answer, damaged);
            }
        }
    }

    async fn report(
        &self,
        io: &mut DeviceIo,
        health: &mut Health,
        index: usize,
        block: &Block,
        data: &[u8],
        came: Timestamp,
    ) {
        let (Some(point), Some(Some(spot))) = (self.points.get(index), self.spots.get(index)) else { return };
        let start = usize::from(spot.address.saturating_sub(block.address));
        match point.value(block.table, data, start) {
            Some(value) => {
                if health.trouble.remove(&index).is_some() {
                    tracing::info!(DEVICE = %io.device(), POINT = %point.name, "{} can be read again", point.name);
                }
                if point.keys.write && health.outputs.get(&index) != Some(&value) && io.found(&point.name, &value) {
                    health.outputs.insert(index, value.clone());
                }
                io.report_at(&point.name, &value, came).await;
            }
            None => {
                let why = format!("no {:?}", point.layout.encoding).to_lowercase();
                self.report_bad(io, health, index, why, came).await;
            }
        }
    }

    async fn report_bad(&self, io: &mut DeviceIo, health: &mut Health, index: usize, why: String, came: Timestamp) {
        let Some(point) = self.points.get(index) else { return };
        if health.trouble.get(&index) != Some(&why) {
            tracing::warn!(DEVICE = %io.device(), POINT = %point.name, "{} at {} {} can't be read: {why}", point.name, point.keys.table, point.keys.address);
            health.trouble.insert(index, why);
        }
        io.report_bad_at(&point.name, came).await;
    }

    /// Answers that came damaged are told once, and counted until many sound ones came in a row.
    fn heard(&self, io: &DeviceIo, health: &mut Health, damaged: u32) {
        let unit = self.config.unit;
        if damaged > 0 {
            if health.damaged == 0 {
                tracing::warn!(DEVICE = %io.device(), "an answer of unit {unit} came damaged (wrong CRC): asked again");
            }
            (health.damaged, health.sound) = (health.damaged + damaged, 0);
            return;
        }
        health.sound += 1;
        if health.damaged > 0 && health.sound >= SOUND {
            tracing::info!(DEVICE = %io.device(), "unit {unit} answers soundly again, after {} damaged answers", health.damaged);
            health.damaged = 0;
        }
    }

    fn answered(&self, io: &mut DeviceIo, health: &mut Health) {
        (health.silent, health.owed, health.pause) = (0, None, FIRST_PAUSE);
        health.not_before = Instant::now();
        io.online();
    }

    async fn silent(&self, io: &mut DeviceIo, health: &mut Health, request: Request, trouble: &Trouble) {
        health.silent += 1;
        health.owed = Some(request.data_length());
        if health.silent < PATIENCE {
            return;
        }
        if health.silent == PATIENCE {
            for point in &self.points {
                io.report_bad(&point.name).await;
            }
        }
        let unit = self.config.unit;
        io.offline(&match trouble {
            Trouble::Damaged => {
                format!("unit {unit} answers with a wrong CRC: is the line sound, and its end terminated?")
            }
            Trouble::Silence(0) => format!("unit {unit} does not answer"),
            trouble => {
                let count = if let Trouble::Silence(count) = trouble { *count } else { 0 };
                format!(
                    "unit {unit} does not answer; what came, {count} bytes, is no answer: do baud rate and parity fit?"
                )
            }
        });
        // Those that died together, by a fuse, are not asked in one round for ever.
        health.not_before = Instant::now() + health.pause * (16 - u32::from(unit % 8)) / 16;
        health.pause = (health.pause * 2).min(LONGEST_PAUSE);
    }

    /// Does what is asked for. The error is the bus's; the asker has its answer then already.
    async fn write(
        &self,
        seat: &Seat,
        io: &mut DeviceIo,
        health: &mut Health,
        write: Write,
    ) -> Result<(), DeviceError> {
        let each = write.values.iter().map(|(name, value)| {
            let point = self.points.iter().find(|point| point.name == *name && point.keys.write);
            let point = point.ok_or_else(|| format!("`{name}` can't be written"))?;
            Ok((point, value.clone(), point.setting(value)?))
        });
        let settings: Vec<(&Point, Value, Request)> = match each.collect::<Result<Vec<_>, String>>() {
            Ok(settings) => settings,
            Err(text) => {
                io.answer(write, Err(WriteError::Failed(text))).await;
                return Ok(());
            }
        };
        let turn = match seat.turn(For::Command).await {
            Ok(mut turn) => match turn.ready().await {
                Err(Trouble::Lost(error)) => Err(error),
                _ => Ok(turn),
            },
            Err(error) => Err(error),
        };
        let mut turn = match turn {
            Ok(turn) => turn,
            Err(error) => {
                io.answer(write, Err(WriteError::Failed(error.to_string()))).await;
                return Err(error);
            }
        };
        if let Err(error) = io.begin(&write) {
            drop(turn);
            io.answer(write, Err(error)).await;
            return Ok(());
        }
        // What the next poll says of them is news.
        health.outputs.clear();
        let mut done: Vec<(PointName, Value)> = Vec::new();
        for (point, value, request) in settings {
            match self.set(&mut turn, io, health, point, &value, &request).await {
                Ok(value) => done.push((point.name.clone(), value)),
                Err((error, lost)) => {
                    drop(turn);
                    let so_far: String = done.iter().map(|(name, value)| format!("; {name} is {value}")).collect();
                    let error = match error {
                        WriteError::Failed(text) if !done.is_empty() => WriteError::Unknown(text + &so_far),
                        WriteError::Unknown(text) => WriteError::Unknown(text + &so_far),
                        error => error,
                    };
                    io.answer(write, Err(error)).await;
                    return lost.map_or(Ok(()), Err);
                }
            }
        }
        drop(turn);
        io.answer(write, Ok(done)).await;
        Ok(())
    }

    /// Writes one point and reads it back: its value then. Where the bus was lost, that stands beside the error.
    async fn set(
        &self,
        turn: &mut Turn<'_>,
        io: &mut DeviceIo,
        health: &mut Health,
        point: &Point,
        value: &Value,
        request: &Request,
    ) -> Result<Value, (WriteError, Option<DeviceError>)> {
        let (name, unit) = (&point.name, self.config.unit);
        let mut attempts = if point.keys.retry_write { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match turn.ask(unit, request).await {
                Ok(_) => break,
                Err(Trouble::Refused(Exception::ACKNOWLEDGE)) => {
                    let text = format!("{name}: the slave has begun, and has not said how it ended");
                    return Err((WriteError::Unknown(text), None));
                }
                Err(Trouble::Refused(exception)) => {
                    return Err((WriteError::Failed(format!("{name}: {exception}")), None));
                }
                Err(Trouble::Lost(error)) => return Err((WriteError::Unknown(error.to_string()), Some(error))),
                Err(Trouble::Silence(_) | Trouble::Damaged) if attempts > 0 => {}
                Err(trouble @ (Trouble::Silence(_) | Trouble::Damaged)) => {
                    let what =
                        if trouble == Trouble::Damaged { "its answer came damaged" } else { "it did not answer" };
                    self.silent(io, health, request.clone(), &trouble).await;
                    return Err((WriteError::Unknown(format!("{name}: unit {unit} was told, and {what}")), None));
                }
            }
        }
        if !point.keys.verify || self.config.is_broadcast() {
            return Ok(value.clone());
        }
        let count = point.layout.count;
        let back = Request::Read { table: point.keys.table, address: point.keys.address, count };
        let unknown = |why: &str| {
            WriteError::Unknown(format!(
                "{name} was taken, and can't be read back ({why}); `verify = false` leaves that out"
            ))
        };
        match self.read(turn, &back).await.0 {
            Ok(data) => {
                self.answered(io, health);
                match point.value(point.keys.table, &data, 0) {
                    Some(is) if io.is_same(name, &is, value) => Ok(is),
                    Some(is) => {
                        Err((WriteError::Failed(format!("{name}: `{value}` was taken, and it reads `{is}`")), None))
                    }
                    None => Err((unknown("it is no value"), None)),
                }
            }
            Err(Trouble::Refused(exception)) => Err((unknown(&exception.to_string()), None)),
            Err(Trouble::Lost(error)) => Err((unknown(&error.to_string()), Some(error))),
            Err(trouble) => {
                self.silent(io, health, back, &trouble).await;
                Err((unknown("no answer"), None))
            }
        }
    }
}

impl Point {
    /// Its value, from the data of a block in which it begins there.
    fn value(&self, table: Table, data: &[u8], start: usize) -> Option<Value> {
        if table.is_bits() {
            return Some(Value::Bool(pdu::bit(data, start)));
        }
        let registers = pdu::registers(data);
        self.layout.decode(registers.get(start..start + usize::from(self.layout.count))?)
    }

    /// What sets it.
    fn setting(&self, value: &Value) -> Result<Request, String> {
        let wrong = |text: String| format!("{}: {text}", self.name);
        let (address, function) = (self.keys.address, self.keys.function);
        if self.keys.table == Table::Coil {
            let on = self.layout.switch(value).map_err(wrong)?;
            return Ok(Request::Switch { address, on, many: function == Some(15) });
        }
        let registers = self.layout.encode(value).map_err(wrong)?;
        let many = function == Some(16) || registers.len() > 1;
        Ok(Request::Set { address, registers, many })
    }
}

/// The short question whether a slave is there, whose answer is not as long as the one that it may still owe.
fn probe(block: &Block, owed: usize) -> Request {
    let (table, address) = (block.table, block.address);
    let (short, long) = if table.is_bits() { (1, 9) } else { (1, 2) };
    let ask = |count| Request::Read { table, address, count };
    let same = ask(short).data_length() == owed;
    let count = if same { long } else { short };
    // The last address of all has nothing behind it.
    Request::Read { table, address: address.min(u16::MAX - (count - 1)), count }
}

/// Waits until a question is due, and on the desk until it is its turn as well.
async fn turn(due: Option<Instant>, tape: &Tape) {
    at(due).await;
    if let Some(player) = tape.player() {
        player.clear_of_writes().await;
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
