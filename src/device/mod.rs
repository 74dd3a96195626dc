//! Devices: speak to buses, decode what they say, act on what they are told.
//!
//! A *kind* is the code for a class of devices; a *driver* is one running instance of a kind. A driver knows its bus
//! and nothing else: it hands raw values to its [`DeviceIo`], which applies the point rules and sends readings, and
//! takes [`Write`]s from it, whose values are raw again. The supervisor starts it, restarts it with a growing delay
//! when it fails or panics, and publishes whether it answers; a failure of one driver reaches no other.
//!
//! May touch `/dev`, sysfs and sockets of devices. Knows neither topics nor the queue.
//!
//! # How to add a kind
//! One folder with `mod.rs` (with a `KIND`), `config.rs` and `sample.toml`, and its two lines in this file: `mod` and
//! the entry in [`KINDS`]. One that brings crates of its own is a feature besides (`Cargo.toml`), so that a build may
//! leave it out.

// What only such a kind needs (`access`, `decode`, `held` and others) is dead code where a build leaves it out.
#[cfg_attr(not(all(feature = "gpio", feature = "serial")), allow(dead_code))]
mod access;
mod allowance;
#[cfg(feature = "gpio")]
mod counter;
#[cfg_attr(not(all(feature = "modbus", feature = "serial")), allow(dead_code, unused_imports))]
mod decode;
mod derived;
#[cfg_attr(not(all(feature = "gpio", feature = "serial")), allow(dead_code))]
mod discover;
mod filter;
#[cfg(feature = "gpio")]
mod gpio;
#[cfg_attr(not(feature = "gpio"), allow(dead_code))]
mod held;
mod io;
#[cfg(feature = "modbus")]
mod modbus;
mod mqtt;
mod others;
mod pattern;
mod point;
#[cfg(any(feature = "modbus", feature = "serial"))]
#[cfg_attr(not(feature = "serial"), allow(dead_code))]
mod port;
#[cfg(feature = "desk")]
mod replay;
#[cfg(feature = "serial")]
mod serial;
mod sim;
mod supervisor;
mod sysfs;
#[cfg_attr(not(all(feature = "modbus", feature = "serial")), allow(dead_code))]
mod tape;
#[cfg_attr(not(feature = "serial"), allow(dead_code))]
mod template;
#[cfg(test)]
mod testing;
#[cfg_attr(not(feature = "gpio"), allow(dead_code))]
mod totals;

use std::fmt;
use std::future::Future;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::link;
#[cfg(feature = "desk")]
use crate::model::Value;
use crate::model::{Declaration, DeviceName, Fault, GatewayId, Keys, PointKey, PointName, Rate, ValueType};

pub use crate::model::{Write, WriteError};
pub use discover::{Board, discover};
pub use held::{Change, Held};
pub use io::{Ask, DeviceIo};
#[cfg(feature = "modbus")]
pub use modbus::{Scan, Units, scan};
pub use point::{Config as PointRulesConfig, Rules};
pub use supervisor::{Plan, Supervisor, Wiring};
pub use tape::{Event, Head, Recording, Tape, Tapes};
#[cfg(feature = "desk")]
pub use tape::{read as read_recording, sum};

/// Every kind there is.
pub const KINDS: &[&Kind] = &[
    #[cfg(feature = "gpio")]
    &counter::KIND,
    &derived::KIND,
    #[cfg(feature = "gpio")]
    &gpio::KIND,
    #[cfg(feature = "modbus")]
    &modbus::KIND,
    &mqtt::KIND,
    #[cfg(feature = "serial")]
    &serial::KIND,
    &sim::KIND,
    &sysfs::KIND,
];

/// The kind of this name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name).copied()
}

