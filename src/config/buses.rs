//! The tables `[bus.…]`: a device names one, and gets it in place of its name. So what is wrong in it is found by the
//! kind that reads it, and a bus that changes changes all devices on it.

use std::collections::BTreeMap;

use super::devices::DEVICE;
use super::error::Finding;
use super::words;

/// The table of the buses, and the key of a device that names one.
pub(super) const BUS: &str = "bus";

/// What tells one bus from another: no two may have the same.
const ENDS: [&str; 2] = ["port", "address"];

/// Which device names which bus.
pub(super) type Named = BTreeMap<String, String>;

/// The key of a device that tells it from the others on its bus.
const UNIT: &str = "unit";

/// Puts the buses where devices name them. A device whose bus is not there is left out, as some were `left_out` before.
pub(super) fn resolve(
    buses: &toml::Table,
    devices: &mut toml::Table,
    left_out: usize,
    findings: &mut Vec<Finding>,
) -> Named {
    let mut named = Named::new();
    let mut unknown = Vec::new();
    for (device, table) in devices.iter_mut() {
        let Some(toml::Value::String(name)) = table.get(BUS) else { continue };
        let name = name.clone();
        match (buses.get(&name), table.as_table_mut()) {
            (Some(bus), Some(table)) => {
                table.insert(BUS.to_owned(), bus.clone());
                named.insert(device.clone(), name);
            }
            _ => {
                let known = || buses.keys().map(String::as_str);
                let text = match words::nearest(&name, known()) {
                    Some(near) => format!("there is no table [bus.{name}] (did you mean `{near}`?)"),
                    None if buses.is_empty() => format!("there is no table [bus.{name}]"),
                    None => format!("there is no table [bus.{name}]: expected {}", words::choices(known())),
                };
                findings.push(Finding::value(&[DEVICE, device, BUS], text));
                unknown.push(device.clone());
            }
        }
    }
    devices.retain(|device, _| !unknown.contains(&device.to_owned()));
    for (name, table) in buses {
        if !table.is_table() {
            findings.push(Finding::value(&[BUS, name], "expected a table [bus.NAME]"));
        } else if !named.values().any(|other| other == name) && unknown.len() + left_out == 0 {
            findings.push(Finding::key(&[BUS, name], "no device has this bus: remove it, or name it in a device"));
        }
    }
    shared_units(devices, &named, findings);
    shared_ends(buses, devices, &named, findings);
    named
}

/// One slave is one device: nobody could tell whose late answer it is.
fn shared_units(devices: &toml::Table, named: &Named, findings: &mut Vec<Finding>) {
    let mut known: BTreeMap<(&str, i64), &str> = BTreeMap::new();
    for (device, bus) in named {
        let unit = devices.get(device).and_then(|table| table.get(UNIT)).and_then(toml::Value::as_integer);
        // 0 is all of them, and none answers.
        let Some(unit) = unit.filter(|unit| *unit != 0) else { continue };
        if let Some(other) = known.get(&(bus.as_str(), unit)) {
            let text = format!("`{unit}`: [device.{other}] is this slave of the bus: expected all its points there");
            findings.push(Finding::value(&[DEVICE, device, UNIT], text));
        } else {
            known.insert((bus, unit), device);
        }
    }
}

/// One port, or one server, is one bus: two would speak at once. Nor may another device have the port.
fn shared_ends(buses: &toml::Table, devices: &toml::Table, named: &Named, findings: &mut Vec<Finding>) {
    let others = || devices.iter().filter(|(device, _)| !named.contains_key(*device));
    let own = others().filter_map(|(device, table)| Some((vec![DEVICE, device.as_str(), BUS], table.get(BUS)?)));
    let alone = others().filter(|(_, table)| table.get(BUS).is_none());
    let alone = alone.map(|(device, table)| (vec![DEVICE, device.as_str()], table));
    let shared = buses.iter().map(|(name, table)| (vec![BUS, name.as_str()], table));
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    for (path, table) in shared.chain(own).chain(alone) {
        for key in ENDS {
            let Some(end) = table.get(key).and_then(toml::Value::as_str) else { continue };
            if let Some(other) = known.get(end) {
                let text = format!(
                    "`{end}`: [{other}] has it too: expected one table [bus.NAME], which several devices may name"
                );
                findings.push(Finding::value(&[&path[..], &[key]].concat(), text));
            } else if path.contains(&BUS) {
                known.insert(end, path.join("."));
            }
        }
    }
}

/// What was found in a device's copy of its bus is wrong in the bus.
pub(super) fn place(finding: &mut Finding, named: &Named) {
    let mut steps = finding.path.iter().map(String::as_str);
    if let (Some(DEVICE), Some(device), Some(BUS)) = (steps.next(), steps.next(), steps.next())
        && finding.path.len() > 3
        && let Some(name) = named.get(device)
    {
        finding.path.splice(..3, [BUS.to_owned(), name.clone()]);
    }
}
