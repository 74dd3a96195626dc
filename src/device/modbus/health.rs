//! How it stands with a slave: what it may still owe, how often it was silent, what was told of that.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Modbus;
use super::pdu::{Request, Table};
use super::plan::Block;
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
const MOST_OWED: u16 = 4;

/// How it stands with the slave.
#[derive(Debug)]
pub(super) struct Health {
    /// How often it was silent since it answered last.
    pub(super) silent: u32,
    /// What may still come, late: the questions that were not answered, oldest first.
    pub(super) owed: Vec<Request>,
    /// A silent slave is not asked before.
    pub(super) not_before: Instant,
    pause: Duration,
    /// Where it has answered: a short question is asked there, since it may ignore what it does not have.
    known: Option<(Table, u16)>,
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
    pub(super) fn new(now: Instant, seed: &Seed) -> Self {
        let known = match Request::of_pdu(&seed.known) {
            Some(Request::Read { table, address, .. }) => Some((table, address)),
            _ => None,
        };
        Health {
            silent: 0,
            owed: seed.owed.iter().filter_map(|pdu| Request::of_pdu(pdu)).collect(),
            not_before: now,
            pause: FIRST_PAUSE,
            known,
            damaged: 0,
            sound: 0,
            trouble: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }

    /// What the next life has to know, which somebody records.
    pub(super) fn seed(&self) -> Seed {
        let known = self.known.map(|(table, address)| Request::Read { table, address, count: 1 }.pdu());
        let owed = self.owed.iter().map(Request::pdu).collect();
        Seed { owed, known: known.unwrap_or_default(), ..Seed::default() }
    }

    /// What has to be asked before anything else, so that no late answer is taken for another one's.
    pub(super) fn probe(&self, place: (Table, u16)) -> Option<Request> {
        (!self.owed.is_empty()).then(|| probe(self.known.unwrap_or(place), &self.owed))
    }

    /// This was asked, and what answers it may still come.
    pub(super) fn owe(&mut self, request: Request) {
        if self.owed.len() == usize::from(MOST_OWED) {
            self.owed.remove(0);
        }
        self.owed.push(request);
    }

    /// This block was read.
    pub(super) fn read(&mut self, block: &Block) {
        self.known = Some((block.table, block.address));
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

    /// It answers.
    pub(super) fn answered(&self, io: &mut DeviceIo, health: &mut Health) {
        (health.silent, health.pause) = (0, FIRST_PAUSE);
        health.owed.clear();
        health.not_before = Instant::now();
        io.online();
    }

    /// This question had no answer.
    pub(super) async fn silent(&self, io: &mut DeviceIo, health: &mut Health, request: Request, trouble: &Trouble) {
        health.silent += 1;
        health.owe(request);
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

/// The short question whether a slave is there, whose answer is as long as none of those that it may still owe.
fn probe((table, address): (Table, u16), owed: &[Request]) -> Request {
    let ask = |count| Request::Read { table, address, count };
    let is_new = |request: &Request| owed.iter().all(|owed| owed.data_length() != request.data_length());
    let step = if table.is_bits() { 8 } else { 1 };
    let counts = (0..=MOST_OWED).map(|place| 1 + place * step);
    let count = counts.clone().find(|count| is_new(&ask(*count))).unwrap_or(1);
    // The last address of all has nothing behind it.
    Request::Read { table, address: address.min(u16::MAX - (count - 1)), count }
}
