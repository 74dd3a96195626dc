//! Fields of a binary frame: values at fixed places.

use super::mark::place;
use super::{Bits, Number, Order, Slot, number};
use crate::model::{Fault, Keys, Value};

/// A place in a frame of bytes, and what stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::device) struct Field {
    /// The first byte, from 0; below 0 from the end.
    at: i64,
    /// What it is: a form of numbers, `digits`, `hex`, `text` or `bytes`.
    form: Form,
    /// How many bytes, where the form does not say it. Default: all to the end.
    size: Option<usize>,
    /// The order of a number's bytes.
    order: Order,
    /// Of an unsigned number only these bits, from 0, the least significant one: `"3"` or `"4..7"`.
    bits: Option<Bits>,
    /// What is taken off each byte first; a DL/T 645 meter adds 0x33.
    minus: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Number(Number),
    /// A number in decimal digits.
    Digits,
    /// A number in hexadecimal digits.
    Hex,
    /// Text without the blanks and zeros around it.
    Text,
    /// The bytes, as hexadecimal digits.
    Bytes,
}

impl Form {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "digits" => Form::Digits,
            "hex" => Form::Hex,
            "text" => Form::Text,
            "bytes" => Form::Bytes,
            _ => Form::Number(Number::parse(text).ok_or_else(|| {
                format!(
                    "`{text}` is no form of fields: expected one such as \"u8\", \"s16\", \"f32\" or \"bcd32\", or \"digits\", \"hex\", \"text\" or \"bytes\""
                )
            })?),
        })
    }
}

impl Field {
    /// Reads `{ at = …, as = … }`.
    pub(super) fn of(table: &toml::Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        ["at", "as"].into_iter().for_each(|key| keys.needs(key));
        let read = Field {
            at: keys.place("at").unwrap_or_default(),
            form: keys.parsed("as", Form::parse).unwrap_or(Form::Bytes),
            size: keys.count("size", 0, i32::MAX.into()),
            order: Order::read(&mut keys, "order").unwrap_or_default(),
            bits: keys.parsed("bits", Bits::parse),
            minus: keys.small("minus", 0, 255).and_then(|minus| u8::try_from(minus).ok()).unwrap_or_default(),
        };
        keys.end(read)
    }

