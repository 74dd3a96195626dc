//! Devices on a serial port of their own: frames in, decoded into points; commands out, by a template.
//!
//! `frame` cuts bytes into frames, a [`Decoder`] reads values out of one, a [`Template`] makes the bytes of a command:
//! pure functions, all of them. `port` does the I/O. What does not decode is counted and logged once per episode, and
//! harms nothing: the next good frame is read. A frame without a point's field is no reading of that point.
//!
//! The device is online while its port is open or, where `silence` is set, from the first valid frame on. Unplugging
//! ends the driver; the supervisor's next start opens the port again.

mod config;
mod discover;
mod frame;
mod port;
mod rivals;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use self::config::{Config, PointConfig};
use self::frame::{Frame, Framer};
use self::port::Port;
use self::rivals::Rival;
use super::decode::{Decoder, Noise, Slot, Undecodable};
use super::template::Template;
use super::{Ask, Built, DeviceError, DeviceIo, Driver, Kind, Run, Shape, Spec, Write, WriteError};
use crate::model::{self, Fault, PointName, Value, time};

/// Sensors and actuators on a serial port.
pub(super) const KIND: Kind = Kind {
    name: "serial",
    summary: "a sensor or actuator on a serial port: lines or frames as JSON, XML, CSV, key=value, pattern, text or bytes",
    sample: include_str!("sample.toml"),
    device_keys: || model::keys::<Config>(),
    point_keys: || model::keys::<PointConfig>(),
    build,
    discover: discover::discover,
};

/// As much as a tty gives in one read.
const CHUNK: usize = 4096;

#[derive(Debug)]
struct Serial {
    config: Config,
    decoder: Decoder,
    /// The points with a place in a frame, by slot.
    readers: Vec<PointName>,
    writers: BTreeMap<PointName, Template>,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let config: Config = super::read(&spec.table).map_err(|fault| vec![fault])?;
    let mut faults = config.check();
    let (mut readers, mut places, mut writers, mut shapes) = (Vec::new(), Vec::new(), BTreeMap::new(), Vec::new());
    for point in spec.points {
        let name = point.name;
        let value_type = point.declaration.value_type;
        let mut wrong = |key: &str, text: String| faults.push(Fault::at(key, text).under(&["point", name.as_str()]));
        let keys: PointConfig = match super::read(&point.table) {
            Ok(keys) => keys,
            Err(fault) => {
                faults.push(fault.under(&["point", name.as_str()]));
                continue;
            }
        };
        if keys.write.is_some() && value_type.is_none() {
            wrong("type", "a writable point needs a `type`: expected bool, int, float or text".to_owned());
        }
        match keys.write.as_deref().map(Template::parse) {
            Some(Ok(template)) => drop(writers.insert(name.clone(), template)),
            Some(Err(text)) => wrong("write", text),
            None => {}
        }
        shapes.push(Shape { writable: keys.write.is_some(), value_type, holds: false });
        // A point that is only written takes nothing from a frame.
        if keys.from.is_some() || keys.write.is_none() {
            readers.push(name);
            places.push((keys.from, value_type));
        }
    }
    match Decoder::new(&config.decode, &places) {
        Ok(decoder) if faults.is_empty() => {
            Ok(Built { driver: Arc::new(Serial { config, decoder, readers, writers }), points: shapes })
        }
        Ok(_) => Err(faults),
        Err(more) => {
            faults.extend(more.into_iter().map(|(slot, text)| match slot.and_then(|slot| readers.get(slot)) {
                Some(name) => Fault::at("from", text).under(&["point", name.as_str()]),
                None => Fault::at("decode", text),
            }));
            Err(faults)
        }
    }
}

impl Driver for Serial {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(self.life(io))
    }

    fn opens(&self) -> Vec<PathBuf> {
        vec![PathBuf::from(&self.config.port)]
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async {
            let port = &self.config.port;
            let rivals = port::rivals(port).await;
            if let Some(rival) = rivals.iter().find(|rival| rival.holds() && !rival.is_gateway()) {
                return Err(DeviceError::Open(rival.to_string()));
            }
            if rivals.iter().any(Rival::is_gateway) {
                return Ok(format!("{port} is in use by the running gateway"));
            }
            Port::open(&self.config).await?.close().await;
            let more: String = rivals.iter().map(|rival| format!("; {rival}")).collect();
            Ok(format!("{port} can be opened{more}"))
        })
    }
}

