//! Structs read out of tables.
//!
//! There are dozens of such structs, and each of them brings its own copy of whatever generic code reads it: this one knows
//! where it is without a layer around TOML's own, which were a tenth of the whole program.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::{Table, Value};

use super::Fault;

/// What [`read`] says of a value that is no text, where one of several words is expected.
pub const NO_CHOICE: &str = "expected text in quotes";

/// Reads a struct out of a table.
///
/// # Errors
/// The first thing that is wrong, as serde says it, and where.
pub fn read<T: DeserializeOwned>(table: &Table) -> Result<T, Fault> {
    T::deserialize(Whole(table)).map_err(|Wrong { mut path, text }| {
        path.reverse();
        Fault { path, text }
    })
}

/// What is wrong, and where, from the inside out.
#[derive(Debug)]
struct Wrong {
    path: Vec<String>,
    text: String,
}

impl Wrong {
    fn under(mut self, step: String) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Wrong { path: Vec::new(), text: text.to_string() }
    }
}

/// A table that is read.
struct Whole<'a>(&'a Table);

impl<'de> Deserializer<'de> for Whole<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(Entries { rest: self.0.iter(), here: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A value that is read.
struct One<'a>(&'a Value);

impl<'de> Deserializer<'de> for One<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Datetime(_) => Err(de::Error::invalid_type(Unexpected::Other("date"), &visitor)),
            Value::Array(items) => visitor.visit_seq(Items { rest: items.iter().enumerate() }),
            Value::Table(table) => Whole(table).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::String(name) => visitor.visit_enum(IntoDeserializer::<Wrong>::into_deserializer(name.as_str())),
            _ => Err(de::Error::custom(NO_CHOICE)),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// The entries of a table.
struct Entries<'a> {
    rest: toml::map::Iter<'a, String, Value>,
    here: Option<(&'a str, &'a Value)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.here = self.rest.next().map(|(key, value)| (key.as_str(), value));
        self.here.map(|(key, _)| seed.deserialize(StrDeserializer::new(key))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (key, value) = self.here.expect("serde asks for a value only after its key");
        seed.deserialize(One(value)).map_err(|wrong| wrong.under(key.to_owned()))
    }
}

/// The values of a list.
struct Items<'a> {
    rest: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((index, value)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(One(value)).map(Some).map_err(|wrong| wrong.under(format!("[{index}]")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: Option<String>,
        #[serde(default)]
        sizes: Vec<u8>,
        #[serde(default)]
        inner: BTreeMap<String, Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        mode: Mode,
        #[serde(default)]
        share: f64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
        Slow,
    }

    #[test]
    fn a_struct_is_read() {
        let table = "name = \"n\"\nsizes = [1, 255]\n[inner.a]\nmode = \"slow\"\nshare = 2".parse().unwrap();
        let inner = BTreeMap::from([("a".to_owned(), Inner { mode: Mode::Slow, share: 2.0 })]);
        assert_eq!(read(&table), Ok(Sample { name: Some("n".to_owned()), sizes: vec![1, 255], inner }));
        assert_eq!(read(&Table::new()), Ok(Sample { name: None, sizes: Vec::new(), inner: BTreeMap::new() }));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, path, said) in [
            ("name = 5", &["name"][..], "invalid type: integer `5`, expected a string"),
            ("name = 1979-05-27", &["name"], "invalid type: date, expected a string"),
            ("sizes = [1, -1]", &["sizes", "[1]"], "invalid value: integer `-1`, expected u8"),
            ("sizes = 1", &["sizes"], "invalid type: integer `1`, expected a sequence"),
            ("other = 1", &[], "unknown field `other`, expected one of `name`, `sizes`, `inner`"),
            ("inner.a.mode = \"last\"", &["inner", "a", "mode"], "unknown variant `last`, expected `fast` or `slow`"),
            ("inner.a.mode = true", &["inner", "a", "mode"], NO_CHOICE),
            ("inner.a.share = 1", &["inner", "a"], "missing field `mode`"),
        ] {
            let path = path.iter().map(|step| (*step).to_owned()).collect();
            let fault = Fault { path, text: said.to_owned() };
            assert_eq!(read::<Sample>(&text.parse().unwrap()), Err(fault), "{text}");
        }
    }
}
