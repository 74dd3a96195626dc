//! The `plain` dialect: how readings, outcomes and gaps are spelled, and how commands are read. Pure functions.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::change::Spelling;
use super::topics::Target;
use super::{Payload, format};
use crate::link::{self, Content, Message};
use crate::model::{
    Command, CommandId, Gap, GapRange, Lane, Number, Outcome, PointName, Quality, Reading, ReplyTo, Span, Timestamp,
    Value, Verdict, time,
};

/// The largest payload of a command, in bytes: its values and its answer fit into what an outcome may take.
const MAX_COMMAND: usize = 8 * 1024;

/// What the values of a command may take, in bytes: a short number in JSON can be a long text.
const MAX_VALUES: usize = MAX_COMMAND + 1024;

/// The longest Response Topic and the longest Correlation Data that are answered to, in bytes: they are kept with the
/// outcome.
const MAX_REPLY: usize = 1024;

// What the link cuts short is larger than any command.
const _: () = assert!(MAX_COMMAND < link::CUT && link::CUT < link::MAX_INCOMING);

/// The time fields of every payload: a date where the clock is set, else how long after which boot.
#[derive(Serialize)]
pub(super) struct Moment {
    ts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<&'static str>,
}

impl Moment {
    /// `now`: what was taken before the clock was set gets its date when it goes out.
    pub(super) fn new(at: &Timestamp, now: &Timestamp) -> Self {
        match at.dated(now).rfc3339() {
            Some(ts) => Moment { ts: Some(ts), uptime: None, boot: None, clock: None },
            None => {
                let (uptime, boot) = (Some(at.uptime.as_secs_f64()), Some(at.boot.to_string()));
                Moment { ts: None, uptime, boot, clock: Some("unsynced") }
            }
        }
    }
}

/// How a record's number stands in its payload.
#[derive(Serialize)]
struct Numbered {
    lane: Lane,
    epoch: u64,
    seq: u64,
}

impl Numbered {
    fn new(number: Option<(Lane, Number)>) -> Option<Self> {
        number.map(|(lane, number)| Numbered { lane, epoch: number.epoch, seq: number.seq })
    }
}

/// Which copy of a reading this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copy {
    /// It goes out as it comes.
    Live,
    /// It waited for this connection.
    Late,
    /// The last value, published again.
    Repeat,
}

/// The payload of a reading.
pub(super) fn reading(
    form: Payload,
    reading: &Reading,
    number: Option<(Lane, Number)>,
    copy: Copy,
    now: &Timestamp,
) -> (Bytes, Content) {
    #[derive(Serialize)]
    struct Fields<'a> {
        #[serde(flatten)]
        moment: Moment,
        value: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        unit: Option<&'a str>,
        quality: Quality,
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
        #[serde(flatten)]
        number: Option<Numbered>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        late: bool,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        repeat: bool,
    }
    let fields = Fields {
        moment: Moment::new(&reading.timestamp, now),
        value: reading.value.as_ref(),
        unit: reading.unit.as_deref(),
        quality: reading.quality,
        cause: reading.cause.as_ref().map(ToString::to_string),
        number: Numbered::new(number),
        late: copy == Copy::Late,
        repeat: copy == Copy::Repeat,
    };
    format::write(form, "reading", &fields)
}

/// The bare value of a reading; empty where there is none, or none that can be bytes.
pub(super) fn bare(form: Payload, reading: &Reading) -> (Bytes, Content) {
    let text = reading.value.as_ref().map(ToString::to_string).unwrap_or_default();
    match form {
        Payload::Bytes => {
            let bytes = base16ct::mixed::decode_vec(&text).unwrap_or_default();
            (Bytes::from(bytes), Content::Bytes)
        }
        _ => (Bytes::from(text), Content::Text),
    }
}

/// The payload of an outcome.
pub(super) fn outcome(
    form: Payload,
    outcome: &Outcome,
    number: Option<(Lane, Number)>,
    late: bool,
    now: &Timestamp,
) -> (Bytes, Content) {
    #[derive(Serialize)]
    struct Fields<'a> {
        id: &'a CommandId,
        outcome: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        #[serde(flatten)]
        moment: Moment,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        values: Option<std::collections::BTreeMap<&'a str, &'a Value>>,
        #[serde(flatten)]
        number: Option<Numbered>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        late: bool,
    }
    let single = outcome.point.is_some();
    let all = outcome.values.iter().map(|(name, value): &(PointName, Value)| (name.as_str(), value));
    let fields = Fields {
        id: &outcome.id,
        outcome: outcome.verdict.word(),
        reason: match outcome.verdict {
            Verdict::Rejected(reason) => Some(reason.word()),
            _ => None,
        },
        text: outcome.text.as_deref(),
        moment: Moment::new(&outcome.timestamp, now),
        value: outcome.values.first().filter(|_| single).map(|(_, value)| value),
        values: (!single && !outcome.values.is_empty()).then(|| all.collect()),
        number: Numbered::new(number),
        late,
    };
    format::write(form, "outcome", &fields)
}

