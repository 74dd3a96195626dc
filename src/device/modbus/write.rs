//! Setting points: said once, read back, and told as it is known.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::bus::{For, Seat, Turn};
use super::health::Health;
use super::life::ATTEMPTS;
use super::pdu::{Exception, Request, Table};
use super::wire::Trouble;
use super::{Modbus, Point};
use crate::device::{DeviceError, DeviceIo, Write, WriteError};
use crate::model::{PointName, Value, time};

impl Modbus {
    /// Does what is asked for. The error is the bus's; the asker has its answer then already.
    pub(super) async fn write(
        &self,
        seat: &Seat,
        io: &mut DeviceIo,
        health: &mut Health,
        write: Write,
    ) -> Result<(), DeviceError> {
        let each = write.values.iter().map(|(name, value)| {
            let point = self.points.iter().find(|point| point.name == *name && point.keys.write);
            let point = point.ok_or_else(|| format!("`{name}` can't be written"))?;
            Ok((point, point.setting(value)?))
        });
        let settings: Vec<(&Point, Request)> = match each.collect::<Result<Vec<_>, String>>() {
            Ok(settings) => settings,
            Err(text) => {
                io.answer(write, Err(WriteError::Failed(text))).await;
                return Ok(());
            }
        };
        let left = write.deadline.saturating_sub(time::uptime());
        let stopped = io.stopped();
        let turn = tokio::select! {
            turn = timeout(left, self.turn(seat, io, health, write.timeout)) => turn.unwrap_or(Err((WriteError::Expired, None))),
            () = stopped => Err((WriteError::Failed("the gateway ends".to_owned()), None)),
        };
        let mut turn = match turn.and_then(|turn| io.begin(&write).map(|()| turn).map_err(|error| (error, None))) {
            Ok(turn) => turn,
            Err((error, lost)) => {
                io.answer(write, Err(error)).await;
                return lost.map_or(Ok(()), Err);
            }
        };
        let until = Instant::now() + write.timeout;
        // What the next poll says of them is news.
        health.outputs.clear();
        let mut done: Vec<(PointName, Value)> = Vec::new();
        for (point, request) in settings {
            match self.set(&mut turn, io, health, point, &request, until).await {
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

    /// A turn in which nothing that was asked before can be taken for an answer. Where the bus was lost, that stands beside
    /// the error.
    async fn turn<'a>(
        &self,
        seat: &'a Seat,
        io: &mut DeviceIo,
        health: &mut Health,
        time: Duration,
    ) -> Result<Turn<'a>, (WriteError, Option<DeviceError>)> {
        let failed = |error: DeviceError| (WriteError::Failed(error.to_string()), Some(error));
        let mut turn = seat.turn(For::Command).await.map_err(failed)?;
        if let Err(Trouble::Lost(error)) = turn.ready().await {
            return Err(failed(error));
        }
        let place = self.points.first().map_or((Table::Holding, 0), |point| (point.keys.table, point.keys.address));
        let Some(probe) = health.probe(place) else { return Ok(turn) };
        if self.spots.iter().all(Option::is_none) {
            // It can't be asked: what is still to come has its time to pass.
            sleep(2 * self.config.bus.timeout.0).await;
            health.owed.clear();
            return if let Err(Trouble::Lost(error)) = turn.ready().await { Err(failed(error)) } else { Ok(turn) };
        }
        io.put_write_on_tape(time);
        match self.read(&mut turn, &probe).await.0 {
            Ok(_) | Err(Trouble::Refused(_)) => self.answered(io, health),
            Err(Trouble::Lost(error)) => return Err(failed(error)),
            Err(trouble @ (Trouble::Silence(_) | Trouble::Damaged)) => {
                drop(turn);
                self.silent(io, health, probe, &trouble).await;
                let text = format!("unit {} does not answer, and was told nothing", self.config.unit);
                return Err((WriteError::Failed(text), None));
            }
        }
        Ok(turn)
    }

    /// Writes one point and reads it back: its value then. Where the bus was lost, that stands beside the error.
    async fn set(
        &self,
        turn: &mut Turn<'_>,
        io: &mut DeviceIo,
        health: &mut Health,
        point: &Point,
        request: &Request,
        until: Instant,
    ) -> Result<Value, (WriteError, Option<DeviceError>)> {
        let (name, unit) = (&point.name, self.config.unit);
        if Instant::now() >= until {
            return Err((WriteError::Unknown(format!("{name} was not told: the time was over")), None));
        }
        let most = if point.keys.retry_write { ATTEMPTS } else { 1 };
        let mut said = 0;
        loop {
            said += 1;
            // Nothing is said again once the outcome is told: it would undo what somebody else has set since.
            let is_last = said == most || Instant::now() + 2 * self.config.bus.timeout.0 > until;
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
                Err(Trouble::Silence(_) | Trouble::Damaged) if !is_last => {}
                Err(trouble @ (Trouble::Silence(_) | Trouble::Damaged)) => {
                    let what =
                        if trouble == Trouble::Damaged { "its answer came damaged" } else { "it did not answer" };
                    self.silent(io, health, request.clone(), &trouble).await;
                    return Err((WriteError::Unknown(format!("{name}: unit {unit} was told, and {what}")), None));
                }
            }
        }
        let Some(wanted) = point.set_by(request) else {
            return Err((WriteError::Failed(format!("{name} is no value")), None));
        };
        if !point.keys.verify || self.config.is_broadcast() {
            self.answered(io, health);
            if said > 1 {
                health.owe(request.clone());
            }
            return Ok(wanted);
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
                    Some(is) if io.is_same(name, &is, &wanted) => Ok(is),
                    Some(is) => {
                        Err((WriteError::Failed(format!("{name}: `{wanted}` was taken, and it reads `{is}`")), None))
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
