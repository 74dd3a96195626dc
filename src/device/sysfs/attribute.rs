//! One file of the kernel's: its value, in the kernel's own scale.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use regex_lite::Regex;

use super::find::{Beside, find};
use crate::device::access;
use crate::model::{Fault, Value, ValueType};

/// A file, and how its text is read.
#[derive(Debug)]
pub(super) struct Attribute {
    path: PathBuf,
    matches: BTreeMap<String, String>,
    pattern: Option<Regex>,
    /// The text is the value, whatever it looks like.
    text: bool,
}

impl Attribute {
    pub(super) fn new(
        path: PathBuf,
        matches: BTreeMap<String, String>,
        pattern: Option<&str>,
        value_type: Option<ValueType>,
    ) -> Result<Self, Fault> {
        let pattern = pattern.map(Regex::new).transpose();
        let pattern = pattern.map_err(|error| Fault::at("pattern", format!("is no pattern: {error}")))?;
        if pattern.as_ref().is_some_and(|pattern| pattern.captures_len() != 2) {
            return Err(Fault::at("pattern", "expected one group, such as \"t=(-?[0-9]+)\""));
        }
        Ok(Attribute { path, matches, pattern, text: value_type == Some(ValueType::Text) })
    }

    /// The file, as it is called now.
    pub(super) fn path(&self) -> Result<PathBuf, String> {
        find(&self.path, &self.matches, Beside::It)
    }

    pub(super) fn read(&self) -> Result<Value, String> {
        let path = self.path()?;
        let text = text(&path)?;
        let text = match &self.pattern {
            None => text.trim(),
            Some(pattern) => pattern
                .captures(&text)
                .and_then(|captures| captures.get(1))
                .map(|found| found.as_str())
                .ok_or_else(|| format!("`pattern` is not in {:?} of {}", shown(&text), path.display()))?,
        };
        if self.text {
            return Ok(Value::text(text));
        }
        Ok(match number(text) {
            Some(raw) if self.pattern.is_none() => meaning(&path, raw),
            Some(raw) => raw,
            None => Value::text(text),
        })
    }

    pub(super) fn write(&self, value: &Value) -> Result<(), String> {
        let path = self.path()?;
        let text = match value {
            Value::Bool(on) => u8::from(*on).to_string(),
            other => other.to_string(),
        };
        put(&path, &text)
    }
}

/// What a number means. Of Industrial I/O, `…_raw` is worth (raw + offset) × scale, which stand beside it for the channel,
/// for its type, or for all (Linux, Documentation/ABI/testing/sysfs-bus-iio).
fn meaning(path: &Path, raw: Value) -> Value {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (Some(channel), Some(raw_number)) =
        (name.strip_suffix("_raw").filter(|name| name.starts_with("in_")), raw.as_f64())
    else {
        return raw;
    };
    let of = |what: &str| {
        let place = |stem: &str| {
            let text = fs::read_to_string(path.with_file_name(format!("{stem}_{what}"))).ok()?;
            text.trim().parse::<f64>().ok()
        };
        stems(channel).iter().find_map(|stem| place(stem))
    };
    match (of("scale"), of("offset")) {
        (None, None) => raw,
        (scale, offset) => Value::Float((raw_number + offset.unwrap_or(0.0)) * scale.unwrap_or(1.0)),
    }
}

/// For whom a scale may be: the channel `in_voltage0_supply`, `in_voltage_supply`, `in_voltage0`, `in_voltage`, `in`.
fn stems(channel: &str) -> Vec<String> {
    let without_digits = |stem: &str| stem.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    let mut stems = Vec::new();
    let mut stem = channel;
    loop {
        for one in [stem.to_owned(), without_digits(stem)] {
            if !stems.contains(&one) {
                stems.push(one);
            }
        }
        match stem.rsplit_once('_') {
            Some((shorter, _)) => stem = shorter,
            None => return stems,
        }
    }
}

fn number(text: &str) -> Option<Value> {
    let whole = text.parse::<i64>().map(Value::Int).ok();
    whole.or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::Float))
}

/// The text of a file of the kernel's.
pub(super) fn text(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| refusal(path, &error))
}

/// Writes all of it at once, as the kernel wants it.
pub(super) fn put(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| match error.raw_os_error() {
        Some(libc::EROFS) => format!(
            "{} is read-only for the service: its drop-in sysfs-gpio.conf opens /sys (docs/SERVICE.md)",
            path.display()
        ),
        _ => refusal(path, &error),
    })
}

fn refusal(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => access::denied(path),
        _ => format!("{}: {error}", path.display()),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::tree;

    #[test]
    fn a_channel_has_its_own_scale_or_that_of_its_type() {
        let root = tree(&[
            ("in_voltage0_raw", "100\n"),
            ("in_voltage1_raw", "100\n"),
            ("in_voltage1_scale", "2\n"),
            ("in_voltage_scale", "0.5\n"),
            ("in_voltage_offset", "-20\n"),
            ("in_temp_raw", "300\n"),
            ("in_temp_input", "21500\n"),
            ("in_accel_x_raw", "-7\n"),
            ("in_accel_scale", "0.1\n"),
            ("out_voltage0_raw", "5\n"),
            ("out_voltage_scale", "9\n"),
            ("name", "bmp280\n"),
            ("w1_slave", "5e 01 : crc=b1 YES\n5e 01 t=21875\n"),
        ]);
        for (file, pattern, expected) in [
            ("in_voltage0_raw", None, Ok(Value::Float(40.0))),
            ("in_voltage1_raw", None, Ok(Value::Float(160.0))),
            ("in_temp_raw", None, Ok(Value::Int(300))),
            ("in_temp_input", None, Ok(Value::Int(21500))),
            ("in_accel_x_raw", None, Ok(Value::Float(-0.7000000000000001))),
            ("out_voltage0_raw", None, Ok(Value::Int(5))),
            ("name", None, Ok(Value::text("bmp280"))),
            ("w1_slave", Some("YES\n.* t=(-?[0-9]+)"), Ok(Value::Int(21875))),
            ("w1_slave", Some("u=(.)"), Err("`pattern` is not in")),
            ("in_none_raw", None, Err("there is no ")),
        ] {
            let attribute = Attribute::new(root.path().join(file), BTreeMap::new(), pattern, None).unwrap();
            match (attribute.read(), expected) {
                (Err(text), Err(expected)) => assert!(text.starts_with(expected), "{file}: {text}"),
                (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{file}"),
            }
        }
        let text =
            Attribute::new(root.path().join("in_temp_raw"), BTreeMap::new(), None, Some(ValueType::Text)).unwrap();
        assert_eq!(text.read(), Ok(Value::text("300")));
    }

    #[test]
    fn a_pattern_has_one_group() {
        let new = |pattern| Attribute::new("/x".into(), BTreeMap::new(), Some(pattern), None).map(|_| ());
        assert_eq!(new("t=([0-9]+)"), Ok(()));
        assert_eq!(new("t="), Err(Fault::at("pattern", "expected one group, such as \"t=(-?[0-9]+)\"")));
        assert!(new("(").unwrap_err().text.starts_with("is no pattern: "));
    }
}
