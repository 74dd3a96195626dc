//! What tells a frame that came whole from one that did not: sums, exclusive ors and CRCs, as the config describes them.

use std::ops::Range;

use toml::Table;

use super::Order;
use super::crc::Crc;
use super::mark::place;
use crate::model::{Fault, Keys};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Complement {
    One,
    Two,
}

/// A check that can be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::device) struct Check {
    how: How,
    /// Bytes of its value.
    size: usize,
    from: i64,
    to: Option<i64>,
    at: Option<i64>,
    order: Order,
    /// It is written in hexadecimal digits.
    is_hex: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    Crc(Crc),
    Xor,
    Sum(Option<Complement>),
}

impl Check {
    /// Reads the table `check`: `kind`, of a CRC its `name`, of a sum its `bits` and `complement`; `from` the first byte that it
    /// covers, `to` the first that it does not, `at` where it stands, the `order` of its bytes, and `as = "hex"`.
    ///
    /// # Errors
    /// What is wrong, by the table.
    pub(in crate::device) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let kind = keys.choice("kind", &["crc", "xor", "sum", "lrc"]);
        let name = keys.text("name");
        let bits = keys.whole("bits", 8, 32);
        let complement = keys.one_of("complement", &[("one", Complement::One), ("two", Complement::Two)]);
        let crc = name.and_then(Crc::named);
        let of_sum = kind == Some(2);
        let (how, size) = match kind {
            Some(0) => match crc {
                Some(crc) => (How::Crc(crc), crc.size()),
                None => {
                    keys.wrong(
                        if name.is_some() { "name" } else { "" },
                        "expected the `name` of a CRC of the catalogue, such as \"CRC-16/MODBUS\" or \"CRC-8/SMBUS\"",
                    );
                    (How::Xor, 1)
                }
            },
            Some(2) => (How::Sum(complement), usize::try_from(bits.unwrap_or(8) / 8).unwrap_or(1)),
            Some(3) => (How::Sum(Some(Complement::Two)), 1),
            _ => (How::Xor, 1),
        };
        if kind.is_none() && !keys.has("kind") {
            keys.wrong("", "expected a `kind`: \"crc\", \"xor\", \"sum\" or \"lrc\"");
        }
        if kind != Some(0) && name.is_some() {
            keys.wrong("name", "only a CRC has a name");
        }
        if bits.is_some_and(|bits| !of_sum || !matches!(bits, 8 | 16 | 32)) {
            keys.wrong("bits", "expected 8, 16 or 32, of a sum");
        }
        if complement.is_some() && !of_sum {
            keys.wrong("complement", "only a sum has this key");
        }
        let (from, to, at) = (keys.place("from").unwrap_or_default(), keys.place("to"), keys.place("at"));
        let order = Order::read(&mut keys, "order").unwrap_or_default();
        let is_hex = keys.choice("as", &["bytes", "hex"]) == Some(1);
        keys.end(Check { how, size, from, to, at, order, is_hex })
    }

    /// The bytes that it takes as it is spelled.
    pub(in crate::device) fn length(&self) -> usize {
        if self.is_hex { 2 * self.size } else { self.size }
    }

    /// Whether a frame came whole, as far as that can be told.
    pub(in crate::device) fn holds(&self, frame: &[u8]) -> bool {
        let Some((covered, stands)) = self.ranges(frame.len(), None) else { return false };
        let (Some(covered), Some(found)) = (frame.get(covered), frame.get(stands)) else { return false };
        found.eq_ignore_ascii_case(&self.spell(covered)) && (self.is_hex || found == self.spell(covered))
    }

    /// What it expects of a frame, and what it finds, for people.
    #[cfg(feature = "desk")]
    pub(in crate::device) fn explain(&self, frame: &[u8]) -> String {
        let name = match &self.how {
            How::Crc(crc) => crc.name(),
            How::Xor => "xor",
            How::Sum(None) => "sum",
            How::Sum(Some(Complement::One)) => "sum, complement of one",
            How::Sum(Some(Complement::Two)) => "sum, complement of two",
        };
        let ranges = self.ranges(frame.len(), None);
        let parts = ranges.and_then(|(covered, stands)| {
            let expected = self.spell(frame.get(covered.clone())?);
            Some((covered, expected, frame.get(stands.clone())?, stands))
        });
        let Some((covered, expected, found, stands)) = parts else {
            return format!("check: {name}: the frame is too short for it, it has {} bytes", frame.len());
        };
        let show = |bytes: &[u8]| match self.is_hex {
            true => format!("`{}`", bytes.escape_ascii()),
            false => base16ct::lower::encode_string(bytes),
        };
        let verdict = if self.holds(frame) { "right" } else { "wrong" };
        format!(
            "check: {name} of bytes {} to {}: expected {}, found {} at byte {}: {verdict}",
            covered.start,
            covered.end - 1,
            show(&expected),
            show(found),
            stands.start
        )
    }

    /// What of a frame it covers: that is the message, for decoders of text.
    pub(in crate::device) fn covered<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        self.ranges(frame.len(), None).and_then(|(covered, _)| frame.get(covered)).unwrap_or(frame)
    }

    /// Fills it in where its place was left open in a message. False: the message is too short for what it covers.
    pub(in crate::device) fn fill(&self, message: &mut [u8], at: usize) -> bool {
        let Some((covered, stands)) = self.ranges(message.len(), Some(at)) else { return false };
        let spelled = message.get(covered).map(|covered| self.spell(covered));
        let (Some(spelled), Some(place)) = (spelled, message.get_mut(stands)) else { return false };
        place.copy_from_slice(&spelled);
        true
    }

    /// What it covers, and where it stands. `None`: the frame is too short for it.
    fn ranges(&self, length: usize, at: Option<usize>) -> Option<(Range<usize>, Range<usize>)> {
        let default = || length.checked_sub(self.length());
        let at = at.or_else(|| self.at.map_or_else(default, |at| place(at, length)))?;
        let from = place(self.from, length)?;
        let to = self.to.map_or(Some(at), |to| place(to, length))?;
        (from < to).then_some((from..to, at..at + self.length()))
    }

    fn spell(&self, bytes: &[u8]) -> Vec<u8> {
        let value = match &self.how {
            How::Crc(crc) => crc.of(bytes),
            How::Xor => u128::from(bytes.iter().fold(0, |sum, byte| sum ^ byte)),
            How::Sum(complement) => {
                let sum = bytes.iter().fold(0u128, |sum, byte| sum + u128::from(*byte));
                match complement {
                    None => sum,
                    Some(Complement::One) => !sum,
                    Some(Complement::Two) => sum.wrapping_neg(),
                }
            }
        };
        let all = value.to_be_bytes();
        let mut spelled = all.get(all.len() - self.size..).unwrap_or_default().to_vec();
        self.order.turn(&mut spelled);
        if self.is_hex { base16ct::upper::encode_string(&spelled).into_bytes() } else { spelled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Check, Vec<Fault>> {
        Check::read(&text.parse().unwrap())
    }

    #[test]
    fn a_whole_frame_holds_and_any_flipped_bit_does_not() {
        for (text, frame) in [
            // A request of Modbus: read one holding register of slave 1.
            ("kind = \"crc\"\nname = \"modbus\"\norder = \"little\"", &b"\x01\x03\x00\x00\x00\x01\x84\x0a"[..]),
            ("kind = \"crc\"\nname = \"CRC-16/XMODEM\"", b"123456789\x31\xc3"),
            ("kind = \"crc\"\nname = \"CRC-16/XMODEM\"\nas = \"hex\"\nto = 9\nat = 10", b"123456789*31C3"),
            ("kind = \"xor\"\nfrom = 1\nto = -3\nas = \"hex\"", b"$GPGLL,4916.45,N,12311.12,W,225444,A,*1D"),
            ("kind = \"sum\"\nfrom = 1\ncomplement = \"two\"", b"\xff\x86\x02\x20\x00\x00\x00\x00\x58"),
            ("kind = \"sum\"\nto = -2\nat = -2", b"\x68\x03\x00\x00\x00\x00\x00\x68\x01\x02\x44\xe9\x03\x16"),
            ("kind = \"sum\"\nbits = 16", b"\xff\xff\x01\x01\xff"),
            ("kind = \"sum\"\ncomplement = \"one\"", b"\x01\x02\xfc"),
            ("kind = \"lrc\"", b"\x01\x03\x00\x00\x00\x01\xfb"),
        ] {
            let check = check(text).unwrap();
            assert!(check.holds(frame), "{text}");
            let (covered, stands) = check.ranges(frame.len(), None).unwrap();
            for place in covered.chain(stands.clone()) {
                let mut other = frame.to_vec();
                other[place] ^= if text.contains("hex") { 0x04 } else { 0x10 };
                assert!(!check.holds(&other), "{text} at {place}");
            }
            let mut made = frame.to_vec();
            made[stands.clone()].fill(0);
            assert!(check.fill(&mut made, stands.start), "{text}");
            assert_eq!(made, frame, "{text}");
            for length in 0..frame.len() {
                check.holds(&frame[..length]);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, expected) in [
            ("kind = \"crc\"", "expected the `name` of a CRC"),
            ("kind = \"crc\"\nname = \"CRC-17\"", "expected the `name` of a CRC"),
            ("kind = \"xor\"\nname = \"modbus\"", "only a CRC has a name"),
            ("kind = \"sum\"\nbits = 9", "expected 8, 16 or 32, of a sum"),
            ("kind = \"lrc\"\nbits = 16", "of a sum"),
            ("kind = \"crc\"\nname = \"modbus\"\ncomplement = \"two\"", "only a sum"),
        ] {
            let faults = check(text).unwrap_err();
            assert!(faults[0].text.contains(expected), "{text}: {faults:?}");
        }
    }
}
