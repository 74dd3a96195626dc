//! What is sent to the device for a value.

use super::decode::{Check, Number, Order};
use crate::model::{Value, ValueType};

/// Bytes with places for the value: `VALVE {value}\r\n`; `{value:u16}` for the bytes of a number, `{value:d4}` or `{value:x4}`
/// for so many digits of it, `{bytes}` for the bytes whose hexadecimal digits the value is. `{hex:ff 01}` stands for bytes,
/// `{check}` for the device's check over the message, and `{{` and `}}` for one brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// Bytes, and what stands behind them.
    parts: Vec<(Vec<u8>, Place)>,
    check: Option<Check>,
}

/// What stands between two texts of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Value,
    Number(Number, Order),
    Decimal(usize),
    Hexadecimal(usize),
    Bytes,
    Check,
    End,
}

/// More digits than any number has.
const MOST_DIGITS: usize = 20;

impl Template {
    /// Reads a template. `check`: what `{check}` stands for.
    ///
    /// # Errors
    /// When a brace is neither doubled nor part of a place.
    pub(super) fn parse(text: &str, check: Option<&Check>) -> Result<Self, String> {
        const WRONG: &str = "expected `{value}` for the value (`{value:u16}`, `{value:d4}` and `{value:x4}` for its bytes or digits), `{bytes}` for the bytes that it is in hexadecimal, `{hex:ff01}` for bytes, `{check}` for the check, and `{{` or `}}` for a brace";
        if text.is_empty() {
            return Err("expected what to send, such as \"SET {value}\\r\\n\"".to_owned());
        }
        let (mut parts, mut part, mut rest) = (Vec::new(), Vec::new(), text);
        while let Some((before, found)) = rest.find(['{', '}']).and_then(|at| rest.split_at_checked(at)) {
            part.extend_from_slice(before.as_bytes());
            if let Some(after) = found.strip_prefix("{{") {
                part.push(b'{');
                rest = after;
                continue;
            }
            if let Some(after) = found.strip_prefix("}}") {
                part.push(b'}');
                rest = after;
                continue;
            }
            let (name, after) = found.strip_prefix('{').and_then(|found| found.split_once('}')).ok_or(WRONG)?;
            rest = after;
            if let Some(digits) = name.strip_prefix("hex:") {
                let digits: String = digits.split_whitespace().collect();
                part.extend(base16ct::mixed::decode_vec(digits.as_bytes()).map_err(|_| WRONG)?);
                continue;
            }
            let place = match name {
                "value" => Place::Value,
                "bytes" => Place::Bytes,
                "check" if check.is_none() => {
                    return Err("`{check}` needs the device's `check`, which says how it is made".to_owned());
                }
                "check" if parts.iter().any(|(_, place)| *place == Place::Check) => {
                    return Err("expected `{check}` once".to_owned());
                }
                "check" => Place::Check,
                _ => name.strip_prefix("value:").and_then(form).ok_or(WRONG)?,
            };
            parts.push((std::mem::take(&mut part), place));
        }
        part.extend_from_slice(rest.as_bytes());
        parts.push((part, Place::End));
        Ok(Template { parts, check: check.cloned() })
    }

    /// The bytes, where the template has no place for a value.
    pub(super) fn fixed(&self) -> Option<Result<Vec<u8>, String>> {
        let fixed = self.parts.iter().all(|(_, place)| matches!(place, Place::Check | Place::End));
        fixed.then(|| self.render(&Value::Bool(false)))
    }

