//! One connection of one device: what it says becomes readings and presence, what it is told becomes messages.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;

use super::Mqtt;
use super::deed::Deed;
use super::ear::Said;
use super::topic::LONGEST;
use crate::device::decode::Noise;
use crate::device::{DeviceError, DeviceIo, Write, WriteError};
use crate::link::{Content, Event, Filter, Kept, Link, Message, Opening, Publish, Session, Ticket};
use crate::model::{PointName, Span, Value, time};

/// For the farewell: a broker that is there takes it at once.
const FAREWELL: Duration = Duration::from_secs(2);

/// Topics whose last payload is known; a filter with wildcards may have any number of them.
const MAX_KNOWN: usize = 1024;

/// Without the marker, what the broker kept is over when nothing came for so long,
const QUIET: Duration = Duration::from_secs(2);

/// or, where a device never pauses, after so long.
const LONGEST_BACKLOG: Duration = Duration::from_secs(30);

/// What one connection leaves to the next.
#[derive(Debug, Default)]
pub(super) struct Past {
    kept: Kept,
    /// When the device was heard last, by `CLOCK_BOOTTIME`.
    heard: Option<Duration>,
    /// On the connection before, the marker did not come back: brokers may end one for what their rights refuse
    /// (mosquitto 2.0.11 does), so the next one is without.
    was_in_vain: bool,
    /// Of topics whose stored messages count, what was said last, as a hash: the broker shows it at each subscription.
    known: Known,
}

/// Hashes of payloads by hashes of topics: topics may be long.
#[derive(Debug, Default)]
struct Known(BTreeMap<u64, u64>);

impl Known {
    /// Whether the topic's payload is another one than before.
    fn is_news(&mut self, topic: &str, payload: &[u8]) -> bool {
        let (topic, said) = (hash(topic), hash(payload));
        let is_news = self.0.insert(topic, said) != Some(said);
        if self.0.len() > MAX_KNOWN {
            // The next one behind it: hashes are in no order.
            let next = topic.checked_add(1).and_then(|next| self.0.range(next..).next());
            let next = next.or_else(|| self.0.iter().next()).map(|(topic, _)| *topic);
            next.and_then(|topic| self.0.remove(&topic));
        }
        is_news
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// See the module.
pub(super) struct Talk<'a> {
    of: &'a Mqtt,
    link: Link,
    /// Since when what comes is live. What comes before is what the broker kept: nobody knows how old it is.
    ready: Option<Duration>,
    /// What is known of that until then.
    backlog: Backlog,
    /// What the device's status says.
    status: Option<bool>,
    /// The silence was told.
    is_lost: bool,
    deed: Option<Deed>,
    /// What the router knows of outputs that the device itself may change.
    found: BTreeMap<PointName, Value>,
    noise: Noise,
}

/// What the broker kept comes first, and it may be far more than it has under way at once. A marker that is published
/// behind the subscription comes back behind all of it.
#[derive(Debug, Default)]
struct Backlog {
    /// What the marker says; `None`: the broker may not like it.
    marker: Option<u64>,
    ticket: Option<Ticket>,
    /// When the broker answered the subscription, by `CLOCK_BOOTTIME`.
    subscribed: Option<Duration>,
    /// When something came last.
    last: Duration,
    /// What the device's status says is stored there: that is younger than what waited.
    is_status_stored: bool,
    /// Something stored says that the device is there.
    is_there: bool,
}

impl Backlog {
    /// When it is over even if the marker does not come back: a 3.1.1 broker drops without a word what its rights refuse.
    fn over_at(&self) -> Option<Duration> {
        let subscribed = self.subscribed?;
        Some((self.last.max(subscribed) + QUIET).min(subscribed + LONGEST_BACKLOG))
    }
}

impl<'a> Talk<'a> {
    /// Begins a connection.
    pub(super) fn open(of: &'a Mqtt) -> Result<Self, DeviceError> {
        let opening = Opening { client_id: of.link.client_id.clone(), will: None, session: Session::Kept };
        let link = Link::open(&of.link, &opening, &mut of.past().kept);
        let link = link.map_err(|error| DeviceError::Open(of.about(&error)))?;
        let (found, noise) = (BTreeMap::new(), Noise::of("message"));
        let was_in_vain = std::mem::take(&mut of.past().was_in_vain);
        let marker = if was_in_vain { None } else { getrandom::u64().ok() };
        let backlog = Backlog { marker, ..Backlog::default() };
        Ok(Talk { of, link, ready: None, backlog, status: None, is_lost: false, deed: None, found, noise })
    }

