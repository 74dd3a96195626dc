//! The keys of a Modbus device, of its bus, and of its points.

use std::time::Duration;

use super::encoding::{Encoding, Layout, Order};
use super::pdu::{MOST_REGISTERS, Table};
use super::plan::{Limits, Spot};
use crate::device::decode::Bits;
use crate::device::port::{Parity, Settings};
use crate::model::{Declaration, Fault, Keys, Span, ValueType};

/// Above this rate the standard's silence between frames is fixed (MODBUS over Serial Line V1.02, 2.5.1.1).
const FAST: u32 = 19_200;

/// Silence between frames above [`FAST`].
const FAST_SILENCE: Duration = Duration::from_micros(1_750);

/// A point that is read more often keeps a bus busy with nothing else.
const FASTEST: Duration = Duration::from_millis(10);

/// Rarer than this is no measurement.
const SLOWEST: Duration = Duration::from_secs(24 * 3600);

/// The keys of the device's table that are this kind's own.
#[derive(Debug)]
pub(super) struct Config {
    /// Its bus: the name of a table `[bus.NAME]`, which stands here when it is read, or a table for it alone.
    pub bus: Bus,
    /// Which slave: 1 to 247, 0 for all of them (only written); by TCP 0 to 255.
    pub unit: u8,
    /// How often its points are read, 10 ms to 24 h (10 s).
    pub every: Span,
    /// Registers between two points that are read along with them, where that saves a request (8).
    pub gap: u16,
    /// The longest request, in registers (125).
    pub max_registers: u16,
}

/// A line with slaves, or a way to them by TCP: the keys of `[bus.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::device) struct Bus {
    /// The serial port, or none, and how its line is set up: `port`, `baud_rate` (19200), `data_bits` (8), `parity` (`even`, as
    /// the standard has it), `stop_bits` (1), `rs485` (none). Either this or `address`.
    pub line: Settings,
    /// Host and port of a Modbus TCP server, or of a converter.
    pub address: Option<String>,
    /// What is spoken by TCP: `tcp`, or `rtu` with a converter that knows nothing of Modbus.
    pub framing: Option<Framing>,
    /// How long a slave may take to answer (1 s).
    pub timeout: Span,
    /// Between two frames. Default: 3.5 characters, 1.75 ms above 19200 bits per second.
    pub silence: Option<Span>,
    /// For the slaves to act on what was said to all, and for an answer that comes too late to pass (100 ms).
    pub turnaround: Span,
}

/// What is spoken by TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::device) enum Framing {
    Tcp,
    Rtu,
}

/// The keys of a point's table that are this kind's own.
#[derive(Debug)]
pub(super) struct PointConfig {
    /// `holding`, `input`, `coil` or `discrete`.
    pub table: Table,
    /// From 0, as on the wire: 0x1000, or 30001 less 30001.
    pub address: u16,
    /// What its registers hold (`u16`; of a coil or a discrete input `bool`).
    pub encoding: Option<Encoding>,
    /// Which byte stands where (`ABCD`).
    pub order: Order,
    /// The bits of the number that are meant: `"3"`, `"4..7"`.
    pub bits: Option<Bits>,
    /// Of a string: how many registers.
    pub length: Option<u16>,
    /// How often it is read; default: as its device.
    pub every: Option<Span>,
    /// Whether commands may change it.
    pub write: bool,
    /// The function that writes: 5 or 15 of a coil, 6 or 16 of a register. Default: 5 or 6 where it fits, else 16.
    pub function: Option<u8>,
    /// Whether what was written is read back (true).
    pub verify: bool,
    /// Whether a write that got no answer is tried again: where doing it twice is the same as once.
    pub retry_write: bool,
}

fn every_fault(every: Span) -> Option<Fault> {
    let text = || format!("`{every}`: expected a duration from \"10ms\" to \"24h\"");
    (!(FASTEST..=SLOWEST).contains(&every.0)).then(|| Fault::at("every", text()))
}

/// The keys of the device's table.
pub(super) const DEVICE_KEYS: &[&str] = &["bus", "every", "gap", "max_registers", "unit"];

/// The keys of a point's table.
pub(super) const POINT_KEYS: &[&str] =
    &["address", "bits", "encoding", "every", "function", "length", "order", "retry_write", "table", "verify", "write"];

