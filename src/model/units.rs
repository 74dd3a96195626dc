//! Quantities as people write them in the config: `"30s"`, `"16MiB"`, `"200/s"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

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

macro_rules! as_text {
    ($($type:ident),*) => {$(
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
as_text!(Span, Size, Rate);

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
