//! Sensors that the kernel shows, as config. They are read, as anybody may.

use std::collections::BTreeSet;

use crate::device::discover::{Board, quoted, read, unique};

/// What hwmon calls a quantity, how many of its units are one of ours, and ours.
const HWMON: [(&str, f64, &str); 7] = [
    ("temp", 1e3, "Cel"),
    ("in", 1e3, "V"),
    ("curr", 1e3, "A"),
    ("power", 1e6, "W"),
    ("energy", 1e6, "J"),
    ("humidity", 1e3, "%RH"),
    ("fan", 1.0, "1/min"),
];

/// The same of Industrial I/O (Linux, Documentation/ABI/testing/sysfs-bus-iio).
const IIO: [(&str, f64, &str); 7] = [
    ("temp", 1e3, "Cel"),
    ("voltage", 1e3, "V"),
    ("current", 1e3, "A"),
    ("pressure", 1e-3, "Pa"),
    ("humidityrelative", 1e3, "%RH"),
    ("illuminance", 1.0, "lx"),
    ("resistance", 1.0, "Ohm"),
];

/// A value that can be read.
struct Sensor {
    /// Where it is now.
    path: String,
    /// A pattern that finds it after the next boot too.
    pattern: String,
    /// What tells it from others of this pattern.
    name: Option<String>,
    /// What a point of it might be called.
    wish: String,
    /// How many of its units are one of `unit`.
    divisor: f64,
    unit: &'static str,
    label: String,
}

/// Adds them to what the board has.
pub(super) fn discover(board: &mut Board) {
    let sensors: Vec<Sensor> = [hwmon(board), iio(board), one_wire(board)].into_iter().flatten().collect();
    if sensors.is_empty() {
        return;
    }
    board.part("sensors of the kernel");
    let device = board.name("kernel", "kernel");
    board.config(true, &format!("[device.{device}]"), "");
    board.config(true, "kind = \"sysfs\"", "");
    // A device needs no point, but what can't be read needs none of its keys either.
    let mut names = BTreeSet::new();
    for sensor in sensors {
        let raw = read(&board.path(&sensor.path)).and_then(|text| text.parse::<f64>().ok());
        let is_raw = sensor.path.ends_with("_raw");
        let shown = match raw {
            Some(value) if is_raw => format!("{value} now, without the kernel's scale"),
            Some(value) => format!("{} {} now", value / sensor.divisor, sensor.unit),
            None => "can't be read".to_owned(),
        };
        let name = unique(&sensor.wish, "sensor", &mut names);
        let is_on = raw.is_some();
        board.gap();
        board.config(is_on, &format!("[device.{device}.point.{name}]"), &format!("{shown}{}", sensor.label));
        board.config(is_on, &format!("path = {}", quoted(&sensor.pattern)), "");
        if let Some(name) = &sensor.name {
            board.config(is_on, &format!("match = {{ name = {} }}", quoted(name)), "");
        }
        if sensor.divisor.to_bits() != 1f64.to_bits() {
            board.config(is_on, &format!("scale = {}", 1.0 / sensor.divisor), "");
        }
        if !sensor.unit.is_empty() {
            board.config(is_on, &format!("unit = {}", quoted(sensor.unit)), "");
        }
    }
}

/// The chips below a folder that the kernel numbers, with their names, and how each is found: by its name, or, where it has
/// none of its own, by where it is.
fn chips(board: &Board, class: &str, number: &str) -> Vec<(String, String, String, Option<String>)> {
    let folders = board.entries(class).into_iter().filter(|entry| entry.starts_with(number));
    let folders: Vec<String> = folders.map(|entry| format!("/{class}/{entry}")).collect();
    let name = |folder: &String| read(&board.path(&format!("{folder}/name"))).unwrap_or_default();
    let names: Vec<String> = folders.iter().map(name).collect();
    let found = folders.iter().zip(&names).map(|(folder, name)| {
        let is_alone = !name.is_empty() && names.iter().filter(|other| *other == name).count() == 1;
        if is_alone {
            return (folder.clone(), name.clone(), format!("/{class}/{number}*"), Some(name.clone()));
        }
        let place = board.path(folder).canonicalize().ok();
        let root = board.root().canonicalize().unwrap_or_default();
        let place = place.as_deref().and_then(|place| place.strip_prefix(&root).ok()).and_then(std::path::Path::parent);
        let pattern = place.map_or_else(|| folder.clone(), |place| format!("/{}/{number}*", place.display()));
        (folder.clone(), name.clone(), pattern, None)
    });
    found.collect()
}

fn hwmon(board: &Board) -> Vec<Sensor> {
    let mut found = Vec::new();
    for (folder, chip, pattern, name) in chips(board, "sys/class/hwmon", "hwmon") {
        for file in board.entries(&folder) {
            let Some(stem) = file.strip_suffix("_input") else { continue };
            let quantity = stem.trim_end_matches(|c: char| c.is_ascii_digit());
            let Some((_, divisor, unit)) = HWMON.iter().find(|(known, ..)| *known == quantity) else { continue };
            let label = read(&board.path(&format!("{folder}/{stem}_label")));
            found.push(Sensor {
                path: format!("{folder}/{file}"),
                pattern: format!("{pattern}/{file}"),
                name: name.clone(),
                wish: format!("{chip}-{stem}"),
                divisor: *divisor,
                unit,
                label: label.map(|label| format!(" ({label})")).unwrap_or_default(),
            });
        }
    }
    found
}

/// Industrial I/O: converters, light, pressure.
fn iio(board: &Board) -> Vec<Sensor> {
    let mut found = Vec::new();
    for (folder, chip, pattern, name) in chips(board, "sys/bus/iio/devices", "iio:device") {
        for file in board.entries(&folder) {
            let stem = file.strip_suffix("_input").or_else(|| file.strip_suffix("_raw"));
            let Some(stem) = stem.and_then(|stem| stem.strip_prefix("in_")) else { continue };
            let quantity = stem.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
            let known = IIO.iter().find(|(known, ..)| *known == quantity);
            let (_, divisor, unit) = known.copied().unwrap_or(("", 1.0, ""));
            found.push(Sensor {
                path: format!("{folder}/{file}"),
                pattern: format!("{pattern}/{file}"),
                name: name.clone(),
                wish: format!("{chip}-{stem}"),
                divisor,
                unit,
                label: String::new(),
            });
        }
    }
    found
}

/// 1-Wire thermometers, whose folders have their serial numbers as names.
fn one_wire(board: &Board) -> Vec<Sensor> {
    let folder = "/sys/bus/w1/devices";
    let path = |device: &String| format!("{folder}/{device}/temperature");
    let slaves = board.entries(folder).into_iter().filter(|device| board.path(&path(device)).exists());
    let sensor = |device: String| Sensor {
        path: path(&device),
        pattern: path(&device),
        name: None,
        wish: device,
        divisor: 1e3,
        unit: "Cel",
        label: " (1-Wire)".to_owned(),
    };
    slaves.map(sensor).collect()
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
[device.kernel.point.bmp280-voltage0] # 812 now, without the kernel's scale
path = "/sys/bus/iio/devices/iio:device*/in_voltage0_raw"
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

    #[test]
    fn a_board_without_sensors_has_no_such_part() {
        let root = tree(&[]);
        let mut board = Board::new(root.path());
        discover(&mut board);
        assert_eq!(board.text(), "");
    }
}
