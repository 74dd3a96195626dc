//! The keys of a serial device and of its points.

use serde::Deserialize;

use crate::device::decode::{Decode, From};
use crate::model::{Fault, Size, Span};

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
    /// Where one message of the device ends.
    #[serde(default)]
    pub frame: Framing,
    /// How a frame is read.
    #[serde(default = "whole")]
    pub decode: Decode,
    /// Drop the first frame after the port was opened: it may be the rest of one. `21.5` without its first digit is a
    /// number too.
    #[serde(default)]
    pub skip_first: bool,
    /// Without a valid frame for this long, the device counts as lost. Default: it may be silent.
    pub silence: Option<Span>,
}

/// The keys of a point's table that are this kind's own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointConfig {
    /// Where in a frame the value stands: a JSON pointer, a column, a key, a capture.
    pub from: Option<From>,
    /// What is sent to set the point: `{value}` stands for the raw value, `{bytes}` for the bytes that it is in hexadecimal.
    pub write: Option<String>,
}

/// Parity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Parity {
    #[default]
    None,
    Odd,
    Even,
}

/// Flow control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FlowControl {
    #[default]
    None,
    Software,
    Hardware,
}

/// Where one message of the device ends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Framing {
    /// At a line feed; a carriage return before it does not count.
    Line {
        /// The longest line.
        #[serde(default = "default_max")]
        max: Size,
    },
    /// At certain bytes.
    Delimiter {
        /// Which.
        delimiter: Delimiter,
        /// The longest frame, without them.
        #[serde(default = "default_max")]
        max: Size,
    },
}

/// The bytes between two frames.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected text such as \"\\r\", or bytes such as [0x7e]")]
pub(super) enum Delimiter {
    /// As text: `"\r"`.
    Text(String),
    /// As numbers: `[0x7e]`.
    Bytes(Vec<u8>),
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

fn default_max() -> Size {
    Size(4 << 10)
}

impl Default for Framing {
    fn default() -> Self {
        Framing::Line { max: default_max() }
    }
}

/// More than any sensor says in one frame, and little enough for a small board.
const LARGEST_FRAME: Size = Size(1 << 20);

impl Config {
    /// What the types can't say.
    pub(super) fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut wrong = |path: &str, text: String| faults.push(Fault::at(path, text));
        if self.port.is_empty() {
            wrong("port", "expected the path of a port, such as \"/dev/ttyUSB0\"".to_owned());
        }
        if self.baud_rate == 0 {
            wrong("baud_rate", "expected bits per second, such as 9600".to_owned());
        }
        if !(5..=8).contains(&self.data_bits) {
            wrong("data_bits", format!("expected 5, 6, 7 or 8, not {}", self.data_bits));
        }
        if !(1..=2).contains(&self.stop_bits) {
            wrong("stop_bits", format!("expected 1 or 2, not {}", self.stop_bits));
        }
        let (Framing::Line { max } | Framing::Delimiter { max, .. }) = &self.frame;
        if *max < Size(1) || *max > LARGEST_FRAME {
            wrong("frame.max", format!("expected 1B to {LARGEST_FRAME}"));
        }
        if self.frame.delimiter().is_empty() {
            wrong("frame.delimiter", "expected at least one character or byte".to_owned());
        }
        if self.silence.is_some_and(|silence| silence.0.is_zero()) {
            wrong("silence", "expected a time above 0".to_owned());
        }
        faults.extend(self.decode.check());
        faults
    }
}

impl Framing {
    /// The bytes that end a frame.
    pub(super) fn delimiter(&self) -> &[u8] {
        match self {
            Framing::Line { .. } => b"\n",
            Framing::Delimiter { delimiter: Delimiter::Text(text), .. } => text.as_bytes(),
            Framing::Delimiter { delimiter: Delimiter::Bytes(bytes), .. } => bytes,
        }
    }
}
