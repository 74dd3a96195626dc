//! Looks for slaves on a line or behind a server, on demand: asks each unit for one register, and writes nothing.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::config::Bus;
use super::frame;
use super::pdu::{Request, Table};
use super::wire::{HOLD, Trouble, Wire};
use crate::device::DeviceError;
use crate::device::port::{self, Parity, Settings};
use crate::device::tape::Tape;
use crate::model::Span;

/// Where to look, and for whom.
#[derive(Debug, Clone)]
pub struct Scan {
    /// A serial port, or host and port of a server.
    pub place: String,
    /// Whom to ask.
    pub units: Units,
    /// At which rates, one after the other; by TCP they mean nothing.
    pub baud_rates: Vec<u32>,
    /// With which parities: `none`, `even`, `odd`.
    pub parities: Vec<String>,
    /// How long each has to answer.
    pub timeout: Span,
}

/// Units in a row, written as `1-247` or `7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units(RangeInclusive<u8>);

impl FromStr for Units {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            // 0 is all of them, and none answers.
            (Ok(first @ 1..), Ok(last)) if first <= last => Ok(Units(first..=last)),
            _ => Err("expected units such as 1-247, or one".to_owned()),
        }
    }
}

/// What every slave of some use answers to, if only by an exception.
const QUESTION: Request = Request::Read { table: Table::Holding, address: 0, count: 1 };

/// For an answer that comes too late, before the next unit is asked.
const TURNAROUND: Span = Span(Duration::from_millis(20));

/// Looks for slaves; says first what it does, then who answers.
///
/// # Errors
/// When the port or server can't be had, or somebody else has the port: the running gateway, too.
pub async fn scan(scan: &Scan, mut say: impl FnMut(&str)) -> Result<(), DeviceError> {
    let Scan { place, units: Units(units), .. } = scan;
    let buses = buses(scan)?;
    if let Some(fault) = buses.iter().flat_map(|(_, bus)| bus.check()).next() {
        return Err(DeviceError::Open(format!("{}: {}", fault.path.join("."), fault.text)));
    }
    if place.starts_with('/')
        && let Some(rival) = port::rivals(place).await.into_iter().find(port::Rival::holds)
    {
        return Err(DeviceError::Open(rival.to_string()));
    }
    let longest = buses.iter().map(|(_, bus)| longest(bus)).sum::<Duration>() * units.clone().map(|_| 1).sum();
    let longest = Span(Duration::from_secs(longest.as_secs() + 1));
    say(&format!(
        "# {place}: units {} to {} are asked for holding register 0, {} times; nothing is written; {longest} at most",
        units.start(),
        units.end(),
        buses.len()
    ));
    let mut found = 0;
    for (name, bus) in buses {
        let mut wire = Wire::open(&bus, &Tape::idle()).await?;
        for unit in units.clone() {
            let what = match wire.ask(unit, &QUESTION, true).await {
                Ok(data) => format!("holding register 0 is 0x{}", base16ct::lower::encode_string(&data)),
                Err(Trouble::Refused(exception)) => exception.to_string(),
                Err(Trouble::Damaged) => "a damaged answer (wrong CRC)".to_owned(),
                Err(Trouble::Silence(_)) => continue,
                Err(Trouble::Lost(error)) => return Err(error),
            };
            found += 1;
            say(&format!("unit {unit}{name}: {what}"));
        }
        wire.close().await;
    }
    if found == 0 {
        say(&format!(
            "# nobody answers within {} (--timeout): is the line connected, A to A and B to B, and do baud rate and parity fit?",
            scan.timeout
        ));
    }
    Ok(())
}

/// How long a unit takes that does not answer. A server may be at its question for longer than we wait.
fn longest(bus: &Bus) -> Duration {
    let behind = if bus.is_modbus_tcp() { bus.timeout.0 * HOLD } else { TURNAROUND.0 };
    bus.time_of(frame::rtu(1, &QUESTION.pdu()).len()) + bus.timeout.0 + behind
}

/// The ways in which to ask, with what tells them apart.
fn buses(scan: &Scan) -> Result<Vec<(String, Bus)>, DeviceError> {
    let plain = || Bus { timeout: scan.timeout, turnaround: TURNAROUND, ..Bus::of(&scan.place) };
    if !scan.place.starts_with('/') {
        return Ok(vec![(String::new(), plain())]);
    }
    let mut buses = Vec::new();
    for parity in &scan.parities {
        let known = [("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)];
        let Some((_, known)) = known.into_iter().find(|(name, _)| name == parity) else {
            return Err(DeviceError::Open(format!("`{parity}` is no parity: expected none, even or odd")));
        };
        for rate in &scan.baud_rates {
            buses.push((
                format!(" at {rate}, parity {parity}"),
                Bus { line: Settings { baud_rate: *rate, parity: known, ..plain().line }, ..plain() },
            ));
        }
    }
    Ok(buses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_one_or_several_in_a_row() {
        for (text, expected) in
            [("7", Some(7..=7)), ("1-247", Some(1..=247)), ("0-5", None), ("5-1", None), ("x", None), ("1-256", None)]
        {
            assert_eq!(text.parse().ok(), expected.map(Units), "{text}");
        }
    }

    fn scan_of(place: &str) -> Scan {
        let (baud_rates, parities) = (vec![1200, 9600], vec!["even".to_owned()]);
        Scan {
            place: place.to_owned(),
            units: "1-3".parse().unwrap(),
            baud_rates,
            parities,
            timeout: Span(Duration::from_millis(50)),
        }
    }

    #[tokio::test]
    async fn it_takes_no_longer_than_it_says() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut asked = scan_of(&server.local_addr().unwrap().to_string());
        asked.units = "1-9".parse().unwrap();
        let (begun, mut said) = (std::time::Instant::now(), Vec::new());
        scan(&asked, |text| said.push(text.to_owned())).await.unwrap();
        assert!(said[0].ends_with("; 2s at most"), "{said:?}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        assert!(said[1].starts_with("# nobody answers within 50ms (--timeout): "), "{said:?}");
        // On a line the question itself takes its time: 8 bytes of 11 bits, at 1200 bits a second.
        let buses = buses(&scan_of("/dev/ttyUSB0")).unwrap();
        let each: Vec<_> = buses.iter().map(|(_, bus)| longest(bus).as_millis()).collect();
        assert_eq!(each, [143, 79]);
    }

    #[tokio::test]
    async fn what_can_not_be_asked_says_what_would_be_right() {
        for (place, timeout, expected) in [
            ("ttyUSB0", 50, "address: `ttyUSB0`: expected host and port, such as \"10.0.0.5:502\""),
            ("10.0.0.5:502", 0, "timeout: `0s`: expected a duration from \"10ms\" to \"10s\""),
        ] {
            let asked = Scan { timeout: Span(Duration::from_millis(timeout)), ..scan_of(place) };
            let error = scan(&asked, |text| panic!("{text}")).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
