//! Devices on a serial port of their own: frames in, decoded into points; commands out, by a template.
//!
//! `frame` cuts bytes into frames, a [`Decoder`] reads values out of one, a [`Template`] makes the bytes of a command:
//! pure functions, all of them. `device/port` does the I/O, `life` says what is done when. What does not decode, or has a wrong
//! check, is counted and logged once per episode, and harms nothing: the next good frame is read. A frame without a point's
//! field is no reading of that point.
//!
//! A device that speaks by itself is online while its port is open or, where `silence` is set, from the first valid frame
//! on; one that is polled while it answers. Unplugging ends the driver; the supervisor's next start opens the port again.

mod config;
mod discover;
mod ear;
#[cfg(feature = "desk")]
mod examine;
mod frame;
mod framing;
mod life;
#[cfg(test)]
mod protocols;
mod request;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::config::{Config, DEVICE_KEYS, POINT_KEYS, PointConfig};
use self::frame::Framer;
use self::framing::Framing;
use self::life::Life;
use self::request::{Poll, Question};
#[cfg(feature = "desk")]
use super::Finding;
#[cfg(feature = "desk")]
use super::decode::From;
use super::decode::{Check, Decoder, Mark, Slot, Undecodable};
use super::port::{self, Port};
use super::template::Template;
use super::{Built, DeviceError, DeviceIo, Driver, Kind, Run, Shape, Spec};
use crate::model::{Fault, Keys, PointName, Value};

/// Sensors and actuators on a serial port.
pub(super) const KIND: Kind = Kind {
    name: "serial",
    summary: "a sensor or actuator on a serial port: lines or frames as JSON, XML, CSV, key=value, pattern, text or bytes, by itself or asked for",
    sample: include_str!("sample.toml"),
    device_keys: || DEVICE_KEYS,
    point_keys: || POINT_KEYS,
    build,
    discover: discover::discover,
};

#[derive(Debug)]
struct Serial {
    config: Config,
    framing: Framing,
    check: Option<Check>,
    decoder: Decoder,
    /// The points with a place in a frame, by slot.
    readers: Vec<Reader>,
    writers: BTreeMap<PointName, Writer>,
    polls: Vec<Poll>,
}

/// A point that is read.
#[derive(Debug)]
struct Reader {
    name: PointName,
    /// Only from frames with this.
    when: Option<Mark>,
    /// Only from answers to this poll.
    poll: Option<String>,
    /// Where in the frame it stands.
    #[cfg(feature = "desk")]
    from: Option<From>,
}

/// A point that is written.
#[derive(Debug)]
struct Writer {
    template: Template,
    reply: Option<Mark>,
    refusal: Option<Mark>,
}

fn build(spec: Spec) -> Result<Built, Vec<Fault>> {
    let (serial, points) = make(spec)?;
    Ok(Built { driver: Arc::new(serial), points })
}

