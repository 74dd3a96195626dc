//! All of the queue that is under its lock.

use std::time::Duration;

use super::feed::{Feed, Stream};
use super::flash::{Damage, MAX_PAYLOAD};
use super::gaps::Ledger;
use super::lane::{End, Log};
use super::latest::Latest;
use super::sources::{Source, Sources};
use super::{Config, LaneStatus, Sync, bytes, each_lane};
use crate::model::{GapCause, GapRange, Lane, Number, Timestamp, event, time};

/// A write that takes longer than this is a flash that does not answer: no device waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct State {
    pub(super) epoch: u64,
    pub(super) lanes: [Log; 3],
    pub(super) feeds: [Feed; 4],
    pub(super) latest: Latest,
    pub(super) gaps: Ledger,
    pub(super) sources: Sources,
    pub(super) lookup: Lookup,
    max_memory: usize,
    /// So many sources share the half of it.
    source_count: usize,
    /// A new config that the keeper has not taken yet.
    pub(super) new_config: Option<Config>,
    /// There is work for the keeper.
    pub(super) knocked: bool,
    /// When the keeper looks by itself at the latest.
    pub(super) keeper_due: Option<Duration>,
    /// Since when the keeper waits for the flash.
    pub(super) busy_since: Option<Duration>,
    /// All is to be written, and then the keeper ends.
    pub(super) closing: bool,
    /// It has, and nothing is lost with the process.
    pub(super) closed: bool,
    /// Bytes written to flash since the start.
    pub(super) flash_bytes: u64,
}

/// One record that is wanted out of turn.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    pub(super) wanted: Option<(Lane, Number)>,
    /// The keeper has not answered yet.
    pub(super) pending: bool,
    /// What the flash has for it; `None`: nothing.
    pub(super) found: Option<(Lane, Number, Option<Vec<u8>>)>,
}

impl State {
    pub(super) fn new(config: &Config, epoch: u64, first_gap: u64) -> Self {
        let max_memory = bytes(config.max_memory.0);
        State {
            epoch,
            lanes: each_lane(|lane| Log::new(*config.lane(lane), epoch)),
            feeds: Default::default(),
            latest: Latest::default(),
            gaps: Ledger::new(first_gap),
            sources: Sources::new(0, max_memory / 2),
            lookup: Lookup::default(),
            max_memory,
            source_count: 0,
            new_config: None,
            knocked: false,
            keeper_due: None,
            busy_since: None,
            closing: false,
            closed: false,
            flash_bytes: 0,
        }
    }

    pub(super) fn lane(&mut self, lane: Lane) -> &mut Log {
        &mut self.lanes[lane.index()]
    }

    pub(super) fn share(&mut self, places: usize, count: usize) {
        self.source_count = count;
        self.sources.share(places, count, self.max_memory / 2);
    }

    /// New bounds. What is above them goes with the next record; when a lane is on flash stays as it is.
    pub(super) fn change(&mut self, config: &Config) {
        let mut config = config.clone();
        for lane in Lane::ALL {
            let log = self.lane(lane);
            config.lane_mut(lane).sync = log.config.sync;
            log.config = *config.lane(lane);
        }
        self.max_memory = bytes(config.max_memory.0);
        self.share(0, self.source_count);
        self.new_config = Some(config);
    }

    /// There will never be a flash.
    pub(super) fn give_up(&mut self, why: &str) {
        for log in &mut self.lanes {
            log.trouble = Some(why.to_owned());
        }
    }

    pub(super) fn push(&mut self, lane: Lane, payload: Vec<u8>, source: Source, now: Duration) -> Number {
        let epoch = self.epoch;
        let State { lanes, sources, .. } = self;
        let log = &mut lanes[lane.index()];
        if payload.len() > MAX_PAYLOAD {
            let seq = log.push_none(now, source, End::Lost(GapCause::Refused));
            let number = Number { epoch, seq };
            self.tell(lane, number, GapCause::Refused);
            return number;
        }
        let seq = log.push(payload.into_boxed_slice(), now, source, sources);
        self.expire(now);
        if self.lanes[lane.index()].stays_in_ram() {
            let most = bytes(self.lanes[lane.index()].config.max_bytes.0);
            while self.lanes[lane.index()].ram_bytes() > most && self.drop_oldest(lane, GapCause::Bytes) {}
        }
        self.fit(now);
        Number { epoch, seq }
    }

    /// Keeps the RAM within its bound.
    fn fit(&mut self, now: Duration) {
        if self.ram_bytes() <= self.max_memory {
            return;
        }
        for log in &mut self.lanes {
            log.tidy(true);
        }
        // A device that fills the RAM waits for the flash ([`State::crowded`]); what gets here nevertheless has none.
        // Telemetry goes first when all of it together is too much; the newest record of a lane always stays.
        while self.ram_bytes() > self.max_memory {
            let gone = [Lane::Telemetry, Lane::Outcome, Lane::Alarm].into_iter().any(|lane| {
                let failed = self.lanes[lane.index()].trouble.is_some() || self.is_stuck(now);
                let cause = if failed { GapCause::Disk } else { GapCause::Memory };
                self.drop_oldest(lane, cause)
            });
            if !gone {
                break;
            }
        }
    }

