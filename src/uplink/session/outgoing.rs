//! What leaves on a connection: words first, then what was refused, health, gaps, and records within the window.

use std::time::Duration;

use super::Session;
use crate::link::{LinkError, Publish, Refusal, Ticket};
use crate::model::{Body, Lane, Number, Outcome, Reading, Record, event, time};
use crate::queue::Wanted;
use crate::uplink::Shared;
use crate::uplink::plain::{self, Copy};
use crate::uplink::presence::{ECHO_PATIENCE, Stage};
use crate::uplink::publisher::UnderWay;

/// `health` at a change of state comes at most this often.
const HEALTH_APART: Duration = Duration::from_secs(10);

/// After "quota exceeded" the broker is left alone for this long.
const QUOTA_PAUSE: Duration = Duration::from_secs(1);

/// Whether a record leaves when it is its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// In the order of its stream.
    Own,
    /// The broker wanted it later, or it may be poisonous.
    Out,
}

impl Session<'_> {
    pub(super) fn acked(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        let Some(what) = self.publisher.acked(ticket) else { return };
        let reader = &mut self.shared.parts.reader;
        match (what, result) {
            (UnderWay::Record(place), Ok(())) => {
                self.progress = true;
                self.shared.poison.acked(place);
                reader.acked(place.0, place.1);
            }
            (UnderWay::Latest(reading), Ok(()) | Err(Refusal::Never(_))) => reader.latest_acked(&reading),
            (UnderWay::Gap(n), Ok(()) | Err(Refusal::Never(_))) => reader.gap_acked(n),
            (UnderWay::Word(word), Ok(())) => {
                self.shared.introduced |= word.topic == self.shared.topics.own("info");
                if word.payload.is_empty() {
                    self.shared.cleared(&word.topic);
                }
            }
            (UnderWay::Record((lane, number)), Err(Refusal::Never(why))) => {
                tracing::error!(MESSAGE_ID = event::RECORD_REFUSED, LANE = %lane, "the broker refuses record {number}: {why}");
                reader.refused(lane, number);
            }
            (UnderWay::Word(word), Err(Refusal::Never(why))) => {
                let text = format!("the broker refuses {}: {why}; check its ACL", word.topic);
                tracing::error!("{text}");
                self.shared.raise("refused", text);
            }
            (what, Err(Refusal::Later(why))) => {
                tracing::debug!("the broker asks for patience: {why}");
                self.quota_until = Some(time::uptime() + QUOTA_PAUSE);
                match what {
                    UnderWay::Record((lane, number)) => reader.put_back(lane, number),
                    UnderWay::Word(word) => self.publisher.say_again(word),
                    UnderWay::Latest(reading) => reader.latest_again(&reading),
                    UnderWay::Gap(n) => reader.gap_again(n),
                }
            }
        }
    }

    /// Sends as much as the window has room for.
    pub(super) fn pump(&mut self) -> Result<(), LinkError> {
        if matches!(self.stage, Stage::Connecting | Stage::Subscribing) {
            return Ok(());
        }
        let now = time::uptime();
        // At the stop a reading without a date is better than none.
        let hold = self.draining.is_none() && self.shared.clock_due(now).is_some();
        self.shared.parts.reader.hold_telemetry(hold);
        while self.publisher.has_room(&self.link) {
            let Some((publish, what)) = self.next_publish(now) else { break };
            if !self.publisher.fits(&publish) {
                self.too_large(&publish, what);
                continue;
            }
            if !self.publisher.send(&mut self.link, publish, what) {
                return Err(LinkError::Protocol("rumqttc took less than the window".to_owned()));
            }
        }
        Ok(())
    }

    fn next_publish(&mut self, now: Duration) -> Option<(Publish, UnderWay)> {
        if self.quota_until.is_some_and(|until| now < until) {
            return None;
        }
        self.quota_until = None;
        if let Some(word) = self.publisher.next_word() {
            return Some((word.clone(), UnderWay::Word(word)));
        }
        if self.stage != Stage::Open || self.parting.is_some() {
            return None;
        }
        if !self.shared.refusals.is_empty()
            && self.shared.refusal_rate.take(now)
            && let Some(outcome) = self.shared.refusals.pop_front()
        {
            let (publish, answer) = self.outcome(&outcome, None, false);
            if let Some(answer) = answer {
                self.publisher.say(answer);
            }
            return Some((publish.clone(), UnderWay::Word(publish)));
        }
        if self.health_due(now) {
            self.health_wanted = false;
            self.shared.last_health = Some(now);
            self.shared.judge_certificate(self.kept);
            let health = self.shared.health_word(self.kept);
            return Some((health.clone(), UnderWay::Word(health)));
        }
        if let Some(gap) = self.shared.parts.reader.next_gap(now) {
            let (payload, content) = plain::gap(&gap, &time::now());
            let topic = self.shared.topics.own("gap");
            let publish = Publish { topic, payload, retain: false, content, correlation: None };
            return Some((publish, UnderWay::Gap(gap.n)));
        }
        if self.shared.poison.is_narrow() && self.publisher.under_way() > 0 {
            return None;
        }
        // By turns: points that change faster than the broker acknowledges must not silence the lanes.
        self.latest_turn = !self.latest_turn;
        if self.latest_turn
            && let Some(latest) = self.next_latest()
        {
            return Some(latest);
        }
        match self.next_record(now) {
            Some((record, turn)) => Some(self.record(&record, turn)),
            None => self.next_latest(),
        }
    }

    fn next_latest(&mut self) -> Option<(Publish, UnderWay)> {
        let reading = self.shared.parts.reader.next_latest()?;
        let publish = self.reading(&reading, None, false);
        Some((publish, UnderWay::Latest(Box::new(reading))))
    }

    /// The next record; one that may be poisonous first.
    fn next_record(&mut self, now: Duration) -> Option<(Record, Turn)> {
        let Shared { poison, parts, .. } = &mut *self.shared;
        while let Some((lane, number)) = poison.to_try() {
            match parts.reader.get(lane, number) {
                Wanted::Here(record) => return Some((*record, Turn::Out)),
                Wanted::Soon => return None,
                // It was dropped meanwhile.
                Wanted::Gone => poison.gone((lane, number)),
            }
        }
        if let Some(record) = parts.reader.next_again() {
            return Some((record, Turn::Out));
        }
        loop {
            let record = parts.reader.next(now)?;
            if !poison.passes_over((record.lane, record.number)) {
                return Some((record, Turn::Own));
            }
        }
    }

    fn record(&mut self, record: &Record, turn: Turn) -> (Publish, UnderWay) {
        let place = (record.lane, record.number);
        let publish = match &record.body {
            Body::Reading(reading) => {
                let mut publish = self.reading(reading, Some(place), record.late);
                // One that others went before must not overwrite a newer value at the broker.
                publish.retain &= turn == Turn::Own || self.is_newest(reading);
                publish
            }
            Body::Outcome(outcome) => {
                let (publish, answer) = self.outcome(outcome, Some(place), record.late);
                if let Some(answer) = answer {
                    self.publisher.say(answer);
                }
                publish
            }
        };
        (publish, UnderWay::Record(place))
    }

    fn is_newest(&self, reading: &Reading) -> bool {
        let last = self.shared.parts.last.borrow();
        last.get(&reading.key()).is_none_or(|last| last.timestamp.uptime <= reading.timestamp.uptime)
    }

    fn reading(&self, reading: &Reading, number: Option<(Lane, Number)>, late: bool) -> Publish {
        let config = self.shared.spelling(&reading.key());
        let copy = if late { Copy::Late } else { Copy::Live };
        let (payload, content) = match config.payload {
            // A record has a number, which must be seen; it waits since before the point was given a bare value.
            form if form.is_bare() && number.is_none() => plain::bare(form, reading),
            form => plain::reading(form, reading, number, copy, &time::now()),
        };
        let topic = self.shared.topics.reading(&reading.device, &reading.point);
        // The backlog must not overwrite a newer value at the broker.
        Publish { topic, payload, retain: config.retain && !late, content, correlation: None }
    }

    /// The outcome for its topic, and for the one that the sender asked for.
    fn outcome(&self, outcome: &Outcome, number: Option<(Lane, Number)>, late: bool) -> (Publish, Option<Publish>) {
        let form = self.shared.spelling_of_commands(&outcome.device, outcome.point.as_deref()).payload;
        let (payload, content) = plain::outcome(form, outcome, number, late, &time::now());
        let topic = self.shared.topics.outcome(&outcome.device, outcome.point.as_deref());
        let answer = outcome.reply.as_ref().map(|reply| Publish {
            topic: reply.topic.to_string(),
            payload: payload.clone(),
            retain: false,
            content,
            correlation: reply.correlation.as_deref().map(bytes::Bytes::copy_from_slice),
        });
        (Publish { topic, payload, retain: false, content, correlation: None }, answer)
    }

    fn too_large(&mut self, publish: &Publish, what: UnderWay) {
        let text = format!("{} is larger than the packets that the broker takes", publish.topic);
        let reader = &mut self.shared.parts.reader;
        tracing::error!(MESSAGE_ID = event::RECORD_REFUSED, "{text}");
        match what {
            UnderWay::Record((lane, number)) => reader.refused(lane, number),
            UnderWay::Latest(reading) => reader.latest_acked(&reading),
            UnderWay::Gap(n) => reader.gap_acked(n),
            UnderWay::Word(_) => self.shared.raise("packet-size", text),
        }
    }

    fn health_due(&self, now: Duration) -> bool {
        self.next_health().is_some_and(|due| now >= due)
    }

    fn next_health(&self) -> Option<Duration> {
        let Some(last) = self.shared.last_health else { return Some(Duration::ZERO) };
        let pause = if self.health_wanted { HEALTH_APART } else { self.shared.parts.health.interval.0 };
        Some(last + pause.min(self.shared.parts.health.interval.0))
    }

    /// Whether a new record could go out now.
    pub(super) fn hungry(&self) -> bool {
        self.stage == Stage::Open
            && self.parting.is_none()
            && self.quota_until.is_none()
            && !(self.shared.poison.is_narrow() && self.publisher.under_way() > 0)
            && self.publisher.has_room(&self.link)
    }

    pub(super) fn next_due(&self, now: Duration) -> Option<Duration> {
        let room = self.publisher.has_room(&self.link);
        let introducing = match self.stage {
            Stage::Introducing { since, .. } => Some((since + ECHO_PATIENCE).max(now + Duration::from_millis(100))),
            _ => None,
        };
        // Before the broker wants to hear anything again, nothing is due.
        if let Some(until) = self.quota_until.filter(|until| now < *until) {
            return introducing.into_iter().chain(room.then_some(until)).min();
        }
        let open = self.stage == Stage::Open && room && self.parting.is_none();
        let records = open.then(|| self.shared.parts.reader.next_due(now)).flatten().filter(|_| self.hungry());
        let clock = open.then(|| self.shared.clock_due(now)).flatten();
        let health = open.then(|| self.next_health()).flatten();
        let refusals = &self.shared.refusals;
        let refusal = (open && !refusals.is_empty()).then(|| self.shared.refusal_rate.next(now));
        records
            .into_iter()
            .chain(introducing)
            .chain(clock)
            .chain(health)
            .chain(refusal)
            .chain(self.corrections.next_due().filter(|_| open))
            .min()
    }
}