    /// What happened next. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Event, DeviceError> {
        self.link.next().await.map_err(|error| match self.ready {
            Some(_) => DeviceError::Lost(self.of.about(&error)),
            None => DeviceError::Open(self.of.about(&error)),
        })
    }

    /// Says farewell; the broker keeps the session.
    pub(super) async fn part(mut self) {
        self.link.disconnect();
        let parted = async { while !matches!(self.link.next().await, Ok(Event::Parted) | Err(_)) {} };
        if tokio::time::timeout(FAREWELL, parted).await.is_err() {
            tracing::debug!("the broker of a device did not take the farewell");
        }
        self.link.close().await;
    }

    /// When [`Talk::overdue`] has something to do.
    pub(super) fn due(&self) -> Option<Duration> {
        let backlog = if self.ready.is_none() { self.backlog.over_at() } else { None };
        self.deed.as_ref().map(|deed| deed.until).into_iter().chain(self.silent_at()).chain(backlog).min()
    }

    fn silent_at(&self) -> Option<Duration> {
        let (ready, patience) = (self.ready?, self.of.patience()?);
        (!self.is_lost).then(|| self.of.past().heard.unwrap_or_default().max(ready) + patience)
    }

    /// The command's time, or that of the device to say something, is over.
    pub(super) async fn overdue(&mut self, io: &mut DeviceIo) {
        let now = time::uptime();
        if self.ready.is_none() && self.backlog.over_at().is_some_and(|at| at <= now) {
            self.begin(io).await;
        }
        if let Some(deed) = self.deed.take_if(|deed| deed.until <= now) {
            let error = deed.overdue();
            io.answer(deed.write, Err(error)).await;
        }
        if let Some(patience) = self.of.patience()
            && self.silent_at().is_some_and(|at| at <= now)
        {
            self.is_lost = true;
            io.offline(&format!("nothing was heard of it for {}", Span(patience)));
        }
    }

    /// Acts on what happened.
    pub(super) async fn take(&mut self, io: &mut DeviceIo, event: Event) -> Result<(), DeviceError> {
        match event {
            Event::Up(_) => {
                self.of.past().kept.url_works();
                if self.of.subscriptions.is_empty() {
                    self.begin(io).await;
                    // Nothing is to be heard of it.
                    io.online();
                } else {
                    let mut filters = self.of.subscriptions.clone();
                    if self.backlog.marker.is_some() {
                        filters.push(Filter { path: self.of.marker.clone(), retained: false });
                    }
                    self.of.past().was_in_vain = self.backlog.marker.is_some();
                    self.link.subscribe(&filters);
                }
            }
            Event::Subscribed(granted) => {
                let mut granted = granted.into_iter().chain(std::iter::repeat(false));
                if let Some((filter, _)) =
                    self.of.subscriptions.iter().zip(granted.by_ref()).find(|(_, granted)| !granted)
                {
                    let text = format!("its broker's ACL refuses the subscription to {}", filter.path);
                    return Err(DeviceError::Open(text));
                }
                self.backlog.subscribed = Some(time::uptime());
                // The marker's topic is the last one.
                match self.backlog.marker.filter(|_| granted.next() == Some(true)) {
                    Some(marker) => self.mark(marker),
                    None => self.backlog.marker = None,
                }
            }
            Event::Acked(ticket, Err(_)) if self.backlog.ticket == Some(ticket) => self.backlog.marker = None,
            Event::Acked(ticket, result) => {
                if let Some(deed) = &mut self.deed
                    && let Err(error) = deed.acked(ticket, result)
                {
                    self.end(io, Err(error)).await;
                }
                self.look(io).await;
            }
            Event::Message(message) if message.topic == self.of.marker => {
                let is_ours = self.backlog.marker.is_some_and(|marker| message.payload == marker.to_string());
                // One of an earlier connection is part of what the broker kept.
                if is_ours {
                    self.of.past().was_in_vain = false;
                    if self.ready.is_none() {
                        self.begin(io).await;
                    }
                }
                self.link.ack(&message);
            }
            // Nobody has such a topic, and a filter with wildcards would take it.
            Event::Message(message) if message.topic.len() > LONGEST => self.link.ack(&message),
            Event::Message(message) => {
                self.hear(io, message).await;
                self.backlog.last = time::uptime();
            }
            Event::Alive | Event::Parted => {}
        }
        Ok(())
    }

