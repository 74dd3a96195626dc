//! One life of a device: reads what it says, asks what it is to be asked, sends what it is told.
//!
//! Only one thing is under way on the line at a time. A command waits for the question before it, and goes before the
//! next one.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::Serial;
use super::ear::Ear;
use super::frame::{Frame, Framer};
use super::port::Port;
use super::request::{Poll, Question};
use crate::device::decode::Mark;
use crate::device::io::at;
use crate::device::tape::{Seed, Tape};
use crate::device::{Ask, DeviceError, DeviceIo, Write, WriteError};
use crate::model::{Span, time};

/// As much as a tty gives in one read.
const CHUNK: usize = 4096;

/// How soon the wait for the answer to a command sees that the gateway stops.
const STOP_GRAIN: Duration = Duration::from_millis(100);

/// An echo that has not come by then does not come: adapters keep bytes back for some 16 ms, converters for more.
const ECHO_PATIENCE: Duration = Duration::from_millis(500);

/// What is left of the last character when all is said to be out.
const LAST_CHARACTERS: u32 = 2;

const NOT_EXPECTED: &str = "it is not the answer that was expected";

/// An open port, and what is known of the device behind it.
pub(super) struct Life<'a> {
    serial: &'a Serial,
    port: Port,
    framer: Framer,
    ear: Ear<'a>,
    chunk: Vec<u8>,
    /// A command that came while the device was asked something.
    waiting: Option<Write>,
    /// When what was sent is out on the line, or the last byte came.
    busy_until: Instant,
    /// What was sent and will come back, and what came instead so far.
    echo: Vec<u8>,
    instead: Vec<u8>,
    /// The polls without an answer, since the last one that had one.
    failures: u32,
    /// The last question of a poll had no answer.
    unanswered: bool,
    /// Until then an answer may come late, to a question that was given up.
    late_until: Instant,
}

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    Refused,
    Silent,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
enum Asker<'a> {
    /// A poll, by its name; with its last question the answer is read.
    Poll {
        name: Option<&'a str>,
        is_last: bool,
    },
    Command,
}

impl<'a> Life<'a> {
    /// Begins with an open port that is busy until then, and with what the life before handed over.
    pub(super) fn new(serial: &'a Serial, port: Port, busy_until: Instant, seed: &Seed) -> Self {
        let mut framer = serial.framer();
        if let Some(skip) = seed.skip {
            framer.leave_out(skip);
            framer.push(&seed.held, port.heard().uptime);
        }
        Life {
            serial,
            port,
            framer,
            ear: Ear::new(serial),
            chunk: vec![0; CHUNK],
            waiting: None,
            busy_until,
            echo: Vec::new(),
            instead: Vec::new(),
            failures: 0,
            unanswered: false,
            late_until: busy_until,
        }
    }

    /// Goes on until the stop.
    ///
    /// # Errors
    /// When the port is lost, or the device is silent for too long.
    pub(super) async fn live(mut self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let silence = self.serial.config.silence;
        let polls = &self.serial.polls;
        let mut due = vec![Instant::now(); polls.len()];
        let tape = io.tape().clone();
        loop {
            if let Some(write) = self.waiting.take() {
                self.write(io, write).await?;
            }
            let quiet = silence.map(|silence| self.ear.valid_at + silence.0);
            let pause = self.pause_due();
            let next = due.iter().enumerate().min_by_key(|(_, due)| **due);
            let next = next.map(|(place, due)| (place, (*due).max(self.late_until)));
            let next = self.next_on(&tape).or(next);
            tokio::select! {
                biased;
                ask = io.next() => match ask {
                    Ask::Stop => {
                        self.port.close().await;
                        return Ok(());
                    }
                    Ask::Write(write) => self.waiting = Some(write),
                },
                count = self.port.read(&mut self.chunk) => {
                    let count = count?;
                    self.push(count);
                    self.read_on(io).await;
                }
                () = at(pause) => self.read_on(io).await,
                // A frame that a pause ends is not cut in two.
                () = tape.wanted(), if self.framer.due().is_none() => return self.hand_over(io).await,
                () = at(quiet) => {
                    let silence = silence.unwrap_or(Span(Duration::ZERO));
                    return Err(DeviceError::Lost(format!("nothing valid received for {silence}")));
                }
                () = turn(next.map(|(_, due)| due), &tape) => if let Some((place, _)) = next {
                    let poll = &polls[place];
                    self.poll(io, poll).await?;
                    // One that was late is not made up for.
                    due[place] = (due[place] + poll.every).max(Instant::now());
                }
            }
        }
    }