impl Serial {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let mut port = Port::open(&self.config).await?;
        // What the outputs behind the port are, nobody can say before they are written.
        io.opened(Vec::new()).await;
        if self.config.silence.is_none() {
            io.online();
        }
        let mut ear = Ear {
            framer: Framer::new(&self.config.frame, self.config.skip_first),
            slots: vec![Slot::Absent; self.readers.len()],
            valid_at: Instant::now(),
            noise: Noise::of("frame"),
        };
        let mut chunk = vec![0; CHUNK];
        loop {
            let quiet = self.config.silence.map(|silence| ear.valid_at + silence.0);
            tokio::select! {
                biased;
                ask = io.next() => match ask {
                    Ask::Stop => {
                        port.close().await;
                        return Ok(());
                    }
                    Ask::Write(write) => self.write(&mut port, io, write).await?,
                },
                count = port.read(&mut chunk) => {
                    let count = count?;
                    self.take(&chunk[..count], &mut ear, io).await;
                }
                () = at(quiet) => {
                    let silence = self.config.silence.unwrap_or(model::Span(Duration::ZERO));
                    return Err(DeviceError::Lost(format!("nothing valid received for {silence}")));
                }
            }
        }
    }

    /// Reports what these bytes complete.
    async fn take(&self, bytes: &[u8], ear: &mut Ear, io: &mut DeviceIo) {
        let now = time::now();
        let mut valid = false;
        ear.framer.push(bytes);
        while let Some(frame) = ear.framer.next() {
            let decoded = match frame {
                Frame::Whole(frame) => self.decoder.decode(frame, &mut ear.slots).map_err(|error| (error, frame)),
                Frame::TooLong => Err((Undecodable::TooLong("`frame.max`"), &b""[..])),
            };
            if let Err((error, frame)) = decoded {
                ear.noise.heard(io, &error, frame, now);
                continue;
            }
            if !valid {
                valid = true;
                ear.noise.over(io, now);
                io.online();
            }
            for (name, slot) in self.readers.iter().zip(&ear.slots) {
                match slot {
                    Slot::Value(value) => io.report_at(name, value, now).await,
                    Slot::Bad => io.report_bad(name).await,
                    Slot::Absent => {}
                }
            }
        }
        if valid {
            // Only now: the time that the gateway took to accept these readings is no silence of the device.
            ear.valid_at = Instant::now();
        }
    }

    /// Sends what is asked for. The error is the port's; the asker has its answer then already.
    async fn write(&self, port: &mut Port, io: &mut DeviceIo, write: Write) -> Result<(), DeviceError> {
        let each = write.values.iter().map(|(name, value)| self.render(name, value));
        let bytes = each.collect::<Result<Vec<_>, String>>().map(|parts| parts.concat());
        let begun = bytes.map_err(WriteError::Failed).and_then(|bytes| io.begin(&write).map(|()| bytes));
        match begun {
            Err(error) => {
                io.answer(write, Err(error)).await;
                Ok(())
            }
            Ok(bytes) => {
                let sent = port.write(&bytes).await;
                let result = match &sent {
                    Ok(()) => Ok(write.values.clone()),
                    Err(error) => Err(WriteError::Unknown(error.to_string())),
                };
                io.answer(write, result).await;
                sent
            }
        }
    }

    fn render(&self, name: &PointName, value: &Value) -> Result<Vec<u8>, String> {
        self.writers.get(name).ok_or_else(|| format!("`{name}` has no `write`"))?.render(value)
    }
}

/// What is known of the bytes so far.
#[derive(Debug)]
struct Ear {
    framer: Framer,
    slots: Vec<Slot>,
    /// When the last valid frame was passed on; first, when the port was opened.
    valid_at: Instant,
    noise: Noise,
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
