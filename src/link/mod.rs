//! One MQTT connection, from its config to its end.
//!
//! A [`Link`] lives for one connection and is never mended: on any error it is dropped whole, and the caller opens a
//! new one after a pause ([`Backoff`]). rumqttc is used as a packet pump only; its own reconnection and retransmission
//! lose messages, so nothing in here outlives a connection and the caller owns what is to be sent again.
//!
//! What belongs to the scheme, each for a reason that was measured:
//! - Publishes carry no token in rumqttc, but its request channel is first in, first out: the n-th publish handed over
//!   is the n-th `Outgoing::Publish`, and its packet id leads to the acknowledgement ([`tickets`]).
//! - `poll()` is not cancel-safe. It runs inside a future that owns the event loop and is kept until it is done.
//! - After an error the events that were parsed before it still stand in the event loop; they are taken out first.
//! - rumqttc's own gate never closes: its channel and its in-flight limit are larger than the window the caller keeps.
//! - The wire is ours: rumqttc speaks plain MQTT into a socket of this process, and a relay owns everything below
//!   ([`wire`]). It also notices a silent broker.
//!
//! Knows neither topics nor payloads of the gateway. May touch sockets and certificate files.

mod adapter;
mod backoff;
mod config;
mod event;
mod files;
mod proxy;
mod secret;
mod tickets;
mod url;
mod wire;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::task::Owned;
use adapter::{Client, Polling, Signal};
pub use backoff::Backoff;
pub use config::{Config, Header, Tls, Version, WebSocket};
pub use event::{Content, Event, Filter, Limits, LinkError, Message, Opening, Publish, Refusal, Session};
pub use files::Files;
pub use proxy::Proxy;
pub use secret::{Secret, SecretError, SecretText};
pub use tickets::Ticket;
use tickets::Tickets;
pub use url::{OneOrMany, Scheme, Url};
use wire::WireError;
pub use wire::{Identity, Traffic};

/// Publishes beside the window that rumqttc must be able to take: acknowledgements, subscriptions, the farewell.
const SPARE: u16 = 16;

/// Of [`SPARE`], acknowledgements: more wait here. The rest stays free for a subscription and the farewell.
const ACKS: usize = 12;

/// A packet that is larger, in bytes, comes cut short: no command is near it, and the `info` of a gateway with thousands
/// of points is below.
pub const MAX_INCOMING: usize = 256 * 1024;

/// What is larger than [`MAX_INCOMING`] comes with so many NUL bytes for its payload: longer than any command may be, and
/// nothing that anybody takes for JSON or a word.
pub const CUT: usize = 16 * 1024;

/// What stays from one link to the next: the read certificates, for as long as their files do not change, and the
/// counters of bytes.
#[derive(Debug, Default)]
pub struct Kept {
    identity: Option<Arc<Identity>>,
    /// Bytes on the wire, over all links.
    pub traffic: Arc<Traffic>,
    /// Which of the URLs is tried next.
    next_url: usize,
}

impl Kept {
    /// The certificates in use; `None` without TLS or before the first link.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// The next link has another config: nothing of the links before it counts but the bytes.
    pub fn renew(&mut self) {
        self.identity = None;
        self.next_url = 0;
    }

    /// The URL of this link works: the next link tries it first.
    pub fn url_works(&mut self) {
        self.next_url = self.next_url.wrapping_sub(1);
    }
}

/// One MQTT connection.
pub struct Link {
    client: Client,
    poll: Option<Polling>,
    signals: VecDeque<Signal>,
    failed: Option<String>,
    tickets: Tickets,
    /// Messages taken over whose acknowledgement waits for a place at rumqttc: at most as many as the broker has
    /// under way to us, each of which has a packet id of its own.
    acks: VecDeque<u16>,
    /// Acknowledgements that rumqttc has and has not sent yet.
    acks_handed: usize,
    /// The relay; `None` once its end has been told.
    wire: Option<Owned<Result<(), WireError>>>,
    url: String,
    /// Ends a link on which rumqttc itself makes no progress, whatever the wire thinks.
    watchdog: Pin<Box<Sleep>>,
    patience: Duration,
    progress: Instant,
}

