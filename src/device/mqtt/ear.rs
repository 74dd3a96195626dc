//! From a message to the raw values in it: which points it is for, and what it has for them. Pure functions.

use super::topic::TopicFilter;
use crate::device::decode::{Decode, Decoder, From, Slot, Undecodable};
use crate::model::{Fault, PointName, Value, ValueType};

/// A message that is taken as a whole, and a text in one, is not longer, in bytes: what a person or a device says fits,
/// and no device fills the queue.
const LONGEST_TEXT: usize = 4096;

/// A point that reads.
#[derive(Debug)]
pub(super) struct ReadPoint {
    pub(super) name: PointName,
    pub(super) value_type: Option<ValueType>,
    pub(super) topics: Vec<TopicFilter>,
    pub(super) from: Option<From>,
    /// Stored messages count.
    pub(super) stored: bool,
}

/// How the messages of a device are read: for each filter, its points.
#[derive(Debug)]
pub(super) struct Ear {
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    filter: TopicFilter,
    decoder: Decoder,
    is_whole: bool,
    /// In the order of the slots, with whether stored messages count.
    points: Vec<(PointName, bool)>,
}

/// What a message has for a point.
#[derive(Debug, PartialEq)]
pub(super) struct Said<'a> {
    pub(super) point: &'a PointName,
    /// `None`: something that is no value.
    pub(super) value: Option<Value>,
}

impl Ear {
    /// An ear for these points. `decode` is for those that have a `from`.
    ///
    /// # Errors
    /// What is wrong, by the device's table.
    pub(super) fn new(decode: &Decode, points: Vec<ReadPoint>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let whole = if matches!(decode, Decode::Bytes {}) { Decode::Bytes {} } else { Decode::Text {} };
        let mut sources: Vec<(TopicFilter, bool, Vec<&ReadPoint>)> = Vec::new();
        for point in &points {
            for filter in &point.topics {
                let is_whole = point.from.is_none();
                let source = sources.iter_mut().find(|source| source.0 == *filter && source.1 == is_whole);
                let Some((_, _, readers)) = source else {
                    sources.push((filter.clone(), is_whole, vec![point]));
                    continue;
                };
                if let Some(other) = readers.iter().find(|other| other.from == point.from) {
                    let key = if is_whole { "topic" } else { "from" };
                    let text = format!("`{}` reads the same from `{}`", other.name, filter.as_str());
                    faults.push(Fault::at(key, text).under(&["point", point.name.as_str()]));
                }
                readers.push(point);
            }
        }
        let mut ear = Ear { sources: Vec::new() };
        for (filter, is_whole, readers) in sources {
            let places: Vec<_> = readers.iter().map(|point| (point.from.clone(), point.value_type)).collect();
            match Decoder::new(if is_whole { &whole } else { decode }, &places) {
                Ok(decoder) => {
                    let points = readers.iter().map(|point| (point.name.clone(), point.stored)).collect();
                    ear.sources.push(Source { filter, decoder, is_whole, points });
                }
                Err(wrong) => {
                    faults.extend(wrong.into_iter().map(|(slot, text)| match slot.and_then(|slot| readers.get(slot)) {
                        Some(point) => Fault::at("from", text).under(&["point", point.name.as_str()]),
                        None => Fault::at("decode", text),
                    }))
                }
            }
        }
        // A point with several topics, or a decoder for several, says the same for each of them.
        let mut once: Vec<Fault> = Vec::new();
        for fault in faults {
            if !once.contains(&fault) {
                once.push(fault);
            }
        }
        if once.is_empty() { Ok(ear) } else { Err(once) }
    }

    /// Whether some point is read from this topic.
    pub(super) fn hears(&self, topic: &str) -> bool {
        self.of(topic).next().is_some()
    }

    /// Whether stored messages on this topic count for some point.
    pub(super) fn wants_stored(&self, topic: &str) -> bool {
        self.of(topic).any(|source| source.points.iter().any(|(_, stored)| *stored))
    }

