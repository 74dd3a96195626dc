//! What can be read: sensors, batteries, counters.

use super::{Found, Place, chips, place};
use crate::device::discover::{Board, read};

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

/// All of them.
pub(super) fn all(board: &Board) -> Vec<Found> {
    [hwmon(board), thermal(board), iio(board), one_wire(board), power_supplies(board), counters(board)]
        .into_iter()
        .flatten()
        .collect()
}

fn hwmon(board: &Board) -> Vec<Found> {
    let mut found = Vec::new();
    for chip in chips(board, "sys/class/hwmon", "hwmon") {
        // The kernel shows a 1-Wire thermometer twice. The other one has its serial number.
        if board.path(&format!("{}/device/temperature", chip.folder)).exists() {
            continue;
        }
        for file in board.entries(&chip.folder) {
            let Some(stem) = file.strip_suffix("_input") else { continue };
            let quantity = stem.trim_end_matches(|c: char| c.is_ascii_digit());
            let Some((_, divisor, unit)) = HWMON.iter().find(|(known, ..)| *known == quantity) else { continue };
            let label = read(&board.path(&format!("{}/{stem}_label", chip.folder)));
            found.push(Found {
                divisor: *divisor,
                unit,
                label: label.map(|label| format!(" ({label})")).unwrap_or_default(),
                ..chip.file(&file, stem)
            });
        }
    }
    found
}

/// Thermal zones that hwmon does not show too, where they are called so with `_` in the place of `-`.
fn thermal(board: &Board) -> Vec<Found> {
    let name = |chip: &String| read(&board.path(&format!("sys/class/hwmon/{chip}/name")));
    let known: Vec<String> = board.entries("sys/class/hwmon").iter().filter_map(name).collect();
    let kind = |zone: &String| read(&board.path(&format!("sys/class/thermal/{zone}/type"))).unwrap_or_default();
    let zones = board.entries("sys/class/thermal").into_iter().filter(|zone| zone.starts_with("thermal_zone"));
    let zones: Vec<(String, String)> = zones.map(|zone| (kind(&zone), zone)).collect();
    let unknown = zones.iter().filter(|(kind, _)| !known.contains(&kind.replace('-', "_")));
    let found = unknown.map(|(kind, zone)| {
        let is_alone = !kind.is_empty() && zones.iter().filter(|(other, _)| other == kind).count() == 1;
        let pattern = if is_alone { "thermal_zone*" } else { zone.as_str() };
        Found {
            path: format!("/sys/class/thermal/{zone}/temp"),
            pattern: format!("/sys/class/thermal/{pattern}/temp"),
            matches: is_alone.then(|| ("type", kind.clone())),
            is_numbered: !is_alone,
            wish: kind.clone(),
            divisor: 1e3,
            unit: "Cel",
            ..Found::default()
        }
    });
    found.collect()
}

/// Industrial I/O: converters, light, pressure.
fn iio(board: &Board) -> Vec<Found> {
    let mut found = Vec::new();
    for chip in chips(board, "sys/bus/iio/devices", "iio:device") {
        for file in board.entries(&chip.folder) {
            let stem = file.strip_suffix("_input").or_else(|| file.strip_suffix("_raw"));
            let Some(stem) = stem.and_then(|stem| stem.strip_prefix("in_")) else { continue };
            let quantity = stem.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
            let known = IIO.iter().find(|(known, ..)| *known == quantity);
            let (_, divisor, unit) = known.copied().unwrap_or(("", 1.0, ""));
            found.push(Found { divisor, unit, ..chip.file(&file, stem) });
        }
    }
    found
}

/// 1-Wire thermometers, whose folders have their serial numbers as names.
fn one_wire(board: &Board) -> Vec<Found> {
    let folder = "/sys/bus/w1/devices";
    let path = |device: &String| format!("{folder}/{device}/temperature");
    let slaves = board.entries(folder).into_iter().filter(|device| board.path(&path(device)).exists());
    let sensor = |device: String| Found {
        path: path(&device),
        pattern: path(&device),
        wish: device,
        divisor: 1e3,
        unit: "Cel",
        label: " (1-Wire)".to_owned(),
        ..Found::default()
    };
    slaves.map(sensor).collect()
}

/// What batteries and supplies say that hwmon does not: they have names of their own.
fn power_supplies(board: &Board) -> Vec<Found> {
    let mut found = Vec::new();
    for supply in board.entries("sys/class/power_supply") {
        for (file, unit, value_type) in [("capacity", "%", ""), ("status", "", "text"), ("online", "", "bool")] {
            let path = format!("/sys/class/power_supply/{supply}/{file}");
            if board.path(&path).exists() {
                let wish = format!("{supply}-{file}");
                found.push(Found { pattern: path.clone(), path, wish, unit, value_type, ..Found::default() });
            }
        }
    }
    found
}

/// Counters of the kernel, which a file `enable` beside the count may have to switch on.
fn counters(board: &Board) -> Vec<Found> {
    let mut found = Vec::new();
    let class = "sys/bus/counter/devices";
    for counter in board.entries(class).into_iter().filter(|entry| entry.starts_with("counter")) {
        let folder = format!("/{class}/{counter}");
        let Place { pattern, is_numbered, .. } = place(board, &folder, "counter");
        let name = read(&board.path(&format!("{folder}/name"))).unwrap_or_default();
        for count in board.entries(&folder).into_iter().filter(|entry| entry.starts_with("count")) {
            if board.path(&format!("{folder}/{count}/count")).exists() {
                let is_off = read(&board.path(&format!("{folder}/{count}/enable"))).as_deref() == Some("0");
                found.push(Found {
                    path: format!("{folder}/{count}/count"),
                    pattern: format!("{pattern}/{count}/count"),
                    wish: format!("{name}-{count}"),
                    is_numbered,
                    value_type: "int",
                    label: match is_off {
                        true => ", switched off; kind = \"counter\" switches it on, and makes a lasting total of it"
                            .to_owned(),
                        false => "; kind = \"counter\" makes a lasting total of it".to_owned(),
                    },
                    ..Found::default()
                });
            }
        }
    }
    found
}