    /// Publishes the marker.
    fn mark(&mut self, marker: u64) {
        let (topic, payload) = (self.of.marker.clone(), Bytes::from(marker.to_string()));
        let publish = Publish { topic, payload, retain: false, content: Content::Text, correlation: None };
        self.backlog.ticket = self.link.publish(publish).ok();
    }

    /// All is subscribed, and what comes now is live.
    async fn begin(&mut self, io: &mut DeviceIo) {
        let now = time::uptime();
        self.ready = Some(now);
        // What its outputs are it says itself.
        io.opened(Vec::new()).await;
        if self.status == Some(false) {
            if let Some(status) = &self.of.config.status {
                io.offline(&format!("it says so: {} is `{}`", status.topic, status.offline));
            }
            return;
        }
        let heard = self.of.past().heard;
        let was_heard = heard.zip(self.of.patience()).is_some_and(|(heard, patience)| now < heard + patience);
        if was_heard || self.status == Some(true) || self.backlog.is_there {
            io.online();
        }
    }

    async fn hear(&mut self, io: &mut DeviceIo, message: Message) {
        let now = time::now();
        let of = self.of;
        let is_news = !of.ear.wants_stored(&message.topic) || self.is_news(&message);
        let (said, wrong) =
            if is_news { of.ear.read(&message.topic, &message.payload, message.retain) } else { (Vec::new(), None) };
        match wrong {
            Some(error) => self.noise.heard(io, &error, &message.payload, now),
            None if !said.is_empty() => self.noise.over(io, now),
            None => {}
        }
        self.note_presence(io, &message, now.uptime);
        let mut done = None;
        if let Some(deed) = self.deed.as_mut().filter(|_| !message.retain) {
            deed.heard(&said);
            done = deed.done(io);
        }
        for Said { point, value } in &said {
            match value {
                Some(value) => self.note_output(io, point, value),
                None => {
                    io.report_bad(point).await;
                    continue;
                }
            }
            // What a command did is said with it.
            let is_deed = done.is_some() && self.deed.as_ref().is_some_and(|deed| deed.sets(point));
            if let Some(value) = value.as_ref().filter(|_| !is_deed) {
                io.report_at(point, value, now).await;
            }
        }
        if let Some(values) = done {
            self.end(io, Ok(values)).await;
        }
        // Only now: what was not handed over is to come again.
        self.link.ack(&message);
    }

    /// Whether a stored message says what is not known from the connection before, or from this one.
    fn is_news(&self, message: &Message) -> bool {
        self.of.past().known.is_news(&message.topic, &message.payload) || !message.retain
    }

    /// What a message says of the device itself.
    fn note_presence(&mut self, io: &mut DeviceIo, message: &Message, now: Duration) {
        let of = self.of;
        let status = of.config.status.as_ref().filter(|status| status.topic == message.topic);
        let status = status.and_then(|status| match &message.payload {
            payload if *payload == status.online => Some(true),
            payload if *payload == status.offline => Some(false),
            _ => None,
        });
        let is_old = message.retain || self.ready.is_none();
        // What another config had subscribed to is in the session as well.
        if status.is_none() && !of.ear.hears(&message.topic) {
            return;
        }
        let Some(awake) = of.config.awake else {
            // Where nothing else tells, a stored value that counts is a sign as well.
            let is_alone = of.config.status.is_none() && of.config.interval.is_none();
            let counts = !is_old || is_alone && message.retain && of.ear.wants_stored(&message.topic);
            if self.ready.is_none() {
                self.backlog.is_there |= counts;
                if status.is_some() && (message.retain || !self.backlog.is_status_stored) {
                    self.status = status;
                    self.backlog.is_status_stored |= message.retain;
                }
                return;
            }
            self.status = status.or(self.status);
            if status == Some(false) {
                let topic = &message.topic;
                return io.offline(&format!("it says so: {topic} is `{}`", message.payload.escape_ascii()));
            }
            if !is_old {
                self.note_heard();
            }
            if self.status == Some(true) && status.is_some() || counts && self.status != Some(false) {
                io.online();
            }
            return;
        };
        if is_old {
            return;
        }
        self.note_heard();
        io.online();
        // One that sleeps says farewell each time.
        io.awake_until(if status == Some(false) { now } else { now + awake.0 });
    }