    /// What a message has for the points.
    ///
    /// # Errors
    /// When some points can't read it, with what the others found.
    pub(super) fn read(&self, topic: &str, payload: &[u8], is_stored: bool) -> (Vec<Said<'_>>, Option<Undecodable>) {
        let (mut found, mut wrong) = (Vec::<Said<'_>>::new(), None);
        // An empty one only clears what the broker has stored.
        let sources = self.of(topic).filter(|_| !payload.is_empty());
        for source in sources {
            if is_stored && !source.points.iter().any(|(_, stored)| *stored) {
                continue;
            }
            if source.is_whole && payload.len() > LONGEST_TEXT {
                wrong = Some(Undecodable::TooLong("4 KiB"));
                continue;
            }
            let mut slots = vec![Slot::Absent; source.points.len()];
            if let Err(error) = source.decoder.decode(payload, &mut slots) {
                wrong = Some(error);
                continue;
            }
            let counts = |(_, stored): &(PointName, bool)| *stored || !is_stored;
            for ((point, _), slot) in source.points.iter().zip(slots).filter(|(point, _)| counts(point)) {
                let value = match slot {
                    Slot::Absent => continue,
                    Slot::Bad => None,
                    Slot::Value(Value::Text(text)) if text.len() > LONGEST_TEXT => None,
                    Slot::Value(value) => Some(value),
                };
                // Two filters of a point may match one message; it says its value once.
                if !found.iter().any(|said| said.point == point) {
                    found.push(Said { point, value });
                }
            }
        }
        (found, wrong)
    }

    fn of(&self, topic: &str) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(move |source| source.filter.matches(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, topics: &[&str], from: Option<&str>, stored: bool) -> ReadPoint {
        ReadPoint {
            name: PointName::new(name).unwrap(),
            value_type: None,
            topics: topics.iter().map(|topic| TopicFilter::parse(topic).unwrap()).collect(),
            from: from.map(|from| From::Name(from.to_owned())),
            stored,
        }
    }

    fn said(ear: &Ear, topic: &str, payload: &[u8], is_stored: bool) -> (Vec<(String, Option<Value>)>, bool) {
        let (found, wrong) = ear.read(topic, payload, is_stored);
        (found.into_iter().map(|said| (said.point.to_string(), said.value)).collect(), wrong.is_some())
    }

    fn is(point: &str, value: impl Into<Option<Value>>) -> (String, Option<Value>) {
        (point.to_owned(), value.into())
    }

    #[test]
    fn a_message_is_read_for_its_points() {
        let points = vec![
            point("power", &["stat/plug/RESULT", "tele/plug/STATE"], Some("/POWER"), true),
            point("rssi", &["tele/plug/STATE"], Some("/Wifi/RSSI"), false),
            point("any", &["stat/+/POWER", "stat/plug/POWER"], None, false),
        ];
        let ear = Ear::new(&Decode::Json {}, points).unwrap();
        let state = br#"{"POWER":"ON","Wifi":{"RSSI":46}}"#;
        let on = is("power", Value::text("ON"));
        for (topic, payload, is_stored, expected) in [
            ("tele/plug/STATE", &state[..], false, (vec![on.clone(), is("rssi", Value::Int(46))], false)),
            ("tele/plug/STATE", state, true, (vec![on.clone()], false)),
            ("stat/plug/RESULT", state, false, (vec![on], false)),
            ("stat/plug/RESULT", br#"{"POWER":null}"#, false, (vec![is("power", None)], false)),
            ("stat/plug/RESULT", b"{}", false, (vec![], false)),
            ("stat/plug/RESULT", b"ON", false, (vec![], true)),
            ("stat/plug/POWER", b" ON\r\n", false, (vec![is("any", Value::text("ON"))], false)),
            ("stat/plug/POWER", b"ON", true, (vec![], false)),
            ("stat/plug/POWER", b"", false, (vec![], false)),
            ("stat/plug/POWER", b"\xff\xfe", false, (vec![], true)),
            ("stat/plug/POWER", &[b'x'; 4097], false, (vec![], true)),
            ("stat/other", b"ON", false, (vec![], false)),
        ] {
            assert_eq!(said(&ear, topic, payload, is_stored), expected, "{topic} {}", payload.escape_ascii());
        }
        let long = format!(r#"{{"POWER":"{}"}}"#, "x".repeat(5000));
        assert_eq!(said(&ear, "stat/plug/RESULT", long.as_bytes(), false), (vec![is("power", None)], false));
        let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
        assert_eq!(said(&ear, "stat/plug/RESULT", &deep, false), (vec![], false), "passed over");
        assert!(ear.wants_stored("tele/plug/STATE") && !ear.wants_stored("stat/plug/POWER"));
    }
}
