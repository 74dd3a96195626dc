//! From a frame, or a message, to the raw values in it: a pure function of bytes.

mod check;
mod config;
mod crc;
mod fields;
mod json;
mod mark;
mod noise;
mod number;
#[cfg(test)]
mod tests;
mod xml;

use std::borrow::Cow;

use regex_lite::Regex;

pub(super) use self::check::Check;
pub(super) use self::config::{Decode, From};
use self::fields::Field;
use self::json::Pointers;
pub(super) use self::mark::Mark;
pub(super) use self::noise::Noise;
pub(super) use self::number::{Bits, Number, Order};
use self::xml::Paths;
use crate::model::{Value, ValueType};

/// How the frames of one device are read. Each point that reads has a slot, by its place in the list of them.
#[derive(Debug)]
pub(in crate::device) struct Decoder {
    how: How,
    /// The declared types of the points.
    types: Vec<Option<ValueType>>,
}

#[derive(Debug)]
enum How {
    Json(Pointers),
    Xml(Paths),
    Csv { separator: char, columns: Vec<usize> },
    KeyValue { separator: Option<String>, assign: String, end: String, keys: Vec<String> },
    Regex { pattern: Regex, captures: Vec<usize> },
    Fields(Vec<Field>),
    Text,
    Bytes,
}