impl Link {
    /// Begins a connection. Options, credentials and certificates are read anew, so that what was changed on disk
    /// counts from the next connection on.
    ///
    /// # Errors
    /// When a secret or certificate can't be read. All else is told by [`Link::next`].
    pub fn open(config: &Config, opening: &Opening, kept: &mut Kept) -> Result<Self, LinkError> {
        let urls = &config.url.0;
        let url = urls.get(kept.next_url % urls.len().max(1)).cloned();
        let url = url.ok_or_else(|| LinkError::Config("no broker is configured".to_owned()))?;
        kept.next_url = kept.next_url.wrapping_add(1);
        let password = config.password.as_ref().map(Secret::read).transpose()?;
        kept.identity = match url.scheme {
            Scheme::Mqtt | Scheme::Ws => None,
            Scheme::Mqtts | Scheme::Wss => {
                let tls = config.tls.clone().unwrap_or_default();
                Some(Identity::current(&tls, kept.identity.take()).map_err(LinkError::from)?)
            }
        };
        // Room for a keep-alive that is lost and its successor, and for a write that hangs.
        let patience = config.keep_alive.0 * 2 + config.connect_timeout.0;
        let silence = config.keep_alive.0 + config.keep_alive.0 / 2;
        let via = proxy::to(&url, config.proxy.as_ref())?;
        let headers = config.headers(&url)?;
        let (socket, wire) = wire::open(wire::Route {
            url: url.clone(),
            via,
            headers,
            identity: kept.identity.clone(),
            server_name: config.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            connect_timeout: config.connect_timeout.0,
            silence,
            version: config.version,
            traffic: Arc::clone(&kept.traffic),
        })
        .map_err(LinkError::from)?;
        let capacity = config.window.saturating_add(SPARE);
        let login = config
            .username
            .clone()
            .map(|user| (user, password.map(|text| text.reveal().to_owned()).unwrap_or_default()));
        let (client, poll) = adapter::open(config, opening, &socket, capacity, login);
        let now = Instant::now();
        Ok(Link {
            client,
            poll: Some(poll),
            signals: VecDeque::new(),
            failed: None,
            tickets: Tickets::default(),
            acks: VecDeque::new(),
            acks_handed: 0,
            wire: Some(wire),
            url: url.to_string(),
            watchdog: Box::pin(tokio::time::sleep_until(now + patience)),
            patience,
            progress: now,
        })
    }

    /// Where it leads to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the link has ended already, although what came before its end is still to be told: nothing that is
    /// handed over now would leave.
    pub fn is_ending(&self) -> bool {
        self.poll.is_none()
    }

    /// Publishes at QoS 1. The caller keeps [`Link::distance`] within the window, and looks at [`Link::is_ending`].
    ///
    /// # Errors
    /// When more is handed over than the window allows, or the link is ending: the message, back.
    pub fn publish(&mut self, publish: Publish) -> Result<Ticket, Publish> {
        self.client.publish(publish, None)?;
        Ok(self.tickets.hand_over())
    }

    /// The same, of what is worth nothing after so long: the broker then gives it to nobody any more (MQTT 5 only).
    ///
    /// # Errors
    /// As of [`Link::publish`].
    pub fn publish_until(&mut self, publish: Publish, left: Duration) -> Result<Ticket, Publish> {
        self.client.publish(publish, Some(left))?;
        Ok(self.tickets.hand_over())
    }

    /// Subscribes; [`Event::Subscribed`] answers.
    pub fn subscribe(&mut self, filters: &[Filter]) {
        if !self.is_ending() {
            self.client.subscribe(filters);
        }
    }

    /// Acknowledges a message that has been taken over. One that got no acknowledgement would take a place at the
    /// broker for as long as the connection lasts, so it waits for its turn where many come at once.
    pub fn ack(&mut self, message: &Message) {
        if !self.is_ending() && message.packet_id != 0 {
            self.acks.push_back(message.packet_id);
            self.hand_acks();
        }
    }

    fn hand_acks(&mut self) {
        while self.acks_handed < ACKS
            && let Some(packet_id) = self.acks.pop_front()
        {
            self.acks_handed += 1;
            self.client.ack(packet_id);
        }
    }

