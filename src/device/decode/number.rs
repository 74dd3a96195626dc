//! Numbers as devices write them into bytes, and back: pure functions.
//!
//! A number that no 64-bit signed integer holds is text of its digits, as in the other decoders: a point of type `float`
//! reads it, and nothing is lost on the way back.

use crate::model::{Keys, Value, ValueType};

/// How many bytes a number has at most.
const LARGEST: usize = 8;

/// A form of numbers: `u8` to `u64`, `s8` to `s64` and `bcd8` to `bcd64` in whole bytes, `f32`, `f64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::device) struct Number {
    form: Form,
    /// Bytes.
    size: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Unsigned,
    /// Two's complement.
    Signed,
    /// IEEE 754.
    Float,
    /// Two decimal digits a byte.
    Bcd,
}

/// The order of a number's bytes. With A the most significant of four: `big` is ABCD, `little` DCBA.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::device) enum Order {
    /// The most significant byte first.
    #[default]
    Big,
    /// The least significant byte first.
    Little,
    /// Words of two bytes, the most significant one first, each with its bytes swapped.
    Badc,
    /// Words of two bytes, the least significant one first.
    Cdab,
}

/// One bit of a number, or several in a row: `"3"`, `"4..7"`. The least significant one is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::device) struct Bits {
    pub(in crate::device) first: u32,
    pub(in crate::device) last: u32,
}

impl Bits {
    /// `"3"`, or `"4..7"`.
    pub(in crate::device) fn parse(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last && last < u64::BITS => Ok(Bits { first, last }),
            _ => Err(format!(
                "expected the number of a bit such as \"3\", or of several such as \"4..7\", found {text:?}"
            )),
        }
    }

    /// These bits of a number.
    pub(in crate::device) fn of(self, number: u64) -> u64 {
        number >> self.first & u64::MAX >> (u64::BITS - 1 - (self.last - self.first))
    }
}

impl Number {
    /// Its name read, or what would be one.
    pub(in crate::device) fn named(text: &str) -> Result<Self, String> {
        Number::parse(text).ok_or_else(|| {
            format!(
                "`{text}` is no form of numbers: expected one such as \"u8\", \"u16\", \"s32\", \"f32\" or \"bcd32\""
            )
        })
    }
}

impl Number {
    /// One byte.
    pub(in crate::device) const U8: Number = Number { form: Form::Unsigned, size: 1 };

    /// Its name read: the form, and the bits.
    pub(in crate::device) fn parse(name: &str) -> Option<Self> {
        let (form, bits) = name.split_at_checked(name.find(|c: char| c.is_ascii_digit())?)?;
        let form = match form {
            "u" => Form::Unsigned,
            "s" => Form::Signed,
            "f" => Form::Float,
            "bcd" => Form::Bcd,
            _ => return None,
        };
        let size = ["8", "16", "24", "32", "40", "48", "56", "64"].iter().position(|known| *known == bits)? + 1;
        let fits = form != Form::Float || matches!(size, 4 | 8);
        fits.then_some(Number { form, size })
    }

    /// Its name, as it is read.
    #[cfg(feature = "desk")]
    pub(super) fn name(self) -> String {
        let form = match self.form {
            Form::Unsigned => "u",
            Form::Signed => "s",
            Form::Float => "f",
            Form::Bcd => "bcd",
        };
        format!("{form}{}", 8 * self.size)
    }

    /// How many bytes it has.
    pub(in crate::device) fn size(self) -> usize {
        self.size
    }

    /// Whether it is an unsigned number, of which bits may be taken.
    pub(in crate::device) fn is_unsigned(self) -> bool {
        self.form == Form::Unsigned
    }

    /// The number in these bytes. `None` where they are none: too few, no decimal digits, NaN, infinite.
    pub(in crate::device) fn decode(self, bytes: &[u8], order: Order) -> Option<Value> {
        let raw = self.raw(bytes, order)?;
        match self.form {
            Form::Unsigned => Some(whole(raw)),
            Form::Signed => {
                let unused = 64 - 8 * self.size;
                Some(Value::Int((raw << unused).cast_signed() >> unused))
            }
            Form::Float if self.size == 4 => {
                let number = f32::from_bits(u32::try_from(raw).ok()?);
                // The shortest text that means it: 0.1 stays 0.1.
                number.to_string().parse().ok().map(Value::Float).filter(Value::is_finite)
            }
            Form::Float => Some(Value::Float(f64::from_bits(raw))).filter(Value::is_finite),
            Form::Bcd => {
                let digits = (0..2 * self.size).rev().map(|place| raw >> (4 * place) & 15);
                digits.into_iter().try_fold(0, |sum, digit| (digit < 10).then_some(sum * 10 + digit)).map(whole)
            }
        }
    }

