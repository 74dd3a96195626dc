//! Setting points: said once, read back, and told as it is known.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::bus::{For, Seat, Turn};
use super::health::{Health, Question};
use super::life::ATTEMPTS;
use super::pdu::{Exception, Request};
use super::plan::Spot;
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
        health.forget_old(Instant::now());
        // Whether the line echoes tells the answer to a write from the write itself.
        let is_line = !self.config.bus.is_modbus_tcp() && !self.config.is_broadcast();
        let is_known = !is_line || turn.echoes().is_some();
        if is_known && !health.is_owed() {
            return Ok(turn);
        }
        let readable = health.known().or_else(|| self.spots.iter().flatten().next().map(Spot::request));
        let wanted =
            readable.clone().or_else(|| self.points.first().map(|point| point.keys.spot(&self.config).request()));
        let ask = readable.is_some() || !is_known;
        let question = wanted.filter(|_| ask).and_then(|wanted| health.question(&wanted, &self.spots, 0));
        if let Some(question) = question {
            io.put_write_on_tape(time);
            let may_refuse = !health.may_owe_refusal(&question.request);
            match self.read(&mut turn, &question.request, may_refuse).await.0 {
                Ok(_) => {
                    self.answered(io, health, None);
                    return Ok(turn);
                }
                Err(Trouble::Refused(_)) => {
                    self.answered(io, health, Some(&question.request).filter(|_| !may_refuse));
                    if may_refuse {
                        return Ok(turn);
                    }
                }
                Err(Trouble::Lost(error)) => return Err(failed(error)),
                // One that can only be written need not answer: the line was heard, or was not.
                Err(_) if readable.is_none() => {}
                Err(trouble @ (Trouble::Silence(_) | Trouble::Damaged)) => {
                    drop(turn);
                    self.silent(io, health, question, &trouble).await;
                    let text = format!("unit {} does not answer, and was told nothing", self.config.unit);
                    return Err((WriteError::Failed(text), None));
                }
            }
        }
        if health.is_owed() {
            // Nothing that it could be asked tells: what is still to come has its time to pass.
            sleep(2 * self.config.bus.timeout.0).await;
            health.forget_owed();
        }
        if let Err(Trouble::Lost(error)) = turn.ready().await { Err(failed(error)) } else { Ok(turn) }
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
        let most = if point.keys.retry_write { ATTEMPTS } else { 1 };
        let mut said = 0;
        let mut trouble = Trouble::Silence(0);
        loop {
            // Nothing is said again once the outcome is told: it would undo what somebody else has set since.
            let is_over = said == most || {
                if let Err(Trouble::Lost(error)) = turn.ready().await {
                    return Err((WriteError::Unknown(error.to_string()), Some(error)));
                }
                let needed = if said == 0 { Duration::ZERO } else { self.config.bus.timeout.0 };
                Instant::now() + needed >= until
            };
            if is_over && said == 0 {
                return Err((WriteError::Unknown(format!("{name} was not told: the time was over")), None));
            }
            if is_over {
                let what = if trouble == Trouble::Damaged { "its answer came damaged" } else { "it did not answer" };
                let asked = Question { request: request.clone(), is_guess: false };
                self.silent(io, health, asked, &trouble).await;
                return Err((WriteError::Unknown(format!("{name}: unit {unit} was told, and {what}")), None));
            }
            said += 1;
            match turn.ask(unit, request, true).await {
                Ok(_) => break,
                Err(Trouble::Refused(Exception::ACKNOWLEDGE)) => {
                    let text = format!("{name}: the slave has begun, and has not said how it ended");
                    return Err((WriteError::Unknown(text), None));
                }
                Err(Trouble::Refused(exception)) => {
                    return Err((WriteError::Failed(format!("{name}: {exception}")), None));
                }
                Err(Trouble::Lost(error)) => return Err((WriteError::Unknown(error.to_string()), Some(error))),
                Err(why @ (Trouble::Silence(_) | Trouble::Damaged)) => trouble = why,
            }
        }
        let Some(wanted) = point.set_by(request) else {
            return Err((WriteError::Failed(format!("{name} is no value")), None));
        };
        if !point.keys.verify || self.config.is_broadcast() {
            self.answered(io, health, Some(request).filter(|_| said > 1));
            return Ok(wanted);
        }
        let count = point.layout.count;
        let back = Request::Read { table: point.keys.table, address: point.keys.address, count };
        let unknown = |why: &str| {
            WriteError::Unknown(format!(
                "{name} was taken, and can't be read back ({why}); `verify = false` leaves that out"
            ))
        };
        match self.read(turn, &back, true).await.0 {
            Ok(data) => {
                self.answered(io, health, None);
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
                self.silent(io, health, Question { request: back, is_guess: false }, &trouble).await;
                Err((unknown("no answer"), None))
            }
        }
    }
}
