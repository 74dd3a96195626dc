//! The keys of a serial device and of its points.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::device::decode::{Decode, From};
use crate::device::port::{FlowControl, Parity, Rs485, Settings};
use crate::model::{Fault, Span};

/// The keys of the device's table that are this kind's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The port: best a stable name such as `/dev/serial/by-id/…`.
    pub port: String,
    /// Bits per second; any the hardware can do.
    #[serde(default = "default_baud_rate")]
    pub baud_rate: u32,
    /// 5 to 8.
    #[serde(default = "default_data_bits")]
    pub data_bits: u8,
    /// `none`, `odd` or `even`.
    #[serde(default)]
    pub parity: Parity,
    /// 1 or 2.
    #[serde(default = "default_stop_bits")]
    pub stop_bits: u8,
    /// `none`, `software` (XON/XOFF) or `hardware` (RTS/CTS).
    #[serde(default)]
    pub flow_control: FlowControl,
    /// How the kernel switches the transceiver of an RS-485 line. Default: not at all.
    pub rs485: Option<Rs485>,
    /// Where one message of the device ends.
    #[serde(default)]
    #[expect(dead_code, reason = "a key; its table is read by hand")]
    pub frame: IgnoredAny,
    /// What tells a frame that came whole.
    #[expect(dead_code, reason = "a key; its table is read by hand")]
    pub check: Option<IgnoredAny>,
    /// How a frame is read.
    #[serde(default = "whole")]
    pub decode: Decode,
    /// Drop the first frame after the port was opened: it may be the rest of one. `21.5` without its first digit is a
    /// number too.
    #[serde(default)]
    pub skip_first: bool,
    /// Without a valid frame for this long, the device counts as lost. Default: it may be silent.
    pub silence: Option<Span>,
    /// What it is asked again and again. Without, it speaks by itself.
    #[serde(default)]
    #[expect(dead_code, reason = "a key; its table is read by hand")]
    pub poll: IgnoredAny,
    /// The line is left alone for this long before anything is sent to it.
    #[serde(default)]
    pub pause: Span,
    /// What is sent comes back, as on a line of two wires, and is no answer.
    #[serde(default)]
    pub echo: bool,
    /// So many polls in a row without an answer: the device counts as lost, and is asked on.
    #[serde(default = "default_offline_after")]
    pub offline_after: u32,
}

/// The keys of a point's table that are this kind's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointConfig {
    /// Where in a frame the value stands: a JSON pointer, a column, a key, a capture, a field.
    pub from: Option<From>,
    /// Only frames with these bytes have it.
    #[expect(dead_code, reason = "a key; its table is read by hand")]
    pub when: Option<IgnoredAny>,
    /// Only answers to the poll of this name have it.
    pub poll: Option<String>,
    /// What is sent to set the point: `{value}` stands for the raw value, `{bytes}` for the bytes that it is in hexadecimal.
    pub write: Option<String>,
    /// The frame by which the device says that it did it. Without, what was sent counts as done.
    #[expect(dead_code, reason = "a key; its table is read by hand")]
    pub reply: Option<IgnoredAny>,
    /// The frame by which it says that it did not.
    #[expect(dead_code, reason = "a key; its table is read by hand")]
    pub refusal: Option<IgnoredAny>,
}

fn default_baud_rate() -> u32 {
    9600
}

fn default_data_bits() -> u8 {
    8
}

fn default_stop_bits() -> u8 {
    1
}

fn whole() -> Decode {
    Decode::Text {}
}

fn default_offline_after() -> u32 {
    3
}

impl Config {
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