fn make(spec: Spec) -> Result<(Serial, Vec<Shape>), Vec<Fault>> {
    let config = Config::read(&spec.table)?;
    let mut faults = config.check();
    let mut keys = Keys::of(&spec.table);
    let check = keys.table("check").map(Check::read).and_then(|read| keys.below(&["check"], read));
    let empty = toml::Table::new();
    let framing = Framing::read(keys.table("frame").unwrap_or(&empty), keys.has("check"));
    let framing = keys.below(&["frame"], framing).unwrap_or_default();
    let (mut polls, asked) = (Vec::new(), keys.tables("poll"));
    for (place, table) in asked.iter().enumerate() {
        let at = format!("[{place}]");
        polls.extend(keys.below(&["poll", &at], Poll::read(table, check.as_ref())));
    }
    let (has_check, has_polls) = (keys.has("check"), polls.len() == asked.len());
    faults.extend(keys.faults());
    let (mut readers, mut places, mut writers, mut shapes) = (Vec::new(), Vec::new(), BTreeMap::new(), Vec::new());
    for point in spec.points {
        let name = point.name;
        let value_type = point.declaration.value_type;
        let mut wrong = |key: &str, text: String| faults.push(Fault::at(key, text).under(&["point", name.as_str()]));
        let keys = match PointConfig::read(&point.table) {
            Ok(keys) => keys,
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| fault.under(&["point", name.as_str()])));
                continue;
            }
        };
        if keys.write.is_some() && value_type.is_none() {
            wrong("type", "a writable point needs a `type`: expected bool, int, float or text".to_owned());
        }
        let is_named = |poll: &&String| polls.iter().any(|known| known.name.as_ref() == Some(*poll));
        if let Some(poll) = keys.poll.as_ref().filter(|poll| has_polls && !is_named(poll)) {
            wrong("poll", format!("expected the `name` of one of the device's polls, found {poll:?}"));
        }
        let mut marks = Keys::of(&point.table);
        if marks.has("reply") && keys.write.is_none() {
            marks.wrong("reply", "it answers a `write`: expected both");
        }
        if marks.has("refusal") && !marks.has("reply") {
            marks.wrong("refusal", "it is told from a `reply`: expected both");
        }
        let mut mark = |key| marks.table(key).map(Mark::read).and_then(|read| marks.below(&[key], read));
        let (when, reply, refusal) = (mark("when"), mark("reply"), mark("refusal"));
        faults.extend(marks.faults().into_iter().map(|fault| fault.under(&["point", name.as_str()])));
        let mut wrong = |key: &str, text: String| faults.push(Fault::at(key, text).under(&["point", name.as_str()]));
        let is_writable = keys.write.is_some();
        match keys.write.as_deref().map(|text| Template::parse(text, check.as_ref())) {
            Some(Ok(template)) => {
                let writer = Writer { template, reply, refusal };
                drop(writers.insert(name.clone(), writer));
            }
            // Without the check, which is wrong itself, nobody knows.
            Some(Err(_)) if has_check && check.is_none() => {}
            Some(Err(text)) => wrong("write", text),
            None => {}
        }
        shapes.push(Shape { writable: is_writable, value_type, holds: false });
        // A point that is only written takes nothing from a frame.
        if keys.from.is_some() || !is_writable {
            readers.push(Reader {
                name,
                when,
                poll: keys.poll,
                #[cfg(feature = "desk")]
                from: keys.from.clone(),
            });
            places.push((keys.from, value_type));
        }
    }
    match Decoder::new(&config.decode, &places) {
        Ok(decoder) if faults.is_empty() => {
            Ok((Serial { config, framing, check, decoder, readers, writers, polls }, shapes))
        }
        Ok(_) => Err(faults),
        Err(more) => {
            faults.extend(more.into_iter().map(|(slot, text)| match slot.and_then(|slot| readers.get(slot)) {
                Some(reader) => Fault::at("from", text).under(&["point", reader.name.as_str()]),
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
        vec![PathBuf::from(&self.config.line.port)]
    }

    #[cfg(feature = "desk")]
    fn examine(&self, bytes: &[u8]) -> Option<Vec<Finding>> {
        Some(self.look_into(bytes))
    }

    fn is_of_bytes(&self) -> bool {
        true
    }

    fn probe(&self) -> Run<'_, String> {
        Box::pin(async { port::probe(&self.config.line).await })
    }
}

impl Serial {
    async fn life(&self, io: &mut DeviceIo) -> Result<(), DeviceError> {
        let (port, busy_until) = match io.take_port() {
            Some(kept) => kept,
            None => (Port::open(&self.config.line, io.tape()).await?, Instant::now()),
        };
        let seed = io.take_seed();
        // What the outputs behind the port are, nobody can say before they are written.
        io.opened(Vec::new()).await;
        if self.config.silence.is_none() && self.polls.is_empty() {
            io.online();
        }
        Life::new(self, port, busy_until, &seed).live(io).await
    }

    /// For what the device says.
    fn framer(&self) -> Framer {
        Framer::new(&self.framing, self.check.clone(), self.config.skip_first, self.config.line.time_of(1))
    }

    /// For one answer that is framed in another way.
    fn framer_of(&self, framing: &Framing) -> Framer {
        Framer::new(framing, None, false, self.config.line.time_of(1))
    }

    /// Fills the slots from a frame: decoders of text get the message in it, without what is around.
    fn decode(&self, frame: &[u8], slots: &mut [Slot]) -> Result<(), Undecodable> {
        let message = match &self.check {
            Some(check) if !self.decoder.is_of_bytes() => check.covered(frame),
            _ => frame,
        };
        self.decoder.decode(message, slots)
    }

    /// What is sent for a value, and how the device answers.
    fn command(&self, name: &PointName, value: &Value, timeout: Duration) -> Result<Question, String> {
        let writer = self.writers.get(name).ok_or_else(|| format!("`{name}` has no `write`"))?;
        let (expect, refusal) = (writer.reply.clone(), writer.refusal.clone());
        let bytes = writer.template.render(value)?;
        Ok(Question { bytes, expect, refusal, timeout, framing: None, baud_rate: None })
    }
}

impl Reader {
    /// Whether the point is read from this frame, which answers this poll.
    fn wants(&self, frame: &[u8], poll: Option<&str>) -> bool {
        self.when.as_ref().is_none_or(|when| when.fits(frame)) && (self.poll.is_none() || self.poll.as_deref() == poll)
    }
}