    /// The bytes for a raw value. A switch is `1` or `0`; the point's `map` gives it other names.
    ///
    /// # Errors
    /// When the value holds control characters: a line end in a text would let it be followed by a second command. When it
    /// is no hexadecimal digits, or no number that has its place, where it should be. When the check has nothing to cover.
    pub(super) fn render(&self, value: &Value) -> Result<Vec<u8>, String> {
        let text = match value {
            Value::Bool(on) => u8::from(*on).to_string(),
            other => other.to_string(),
        };
        let (mut made, mut quotes, mut check_at) = (Vec::new(), 0, None);
        for (part, place) in &self.parts {
            made.extend_from_slice(part);
            quotes += part.iter().filter(|byte| **byte == b'"').count();
            match place {
                Place::Value if text.chars().any(char::is_control) => {
                    return Err("a text with control characters can't be sent to the device".to_owned());
                }
                // Between quotes a quote would end the text, and what follows be fields of its own.
                Place::Value if quotes % 2 == 1 && text.contains(['"', '\\']) => {
                    return Err("a text with a quote or a backslash can't be sent to this device".to_owned());
                }
                Place::Value => made.extend_from_slice(text.as_bytes()),
                Place::Number(number, order) => made.extend(number.encode(value, *order)?),
                Place::Decimal(size) => made.extend(digits(value, *size, |number| format!("{number:0size$}"))?),
                Place::Hexadecimal(size) => made.extend(digits(value, *size, |number| format!("{number:0size$X}"))?),
                Place::Bytes => {
                    let bytes = base16ct::mixed::decode_vec(text.as_bytes());
                    made.extend(bytes.map_err(|_| format!("`{text}` is no hexadecimal digits, two for a byte"))?);
                }
                Place::Check => {
                    check_at = Some(made.len());
                    made.resize(made.len() + self.check.as_ref().map_or(0, Check::length), 0);
                }
                Place::End => {}
            }
        }
        if let (Some(check), Some(at)) = (&self.check, check_at)
            && !check.fill(&mut made, at)
        {
            return Err("the message is too short for what the `check` covers".to_owned());
        }
        Ok(made)
    }
}

/// `u16`, `u16le`, `f32cdab`; `d4` and `x4` for digits.
fn form(name: &str) -> Option<Place> {
    let size = |digits: &str| digits.parse().ok().filter(|size| (1..=MOST_DIGITS).contains(size));
    if let Some(digits) = name.strip_prefix('d') {
        return size(digits).map(Place::Decimal);
    }
    if let Some(digits) = name.strip_prefix('x') {
        return size(digits).map(Place::Hexadecimal);
    }
    let orders = [("le", Order::Little), ("badc", Order::Badc), ("cdab", Order::Cdab)];
    let ordered = orders.into_iter().find_map(|(end, order)| Some((name.strip_suffix(end)?, order)));
    let (name, order) = ordered.unwrap_or((name, Order::Big));
    Number::parse(name).map(|number| Place::Number(number, order))
}

