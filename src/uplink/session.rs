//! One connection, from CONNECT to its end.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::plain::{self, Copy};
use super::poison::Place;
use super::presence::{Corrections, ECHO_PATIENCE, Info, Stage};
use super::publisher::{Publisher, UnderWay};
use super::{Episode, Payload, Shared, Status, births};
use crate::link::{Event, Kept, Link, LinkError, Message, Opening, Publish, Refusal, Ticket};
use crate::model::{Body, Command, DeviceStates, Outcome, Reading, Reason, Record, Verdict, time};
use crate::task::Pulse;

/// `health` at a change of state comes at most this often.
const HEALTH_APART: Duration = Duration::from_secs(10);

/// After "quota exceeded" the broker is left alone for this long.
const QUOTA_PAUSE: Duration = Duration::from_secs(1);

/// The last words of a connection that we end ourselves: one round trip on a bad line.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// We said farewell because the gateway stops.
    Stopped,
    /// Another gateway, of this instance, uses our topics.
    Duplicate(String),
    /// It broke, or never was.
    Lost {
        error: LinkError,
        /// Whether records flowed.
        was_up: bool,
    },
}

/// We end the connection: last words, DISCONNECT, and then this end.
#[derive(Debug)]
struct Parting {
    deadline: Instant,
    end: Option<End>,
    disconnected: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session<'a> {
    shared: &'a mut Shared,
    kept: &'a mut Kept,
    link: Link,
    publisher: Publisher,
    stage: Stage,
    corrections: Corrections,
    /// Whether the problems were told on this connection; after that, when they change.
    problems_said: bool,
    /// The states of the devices as this connection told them.
    states_said: Option<DeviceStates>,
    /// The broker has too much: nothing but words before then.
    quota_until: Option<Duration>,
    health_wanted: bool,
    /// The gateway stops: what waits may go out until then.
    draining: Option<Instant>,
    parting: Option<Parting>,
}

impl<'a> Session<'a> {
    /// Begins a connection, whose Last Will is the message of a clean stop, byte for byte.
    pub(super) fn open(shared: &'a mut Shared, kept: &'a mut Kept) -> Result<Self, LinkError> {
        let farewell = shared.own_status(false);
        let opening =
            Opening { client_id: shared.parts.link.client_id.clone(), will: Some((farewell.topic, farewell.payload)) };
        let link = Link::open(&shared.parts.link, &opening, kept)?;
        Ok(Session {
            shared,
            kept,
            link,
            publisher: Publisher::new(),
            stage: Stage::Connecting,
            corrections: Corrections::default(),
            problems_said: false,
            states_said: None,
            quota_until: None,
            health_wanted: true,
            draining: None,
            parting: None,
        })
    }

    /// Runs until the connection ends.
    pub(super) async fn run(&mut self, episode: &mut Episode) -> End {
        let mut tick = tokio::time::interval(Pulse::EVERY);
        loop {
            self.shared.parts.pulse.beat();
            if let Some(end) = self.step(episode) {
                return end;
            }
            let now = time::uptime();
            let due = self.next_due(now).map(|due| due.saturating_sub(now));
            let hungry = self.hungry();
            let ending = self.parting.as_ref().map(|parting| parting.deadline).or(self.draining);
            let parts = &mut self.shared.parts;
            let event = tokio::select! {
                event = self.link.next() => Some(event),
                () = parts.stop.cancelled(), if self.draining.is_none() && self.parting.is_none() => {
                    self.draining = Some(Instant::now() + parts.farewell);
                    None
                }
                () = parts.reader.filled(), if hungry => None,
                Ok(()) = parts.states.changed() => {
                    self.device_states_changed();
                    None
                }
                Some(outcome) = parts.refusals.recv() => {
                    self.shared.keep_refusal(outcome);
                    None
                }
                () = sleep(due), if due.is_some() => None,
                () = until(ending), if ending.is_some() => None,
                _ = tick.tick() => None,
            };
            let outcome = match event {
                None => Ok(()),
                Some(Ok(event)) => {
                    self.alive();
                    self.handle(event, episode)
                }
                Some(Err(error)) => Err(error),
            };
            if let Err(error) = outcome {
                return self.lost(error);
            }
        }
    }

