//! How it stands with a slave: what it may still owe, how often it was silent, what was told of that.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Modbus;
use super::config::Bus;
use super::pdu::Request;
use super::plan::Spot;
use super::wire::Trouble;
use crate::device::DeviceIo;
use crate::device::tape::Seed;
use crate::model::Value;

/// So many sound answers end an episode of damaged ones.
const SOUND: u32 = 100;

/// A slave that was silent so often is offline: one may be lost by noise.
const PATIENCE: u32 = 2;

/// The pause before a silent slave is asked again, at first; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// One that was repaired is back within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is older than so many questions has passed.
const MOST_OWED: usize = 4;

/// One part more than may be owed: it differs from all of them.
const MOST_PARTS: u16 = 5;

/// Nor does a slave answer what it was asked so many time-outs ago.
const LATEST: u32 = 5;

/// So many questions that were answered are known.
const MOST_KNOWN: usize = 8;

/// What is asked next.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) request: Request,
    /// The slave need not have what it asks for.
    pub(super) is_guess: bool,
}

/// How it stands with the slave.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// How often it was silent since it answered last.
    pub(super) silent: u32,
    /// What may still come, late: the questions that were not answered, and when they were asked; oldest first.
    owed: Vec<(Request, Instant)>,
    /// Whether an answer says which question it is to: by TCP.
    is_numbered: bool,
    timeout: Duration,
    /// A guess was not answered.
    is_guess_owed: bool,
    /// Whether it says nothing to what it does not have, not even that.
    is_shy: bool,
    /// A silent slave is not asked before.
    pub(super) not_before: Instant,
    pause: Duration,
    /// What it has answered: it may ignore what it does not have.
    known: Vec<Request>,
    /// Answers that came damaged, in this episode.
    damaged: u32,
    /// Sound ones since the last of them.
    sound: u32,
    /// Points that are refused, or are no value, as it was told.
    pub(super) trouble: BTreeMap<usize, String>,
    /// What outputs are, as the router knows it: others may set them as well.
    pub(super) outputs: BTreeMap<usize, Value>,
}

impl Health {
    /// Nothing was asked yet, but for what the life before did.
    pub(super) fn new(bus: &Bus, now: Instant, seed: &Seed) -> Self {
        let requests = |pdus: &[Vec<u8>]| pdus.iter().filter_map(|pdu| Request::of_pdu(pdu)).collect::<Vec<_>>();
        Health {
            silent: 0,
            owed: requests(&seed.owed).into_iter().map(|request| (request, now)).collect(),
            is_numbered: bus.is_modbus_tcp(),
            timeout: bus.timeout.0,
            is_guess_owed: false,
            is_shy: false,
            not_before: now,
            pause: FIRST_PAUSE,
            known: requests(&seed.known),
            damaged: 0,
            sound: 0,
            trouble: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }

    /// What the next life has to know, which somebody records.
    pub(super) fn seed(&self) -> Seed {
        let owed = self.owed.iter().map(|(request, _)| request.pdu()).collect();
        Seed { owed, known: self.known.iter().map(Request::pdu).collect(), ..Seed::default() }
    }

    /// What to ask, where `wanted` is due: that, or else a question whose answer can't be taken for one that is owed.
    /// `None`: there is none; what is owed has to pass. `blocks` is how many questions there are.
    pub(super) fn question(&self, wanted: &Request, spots: &[Option<Spot>], blocks: usize) -> Option<Question> {
        let tells = |request: &Request| !self.may_owe(request);
        let points: Vec<Request> = spots.iter().flatten().map(Spot::request).collect();
        let mut choices = vec![wanted.clone()];
        if self.known.is_empty() {
            // It may ignore a question for the sake of one point: each has its turn.
            choices.extend_from_slice(&points);
            let turn = self.silent as usize / blocks.max(1) % choices.len();
            choices.rotate_left(turn);
        }
        choices.extend(with_parts(&self.known));
        choices.extend(with_parts(&points));
        // Where nothing else is ever asked, a late answer is an answer.
        let again = || (blocks == 1 && self.owed.iter().all(|(owed, _)| owed == wanted)).then(|| wanted.clone());
        if let Some(request) = choices.into_iter().find(tells).or_else(again) {
            return Some(Question { request, is_guess: false });
        }
        // What goes beyond what it is known to have most answer, or refuse.
        let guess = self.known.first().unwrap_or(wanted).longer();
        let guess = guess.filter(|request| !self.is_shy && self.silent < PATIENCE && tells(request));
        guess.map(|request| Question { request, is_guess: true })
    }

    /// Whether an answer to this question may be one that is owed.
    pub(super) fn may_owe(&self, request: &Request) -> bool {
        !self.is_numbered && self.owed.iter().any(|(owed, _)| owed.form() == request.form())
    }

    /// Whether a refusal may be that of another question.
    pub(super) fn may_owe_refusal(&self, request: &Request) -> bool {
        !self.is_numbered && self.owed.iter().any(|(owed, _)| owed.function() == request.function())
    }

    /// What is too old to come is owed no more.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.owed.retain(|(_, asked)| *asked + self.timeout * LATEST > now);
    }

