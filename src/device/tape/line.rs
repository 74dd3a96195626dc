//! What stands in a recording: text, one JSON object a line.
//!
//! The first line is the [`Head`]; each other one is an [`Event`], at `t` seconds after it; the last one is
//! [`What::End`], with the CRC-32 of all lines before it, so that a file that was edited or cut off is told from one that
//! is as it came. Written and read by hand: derived code for these few keys would be several times as large.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value as Json};

#[cfg(feature = "desk")]
use crate::disk::CRC_32;
#[cfg(feature = "desk")]
use crate::model::time;
use crate::model::{BootId, DeviceName, Limit, PointName, Timestamp, Value};

/// The one format there is. What a later one changes, this program can't know.
pub(super) const FORMAT: u64 = 1;

/// What was recorded, where and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The device's name where it was recorded.
    pub device: DeviceName,
    /// Its kind.
    pub kind: String,
    /// The program's version.
    pub version: String,
    /// When it began: whole microseconds of uptime, and milliseconds of the date. Not `synced`: the board had no date.
    pub start: Timestamp,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Since the recording began.
    pub t: Duration,
    /// The date, since 1970, where the board had one, and the event is one that dates readings.
    pub date: Option<Duration>,
    /// What it is.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The driver began a life, with what it knew.
    Start(Seed),
    /// Bytes came.
    In(Vec<u8>),
    /// Bytes were sent.
    Out(Vec<u8>),
    /// The line was set to this speed.
    Baud(u32),
    /// The driver began with a write, of these values in the points' units; it had so long to act.
    Write(Vec<(PointName, Value)>, Duration),
    /// The driver's life ended, and why.
    Lost(String),
    /// A driver without bytes said this of a point, or of the device.
    Report(Report),
    /// So many events came faster than they could be written down.
    Missed(u64),
    /// The recording was ended; the CRC-32 of the lines before.
    End(u32),
}

impl What {
    #[cfg(feature = "desk")]
    /// Whether nothing of the driver's life is behind this.
    pub(super) fn is_an_end(&self) -> bool {
        matches!(self, What::Lost(_) | What::End(_))
    }
}

/// What a driver says to the gateway.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A raw value.
    Value(PointName, Value),
    /// A raw value that was right once.
    Stale(PointName, Value),
    /// What is no value.
    Bad(PointName),
    /// An output has this raw value.
    Output(PointName, Value),
    /// The device answers.
    Online,
    /// It does not, and why.
    Offline(String),
}

/// What a driver knows when its life begins, of the one before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seed {
    /// Bytes that came, and are no whole frame yet.
    pub held: Vec<u8>,
    /// Whether the next frame is left out. `None`: as the config says.
    pub skip: Option<bool>,
    /// Questions that may still be answered late, oldest first, in the bytes of their protocol.
    pub owed: Vec<Vec<u8>>,
    /// Questions that were answered, in the bytes of their protocol.
    pub known: Vec<Vec<u8>>,
    /// Whether what is said comes back. `None`: nobody knows.
    pub echoes: Option<bool>,
    /// On which side of their limits points are.
    pub places: Vec<(PointName, Limit)>,
}

