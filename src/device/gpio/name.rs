//! The names under which outputs are held: all that is known of one before the config is read.

use std::fmt;
use std::str::FromStr;

use super::config::{Bias, Drive};

/// What the names begin with; the number rises when they change.
const FORMAT: &str = "gpio1";

/// The name that a held output has, which is all that is known of it before the config is read:
///
/// `gpio1,NODE,LABEL,OFFSET,SAFE,POLARITY,DRIVE,BIAS`, such as `gpio1,gpiochip0,pinctrl-bcm2835,17,off,active-high,push-pull,as-is`
///
/// The node says which chip it is, since two may have one label; it is good for one boot, as descriptors are. Of node and
/// label all but letters, digits, `.`, `_` and `-` is `%XX`: systemd allows no `:` and no control characters, and 255
/// characters in all, of which a label of 31 bytes takes 93 at most. `SAFE` is the logical level, `on` or `off`. The
/// last three are what the line was requested with: under another name it must be requested anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// The chip's character device, below `/dev`.
    pub node: String,
    /// What its driver calls it.
    pub label: String,
    /// The line's place on it, from 0.
    pub offset: u32,
    /// The logical level that is safe.
    pub safe: bool,
    /// A low level is on.
    pub active_low: bool,
    /// How it is driven.
    pub drive: Drive,
    /// Its own resistor.
    pub bias: Bias,
}

const SAFE: [(bool, &str); 2] = [(false, "off"), (true, "on")];
const POLARITY: [(bool, &str); 2] = [(false, "active-high"), (true, "active-low")];
const DRIVE: [(Drive, &str); 3] =
    [(Drive::PushPull, "push-pull"), (Drive::OpenDrain, "open-drain"), (Drive::OpenSource, "open-source")];
const BIAS: [(Bias, &str); 4] =
    [(Bias::AsIs, "as-is"), (Bias::Disabled, "disabled"), (Bias::PullUp, "pull-up"), (Bias::PullDown, "pull-down")];

fn word<T: PartialEq>(words: &[(T, &'static str)], value: &T) -> &'static str {
    words.iter().find(|(of, _)| of == value).map_or("", |(_, word)| word)
}

fn value<T: Copy>(words: &[(T, &str)], word: &str) -> Option<T> {
    words.iter().find(|(_, of)| *of == word).map(|(value, _)| *value)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name { node, label, offset, safe, active_low, drive, bias } = self;
        let (node, label) = (escaped(node), escaped(label));
        let (safe, polarity) = (word(&SAFE, safe), word(&POLARITY, active_low));
        let (drive, bias) = (word(&DRIVE, drive), word(&BIAS, bias));
        write!(f, "{FORMAT},{node},{label},{offset},{safe},{polarity},{drive},{bias}")
    }
}

/// The name is none of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign;

impl FromStr for Name {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Foreign> {
        let parts: Vec<&str> = text.split(',').collect();
        let &[FORMAT, node, label, offset, safe, polarity, drive, bias] = parts.as_slice() else {
            return Err(Foreign);
        };
        Ok(Name {
            node: plain(node).ok_or(Foreign)?,
            label: plain(label).ok_or(Foreign)?,
            offset: offset.parse().map_err(|_| Foreign)?,
            safe: value(&SAFE, safe).ok_or(Foreign)?,
            active_low: value(&POLARITY, polarity).ok_or(Foreign)?,
            drive: value(&DRIVE, drive).ok_or(Foreign)?,
            bias: value(&BIAS, bias).ok_or(Foreign)?,
        })
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn plain(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(out).ok()
}

impl Name {
    /// Whether it is this line.
    pub(super) fn is_at(&self, node: &str, offset: u32) -> bool {
        self.node == node && self.offset == offset
    }

    /// Whether it was requested as the other one is wanted; what is safe may differ.
    pub(super) fn serves(&self, wanted: &Name) -> bool {
        Name { safe: wanted.safe, ..self.clone() } == *wanted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> Name {
        let (node, label) = ("gpiochip0".to_owned(), "pinctrl-bcm2835".to_owned());
        let (drive, bias) = (Drive::PushPull, Bias::AsIs);
        Name { node, label, offset: 17, safe: false, active_low: false, drive, bias }
    }

    #[test]
    fn a_name_says_all_of_a_line() {
        let text = "gpio1,gpiochip0,pinctrl-bcm2835,17,off,active-high,push-pull,as-is";
        assert_eq!(name().to_string(), text);
        for foreign in
            ["", "panel-1-0", "gpio1,gpiochip0,a,1,off", &text.replace("gpio1", "gpio2"), &format!("{text},x")]
        {
            assert_eq!(foreign.parse::<Name>(), Err(Foreign), "{foreign}");
        }
    }

    #[test]
    fn another_safe_level_is_no_other_line_but_another_polarity_is() {
        assert!(name().serves(&Name { safe: true, ..name() }));
        assert!(!name().serves(&Name { active_low: true, ..name() }));
        assert!(!name().serves(&Name { bias: Bias::PullUp, ..name() }));
        assert!(!name().serves(&Name { offset: 18, ..name() }));
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_written(
            label in "\\PC{0,10}|[ -~]{0,31}|[:%,\\x01-\\x1f]{0,31}", offset: u32, safe: bool, active_low: bool,
            drive in 0..DRIVE.len(), bias in 0..BIAS.len(),
        ) {
            let node = "gpiochip12".to_owned();
            let name = Name { node, label, offset, safe, active_low, drive: DRIVE[drive].0, bias: BIAS[bias].0 };
            let text = name.to_string();
            // systemd's rule for FDNAME= (sd_notify(3)).
            prop_assert!(text.len() <= 255 && text.bytes().all(|b| (b' '..127).contains(&b) && b != b':'), "{}", text);
            prop_assert_eq!(text.parse(), Ok(name));
        }
    }
}
