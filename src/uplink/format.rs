//! How payloads are written down and read: JSON, CBOR (RFC 8949) and XML, the same fields in each. Pure functions.

use std::fmt;

use bytes::Bytes;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, XmlVersion};
use serde::Serialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::Payload;
use crate::link::Content;

/// What of a command's XML has children.
const VALUES: &str = "values";

/// The fields of a message in this form, and what MQTT 5 says of it. In XML they are elements below one of this name.
pub(super) fn write(form: Payload, name: &str, fields: &impl Serialize) -> (Bytes, Content) {
    const SOUND: &str = "payloads have text keys and no failing parts";
    match form {
        Payload::Json | Payload::Value | Payload::Bytes => {
            (Bytes::from(serde_json::to_vec(fields).expect(SOUND)), Content::Json)
        }
        Payload::Cbor => (Bytes::from(minicbor_serde::to_vec(fields).expect(SOUND)), Content::Cbor),
        Payload::Xml => {
            let fields = serde_json::to_value(fields).expect(SOUND);
            let mut writer = Writer::new(Vec::new());
            element(&mut writer, BytesStart::new(name), &fields).expect("a vector takes all that is written into it");
            (Bytes::from(writer.into_inner()), Content::Xml)
        }
    }
}

/// An element with this content. What is below `values` has names of points, which XML may not take for its own.
fn element(writer: &mut Writer<Vec<u8>>, tag: BytesStart<'_>, content: &Value) -> std::io::Result<()> {
    writer.write_event(Event::Start(tag.borrow()))?;
    match content {
        Value::Object(fields) if tag.name().as_ref() == VALUES => {
            for (point, value) in fields {
                element(writer, BytesStart::new("value").with_attributes([("point", point.as_str())]), value)?;
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                element(writer, BytesStart::new(name), value)?;
            }
        }
        Value::Null => {}
        Value::String(text) => writer.write_event(Event::Text(BytesText::new(&sayable(text))))?,
        other => writer.write_event(Event::Text(BytesText::new(&other.to_string())))?,
    }
    writer.write_event(Event::End(BytesEnd::from(tag.name())))
}

/// What XML 1.0 has no way to say becomes U+FFFD (section 2.2, "Char").
fn sayable(text: &str) -> String {
    let is_char = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    text.chars().map(|c| if is_char(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// A CBOR map of values, of which one may be a map again. Deeper than this it is no command, and nothing is read that could
/// be as deep as the sender likes. A bare value is none: the text `5` is the number -22 in CBOR.
pub(super) fn from_cbor(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let wrong = |error: &dyn fmt::Display| format!("the payload is no CBOR of a command: {error}");
    let mut decoder = minicbor_serde::Deserializer::new(bytes);
    let item = Item { depth: 2 }.deserialize(&mut decoder).map_err(|error| wrong(&error))?;
    if decoder.decoder().position() < bytes.len() {
        return Err(wrong(&"there is more behind the first item"));
    }
    match item {
        Value::Object(fields) => Ok(fields),
        other => Err(wrong(&format_args!("expected a map with \"value\" or \"values\", found {other}"))),
    }
}

struct Item {
    /// How deep maps may be.
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Item {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.depth > 0 { "a value, or a map of them" } else { "a number, true, false or text" })
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        if value.is_finite() { Ok(value.into()) } else { Err(E::custom("a number that is not finite")) }
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
        };
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Item { depth })?;
            put(&mut fields, key, value).map_err(de::Error::custom)?;
        }
        Ok(Value::Object(fields))
    }
}

/// A `<command>`: its elements as texts, and of `<values>` each `<value point="…">`.
pub(super) fn from_xml(text: &str) -> Result<Map<String, Value>, String> {
    let wrong = |error: &dyn fmt::Display| format!("the payload is no XML of a command: {error}");
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let (mut fields, mut values) = (Map::new(), Map::new());
    let (mut path, mut said, mut point) = (Vec::new(), String::new(), String::new());
    loop {
        match reader.read_event().map_err(|error| wrong(&error))? {
            Event::Start(tag) => {
                if !said.trim().is_empty() {
                    return Err(wrong(&format_args!("`{}` beside an element", said.trim())));
                }
                said.clear();
                path.push(tag.name().as_ref().to_owned());
                let mut points = Vec::new();
                for attribute in tag.attributes() {
                    let attribute = attribute.map_err(|error| wrong(&error))?;
                    let name = attribute.key.as_ref();
                    // What would be left out may be what the sender counts on.
                    if path.len() != 3 || name != "point" {
                        return Err(wrong(&format_args!("unknown attribute `{name}`: fields are elements")));
                    }
                    let value = attribute.normalized_value(XmlVersion::Implicit1_0);
                    points.push(value.map_err(|error| wrong(&error))?.into_owned());
                }
                match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                    ["command"] if fields.is_empty() => {}
                    ["command", _] => {}
                    ["command", VALUES, "value"] => {
                        point = points.pop().ok_or_else(|| wrong(&"expected <value point=\"NAME\">"))?;
                    }
                    _ => {
                        return Err(wrong(&format_args!(
                            "unexpected <{}>: expected <command> with its fields",
                            path.join("><")
                        )));
                    }
                }
            }
            Event::Text(part) => said.push_str(&part.xml_content(XmlVersion::Implicit1_0)),
            Event::CData(part) => said.push_str(&part.xml_content(XmlVersion::Implicit1_0)),
            Event::GeneralRef(name) => {
                let code = name.resolve_char_ref().map_err(|error| wrong(&error))?;
                let known = code
                    .map(String::from)
                    .or_else(|| quick_xml::escape::resolve_predefined_entity(&name).map(str::to_owned));
                said.push_str(&known.ok_or_else(|| wrong(&"an entity that XML itself does not know"))?);
            }
            Event::End(_) => {
                let name = path.pop().unwrap_or_default();
                let content = std::mem::take(&mut said);
                let holds_elements = path.is_empty() || path.len() == 1 && name == VALUES;
                if holds_elements && !content.trim().is_empty() {
                    return Err(wrong(&format_args!("`{}` beside an element", content.trim())));
                }
                match path.len() {
                    2 => put(&mut values, std::mem::take(&mut point), content.into())?,
                    1 if name == VALUES => put(&mut fields, name, Value::Object(std::mem::take(&mut values)))?,
                    1 => put(&mut fields, name, content.into())?,
                    _ => {}
                }
            }
            Event::Eof if path.is_empty() && !fields.is_empty() => return Ok(fields),
            Event::Eof => return Err(wrong(&"expected <command> with its fields")),
            Event::DocType(_) => return Err(wrong(&"expected no document type")),
            Event::Empty(_) | Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
        }
    }
}

/// Which of two is meant, nobody can say.
fn put(fields: &mut Map<String, Value>, key: String, value: Value) -> Result<(), String> {
    if fields.contains_key(&key) {
        return Err(format!("the key `{key}` is there twice"));
    }
    fields.insert(key, value);
    Ok(())
}
