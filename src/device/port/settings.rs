//! How a port's line is set up.

use crate::model::{Fault, Keys, Span};

/// A port, and how its line is set up. The keys stand in the table of whoever has the port.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::device) struct Settings {
    /// Its path: best a stable name such as `/dev/serial/by-id/…`.
    pub port: String,
    /// Bits per second; any the hardware can do.
    pub baud_rate: u32,
    /// 5 to 8.
    pub data_bits: u8,
    /// The bit behind them.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
    /// Who may hold back what is sent.
    pub flow_control: FlowControl,
    /// How the kernel switches a transceiver; `None`: not at all.
    pub rs485: Option<Rs485>,
}

/// Parity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::device) enum Parity {
    #[default]
    None,
    Odd,
    Even,
}

/// Flow control.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::device) enum FlowControl {
    #[default]
    None,
    Software,
    Hardware,
}

/// A transceiver that RTS switches from listening to sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::device) struct Rs485 {
    /// When RTS is high.
    pub rts: Rts,
    /// Between switching it and the first bit.
    pub delay_before: Span,
    /// Between the last bit and switching it back.
    pub delay_after: Span,
}

/// When RTS is high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::device) enum Rts {
    /// While the gateway sends.
    OnSend,
    /// While it does not.
    AfterSend,
}

/// Drivers take at most this for a delay.
const LONGEST_DELAY: Span = Span(std::time::Duration::from_millis(100));

/// Bits per second; what a port can't do is told by `Settings::check`.
pub(in crate::device) fn baud_rate(keys: &mut Keys<'_>) -> Option<u32> {
    keys.unsigned("baud_rate")
}

/// So many bits.
pub(in crate::device) fn bits(keys: &mut Keys<'_>, key: &'static str) -> Option<u8> {
    keys.whole(key, 0, u8::MAX.into()).and_then(|bits| u8::try_from(bits).ok())
}

impl Parity {
    /// Reads `parity`.
    pub(in crate::device) fn read(keys: &mut Keys<'_>) -> Option<Self> {
        keys.one_of("parity", &[("none", Parity::None), ("odd", Parity::Odd), ("even", Parity::Even)])
    }
}

impl FlowControl {
    /// Reads `flow_control`.
    pub(in crate::device) fn read(keys: &mut Keys<'_>) -> Option<Self> {
        let names =
            [("none", FlowControl::None), ("software", FlowControl::Software), ("hardware", FlowControl::Hardware)];
        keys.one_of("flow_control", &names)
    }
}

impl Rs485 {
    /// Reads `{ rts = …, delay_before = …, delay_after = … }`.
    pub(in crate::device) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("rts");
        let rts =
            keys.one_of("rts", &[("on-send", Rts::OnSend), ("after-send", Rts::AfterSend)]).unwrap_or(Rts::OnSend);
        let delay_before = keys.time("delay_before").unwrap_or_default();
        let delay_after = keys.time("delay_after").unwrap_or_default();
        keys.end(Rs485 { rts, delay_before, delay_after })
    }
}

impl Settings {
    /// What the types can't say.
    pub(in crate::device) fn check(&self) -> Vec<Fault> {
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
        if let Some(rs485) = self.rs485 {
            for (key, delay) in [("rs485.delay_before", rs485.delay_before), ("rs485.delay_after", rs485.delay_after)] {
                if delay > LONGEST_DELAY || delay.0.subsec_micros() % 1000 != 0 {
                    wrong(key, format!("`{delay}`: expected whole milliseconds, up to {LONGEST_DELAY}"));
                }
            }
        }
        faults
    }
}
