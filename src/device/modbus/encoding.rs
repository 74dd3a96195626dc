//! What stands in registers: read out of them, and put into them. Pure functions on numbers of 16 bits.

use std::ops::RangeInclusive;

use crate::device::decode::Bits;
use crate::model::{Value, ValueType};

/// What registers hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A whole number from 0.
    U16,
    /// A whole number, as two's complement.
    S16,
    /// The same, in two registers.
    U32,
    /// The same, in two registers.
    S32,
    /// The same, in four; above 2^63 it is no value.
    U64,
    /// The same, in four.
    S64,
    /// IEEE 754, in two registers.
    F32,
    /// IEEE 754, in four registers.
    F64,
    /// Four decimal digits.
    Bcd16,
    /// Eight decimal digits.
    Bcd32,
    /// Two characters in each register; what is left is 0 or blank.
    String,
    /// On or off: a coil or a discrete input; a register that is not 0.
    Bool,
}

/// Which byte of a number of four stands where, `A` being the most significant one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// As the standard has it.
    #[default]
    Abcd,
    /// The last register first.
    Cdab,
    /// The bytes in each register exchanged.
    Badc,
    /// Both.
    Dcba,
}

/// How a point stands in its registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) encoding: Encoding,
    pub(super) order: Order,
    pub(super) bits: Option<Bits>,
    /// How many registers.
    pub(super) count: u16,
}

impl Order {
    /// As the config names them.
    pub(super) const NAMES: [(&str, Order); 4] =
        [("ABCD", Order::Abcd), ("CDAB", Order::Cdab), ("BADC", Order::Badc), ("DCBA", Order::Dcba)];
}

impl Encoding {
    /// As the config names it.
    #[cfg(feature = "desk")]
    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, encoding)| *encoding == self).map_or("value", |(name, _)| name)
    }

    /// As the config names them.
    pub(super) const NAMES: [(&str, Encoding); 12] = [
        ("u16", Encoding::U16),
        ("s16", Encoding::S16),
        ("u32", Encoding::U32),
        ("s32", Encoding::S32),
        ("u64", Encoding::U64),
        ("s64", Encoding::S64),
        ("f32", Encoding::F32),
        ("f64", Encoding::F64),
        ("bcd16", Encoding::Bcd16),
        ("bcd32", Encoding::Bcd32),
        ("string", Encoding::String),
        ("bool", Encoding::Bool),
    ];

    /// How many registers it takes; `None`: that has to be said.
    pub(super) fn registers(self) -> Option<u16> {
        match self {
            Encoding::U16 | Encoding::S16 | Encoding::Bcd16 | Encoding::Bool => Some(1),
            Encoding::U32 | Encoding::S32 | Encoding::F32 | Encoding::Bcd32 => Some(2),
            Encoding::U64 | Encoding::S64 | Encoding::F64 => Some(4),
            Encoding::String => None,
        }
    }

    /// The type of its values, where there is but one that makes sense: a whole number may have a scale.
    pub(super) fn value_type(self) -> Option<ValueType> {
        match self {
            Encoding::F32 | Encoding::F64 => Some(ValueType::Float),
            Encoding::String => Some(ValueType::Text),
            Encoding::Bool => Some(ValueType::Bool),
            _ => None,
        }
    }

    /// Whether bits can be taken out of it.
    pub(super) fn is_unsigned(self) -> bool {
        matches!(self, Encoding::U16 | Encoding::U32 | Encoding::U64)
    }
}