    pub(super) fn ram_bytes(&self) -> usize {
        self.lanes.iter().map(Log::ram_bytes).sum()
    }

    /// Whether so much waits in RAM that it is to be written before its time.
    pub(super) fn is_pressed(&self) -> bool {
        // What stays in RAM presses nobody to write.
        let written = self.lanes.iter().filter(|log| !log.stays_in_ram()).map(Log::fresh_bytes).sum::<usize>();
        written > self.max_memory / 4 || (self.sources.any_full() && !self.fills_ram())
    }

    /// Whether there are records in RAM that will not be on flash: dropping the oldest bounds those.
    fn fills_ram(&self) -> bool {
        self.lanes.iter().any(|log| log.stays_in_ram() && log.fresh_bytes() > 0)
    }

    /// Whether the flash has not answered for long.
    fn is_stuck(&self, now: Duration) -> bool {
        self.busy_since.is_some_and(|since| now.saturating_sub(since) > PATIENCE)
    }

    /// Which sources have to wait; `None`: none has to.
    pub(super) fn crowded(&self, now: Duration) -> Option<Vec<bool>> {
        if !self.sources.any_full() || self.is_stuck(now) || self.fills_ram() {
            return None;
        }
        Some(self.sources.full())
    }

    /// Drops what is older than its lane allows, and is in RAM alone.
    pub(super) fn expire(&mut self, now: Duration) {
        for lane in Lane::ALL {
            while let Some(number) = self.lanes[lane.index()].too_old_in_ram(now) {
                self.end(lane, number, End::Lost(GapCause::Age));
            }
        }
    }

    /// Drops the oldest record that is in RAM alone, but not the last one.
    fn drop_oldest(&mut self, lane: Lane, cause: GapCause) -> bool {
        let log = &mut self.lanes[lane.index()];
        if log.fresh() <= 1 {
            return false;
        }
        let Some(number) = log.oldest_number_fresh() else { return false };
        self.end(lane, number, End::Lost(cause))
    }

    /// A record comes to its end. False: it had before.
    pub(super) fn end(&mut self, lane: Lane, number: Number, end: End) -> bool {
        let State { lanes, sources, .. } = self;
        let ended = lanes[lane.index()].end(number, end, sources);
        if let (true, End::Lost(cause)) = (ended, end) {
            self.tell(lane, number, cause);
        }
        ended
    }

    fn tell(&mut self, lane: Lane, number: Number, cause: GapCause) {
        let Number { epoch, seq } = number;
        let range = GapRange::Numbers { lane, epoch, from: seq, to: Some(seq), count: Some(1) };
        self.gaps.add(cause, range, time::now());
    }

    /// Tells damage that was found.
    pub(super) fn damaged(&mut self, lane: Lane, damage: &Damage) {
        let Some((count, after, until)) = self.lanes[lane.index()].damaged(damage) else { return };
        tracing::error!(MESSAGE_ID = event::RECORDS_DAMAGED, LANE = %lane, "{count} records on flash are damaged (segment {:x}, record {})", damage.id, damage.ordinal);
        let numbers = |epoch, from, to, count| GapRange::Numbers { lane, epoch, from, to, count };
        let count = Some(u64::from(count));
        let mut add = |range| self.gaps.add(GapCause::Damaged, range, time::now());
        let from = after.seq + 1;
        if after.epoch == until.epoch {
            add(numbers(after.epoch, from, Some(from.max(until.seq - 1)), count));
            return;
        }
        // Of two epochs: nobody knows how many of which.
        add(numbers(after.epoch, from, None, None));
        if until.seq > 1 {
            add(numbers(until.epoch, 1, Some(until.seq - 1), count));
        }
    }

    /// Whether the keeper has to be woken for what was just pushed.
    pub(super) fn is_due_earlier(&mut self, lane: Lane, source: Source) -> bool {
        let crowded = (self.sources.is_full(source) && !self.fills_ram()) || self.is_pressed();
        let log = &mut self.lanes[lane.index()];
        if log.trouble.is_some() || log.config.sync == Sync::Never {
            return false;
        }
        let due = log.write_due();
        due.is_some_and(|due| self.keeper_due.is_none_or(|known| due < known)) || (crowded && !self.knocked)
    }

    /// How a lane is.
    pub(super) fn status(&mut self, lane: Lane, now: &Timestamp) -> LaneStatus {
        let log = &mut self.lanes[lane.index()];
        let fresh = log.oldest_fresh().map(|pushed| now.uptime.saturating_sub(pushed));
        let flash = log.oldest_on_flash.filter(|(number, _)| log.on_flash(*number)).and_then(|(_, at)| at.age(now));
        let told = log.told();
        LaneStatus {
            lane,
            depth: log.depth() - log.untold(),
            bytes: log.flash_bytes(),
            ram: log.ram_bytes(),
            oldest: flash.max(fresh),
            next_seq: told + 1,
            durable: log.durable(),
            at_start: log.at_start,
            trouble: log.trouble.clone(),
            totals: log.totals,
        }
    }

    /// A feed and its lane.
    pub(super) fn feed(&mut self, stream: Stream) -> (&mut Feed, &Log) {
        (&mut self.feeds[stream as usize], &self.lanes[stream.lane().index()])
    }
}
