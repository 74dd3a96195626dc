//! Records: readings and outcomes in a lane, under their numbers; and gaps, the statements that numbers were lost.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeviceName, Outcome, PointName, Reading, Timestamp};

/// A class of messages, with its own order, bound and policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// What must wake somebody. Goes first.
    Alarm,
    /// What became of commands.
    Outcome,
    /// All other readings.
    Telemetry,
}

impl Lane {
    /// All lanes, in the order in which they go out.
    pub const ALL: [Lane; 3] = [Lane::Alarm, Lane::Outcome, Lane::Telemetry];

    /// Its place in [`Lane::ALL`].
    pub fn index(self) -> usize {
        match self {
            Lane::Alarm => 0,
            Lane::Outcome => 1,
            Lane::Telemetry => 2,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Alarm => "alarm",
            Lane::Outcome => "outcome",
            Lane::Telemetry => "telemetry",
        })
    }
}

/// The number of a record within its lane. Later records have greater numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Number {
    /// Which start of the gateway: start counter × 65 536 + 16 random bits, so that it neither steps back nor repeats
    /// when a card is wiped or cloned.
    pub epoch: u64,
    /// Counts from 1 within the epoch and lane.
    pub seq: u64,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.epoch, self.seq)
    }
}

/// What a record carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// The value of a point.
    Reading(Reading),
    /// What became of a command.
    Outcome(Outcome),
}

/// A reading or an outcome under its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Where it waits.
    pub lane: Lane,
    /// Its number there.
    pub number: Number,
    /// Whether it belongs to the backlog of this connection: it was numbered before the gateway was subscribed.
    pub late: bool,
    /// What it carries.
    pub body: Body,
}

/// The statement that something was lost, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// Its own number; each counts once, however often it arrives.
    pub n: u64,
    /// Why.
    pub cause: GapCause,
    /// What.
    pub range: GapRange,
    /// When the first of it was lost.
    pub since: Timestamp,
}

/// What a gap says is lost.
#[derive(Debug, Clone, PartialEq)]
pub enum GapRange {
    /// Of the numbers `from..=to` in the lane, `count` ended without an acknowledgement.
    Numbers {
        /// The lane.
        lane: Lane,
        /// The epoch of the numbers.
        epoch: u64,
        /// The first.
        from: u64,
        /// The last; `None`: all that never came.
        to: Option<u64>,
        /// How many of them; `None`: not known.
        count: Option<u64>,
    },
    /// Lost before they had numbers, at the device.
    Device {
        /// The device.
        device: DeviceName,
        /// Its point, where it is one point's loss.
        point: Option<PointName>,
        /// How many.
        count: u64,
    },
}

/// How numbers end without being published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GapCause {
    /// The lane's `max_bytes` was reached.
    Bytes,
    /// Older than the lane's `max_age`.
    Age,
    /// `max_memory` was reached.
    Memory,
    /// The flash was full, or would not take it.
    Disk,
    /// It could not be read back from the flash.
    Damaged,
    /// The broker, or its packet size, would not have it.
    Refused,
    /// The gateway ended without a clean stop, or before the record could be kept.
    Stop,
    /// The device had more than the gateway could take.
    Overflow,
}

impl fmt::Display for GapCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GapCause::Bytes => "bytes",
            GapCause::Age => "age",
            GapCause::Memory => "memory",
            GapCause::Disk => "disk",
            GapCause::Damaged => "damaged",
            GapCause::Refused => "refused",
            GapCause::Stop => "stop",
            GapCause::Overflow => "overflow",
        })
    }
}