/// The payload of a gap.
pub(super) fn gap(gap: &Gap, now: &Timestamp) -> (Bytes, Content) {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum What<'a> {
        Numbers { lane: Lane, epoch: u64, from: u64, to: Option<u64>, count: Option<u64> },
        Device { device: &'a str, point: Option<&'a str>, count: u64 },
    }
    #[derive(Serialize)]
    struct Fields<'a> {
        n: u64,
        #[serde(flatten)]
        what: What<'a>,
        cause: crate::model::GapCause,
        #[serde(flatten)]
        moment: Moment,
    }
    let what = match &gap.range {
        GapRange::Numbers { lane, epoch, from, to, count } => {
            What::Numbers { lane: *lane, epoch: *epoch, from: *from, to: *to, count: *count }
        }
        GapRange::Device { device, point, count } => {
            What::Device { device: device.as_str(), point: point.as_ref().map(PointName::as_str), count: *count }
        }
    };
    json(&Fields { n: gap.n, what, cause: gap.cause, moment: Moment::new(&gap.since, now) })
}

/// What is JSON whatever the points have.
pub(super) fn json(payload: &impl Serialize) -> (Bytes, Content) {
    format::write(Payload::Json, "", payload)
}

/// A number or a date, as senders write times.
#[derive(Deserialize)]
#[serde(untagged)]
enum When {
    Seconds(f64),
    Text(String),
}

impl When {
    fn since_1970(&self) -> Result<Duration, String> {
        match self {
            When::Seconds(secs) => Duration::try_from_secs_f64(*secs).map_err(|_| format!("`{secs}` is not a time")),
            When::Text(text) => time::parse(text),
        }
    }
}

/// Seconds as a number, or a duration such as `"30s"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Length {
    Seconds(f64),
    Text(String),
}

impl Length {
    fn duration(&self) -> Result<Duration, String> {
        match self {
            Length::Seconds(secs) => {
                Duration::try_from_secs_f64(*secs).map_err(|_| format!("`{secs}` is not a duration"))
            }
            Length::Text(text) => text.parse().map(|Span(duration)| duration),
        }
    }
}

/// Reads a command. What can't be read becomes a command whose values are the error, so that it is answered.
pub(super) fn command(target: Target<'_>, message: &Message, reply: Option<ReplyTo>, spelling: Spelling) -> Command {
    let mut command = Command {
        id: None,
        device: target.device.to_owned(),
        point: target.point.map(str::to_owned),
        values: Ok(Vec::new()),
        arrived: time::now(),
        sent: None,
        expires: None,
        ttl: message.expiry,
        lease: None,
        retained: message.retain,
        reply,
    };
    command.values = read(target, &message.payload, spelling, &mut command);
    command
}

fn read(
    target: Target<'_>,
    payload: &[u8],
    spelling: Spelling,
    command: &mut Command,
) -> Result<Vec<(String, Value)>, String> {
    if payload.len() > MAX_COMMAND {
        return Err(format!("the payload is too large: a command has at most {MAX_COMMAND} bytes"));
    }
    // On 3.1.1 nothing else tells the clearing of a retained message from a command.
    if payload.is_empty() && target.point.is_some() {
        return Err("the payload is empty".to_owned());
    }
    let said = match spelling.payload {
        Payload::Cbor => Said::Fields(format::from_cbor(payload)?, None),
        Payload::Bytes if payload.len() > MAX_COMMAND / 2 => {
            return Err(format!("the payload is too large: of bare bytes a command has at most {}", MAX_COMMAND / 2));
        }
        Payload::Bytes => Said::Bare(Value::text(base16ct::lower::encode_string(payload))),
        Payload::Json | Payload::Value | Payload::Xml => {
            let text = std::str::from_utf8(payload).map_err(|_| "the payload is not UTF-8 text".to_owned())?;
            read_text(text, spelling)?
        }
    };
    let (mut object, text) = match (said, target.point) {
        (Said::Fields(object, text), _) => (object, text),
        (Said::Bare(value), Some(point)) => return Ok(vec![(point.to_owned(), value)]),
        (Said::Bare(_), None) => return Err("expected a JSON object with \"values\"".to_owned()),
    };
    // The id first: whatever else is wrong, the sender is answered under it.
    if let Some(id) = object.remove("id") {
        let id = match id {
            serde_json::Value::String(id) => id,
            serde_json::Value::Number(id) => id.to_string(),
            other => return Err(format!("`{other}` is no id: expected text")),
        };
        command.id = Some(CommandId::new(&id).ok_or("an id has 1 to 64 bytes and no control characters")?);
    }
    // Which of two is meant, nobody can say.
    if let Some(json) = text {
        serde_json::from_str::<Unique>(json).map_err(|error| error.to_string())?;
    }
    let time = |value: Option<serde_json::Value>, key: &str| -> Result<Option<Duration>, String> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        let when: When = serde_json::from_value(value).map_err(|_| format!("`{key}` is no time"))?;
        when.since_1970().map(Some)
    };
    let length = |value: Option<serde_json::Value>, key: &str| -> Result<Option<Duration>, String> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        let length: Length = serde_json::from_value(value).map_err(|_| format!("`{key}` is no duration"))?;
        length.duration().map(Some)
    };
    command.sent = time(object.remove("ts"), "ts")?;
    command.expires = time(object.remove("expires"), "expires")?;
    let ttl = length(object.remove("ttl"), "ttl")?;
    command.ttl = ttl.into_iter().chain(command.ttl).min();
    command.lease = length(object.remove("for"), "for")?;
    let values = match (target.point, object.remove("value"), object.remove("values")) {
        (Some(point), Some(one), None) => vec![(point.to_owned(), value(&one)?)],
        (Some(_), _, _) => return Err("expected \"value\"".to_owned()),
        (None, None, Some(serde_json::Value::Object(all))) if !all.is_empty() => {
            all.into_iter().map(|(point, one)| Ok((point, value(&one)?))).collect::<Result<_, String>>()?
        }
        (None, _, _) => return Err("expected \"values\" with a value for each point".to_owned()),
    };
    if let Some(key) = object.keys().next() {
        return Err(format!("unknown key `{key}`: expected id, value or values, ts, expires, ttl, for"));
    }
    // Beside each value and its name their lengths and types are kept.
    let size = values.iter().map(|(point, value): &(String, Value)| point.len() + value.to_string().len() + 16);
    if size.sum::<usize>() > MAX_VALUES {
        return Err(format!("the values are too large: together they may take {MAX_VALUES} bytes"));
    }
    Ok(values)
}