impl Layout {
    /// The value in these registers, of which there are [`Layout::count`]; `None`: it is none.
    pub(super) fn decode(&self, registers: &[u16]) -> Option<Value> {
        if self.encoding == Encoding::String {
            let bytes: Vec<u8> = registers.iter().flat_map(|word| self.in_word(*word).to_be_bytes()).collect();
            let text = std::str::from_utf8(&bytes).ok()?.trim_end_matches(['\0', ' ']);
            return (!text.contains('\0')).then(|| Value::text(text));
        }
        let raw = self.ordered(registers).iter().fold(0u64, |raw, word| raw << 16 | u64::from(*word));
        let int = |raw: u64| i64::try_from(raw).ok().map(Value::Int);
        if let Some(bits) = self.bits {
            let field = bits.of(raw);
            return if bits.first == bits.last { Some(Value::Bool(field == 1)) } else { int(field) };
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            reason = "the bits are taken as they are"
        )]
        match self.encoding {
            Encoding::U16 | Encoding::U32 | Encoding::U64 => int(raw),
            Encoding::S16 => Some(Value::Int(i64::from(raw as i16))),
            Encoding::S32 => Some(Value::Int(i64::from(raw as i32))),
            Encoding::S64 => Some(Value::Int(raw as i64)),
            Encoding::F32 => Some(Value::Float(widened(f32::from_bits(raw as u32)))),
            Encoding::F64 => Some(Value::Float(f64::from_bits(raw))),
            Encoding::Bcd16 => from_bcd(raw, 4),
            Encoding::Bcd32 => from_bcd(raw, 8),
            Encoding::Bool => Some(Value::Bool(raw != 0)),
            Encoding::String => None,
        }
    }

    /// The registers for a value.
    ///
    /// # Errors
    /// When it does not fit: what is too large is never cut.
    pub(super) fn encode(&self, value: &Value) -> Result<Vec<u16>, String> {
        let misfit = |what: &str| format!("`{value}` does not fit: expected {what}");
        if self.encoding == Encoding::String {
            let text = value.to_string();
            if text.len() > usize::from(self.count) * 2 {
                return Err(misfit(&format!("at most {} bytes", self.count * 2)));
            }
            let mut bytes = text.into_bytes();
            bytes.resize(usize::from(self.count) * 2, 0);
            let words = bytes.chunks_exact(2).map(|pair| self.in_word(u16::from_be_bytes([pair[0], pair[1]])));
            return Ok(words.collect());
        }
        let within = |range: RangeInclusive<i64>| {
            let number = whole(value).filter(|number| range.contains(number));
            number.ok_or_else(|| misfit(&format!("a whole number from {} to {}", range.start(), range.end())))
        };
        let float = || match value.convert(ValueType::Float) {
            Ok(Value::Float(number)) => Ok(number),
            _ => Err(misfit("a number")),
        };
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "checked, or the bits are meant")]
        let raw = match self.encoding {
            Encoding::U16 => within(0..=0xffff)? as u64,
            Encoding::S16 => within(-0x8000..=0x7fff)? as u64,
            Encoding::U32 => within(0..=0xffff_ffff)? as u64,
            Encoding::S32 => within(-0x8000_0000..=0x7fff_ffff)? as u64,
            Encoding::U64 => within(0..=i64::MAX)? as u64,
            Encoding::S64 => within(i64::MIN..=i64::MAX)? as u64,
            Encoding::F32 => {
                let number = float()? as f32;
                if !number.is_finite() {
                    return Err(misfit("a number of at most 3.4e38"));
                }
                u64::from(number.to_bits())
            }
            Encoding::F64 => float()?.to_bits(),
            Encoding::Bcd16 => to_bcd(within(0..=9999)?),
            Encoding::Bcd32 => to_bcd(within(0..=99_999_999)?),
            Encoding::Bool => u64::from(self.switch(value)?),
            Encoding::String => 0,
        };
        #[expect(clippy::cast_possible_truncation, reason = "16 bits of it are meant")]
        let words: Vec<u16> = (0..self.count).rev().map(|place| (raw >> (16 * u32::from(place))) as u16).collect();
        Ok(self.ordered(&words))
    }

    /// On or off.
    ///
    /// # Errors
    /// When the value is neither.
    pub(super) fn switch(&self, value: &Value) -> Result<bool, String> {
        match value.convert(ValueType::Bool) {
            Ok(Value::Bool(on)) => Ok(on),
            _ => Err(format!("`{value}` does not fit: expected {}", ValueType::Bool.expected())),
        }
    }

    /// From the order on the wire to the standard's, and back: each is its own opposite.
    fn ordered(&self, words: &[u16]) -> Vec<u16> {
        let mut words: Vec<u16> = words.iter().map(|word| self.in_word(*word)).collect();
        if matches!(self.order, Order::Cdab | Order::Dcba) {
            words.reverse();
        }
        words
    }

    fn in_word(&self, word: u16) -> u16 {
        if matches!(self.order, Order::Badc | Order::Dcba) { word.swap_bytes() } else { word }
    }
}

