//! The keys that a config struct reads, asked of its own `Deserialize`: so no list of them stands anywhere twice.

use serde::de::{Deserialize, Deserializer, Visitor, value::Error};
use serde::forward_to_deserialize_any;

/// The keys of the struct `T`; empty where `T` is no struct with named fields.
pub fn keys<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // Nothing can be read from an ear that only listens for the question, so this always ends in an error.
    drop(T::deserialize(Ear(&mut found)));
    found
}

struct Ear<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Ear<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(serde::de::Error::custom("only asking"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("only asking"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its keys matter")]
    struct Sample {
        line: String,
        #[serde(rename = "type", default)]
        value_type: Option<u8>,
    }

    #[test]
    fn a_struct_tells_its_keys() {
        assert_eq!(super::keys::<Sample>(), ["line", "type"]);
        assert!(super::keys::<u8>().is_empty());
    }
}
