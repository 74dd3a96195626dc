//! Records as bytes, for the flash.
//!
//! A body is a byte that says what it is, its timestamp, and its fields in a fixed order. Whole numbers are LEB128
//! varints (signed ones in zigzag), floats 8 bytes, texts a length and UTF-8; all of it little-endian, so that what one
//! board wrote every other one reads. A timestamp keeps milliseconds, and the boot only where it is needed: while the
//! wall clock was not synchronised.
//!
//! Pure functions. The bytes are covered by the checksum of whoever stores them; what is wrong in spite of it is an
//! error and never a panic.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Body, BootId, Cause, CommandId, DeviceName, Gap, GapCause, GapRange, Lane, Limit, Outcome, PointName, Quality,
    Reading, Reason, ReplyTo, Timestamp, Value, Verdict,
};

const READING: u8 = 1;
const OUTCOME: u8 = 2;

/// Bytes that are no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a record of this version")]
pub struct NotABody;

impl Body {
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Body::Reading(reading) => {
                out.push(READING);
                put_timestamp(out, &reading.timestamp);
                put_reading(out, reading);
            }
            Body::Outcome(outcome) => {
                out.push(OUTCOME);
                put_timestamp(out, &outcome.timestamp);
                put_outcome(out, outcome);
            }
        }
    }

    /// Reads a body, all of the bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn decode(bytes: &[u8]) -> Result<Body, NotABody> {
        let mut from = From(bytes);
        let kind = from.byte()?;
        let timestamp = from.timestamp()?;
        let body = match kind {
            READING => Body::Reading(from.reading(timestamp)?),
            OUTCOME => Body::Outcome(from.outcome(timestamp)?),
            _ => return Err(NotABody),
        };
        if from.0.is_empty() { Ok(body) } else { Err(NotABody) }
    }

    /// When the record was taken, without reading the rest of it.
    ///
    /// # Errors
    /// When the bytes are no body.
    pub fn decode_timestamp(bytes: &[u8]) -> Result<Timestamp, NotABody> {
        let mut from = From(bytes);
        from.byte()?;
        from.timestamp()
    }

    /// When the record was taken.
    pub fn timestamp(&self) -> &Timestamp {
        match self {
            Body::Reading(reading) => &reading.timestamp,
            Body::Outcome(outcome) => &outcome.timestamp,
        }
    }
}

impl Gap {
    /// Appends the gap.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_number(out, self.n);
        out.push(CAUSES.iter().position(|cause| *cause == self.cause).map_or(u8::MAX, |place| place.to_le_bytes()[0]));
        put_timestamp(out, &self.since);
        match &self.range {
            GapRange::Numbers { lane, epoch, from, to, count } => {
                out.push(0);
                out.push(lane.index().to_le_bytes()[0]);
                put_number(out, *epoch);
                put_number(out, *from);
                put_option(out, *to, put_number);
                put_option(out, *count, put_number);
            }
            GapRange::Device { device, point, count } => {
                out.push(1);
                put_text(out, device.as_str());
                put_option(out, point.as_ref(), |out, point| put_text(out, point.as_str()));
                put_number(out, *count);
            }
        }
    }

    /// Reads a gap, all of the bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn decode(bytes: &[u8]) -> Result<Gap, NotABody> {
        let mut from = From(bytes);
        let n = from.number()?;
        let cause = *CAUSES.get(usize::from(from.byte()?)).ok_or(NotABody)?;
        let since = from.timestamp()?;
        let range = match from.byte()? {
            0 => GapRange::Numbers {
                lane: *Lane::ALL.get(usize::from(from.byte()?)).ok_or(NotABody)?,
                epoch: from.number()?,
                from: from.number()?,
                to: from.option(From::number)?,
                count: from.option(From::number)?,
            },
            1 => GapRange::Device {
                device: DeviceName::new(from.text()?).map_err(|_| NotABody)?,
                point: from.option(|from| PointName::new(from.text()?).map_err(|_| NotABody))?,
                count: from.number()?,
            },
            _ => return Err(NotABody),
        };
        if from.0.is_empty() { Ok(Gap { n, cause, range, since }) } else { Err(NotABody) }
    }
}

/// The causes of gaps by their bytes: new ones go to the end.
const CAUSES: [GapCause; 8] = [
    GapCause::Bytes,
    GapCause::Age,
    GapCause::Memory,
    GapCause::Disk,
    GapCause::Damaged,
    GapCause::Refused,
    GapCause::Stop,
    GapCause::Overflow,
];

