//! One connection, from CONNECT to its end.

mod incoming;
mod outgoing;

use std::time::Duration;

use tokio::time::Instant;

use super::poison::Place;
use super::presence::{Corrections, ECHO_PATIENCE, Stage};
use super::publisher::Publisher;
use super::{Change, Episode, Shared, Status};
use crate::link::{self, Event, Kept, Link, LinkError, Opening};
use crate::model::{DeviceStates, event, time};
use crate::task::Pulse;

/// A connection that stood for so long works, whether there were records or not.
const STEADY: Duration = Duration::from_secs(10);

/// The last words of a connection that we end ourselves: one round trip on a bad line.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// We said farewell because the gateway stops.
    Stopped,
    /// We ended it for a new config, with which the next one is made at once.
    Changed,
    /// Another gateway, of this instance, uses our topics.
    Duplicate(String),
    /// It broke, or never was.
    Lost {
        error: LinkError,
        /// Whether a record was acknowledged, or the connection stood for a while: the next one may come soon.
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
    /// No connection before this one has told the broker who this run is.
    introduces: bool,
    corrections: Corrections,
    /// The broker lets commands through: without them the gateway is not online.
    takes_commands: bool,
    /// Since when records may flow.
    opened: Option<Duration>,
    /// A record was acknowledged.
    progress: bool,
    /// Whether the problems were told on this connection; after that, when they change.
    problems_said: bool,
    /// The states of the devices as this connection told them.
    states_said: Option<DeviceStates>,
    /// The broker has too much: nothing before then.
    quota_until: Option<Duration>,
    /// A `keep = "latest"` point had the last turn.
    latest_turn: bool,
    health_wanted: bool,
    /// The gateway stops: what waits may go out until then.
    draining: Option<Instant>,
    parting: Option<Parting>,
}

impl<'a> Session<'a> {
    /// Begins a connection, whose Last Will is the message of a clean stop, byte for byte.
    pub(super) fn open(shared: &'a mut Shared, kept: &'a mut Kept) -> Result<Self, LinkError> {
        let farewell = shared.own_status(false);
        let (client_id, will) = (shared.parts.link.client_id.clone(), Some((farewell.topic, farewell.payload)));
        let opening = Opening { client_id, will, session: link::Session::Clean };
        let link = Link::open(&shared.parts.link, &opening, kept)?;
        Ok(Session {
            introduces: !shared.introduced,
            shared,
            kept,
            link,
            publisher: Publisher::new(),
            stage: Stage::Connecting,
            corrections: Corrections::default(),
            takes_commands: false,
            opened: None,
            progress: false,
            problems_said: false,
            states_said: None,
            quota_until: None,
            latest_turn: false,
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
                // The next step begins the end.
                () = parts.stop.cancelled(), if self.draining.is_none() && self.parting.is_none() => None,
                () = parts.reader.filled(), if hungry => None,
                // What waited for it may go.
                Ok(()) = parts.clock.changed() => None,
                Ok(()) = parts.states.changed() => {
                    self.device_states_changed();
                    None
                }
                Some(outcome) = parts.refusals.recv() => {
                    self.shared.keep_refusal(outcome);
                    None
                }
                Some(change) = parts.changes.recv() => {
                    self.change(change);
                    None
                }
                () = sleep(due), if due.is_some() => None,
                () = until(ending), if ending.is_some() => None,
                _ = tick.tick() => None,
            };
            let outcome = match event {
                None => Ok(()),
                Some(Ok(event)) => self.handle(event, episode),
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
            self.shared.parts.reader.hurry();
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
        self.correct();
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
        if event != Event::Parted {
            self.shared.heard();
        }
        match event {
            Event::Up(limits) => {
                self.kept.url_works();
                self.publisher.limit(self.shared.parts.link.window, limits);
                self.stage = Stage::Subscribing;
                self.shared.counters.connections += 1;
                self.shared.first_up.get_or_insert_with(time::uptime);
                self.link.subscribe(&super::filters(&self.shared.parts.link));
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
        let filters = super::filters(&self.shared.parts.link);
        let refused: Vec<&str> = filters
            .iter()
            .enumerate()
            .filter(|(place, _)| granted.get(*place) != Some(&true))
            .map(|(_, filter)| filter.path.as_str())
            .collect();
        self.takes_commands = granted.len() >= 2 && granted.iter().take(2).all(|granted| *granted);
        if refused.is_empty() {
            self.shared.clear("subscription");
        } else {
            let text = format!("the broker refuses the subscription to {}: check its ACL", refused.join(", "));
            if !self.shared.has("subscription") {
                tracing::warn!(MESSAGE_ID = event::SUBSCRIPTION_REFUSED, "{text}");
            }
            self.shared.raise("subscription", text);
        }
        // What is in the queue now is this connection's backlog.
        self.shared.parts.reader.begin();
        // What this broker, or its new config, still does not take will be told again.
        for code in ["link", "refused", "packet-size"] {
            self.shared.clear(code);
        }
        self.publisher.say(self.shared.own_status(self.takes_commands));
        self.say_device_states();
        for word in self.shared.last_values(|_| true) {
            self.publisher.say(word);
        }
        self.clear_obsolete_topics();
        let own_status_echoes = granted.get(2) == Some(&true) && self.takes_commands;
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
        self.opened = Some(time::uptime());
        self.shared.clear("duplicate");
        self.publisher.say(self.shared.info_word());
        episode.back(self.link.url());
        self.shared.tell(Status::Online { url: self.link.url().to_owned() });
    }

    /// A new config.
    fn change(&mut self, change: Change) {
        let introduces = self.shared.change(change);
        // One that was away has to be told of from the beginning.
        let devices = &self.shared.parts.devices;
        if let Some(said) = &mut self.states_said {
            said.retain(|device, _| devices.contains_key(device) && !introduces.new_devices.contains(device));
        }
        if self.parting.is_some() {
            return;
        }
        if !matches!(self.stage, Stage::Connecting | Stage::Subscribing) {
            self.clear_obsolete_topics();
            if self.stage == Stage::Open && introduces.differs {
                self.publisher.say(self.shared.info_word());
                let words = self.shared.last_values(|point| introduces.respelled.contains(point));
                words.into_iter().for_each(|word| self.publisher.say(word));
            }
        }
        if self.shared.new_link.is_some() {
            self.part(End::Changed);
        }
    }

    fn clear_obsolete_topics(&mut self) {
        for word in self.shared.clearing_words() {
            tracing::info!("clearing {}, which is no longer configured", word.topic);
            self.publisher.say(word);
        }
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
        // The health that stays at the broker is that of the end: who was away learns from it how all numbers ended.
        // Without records on this connection, or beside another gateway's, there is nothing to tell.
        if self.stage == Stage::Open && matches!(end, End::Stopped) {
            self.publisher.say(self.shared.health_word(self.kept));
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
            tracing::error!(MESSAGE_ID = event::RECORD_REFUSED, LANE = %lane, "record {number} makes the broker close the connection: refused");
            self.shared.parts.reader.refused(lane, number);
        }
        let steady = self.opened.is_some_and(|opened| time::uptime() >= opened + STEADY);
        End::Lost { error, was_up: self.progress || steady }
    }

    /// The broker closed the connection: the record that is known now not to be wanted.
    fn closed(&mut self) -> Option<Place> {
        let records = self.publisher.records();
        let alone = records.len() == self.publisher.under_way();
        self.shared.poison.closed(&records, alone)
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