impl Config {
    /// Reads the device's table, whose other keys others read.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let bus = keys.inner("bus", Bus::read);
        ["bus", "unit"].into_iter().for_each(|key| keys.needs(key));
        let unit = keys.small("unit", 0, 255).and_then(|unit| u8::try_from(unit).ok());
        let every = keys.time("every").unwrap_or(Span::secs(10));
        let gap = keys.small("gap", 0, MOST_REGISTERS).unwrap_or(8);
        let max_registers = keys.small("max_registers", 1, MOST_REGISTERS).unwrap_or(MOST_REGISTERS);
        match (bus, unit, keys.faults()) {
            (Some(bus), Some(unit), faults) if faults.is_empty() => Ok(Config { bus, unit, every, gap, max_registers }),
            (_, _, faults) => Err(faults),
        }
    }

    /// What the types can't say.
    pub(super) fn check(&self) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.bus.check().into_iter().map(|fault| fault.under(&["bus"])).collect();
        faults.extend(every_fault(self.every));
        if self.bus.settings().is_some() && self.unit > 247 {
            faults.push(Fault::at("unit", format!("`{}`: expected 1 to 247, or 0 for all slaves", self.unit)));
        }
        faults
    }

    /// Whether it stands for all slaves of a line at once.
    pub(super) fn is_broadcast(&self) -> bool {
        self.unit == 0 && !self.bus.is_modbus_tcp()
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { gap: self.gap, max_registers: self.max_registers }
    }
}

impl Bus {
    /// A port, or else a server, with the defaults of all else.
    pub(super) fn of(place: &str) -> Self {
        let is_port = place.starts_with('/');
        let line = Settings::plain(19_200, Parity::Even);
        Bus {
            line: Settings { port: if is_port { place.to_owned() } else { String::new() }, ..line },
            address: (!is_port).then(|| place.to_owned()),
            framing: None,
            timeout: Span::secs(1),
            silence: None,
            turnaround: Span(Duration::from_millis(100)),
        }
    }

    /// Reads the table of a bus.
    fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let plain = Bus::of("");
        let read = Bus {
            line: plain.line.read(&mut keys),
            address: keys.string("address"),
            framing: keys.one_of("framing", &[("tcp", Framing::Tcp), ("rtu", Framing::Rtu)]),
            timeout: keys.time("timeout").unwrap_or(plain.timeout),
            silence: keys.time("silence"),
            turnaround: keys.time("turnaround").unwrap_or(plain.turnaround),
        };
        keys.end(read)
    }

    /// The port, and how its line is set up; `None`: it is none.
    pub(super) fn settings(&self) -> Option<&Settings> {
        Some(&self.line).filter(|line| !line.port.is_empty())
    }

    /// Whether frames have numbers.
    pub(super) fn is_modbus_tcp(&self) -> bool {
        self.address.is_some() && self.framing != Some(Framing::Rtu)
    }

    /// How long so many bytes take on a line.
    pub(super) fn time_of(&self, bytes: usize) -> Duration {
        self.settings().map(|line| line.time_of(bytes)).unwrap_or_default()
    }

    /// What is left between two frames.
    pub(super) fn silence(&self) -> Duration {
        let standard = if self.line.baud_rate > FAST { FAST_SILENCE } else { self.time_of(7) / 2 };
        self.silence.map_or(if self.settings().is_some() { standard } else { Duration::ZERO }, |silence| silence.0)
    }

    pub(super) fn check(&self) -> Vec<Fault> {
        let mut faults = self.settings().map(Settings::check).unwrap_or_default();
        let mut wrong = |path: &str, text: String| faults.push(Fault::at(path, text));
        let host = self.address.as_deref().and_then(|address| address.rsplit_once(':'));
        match (self.settings(), &self.address) {
            (None, None) => wrong("port", "this key is missing: expected the path of a port, or `address`".to_owned()),
            (Some(_), Some(_)) => wrong("address", "expected either `port` or `address`, not both".to_owned()),
            (None, Some(address))
                if host.is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) =>
            {
                wrong("address", format!("`{address}`: expected host and port, such as \"10.0.0.5:502\""));
            }
            _ => {}
        }
        if self.settings().is_some() && self.framing == Some(Framing::Tcp) {
            wrong("framing", "a serial line carries RTU: remove it".to_owned());
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(10)).contains(&self.timeout.0) {
            wrong("timeout", format!("`{}`: expected a duration from \"10ms\" to \"10s\"", self.timeout));
        }
        for (key, span) in [("silence", self.silence), ("turnaround", Some(self.turnaround))] {
            if let Some(span) = span.filter(|span| span.0 > Duration::from_secs(5)) {
                wrong(key, format!("`{span}`: expected at most 5s"));
            }
        }
        faults
    }
}