/// The digits of a number that is not below 0, where they have their place.
fn digits(value: &Value, size: usize, spell: impl Fn(u64) -> String) -> Result<Vec<u8>, String> {
    let number = match value {
        Value::Bool(on) => Some(u64::from(*on)),
        other => match other.convert(ValueType::Int) {
            Ok(Value::Int(number)) => u64::try_from(number).ok(),
            _ => None,
        },
    };
    let spelled = number.map(spell).filter(|spelled| spelled.len() == size);
    spelled.map(String::into_bytes).ok_or_else(|| format!("`{value}` has no place in {size} digits"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_value_takes_its_place() {
        for (template, value, expected) in [
            ("VALVE {value}\r\n", Value::Int(42), "VALVE 42\r\n"),
            ("{value}", Value::Float(21.5), "21.5"),
            ("{value}", Value::Float(-0.0001), "-0.0001"),
            ("OUT {value}\n", Value::Bool(true), "OUT 1\n"),
            ("OUT {value}\n", Value::text("ON"), "OUT ON\n"),
            ("RESET\r\n", Value::Bool(true), "RESET\r\n"),
            ("{{\"valve\":{value}}}\n", Value::Int(1), "{\"valve\":1}\n"),
            ("{value}{{value}}{value}", Value::Int(7), "7{value}7"),
        ] {
            let rendered = Template::parse(template, None).and_then(|template| template.render(&value));
            assert_eq!(rendered, Ok(expected.as_bytes().to_vec()), "{template}");
        }
    }

    #[test]
    fn digits_become_bytes() {
        let template = Template::parse("\u{2}{bytes}\u{3}", None).unwrap();
        assert_eq!(template.render(&Value::text("00fF0d0a")), Ok(vec![2, 0, 255, 13, 10, 3]));
        assert_eq!(template.render(&Value::text("0")), Err("`0` is no hexadecimal digits, two for a byte".to_owned()));
        assert!(template.render(&Value::text("xy")).is_err());
    }

    #[test]
    fn a_brace_that_means_nothing_is_refused() {
        for wrong in [
            "",
            "{",
            "}",
            "a{b}",
            "{value",
            "{ value }",
            "}{",
            "{{}",
            "{point}",
            "{value:u9}",
            "{value:d0}",
            "{value:x99}",
            "{hex:0}",
            "{hex:0g}",
        ] {
            assert!(Template::parse(wrong, None).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_take_their_bytes_and_the_check_its_place() {
        let check = |text: &str| Check::read(&text.parse().unwrap()).unwrap();
        let modbus = check("kind = \"crc\"\nname = \"modbus\"\norder = \"little\"");
        let nmea = check("kind = \"xor\"\nfrom = 1\nto = -5\nat = -4\nas = \"hex\"");
        for (template, check, value, expected) in [
            (
                "{hex:01 06 00 02}{value:u16}{check}",
                Some(&modbus),
                Value::Int(3),
                Ok(&b"\x01\x06\x00\x02\x00\x03\x68\x0b"[..]),
            ),
            (
                "$GPGLL,4916.45,N,12311.12,W,225444,A*{check}\r\n",
                Some(&nmea),
                Value::Int(0),
                Ok(b"$GPGLL,4916.45,N,12311.12,W,225444,A*31\r\n"),
            ),
            ("{value:u16le}|{value:s8}", None, Value::Int(-1), Err("`-1` has no place in 2 bytes")),
            ("{value:u24le}", None, Value::Int(0x010203), Ok(b"\x03\x02\x01")),
            ("{value:f32cdab}", None, Value::Float(230.0), Ok(b"\x00\x00\x43\x66")),
            ("{value:bcd16}", None, Value::Int(1234), Ok(b"\x12\x34")),
            ("S{value:d4};{value:x2}", None, Value::Int(42), Ok(b"S0042;2A")),
            ("{value:d2}", None, Value::Int(100), Err("`100` has no place in 2 digits")),
            ("{value:d2}", None, Value::Int(-1), Err("`-1` has no place in 2 digits")),
            ("{value:u8}", None, Value::Bool(true), Ok(b"\x01")),
        ] {
            let rendered = Template::parse(template, check).and_then(|template| template.render(&value));
            assert_eq!(rendered, expected.map(<[u8]>::to_vec).map_err(str::to_owned), "{template}");
        }
        assert!(Template::parse("{check}", None).unwrap_err().contains("needs the device's `check`"));
        assert_eq!(
            Template::parse("{hex:ff00}{check}", Some(&modbus)).unwrap().fixed().map(|made| made.unwrap().len()),
            Some(4)
        );
        assert_eq!(Template::parse("{value}", None).unwrap().fixed(), None);
        assert!(Template::parse("{hex:ff}{check}{check}", Some(&modbus)).unwrap_err().contains("once"));
        // That of the answers covers more than is asked.
        let long = check("kind = \"xor\"\nto = 8\nat = 8");
        let short = Template::parse("AB{value}{check}", Some(&long)).unwrap();
        assert!(short.render(&Value::Int(1)).unwrap_err().contains("too short for what the `check` covers"));
        assert_eq!(short.render(&Value::Int(123_456)).map(|made| made[8]), Ok(b'A' ^ b'B' ^ 7));
    }

    #[test]
    fn a_value_can_not_smuggle_a_second_command() {
        let template = Template::parse("SAY {value}\r\n", None).unwrap();
        assert!(template.render(&Value::text("hello\r\nOPEN ALL")).is_err());
        assert!(template.render(&Value::text("nul\0")).is_err());
        assert!(template.render(&Value::text("grün")).is_ok());
        assert!(template.render(&Value::text("\"quoted\"")).is_ok());
        let json = Template::parse("{{\"say\":\"{value}\"}}", None).unwrap();
        let later = Template::parse("{{\"n\":{value},\"say\":\"it is {value}!\"}}", None).unwrap();
        assert!(later.render(&Value::text("\"")).is_err());
        assert!(json.render(&Value::text("a\",\"relay\":\"on")).is_err());
        assert!(json.render(&Value::text("a\\")).is_err());
        assert_eq!(json.render(&Value::text("a")), Ok(b"{\"say\":\"a\"}".to_vec()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String, value: i64) {
            if let Ok(template) = Template::parse(&text, None) {
                let has_digits = template.parts.iter().any(|(_, place)| *place == Place::Bytes);
                prop_assert!(has_digits || template.render(&Value::Int(value)).is_ok());
            }
        }

        #[test]
        fn a_text_with_doubled_braces_is_sent_as_it_was(text in ".+") {
            let template = Template::parse(&text.replace('{', "{{").replace('}', "}}"), None).unwrap();
            prop_assert_eq!(template.render(&Value::Int(1)), Ok(text.into_bytes()));
        }
    }
}
