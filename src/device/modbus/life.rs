//! One life of a slave: what is asked when, and what the answers become.
//!
//! A life that somebody records begins with what its predecessor hands over: what may still be answered late, where a
//! question that tells is asked, and whether the line echoes. All else it finds out anew, so a replay does as well. What
//! others on the bus leave behind, such as a server that is still busy, only delays what is sent, and that is on tape.

use std::pin::pin;

use tokio::time::Instant;

use super::Modbus;
use super::bus::{For, Seat, Turn};
use super::health::Health;
use super::pdu::{Exception, Request};
use super::plan::Block;
use super::polls::Polls;
use super::wire::Trouble;
use crate::device::io::at;
use crate::device::tape::{Seed, Tape};
use crate::device::{Ask, DeviceError, DeviceIo};
use crate::model::{Timestamp, time};

/// How often a question is asked whose answer came damaged.
pub(super) const ATTEMPTS: u32 = 3;

impl Modbus {
    pub(super) async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let buses = io.buses().clone();
        let (tape, seed) = (io.tape().clone(), io.take_seed());
        let mut seat = io.take_seat().unwrap_or_else(|| buses.join(&self.config.bus, &tape));
        // A server that swallows what is sent holds nobody up for long.
        tokio::select! {
            turn = seat.turn(For::Poll) => turn?.begin(seed.echoes),
            () = io.stopped() => return Ok(()),
        }
        // What the outputs behind a slave are, its polls say.
        io.opened(Vec::new()).await;
        let now = Instant::now();
        let mut polls = Polls::new(&self.spots, self.config.limits(), now);
        let mut health = Health::new(&self.config.bus, now, &seed);
        // Nobody answers for all slaves, and one that is only written is not asked.
        if polls.count() == 0 {
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
                    let echoes = tokio::select! {
                        turn = seat.turn(For::Poll) => turn?.echoes(),
                        () = io.stopped() => break,
                    };
                    io.begin_anew(Seed { echoes, ..health.seed() });
                    io.keep_seat(seat);
                    return Ok(());
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
        let mut health = health.clone();
        health.forget_old(due);
        let asks = |block: &Block| {
            health.question(&block.request(), &self.spots, polls.count()).is_some_and(|question| {
                let asked = [&[self.config.unit][..], &question.request.pdu()].concat();
                sent.windows(asked.len()).any(|part| part == asked)
            })
        };
        Some((polls.next_of(asks)?, due))
    }

    /// Reads one block, or asks something else, where the slave may still answer what was asked before. What the gateway
    /// wanted meanwhile is the result.
    async fn poll(
        &self,
        seat: &mut Seat,
        io: &mut DeviceIo,
        polls: &mut Polls,
        health: &mut Health,
        place: usize,
    ) -> Result<Option<Ask>, DeviceError> {
        let Some(block) = polls.block(place) else { return Ok(None) };
        let mut turn = tokio::select! {
            biased;
            ask = io.next() => return Ok(Some(ask)),
            turn = seat.turn(For::Poll) => turn?,
        };
        let wanted = block.request();
        health.forget_old(Instant::now());
        let Some(question) = health.question(&wanted, &self.spots, polls.count()) else {
            health.wait();
            return Ok(None);
        };
        let request = question.request.clone();
        let mut asked = None;
        let (answer, damaged) = {
            let mut exchange = pin!(self.read(&mut turn, &request, !health.may_owe_refusal(&request)));
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
        let ignored = health.ignored(&request);
        match &answer {
            // The supervisor answers the write that came meanwhile.
            Err(Trouble::Lost(error)) => return Err(error.clone()),
            Err(trouble @ (Trouble::Silence(_) | Trouble::Damaged)) => {
                // The next question is another one: a slave may ignore only this.
                polls.done(place);
                self.silent(io, health, question, trouble).await;
                return Ok(asked);
            }
            Ok(_) => {
                let owed = health.may_owe(&request).then_some(&request);
                self.answered(io, health, owed);
                health.read(&request);
            }
            Err(Trouble::Refused(_)) => {
                let owed = health.may_owe_refusal(&request).then_some(&request);
                self.answered(io, health, owed);
            }
        }
        for question in ignored {
            health.unknow(&question);
            let Some(block) = polls.ignored(&question, &self.spots) else { continue };
            for point in &block.points {
                self.report_bad(io, health, *point, "the slave answers others, and not this".to_owned(), came).await;
            }
        }
        if request != wanted {
            return Ok(asked);
        }
        // What was ignored may be asked in halves now, so this may stand elsewhere.
        let Some(place) = polls.place(&wanted) else { return Ok(asked) };
        match answer {
            Ok(data) => {
                polls.answered(place);
                for point in &block.points {
                    self.report(io, health, *point, &block, &data, came).await;
                }
            }
            Err(Trouble::Refused(exception)) => {
                let refused = if matches!(exception, Exception::ADDRESS | Exception::VALUE) {
                    polls.refused(place, &self.spots)
                } else {
                    polls.done(place);
                    Some(block)
                };
                for point in refused.iter().flat_map(|block| &block.points) {
                    self.report_bad(io, health, *point, exception.to_string(), came).await;
                }
            }
            Err(_) => {}
        }
        Ok(asked)
    }

    /// Asks for what only reads, again where the answer came damaged; and says how often it did.
    pub(super) async fn read(
        &self,
        turn: &mut Turn<'_>,
        request: &Request,
        may_refuse: bool,
    ) -> (Result<Vec<u8>, Trouble>, u32) {
        let mut damaged = 0;
        loop {
            let answer = turn.ask(self.config.unit, request, may_refuse).await;
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
}

/// Waits until a question is due, and on the desk until it is its turn as well.
async fn turn(due: Option<Instant>, tape: &Tape) {
    at(due).await;
    if let Some(player) = tape.player() {
        player.clear_of_writes().await;
    }
}
