//! How a port's line is set up.

use std::time::Duration;

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
const LONGEST_DELAY: Span = Span(Duration::from_millis(100));

fn bits(keys: &mut Keys<'_>, key: &'static str) -> Option<u8> {
    keys.whole(key, 0, u8::MAX.into()).and_then(|bits| u8::try_from(bits).ok())
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
    /// No port, and a line of 8 bits at this speed with this parity.
    pub(in crate::device) fn plain(baud_rate: u32, parity: Parity) -> Self {
        let (port, flow_control) = (String::new(), FlowControl::None);
        Settings { port, baud_rate, data_bits: 8, parity, stop_bits: 1, flow_control, rs485: None }
    }

    /// Reads the keys of a line, but for `flow_control`, which not every line has; what is not said is as here.
    pub(in crate::device) fn read(self, keys: &mut Keys<'_>) -> Self {
        let parities = [("none", Parity::None), ("odd", Parity::Odd), ("even", Parity::Even)];
        Settings {
            port: keys.string("port").unwrap_or(self.port),
            baud_rate: keys.unsigned("baud_rate").unwrap_or(self.baud_rate),
            data_bits: bits(keys, "data_bits").unwrap_or(self.data_bits),
            parity: keys.one_of("parity", &parities).unwrap_or(self.parity),
            stop_bits: bits(keys, "stop_bits").unwrap_or(self.stop_bits),
            flow_control: self.flow_control,
            rs485: keys.inner("rs485", Rs485::read).or(self.rs485),
        }
    }

    /// Reads `flow_control`.
    #[cfg(feature = "serial")]
    pub(in crate::device) fn read_flow_control(self, keys: &mut Keys<'_>) -> Self {
        let names =
            [("none", FlowControl::None), ("software", FlowControl::Software), ("hardware", FlowControl::Hardware)];
        Settings { flow_control: keys.one_of("flow_control", &names).unwrap_or(self.flow_control), ..self }
    }

    /// How long so many characters take on the line.
    pub(in crate::device) fn time_of(&self, characters: usize) -> Duration {
        // Start bit, and parity bit.
        let bits = 1 + u32::from(self.data_bits) + u32::from(self.parity != Parity::None) + u32::from(self.stop_bits);
        let bits = bits.saturating_mul(u32::try_from(characters).unwrap_or(u32::MAX));
        Duration::from_secs(1) * bits / self.baud_rate.max(1)
    }

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
