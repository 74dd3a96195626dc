//! The keys of a serial device and of its points.

use std::time::Duration;

use crate::device::decode::{Decode, From};
use crate::device::port::{self, FlowControl, Parity, Rs485, Settings};
use crate::model::{Fault, Keys, Span};

/// The keys of the device's table that are this kind's own.
#[derive(Debug)]
pub(super) struct Config {
    /// The port: best a stable name such as `/dev/serial/by-id/…`.
    pub port: String,
    /// Bits per second; any the hardware can do.
    pub baud_rate: u32,
    /// 5 to 8.
    pub data_bits: u8,
    /// `none`, `odd` or `even`.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// `none`, `software` (XON/XOFF) or `hardware` (RTS/CTS).
    pub flow_control: FlowControl,
    /// How the kernel switches the transceiver of an RS-485 line. Default: not at all.
    pub rs485: Option<Rs485>,
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
            port: keys.string("port").unwrap_or_default(),
            baud_rate: port::baud_rate(&mut keys).unwrap_or(9600),
            data_bits: port::bits(&mut keys, "data_bits").unwrap_or(8),
            parity: Parity::read(&mut keys).unwrap_or_default(),
            stop_bits: port::bits(&mut keys, "stop_bits").unwrap_or(1),
            flow_control: FlowControl::read(&mut keys).unwrap_or_default(),
            rs485: keys.inner("rs485", Rs485::read),
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

    /// The port, and how its line is set up.
    pub(super) fn settings(&self) -> Settings {
        Settings {
            port: self.port.clone(),
            baud_rate: self.baud_rate,
            data_bits: self.data_bits,
            parity: self.parity,
            stop_bits: self.stop_bits,
            flow_control: self.flow_control,
            rs485: self.rs485,
        }
    }

    /// What the types can't say.
    pub(super) fn check(&self) -> Vec<Fault> {
        let mut faults = self.settings().check();
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

    /// How long one character takes on the line.
    pub(super) fn character(&self) -> Duration {
        // Start bit, and parity bit.
        let bits = 1 + u32::from(self.data_bits) + u32::from(self.parity != Parity::None) + u32::from(self.stop_bits);
        Duration::from_secs(1) * bits / self.baud_rate.max(1)
    }
}

/// The gateway can't do anything else with the device meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