    /// Says farewell; [`Event::Parted`] follows when it was written. Without it, the Last Will speaks.
    pub fn disconnect(&mut self) {
        if !self.is_ending() {
            self.client.disconnect();
        }
    }

    /// How far the newest publish is from the oldest one without an acknowledgement; 0 when there is none. Acks come
    /// out of order, and a packet id may be used again only when the oldest is through, so this and not their count
    /// is what the window bounds.
    pub fn distance(&self) -> usize {
        self.tickets.distance()
    }

    /// The next thing that happened. After an error the link is over. Cancel-safe.
    ///
    /// # Errors
    /// When the link is over, and why.
    pub async fn next(&mut self) -> Result<Event, LinkError> {
        loop {
            while let Some(signal) = self.signals.pop_front() {
                if let Some(event) = self.translate(signal)? {
                    return Ok(event);
                }
            }
            if let Some(text) = self.failed.take() {
                return Err(self.reason(text).await);
            }
            let Some(poll) = self.poll.as_mut() else {
                return Err(LinkError::Protocol("the link is over".to_owned()));
            };
            tokio::select! {
                turn = poll.as_mut() => {
                    self.progress = Instant::now();
                    self.signals = turn.signals;
                    self.failed = turn.failed;
                    self.poll = turn.event_loop.map(adapter::poll);
                }
                () = self.watchdog.as_mut() => {
                    let due = self.progress + self.patience;
                    if Instant::now() >= due {
                        return Err(LinkError::Silent(format!("nothing moved for {} s", self.patience.as_secs())));
                    }
                    self.watchdog.as_mut().reset(due);
                }
            }
        }
    }

    /// Lets the last bytes out, and closes. Without it what was written last may never leave; a DISCONNECT then, and
    /// the Last Will speaks.
    pub async fn close(mut self) {
        if let Some(error) = self.end_of_wire().await {
            tracing::debug!("while closing: {error}");
        }
    }

    /// Drops rumqttc's side, and waits for the relay's end: it has one packet in its hands at most, and a line that
    /// takes long for that is dead.
    async fn end_of_wire(&mut self) -> Option<LinkError> {
        const LAST_BYTES: Duration = Duration::from_secs(2);
        self.poll = None;
        let mut wire = self.wire.take()?;
        match tokio::time::timeout(LAST_BYTES, wire.ended()).await {
            Ok(Ok(Ok(()))) | Err(_) => None,
            Ok(Ok(Err(error))) => Some(LinkError::from(error)),
            Ok(Err(panic)) => Some(LinkError::Protocol(format!("the relay panicked: {panic}"))),
        }
    }

    fn translate(&mut self, signal: Signal) -> Result<Option<Event>, LinkError> {
        let stray = |id| LinkError::Protocol(format!("an acknowledgement for packet {id}, which nobody sent"));
        Ok(Some(match signal {
            Signal::Up(limits) => Event::Up(limits),
            Signal::Sent(packet_id) => {
                self.tickets.sent(packet_id).ok_or_else(|| stray(packet_id))?;
                return Ok(None);
            }
            Signal::Acked(packet_id, result) => {
                let ticket = self.tickets.acked(packet_id).ok_or_else(|| stray(packet_id))?;
                Event::Acked(ticket, result)
            }
            Signal::Subscribed(granted) => Event::Subscribed(granted),
            Signal::Message(message) => Event::Message(message),
            Signal::Alive => Event::Alive,
            Signal::Parted => Event::Parted,
            Signal::AckSent => {
                self.acks_handed = self.acks_handed.saturating_sub(1);
                self.hand_acks();
                return Ok(None);
            }
            Signal::Nothing => return Ok(None),
            Signal::Refused(text) => return Err(LinkError::Refused(text)),
            Signal::Closed(text) => return Err(LinkError::Closed(text)),
        }))
    }

    /// The wire knows better than rumqttc why a connection ended.
    async fn reason(&mut self, text: String) -> LinkError {
        self.end_of_wire().await.unwrap_or(LinkError::Protocol(text))
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("url", &self.url).field("tickets", &self.tickets).finish_non_exhaustive()
    }
}