fn put_timestamp(out: &mut Vec<u8>, timestamp: &Timestamp) {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    out.push(u8::from(timestamp.synced));
    put_number(out, millis(timestamp.uptime));
    put_number(out, millis(timestamp.wall));
    if !timestamp.synced {
        out.extend_from_slice(&timestamp.boot.0.to_le_bytes());
    }
}

fn put_reading(out: &mut Vec<u8>, reading: &Reading) {
    put_text(out, reading.device.as_str());
    put_text(out, reading.point.as_str());
    out.push(match reading.quality {
        Quality::Good => 0,
        Quality::Stale => 1,
        Quality::Bad => 2,
    });
    put_option(out, reading.value.as_ref(), put_value);
    put_option(out, reading.unit.as_ref(), |out, unit| put_text(out, unit));
    put_option(out, reading.cause.as_ref(), |out, cause| match cause {
        Cause::Command(id) => {
            out.push(0);
            put_text(out, id.as_str());
        }
        Cause::Lease => out.push(1),
        Cause::MaxOn => out.push(2),
        Cause::Interlock => out.push(3),
        Cause::Link => out.push(4),
        Cause::Start => out.push(5),
        Cause::Stop => out.push(6),
        Cause::Limit(Limit::Normal) => out.push(7),
        Cause::Limit(Limit::High) => out.push(8),
        Cause::Limit(Limit::Low) => out.push(9),
    });
}

fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    put_text(out, outcome.id.as_str());
    put_text(out, &outcome.device);
    put_option(out, outcome.point.as_ref(), |out, point| put_text(out, point));
    match outcome.verdict {
        Verdict::Done => out.push(0),
        Verdict::Expired => out.push(1),
        Verdict::Failed => out.push(2),
        Verdict::Unknown => out.push(3),
        Verdict::Rejected(reason) => {
            out.push(4);
            // The word on the wire is fixed; the order in which the reasons are declared is not.
            put_text(out, reason.word());
        }
    }
    put_option(out, outcome.text.as_ref(), |out, text| put_text(out, text));
    put_number(out, outcome.values.len() as u64);
    for (point, value) in &outcome.values {
        put_text(out, point.as_str());
        put_value(out, value);
    }
    put_option(out, outcome.reply.as_ref(), |out, reply| {
        put_text(out, &reply.topic);
        put_option(out, reply.correlation.as_ref(), |out, correlation| put_bytes(out, correlation));
    });
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(false) => out.push(0),
        Value::Bool(true) => out.push(1),
        Value::Int(int) => {
            out.push(2);
            put_number(out, zigzag(*int));
        }
        Value::Float(float) => {
            out.push(3);
            out.extend_from_slice(&float.to_le_bytes());
        }
        Value::Text(text) => {
            out.push(4);
            put_text(out, text);
        }
    }
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn zigzag(int: i64) -> u64 {
    (int.cast_unsigned() << 1) ^ (int >> 63).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// What is left to read.
struct From<'a>(&'a [u8]);

impl<'a> From<'a> {
    fn byte(&mut self) -> Result<u8, NotABody> {
        let (first, rest) = self.0.split_first().ok_or(NotABody)?;
        self.0 = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], NotABody> {
        let (first, rest) = self.0.split_first_chunk().ok_or(NotABody)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, NotABody> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // Bits beyond the 64th, and a last byte that says nothing, are not what an encoder writes.
            if (bits << shift) >> shift != bits || (byte == 0 && shift > 0) {
                return Err(NotABody);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(NotABody)
    }

    fn bytes(&mut self) -> Result<&'a [u8], NotABody> {
        let length = usize::try_from(self.number()?).map_err(|_| NotABody)?;
        let (first, rest) = self.0.split_at_checked(length).ok_or(NotABody)?;
        self.0 = rest;
        Ok(first)
    }

