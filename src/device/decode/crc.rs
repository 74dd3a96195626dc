//! Cyclic redundancy checks by name: all of the catalogue of Greg Cook (<https://reveng.sourceforge.io/crc-catalogue/>).
//!
//! One code for all widths, bit by bit: a frame has a few hundred bytes, and tables would be larger than the code.

/// A line for each: name, width, polynomial, initial value, whether bits go in and come out reflected, what the result is
/// combined with, and the check of `123456789`.
const CATALOGUE: &str = include_str!("crc.txt");

/// Names that manuals use for some of them.
const ALIASES: [(&str, &str); 7] = [
    ("CRC-8", "CRC-8/SMBUS"),
    ("CRC-16", "CRC-16/ARC"),
    ("CRC-16/CCITT", "CRC-16/KERMIT"),
    ("CRC-16/CCITT-FALSE", "CRC-16/IBM-3740"),
    ("CRC-16/X-25", "CRC-16/IBM-SDLC"),
    ("CRC-32", "CRC-32/ISO-HDLC"),
    ("CRC-64", "CRC-64/ECMA-182"),
];

/// One of the catalogue. 128 bits hold the widest, of 82.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crc {
    width: u32,
    polynomial: u128,
    initial: u128,
    reflect_in: bool,
    reflect_out: bool,
    last: u128,
}

impl Crc {
    /// Its name in the catalogue.
    #[cfg(feature = "desk")]
    pub(super) fn name(&self) -> &'static str {
        let rows = CATALOGUE.lines().filter_map(|row| row.split_once(' '));
        rows.map(|(name, _)| name).find(|name| Crc::named(name).as_ref() == Some(self)).unwrap_or("crc")
    }

    /// The one of this name: `CRC-16/MODBUS`, or only `modbus` where no other one has that behind its stroke.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name.as_str(), |(_, known)| known);
        let rows = || CATALOGUE.lines().filter_map(|row| row.split_once(' '));
        let whole = rows().find(|(known, _)| *known == name);
        let mut short = rows().filter(|(known, _)| known.split_once('/').is_some_and(|(_, behind)| behind == name));
        let (_, row) = whole.or_else(|| short.next().filter(|_| short.next().is_none()))?;
        let mut numbers = row.split(' ').skip(1).filter_map(|number| u128::from_str_radix(number, 16).ok());
        Some(Crc {
            width: row.split(' ').next()?.parse().ok()?,
            polynomial: numbers.next()?,
            initial: numbers.next()?,
            reflect_in: numbers.next()? == 1,
            reflect_out: numbers.next()? == 1,
            last: numbers.next()?,
        })
    }

    /// The bytes that its result takes.
    pub(super) fn size(&self) -> usize {
        usize::try_from(self.width.div_ceil(8)).unwrap_or_default()
    }

    /// The check of these bytes.
    pub(super) fn of(&self, bytes: &[u8]) -> u128 {
        // Left-aligned, so that one code serves the widths below 8 as well.
        let unused = u128::BITS - self.width;
        let polynomial = self.polynomial << unused;
        let mut register = self.initial << unused;
        for byte in bytes {
            let byte = if self.reflect_in { byte.reverse_bits() } else { *byte };
            register ^= u128::from(byte) << (u128::BITS - 8);
            for _ in 0..8 {
                let carry = register >> (u128::BITS - 1) == 1;
                register <<= 1;
                if carry {
                    register ^= polynomial;
                }
            }
        }
        let result =
            if self.reflect_out { register.reverse_bits() & (u128::MAX >> unused) } else { register >> unused };
        result ^ self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_catalogue_gives_its_check() {
        let mut count = 0;
        for row in CATALOGUE.lines() {
            let (name, check) = (row.split(' ').next().unwrap(), row.rsplit(' ').next().unwrap());
            let crc = Crc::named(name).unwrap();
            assert_eq!(format!("{:x}", crc.of(b"123456789")), check, "{name}");
            count += 1;
        }
        assert_eq!(count, 113);
    }

    #[test]
    fn short_names_are_known_and_doubtful_ones_are_not() {
        assert_eq!(Crc::named("modbus"), Crc::named("CRC-16/MODBUS"));
        assert_eq!(Crc::named("CRC-32"), Crc::named("crc-32/iso-hdlc"));
        assert!(
            ALIASES.iter().all(|(alias, known)| Crc::named(alias) == Crc::named(known) && Crc::named(alias).is_some())
        );
        // Several are of GSM.
        for unknown in ["GSM", "CRC-16/NOBODY", "", "16"] {
            assert_eq!(Crc::named(unknown), None, "{unknown}");
        }
    }
}