/// The number that people wrote: 230.1, not 230.10000610351562. Becomes the same bits again in any case.
fn widened(number: f32) -> f64 {
    #[expect(clippy::cast_possible_truncation, reason = "that it becomes the same is what is asked")]
    let same = |wide: &f64| (*wide as f32).to_bits() == number.to_bits();
    number.to_string().parse().ok().filter(same).unwrap_or_else(|| f64::from(number))
}

/// A whole number; what a scale made of it may miss it by a rounding.
fn whole(value: &Value) -> Option<i64> {
    let int = |value: &Value| match value.convert(ValueType::Int) {
        Ok(Value::Int(number)) => Some(number),
        _ => None,
    };
    int(value).or_else(|| {
        let number = value.convert(ValueType::Float).ok()?.as_f64()?;
        let near = (number - number.round()).abs() <= 1e-6 * number.abs().max(1.0);
        int(&Value::Float(number.round())).filter(|_| near)
    })
}

fn from_bcd(raw: u64, digits: u32) -> Option<Value> {
    let digit = |place: u32| i64::try_from(raw >> (4 * place) & 0xf).ok().filter(|digit| *digit < 10);
    (0..digits).rev().try_fold(0, |number, place| Some(number * 10 + digit(place)?)).map(Value::Int)
}