/// A class of devices.
#[derive(Debug)]
pub struct Kind {
    /// Its name in the config.
    pub name: &'static str,
    /// One line for `list-kinds`.
    pub summary: &'static str,
    /// A config that shows every key, as a `[device.…]` table; tests load it.
    pub sample: &'static str,
    /// The keys of a device's table that are this kind's own.
    pub device_keys: fn() -> &'static [&'static str],
    /// The keys of a point's table that are this kind's own.
    pub point_keys: fn() -> &'static [&'static str],
    /// Makes a driver from a config, touching nothing; or says all that is wrong, relative to the device's table.
    pub build: fn(Spec) -> Result<Built, Vec<Fault>>,
    /// Adds what there is of this kind on a board, as config; changes nothing there.
    pub discover: fn(&mut Board),
}

/// What the config says about one device, as far as its kind is concerned.
#[derive(Debug)]
pub struct Spec {
    /// The gateway's id, for what the config spells with `{id}`.
    pub gateway: GatewayId,
    /// Its name.
    pub device: DeviceName,
    /// The kind's own keys of the device's table.
    pub table: toml::Table,
    /// Its points.
    pub points: Vec<PointSpec>,
}

/// What the config says about one point, as far as its kind is concerned.
#[derive(Debug)]
pub struct PointSpec {
    /// Its name.
    pub name: PointName,
    /// How it is declared.
    pub declaration: Declaration,
    /// The kind's own keys of the point's table.
    pub table: toml::Table,
}

/// A driver, and what it made of its points.
pub struct Built {
    /// The driver.
    pub driver: Arc<dyn Driver>,
    /// For each point of the [`Spec`], in its order.
    pub points: Vec<Shape>,
}

/// What a kind knows of a point beyond its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Whether commands may change it.
    pub writable: bool,
    /// The type of its values, where the kind or the declaration fixes one.
    pub value_type: Option<ValueType>,
    /// Whether its value holds until the driver reports another one (a GPIO line), so that repeating it is the truth.
    /// A value that came once over a line does not hold: it becomes stale.
    pub holds: bool,
}

/// What the raw values of a point are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw {
    /// Whatever the device says.
    Any,
    /// Numbers.
    Number,
    /// Numbers that are hardly ever whole.
    Fraction,
}

/// What a look at one frame finds, in its order.
#[cfg(feature = "desk")]
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A step that was taken.
    Step(String),
    /// The raw value of a point, and where it stands.
    Value {
        /// Which point.
        point: PointName,
        /// The bytes, or what the decoder knows them by.
        place: String,
        /// What stands there.
        raw: Value,
    },
    /// What went wrong, and where.
    Fault(String),
}

/// A future that a driver returns.
pub type Run<'a, T> = Pin<Box<dyn Future<Output = Result<T, DeviceError>> + Send + 'a>>;

/// One running instance of a kind.
pub trait Driver: Send + Sync + 'static {
    /// One life of the device: opens it, calls [`DeviceIo::online`] once it answers, then reads, and acts on what
    /// [`DeviceIo::next`] says, until that is [`Ask::Stop`]. Whatever was opened is closed when the future ends, also
    /// when it is dropped half-way. Never blocks the thread for longer than a few milliseconds.
    ///
    /// # Errors
    /// When the device can't be opened or was lost. The supervisor runs it again later.
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()>;

    /// Whether the output that is [`Held`] by this name is one of its points. What no driver wants is set to its safe
    /// value and let go.
    fn wants(&self, _held: &str) -> bool {
        false
    }

    /// The device files that it opens to read and write them, as far as they are there.
    fn opens(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// The points of other devices that it is made of: for which point of its own, and the key that names them.
    fn reads(&self) -> Vec<(&PointName, &'static str, &PointKey)> {
        Vec::new()
    }

    /// What its raw values of a point are, as far as it knows.
    fn raw(&self, _point: &PointName) -> Raw {
        Raw::Any
    }

    /// For how long the device may sleep, and so be silent, where it listens only after it has said something
    /// ([`DeviceIo::awake_until`]): commands wait for that.
    fn sleeps(&self) -> Option<Duration> {
        None
    }

    /// The connection that it is made of, where it is one: what its files hold may change, and then it is made anew.
    fn link(&self) -> Option<&link::Config> {
        None
    }

    /// Whether it speaks in bytes through a port, which are recorded, and played to it. Of any other one what it reports is.
    fn is_of_bytes(&self) -> bool {
        false
    }

    /// How these bytes are read, step by step, touching nothing. `None`: it has no frames.
    #[cfg(feature = "desk")]
    fn examine(&self, _bytes: &[u8]) -> Option<Vec<Finding>> {
        None
    }

    /// Tries what the config names, for `check --devices`: opens it where that changes nothing, and never requests an
    /// output. The text says what was found.
    ///
    /// # Errors
    /// When the device can't be opened: why, and what to do.
    fn probe(&self) -> Run<'_, String>;
}

