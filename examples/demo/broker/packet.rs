//! MQTT's packets as values, 3.1.1 and 5, as far as the broker speaks them: QoS 0 and 1, no sessions that outlive
//! their connection, no topic aliases. Properties of a publish are passed on as they came.

use bytes::Bytes;

/// The version of the protocol that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1.
    V4,
    /// 5.
    V5,
}

/// Reason codes of MQTT 5 (section 2.4) that the broker uses.
pub(crate) mod reason {
    /// All is well.
    pub(crate) const SUCCESS: u8 = 0x00;
    /// A client says farewell and wants its will published all the same.
    pub(crate) const DISCONNECT_WITH_WILL: u8 = 0x04;
    /// A subscription is refused, in either version (MQTT 3.1.1, section 3.9.3; MQTT 5.0, table 3-8).
    pub(crate) const SUBSCRIPTION_FAILED: u8 = 0x80;
    /// Whoever it is may not do this.
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    /// Another connection came under the same client id.
    pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8e;
    /// More publishes at a time than were allowed.
    pub(crate) const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    /// Too much at the moment; later perhaps.
    pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
    /// The payload is not what it should be.
    pub(crate) const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// The first packet.
    Connect(Connect),
    /// A message.
    Publish(Publish),
    /// It has the message of this packet id.
    PubAck(u16),
    /// It wants messages.
    Subscribe(u16, Vec<Filter>),
    /// It wants them no longer.
    Unsubscribe(u16, Vec<String>),
    /// It lives.
    Ping,
    /// Farewell; whether the will is to be published all the same.
    Disconnect(bool),
}

/// What the broker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Welcome. The limits are told with MQTT 5 only.
    ConnAck(Limits),
    /// A message.
    Publish(Publish),
    /// The broker has the message of this packet id, or refuses it for a reason (MQTT 5 only).
    PubAck(u16, u8),
    /// The granted QoS of each filter.
    SubAck(u16, Vec<u8>),
    /// So many filters are gone.
    UnsubAck(u16, usize),
    /// The broker lives too.
    Pong,
    /// Farewell, for a reason (MQTT 5 only).
    Disconnect(u8),
}

/// What the broker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    /// Publishes that may wait for their acknowledgement.
    pub(crate) receive_maximum: Option<u16>,
    /// The largest packet in bytes.
    pub(crate) packet_size: Option<u32>,
}

/// A client introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connect {
    /// The protocol it speaks from now on.
    pub(crate) version: Version,
    /// Its name; empty where the broker is to choose one.
    pub(crate) client_id: String,
    /// What to publish when it goes without a farewell.
    pub(crate) will: Option<Publish>,
    /// Publishes that it takes at a time.
    pub(crate) receive_maximum: u16,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Its topic.
    pub(crate) topic: String,
    /// Its payload.
    pub(crate) payload: Bytes,
    /// 0 or 1.
    pub(crate) qos: u8,
    /// Whether it is to be kept, or was.
    pub(crate) retain: bool,
    /// Whether it was sent before.
    pub(crate) dup: bool,
    /// What its acknowledgement names; 0 at QoS 0.
    pub(crate) packet_id: u16,
    /// The properties of MQTT 5 without their length, not looked into.
    pub(crate) properties: Bytes,
}

impl Publish {
    /// A message of the broker's own.
    pub(crate) fn new(topic: &str, payload: impl Into<Bytes>) -> Self {
        let (topic, payload) = (topic.to_owned(), payload.into());
        Publish { topic, payload, qos: 1, retain: false, dup: false, packet_id: 0, properties: Bytes::new() }
    }
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Topics, with wildcards.
    pub(crate) path: String,
    /// The highest QoS that is wanted; 2 is granted as 1.
    pub(crate) qos: u8,
    /// Not what the client said itself (MQTT 5).
    pub(crate) no_local: bool,
    /// Whether live messages keep their retain flag (MQTT 5).
    pub(crate) retain_as_published: bool,
    /// When kept messages are wanted.
    pub(crate) retained: Retained,
}

/// When a subscriber wants what the broker kept (MQTT 5's retain handling).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retained {
    /// At each subscription.
    Always,
    /// Unless it had this subscription before.
    IfNew,
    /// Never.
    Never,
}

impl Filter {
    /// Whether a topic is among what is wanted (MQTT 5.0, section 4.7).
    pub(crate) fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.path.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in self.path.split('/') {
            match (wanted, levels.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (wanted, Some(level)) if wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}
