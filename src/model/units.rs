//! Quantities as people write them in the config: `"30s"`, `"16MiB"`, `"200/s"`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A length of time, written as `"500ms"`, `"30s"`, `"2m 30s"`, `"7d"`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Span(pub Duration);

/// A number of bytes, written as `"64KiB"`, `"16MiB"`, `"1GB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Size(pub u64);

/// How often at most, written as `"6/m"`, `"200/s"`, `"1/h"`, or `"off"` for no limit.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(into = "String")]
pub enum Rate {
    /// No limit.
    Off,
    /// So many in each such time.
    Limit {
        /// How many.
        count: u32,
        /// In what time: a second, a minute or an hour.
        per: Duration,
    },
}

impl Span {
    /// So many seconds.
    pub const fn secs(seconds: u64) -> Self {
        Span(Duration::from_secs(seconds))
    }
}

impl Rate {
    /// The mean time between two; zero for no limit.
    pub fn interval(self) -> Duration {
        match self {
            Rate::Off => Duration::ZERO,
            Rate::Limit { count, per } => per / count.max(1),
        }
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map(Span)
            .map_err(|_| format!("`{text}` is not a duration: expected one such as \"500ms\", \"30s\" or \"7d\""))
    }
}

const SIZE_UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        SIZE_UNITS
            .iter()
            .find_map(|(unit, factor)| {
                let number: u64 = trimmed.strip_suffix(unit)?.trim().parse().ok()?;
                number.checked_mul(*factor).map(Size)
            })
            .ok_or_else(|| format!("`{text}` is not a size: expected one such as \"64KiB\" or \"16MiB\""))
    }
}

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a rate: expected one such as \"200/s\", \"6/m\", \"1/h\" or \"off\"");
        if text == "off" {
            return Ok(Rate::Off);
        }
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let per = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(wrong()),
        };
        let count = count.trim().parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?;
        Ok(Rate::Limit { count, per })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that leaves a whole number.
        let (unit, factor) = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rate::Off => f.write_str("off"),
            Rate::Limit { count, per } => {
                let unit = match per.as_secs() {
                    3600 => "h",
                    60 => "m",
                    _ => "s",
                };
                write!(f, "{count}/{unit}")
            }
        }
    }
}

/// Reads a whole number from `MIN` to `MAX`, for `#[serde(deserialize_with)]`: so that whoever writes a wrong one is
/// told what would have been right, whether it was a number or not.
///
/// # Errors
/// When it is no such number.
pub fn whole<'de, D: Deserializer<'de>, T: TryFrom<i64>, const MIN: i64, const MAX: i64>(
    deserializer: D,
) -> Result<T, D::Error> {
    let number = deserializer.deserialize_i64(Whole::<MIN, MAX>)?;
    T::try_from(number).map_err(|_| Error::invalid_value(Unexpected::Signed(number), &Whole::<MIN, MAX>))
}

struct Whole<const MIN: i64, const MAX: i64>;

impl<const MIN: i64, const MAX: i64> Visitor<'_> for Whole<MIN, MAX> {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from {MIN} to {MAX}")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<i64, E> {
        if (MIN..=MAX).contains(&number) {
            Ok(number)
        } else {
            Err(E::invalid_value(Unexpected::Signed(number), &self))
        }
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<i64, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(number), &self)),
        }
    }
}

/// Takes a text and parses it; knows what to say of anything else.
struct Text<T>(&'static str, PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! as_text {
    ($($type:ident: $expected:literal),*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text($expected, PhantomData))
            }
        }
        impl From<$type> for String {
            fn from(quantity: $type) -> String {
                quantity.to_string()
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
as_text!(
    Span: "a duration such as \"30s\"",
    Size: "a size such as \"16MiB\"",
    Rate: "a rate such as \"200/s\""
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quantity_needs_its_unit() {
        assert_eq!("30s".parse(), Ok(Span::secs(30)));
        assert_eq!("2m 30s".parse(), Ok(Span::secs(150)));
        assert_eq!("16MiB".parse(), Ok(Size(16 << 20)));
        assert_eq!("1 GB".parse(), Ok(Size(1_000_000_000)));
        assert_eq!("6/m".parse(), Ok(Rate::Limit { count: 6, per: Duration::from_secs(60) }));
        assert_eq!("off".parse(), Ok(Rate::Off));
        for bad in ["", "30", "s", "-1s", "200/d", "0/s", "MiB", "99999999999GiB"] {
            assert!(
                bad.parse::<Span>().is_err() && bad.parse::<Size>().is_err() && bad.parse::<Rate>().is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_wrong_type_is_told_what_would_be_right() {
        #[derive(Debug, serde::Deserialize)]
        #[expect(dead_code, reason = "only the error matters")]
        struct Sample {
            wait: Option<Span>,
            #[serde(default, deserialize_with = "whole::<_, _, 1, 1000>")]
            window: u16,
        }
        for (text, expected) in [
            ("wait = 30", "expected a duration such as \"30s\""),
            ("window = \"x\"", "expected a whole number from 1 to 1000"),
            ("window = 0", "expected a whole number from 1 to 1000"),
        ] {
            let error = toml::from_str::<Sample>(text).unwrap_err();
            assert!(error.message().ends_with(expected), "{text}: {}", error.message());
        }
    }

    proptest! {
        #[test]
        fn a_quantity_reads_back_as_written(ms in 0u64..10_000_000_000, bytes: u64, count in 1u32.., unit in 0usize..3) {
            let span = Span(Duration::from_millis(ms));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            let size = Size(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            let rate = Rate::Limit { count, per: Duration::from_secs([1, 60, 3600][unit]) };
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