    fn note_heard(&mut self) {
        self.is_lost = false;
        self.of.past().heard = Some(time::uptime());
    }

    /// An output may be changed by others than the gateway: at the device, from another program.
    fn note_output(&mut self, io: &mut DeviceIo, point: &PointName, value: &Value) {
        let is_output = self.of.writers.get(point).is_some_and(|writer| writer.confirms);
        if is_output && self.found.get(point) != Some(value) && io.found(point, value) {
            self.found.insert(point.clone(), value.clone());
        }
    }

    /// Publishes what is asked for.
    pub(super) async fn write(&mut self, io: &mut DeviceIo, write: Write) {
        // There is one at a time, by the router.
        let error = WriteError::Unknown("another command came before it ended".to_owned());
        self.end(io, Err(error)).await;
        let messages = self.messages(&write).map_err(WriteError::Failed);
        let messages = match messages.and_then(|messages| io.begin(&write).map(|()| messages)) {
            Ok(messages) => messages,
            Err(error) => return io.answer(write, Err(error)).await,
        };
        let until = time::uptime() + write.timeout;
        let mut deed = Deed::new(write, until);
        for (point, value, publish, confirms) in messages {
            match self.link.publish_until(publish, until.saturating_sub(time::uptime())) {
                Ok(ticket) => deed.published(point, value, ticket, confirms),
                Err(_) => {
                    let error = WriteError::Unknown("the link to its broker ended meanwhile".to_owned());
                    return io.answer(deed.write, Err(error)).await;
                }
            }
        }
        self.deed = Some(deed);
    }

    /// What is published for a command. Never to be stored: it would act again whenever the device comes back.
    fn messages(&self, write: &Write) -> Result<Vec<(PointName, Value, Publish, bool)>, String> {
        if self.ready.is_none() || self.link.is_ending() {
            return Err("the link to its broker is down".to_owned());
        }
        if self.link.distance() + write.values.len() > usize::from(self.of.link.window) {
            return Err("its broker has not acknowledged the commands before".to_owned());
        }
        let message = |(point, value): &(PointName, Value)| {
            let writer = self.of.writers.get(point).ok_or_else(|| format!("`{point}` has no `set`"))?;
            let payload = Bytes::from(writer.payload.render(value)?);
            let topic = writer.topic.clone();
            let publish = Publish { topic, payload, retain: false, content: Content::Text, correlation: None };
            Ok((point.clone(), value.clone(), publish, writer.confirms))
        };
        write.values.iter().map(message).collect()
    }

    /// The command may be done by now.
    async fn look(&mut self, io: &mut DeviceIo) {
        if let Some(values) = self.deed.as_ref().and_then(|deed| deed.done(io)) {
            self.end(io, Ok(values)).await;
        }
    }

    async fn end(&mut self, io: &mut DeviceIo, result: Result<Vec<(PointName, Value)>, WriteError>) {
        if let Some(deed) = self.deed.take() {
            io.answer(deed.write, result).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_topics_is_bounded() {
        let mut known = Known::default();
        for n in 0..2 * MAX_KNOWN {
            assert!(known.is_news(&n.to_string(), b"1"));
            assert!(!known.is_news(&n.to_string(), b"1"), "the newest one is known");
            assert!(known.0.len() <= MAX_KNOWN);
        }
        assert_eq!(known.0.len(), MAX_KNOWN, "one goes for one that comes");
        assert!(known.is_news("x", b"1") && known.is_news("x", b"2"));
    }
}
