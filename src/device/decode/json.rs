//! The values at some JSON pointers of a document, read in one pass that keeps nothing else of it.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Slot;
use crate::model::Value;

/// JSON pointers (RFC 6901), in the order of their tokens, so that those below one place stand side by side.
#[derive(Debug)]
pub(super) struct Pointers(Vec<Pointer>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pointer {
    tokens: Vec<String>,
    slot: usize,
}

impl Pointers {
    /// Pointers for the slots from 0.
    pub(super) fn new(pointers: impl Iterator<Item = String>) -> Self {
        let unescape = |token: &str| token.replace("~1", "/").replace("~0", "~");
        let tokens = |pointer: &str| pointer.split('/').skip(1).map(unescape).collect();
        let mut all: Vec<_> =
            pointers.enumerate().map(|(slot, pointer)| Pointer { tokens: tokens(&pointer), slot }).collect();
        all.sort();
        Pointers(all)
    }

    /// Fills the slots from a document.
    pub(super) fn read(&self, document: &[u8], slots: &mut [Slot]) -> Result<(), serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(document);
        Place { below: &self.0, depth: 0, slots }.deserialize(&mut reader)?;
        reader.end()
    }
}

/// A place in the document, with the pointers to it and to places below it.
struct Place<'a> {
    below: &'a [Pointer],
    depth: usize,
    slots: &'a mut [Slot],
}

impl<'a> Place<'a> {
    fn fill(self, slot: &Slot) {
        for pointer in self.below.iter().take_while(|pointer| pointer.tokens.len() == self.depth) {
            self.slots[pointer.slot] = slot.clone();
        }
    }

    fn set(self, value: Value) {
        self.fill(&Slot::Value(value));
    }

    fn inner(&mut self, range: Range<usize>) -> Place<'_> {
        Place { below: &self.below[range], depth: self.depth + 1, slots: self.slots }
    }
}

/// The pointers whose token at this depth is this one.
fn matching(below: &[Pointer], depth: usize, token: &str) -> Range<usize> {
    let at = |pointer: &Pointer| pointer.tokens.get(depth).map(|own| own.as_str().cmp(token));
    let start = below.partition_point(|pointer| at(pointer).is_none_or(|order| order.is_lt()));
    let end = below.partition_point(|pointer| at(pointer).is_none_or(|order| order.is_le()));
    start..end
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.set(Value::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.set(Value::Int(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "what no integer holds is at least a number")]
        self.set(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.set(Value::Float(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.set(Value::text(value));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.fill(&Slot::Bad);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(range) = map.next_key_seed(Key { below: self.below, depth: self.depth })? {
            if range.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(self.inner(range))?;
            }
        }
        self.fill(&Slot::Bad);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        for index in 0usize.. {
            let range = matching(self.below, self.depth, &index.to_string());
            let more = if range.is_empty() {
                seq.next_element::<IgnoredAny>()?.is_some()
            } else {
                seq.next_element_seed(self.inner(range))?.is_some()
            };
            if !more {
                break;
            }
        }
        self.fill(&Slot::Bad);
        Ok(())
    }
}

/// A key of an object, as the pointers that go on with it.
struct Key<'a> {
    below: &'a [Pointer],
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Range<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Range<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Range<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Range<usize>, E> {
        Ok(matching(self.below, self.depth, key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What serde_json's own pointer finds, in the words of a slot.
    fn expected(document: &serde_json::Value, pointer: &str) -> Slot {
        match document.pointer(pointer) {
            None => Slot::Absent,
            Some(serde_json::Value::Bool(b)) => Slot::Value(Value::Bool(*b)),
            Some(serde_json::Value::Number(n)) => {
                Slot::Value(n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap()), Value::Int))
            }
            Some(serde_json::Value::String(s)) => Slot::Value(Value::text(s)),
            Some(_) => Slot::Bad,
        }
    }

    #[test]
    fn every_pointer_finds_what_the_whole_document_has_there() {
        let pointers =
            ["", "/a", "/a/b", "/a/b/1", "/a/b/2/c", "/x~1y", "/x~1y/~0", "/a", "/list/0", "/list/10", "/none", "/"];
        for text in [
            r#"{"a":{"b":[1,2.5,{"c":"text"}]},"x/y":{"~":true},"list":[null]}"#,
            r#"{"a":18446744073709551615,"list":[-1,2,3,4,5,6,7,8,9,10,"ten"],"":false,"skip":{"deep":[[[]]]}}"#,
            r#"{"a":1,"a":2}"#,
            "[[1],[2]]",
            "21.5",
            "null",
            "\"é\\n\"",
        ] {
            let document: serde_json::Value = serde_json::from_str(text).unwrap();
            let mut slots = vec![Slot::Absent; pointers.len()];
            Pointers::new(pointers.map(str::to_owned).into_iter()).read(text.as_bytes(), &mut slots).unwrap();
            let expected: Vec<_> = pointers.iter().map(|pointer| expected(&document, pointer)).collect();
            assert_eq!(slots, expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", "{\"a\":1", "{\"a\":1}x", "21.5.5", "\"\u{1}\"", &"[".repeat(100_000), "{1:2}"] {
            let mut slots = vec![Slot::Absent; 1];
            assert!(Pointers::new(["/a".to_owned()].into_iter()).read(text.as_bytes(), &mut slots).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_key_with_any_characters_is_found(keys in prop::collection::vec(".*", 1..5), value: i64) {
            let pointer: String = keys.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect();
            let document = keys.iter().rev().fold(serde_json::Value::from(value), |inner, key| serde_json::json!({ key: inner }));
            let mut slots = [Slot::Absent];
            Pointers::new([pointer].into_iter()).read(document.to_string().as_bytes(), &mut slots).unwrap();
            prop_assert_eq!(&slots, &[Slot::Value(Value::Int(value))]);
        }
    }
}