    /// The bits of these bytes, as an unsigned number.
    pub(in crate::device) fn raw(self, bytes: &[u8], order: Order) -> Option<u64> {
        let mut held = [0; LARGEST];
        let held = held.get_mut(..self.size)?;
        held.copy_from_slice(bytes.get(..self.size)?);
        order.turn(held);
        Some(held.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// The bytes of a number.
    ///
    /// # Errors
    /// When the value is no number, or has no place in this form: nothing is cut off.
    pub(in crate::device) fn encode(self, value: &Value, order: Order) -> Result<Vec<u8>, String> {
        let bits = 8 * u32::try_from(self.size).unwrap_or(8);
        let wide =
            || format!("`{value}` has no place in {} {}", self.size, if self.size == 1 { "byte" } else { "bytes" });
        let raw = match self.form {
            Form::Float => {
                let Value::Float(number) = value.convert(ValueType::Float).map_err(|error| error.to_string())? else {
                    return Err(wide());
                };
                if self.size == 4 {
                    // By its digits, as it was decoded: rounded once.
                    let short: f32 = number.to_string().parse().map_err(|_| wide())?;
                    if short.is_infinite() {
                        return Err(wide());
                    }
                    u64::from(short.to_bits())
                } else {
                    number.to_bits()
                }
            }
            Form::Signed => {
                let number = integer(value)?;
                let unused = 64 - bits;
                let cut = i64::try_from(number).map_err(|_| wide())?;
                if (cut << unused) >> unused != cut {
                    return Err(wide());
                }
                cut.cast_unsigned() & (u64::MAX >> unused)
            }
            Form::Unsigned => {
                let number = u64::try_from(integer(value)?).map_err(|_| wide())?;
                if number > u64::MAX >> (64 - bits) {
                    return Err(wide());
                }
                number
            }
            Form::Bcd => {
                let mut rest = u64::try_from(integer(value)?).map_err(|_| wide())?;
                let mut raw = 0;
                for place in 0..2 * self.size {
                    raw |= (rest % 10) << (4 * place);
                    rest /= 10;
                }
                if rest > 0 {
                    return Err(wide());
                }
                raw
            }
        };
        let all = raw.to_be_bytes();
        let mut bytes = all.get(LARGEST - self.size..).unwrap_or_default().to_vec();
        order.turn(&mut bytes);
        Ok(bytes)
    }
}

impl Order {
    /// Reads the key of an order.
    pub(in crate::device) fn read(keys: &mut Keys<'_>, key: &'static str) -> Option<Self> {
        let names = [
            ("big", Order::Big),
            ("little", Order::Little),
            ("badc", Order::Badc),
            ("cdab", Order::Cdab),
            ("abcd", Order::Big),
            ("dcba", Order::Little),
        ];
        keys.one_of(key, &names)
    }

    /// From this order to `big`, and as well back. Bytes that make no whole words have no order of words.
    pub(super) fn turn(self, bytes: &mut [u8]) {
        match self {
            Order::Badc | Order::Cdab if !bytes.len().is_multiple_of(2) => {}
            Order::Big => {}
            Order::Little => bytes.reverse(),
            Order::Badc => bytes.chunks_exact_mut(2).for_each(<[u8]>::reverse),
            Order::Cdab => {
                bytes.reverse();
                bytes.chunks_exact_mut(2).for_each(<[u8]>::reverse);
            }
        }
    }
}

/// A whole number as a value.
fn whole(number: u64) -> Value {
    i64::try_from(number).map_or_else(|_| Value::text(number.to_string()), Value::Int)
}

/// The whole number that a value is, also one that is beyond 64 signed bits and so stands as text.
fn integer(value: &Value) -> Result<i128, String> {
    if let Value::Text(text) = value
        && let Ok(number) = text.trim().parse()
    {
        return Ok(number);
    }
    match value.convert(ValueType::Int).or_else(|error| match value {
        Value::Bool(on) => Ok(Value::Int(i64::from(*on))),
        _ => Err(error.to_string()),
    })? {
        Value::Int(number) => Ok(i128::from(number)),
        other => Err(format!("`{other}` is not a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(name: &str) -> Number {
        Number::parse(name).unwrap_or_else(|| panic!("{name}"))
    }

    const ORDERS: [Order; 4] = [Order::Big, Order::Little, Order::Badc, Order::Cdab];

    #[test]
    fn bytes_become_numbers() {
        for (name, order, bytes, expected) in [
            ("u8", Order::Big, &[0xff][..], Some(Value::Int(255))),
            ("s8", Order::Big, &[0xff], Some(Value::Int(-1))),
            ("u16", Order::Big, &[1, 2, 9], Some(Value::Int(0x102))),
            ("u16", Order::Little, &[1, 2], Some(Value::Int(0x201))),
            ("u16", Order::Badc, &[1, 2], Some(Value::Int(0x201))),
            ("u16", Order::Cdab, &[1, 2], Some(Value::Int(0x102))),
            ("s24", Order::Big, &[0xff, 0xff, 0xfe], Some(Value::Int(-2))),
            ("u32", Order::Big, &[1, 2, 3, 4], Some(Value::Int(0x0102_0304))),
            ("u32", Order::Little, &[1, 2, 3, 4], Some(Value::Int(0x0403_0201))),
            ("u32", Order::Badc, &[1, 2, 3, 4], Some(Value::Int(0x0201_0403))),
            ("u32", Order::Cdab, &[1, 2, 3, 4], Some(Value::Int(0x0304_0102))),
            ("u64", Order::Cdab, &[1, 2, 3, 4, 5, 6, 7, 8], Some(Value::Int(0x0708_0506_0304_0102))),
            ("u64", Order::Big, &[0xff; 8], Some(Value::text("18446744073709551615"))),
            ("s64", Order::Big, &[0xff; 8], Some(Value::Int(-1))),
            ("f32", Order::Big, &[0x3d, 0xcc, 0xcc, 0xcd], Some(Value::Float(0.1))),
            ("f32", Order::Cdab, &[0x00, 0x00, 0x43, 0x66], Some(Value::Float(230.0))),
            ("f32", Order::Big, &[0x7f, 0xc0, 0, 0], None),
            ("f64", Order::Little, &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f], Some(Value::Float(1.0))),
            ("bcd32", Order::Big, &[0x00, 0x12, 0x06, 0x42], Some(Value::Int(120_642))),
            ("bcd8", Order::Big, &[0x1a], None),
            ("u32", Order::Big, &[1, 2, 3], None),
        ] {
            assert_eq!(number(name).decode(bytes, order), expected, "{name} {order:?} {bytes:x?}");
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        for (name, value) in [
            ("u8", Value::Int(256)),
            ("u8", Value::Int(-1)),
            ("s8", Value::Int(128)),
            ("s8", Value::Int(-129)),
            ("u64", Value::text("18446744073709551616")),
            ("bcd8", Value::Int(100)),
            ("bcd8", Value::Int(-1)),
            ("u16", Value::Float(1.5)),
            ("u16", Value::text("high")),
            ("f32", Value::Float(1e300)),
            ("f32", Value::text("high")),
        ] {
            assert!(number(name).encode(&value, Order::Big).is_err(), "{value:?} as {name}");
        }
        assert_eq!(number("u8").encode(&Value::Bool(true), Order::Big), Ok(vec![1]));
        assert_eq!(number("s16").encode(&Value::Float(-2.0), Order::Little), Ok(vec![0xfe, 0xff]));
    }

    #[test]
    fn only_whole_bytes_are_a_form() {
        for wrong in ["", "u", "u0", "u7", "u12", "u72", "i16", "f16", "f40", "16", "u+8", "u08", "U8", "bcd", "u8x"] {
            assert!(Number::parse(wrong).is_none(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_was_decoded_is_encoded_to_the_same_bytes(
            bytes in prop::array::uniform8(any::<u8>()),
            form in prop::sample::select(vec!["u", "s", "f", "bcd"]),
            size in 1usize..=8,
            order in prop::sample::select(ORDERS.to_vec()),
        ) {
            let name = format!("{form}{}", size * 8);
            let Some(number) = Number::parse(&name) else { return Ok(()) };
            if let Some(value) = number.decode(&bytes, order) {
                prop_assert_eq!(number.encode(&value, order).unwrap(), &bytes[..size], "{} {:?}", name, value);
            }
        }

        #[test]
        fn what_was_encoded_is_decoded_to_the_same_number(
            value: i64,
            float in proptest::num::f32::NORMAL,
            order in prop::sample::select(ORDERS.to_vec()),
        ) {
            for size in 1..=8u32 {
                let small = value >> (64 - 8 * size);
                for (name, value) in [
                    (format!("s{}", 8 * size), small),
                    (format!("u{}", 8 * size), small & i64::MAX >> (64 - 8 * size)),
                    (format!("bcd{}", 8 * size), small.rem_euclid(10i64.pow(2 * size))),
                ] {
                    let number = number(&name);
                    let bytes = number.encode(&Value::Int(value), order).unwrap();
                    prop_assert_eq!(number.decode(&bytes, order), Some(Value::Int(value)), "{}", name);
                }
            }
            for name in ["f32", "f64"] {
                let value = Value::Float(float.to_string().parse().unwrap());
                let bytes = number(name).encode(&value, order).unwrap();
                prop_assert_eq!(number(name).decode(&bytes, order), Some(value));
            }
        }
    }

    #[test]
    fn bits_are_one_or_several_in_a_row() {
        for (text, number, expected) in
            [("0", 1, 1), ("3", 0xf7, 0), ("4..7", 0xa5, 10), ("63", 1 << 63, 1), ("0..63", 7, 7)]
        {
            assert_eq!(Bits::parse(text).unwrap().of(number), expected, "{text}");
        }
        for wrong in ["", "a", "7..4", "64", "1..2..3", "-1"] {
            assert!(Bits::parse(wrong).is_err(), "{wrong}");
        }
    }
}
