//! Commands, what a device is asked to do, and what became of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::{Cause, DeviceName, PointName, Timestamp, Value, time};

/// A command's id: the sender's own, or one the gateway made for a bare value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct CommandId(Arc<str>);

impl CommandId {
    /// Long enough for a UUID with a prefix; an id is remembered, so it is bounded.
    pub const MAX: usize = 64;

    /// The id, where it is 1 to 64 printable characters.
    pub fn new(text: &str) -> Option<Self> {
        ((1..=Self::MAX).contains(&text.len()) && !text.chars().any(char::is_control)).then(|| Self(Arc::from(text)))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What came south, before it was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The sender's id; `None` for a bare value, or where the id could not be read.
    pub id: Option<CommandId>,
    /// The device it is for, as the topic names it.
    pub device: String,
    /// The point that the topic names; `None` for a command to several points of the device.
    pub point: Option<String>,
    /// The values asked for, or why the payload could not be read.
    pub values: Result<Vec<(String, Value)>, String>,
    /// When it arrived.
    pub arrived: Timestamp,
    /// When the sender says it was sent, since 1970.
    pub sent: Option<Duration>,
    /// When it ends to be valid, since 1970.
    pub expires: Option<Duration>,
    /// How long it is valid after its arrival: the payload's `ttl`, or MQTT 5's message expiry interval.
    pub ttl: Option<Duration>,
    /// How long the output keeps the value before it returns to its safe one (`for`).
    pub lease: Option<Duration>,
    /// Whether the broker had it stored. Such a command is never acted on.
    pub retained: bool,
    /// Where the sender wants the outcome as well (MQTT 5).
    pub reply: Option<ReplyTo>,
}

/// MQTT 5's Response Topic and Correlation Data (MQTT 5.0, section 4.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyTo {
    /// Where to.
    pub topic: Arc<str>,
    /// Handed back as it came.
    pub correlation: Option<Arc<[u8]>>,
}

/// What a device is asked to do, after the command was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// Names this request in its answers.
    pub ticket: u32,
    /// Why the outputs are to change: the command, or the rule, behind it.
    pub cause: Cause,
    /// Points and their values, in the points' own units and types.
    pub values: Vec<(PointName, Value)>,
    /// Not to be begun after this, by `CLOCK_BOOTTIME`.
    pub deadline: Duration,
    /// What the device has to act, from when it begins.
    pub timeout: Duration,
}

/// What a device says of its outputs. Exactly one `Ended` follows each [`Write`], unless the driver was lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The device was opened, and its outputs are so. An output that is not named can't be asked.
    Opened {
        /// Which device.
        device: DeviceName,
        /// Its outputs.
        outputs: Vec<(PointName, Value)>,
    },
    /// The device sleeps between what it says, and listens until then, by `CLOCK_BOOTTIME`.
    Awake {
        /// Which device.
        device: DeviceName,
        /// Until when; what has passed means that it sleeps.
        until: Duration,
    },
    /// From here on the write may have had its effect.
    Began {
        /// Which one.
        ticket: u32,
    },
    /// The write is over.
    Ended {
        /// Which one.
        ticket: u32,
        /// The values as read back, or as written where the device can't be asked; or what went wrong.
        result: Result<Vec<(PointName, Value)>, WriteError>,
    },
}

/// Why a device did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The deadline had passed before the write began; nothing was touched.
    #[error("the device was busy until the command's time was over")]
    Expired,
    /// The write did not take place.
    #[error("{0}")]
    Failed(String),
    /// It began, and nobody knows how it ended.
    #[error("{0}")]
    Unknown(String),
}

/// How this process takes over the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// The one before came to a clean stop in the same boot: outputs keep their values.
    Keep,
    /// The first of a boot, or after a crash, a kill or a hang: outputs go to their safe values before anything else.
    Safe,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The command's id.
    pub id: CommandId,
    /// Its device, as the topic named it.
    pub device: String,
    /// Its point; `None` for a command to several points.
    pub point: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, in a sentence for a person.
    pub text: Option<String>,
    /// The values after the command.
    pub values: Vec<(PointName, Value)>,
    /// When it was decided.
    pub timestamp: Timestamp,
    /// Where the sender wants it as well.
    pub reply: Option<ReplyTo>,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The device did it.
    Done,
    /// It was not tried, for this reason.
    Rejected(Reason),
    /// Its time was over before the device could begin.
    Expired,
    /// The device could not do it; nothing changed.
    Failed,
    /// It was begun and nobody knows how it ended.
    Unknown,
}

impl Outcome {
    /// The outcome of a command that reached no device. A command without an id of its own is answered as `-`.
    pub fn of(command: &Command, verdict: Verdict, text: Option<String>) -> Self {
        Outcome {
            id: command.id.clone().unwrap_or_else(|| CommandId(Arc::from("-"))),
            device: command.device.clone(),
            point: command.point.clone(),
            verdict,
            text,
            values: Vec::new(),
            timestamp: time::now(),
            reply: command.reply.clone(),
        }
    }
}

impl Verdict {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Done => "done",
            Verdict::Rejected(_) => "rejected",
            Verdict::Expired => "expired",
            Verdict::Failed => "failed",
            Verdict::Unknown => "unknown",
        }
    }
}

/// Why a command was rejected: the closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The broker had it stored.
    Retained,
    /// Too old, or its expiry has passed.
    Stale,
    /// It must be judged by the wall clock, which is not set.
    Clock,
    /// There is no such point.
    Unknown,
    /// The point can't be written.
    ReadOnly,
    /// The value, or the payload, is not of the point's type.
    Type,
    /// The value, or a time in it, is outside its range.
    Range,
    /// The device has as many commands waiting as it may.
    Busy,
    /// The device does not answer.
    Offline,
    /// The gateway is about to stop.
    Stopping,
    /// The journal can't be written.
    Storage,
    /// As many commands are open or remembered as there may be.
    Full,
    /// More commands for the point than its `rate` allows.
    Rate,
    /// Another output of its group is on.
    Interlock,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 14] = [
        Reason::Retained,
        Reason::Stale,
        Reason::Clock,
        Reason::Unknown,
        Reason::ReadOnly,
        Reason::Type,
        Reason::Range,
        Reason::Busy,
        Reason::Offline,
        Reason::Stopping,
        Reason::Storage,
        Reason::Full,
        Reason::Rate,
        Reason::Interlock,
    ];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Retained => "retained",
            Reason::Stale => "stale",
            Reason::Clock => "clock",
            Reason::Unknown => "unknown",
            Reason::ReadOnly => "read-only",
            Reason::Type => "type",
            Reason::Range => "range",
            Reason::Busy => "busy",
            Reason::Offline => "offline",
            Reason::Stopping => "stopping",
            Reason::Storage => "storage",
            Reason::Full => "full",
            Reason::Rate => "rate",
            Reason::Interlock => "interlock",
        }
    }
}
