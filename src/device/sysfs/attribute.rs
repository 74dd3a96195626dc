//! One file of the kernel's: its value, in the kernel's own scale.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use regex_lite::Regex;
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use super::find::{Beside, find, trimmed};
use crate::device::access::refusal;
use crate::model::{Fault, Value, ValueType};

/// So long a driver may say that it has no value yet. The longest first conversion of the kernel's drivers for thermometers is
/// half of this (tmp108 and its kin: 27 to 35 ms; the slow resolutions of others: half a second).
const CONVERSION: Duration = Duration::from_secs(1);

/// What the kernel calls a 1-Wire bus, but for its number.
const BUS: &str = "w1_bus_master";

/// A file, and how its text is read.
#[derive(Debug)]
pub(super) struct Attribute {
    path: PathBuf,
    matches: BTreeMap<String, String>,
    pattern: Option<Regex>,
    /// The text is the value, whatever it looks like.
    text: bool,
    /// The value is on or off.
    switch: bool,
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
        let is = |wanted| value_type == Some(wanted);
        Ok(Attribute { path, matches, pattern, text: is(ValueType::Text), switch: is(ValueType::Bool) })
    }

    /// The file, as it is called now.
    pub(super) fn path(&self) -> Result<PathBuf, String> {
        find(&self.path, &self.matches, Beside::It)
    }

    pub(super) fn read(&self) -> Result<Value, String> {
        let path = self.path()?;
        let text = text(&path)?;
        let text = match &self.pattern {
            None => trimmed(&text),
            Some(pattern) => pattern
                .captures(&text)
                .and_then(|captures| captures.get(1))
                .map(|found| found.as_str())
                .ok_or_else(|| format!("`pattern` is not in {:?} of {}", shown(&text), path.display()))?,
        };
        if self.text {
            return Ok(Value::text(text));
        }
        if self.switch && most_of_led(&path).is_some() {
            return Ok(number(text).map_or_else(|| Value::text(text), |raw| Value::Bool(raw.as_f64() != Some(0.0))));
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
            // How bright that is, the LED's driver knows: 1 is on of one that is a line, and dark of most others.
            Value::Bool(true) => most_of_led(&path).unwrap_or_else(|| "1".to_owned()),
            Value::Bool(false) => "0".to_owned(),
            other => other.to_string(),
        };
        put(&path, &text)
    }
}

/// The brightness of an LED that is on.
fn most_of_led(path: &Path) -> Option<String> {
    let is_led = path.file_name().is_some_and(|name| name == "brightness");
    let most = is_led.then(|| fs::read_to_string(path.with_file_name("max_brightness")).ok()).flatten()?;
    Some(most.trim().to_owned()).filter(|most| most.parse::<u32>().is_ok())
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

/// The text of a file of the kernel's. A driver that has no value yet, since its chip converts, says so: it is asked again.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let _turn = turn(path);
    let end = Instant::now() + CONVERSION;
    loop {
        match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => wait(),
            read => return read.map_err(|error| refusal(path, &error)),
        }
    }
}

/// The bus of a file of 1-Wire, for who asks it alone, until it is dropped. It does one thing at a time anyway; and who waits for it
/// in the kernel's driver of thermometers (w1_therm, Linux 6.12) and is stopped meanwhile spins there, on a board of one core
/// for ever.
fn turn(path: &Path) -> Option<File> {
    let path = path.canonicalize().ok()?;
    let is_bus = |folder: &&Path| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(BUS));
    let bus = File::open(path.ancestors().skip(1).find(is_bus)?).ok()?;
    // Where it can't be locked, it is asked as others do.
    retry_on_intr(|| flock(&bus, FlockOperation::LockExclusive)).ok().map(|()| bus)
}

/// A moment, in a thread that waits for the kernel.
#[expect(
    clippy::disallowed_methods,
    reason = "in a thread of its own, and neither udev nor a conversion has another sign"
)]
pub(super) fn wait() {
    thread::sleep(Duration::from_millis(20));
}

