//! What goes into a link and what comes out of it, as values.

use std::time::Duration;

use bytes::Bytes;

use super::secret::SecretError;
use super::tickets::Ticket;
use super::wire::WireError;

/// What a connection begins with.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The MQTT client id.
    pub client_id: String,
    /// The Last Will, retained at QoS 1; `None` for a connection that is nobody's presence.
    pub will: Option<(String, Bytes)>,
    /// What the broker keeps for this client id.
    pub session: Session,
}

/// What the broker keeps of a connection that ended, by its client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// Nothing, and what it kept before goes.
    Clean,
    /// The subscriptions, and what was sent to them at QoS 1 and not acknowledged, for [`KEPT`] (MQTT 5; a 3.1.1
    /// broker has a time of its own).
    Kept,
}

/// How long a session is kept: a board that was away for longer finds what is new.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 3600);

/// A message to be published at QoS 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Publish {
    /// A topic without wildcards.
    pub topic: String,
    /// The payload.
    pub payload: Bytes,
    /// Whether the broker keeps it for newcomers.
    pub retain: bool,
    /// What the payload is (MQTT 5 only; dropped on 3.1.1).
    pub content: Content,
    /// Correlation Data (MQTT 5 only; dropped on 3.1.1).
    pub correlation: Option<Bytes>,
}

/// What a payload is, for who can't know (MQTT 5, sections 3.3.2.3.2 and 3.3.2.3.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// JSON (RFC 8259).
    Json,
    /// A bare value or word.
    Text,
    /// CBOR (RFC 8949).
    Cbor,
    /// XML 1.0.
    Xml,
    /// Whatever a device makes of it.
    Bytes,
}

impl Content {
    /// The Content Type: a MIME type.
    pub fn mime(self) -> &'static str {
        match self {
            Content::Json => "application/json",
            Content::Text => "text/plain",
            Content::Cbor => "application/cbor",
            Content::Xml => "application/xml",
            Content::Bytes => "application/octet-stream",
        }
    }

    /// The Payload Format Indicator: whether it is UTF-8.
    pub fn is_text(self) -> bool {
        !matches!(self, Content::Cbor | Content::Bytes)
    }
}

/// A subscription at QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// A topic filter.
    pub path: String,
    /// Whether the broker's stored messages are wanted at the subscription (MQTT 5; 3.1.1 always sends them).
    pub retained: bool,
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Whether the broker had it stored.
    pub retain: bool,
    /// MQTT 5's Response Topic.
    pub response_topic: Option<String>,
    /// MQTT 5's Correlation Data.
    pub correlation: Option<Bytes>,
    /// MQTT 5's Message Expiry Interval, what is left of it.
    pub expiry: Option<Duration>,
    /// The packet id to acknowledge; 0 at QoS 0.
    pub(super) packet_id: u16,
}

#[cfg(test)]
impl Message {
    /// A message as it would have arrived.
    pub(crate) fn received(topic: &str, payload: Bytes, retain: bool) -> Self {
        let topic = topic.to_owned();
        Message { topic, payload, retain, response_topic: None, correlation: None, expiry: None, packet_id: 1 }
    }
}

/// What the broker allows on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Publishes that may wait for their acknowledgement (MQTT 5's Receive Maximum).
    pub receive_maximum: u16,
    /// The largest packet it takes, in bytes (MQTT 5's Maximum Packet Size).
    pub packet_size: Option<u32>,
}

/// What happened on a link.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The broker accepted the connection.
    Up(Limits),
    /// It answered the subscription: for each filter, in order, whether it was granted.
    Subscribed(Vec<bool>),
    /// It acknowledged a publish; an error is its reason (MQTT 5).
    Acked(Ticket, Result<(), Refusal>),
    /// A message came.
    Message(Message),
    /// Any other sign of life of the broker.
    Alive,
    /// Our DISCONNECT was written: the link may be dropped now.
    Parted,
}

/// Why a broker did not take a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It may take it later: quota exceeded, packet id in use.
    Later(&'static str),
    /// It never will.
    Never(&'static str),
}

/// Why a link ended, or never came up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A secret or a certificate can't be used.
    #[error("{0}")]
    Config(String),
    /// No connection.
    #[error("{0}")]
    Connect(String),
    /// The other side is not who it should be, or does not take us for whom we are.
    #[error("{0}")]
    Tls(String),
    /// The broker refused the client id or the credentials.
    #[error("the broker refused the connection: {0}")]
    Refused(String),
    /// The broker closed the connection.
    #[error("the broker closed the connection: {0}")]
    Closed(String),
    /// The broker was silent for too long.
    #[error("{0}")]
    Silent(String),
    /// Somebody does not speak MQTT.
    #[error("protocol error: {0}")]
    Protocol(String),
}

impl LinkError {
    /// A short word for it.
    pub fn code(&self) -> &'static str {
        match self {
            LinkError::Config(_) => "config",
            LinkError::Connect(_) => "connect",
            LinkError::Tls(_) => "tls",
            LinkError::Refused(_) => "refused",
            LinkError::Closed(_) => "closed",
            LinkError::Silent(_) => "silent",
            LinkError::Protocol(_) => "protocol",
        }
    }

    /// Whether trying again soon is no use: a person must mend it.
    pub fn needs_a_person(&self) -> bool {
        matches!(self, LinkError::Refused(_))
    }
}

impl From<SecretError> for LinkError {
    fn from(error: SecretError) -> Self {
        LinkError::Config(error.to_string())
    }
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Files(text) => LinkError::Config(text),
            WireError::Connect(text) => LinkError::Connect(text),
            WireError::Tls(text) => LinkError::Tls(text),
            WireError::Closed(text) => LinkError::Closed(text),
            WireError::Silent(text) => LinkError::Silent(text),
            WireError::Protocol(text) => LinkError::Protocol(text),
        }
    }
}