/// Sets the output that a descriptor was stored for to the safe value that the name holds; false: the name tells none.
/// For who has no config yet.
///
/// # Errors
/// When the chip refuses, or is gone.
pub fn make_safe(name: &str, descriptor: BorrowedFd<'_>) -> std::io::Result<bool> {
    #[cfg(feature = "gpio")]
    return gpio::make_safe(name, descriptor);
    #[cfg(not(feature = "gpio"))]
    {
        let _ = (name, descriptor);
        Ok(false)
    }
}

/// Why a driver ended. The supervisor publishes the text and tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// It can't be opened: what, why, and what to do about it.
    #[error("{0}")]
    Open(String),
    /// It answered once, and does no more.
    #[error("{0}")]
    Lost(String),
    /// The driver itself is wrong.
    #[error("the driver panicked: {0}")]
    Panic(String),
}

/// The keys of a device's table that every kind has.
#[derive(Debug)]
pub struct Config {
    /// Which kind.
    pub kind: String,
    /// Readings that the device may send; what comes faster is coalesced, the newest value of each point stays.
    pub max_rate: Rate,
}

/// More than any serial line at 115 200 baud can say, less than what starves the other devices.
const MAX_RATE: Rate = Rate::Limit { count: 1000, per: Duration::from_secs(1) };

impl Config {
    /// Its keys.
    pub const KEYS: &[&str] = &["kind", "max_rate"];

    /// Reads them.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("kind");
        let kind = keys.string("kind").unwrap_or_default();
        let max_rate = keys.rate("max_rate").unwrap_or(MAX_RATE);
        keys.end(Config { kind, max_rate })
    }
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Built").field("points", &self.points).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::parts;
    use super::*;

    #[test]
    fn the_sample_of_every_kind_is_right_and_shows_every_key() {
        for kind in KINDS {
            let parts = parts(kind.sample);
            assert_eq!(parts.kind.name, kind.name);
            let shown = |table: &toml::Table, key: &str| assert!(table.contains_key(key), "{}: `{key}`", kind.name);
            (kind.device_keys)().iter().for_each(|key| shown(&parts.spec.table, key));
            let points: toml::Table = parts.spec.points.iter().flat_map(|point| point.table.clone()).collect();
            (kind.point_keys)().iter().for_each(|key| shown(&points, key));
            let count = parts.spec.points.len();
            let built = (kind.build)(parts.spec).unwrap_or_else(|faults| panic!("{}: {faults:?}", kind.name));
            assert_eq!(built.points.len(), count);
        }
    }

    #[test]
    fn no_key_has_two_owners() {
        for kind in KINDS {
            let device = Config::KEYS.iter().chain((kind.device_keys)());
            let point = Declaration::KEYS.iter().chain(PointRulesConfig::KEYS);
            let lists: [Vec<_>; 2] = [device.collect(), point.chain((kind.point_keys)()).collect()];
            for keys in lists {
                let mut once = keys.clone();
                once.sort_unstable();
                once.dedup();
                assert_eq!(once.len(), keys.len(), "{}: {keys:?}", kind.name);
            }
        }
    }
}
