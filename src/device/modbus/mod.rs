//! Modbus slaves, RTU on a serial line and TCP: registers and bits, polled and written.
//!
//! A bus may be shared (`bus`), each slave is a device of its own. `pdu` and `frame` are the protocol, `encoding` is what
//! stands in registers, `plan` merges points into requests: pure functions, all of them. `wire` does the I/O, `life` says
//! what is asked when, `polls` which question is next, `health` how it stands with the slave, `write` sets points, `examine` shows frames.
//!
//! A slave that does not answer is asked less and less, one question at a time, which costs the others one time-out; it is
//! offline from the second one on, and its bus goes on. That question has an answer of another function or length than
//! those that were not answered, so an answer that comes late is never taken for another one's: a slave answers in the
//! order in which it was asked, so what is behind its answer is new. A slave that answers it ignores a question: that one
//! is asked in halves, and at last seldom. A lost bus ends the driver; the supervisor's next start opens it again.
//!
//! A write is said once, unless its point has `retry_write`: where no answer comes, nobody knows.

mod bus;
mod config;
mod encoding;
#[cfg(feature = "desk")]
mod examine;
mod frame;
mod health;
mod life;
mod pdu;
mod plan;
mod polls;
mod scan;
#[cfg(test)]
mod tests;
mod wire;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

pub(super) use self::bus::{Buses, Seat};
use self::config::{Config, DEVICE_KEYS, POINT_KEYS, PointConfig};
use self::encoding::Layout;
use self::pdu::{Request, Table};
use self::plan::Spot;
pub use self::scan::{Scan, Units, scan};
use super::port;
use super::{Built, DeviceIo, Driver, Kind, Run, Shape, Spec};
use crate::model::{Fault, PointName, Value};

/// Slaves on a bus.
pub(super) const KIND: Kind = Kind {
    name: "modbus",
    summary: "a Modbus slave, RTU on a serial line or TCP: meters, drives, inputs and outputs; several on one bus",
    sample: include_str!("sample.toml"),
    device_keys: || DEVICE_KEYS,
    point_keys: || POINT_KEYS,
    build,
    discover: |_| {},
};

/// A slave, and its points.
#[derive(Debug)]
struct Modbus {
    config: Config,
    points: Vec<Point>,
    /// Where the points are that are read, by their places in `points`.
    spots: Vec<Option<Spot>>,
}

#[derive(Debug)]
struct Point {
    name: PointName,
    layout: Layout,
    keys: PointConfig,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let config = Config::read(&spec.table)?;
    let mut faults = config.check();
    let (mut points, mut shapes) = (Vec::new(), Vec::new());
    for point in spec.points {
        let under = |fault: Fault| fault.under(&["point", point.name.as_str()]);
        match PointConfig::read(&point.table) {
            Ok(keys) => {
                faults.extend(keys.check(&config, &point.declaration).into_iter().map(under));
                let value_type = keys.value_type(&point.declaration);
                shapes.push(Shape { writable: keys.write, value_type, holds: false });
                points.push(Point { name: point.name, layout: keys.layout(), keys });
            }
            Err(found) => faults.extend(found.into_iter().map(under)),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let broadcast = config.is_broadcast();
    // What is never read back can't be read.
    let is_read = |point: &Point| !broadcast && (point.keys.verify || !point.keys.write);
    let spots = points.iter().map(|point| is_read(point).then(|| point.keys.spot(&config))).collect();
    Ok(Built { driver: Arc::new(Modbus { config, points, spots }), points: shapes })
}

impl Driver for Modbus {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(self.life(io))
    }

    fn opens(&self) -> Vec<PathBuf> {
        self.config.bus.settings().map(|line| PathBuf::from(&line.port)).into_iter().collect()
    }

    fn is_of_bytes(&self) -> bool {
        true
    }

    #[cfg(feature = "desk")]
    fn examine(&self, bytes: &[u8]) -> Option<Vec<super::Finding>> {
        Some(self.look_into(bytes))
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async {
            if let Some(settings) = self.config.bus.settings() {
                return port::probe(settings).await;
            }
            let address = self.config.bus.address.as_deref().unwrap_or_default();
            wire::connect(address).await.map(|_| format!("{address} can be reached"))
        })
    }
}

impl Point {
    /// Its value, from the data of a block in which it begins there.
    fn value(&self, table: Table, data: &[u8], start: usize) -> Option<Value> {
        if table.is_bits() {
            return Some(Value::Bool(pdu::bit(data, start)));
        }
        let registers = pdu::registers(data);
        self.layout.decode(registers.get(start..start + usize::from(self.layout.count))?)
    }

    /// Its value once that was done.
    fn set_by(&self, request: &Request) -> Option<Value> {
        match request {
            Request::Switch { on, .. } => Some(Value::Bool(*on)),
            Request::Set { registers, .. } => self.layout.decode(registers),
            Request::Read { .. } => None,
        }
    }

    /// What sets it.
    fn setting(&self, value: &Value) -> Result<Request, String> {
        let wrong = |text: String| format!("{}: {text}", self.name);
        let (address, function) = (self.keys.address, self.keys.function);
        if self.keys.table == Table::Coil {
            let on = self.layout.switch(value).map_err(wrong)?;
            return Ok(Request::Switch { address, on, many: function == Some(15) });
        }
        let registers = self.layout.encode(value).map_err(wrong)?;
        let many = function == Some(16) || registers.len() > 1;
        Ok(Request::Set { address, registers, many })
    }
}