    fn text(&mut self) -> Result<&'a str, NotABody> {
        std::str::from_utf8(self.bytes()?).map_err(|_| NotABody)
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, NotABody>) -> Result<Option<T>, NotABody> {
        match self.byte()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(NotABody),
        }
    }

    fn timestamp(&mut self) -> Result<Timestamp, NotABody> {
        let synced = match self.byte()? {
            0 => false,
            1 => true,
            _ => return Err(NotABody),
        };
        let uptime = Duration::from_millis(self.number()?);
        let wall = Duration::from_millis(self.number()?);
        let boot = if synced { BootId::UNKNOWN } else { BootId(u128::from_le_bytes(self.array()?)) };
        Ok(Timestamp { uptime, wall, synced, boot })
    }

    fn reading(&mut self, timestamp: Timestamp) -> Result<Reading, NotABody> {
        let device = DeviceName::new(self.text()?).map_err(|_| NotABody)?;
        let point = PointName::new(self.text()?).map_err(|_| NotABody)?;
        let quality = match self.byte()? {
            0 => Quality::Good,
            1 => Quality::Stale,
            2 => Quality::Bad,
            _ => return Err(NotABody),
        };
        let value = self.option(From::value)?;
        let unit = self.option(|from| from.text().map(Arc::from))?;
        let cause = self.option(|from| {
            Ok(match from.byte()? {
                0 => Cause::Command(from.id()?),
                1 => Cause::Lease,
                2 => Cause::MaxOn,
                3 => Cause::Interlock,
                4 => Cause::Link,
                5 => Cause::Start,
                6 => Cause::Stop,
                7 => Cause::Limit(Limit::Normal),
                8 => Cause::Limit(Limit::High),
                9 => Cause::Limit(Limit::Low),
                _ => return Err(NotABody),
            })
        })?;
        Ok(Reading { device, point, timestamp, value, unit, quality, cause })
    }

    fn outcome(&mut self, timestamp: Timestamp) -> Result<Outcome, NotABody> {
        let id = self.id()?;
        let device = self.text()?.to_owned();
        let point = self.option(|from| from.text().map(str::to_owned))?;
        let verdict = match self.byte()? {
            0 => Verdict::Done,
            1 => Verdict::Expired,
            2 => Verdict::Failed,
            3 => Verdict::Unknown,
            4 => {
                let word = self.text()?;
                let reason = Reason::ALL.into_iter().find(|reason| reason.word() == word);
                Verdict::Rejected(reason.ok_or(NotABody)?)
            }
            _ => return Err(NotABody),
        };
        let text = self.option(|from| from.text().map(str::to_owned))?;
        let mut values = Vec::new();
        for _ in 0..self.number()? {
            values.push((PointName::new(self.text()?).map_err(|_| NotABody)?, self.value()?));
        }
        let reply = self.option(|from| {
            let topic = Arc::from(from.text()?);
            let correlation = from.option(|from| from.bytes().map(Arc::from))?;
            Ok(ReplyTo { topic, correlation })
        })?;
        Ok(Outcome { id, device, point, verdict, text, values, timestamp, reply })
    }

    fn id(&mut self) -> Result<CommandId, NotABody> {
        CommandId::new(self.text()?).ok_or(NotABody)
    }

    fn value(&mut self) -> Result<Value, NotABody> {
        Ok(match self.byte()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            2 => Value::Int(unzigzag(self.number()?)),
            3 => Value::Float(f64::from_le_bytes(self.array()?)),
            4 => Value::text(self.text()?),
            _ => return Err(NotABody),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300).prop_map(Value::Float),
            any::<String>().prop_map(Value::text),
        ]
    }

    fn timestamp() -> impl Strategy<Value = Timestamp> {
        (0..u64::from(u32::MAX), 0..u64::from(u32::MAX) << 10, any::<bool>(), any::<u128>()).prop_map(
            |(uptime, wall, synced, boot)| Timestamp {
                uptime: Duration::from_millis(uptime),
                wall: Duration::from_millis(wall),
                synced,
                boot: if synced { BootId::UNKNOWN } else { BootId(boot) },
            },
        )
    }

    fn id() -> impl Strategy<Value = CommandId> {
        "[ -~]{1,64}".prop_map(|text| CommandId::new(&text).unwrap())
    }

    fn cause() -> impl Strategy<Value = Cause> {
        let fixed = [Cause::Lease, Cause::MaxOn, Cause::Interlock, Cause::Link, Cause::Start, Cause::Stop];
        let limits = [Limit::Normal, Limit::High, Limit::Low].map(Cause::Limit);
        prop_oneof![proptest::sample::select([&fixed[..], &limits].concat()), id().prop_map(Cause::Command)]
    }

    fn reading() -> impl Strategy<Value = Body> {
        let quality = proptest::sample::select(vec![Quality::Good, Quality::Stale, Quality::Bad]);
        ("d[a-zA-Z0-9_-]{0,63}", "p[a-z]{0,3}", timestamp(), of(value()), of(any::<String>()), quality, of(cause()))
            .prop_map(|(device, point, timestamp, value, unit, quality, cause)| {
                let (device, point) = (DeviceName::new(&device).unwrap(), PointName::new(&point).unwrap());
                let unit = unit.map(Arc::from);
                Body::Reading(Reading { device, point, timestamp, value, unit, quality, cause })
            })
    }

    fn outcome() -> impl Strategy<Value = Body> {
        let reasons = Reason::ALL.map(Verdict::Rejected);
        let verdicts = [&[Verdict::Done, Verdict::Expired, Verdict::Failed, Verdict::Unknown][..], &reasons].concat();
        let values = prop::collection::vec(("p[a-z]{0,3}", value()), 0..4);
        let reply = (any::<String>(), of(any::<Vec<u8>>()));
        let texts = (any::<String>(), of(any::<String>()), of(any::<String>()));
        (id(), texts, proptest::sample::select(verdicts), values, timestamp(), of(reply)).prop_map(
            |(id, (device, point, text), verdict, values, timestamp, reply)| {
                let values = values.into_iter().map(|(name, value)| (PointName::new(&name).unwrap(), value)).collect();
                let reply = reply.map(|(topic, correlation)| ReplyTo {
                    topic: Arc::from(topic),
                    correlation: correlation.map(Arc::from),
                });
                Body::Outcome(Outcome { id, device, point, verdict, text, values, timestamp, reply })
            },
        )
    }

    fn gap() -> impl Strategy<Value = Gap> {
        let device = ("d[a-z]{0,3}", of("p[a-z]{0,3}"), any::<u64>()).prop_map(|(device, point, count)| {
            let point = point.map(|point| PointName::new(&point).unwrap());
            GapRange::Device { device: DeviceName::new(&device).unwrap(), point, count }
        });
        let lane = proptest::sample::select(Lane::ALL.to_vec());
        let numbers = (lane, any::<u64>(), any::<u64>(), of(any::<u64>()), of(any::<u64>()))
            .prop_map(|(lane, epoch, from, to, count)| GapRange::Numbers { lane, epoch, from, to, count });
        let cause = proptest::sample::select(CAUSES.to_vec());
        (any::<u64>(), cause, prop_oneof![device, numbers], timestamp()).prop_map(|(n, cause, range, since)| Gap {
            n,
            cause,
            range,
            since,
        })
    }

    proptest! {
        #[test]
        fn a_gap_that_was_written_is_read(gap in gap()) {
            let mut bytes = Vec::new();
            gap.encode(&mut bytes);
            prop_assert_eq!(Gap::decode(&bytes), Ok(gap));
            for length in 0..bytes.len() {
                prop_assert_eq!(Gap::decode(&bytes[..length]), Err(NotABody), "cut at {}", length);
            }
        }

        #[test]
        fn what_was_written_is_read(body in prop_oneof![reading(), outcome()]) {
            let mut bytes = Vec::new();
            body.encode(&mut bytes);
            prop_assert_eq!(Body::decode_timestamp(&bytes), Ok(*body.timestamp()));
            prop_assert_eq!(Body::decode(&bytes), Ok(body));
            for length in 0..bytes.len() {
                prop_assert_eq!(Body::decode(&bytes[..length]), Err(NotABody), "cut at {}", length);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic_and_in_one_way_only(bytes: Vec<u8>) {
            if let Ok(body) = Body::decode(&bytes) {
                let mut again = Vec::new();
                body.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        let body = Body::Reading(Reading {
            device: DeviceName::new("tank").unwrap(),
            point: PointName::new("level").unwrap(),
            timestamp: Timestamp {
                uptime: Duration::from_millis(300),
                wall: Duration::from_millis(1),
                synced: false,
                boot: BootId(0x0102),
            },
            value: Some(Value::Int(-3)),
            unit: Some(Arc::from("cm")),
            quality: Quality::Good,
            cause: None,
        });
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        let expected =
            b"\x01\x00\xac\x02\x01\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04tank\x05level\0\x01\x02\x05\x01\x02cm\0";
        assert_eq!(bytes, expected);
    }
}
