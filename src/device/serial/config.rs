//! The keys of a serial device and of its points.

use std::time::Duration;

use crate::device::decode::{Decode, From};
use crate::device::port::{Parity, Settings};
use crate::model::{Fault, Keys, Span};

/// The keys of the device's table that are this kind's own.
#[derive(Debug)]
pub(super) struct Config {
    /// The port, and how its line is set up: `port`, `baud_rate` (9600), `data_bits` (8), `parity` (`none`), `stop_bits` (1),
    /// `flow_control` (`none`), `rs485` (none).
    pub line: Settings,
    /// How a frame is read.
    pub decode: Decode,
    /// Drop the first frame after the port was opened: it may be the rest of one. `21.5` without its first digit is a
    /// number too.
    pub skip_first: bool,
    /// Without a valid frame for this long, the device counts as lost. Default: it may be silent.
    pub silence: Option<Span>,
    /// The line is left alone for this long before anything is sent to it.
    pub pause: Span,
    /// What is sent comes back, as on a line of two wires, and is no answer.
    pub echo: bool,
    /// So many polls in a row without an answer: the device counts as lost, and is asked on.
    pub offline_after: u32,
}

/// The keys of a point's table that are this kind's own.
#[derive(Debug)]
pub(super) struct PointConfig {
    /// Where in a frame the value stands: a JSON pointer, a column, a key, a capture, a field.
    pub from: Option<From>,
    /// Only answers to the poll of this name have it.
    pub poll: Option<String>,
    /// What is sent to set the point: `{value}` stands for the raw value, `{bytes}` for the bytes that it is in hexadecimal.
    pub write: Option<String>,
}

/// The keys of the device's table. Those of `frame`, `check` and `poll` are read where they are used.
pub(super) const DEVICE_KEYS: &[&str] = &[
    "baud_rate",
    "check",
    "data_bits",
    "decode",
    "echo",
    "flow_control",
    "frame",
    "offline_after",
    "parity",
    "pause",
    "poll",
    "port",
    "rs485",
    "silence",
    "skip_first",
    "stop_bits",
];

/// The keys of a point's table. `when`: only frames with these bytes have it; `reply`, `refusal`: the frames by which the device says
/// that it did what was written, or not.
pub(super) const POINT_KEYS: &[&str] = &["from", "poll", "refusal", "reply", "when", "write"];

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let read = PointConfig { from: From::read(&mut keys), poll: keys.string("poll"), write: keys.string("write") };
        let faults = keys.faults();
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }
}

impl Config {
    /// Reads the device's table, whose other keys others read.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("port");
        let read = Config {
            line: Settings::plain(9600, Parity::None).read(&mut keys).read_flow_control(&mut keys),
            decode: keys.inner("decode", Decode::read).unwrap_or(Decode::Text {}),
            skip_first: keys.flag("skip_first").unwrap_or_default(),
            silence: keys.time("silence"),
            pause: keys.time("pause").unwrap_or_default(),
            echo: keys.flag("echo").unwrap_or_default(),
            offline_after: keys.unsigned("offline_after").unwrap_or(3),
        };
        let faults = keys.faults();
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }

    /// What the types can't say.
    pub(super) fn check(&self) -> Vec<Fault> {
        let mut faults = self.line.check();
        let mut wrong = |path: &str, text: String| faults.push(Fault::at(path, text));
        if self.silence.is_some_and(|silence| silence.0.is_zero()) {
            wrong("silence", "expected a time above 0".to_owned());
        }
        if self.pause.0 > LONGEST_PAUSE {
            wrong("pause", "expected at most \"10s\"".to_owned());
        }
        if self.offline_after == 0 {
            wrong("offline_after", "expected at least 1 poll".to_owned());
        }
        faults.extend(self.decode.check());
        faults
    }
}

/// The gateway can't do anything else with the device meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
