//! The config as it counts, for `print-config`.

use serde::Serialize;

use super::devices::POINT;
use super::{Config, ConfigError, Device, Sources, load_with};
use crate::device::KINDS;

/// The merged config as TOML, with its defaults. Reads as the same config again. Secrets are references, so that all of
/// it can be shown.
///
/// # Errors
/// All that is wrong with it.
pub fn print(sources: &Sources) -> Result<String, Vec<ConfigError>> {
    load_with(sources, KINDS).map(|(config, table)| text(&config, table))
}

pub(super) fn text(config: &Config, mut table: toml::Table) -> String {
    let Config { gateway, mqtt, queue, command, health, clock, devices } = config;
    let mut who = toml::Table::new();
    who.insert("id".to_owned(), gateway.id.as_str().into());
    who.insert("state_directory".to_owned(), gateway.state_directory.display().to_string().into());
    table.insert("gateway".to_owned(), who.into());
    table.insert("mqtt".to_owned(), value(mqtt));
    table.insert("queue".to_owned(), value(queue));
    table.insert("command".to_owned(), value(command));
    table.insert("health".to_owned(), value(health));
    table.insert("clock".to_owned(), value(clock));
    if let Some(toml::Value::Table(tables)) = table.get_mut("device") {
        for device in devices {
            if let Some(toml::Value::Table(table)) = tables.get_mut(device.plan.device.as_str()) {
                complete(device, table);
            }
        }
    }
    toml::to_string(&table).expect("a table of plain values can be written as TOML")
}

/// Adds the defaults that are not the kind's own.
fn complete(device: &Device, table: &mut toml::Table) {
    table.entry("max_rate").or_insert_with(|| device.plan.max_rate.to_string().into());
    let Some(toml::Value::Table(points)) = table.get_mut(POINT) else { return };
    for plan in &device.points {
        let Some(toml::Value::Table(table)) = points.get_mut(plan.point.name.as_str()) else { continue };
        let mut parts = vec![value(&plan.queue), value(&plan.uplink)];
        if plan.point.writable {
            parts.push(value(&plan.command));
        }
        for (key, value) in parts.into_iter().filter_map(|part| part.as_table().cloned()).flatten() {
            table.entry(key).or_insert(value);
        }
    }
}

fn value(part: &impl Serialize) -> toml::Value {
    toml::Value::try_from(part).expect("a config struct has only what TOML can say")
}