    /// On the desk, the poll that was done next, and when.
    fn next_on(&self, tape: &Tape) -> Option<(usize, Instant)> {
        let player = tape.player().filter(|_| !self.serial.polls.is_empty())?;
        let (sent, due) = player.next_sent()?;
        let begins =
            |poll: &Poll| poll.questions.first().is_some_and(|first| self.framer.pack(first.bytes.clone()) == sent);
        Some((self.serial.polls.iter().position(begins)?, due))
    }

    /// Leaves the rest to another life, which somebody records: between two questions, with the bytes of a frame that has
    /// begun.
    async fn hand_over(mut self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        self.echoed().await?;
        self.read_on(io).await;
        let (held, skip) = self.framer.state();
        io.begin_anew(Seed { held: held.to_vec(), skip: Some(skip), ..Seed::default() });
        io.keep_port(self.port, self.busy_until.max(self.late_until));
        Ok(())
    }

    /// Takes in what was read, without what is only an echo.
    fn push(&mut self, count: usize) {
        let (bytes, now) = (&self.chunk[..count], self.port.heard().uptime);
        if self.echo.is_empty() {
            self.framer.push(bytes, now);
        } else {
            // A transmitter that is switched on may be heard before it: what comes before the echo is nobody's word.
            self.instead.extend_from_slice(bytes);
            let found = self.instead.windows(self.echo.len()).position(|part| part == self.echo);
            if let Some(at) = found {
                let end = at + self.echo.len();
                self.framer.push(self.instead.get(end..).unwrap_or_default(), now);
            } else if self.echo_due() <= Instant::now() {
                // It went lost, and this may be the device.
                self.framer.push(&self.instead, now);
            } else {
                return;
            }
            self.echo.clear();
            self.instead.clear();
        }
        self.busy_until = self.busy_until.max(Instant::now());
    }

    /// When the echo is missed.
    fn echo_due(&self) -> Instant {
        self.busy_until + ECHO_PATIENCE
    }

    /// Takes in the echo of what was sent before: whatever is sent or thrown away next, it is not to be taken for the device.
    async fn echoed(&mut self) -> Result<(), DeviceError> {
        while !self.echo.is_empty() {
            let due = self.echo_due();
            tokio::select! {
                count = self.port.read(&mut self.chunk) => {
                    let count = count?;
                    self.push(count);
                }
                () = sleep_until(due) => {
                    self.echo.clear();
                    self.instead.clear();
                }
            }
        }
        Ok(())
    }

    /// When the pause that ends a frame is over.
    fn pause_due(&self) -> Option<Instant> {
        self.framer.due().map(|due| Instant::now() + due.saturating_sub(time::uptime()))
    }

    /// Reports what nobody asked for.
    async fn read_on(&mut self, io: &mut DeviceIo) {
        let (now, heard, polls) = (time::uptime(), self.port.heard(), &self.serial.polls);
        while let Some(mut frame) = self.framer.next(now) {
            // A late answer is one still; anything else is dropped, as it is while an answer is waited for.
            if let Frame::Whole(bytes) = frame
                && !polls.is_empty()
                && !polls.iter().any(|poll| poll.expects(bytes))
            {
                frame = Frame::Bad(NOT_EXPECTED, bytes);
            }
            self.ear.hear(io, frame, None, heard).await;
        }
    }