/// Writes all of it at once, as the kernel wants it.
pub(super) fn put(path: &Path, text: &str) -> Result<(), String> {
    let _turn = turn(path);
    fs::write(path, text).map_err(|error| match error.raw_os_error() {
        // A channel of PWM that drives an LED, a converter whose buffer runs.
        Some(libc::EBUSY) => {
            format!("{}: what it is for is in use by a driver of the kernel, or another program", path.display())
        }
        _ => refusal(path, &error),
    })
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
    fn a_led_that_is_on_is_as_bright_as_it_can_be() {
        let root = tree(&[
            ("red/brightness", "0\n"),
            ("red/max_brightness", "1\n"),
            ("white/brightness", "0\n"),
            ("white/max_brightness", "255\n"),
            ("relay/enable", "0\n"),
        ]);
        for (file, expected) in [("red/brightness", "1"), ("white/brightness", "255"), ("relay/enable", "1")] {
            let path = root.path().join(file);
            let attribute = Attribute::new(path.clone(), BTreeMap::new(), None, Some(ValueType::Bool)).unwrap();
            for (on, text) in [(true, expected), (false, "0")] {
                attribute.write(&Value::Bool(on)).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), text, "{file}");
                let found = attribute.read().unwrap();
                assert_eq!(found.convert(ValueType::Bool), Ok(Value::Bool(on)), "{file}");
            }
        }
        // Somebody else dimmed it: on it is.
        let path = root.path().join("white/brightness");
        fs::write(&path, "7\n").unwrap();
        let read = |wanted| Attribute::new(path.clone(), BTreeMap::new(), None, wanted).unwrap().read();
        assert_eq!(read(Some(ValueType::Bool)), Ok(Value::Bool(true)));
        assert_eq!(read(None), Ok(Value::Int(7)));
    }

    #[test]
    fn a_bus_of_1_wire_is_asked_by_one_at_a_time() {
        let root = tree(&[("devices/w1_bus_master1/28-01/temperature", "21500\n"), ("hwmon0/name", "w1_slave_temp\n")]);
        let link = root.path().join("28-01");
        std::os::unix::fs::symlink(root.path().join("devices/w1_bus_master1/28-01"), &link).unwrap();
        let other = turn(&link.join("temperature")).expect("it is on a bus");
        let (answer, answers) = std::sync::mpsc::channel();
        let path = link.join("temperature");
        let reader = thread::spawn(move || answer.send(text(&path)).unwrap());
        assert!(answers.recv_timeout(Duration::from_millis(50)).is_err(), "two at a time");
        drop(other);
        assert_eq!(answers.recv().unwrap(), Ok("21500\n".to_owned()));
        reader.join().unwrap();
        // Nothing else waits for anybody.
        assert!(turn(&root.path().join("hwmon0/name")).is_none());
    }

    #[test]
    fn a_text_of_the_device_tree_ends_before_its_nul() {
        let root = tree(&[("model", "Raspberry Pi 3 Model B Rev 1.2\0"), ("temp", "21500\n\0")]);
        let read = |file| Attribute::new(root.path().join(file), BTreeMap::new(), None, None).unwrap().read();
        assert_eq!(read("model"), Ok(Value::text("Raspberry Pi 3 Model B Rev 1.2")));
        assert_eq!(read("temp"), Ok(Value::Int(21500)));
    }

    #[test]
    fn a_pattern_has_one_group() {
        let new = |pattern| Attribute::new("/x".into(), BTreeMap::new(), Some(pattern), None).map(|_| ());
        assert_eq!(new("t=([0-9]+)"), Ok(()));
        assert_eq!(new("t="), Err(Fault::at("pattern", "expected one group, such as \"t=(-?[0-9]+)\"")));
        assert!(new("(").unwrap_err().text.starts_with("is no pattern: "));
    }
}
