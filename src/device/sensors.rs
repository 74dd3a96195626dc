//! Sensors that the kernel shows in sysfs: listed by `sluicegate discover`. They are read, as anybody may.

use std::path::Path;

use super::discover::{Board, entries, read};

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

/// A value that can be read.
struct Sensor {
    path: String,
    value: String,
}

/// Lists what there is.
pub(super) fn discover(board: &mut Board) {
    let sensors: Vec<Sensor> = [hwmon(board), iio(board), one_wire(board)].into_iter().flatten().collect();
    if sensors.is_empty() {
        return;
    }
    board.part("sensors of the kernel");
    for Sensor { path, value } in sensors {
        board.note(&format!("{path:<56} {value}"));
    }
}

fn hwmon(board: &Board) -> Vec<Sensor> {
    let mut found = Vec::new();
    for chip in board.entries("sys/class/hwmon") {
        let folder = format!("/sys/class/hwmon/{chip}");
        let of = |file: &str| read(&board.path(&format!("{folder}/{file}")));
        let name = of("name").unwrap_or_default();
        for file in board.entries(&folder) {
            let Some(stem) = file.strip_suffix("_input") else { continue };
            let quantity = stem.trim_end_matches(|c: char| c.is_ascii_digit());
            let Some((_, divisor, unit)) = HWMON.iter().find(|(known, ..)| *known == quantity) else { continue };
            let label = of(&format!("{stem}_label")).map(|label| format!(" {label}")).unwrap_or_default();
            let value = scaled(of(&file), *divisor, unit);
            found.push(Sensor { path: format!("{folder}/{file}"), value: format!("{value}  ({name}{label})") });
        }
    }
    found
}

/// Industrial I/O: converters, light, pressure. What a raw number means is (raw + offset) × scale.
fn iio(board: &Board) -> Vec<Sensor> {
    let mut found = Vec::new();
    for device in board.entries("sys/bus/iio/devices").iter().filter(|name| name.starts_with("iio:device")) {
        let folder = format!("/sys/bus/iio/devices/{device}");
        let of = |file: &str| read(&board.path(&format!("{folder}/{file}")));
        let name = of("name").unwrap_or_default();
        for file in board.entries(&folder).iter().filter(|file| file.starts_with("in_")) {
            let kind = if file.ends_with("_raw") { "raw " } else { "" };
            if kind.is_empty() && !file.ends_with("_input") {
                continue;
            }
            let value = of(file).unwrap_or_else(|| "can't be read".to_owned());
            found.push(Sensor { path: format!("{folder}/{file}"), value: format!("{kind}{value}  ({name})") });
        }
    }
    found
}

/// 1-Wire thermometers, whose folders have their serial numbers as names.
fn one_wire(board: &Board) -> Vec<Sensor> {
    let folder = "/sys/bus/w1/devices";
    let is_slave = |device: &String| Path::new(&board.path(&format!("{folder}/{device}"))).join("temperature").exists();
    let slaves = entries(&board.path(folder)).into_iter().filter(is_slave);
    let sensor = |device: String| {
        let path = format!("{folder}/{device}/temperature");
        let value = scaled(read(&board.path(&path)), 1e3, "Cel");
        Sensor { path, value: format!("{value}  (1-Wire)") }
    };
    slaves.map(sensor).collect()
}

fn scaled(text: Option<String>, divisor: f64, unit: &str) -> String {
    match text.and_then(|text| text.parse::<f64>().ok()) {
        Some(value) => format!("{} {unit}", value / divisor),
        None => "can't be read".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::tree;

    #[test]
    fn sensors_are_listed_with_path_and_value() {
        let root = tree(&[
            ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
            ("sys/class/hwmon/hwmon0/temp1_input", "47312\n"),
            ("sys/class/hwmon/hwmon0/temp1_label", "SoC\nx = 1\n"),
            ("sys/class/hwmon/hwmon0/pwm1", "3\n"),
            ("sys/class/hwmon/hwmon1/name", "ina219"),
            ("sys/class/hwmon/hwmon1/in1_input", "no number"),
            ("sys/bus/iio/devices/iio:device0/name", "bmp280"),
            ("sys/bus/iio/devices/iio:device0/in_pressure_input", "101.3"),
            ("sys/bus/iio/devices/iio:device0/in_voltage0_raw", "812"),
            ("sys/bus/iio/devices/iio:device0/in_voltage_scale", "0.5"),
            ("sys/bus/w1/devices/28-0316a279b0ff/temperature", "21500"),
            ("sys/bus/w1/devices/w1_bus_master1/name", "w1_bus_master1"),
        ]);
        let mut board = Board::new(root.path());
        discover(&mut board);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = board.text().lines().skip(2).map(words).collect();
        assert_eq!(
            lines,
            [
                "# /sys/class/hwmon/hwmon0/temp1_input 47.312 Cel (cpu_thermal SoC\\nx = 1)",
                "# /sys/class/hwmon/hwmon1/in1_input can't be read (ina219)",
                "# /sys/bus/iio/devices/iio:device0/in_pressure_input 101.3 (bmp280)",
                "# /sys/bus/iio/devices/iio:device0/in_voltage0_raw raw 812 (bmp280)",
                "# /sys/bus/w1/devices/28-0316a279b0ff/temperature 21.5 Cel (1-Wire)",
            ],
            "{}",
            board.text()
        );
    }

    #[test]
    fn a_board_without_sensors_has_no_such_part() {
        let root = tree(&[]);
        let mut board = Board::new(root.path());
        discover(&mut board);
        assert_eq!(board.text(), "");
    }
}