    /// Does a poll, and again where it has no answer.
    async fn poll(&mut self, io: &mut DeviceIo, poll: &Poll) -> Result<(), DeviceError> {
        let (mut attempts, mut answered) = (0, false);
        while !answered && attempts <= poll.retries {
            self.let_write_go_first(io).await;
            if let Some(write) = self.waiting.take() {
                self.write(io, write).await?;
            }
            if io.stopping() {
                return Ok(());
            }
            answered = self.attempt(io, poll).await?;
            attempts += 1;
        }
        // What was asked twice may be answered twice, and no other poll is to take that for its own.
        if (attempts > 1 || !answered) && self.serial.polls.len() > 1 {
            self.late_until = Instant::now() + poll.patience();
        }
        if answered {
            self.failures = 0;
            return Ok(());
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.serial.config.offline_after && !io.stopping() {
            // Not how many by now: each change of what is wrong is published.
            io.offline(&format!("it did not answer {} polls in a row", self.serial.config.offline_after));
        }
        Ok(())
    }

    /// On the desk: takes the write that went before the next attempt, by milliseconds perhaps.
    async fn let_write_go_first(&mut self, io: &mut DeviceIo) {
        let tape = io.tape().clone();
        if let Some(player) = tape.player().filter(|_| self.waiting.is_none()) {
            player.clear_of_writes().await;
            if let Some(Ask::Write(write)) = io.next().now_or_never() {
                self.waiting = Some(write);
            }
        }
    }

    /// Asks the questions of a poll, each once its predecessor is answered. True: all were answered.
    async fn attempt(&mut self, io: &mut DeviceIo, poll: &Poll) -> Result<bool, DeviceError> {
        let mut answered = false;
        for (place, question) in poll.questions.iter().enumerate() {
            // The rest of an answer that stopped halfway may still come, and is none to what is asked now.
            let is_torn = self.unanswered && self.framer.is_within();
            let stopped = io.stopped();
            tokio::select! {
                done = self.forget() => done?,
                () = stopped => {
                    answered = false;
                    break;
                }
            }
            self.framer.leave_out(is_torn);
            let asker = Asker::Poll { name: poll.name.as_deref(), is_last: place + 1 == poll.questions.len() };
            let own = question.framing.as_ref().map(|framing| self.serial.framer_of(framing));
            let shared = own.map(|own| std::mem::replace(&mut self.framer, own));
            let end = self.ask(io, question, asker).await;
            self.unanswered = matches!(end, Ok(End::Silent));
            if let Some(shared) = shared {
                self.framer = shared;
            }
            answered = end? == End::Answered;
            if !answered {
                break;
            }
        }
        if poll.questions.iter().any(|question| question.baud_rate.is_some()) {
            self.port.set_baud_rate(self.serial.config.line.baud_rate).await?;
        }
        Ok(answered)
    }

    /// What came before a question answers nothing that is asked next, nor does what came while the line was left alone.
    async fn forget(&mut self) -> Result<(), DeviceError> {
        self.pause().await?;
        self.port.forget_input()?;
        self.framer.reset();
        Ok(())
    }

    /// Sends a question and waits for its answer.
    async fn ask(&mut self, io: &mut DeviceIo, question: &Question, asker: Asker<'_>) -> Result<End, DeviceError> {
        let is_command = matches!(asker, Asker::Command);
        self.send(question.bytes.clone()).await?;
        if let Some(baud_rate) = question.baud_rate {
            sleep_until(self.busy_until + self.serial.config.line.time_of(1) * LAST_CHARACTERS).await;
            self.port.set_baud_rate(baud_rate).await?;
        }
        let mut deadline = self.busy_until.max(Instant::now()) + question.timeout;
        // More than the longest frame is no answer, but noise without an end.
        let mut room = 2 * self.framer.max() + CHUNK;
        let latest = deadline + self.serial.config.line.time_of(room);
        loop {
            let pause = self.pause_due();
            // What came in time ends with its pause, however long that is.
            let end = pause.map_or(deadline, |pause| pause.max(deadline));
            let mut came = false;
            tokio::select! {
                biased;
                ask = io.next(), if !is_command && self.waiting.is_none() => match ask {
                    Ask::Stop => return Ok(End::Silent),
                    Ask::Write(write) => self.waiting = Some(write),
                },
                count = self.port.read(&mut self.chunk) => {
                    let count = count?;
                    let Some(less) = room.checked_sub(count) else { return Ok(End::Silent) };
                    room = less;
                    self.push(count);
                    came = true;
                }
                () = at(pause) => {}
                () = sleep_until(end) => {
                    self.framer.give_up();
                    return Ok(self.answer(io, question, asker).await.unwrap_or(End::Silent));
                }
                () = sleep(STOP_GRAIN) => if io.stopping() {
                    return Ok(End::Silent);
                }
            }
            if let Some(end) = self.answer(io, question, asker).await {
                return Ok(end);
            }
            // A long answer may take its time; a device that says other things is no reason to wait for it.
            if came && !is_command && self.framer.is_within() {
                deadline = (Instant::now() + question.timeout).min(latest);
            }
        }
    }

    /// The answer to a question, if it has come.
    async fn answer(&mut self, io: &mut DeviceIo, question: &Question, asker: Asker<'_>) -> Option<End> {
        let (mut end, uptime, now) = (None, time::uptime(), self.port.heard());
        let has = |mark: &Option<Mark>, frame: &[u8]| mark.as_ref().is_some_and(|mark| mark.fits(frame));
        while let Some(frame) = self.framer.next(uptime) {
            let Frame::Whole(bytes) = frame else {
                self.ear.hear(io, frame, None, now).await;
                continue;
            };
            let is_answer = end.is_none() && question.expects(bytes);
            match asker {
                _ if end.is_none() && has(&question.refusal, bytes) => end = Some(End::Refused),
                Asker::Poll { is_last: false, .. } if is_answer => end = Some(End::Answered),
                Asker::Poll { name, .. } if is_answer => {
                    end = self.ear.hear(io, frame, name, now).await.then_some(End::Answered);
                }
                Asker::Command if is_answer => end = Some(End::Answered),
                // What a device says by itself goes on beside; one that is asked says nothing by itself.
                Asker::Command if self.serial.polls.is_empty() => drop(self.ear.hear(io, frame, None, now).await),
                _ => drop(self.ear.hear(io, Frame::Bad(NOT_EXPECTED, bytes), None, now).await),
            }
        }
        end
    }

    /// Sends a message.
    async fn send(&mut self, message: Vec<u8>) -> Result<(), DeviceError> {
        self.put(self.framer.pack(message)).await
    }

    /// Waits until the line was left alone for long enough.
    async fn pause(&mut self) -> Result<(), DeviceError> {
        self.echoed().await?;
        let pause = self.serial.config.pause.0;
        if !pause.is_zero() {
            sleep_until(self.busy_until + pause).await;
        }
        Ok(())
    }

    /// Puts bytes on the line.
    async fn put(&mut self, packed: Vec<u8>) -> Result<(), DeviceError> {
        self.pause().await?;
        self.port.write(&packed).await?;
        let out = self.serial.config.line.time_of(packed.len());
        self.busy_until = Instant::now() + out;
        if self.serial.config.echo {
            self.echo = packed;
        }
        Ok(())
    }

    /// Sends what is asked for. The error is the port's; the asker has its answer then already.
    async fn write(&mut self, io: &mut DeviceIo, write: Write) -> Result<(), DeviceError> {
        let each = write.values.iter().map(|(name, value)| self.serial.command(name, value, write.timeout));
        let questions = each.collect::<Result<Vec<_>, String>>().map_err(WriteError::Failed);
        // Before it begins, so that it does not begin behind its time.
        self.pause().await?;
        let begun = questions.and_then(|questions| io.begin(&write).map(|()| questions));
        match begun {
            Err(error) => {
                io.answer(write, Err(error)).await;
                Ok(())
            }
            Ok(questions) => {
                let sent = self.command(io, &questions).await;
                let (result, late) = match &sent {
                    Ok(Ok(())) => (Ok(write.values.clone()), None),
                    Ok(Err((error, late))) => (Err(error.clone()), *late),
                    Err(error) => (Err(WriteError::Unknown(error.to_string())), None),
                };
                io.answer(write, result).await;
                match late.and_then(|place| questions.get(place)) {
                    Some(question) => self.outwait(io, question).await,
                    None => sent.map(drop),
                }
            }
        }
    }

    /// Waits for a reply that comes too late, for as long again: the next command must not take it for its own.
    async fn outwait(&mut self, io: &mut DeviceIo, question: &Question) -> Result<(), DeviceError> {
        let until = Instant::now() + question.timeout;
        while !io.stopping() {
            tokio::select! {
                count = self.port.read(&mut self.chunk) => {
                    let count = count?;
                    self.push(count);
                    if self.answer(io, question, Asker::Command).await.is_some() {
                        return Ok(());
                    }
                }
                () = sleep(STOP_GRAIN) => {}
                () = sleep_until(until) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Sends the messages of a command, each once, and waits for the replies that they have. Where one stays away, the error
    /// has its place.
    async fn command(
        &mut self,
        io: &mut DeviceIo,
        questions: &[Question],
    ) -> Result<Result<(), (WriteError, Option<usize>)>, DeviceError> {
        if self.serial.config.pause.0.is_zero() && questions.iter().all(|question| question.expect.is_none()) {
            let all = questions.iter().flat_map(|question| self.framer.pack(question.bytes.clone())).collect();
            return self.put(all).await.map(Ok);
        }
        for (place, question) in questions.iter().enumerate() {
            if question.expect.is_none() {
                self.send(question.bytes.clone()).await?;
                continue;
            }
            // What is left of the answer to a poll is no part of the reply.
            if !self.serial.polls.is_empty() {
                self.forget().await?;
            }
            let error = match self.ask(io, question, Asker::Command).await? {
                End::Answered => continue,
                End::Refused if place == 0 => (WriteError::Failed("the device refused it".to_owned()), None),
                End::Refused => {
                    (WriteError::Unknown(format!("the device did {place} of it and refused the next")), None)
                }
                End::Silent => (WriteError::Unknown("the device did not reply".to_owned()), Some(place)),
            };
            return Ok(Err(error));
        }
        Ok(Ok(()))
    }
}

/// Waits until a question is due, and on the desk until it is its turn as well.
async fn turn(due: Option<Instant>, tape: &Tape) {
    at(due).await;
    if let Some(player) = tape.player() {
        player.clear().await;
    }
}