    /// Nothing is asked until what is owed has passed.
    pub(super) fn wait(&mut self) {
        if let Some((_, asked)) = self.owed.last() {
            self.not_before = *asked + self.timeout * LATEST;
        }
    }

    /// What is owed has passed.
    pub(super) fn forget_owed(&mut self) {
        self.owed.clear();
    }

    /// Whether anything is owed.
    pub(super) fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    /// The questions that it ignores, where it answers this one: of several the slave was away, unless it has never been
    /// heard before.
    pub(super) fn ignored(&self, answered: &Request) -> Vec<Request> {
        let others = self.owed.iter().map(|(owed, _)| owed).filter(|owed| *owed != answered).cloned();
        let others = others.collect::<Vec<_>>();
        if self.owed.len() == 1 || self.known.is_empty() { others } else { Vec::new() }
    }

    /// This was asked, and what answers it may still come.
    pub(super) fn owe(&mut self, request: Request) {
        if self.owed.len() == MOST_OWED {
            self.owed.remove(0);
        }
        self.owed.push((request, Instant::now()));
    }

    /// This was read.
    pub(super) fn read(&mut self, request: &Request) {
        if !self.known.contains(request) {
            self.known.truncate(MOST_KNOWN - 1);
            self.known.insert(0, request.clone());
        }
    }

    /// Something that it has answered.
    pub(super) fn known(&self) -> Option<Request> {
        self.known.first().cloned()
    }

    /// This is ignored by a slave that answers others.
    pub(super) fn unknow(&mut self, request: &Request) {
        self.known.retain(|known| known != request);
    }
}

impl Modbus {
    /// Answers that came damaged are told once, and counted until many sound ones came in a row.
    pub(super) fn heard(&self, io: &DeviceIo, health: &mut Health, damaged: u32) {
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

    /// It answers, and may have to answer this as well: what came may have been a late answer.
    pub(super) fn answered(&self, io: &mut DeviceIo, health: &mut Health, owed: Option<&Request>) {
        health.is_shy |= health.is_guess_owed && health.silent < PATIENCE;
        health.is_guess_owed = false;
        (health.silent, health.pause) = (0, FIRST_PAUSE);
        // A doubt ends when it is too old, whatever is answered in doubt until then.
        let since = health.owed.first().map_or_else(Instant::now, |(_, asked)| *asked);
        health.owed.clear();
        health.owed.extend(owed.map(|request| (request.clone(), since)));
        health.not_before = Instant::now();
        io.online();
    }

    /// This question had no answer.
    pub(super) async fn silent(&self, io: &mut DeviceIo, health: &mut Health, asked: Question, trouble: &Trouble) {
        health.owe(asked.request);
        if asked.is_guess {
            // Some say nothing where they have nothing.
            health.is_guess_owed = true;
            return;
        }
        health.silent += 1;
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
}

/// These, and the beginnings of each.
fn with_parts(requests: &[Request]) -> Vec<Request> {
    let parts = requests.iter().flat_map(|request| (1..=MOST_PARTS).filter_map(|units| request.part(units)));
    requests.iter().cloned().chain(parts).collect()
}
