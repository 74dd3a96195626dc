//! The words of the gateway, as values: what a device, a point, a reading, a command is.
//!
//! Everything that travels on a channel between two rooms is one of these. The module does no I/O and knows no
//! runtime; the one clock it reads is in [`time`]. Nothing here fails but parsing, which happens once, where a value
//! enters the gateway.

mod bucket;
mod by_key;
mod codec;
mod command;
pub mod event;
mod names;
mod point;
mod reading;
mod record;
mod state;
pub mod time;
mod units;
mod value;

pub use bucket::Bucket;
pub use by_key::{Keys, NO_CHOICE, cut};
pub use codec::NotABody;
pub use command::{Answer, Command, CommandId, Outcome, Reason, ReplyTo, Takeover, Verdict, Write, WriteError};
pub use names::{DeviceName, GatewayId, MAX_NAME, NameError, PointName, RESERVED_NAMES};
pub use point::{Declaration, Fault, Point, PointKey};
pub use reading::{Arrival, Cause, Limit, Quality, Reading};
pub use record::{Body, Gap, GapCause, GapRange, Lane, Number, Record};
pub use state::{DeviceState, DeviceStates, Problem, Problems};
pub use time::{BootId, Timestamp};
pub use units::{Rate, Size, Span};
pub use value::{Value, ValueType, WrongType};