impl Head {
    /// As a line.
    pub fn line(&self) -> String {
        let date = self.start.rfc3339().map(|date| format!(r#","date":"{date}""#)).unwrap_or_default();
        format!(
            r#"{{"sluicegate":"recording","format":{FORMAT},"version":{},"device":"{}","kind":"{}"{date},"uptime":{}}}"#,
            text(&self.version),
            self.device,
            self.kind,
            seconds(self.start.uptime)
        )
    }

    #[cfg(feature = "desk")]
    fn read(line: &str) -> Result<Self, String> {
        let no_recording = || "it is no recording of `sluicegate record`".to_owned();
        let line = object(line).map_err(|_| no_recording())?;
        if line.get("sluicegate").and_then(Json::as_str) != Some("recording") {
            return Err(no_recording());
        }
        match line.get("format").and_then(Json::as_u64) {
            Some(FORMAT) => {}
            Some(other) => return Err(format!("it has format {other}: this program reads format {FORMAT}")),
            None => return Err(no_recording()),
        }
        let date = date(&line, "date")?;
        Ok(Head {
            device: DeviceName::new(string(&line, "device")?).map_err(|error| error.to_string())?,
            kind: string(&line, "kind")?.to_owned(),
            version: string(&line, "version")?.to_owned(),
            start: Timestamp {
                uptime: duration(&line, "uptime")?,
                wall: date.unwrap_or_default(),
                synced: date.is_some(),
                boot: BootId::UNKNOWN,
            },
        })
    }
}

impl Event {
    /// As a line.
    pub fn line(&self) -> String {
        let mut line = format!(r#"{{"t":{}"#, seconds(self.t));
        if let Some(date) = self.date {
            let date = Timestamp { uptime: self.t, wall: date, synced: true, boot: BootId::UNKNOWN }.rfc3339();
            push(&mut line, "at", &text(&date.unwrap_or_default()));
        }
        match &self.what {
            What::Start(seed) => push(&mut line, "start", &seed.object()),
            What::In(bytes) => push(&mut line, "in", &hex(bytes)),
            What::Out(bytes) => push(&mut line, "out", &hex(bytes)),
            What::Baud(rate) => push(&mut line, "baud", &rate.to_string()),
            What::Write(values, timeout) => {
                let values: Vec<String> = values.iter().map(|(point, value)| valued(point, value)).collect();
                push(&mut line, "write", &format!("[{}]", values.join(",")));
                push(&mut line, "timeout", &seconds(*timeout));
            }
            What::Lost(why) => push(&mut line, "lost", &text(why)),
            What::Report(report) => {
                let (how, body) = match report {
                    Report::Value(point, value) => ("value", valued(point, value)),
                    Report::Stale(point, value) => ("stale", valued(point, value)),
                    Report::Output(point, value) => ("output", valued(point, value)),
                    Report::Bad(point) => ("bad", text(point.as_str())),
                    Report::Online => ("online", "true".to_owned()),
                    Report::Offline(why) => ("offline", text(why)),
                };
                push(&mut line, how, &body);
            }
            What::Missed(count) => push(&mut line, "missed", &count.to_string()),
            What::End(sum) => push(&mut line, "end", &text(&format!("{sum:08x}"))),
        }
        line + "}"
    }

    #[cfg(feature = "desk")]
    /// The CRC-32 that it has, if it is the end.
    pub fn end(&self) -> Option<u32> {
        match self.what {
            What::End(sum) => Some(sum),
            _ => None,
        }
    }

    /// Whether this line is the end.
    pub fn is_end(line: &str) -> bool {
        object(line).is_ok_and(|line| line.contains_key("end"))
    }

    /// How many events this line says were missed.
    pub fn missed(line: &str) -> u64 {
        object(line).ok().and_then(|line| line.get("missed")?.as_u64()).unwrap_or_default()
    }

    #[cfg(feature = "desk")]
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &str) -> Result<Self, String> {
        let line = object(line)?;
        let (t, date) = (duration(&line, "t")?, date(&line, "at")?);
        let mut keys = line.keys().filter(|key| !matches!(key.as_str(), "t" | "at" | "timeout"));
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err("expected one thing that happened, such as \"in\" or \"out\"".to_owned());
        };
        let body = line.get(key).unwrap_or(&Json::Null);
        let what = match key.as_str() {
            "start" => What::Start(Seed::read(body.as_object().ok_or("`start` is no object")?)?),
            "in" => What::In(unhex(&line, key)?),
            "out" => What::Out(unhex(&line, key)?),
            "baud" => What::Baud(number(&line, key)?.try_into().map_err(|_| "`baud` is no speed of a line")?),
            "write" => {
                let values = body.as_array().ok_or("`write` is no list")?.iter().map(point_and_value);
                What::Write(values.collect::<Result<_, _>>()?, duration(&line, "timeout")?)
            }
            "lost" => What::Lost(string(&line, key)?.to_owned()),
            "value" | "stale" | "output" => {
                let (point, value) = point_and_value(body)?;
                What::Report(match key.as_str() {
                    "value" => Report::Value(point, value),
                    "stale" => Report::Stale(point, value),
                    _ => Report::Output(point, value),
                })
            }
            "bad" => What::Report(Report::Bad(point(string(&line, key)?)?)),
            "online" => What::Report(Report::Online),
            "offline" => What::Report(Report::Offline(string(&line, key)?.to_owned())),
            "missed" => What::Missed(number(&line, key)?),
            "end" => {
                let sum = u32::from_str_radix(string(&line, key)?, 16);
                What::End(sum.map_err(|_| "`end` is not the CRC-32 of the lines before")?)
            }
            other => return Err(format!("`{other}` is nothing that is recorded")),
        };
        Ok(Event { t, date, what })
    }
}

impl Seed {
    fn object(&self) -> String {
        let mut parts = Vec::new();
        if !self.held.is_empty() {
            parts.push(format!(r#""held":{}"#, hex(&self.held)));
        }
        parts.extend(self.skip.map(|skip| format!(r#""skip":{skip}"#)));
        for (key, questions) in [("owed", &self.owed), ("known", &self.known)] {
            if !questions.is_empty() {
                let questions: Vec<String> = questions.iter().map(|question| hex(question)).collect();
                parts.push(format!(r#""{key}":[{}]"#, questions.join(",")));
            }
        }
        parts.extend(self.echoes.map(|echoes| format!(r#""echoes":{echoes}"#)));
        for (point, place) in &self.places {
            let place = match place {
                Limit::Normal => "normal",
                Limit::High => "high",
                Limit::Low => "low",
            };
            // A point's name has no colon.
            parts.push(format!(r#""limit:{point}":"{place}""#));
        }
        format!("{{{}}}", parts.join(","))
    }

    #[cfg(feature = "desk")]
    fn read(body: &Map<String, Json>) -> Result<Self, String> {
        let mut seed = Seed::default();
        for key in body.keys() {
            match (key.as_str(), key.strip_prefix("limit:")) {
                ("held", _) => seed.held = unhex(body, key)?,
                ("skip", _) => seed.skip = Some(truth(body, key)?),
                ("echoes", _) => seed.echoes = Some(truth(body, key)?),
                ("owed", _) => seed.owed = questions(body, key)?,
                ("known", _) => seed.known = questions(body, key)?,
                (_, Some(name)) => {
                    let place = match string(body, key)? {
                        "normal" => Limit::Normal,
                        "high" => Limit::High,
                        "low" => Limit::Low,
                        other => return Err(format!("`{other}` is no place to limits: expected normal, high or low")),
                    };
                    seed.places.push((point(name)?, place));
                }
                (other, None) => return Err(format!("`{other}` is nothing that a start has")),
            }
        }
        Ok(seed)
    }
}

#[cfg(feature = "desk")]
/// Reads a recording.
///
/// # Errors
/// What is wrong, with the number of the line.
pub fn read(text: &str) -> Result<(Head, Vec<Event>), String> {
    let mut lines = (1..).zip(text.lines());
    let (_, first) = lines.next().ok_or("line 1: it is empty")?;
    let head = Head::read(first).map_err(|error| format!("line 1: {error}"))?;
    let mut events: Vec<Event> = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let event = Event::read(line).map_err(|error| format!("line {number}: {error}"))?;
        if matches!(events.last(), Some(Event { what: What::End(_), .. })) {
            return Err(format!("line {number}: there is more behind the end"));
        }
        events.push(event);
    }
    match events.first() {
        Some(Event { what: What::Start(_), .. }) => Ok((head, events)),
        _ => Err("line 2: expected the driver's start".to_owned()),
    }
}

/// The CRC-32 of lines as they stand in the file.
#[cfg(feature = "desk")]
pub fn sum<'a>(lines: impl Iterator<Item = &'a str>) -> u32 {
    let mut sum = CRC_32.digest();
    for line in lines {
        sum.update(line.as_bytes());
        sum.update(b"\n");
    }
    sum.finalize()
}

/// Bytes as they are shown: two digits each.
pub(in crate::device) fn digits(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn push(line: &mut String, key: &str, body: &str) {
    // Writing to a text can't fail.
    write!(line, r#","{key}":{body}"#).unwrap_or_default();
}

/// With six digits: whole microseconds.
fn seconds(time: Duration) -> String {
    format!("{}.{:06}", time.as_secs(), time.subsec_micros())
}

fn hex(bytes: &[u8]) -> String {
    format!("\"{}\"", digits(bytes))
}

fn text(text: &str) -> String {
    Json::from(text).to_string()
}

/// As text with its type: JSON's numbers would not come back as the same ones.
fn valued(point: &PointName, value: &Value) -> String {
    let name = match value {
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float",
        Value::Text(_) => "text",
    };
    format!(r#"{{"point":"{point}","{name}":{}}}"#, text(&value.to_string()))
}

#[cfg(feature = "desk")]
fn point_and_value(body: &Json) -> Result<(PointName, Value), String> {
    let body = body.as_object().ok_or("expected an object with `point` and its value")?;
    let name = point(string(body, "point")?)?;
    let wrong = |key: &str| format!("`{key}` is no value of its type");
    let mut rest = body.keys().filter(|key| *key != "point");
    let (Some(key), None) = (rest.next(), rest.next()) else {
        return Err("expected one of `bool`, `int`, `float` and `text`".to_owned());
    };
    let text = string(body, key)?;
    let value = match key.as_str() {
        "bool" => text.parse().map(Value::Bool).map_err(|_| wrong(key)),
        "int" => text.parse().map(Value::Int).map_err(|_| wrong(key)),
        "float" => text.parse().map(Value::Float).map_err(|_| wrong(key)),
        "text" => Ok(Value::text(text)),
        other => Err(format!("`{other}` is no type: expected bool, int, float or text")),
    };
    Ok((name, value?))
}

fn object(line: &str) -> Result<Map<String, Json>, String> {
    match serde_json::from_str(line) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err("expected an object".to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

#[cfg(feature = "desk")]
fn string<'a>(line: &'a Map<String, Json>, key: &str) -> Result<&'a str, String> {
    line.get(key).and_then(Json::as_str).ok_or_else(|| format!("expected `{key}`, a text"))
}

#[cfg(feature = "desk")]
fn truth(line: &Map<String, Json>, key: &str) -> Result<bool, String> {
    line.get(key).and_then(Json::as_bool).ok_or_else(|| format!("expected `{key}`, true or false"))
}

#[cfg(feature = "desk")]
fn number(line: &Map<String, Json>, key: &str) -> Result<u64, String> {
    line.get(key).and_then(Json::as_u64).ok_or_else(|| format!("expected `{key}`, a whole number"))
}

#[cfg(feature = "desk")]
fn point(name: &str) -> Result<PointName, String> {
    PointName::new(name).map_err(|error| error.to_string())
}

#[cfg(feature = "desk")]
fn unhex(line: &Map<String, Json>, key: &str) -> Result<Vec<u8>, String> {
    base16ct::mixed::decode_vec(string(line, key)?).map_err(|_| format!("`{key}` is not bytes in hexadecimal digits"))
}

#[cfg(feature = "desk")]
fn questions(line: &Map<String, Json>, key: &str) -> Result<Vec<Vec<u8>>, String> {
    let list = line.get(key).and_then(Json::as_array).ok_or_else(|| format!("`{key}` is no list"))?;
    let each = list.iter().map(|question| base16ct::mixed::decode_vec(question.as_str()?).ok());
    each.collect::<Option<_>>().ok_or_else(|| format!("`{key}` is not bytes in hexadecimal digits"))
}

#[cfg(feature = "desk")]
/// Seconds; a century is more than any recording has.
fn duration(line: &Map<String, Json>, key: &str) -> Result<Duration, String> {
    let found = line.get(key).and_then(Json::as_f64).filter(|seconds| (0.0..4e9).contains(seconds));
    let micros = found.map(|seconds| (seconds * 1e6).round());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 4e15")]
    let time = micros.map(|micros| Duration::from_micros(micros as u64));
    time.ok_or_else(|| format!("expected `{key}`, a number of seconds"))
}

#[cfg(feature = "desk")]
fn date(line: &Map<String, Json>, key: &str) -> Result<Option<Duration>, String> {
    /// 2200: a date that no clock shows and no text can hold is not to be reckoned with.
    const LATEST: Duration = Duration::from_secs(7_258_118_400);
    let date = line.get(key).map(|_| time::parse(string(line, key)?)).transpose()?;
    if date.is_some_and(|date| date > LATEST) { Err(format!("`{key}` is no date of a recording")) } else { Ok(date) }
}