/// What a frame has for a point.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::device) enum Slot {
    /// Nothing: the frame is no reading of this point.
    #[default]
    Absent,
    /// Something that is no value, such as JSON's `null` or an object.
    Bad,
    /// A raw value.
    Value(Value),
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::device) enum Undecodable {
    #[error("it is longer than {0}")]
    TooLong(&'static str),
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("it is not XML: {0}")]
    NotXml(String),
    #[error("it has none of the columns")]
    NoColumn,
    #[error("it has no pair of key and value")]
    NoPair,
    #[error("the pattern does not match")]
    NoMatch,
    #[error("it is too short for all fields")]
    NoField,
    /// What is wrong with the frame itself.
    #[error("{0}")]
    Frame(&'static str),
}

impl Decoder {
    /// A decoder for points that read from these places, of these types.
    ///
    /// # Errors
    /// What is wrong, with the number of the point, or without for the decoder itself.
    pub(in crate::device) fn new(
        decode: &Decode,
        points: &[(Option<From>, Option<ValueType>)],
    ) -> Result<Self, Vec<(Option<usize>, String)>> {
        let mut faults = Vec::new();
        let mut each = |expected: &str, check: &mut dyn FnMut(&From) -> bool| {
            for (slot, (from, _)) in points.iter().enumerate() {
                if !from.as_ref().is_some_and(&mut *check) {
                    faults.push((Some(slot), expected.to_owned()));
                }
            }
        };
        let names = || points.iter().map(|(from, _)| name(from.as_ref()).unwrap_or_default().to_owned());
        let how = match decode {
            Decode::Json {} => {
                each("expected a JSON pointer such as \"/level\"", &mut |from| {
                    name(Some(from)).is_some_and(|pointer| pointer.is_empty() || pointer.starts_with('/'))
                });
                How::Json(Pointers::new(names()))
            }
            Decode::Xml {} => {
                let expected =
                    "expected the names of elements, such as \"/status/tank/level\", or \"/status/tank/@unit\"";
                each(expected, &mut |from| name(Some(from)).is_some_and(xml::is_path));
                How::Xml(Paths::new(points.iter().map(|(from, _)| name(from.as_ref()).unwrap_or_default())))
            }
            Decode::Csv { separator } => {
                let mut columns = Vec::new();
                each("expected the number of a column, from 1", &mut |from| match from {
                    From::Column(column) if *column > 0 => {
                        columns.push(*column - 1);
                        true
                    }
                    _ => false,
                });
                How::Csv { separator: *separator, columns }
            }
            Decode::KeyValue { separator, assign, end } => {
                each("expected a key, as text", &mut |from| name(Some(from)).is_some_and(|key| !key.is_empty()));
                let (separator, assign, end) = (separator.clone(), assign.clone(), end.clone());
                How::KeyValue { separator, assign, end, keys: names().collect() }
            }
            Decode::Fields {} => {
                let mut fields = Vec::new();
                for (slot, (from, _)) in points.iter().enumerate() {
                    let fault = match from {
                        Some(From::Field(field)) => field.fault(),
                        _ => Some("expected a field such as { at = 4, as = \"u16\" }"),
                    };
                    faults.extend(fault.map(|text| (Some(slot), text.to_owned())));
                    fields.extend(from.as_ref().and_then(From::field).cloned());
                }
                How::Fields(fields)
            }
            Decode::Regex { pattern } => {
                let pattern =
                    Regex::new(pattern).map_err(|error| vec![(None, format!("`pattern` is wrong: {error}"))])?;
                let known: Vec<_> = pattern.capture_names().collect();
                let mut captures = Vec::new();
                let list: Vec<_> = known.iter().flatten().copied().collect();
                let expected = format!("expected one of the pattern's named captures ({})", list.join(", "));
                each(&expected, &mut |from| {
                    let place = known.iter().position(|known| known.is_some() && *known == name(Some(from)));
                    captures.extend(place);
                    place.is_some()
                });
                drop(known);
                How::Regex { pattern, captures }
            }
            Decode::Text {} | Decode::Bytes {} => {
                for (slot, (from, _)) in points.iter().enumerate() {
                    if from.is_some() {
                        let text = "a frame taken as a whole has no parts: remove `from`, or set `decode`";
                        faults.push((Some(slot), text.to_owned()));
                    }
                }
                if matches!(decode, Decode::Text {}) { How::Text } else { How::Bytes }
            }
        };
        let types = points.iter().map(|(_, value_type)| *value_type).collect();
        if faults.is_empty() { Ok(Decoder { how, types }) } else { Err(faults) }
    }

    /// Fills one slot for each point from a frame.
    ///
    /// # Errors
    /// When the frame can't be read as a whole; the slots mean nothing then.
    pub(in crate::device) fn decode(&self, frame: &[u8], slots: &mut [Slot]) -> Result<(), Undecodable> {
        slots.fill(Slot::Absent);
        match &self.how {
            How::Json(pointers) => pointers.read(frame, slots)?,
            How::Xml(paths) => paths.read(text(frame)?, slots, |slot, field| self.field(slot, field))?,
            How::Csv { separator, columns } => {
                let mut found = columns.is_empty();
                for (column, field) in Columns::new(text(frame)?, *separator).enumerate() {
                    let wanted = columns.iter().enumerate().filter(|(_, wanted)| **wanted == column);
                    wanted.for_each(|(slot, _)| {
                        slots[slot] = self.field(slot, &field);
                        found = true;
                    });
                }
                if !found {
                    return Err(Undecodable::NoColumn);
                }
            }
            How::KeyValue { separator, assign, end, keys } => {
                let mut found = false;
                let mut pair = |pair: &str| {
                    let Some((key, value)) = pair.split_once(assign.as_str()) else { return };
                    let value = value.split(|c| end.contains(c)).next().unwrap_or_default();
                    found = true;
                    let wanted = keys.iter().enumerate().filter(|(_, wanted)| *wanted == key.trim());
                    wanted.for_each(|(slot, _)| slots[slot] = self.field(slot, value));
                };
                match separator {
                    Some(separator) => text(frame)?.split(separator.as_str()).for_each(&mut pair),
                    None => text(frame)?.split([' ', '\t', '\r', '\n', ',', ';']).for_each(&mut pair),
                }
                if !found {
                    return Err(Undecodable::NoPair);
                }
            }
            How::Regex { pattern, captures } => {
                let found = pattern.captures(text(frame)?).ok_or(Undecodable::NoMatch)?;
                for (slot, capture) in captures.iter().enumerate() {
                    if let Some(capture) = found.get(*capture) {
                        slots[slot] = self.field(slot, capture.as_str());
                    }
                }
            }
            How::Fields(fields) => {
                for (slot, field) in slots.iter_mut().zip(fields) {
                    *slot = field.read(frame);
                }
                if !fields.is_empty() && slots.iter().all(|slot| *slot == Slot::Absent) {
                    return Err(Undecodable::NoField);
                }
            }
            How::Text => slots.fill(Slot::Value(Value::text(text(frame)?.trim()))),
            How::Bytes => slots.fill(Slot::Value(Value::text(base16ct::lower::encode_string(frame)))),
        }
        Ok(())
    }

    /// Whether it reads bytes, and so a frame as a whole, and not the message in it.
    pub(in crate::device) fn is_of_bytes(&self) -> bool {
        matches!(self.how, How::Fields(_) | How::Bytes)
    }

    /// A field of text as a raw value: a number where it reads as one, unless the point is declared as text. An empty
    /// field says nothing, but for text.
    fn field(&self, slot: usize, field: &str) -> Slot {
        let field = field.trim();
        let is_text = self.types[slot] == Some(ValueType::Text);
        if field.is_empty() && !is_text {
            return Slot::Absent;
        }
        let number = if is_text { None } else { number(field) };
        Slot::Value(number.unwrap_or_else(|| Value::text(field)))
    }
}

fn name(from: Option<&From>) -> Option<&str> {
    match from {
        Some(From::Name(name)) => Some(name),
        _ => None,
    }
}

fn text(frame: &[u8]) -> Result<&str, Undecodable> {
    std::str::from_utf8(frame).map_err(|_| Undecodable::NotUtf8)
}

/// The number that a text is. Digits that no integer holds stay text: they are somebody's serial number.
fn number(field: &str) -> Option<Value> {
    let digits = field.strip_prefix(['-', '+']).unwrap_or(field).as_bytes();
    if !matches!(digits.first(), Some(b'0'..=b'9' | b'.')) {
        return None;
    }
    if digits.iter().all(u8::is_ascii_digit) {
        return field.parse().ok().map(Value::Int);
    }
    field.parse().ok().map(Value::Float).filter(Value::is_finite)
}

/// The columns of a line. One in double quotes may hold the separator, and a doubled quote for a quote (RFC 4180).
struct Columns<'a> {
    rest: Option<&'a str>,
    separator: char,
}

impl<'a> Columns<'a> {
    fn new(line: &'a str, separator: char) -> Self {
        Columns { rest: Some(line), separator }
    }
}

impl<'a> Iterator for Columns<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        let rest = self.rest?;
        if let Some(quoted) = rest.trim_start().strip_prefix('"')
            && let Some((field, after)) = unquote(quoted)
        {
            self.rest = after.split_once(self.separator).map(|(_, rest)| rest);
            return Some(field);
        }
        let (field, rest) = match rest.split_once(self.separator) {
            Some((field, rest)) => (field, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        Some(Cow::Borrowed(field))
    }
}

/// The text up to the closing quote, and what follows; `None` when nothing closes it.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let (first, mut after) = quoted.split_once('"')?;
    let mut field = Cow::Borrowed(first);
    while let Some(more) = after.strip_prefix('"') {
        let (next, rest) = more.split_once('"')?;
        field.to_mut().push('"');
        field.to_mut().push_str(next);
        after = rest;
    }
    Some((field, after))
}
