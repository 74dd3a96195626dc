//! Which question is next, and what becomes of one that has no answer while others have.

use std::time::Duration;

use tokio::time::Instant;

use super::pdu::Request;
use super::plan::{self, Block, Limits, Spot};

/// The first questions of a device are spread over so much at most.
const SPREAD: Duration = Duration::from_secs(1);

/// So often in a row a question is refused, or ignored, before it is asked in halves: one may be chance.
const PATIENCE: u32 = 2;

/// What is ignored for good is asked ever more seldom: each time costs the bus a time-out. No more seldom than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is to be read, and when.
#[derive(Debug)]
pub(super) struct Polls(Vec<Poll>);

#[derive(Debug)]
struct Poll {
    due: Instant,
    block: Block,
    /// How often in a row it was ignored by a slave that answers.
    ignored: u32,
    /// How often in a row it was refused as a whole.
    refused: u32,
}

impl Poll {
    fn new(due: Instant, block: Block) -> Self {
        Poll { due, block, ignored: 0, refused: 0 }
    }
}

impl Polls {
    pub(super) fn new(spots: &[Option<Spot>], limits: Limits, now: Instant) -> Self {
        let blocks = plan::blocks(spots, limits);
        let count = u32::try_from(blocks.len()).unwrap_or(u32::MAX).max(1);
        let spread = |(place, block): (u32, Block)| Poll::new(now + block.every.min(SPREAD) * place / count, block);
        Polls((0..).zip(blocks).map(spread).collect())
    }

    /// How many questions there are; none: nothing is ever read.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The place of the one whose turn is next.
    pub(super) fn next(&self) -> Option<(usize, Instant)> {
        self.0.iter().enumerate().map(|(place, poll)| (place, poll.due)).min_by_key(|(_, due)| *due)
    }

    /// The one of these whose turn is next.
    pub(super) fn next_of(&self, is: impl Fn(&Block) -> bool) -> Option<usize> {
        let of = self.0.iter().enumerate().filter(|(_, poll)| is(&poll.block));
        of.min_by_key(|(_, poll)| poll.due).map(|(place, _)| place)
    }

    /// The place of the one that asks this.
    pub(super) fn place(&self, question: &Request) -> Option<usize> {
        self.0.iter().position(|poll| poll.block.request() == *question)
    }

    /// What is asked there, and the points that it reads.
    pub(super) fn block(&self, place: usize) -> Option<Block> {
        self.0.get(place).map(|poll| poll.block.clone())
    }

    /// Asked; what was missed meanwhile is left out.
    pub(super) fn done(&mut self, place: usize) {
        if let Some(Poll { due, block, .. }) = self.0.get_mut(place) {
            let late = Instant::now().saturating_duration_since(*due).as_nanos();
            let missed = u32::try_from(late / block.every.as_nanos().max(1)).unwrap_or(u32::MAX - 1);
            *due += block.every * (missed + 1);
        }
    }

    /// It was answered with values.
    pub(super) fn answered(&mut self, place: usize) {
        if let Some(poll) = self.0.get_mut(place) {
            (poll.ignored, poll.refused) = (0, 0);
        }
        self.done(place);
    }

    /// It was refused, as one that goes over what is not there. `Some`: these points can't be read, once that is no chance.
    pub(super) fn refused(&mut self, place: usize, spots: &[Option<Spot>]) -> Option<Block> {
        let poll = self.0.get_mut(place)?;
        poll.refused += 1;
        let (block, is_chance) = (poll.block.clone(), poll.refused < PATIENCE && poll.block.points.len() > 1);
        if !is_chance && self.split(place, spots) {
            return None;
        }
        self.done(place);
        (!is_chance).then_some(block)
    }

    /// This question had no answer, and the slave answers others. `Some`: nobody can read these points.
    pub(super) fn ignored(&mut self, question: &Request, spots: &[Option<Spot>]) -> Option<Block> {
        let place = self.place(question)?;
        let poll = self.0.get_mut(place)?;
        poll.ignored += 1;
        let (block, times) = (poll.block.clone(), poll.ignored);
        if times < PATIENCE || self.split(place, spots) {
            return None;
        }
        let pause = (block.every * 2u32.saturating_pow(times - PATIENCE)).min(LONGEST_PAUSE).max(block.every);
        if let Some(poll) = self.0.get_mut(place) {
            poll.due = Instant::now() + pause;
        }
        Some(block)
    }

    /// Asks for each half by itself from now on; false: it is one point.
    fn split(&mut self, place: usize, spots: &[Option<Spot>]) -> bool {
        let Some(halves) = self.0.get(place).and_then(|poll| poll.block.split(spots)) else { return false };
        let now = Instant::now();
        self.0.splice(place..=place, halves.map(|half| Poll::new(now, half)));
        true
    }
}