    /// What of this is wrong in itself.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let sized = matches!(self.form, Form::Number(_));
        if sized && self.size.is_some() {
            return Some("a number has its size by its form: remove `size`");
        }
        if self.size == Some(0) {
            return Some("expected a `size` of at least 1");
        }
        let is_of_words = matches!(self.form, Form::Number(number) if number.size() % 2 == 0);
        if matches!(self.order, Order::Badc | Order::Cdab) && !is_of_words {
            return Some("this `order` is of words of two bytes: expected \"big\" or \"little\"");
        }
        match (self.bits, self.form) {
            (None, _) => None,
            (Some(Bits { last, .. }), Form::Number(number))
                if number.is_unsigned() && usize::try_from(last).is_ok_and(|last| last < 8 * number.size()) =>
            {
                None
            }
            _ => Some("`bits` are of an unsigned number, such as \"u8\", and within it"),
        }
    }

    /// Where it stands in a frame and what there is, for people.
    #[cfg(feature = "desk")]
    pub(in crate::device) fn describe(&self, frame: &[u8]) -> String {
        let form = match self.form {
            Form::Number(number) => number.name(),
            Form::Digits => "digits".to_owned(),
            Form::Hex => "hex".to_owned(),
            Form::Text => "text".to_owned(),
            Form::Bytes => "bytes".to_owned(),
        };
        let order = match self.order {
            Order::Big => String::new(),
            order => format!(" {order:?}").to_lowercase(),
        };
        let bits = self.bits.map(|Bits { first, last }| format!(" bits {first}..{last}")).unwrap_or_default();
        let minus = if self.minus == 0 { String::new() } else { format!(" minus {:#04x}", self.minus) };
        let (at, what) = (self.at, format!("{form}{order}{bits}{minus}"));
        match self.find(frame) {
            Some((start, found)) => {
                format!("at {start} {} ({what})", base16ct::lower::encode_string(found))
            }
            None => format!("at {at} ({what})"),
        }
    }

    /// The bytes that it is made of, and where they begin.
    fn find<'a>(&self, frame: &'a [u8]) -> Option<(usize, &'a [u8])> {
        let size = match self.form {
            Form::Number(number) => Some(number.size()),
            _ => self.size,
        };
        let start = place(self.at, frame.len())?;
        let found = match size {
            Some(size) => frame.get(start..start.checked_add(size)?),
            None => frame.get(start..).filter(|rest| !rest.is_empty()),
        };
        found.map(|found| (start, found))
    }

    /// The value there. `Absent`: the frame is too short for it.
    pub(super) fn read(&self, frame: &[u8]) -> Slot {
        let Some((_, found)) = self.find(frame) else { return Slot::Absent };
        let found: Vec<u8> = found.iter().map(|byte| byte.wrapping_sub(self.minus)).collect();
        self.value(&found).map_or(Slot::Bad, Slot::Value)
    }

    fn value(&self, found: &[u8]) -> Option<Value> {
        let text = || std::str::from_utf8(found).map(|text| text.trim_matches([' ', '\t', '\0'])).ok();
        match (self.form, self.bits) {
            (Form::Number(form), Some(bits)) => {
                let raw = bits.of(form.raw(found, self.order)?);
                Some(i64::try_from(raw).map_or_else(|_| Value::text(raw.to_string()), Value::Int))
            }
            (Form::Number(form), None) => form.decode(found, self.order),
            // A number may be spelled with an exponent: digits with an E between them are damaged.
            (Form::Digits, _) => text().filter(|text| !text.contains(['e', 'E'])).and_then(number),
            (Form::Hex, _) => {
                let text = text()?.as_bytes();
                let all = !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit);
                i64::from_str_radix(std::str::from_utf8(text).ok().filter(|_| all)?, 16).ok().map(Value::Int)
            }
            (Form::Text, _) => text().filter(|text| !text.chars().any(char::is_control)).map(Value::text),
            (Form::Bytes, _) => Some(Value::text(base16ct::lower::encode_string(found))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(text: &str) -> Field {
        Field::of(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_field_is_read_at_its_place() {
        let frame = b"\x68\xa5\x01\x02\x03 12.5 1f\0ab\xff\x16";
        let int = |n| Slot::Value(Value::Int(n));
        for (text, expected) in [
            ("at = 0\nas = \"u8\"", int(0x68)),
            ("at = 2\nas = \"u16\"", int(0x102)),
            ("at = 2\nas = \"u16\"\norder = \"little\"", int(0x201)),
            ("at = 2\nas = \"u24\"", int(0x010203)),
            ("at = -1\nas = \"u8\"", int(0x16)),
            ("at = -2\nas = \"s8\"", int(-1)),
            ("at = -2\nas = \"u16\"", int(0xff16)),
            ("at = -2\nas = \"u24\"", Slot::Absent),
            ("at = 99\nas = \"u8\"", Slot::Absent),
            ("at = -99\nas = \"u8\"", Slot::Absent),
            ("at = 1\nas = \"u8\"\nbits = \"0\"", int(1)),
            ("at = 1\nas = \"u8\"\nbits = \"1\"", int(0)),
            ("at = 1\nas = \"u8\"\nbits = \"4..7\"", int(10)),
            ("at = 1\nas = \"bcd8\"", Slot::Bad),
            ("at = 2\nas = \"bcd16\"\nminus = 1", int(1)),
            ("at = 5\nas = \"digits\"\nsize = 6", Slot::Value(Value::Float(12.5))),
            ("at = 5\nas = \"digits\"\nsize = 9", Slot::Bad),
            ("at = 11\nas = \"hex\"\nsize = 2", int(0x1f)),
            ("at = 11\nas = \"hex\"\nsize = 5", Slot::Bad),
            ("at = 13\nas = \"text\"\nsize = 3", Slot::Value(Value::text("ab"))),
            ("at = 13\nas = \"text\"", Slot::Bad),
            ("at = -3\nas = \"bytes\"", Slot::Value(Value::text("62ff16"))),
            ("at = -3\nas = \"bytes\"\nsize = 4", Slot::Absent),
        ] {
            assert_eq!(field(text).read(frame), expected, "{text}");
        }
        for (digits, expected) in [("0012", int(12)), ("-1.5", Slot::Value(Value::Float(-1.5))), ("12E3", Slot::Bad)] {
            assert_eq!(field("at = 0\nas = \"digits\"").read(digits.as_bytes()), expected, "{digits}");
        }
    }

    #[test]
    fn what_can_not_be_is_told() {
        for (text, is_wrong) in [
            ("at = 0\nas = \"u24\"\norder = \"little\"", false),
            ("at = 0\nas = \"u24\"\norder = \"cdab\"", true),
            ("at = 0\nas = \"u16\"\norder = \"badc\"", false),
            ("at = 0\nas = \"u8\"\nbits = \"7\"", false),
            ("at = 0\nas = \"u8\"\nbits = \"8\"", true),
            ("at = 0\nas = \"s8\"\nbits = \"0\"", true),
            ("at = 0\nas = \"text\"\nbits = \"0\"", true),
            ("at = 0\nas = \"u8\"\nsize = 1", true),
            ("at = 0\nas = \"text\"\nsize = 0", true),
        ] {
            assert_eq!(field(text).fault().is_some(), is_wrong, "{text}");
        }
        for text in [
            "at = 0\nas = \"u9\"",
            "at = 0\nas = \"u8\"\nbits = \"4..2\"",
            "at = 0\nas = \"u8\"\nbits = \"64\"",
            "as = \"u8\"",
        ] {
            assert!(Field::of(&text.parse().unwrap()).is_err(), "{text}");
        }
    }
}
