//! Readings: what came from a device.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{CommandId, DeviceName, Outcome, PointKey, PointName, Timestamp, Value};

/// The value of a point at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Where it comes from.
    pub device: DeviceName,
    /// Which of its points.
    pub point: PointName,
    /// When the value was taken.
    pub timestamp: Timestamp,
    /// The value in the point's unit; `None` where the device gave nothing that can be one.
    pub value: Option<Value>,
    /// The unit of the value, as it was declared when the value was taken.
    pub unit: Option<Arc<str>>,
    /// Whether the value can be believed.
    pub quality: Quality,
    /// Why an output changed, or which limit the value passed; `None` for everything else.
    pub cause: Option<Cause>,
}

impl Reading {
    /// Device and point.
    pub fn key(&self) -> PointKey {
        PointKey(self.device.clone(), self.point.clone())
    }
}

/// What is handed to the queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival {
    /// A reading.
    Reading(Reading),
    /// What became of a command.
    Outcome(Outcome),
    /// The statement that the device had readings which nobody took in time.
    Lost {
        /// The device.
        device: DeviceName,
        /// Its point, where it is one point's loss.
        point: Option<PointName>,
        /// How many.
        count: u64,
    },
}

/// Whether a value can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// It is as the device gave it, and within its limits.
    Good,
    /// The device has not confirmed it for longer than it should.
    Stale,
    /// Outside its limits, of another type than declared, or not a value at all.
    Bad,
}

/// Why a reading was made that is more than the next value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A command did it.
    Command(CommandId),
    /// The time of a command's `for`, or of the point's `pulse`, was over.
    Lease,
    /// It had been on for as long as it may.
    MaxOn,
    /// Another output of its group was switched on.
    Interlock,
    /// The link to the broker was away for too long.
    Link,
    /// The gateway started.
    Start,
    /// The gateway stopped.
    Stop,
    /// No output: the value passed a limit of its point.
    Limit(Limit),
}

/// Where a value is to the limits of its point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Limit {
    /// Between them.
    #[default]
    Normal,
    /// At the upper one or above.
    High,
    /// At the lower one or below.
    Low,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Command(id) => write!(f, "command:{id}"),
            Cause::Lease => f.write_str("lease"),
            Cause::MaxOn => f.write_str("max_on"),
            Cause::Interlock => f.write_str("interlock"),
            Cause::Link => f.write_str("link"),
            Cause::Start => f.write_str("start"),
            Cause::Stop => f.write_str("stop"),
            Cause::Limit(Limit::Normal) => f.write_str("normal"),
            Cause::Limit(Limit::High) => f.write_str("high"),
            Cause::Limit(Limit::Low) => f.write_str("low"),
        }
    }
}