fn to_bcd(mut number: i64) -> u64 {
    let (mut raw, mut place) = (0, 0);
    while number > 0 {
        raw |= (number % 10).unsigned_abs() << place;
        (number, place) = (number / 10, place + 4);
    }
    raw
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENCODINGS: [Encoding; 10] = [
        Encoding::U16,
        Encoding::S16,
        Encoding::U32,
        Encoding::S32,
        Encoding::U64,
        Encoding::S64,
        Encoding::F32,
        Encoding::F64,
        Encoding::Bcd16,
        Encoding::Bcd32,
    ];
    const ORDERS: [Order; 4] = [Order::Abcd, Order::Cdab, Order::Badc, Order::Dcba];

    fn layout(encoding: Encoding, order: Order) -> Layout {
        Layout { encoding, order, bits: None, count: encoding.registers().unwrap_or(5) }
    }

    #[test]
    fn each_order_puts_its_bytes_where_its_name_says() {
        for (order, words) in [
            (Order::Abcd, [0x0a0b, 0x0c0d]),
            (Order::Cdab, [0x0c0d, 0x0a0b]),
            (Order::Badc, [0x0b0a, 0x0d0c]),
            (Order::Dcba, [0x0d0c, 0x0b0a]),
        ] {
            let layout = layout(Encoding::U32, order);
            assert_eq!(layout.encode(&Value::Int(0x0a0b_0c0d)), Ok(words.to_vec()));
            assert_eq!(layout.decode(&words), Some(Value::Int(0x0a0b_0c0d)));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (encoding, value) in [
            (Encoding::U16, Value::Int(65536)),
            (Encoding::U16, Value::Int(-1)),
            (Encoding::U16, Value::Float(1.5)),
            (Encoding::S16, Value::Int(32768)),
            (Encoding::U32, Value::Int(1 << 32)),
            (Encoding::S32, Value::Int(-0x8000_0001)),
            (Encoding::U64, Value::Int(-1)),
            (Encoding::F32, Value::Float(1e39)),
            (Encoding::Bcd16, Value::Int(10_000)),
            (Encoding::Bcd32, Value::Int(-1)),
            (Encoding::String, Value::text("eleven bytes")),
            (Encoding::Bool, Value::Int(2)),
            (Encoding::U16, Value::text("x")),
        ] {
            assert!(layout(encoding, Order::Abcd).encode(&value).is_err(), "{encoding:?} {value:?}");
        }
    }

    #[test]
    fn what_a_scale_missed_by_a_rounding_is_whole() {
        let layout = layout(Encoding::U16, Order::Abcd);
        assert_eq!(layout.encode(&Value::Float(21.5 / 0.1)), Ok(vec![215]));
        assert_eq!(layout.encode(&Value::Float(0.3 / 0.1)), Ok(vec![3]));
        assert_eq!(layout.encode(&Value::text("7")), Ok(vec![7]), "what `map` gives");
    }

    #[test]
    fn what_is_no_value_is_none() {
        assert_eq!(layout(Encoding::Bcd16, Order::Abcd).decode(&[0x00a0]), None);
        assert_eq!(layout(Encoding::U64, Order::Abcd).decode(&[0x8000, 0, 0, 0]), None);
        assert_eq!(layout(Encoding::String, Order::Abcd).decode(&[0xffff]), None);
        assert_eq!(layout(Encoding::String, Order::Abcd).decode(&[0x4100, 0x4200]), None);
        assert_eq!(layout(Encoding::String, Order::Badc).decode(&[0x4241, 0x2043]), Some(Value::text("ABC")));
    }

    #[test]
    fn bits_are_taken_out() {
        let of = |text: &str| Bits::parse(text).unwrap();
        for (bits, word, expected) in [
            ("0", 1, Value::Bool(true)),
            ("15", 0x8000, Value::Bool(true)),
            ("3", 0xfff7, Value::Bool(false)),
            ("4..7", 0x00a0, Value::Int(10)),
            ("0..15", 0xffff, Value::Int(0xffff)),
        ] {
            let layout = Layout { bits: Some(of(bits)), ..layout(Encoding::U16, Order::Abcd) };
            assert_eq!(layout.decode(&[word]), Some(expected), "{bits}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_as_it_was(words in prop::array::uniform4(any::<u16>()), kind in 0usize..10, order in 0usize..4) {
            let layout = layout(ENCODINGS[kind], ORDERS[order]);
            let words = &words[..usize::from(layout.count)];
            match layout.decode(words) {
                // Another NaN is a NaN as well, and neither is ever sent.
                Some(Value::Float(number)) if !number.is_finite() => {}
                Some(value) => prop_assert_eq!(layout.encode(&value), Ok(words.to_vec())),
                None => {}
            }
        }

        #[test]
        fn what_is_written_is_read_as_it_was(number: i64, float in -1e30f64..1e30, text in "[a-zA-Z0-9äöü]{0,5}", kind in 0usize..10, order in 0usize..4) {
            let layout = layout(ENCODINGS[kind], ORDERS[order]);
            for value in [Value::Int(number), Value::Int(number % 10_000), Value::Int(number % (1 << 31)), Value::Float(float)] {
                let Ok(words) = layout.encode(&value) else { continue };
                let back = layout.decode(&words).unwrap();
                let wide = layout.encoding == Encoding::F32 || layout.encoding == Encoding::F64;
                if wide {
                    let (was, is) = (value.as_f64().unwrap(), back.as_f64().unwrap());
                    // Half a step to the next `f32`, and half a one to its shortest form.
                    prop_assert!((was - is).abs() <= f64::from(f32::EPSILON) * was.abs(), "{was} {is}");
                } else {
                    prop_assert_eq!(back.as_f64(), value.as_f64());
                }
            }
            let layout = Layout { order: ORDERS[order / 2 * 2], ..self::layout(Encoding::String, Order::Abcd) };
            if let Ok(words) = layout.encode(&Value::text(&text)) {
                prop_assert_eq!(layout.decode(&words), Some(Value::text(&text)));
            }
        }
    }
}