/// What a payload says.
enum Said<'a> {
    /// Nothing but a value.
    Bare(Value),
    /// Fields; of JSON with its text, in which a key may still be there twice.
    Fields(serde_json::Map<String, serde_json::Value>, Option<&'a str>),
}

/// XML where the point has it, JSON, or a bare value.
fn read_text(text: &str, spelling: Spelling) -> Result<Said<'_>, String> {
    if spelling.payload == Payload::Xml && text.trim_start().starts_with('<') {
        let mut fields = format::from_xml(text.trim())?;
        // XML knows texts only: seconds are numbers.
        for (_, field) in fields.iter_mut().filter(|(key, _)| ["ts", "expires", "ttl", "for"].contains(&key.as_str())) {
            let number = field.as_str().and_then(|text| text.trim().parse::<f64>().ok());
            if let Some(number) = number.and_then(serde_json::Number::from_f64) {
                *field = serde_json::Value::Number(number);
            }
        }
        return Ok(Said::Fields(fields, None));
    }
    let object = text.trim_start().starts_with('{').then(|| serde_json::from_str::<serde_json::Value>(text));
    match object {
        Some(Ok(serde_json::Value::Object(object))) if !spelling.text || object.contains_key("value") => {
            Ok(Said::Fields(object, Some(text)))
        }
        Some(Err(error)) if !spelling.text => Err(format!("the payload is no JSON: {error}")),
        _ if spelling.text => Ok(Said::Bare(Value::text(text))),
        _ => Ok(Said::Bare(Value::text(text.trim()))),
    }
}

fn value(json: &serde_json::Value) -> Result<Value, String> {
    match json {
        serde_json::Value::Bool(b) => Ok(Value::Bool(*b)),
        serde_json::Value::Number(n) => n
            .as_i64()
            .map(Value::Int)
            .or_else(|| n.as_f64().filter(|f| f.is_finite()).map(Value::Float))
            .ok_or_else(|| format!("`{n}` is too large")),
        serde_json::Value::String(text) => Ok(Value::text(text)),
        other => Err(format!("`{other}` is no value: expected a number, true, false or text")),
    }
}

/// JSON in which no object has a key twice; `serde_json` by itself takes the last one.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unique)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, Unique)) = map.next_entry::<String, Unique>()? {
            if let Some(key) = keys.replace(key) {
                return Err(de::Error::custom(format_args!("the key `{key}` is there twice")));
            }
        }
        Ok(Unique)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Unique>()?.is_some() {}
        Ok(Unique)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(Unique)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Unique)
    }
}

/// What a sender of MQTT 5 wants back; nothing where it asks for more than can be kept.
pub(super) fn reply_to(message: &Message) -> Option<ReplyTo> {
    let topic = message.response_topic.as_deref().filter(|topic| topic.len() <= MAX_REPLY)?;
    let correlation = message.correlation.as_deref();
    if correlation.is_some_and(|correlation| correlation.len() > MAX_REPLY) {
        return None;
    }
    Some(ReplyTo { topic: Arc::from(topic), correlation: correlation.map(Arc::from) })
}

#[cfg(test)]
mod tests;