    /// Closes the connection after its end.
    pub(super) async fn close(self) {
        self.link.close().await;
    }

    /// What is to be done whatever happened: send what there is room for, and come to the end when it is time.
    fn step(&mut self, episode: &mut Episode) -> Option<End> {
        if self.shared.parts.stop.is_cancelled() && self.draining.is_none() && self.parting.is_none() {
            self.draining = Some(Instant::now() + self.shared.parts.farewell);
        }
        if let Some(deadline) = self.draining {
            let open = self.stage == Stage::Open;
            let done = !open || (self.shared.parts.queue.is_empty() && self.publisher.is_idle());
            if done || Instant::now() >= deadline {
                if !done {
                    tracing::error!("the time to stop is over before all records were published");
                }
                self.part(End::Stopped);
            }
        }
        self.introduce(episode);
        self.tell_problems();
        if let Err(error) = self.pump() {
            return Some(self.lost(error));
        }
        let parting = self.parting.as_mut()?;
        let over = Instant::now() >= parting.deadline || self.stage == Stage::Connecting;
        if over {
            return parting.end.take();
        }
        if self.publisher.words_open() == 0 && !parting.disconnected {
            parting.disconnected = true;
            self.link.disconnect();
        }
        None
    }

    fn handle(&mut self, event: Event, episode: &mut Episode) -> Result<(), LinkError> {
        match event {
            Event::Up(limits) => {
                self.kept.url_works();
                self.publisher.limit(self.shared.parts.link.window, limits);
                self.stage = Stage::Subscribing;
                self.shared.counters.connections += 1;
                self.link.subscribe(&super::filters(&self.shared.parts.link.root));
            }
            Event::Subscribed(granted) => self.subscribed(&granted, episode),
            Event::Acked(ticket, result) => self.acked(ticket, result),
            Event::Message(message) => self.message(message),
            Event::Alive => {}
            Event::Parted => {
                if let Some(parting) = &mut self.parting {
                    parting.deadline = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// The broker answered the subscription: from here on commands can come, so the gateway may be called online.
    fn subscribed(&mut self, granted: &[bool], episode: &mut Episode) {
        let filters = super::filters(&self.shared.parts.link.root);
        let refused: Vec<&str> = filters
            .iter()
            .enumerate()
            .filter(|(place, _)| granted.get(*place) != Some(&true))
            .map(|(_, filter)| filter.path.as_str())
            .collect();
        let commands = granted.iter().take(2).all(|granted| *granted) && granted.len() >= 2;
        if refused.is_empty() {
            self.shared.clear("subscription");
        } else {
            let text = format!("the broker refuses the subscription to {}: check its ACL", refused.join(", "));
            tracing::warn!("{text}");
            self.shared.raise("subscription", text);
        }
        // What is in the queue now is this connection's backlog.
        self.shared.parts.reader.begin();
        self.shared.clear("link");
        self.publisher.say(self.shared.own_status(commands));
        self.say_device_states();
        for word in self.shared.last_values() {
            self.publisher.say(word);
        }
        let own_status_echoes = granted.get(2) == Some(&true) && commands;
        self.stage = Stage::Introducing { since: time::uptime(), echoed: false };
        if !own_status_echoes {
            self.open_up(episode);
        }
    }

    /// Records may flow even when the broker keeps the echo to itself.
    fn introduce(&mut self, episode: &mut Episode) {
        let Stage::Introducing { since, echoed } = self.stage else { return };
        if echoed {
            self.open_up(episode);
        } else if time::uptime() >= since + ECHO_PATIENCE && self.publisher.words_open() == 0 {
            tracing::warn!("the broker did not echo the own status; going on without");
            self.open_up(episode);
        }
    }

    fn open_up(&mut self, episode: &mut Episode) {
        self.stage = Stage::Open;
        self.shared.introduced = true;
        self.shared.clear("duplicate");
        self.publisher.say(self.shared.info_word());
        episode.back(self.link.url());
        self.shared.tell(Status::Online { url: self.link.url().to_owned() });
    }

    fn message(&mut self, message: Message) {
        if message.topic == self.shared.topics.own("status") {
            self.own_status(&message);
        } else if message.topic == self.shared.topics.own("info") {
            self.own_info(&message);
        } else {
            self.command(&message);
        }
        self.link.ack(&message);
    }

    fn own_status(&mut self, message: &Message) {
        if message.retain || self.parting.is_some() {
            return;
        }
        match (&message.payload[..], self.stage) {
            (b"online", Stage::Introducing { since, .. }) => self.stage = Stage::Introducing { since, echoed: true },
            (b"offline", Stage::Open) if self.corrections.allow(time::uptime()) => {
                tracing::warn!("somebody said that this gateway is offline; corrected");
                self.shared.counters.corrected += 1;
                self.publisher.say(self.shared.own_status(true));
            }
            _ => {}
        }
    }

    fn own_info(&mut self, message: &Message) {
        let Ok(info) = serde_json::from_slice::<Info>(&message.payload) else { return };
        if info.instance == self.shared.parts.start.instance || self.parting.is_some() {
            return;
        }
        if message.retain && !self.shared.introduced {
            self.clear_obsolete(&info);
        } else {
            self.publisher.say(self.shared.info_word());
            self.part(End::Duplicate(info.instance));
        }
    }

    /// Retained topics of points and devices that the run before had and this one has not.
    fn clear_obsolete(&mut self, before: &Info) {
        let mut topics = Vec::new();
        for (device, points) in &before.devices {
            let Ok(device) = crate::model::DeviceName::new(device) else { continue };
            if !self.shared.parts.devices.contains_key(&device) {
                topics.push(self.shared.topics.device(&device, "status"));
                topics.push(self.shared.topics.device(&device, "problem"));
            }
            for point in points.points.keys() {
                let Ok(point) = crate::model::PointName::new(point) else { continue };
                let key = crate::model::PointKey(device.clone(), point);
                if self.shared.points.get(&key).is_none_or(|plan| !plan.config.retain) {
                    topics.push(self.shared.topics.reading(&key.0, &key.1));
                }
            }
        }
        for topic in topics {
            tracing::info!("clearing {topic}, which is no longer configured");
            self.publisher.say(births::retained(topic, bytes::Bytes::new()));
        }
    }

    fn command(&mut self, message: &Message) {
        let Some(target) = self.shared.topics.target(&message.topic) else { return };
        let reply = plain::reply_to(message).filter(|reply| self.shared.topics.is_foreign(&reply.topic));
        let key = (target.device.to_owned(), target.point.unwrap_or_default().to_owned());
        let text = self.shared.text_points.contains(&key);
        let command = plain::command(target, message, reply, text);
        let (command, reason, text): (Command, _, _) = match self.shared.parts.commands.try_send(command) {
            Ok(()) => return,
            Err(TrySendError::Full(command)) => (command, Reason::Busy, "too many commands at once"),
            Err(TrySendError::Closed(command)) => (command, Reason::Stopping, "the gateway stops"),
        };
        self.shared.keep_refusal(Outcome::of(&command, Verdict::Rejected(reason), Some(text.to_owned())));
    }

    fn acked(&mut self, ticket: Ticket, result: Result<(), Refusal>) {
        let Some(what) = self.publisher.acked(ticket) else { return };
        let reader = &mut self.shared.parts.reader;
        match (what, result) {
            (UnderWay::Record(place), Ok(())) => {
                self.shared.poison.acked(place);
                reader.acked(place.0, place.1);
            }
            (UnderWay::Latest(reading), Ok(()) | Err(Refusal::Never(_))) => reader.latest_acked(&reading),
            (UnderWay::Gap(n), Ok(()) | Err(Refusal::Never(_))) => reader.gap_acked(n),
            (UnderWay::Word(_), Ok(())) => {}
            (UnderWay::Record((lane, number)), Err(Refusal::Never(why))) => {
                tracing::error!(LANE = %lane, "the broker refuses record {number}: {why}");
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
                    UnderWay::Word(word) => self.publisher.say(word),
                    UnderWay::Latest(reading) => reader.latest_again(&reading),
                    UnderWay::Gap(n) => reader.gap_again(n),
                }
            }
        }
    }

    /// Sends as much as the window has room for.
    fn pump(&mut self) -> Result<(), LinkError> {
        if matches!(self.stage, Stage::Connecting | Stage::Subscribing) {
            return Ok(());
        }
        let now = time::uptime();
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
            let health = self.shared.health_word(self.kept);
            return Some((health.clone(), UnderWay::Word(health)));
        }
        if self.quota_until.is_some_and(|until| now < until) {
            return None;
        }
        self.quota_until = None;
        if let Some(gap) = self.shared.parts.reader.next_gap(now) {
            let payload = plain::gap(&gap, &self.shared.parts.start.boot);
            let publish = Publish { topic: self.shared.topics.own("gap"), payload, retain: false, correlation: None };
            return Some((publish, UnderWay::Gap(gap.n)));
        }
        if let Some(reading) = self.shared.parts.reader.next_latest() {
            let publish = self.reading(&reading, None, false);
            return Some((publish, UnderWay::Latest(Box::new(reading))));
        }
        self.next_record(now).map(|record| self.record(&record))
    }

    /// The next record, or none while one that may be poisonous has the way for itself.
    fn next_record(&mut self, now: Duration) -> Option<Record> {
        let Shared { poison, parts, .. } = &mut *self.shared;
        if poison.is_narrow() && self.publisher.under_way() > 0 {
            return None;
        }
        while let Some((lane, number)) = poison.to_try() {
            if let Some(record) = parts.reader.get(lane, number) {
                return Some(record);
            }
            // It was dropped meanwhile.
            poison.gone((lane, number));
        }
        if let Some(record) = parts.reader.next_again() {
            return Some(record);
        }
        loop {
            let record = parts.reader.next(now)?;
            if !poison.passes_over((record.lane, record.number)) {
                return Some(record);
            }
        }
    }

    fn record(&mut self, record: &Record) -> (Publish, UnderWay) {
        let place = (record.lane, record.number);
        let publish = match &record.body {
            Body::Reading(reading) => self.reading(reading, Some(place), record.late),
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

    fn reading(
        &self,
        reading: &Reading,
        number: Option<(crate::model::Lane, crate::model::Number)>,
        late: bool,
    ) -> Publish {
        let plan = self.shared.points.get(&reading.key());
        let config = plan.map(|plan| plan.config).unwrap_or_default();
        let unit = plan.and_then(|plan| plan.point.unit.as_deref());
        let copy = if late { Copy::Late } else { Copy::Live };
        let payload = match config.payload {
            Payload::Json => plain::reading(reading, unit, number, copy, &self.shared.parts.start.boot),
            Payload::Value => plain::bare(reading),
        };
        let topic = self.shared.topics.reading(&reading.device, &reading.point);
        // The backlog must not overwrite a newer value at the broker.
        Publish { topic, payload, retain: config.retain && !late, correlation: None }
    }

    /// The outcome for its topic, and for the one that the sender asked for.
    fn outcome(
        &self,
        outcome: &Outcome,
        number: Option<(crate::model::Lane, crate::model::Number)>,
        late: bool,
    ) -> (Publish, Option<Publish>) {
        let payload = plain::outcome(outcome, number, late, &self.shared.parts.start.boot);
        let topic = self.shared.topics.outcome(&outcome.device, outcome.point.as_deref());
        let answer = outcome.reply.as_ref().map(|reply| Publish {
            topic: reply.topic.to_string(),
            payload: payload.clone(),
            retain: false,
            correlation: reply.correlation.as_deref().map(bytes::Bytes::copy_from_slice),
        });
        (Publish { topic, payload, retain: false, correlation: None }, answer)
    }

    fn too_large(&mut self, publish: &Publish, what: UnderWay) {
        let text = format!("{} is larger than the packets that the broker takes", publish.topic);
        let reader = &mut self.shared.parts.reader;
        tracing::error!("{text}");
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

    fn device_states_changed(&mut self) {
        self.health_wanted = true;
        self.shared.problems_dirty = true;
        if !matches!(self.stage, Stage::Connecting | Stage::Subscribing) && self.parting.is_none() {
            self.say_device_states();
        }
    }

    /// The states of those devices whose state this connection has not told yet.
    fn say_device_states(&mut self) {
        let states = self.shared.parts.states.borrow_and_update().clone();
        for word in self.shared.device_words(&states, &self.states_said) {
            self.publisher.say(word);
        }
        self.states_said = Some(states);
    }

    fn tell_problems(&mut self) {
        if matches!(self.stage, Stage::Connecting | Stage::Subscribing) {
            return;
        }
        if self.shared.problems_changed() || !self.problems_said {
            self.problems_said = true;
            self.publisher.say(self.shared.problem_word());
        }
    }

    /// Ends the connection by ourselves: `offline` first, so that nobody has to wait for the Last Will.
    fn part(&mut self, end: End) {
        if self.parting.is_some() {
            return;
        }
        if let End::Duplicate(instance) = &end {
            self.shared.raise("duplicate", format!("another gateway (instance {instance}) uses this one's id"));
            self.tell_problems();
        }
        if !matches!(self.stage, Stage::Connecting | Stage::Subscribing) {
            self.publisher.say(self.shared.own_status(false));
        }
        self.draining = None;
        self.parting = Some(Parting { deadline: Instant::now() + LAST_WORDS, end: Some(end), disconnected: false });
    }

    fn lost(&mut self, error: LinkError) -> End {
        if let Some(end) = self.parting.as_mut().and_then(|parting| parting.end.take()) {
            return end;
        }
        if matches!(error, LinkError::Closed(_))
            && let Some((lane, number)) = self.closed()
        {
            tracing::error!(LANE = %lane, "record {number} makes the broker close the connection: refused");
            self.shared.parts.reader.refused(lane, number);
        }
        End::Lost { error, was_up: self.stage == Stage::Open }
    }

    /// The broker closed the connection: the record that is known now not to be wanted.
    fn closed(&mut self) -> Option<Place> {
        let records = self.publisher.records();
        let alone = records.len() == self.publisher.under_way();
        self.shared.poison.closed(&records, alone)
    }

    /// Any event shows that the broker lives.
    fn alive(&self) {
        self.shared.parts.proof.send_replace(Some(time::uptime()));
    }

    /// Whether a new record could go out now.
    fn hungry(&self) -> bool {
        self.stage == Stage::Open
            && self.parting.is_none()
            && self.quota_until.is_none()
            && !(self.shared.poison.is_narrow() && self.publisher.under_way() > 0)
            && self.publisher.has_room(&self.link)
    }

    fn next_due(&self, now: Duration) -> Option<Duration> {
        let room = self.publisher.has_room(&self.link);
        let introducing = match self.stage {
            Stage::Introducing { since, .. } => Some((since + ECHO_PATIENCE).max(now + Duration::from_millis(100))),
            _ => None,
        };
        let open = self.stage == Stage::Open && room;
        let records = open.then(|| self.shared.parts.reader.next_due(now)).flatten().filter(|_| self.hungry());
        let health = open.then(|| self.next_health()).flatten();
        let refusals = &self.shared.refusals;
        let refusal = (open && !refusals.is_empty()).then(|| self.shared.refusal_rate.next(now));
        records
            .into_iter()
            .chain(introducing)
            .chain(health)
            .chain(refusal)
            .chain(self.quota_until.filter(|_| room))
            .min()
    }
}

async fn sleep(pause: Option<Duration>) {
    tokio::time::sleep(pause.unwrap_or_default()).await;
}

async fn until(moment: Option<Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}