impl PointConfig {
    /// Reads the keys of a point.
    pub(super) fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        ["table", "address"].into_iter().for_each(|key| keys.needs(key));
        let read = PointConfig {
            table: keys.one_of("table", &Table::NAMES).unwrap_or(Table::Coil),
            address: keys.small("address", 0, u16::MAX).unwrap_or_default(),
            encoding: keys.one_of("encoding", &Encoding::NAMES),
            order: keys.one_of("order", &Order::NAMES).unwrap_or_default(),
            bits: keys.parsed("bits", Bits::parse),
            length: keys.small("length", 0, u16::MAX),
            every: keys.time("every"),
            write: keys.flag("write").unwrap_or_default(),
            function: keys.small("function", 0, 255).and_then(|function| u8::try_from(function).ok()),
            verify: keys.flag("verify").unwrap_or(true),
            retry_write: keys.flag("retry_write").unwrap_or_default(),
        };
        keys.end(read)
    }

    /// How it stands in its registers.
    pub(super) fn layout(&self) -> Layout {
        let plain = if self.table.is_bits() { Encoding::Bool } else { Encoding::U16 };
        let encoding = self.encoding.unwrap_or(plain);
        let count = encoding.registers().or(self.length).unwrap_or(1);
        Layout { encoding, order: self.order, bits: self.bits, count }
    }

    /// Where it is read, and how often.
    pub(super) fn spot(&self, device: &Config) -> Spot {
        let every = self.every.unwrap_or(device.every).0;
        Spot { table: self.table, address: self.address, count: self.layout().count, every }
    }

    /// The type of its values, where it is known.
    pub(super) fn value_type(&self, declaration: &Declaration) -> Option<ValueType> {
        let one_bit = self.bits.filter(|bits| bits.first == bits.last).map(|_| ValueType::Bool);
        declaration.value_type.or(one_bit).or_else(|| self.layout().encoding.value_type())
    }

    /// What the types can't say.
    pub(super) fn check(&self, device: &Config, declaration: &Declaration) -> Vec<Fault> {
        let mut faults: Vec<Fault> = self.every.and_then(every_fault).into_iter().collect();
        let mut wrong = |key: &str, text: &str| faults.push(Fault::at(key, text));
        let Layout { encoding, count, .. } = self.layout();
        if self.table.is_bits() && encoding != Encoding::Bool {
            wrong("encoding", "a coil or a discrete input is one bit: remove it");
        }
        match self.length {
            None if encoding == Encoding::String => {
                wrong("length", "a string needs its number of registers: expected 1 to 125")
            }
            Some(1..=MOST_REGISTERS) if encoding == Encoding::String => {}
            Some(_) if encoding == Encoding::String => wrong("length", "expected 1 to 125 registers"),
            Some(_) => wrong("length", "only a string has it: remove it"),
            None => {}
        }
        if encoding == Encoding::String && matches!(self.order, Order::Cdab | Order::Dcba) {
            wrong("order", "the registers of a string are never exchanged: expected \"ABCD\" or \"BADC\"");
        }
        let width = if self.table.is_bits() { 1 } else { u32::from(count) * 16 };
        if let Some(bits) = self.bits {
            if !encoding.is_unsigned() {
                wrong(
                    "bits",
                    "bits are taken out of a number without sign: expected encoding u16, u32 or u64 beside it",
                );
            } else if bits.last >= width {
                wrong("bits", &format!("expected bits 0 to {}", width - 1));
            }
            if self.write {
                wrong("bits", "a part of a register can't be written alone: remove it, or `write`");
            }
        }
        if count > device.max_registers {
            wrong("encoding", "it is longer than `max_registers` of its device");
        }
        if u32::from(self.address) + u32::from(count) > 1 << 16 {
            wrong("address", "it ends behind the last address, which is 65535");
        }
        if !self.write {
            if device.is_broadcast() {
                wrong("write", "nobody answers for all slaves of a line: expected true");
            }
            if self.function.is_some() {
                wrong("function", "only a point with `write = true` has it");
            }
            return faults;
        }
        match (self.table, self.function, count) {
            (Table::Input | Table::Discrete, ..) => {
                wrong("write", "inputs can only be read: remove it, or expected table holding or coil")
            }
            (Table::Coil, None | Some(5 | 15), _)
            | (Table::Holding, None | Some(16), _)
            | (Table::Holding, Some(6), 1) => {}
            (Table::Coil, ..) => wrong("function", "expected 5 or 15, which write coils"),
            (Table::Holding, Some(6), _) => wrong("function", "6 writes one register: expected 16"),
            (Table::Holding, ..) => wrong("function", "expected 6 or 16, which write registers"),
        }
        // MODBUS Application Protocol, section 6.12.
        if count > 123 {
            wrong("length", "expected at most 123 registers, which one write can hold");
        }
        if self.value_type(declaration).is_none() {
            wrong("type", "a writable point needs a `type`: expected int, or float where it has a scale");
        }
        faults
    }
}
