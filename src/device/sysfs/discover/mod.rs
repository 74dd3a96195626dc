//! What the kernel drives, as config. Sensors are read, as anybody may; outputs are only named.

mod inputs;
mod outputs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::attribute::Attribute;
use crate::device::discover::{Board, entries, quoted, read, unique};
use crate::device::pattern;
use crate::model::{Value, ValueType};

/// A value that can be read.
#[derive(Debug, Default)]
struct Found {
    /// Where it is now.
    path: String,
    /// A pattern that finds it after the next boot too.
    pattern: String,
    /// What tells it from others of this pattern: a file, and what it holds.
    matches: Option<(&'static str, String)>,
    /// What a point of it might be called.
    wish: String,
    /// How many of its units are one of `unit`; 0: they are the same.
    divisor: f64,
    unit: &'static str,
    /// The `type` of the point, where it is not that of the text.
    value_type: &'static str,
    label: String,
    /// The pattern has numbers that may be others after the next boot.
    is_numbered: bool,
}

/// What is said of that.
const NUMBERED: &str =
    ", found by a number that may be another one's after the next boot: nothing else tells them apart";

/// Adds them to what the board has.
pub(super) fn discover(board: &mut Board) {
    let sensors = inputs::all(board);
    if sensors.is_empty() && !outputs::has(board) {
        return;
    }
    board.part("what the kernel drives: sensors, and outputs behind a #");
    let device = board.name("kernel", "kernel");
    board.config(!sensors.is_empty(), &format!("[device.{device}]"), "");
    board.config(!sensors.is_empty(), "kind = \"sysfs\"", "");
    // A device needs no point, but what can't be read needs none of its keys either.
    let mut names = BTreeSet::new();
    for sensor in sensors {
        show(board, &device, sensor, &mut names);
    }
    outputs::show(board, &device, &mut names);
}

fn show(board: &mut Board, device: &str, mut sensor: Found, names: &mut BTreeSet<String>) {
    let value_type = (!sensor.value_type.is_empty()).then_some(ValueType::Text);
    let attribute = Attribute::new(board.path(&sensor.path), BTreeMap::new(), None, value_type);
    let value = attribute.ok().and_then(|attribute| attribute.read().ok());
    let value = value.filter(|value| value_type.is_some() || value.as_f64().is_some());
    let mut note = String::new();
    if sensor.path.ends_with("_raw") && matches!(value, Some(Value::Int(_))) {
        // Without a scale of the kernel's nobody knows of what it is.
        (sensor.divisor, sensor.unit, note) = (1.0, "", ", for which the kernel has no scale".to_owned());
    }
    let divisor = if sensor.divisor == 0.0 { 1.0 } else { sensor.divisor };
    let shown = match value.as_ref().map(|value| (value.as_f64(), value)) {
        Some((Some(number), _)) => {
            // Six digits are more than a sensor knows.
            let number = format!("{:.5e}", number / divisor).parse::<f64>().unwrap_or(number);
            let unit = if sensor.unit.is_empty() { String::new() } else { format!(" {}", sensor.unit) };
            format!("{number}{unit} now{note}")
        }
        Some((None, text)) => format!("{text} now"),
        None => "can't be read".to_owned(),
    };
    let name = unique(&sensor.wish, "sensor", names);
    let is_on = value.is_some();
    board.gap();
    board.config(
        is_on,
        &format!("[device.{device}.point.{name}]"),
        &format!("{shown}{}{}", sensor.label, if sensor.is_numbered { NUMBERED } else { "" }),
    );
    board.config(is_on, &format!("path = {}", quoted(&sensor.pattern)), "");
    if let Some((file, text)) = &sensor.matches {
        board.config(is_on, &format!("match = {{ {file} = {} }}", quoted(text)), "");
    }
    if !sensor.value_type.is_empty() {
        board.config(is_on, &format!("type = {}", quoted(sensor.value_type)), "");
    }
    if divisor.to_bits() != 1f64.to_bits() {
        board.config(is_on, &format!("scale = {}", 1.0 / divisor), "");
    }
    if !sensor.unit.is_empty() {
        board.config(is_on, &format!("unit = {}", quoted(sensor.unit)), "");
    }
}

/// A chip with files that can be read.
#[derive(Debug)]
struct Chip {
    /// Where it is now.
    folder: String,
    /// What its points are called by.
    name: String,
    /// A pattern that finds it after the next boot too.
    pattern: String,
    /// Its name, where that tells it from others of the pattern.
    matches: Option<(&'static str, String)>,
    is_numbered: bool,
}

impl Chip {
    /// One of its files; `stem` is what tells it from the others.
    fn file(&self, file: &str, stem: &str) -> Found {
        Found {
            path: format!("{}/{file}", self.folder),
            pattern: format!("{}/{file}", self.pattern),
            matches: self.matches.clone(),
            wish: format!("{}-{stem}", self.name),
            is_numbered: self.is_numbered,
            ..Found::default()
        }
    }
}

/// The chips below a folder that the kernel numbers, and how each is found: by its name, or, where it has none of its own, by
/// where it is.
fn chips(board: &Board, class: &str, number: &str) -> Vec<Chip> {
    let folders = board.entries(class).into_iter().filter(|entry| entry.starts_with(number));
    let folders: Vec<String> = folders.map(|entry| format!("/{class}/{entry}")).collect();
    let name = |folder: &String| read(&board.path(&format!("{folder}/name"))).unwrap_or_default();
    let names: Vec<String> = folders.iter().map(name).collect();
    let found = folders.iter().zip(&names).map(|(folder, name)| {
        let (folder, name) = (folder.clone(), name.clone());
        if !name.is_empty() && names.iter().filter(|other| **other == name).count() == 1 {
            let pattern = format!("/{class}/{number}*");
            return Chip { folder, pattern, matches: Some(("name", name.clone())), name, is_numbered: false };
        }
        let Place { pattern, address, is_numbered, .. } = place(board, &folder, number);
        let name = address.map_or_else(|| name.clone(), |address| format!("{name}-{address}"));
        Chip { folder, name, pattern, matches: None, is_numbered }
    });
    found.collect()
}

/// Where a chip is.
struct Place {
    /// A pattern of its folder that finds it after the next boot too.
    pattern: String,
    /// What the kernel calls the device that it belongs to.
    device: Option<String>,
    /// The device's address on its I2C bus.
    address: Option<String>,
    /// The pattern has numbers that may be others after the next boot.
    is_numbered: bool,
}

/// Where a chip of a class is among the kernel's devices: below its bus, which does not change, save that I2C buses are numbered
/// in the order in which they are found.
fn place(board: &Board, folder: &str, number: &str) -> Place {
    let root = board.root().canonicalize().unwrap_or_default();
    let parts = board.path(folder).canonicalize().ok().and_then(|path| parts(&root, path.parent()?));
    let Some(parts) = parts else {
        return Place { pattern: folder.to_owned(), device: None, address: None, is_numbered: true };
    };
    let steady = steady(&root, &parts);
    let below = |parts: &[String]| format!("/{}/{number}*", parts.join("/"));
    // The same address may be there on two buses that only their numbers tell apart.
    let alone = super::find::find(&board.path(&below(&steady)), &BTreeMap::new(), super::find::Beside::It).is_ok();
    // `…/0-0048/hwmon/hwmon3`, but `…/0-0076/iio:device0`.
    let device = parts.iter().rev().find(|part| !["hwmon", "pwm"].contains(&part.as_str())).cloned();
    let address =
        device.as_deref().and_then(|device| device.split_once('-').filter(|_| pattern::of_i2c(device).is_some()));
    Place {
        pattern: below(if alone { &steady } else { &parts }),
        address: address.map(|(_, address)| address.to_owned()),
        device,
        is_numbered: !alone,
    }
}

/// The folders from the root to this one.
fn parts(root: &Path, path: &Path) -> Option<Vec<String>> {
    Some(path.strip_prefix(root).ok()?.iter().map(|part| part.to_string_lossy().into_owned()).collect())
}

/// The same folders without the numbers of I2C buses.
fn steady(root: &Path, parts: &[String]) -> Vec<String> {
    let (mut steady, mut path) = (Vec::new(), root.to_owned());
    for part in parts {
        path.push(part);
        let bus = part.strip_prefix("i2c-").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        match bus.and_then(|_| behind(root, &path)) {
            Some(by) => steady = by,
            None if bus.is_some() => steady.push("i2c-*".to_owned()),
            None => steady.push(pattern::of_i2c(part).unwrap_or_else(|| part.clone())),
        }
    }
    steady
}

/// A bus behind a multiplexer, by the multiplexer's channel (Linux, drivers/i2c/i2c-mux.c), which is how it is wired.
fn behind(root: &Path, bus: &Path) -> Option<Vec<String>> {
    let mux = bus.join("mux_device").canonicalize().ok()?;
    let is_channel = |entry: &String| {
        entry.starts_with("channel-") && mux.join(entry).canonicalize().is_ok_and(|channel| channel == bus)
    };
    let channel = entries(&mux).into_iter().find(is_channel)?;
    let mut steady = steady(root, &parts(root, &mux)?);
    steady.push(channel);
    Some(steady)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{tree, uncommented_is_right};

    #[test]
    fn sensors_are_config_that_outlives_the_order_at_boot() {
        let root = tree(&[
            ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
            ("sys/class/hwmon/hwmon0/temp1_input", "47312\n"),
            ("sys/class/hwmon/hwmon0/temp1_label", "SoC\nx = 1\n"),
            ("sys/class/hwmon/hwmon0/pwm1", "3\n"),
            ("sys/class/hwmon/hwmon1/name", "ina219"),
            ("sys/class/hwmon/hwmon1/in1_input", "no number"),
            ("sys/devices/bus-1/hwmon/hwmon2/name", "lm75"),
            ("sys/devices/bus-1/hwmon/hwmon2/temp1_input", "20000"),
            ("sys/devices/bus-2/hwmon/hwmon3/name", "lm75"),
            ("sys/devices/bus-2/hwmon/hwmon3/temp1_input", "21000"),
            ("sys/bus/iio/devices/iio:device0/name", "bmp280"),
            ("sys/bus/iio/devices/iio:device0/in_pressure_input", "101.3"),
            ("sys/bus/iio/devices/iio:device0/in_voltage0_raw", "812"),
            ("sys/bus/iio/devices/iio:device0/in_voltage1_raw", "814"),
            ("sys/bus/iio/devices/iio:device0/in_voltage1_scale", "0.500249"),
            ("sys/bus/w1/devices/28-0316a279b0ff/temperature", "21500"),
            ("sys/bus/w1/devices/w1_bus_master1/name", "w1_bus_master1"),
        ]);
        for (number, place) in [(2, "bus-1"), (3, "bus-2")] {
            let target = format!("../../devices/{place}/hwmon/hwmon{number}");
            std::os::unix::fs::symlink(target, root.path().join(format!("sys/class/hwmon/hwmon{number}"))).unwrap();
        }
        let mut board = Board::new(root.path());
        discover(&mut board);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = board.text().lines().map(words).filter(|line| !line.is_empty()).skip(3).collect();
        let expected = r#"[device.kernel.point.cpu_thermal-temp1] # 47.312 Cel now (SoC\nx = 1)
path = "/sys/class/hwmon/hwmon*/temp1_input"
match = { name = "cpu_thermal" }
scale = 0.001
unit = "Cel"
#[device.kernel.point.ina219-in1] # can't be read
#path = "/sys/class/hwmon/hwmon*/in1_input"
#match = { name = "ina219" }
#scale = 0.001
#unit = "V"
[device.kernel.point.lm75-temp1] # 20 Cel now
path = "/sys/devices/bus-1/hwmon/hwmon*/temp1_input"
scale = 0.001
unit = "Cel"
[device.kernel.point.lm75-temp1-2] # 21 Cel now
path = "/sys/devices/bus-2/hwmon/hwmon*/temp1_input"
scale = 0.001
unit = "Cel"
[device.kernel.point.bmp280-pressure] # 101300 Pa now
path = "/sys/bus/iio/devices/iio:device*/in_pressure_input"
match = { name = "bmp280" }
scale = 1000
unit = "Pa"
[device.kernel.point.bmp280-voltage0] # 812 now, for which the kernel has no scale
path = "/sys/bus/iio/devices/iio:device*/in_voltage0_raw"
match = { name = "bmp280" }
[device.kernel.point.bmp280-voltage1] # 0.407203 V now
path = "/sys/bus/iio/devices/iio:device*/in_voltage1_raw"
match = { name = "bmp280" }
scale = 0.001
unit = "V"
[device.kernel.point.28-0316a279b0ff] # 21.5 Cel now (1-Wire)
path = "/sys/bus/w1/devices/28-0316a279b0ff/temperature"
scale = 0.001
unit = "Cel""#;
        assert_eq!(lines.join("\n"), expected, "{}", board.text());
        uncommented_is_right(board.text());
    }

    /// What is discovered below this root, without what aligns it, where the links of classes are made: (link, folder).
    fn discovered(root: &std::path::Path, links: &[(&str, &str)]) -> String {
        for (link, target) in links {
            let link = root.join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(root.join(target), link).unwrap();
        }
        let mut board = Board::new(root);
        discover(&mut board);
        uncommented_is_right(board.text());
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        board.text().lines().map(words).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn chips_on_i2c_are_found_by_their_addresses_whatever_their_bus_is_called() {
        let root = tree(&[
            ("sys/devices/soc/i2c-1/1-0048/hwmon/hwmon2/name", "lm75\n"),
            ("sys/devices/soc/i2c-1/1-0048/hwmon/hwmon2/temp1_input", "21500\n"),
            ("sys/devices/soc/i2c-1/1-0049/hwmon/hwmon3/name", "lm75\n"),
            ("sys/devices/soc/i2c-1/1-0049/hwmon/hwmon3/temp1_input", "-25000\n"),
            // Behind a multiplexer, by its channels.
            ("sys/devices/soc/i2c-1/1-0070/name", "pca9545"),
            ("sys/devices/soc/i2c-1/i2c-4/4-0076/iio:device0/name", "bme280"),
            ("sys/devices/soc/i2c-1/i2c-4/4-0076/iio:device0/in_temp_input", "20000"),
            ("sys/devices/soc/i2c-1/i2c-5/5-0076/iio:device1/name", "bme280"),
            ("sys/devices/soc/i2c-1/i2c-5/5-0076/iio:device1/in_temp_input", "22000"),
            // Two buses of one adapter, which their numbers alone tell apart.
            ("sys/devices/card/i2c-6/6-0050/hwmon/hwmon4/name", "jc42"),
            ("sys/devices/card/i2c-6/6-0050/hwmon/hwmon4/temp1_input", "30000"),
            ("sys/devices/card/i2c-7/7-0050/hwmon/hwmon5/name", "jc42"),
            ("sys/devices/card/i2c-7/7-0050/hwmon/hwmon5/temp1_input", "31000"),
        ]);
        let text = discovered(
            root.path(),
            &[
                ("sys/class/hwmon/hwmon2", "sys/devices/soc/i2c-1/1-0048/hwmon/hwmon2"),
                ("sys/class/hwmon/hwmon3", "sys/devices/soc/i2c-1/1-0049/hwmon/hwmon3"),
                ("sys/bus/iio/devices/iio:device0", "sys/devices/soc/i2c-1/i2c-4/4-0076/iio:device0"),
                ("sys/bus/iio/devices/iio:device1", "sys/devices/soc/i2c-1/i2c-5/5-0076/iio:device1"),
                ("sys/devices/soc/i2c-1/i2c-4/mux_device", "sys/devices/soc/i2c-1/1-0070"),
                ("sys/devices/soc/i2c-1/1-0070/channel-0", "sys/devices/soc/i2c-1/i2c-5"),
                ("sys/devices/soc/i2c-1/i2c-5/mux_device", "sys/devices/soc/i2c-1/1-0070"),
                ("sys/devices/soc/i2c-1/1-0070/channel-1", "sys/devices/soc/i2c-1/i2c-4"),
                ("sys/class/hwmon/hwmon4", "sys/devices/card/i2c-6/6-0050/hwmon/hwmon4"),
                ("sys/class/hwmon/hwmon5", "sys/devices/card/i2c-7/7-0050/hwmon/hwmon5"),
            ],
        );
        for (point, path) in [
            ("lm75-0048-temp1] # 21.5 Cel now", "soc/i2c-*/*-0048/hwmon/hwmon*/temp1_input"),
            ("lm75-0049-temp1] # -25 Cel now", "soc/i2c-*/*-0049/hwmon/hwmon*/temp1_input"),
            ("bme280-0076-temp] # 20 Cel now", "soc/i2c-*/*-0070/channel-1/*-0076/iio:device*/in_temp_input"),
            ("bme280-0076-temp-2] # 22 Cel now", "soc/i2c-*/*-0070/channel-0/*-0076/iio:device*/in_temp_input"),
            (&format!("jc42-0050-temp1] # 30 Cel now{NUMBERED}"), "card/i2c-6/6-0050/hwmon/hwmon*/temp1_input"),
            (&format!("jc42-0050-temp1-2] # 31 Cel now{NUMBERED}"), "card/i2c-7/7-0050/hwmon/hwmon*/temp1_input"),
        ] {
            let expected = format!("[device.kernel.point.{point}\npath = \"/sys/devices/{path}\"\nscale");
            assert!(text.contains(&expected), "{expected}: {text}");
        }
    }

    #[test]
    fn a_thermometer_that_the_kernel_shows_twice_is_found_once() {
        let root = tree(&[
            ("sys/bus/w1/devices/28-0316a279b0ff/temperature", "21500"),
            ("sys/class/hwmon/hwmon0/name", "w1_slave_temp"),
            ("sys/class/hwmon/hwmon0/temp1_input", "21500"),
            ("sys/class/hwmon/hwmon1/name", "cpu_thermal"),
            ("sys/class/hwmon/hwmon1/temp1_input", "47312"),
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("sys/class/thermal/thermal_zone0/temp", "47312"),
            ("sys/class/thermal/thermal_zone1/type", "soc-thermal"),
            ("sys/class/thermal/thermal_zone1/temp", "50000"),
            ("sys/class/thermal/thermal_zone2/type", "core"),
            ("sys/class/thermal/thermal_zone2/temp", "51000"),
            ("sys/class/thermal/thermal_zone3/type", "core"),
            ("sys/class/thermal/thermal_zone3/temp", "52000"),
        ]);
        let text = discovered(root.path(), &[("sys/class/hwmon/hwmon0/device", "sys/bus/w1/devices/28-0316a279b0ff")]);
        assert_eq!(text.matches("\n[device.kernel.point.").count(), 5, "{text}");
        assert!(
            text.contains("[device.kernel.point.28-0316a279b0ff] ") && text.contains("cpu_thermal-temp1] "),
            "{text}"
        );
        let zone = "path = \"/sys/class/thermal/thermal_zone*/temp\"\nmatch = { type = \"soc-thermal\" }\n";
        assert!(text.contains(zone), "{text}");
        let zone = format!("core-2] # 52 Cel now{NUMBERED}\npath = \"/sys/class/thermal/thermal_zone3/temp\"\n");
        assert!(text.contains(&zone), "{text}");
    }

    #[test]
    fn supplies_and_counters_are_read_and_outputs_only_named() {
        let root = tree(&[
            ("sys/class/power_supply/BAT0/capacity", "87"),
            ("sys/class/power_supply/BAT0/status", "Not charging"),
            ("sys/class/power_supply/AC/online", "1"),
            ("sys/devices/meter/counter0/name", "meter"),
            ("sys/devices/meter/counter0/count0/count", "12"),
            ("sys/devices/meter/counter0/count0/enable", "0"),
            ("sys/class/leds/red:alarm/max_brightness", "1"),
            ("sys/class/leds/red:alarm/trigger", "none [heartbeat] timer"),
            ("sys/class/leds/white:lamp/max_brightness", "255"),
            ("sys/devices/pwm-valve/pwm/pwmchip0/npwm", "1"),
            ("sys/devices/i2c-0/0-0040/pwm/pwmchip1/npwm", "32"),
        ]);
        let text = discovered(
            root.path(),
            &[
                ("sys/bus/counter/devices/counter0", "sys/devices/meter/counter0"),
                ("sys/class/pwm/pwmchip0", "sys/devices/pwm-valve/pwm/pwmchip0"),
                ("sys/class/pwm/pwmchip1", "sys/devices/i2c-0/0-0040/pwm/pwmchip1"),
            ],
        );
        for expected in [
            "[device.kernel.point.BAT0-capacity] # 87 % now\npath = \"/sys/class/power_supply/BAT0/capacity\"\nunit = \"%\"\n",
            "[device.kernel.point.BAT0-status] # Not charging now\npath = \"/sys/class/power_supply/BAT0/status\"\ntype = \"text\"\n",
            "[device.kernel.point.AC-online] # 1 now\npath = \"/sys/class/power_supply/AC/online\"\ntype = \"bool\"\n",
            "[device.kernel.point.meter-count0] # 12 now, switched off; kind = \"counter\" switches it on, and makes a lasting total of it\n\
             path = \"/sys/devices/meter/counter*/count0/count\"\ntype = \"int\"\n",
            "#[device.kernel.point.red-alarm] # an LED, which `heartbeat` drives now\n\
             #path = \"/sys/class/leds/red:alarm/brightness\"\n#direction = \"out\"\n#type = \"bool\"\n#safe = false\n",
            "#[device.kernel.point.white-lamp] # an LED\n#path = \"/sys/class/leds/white:lamp/brightness\"\n\
             #direction = \"out\"\n#type = \"int\" # or \"bool\": on is as bright as it can be\n#max = 255\n#safe = 0\n",
            "#[device.kernel.point.pwm-valve] # PWM, in percent; unless a driver has it\n\
             #path = \"/sys/devices/pwm-valve/pwm/pwmchip*\"\n#pwm = { channel = 0, period = \"20ms\" }\n#safe = 0",
            "#path = \"/sys/devices/i2c-*/*-0040/pwm/pwmchip*\"\n#pwm = { channel = 15, period",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        assert!(!text.contains("channel = 16"), "{text}");
    }

    #[test]
    fn a_board_without_sensors_has_no_such_part() {
        let root = tree(&[]);
        let mut board = Board::new(root.path());
        discover(&mut board);
        assert_eq!(board.text(), "");
    }
}
