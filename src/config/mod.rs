//! The gateway's config: composed of the rooms' own, read from layers, and checked as a whole.
//!
//! The layers are files, one over the other, and the environment over all; a later one changes single keys of those
//! before it ([`Sources`]). Each room's settings stand in that room; here they are put together: a point's flat table
//! is split among the owners of its keys, `{id}` is replaced, and what no room can see alone is checked.
//!
//! Reads files, and touches nothing else: no device is opened, no secret is read. What is wrong is collected, all of it
//! where that can be, each with its file, line, column and key, what was expected and the nearest known key
//! ([`ConfigError`]). The callers decide what becomes of it.

mod buses;
mod clock;
mod compare;
mod devices;
mod error;
mod gateway;
mod layers;
mod locate;
mod print;
mod profiles;
mod read;
mod sources;
#[cfg(test)]
mod tests;
mod words;

pub use clock::{Clock, Trust};
pub use compare::{Difference, Fate, Outline, OutlineDevice};
pub use error::{ConfigError, Place};
pub use gateway::Gateway;
pub use print::print;
pub use sources::{Instance, Places, Sources};

use crate::device::{KINDS, Kind, Plan};
use crate::model::{Fault, GatewayId, Point, Size, Span};
use crate::{command, link, queue, uplink};
use error::Finding;
use profiles::Profiles;
use sources::Merged;

/// The whole config, checked.
#[derive(Debug)]
pub struct Config {
    /// Who this gateway is.
    pub gateway: Gateway,
    /// How it reaches its broker; `{id}` is replaced.
    pub mqtt: link::Config,
    /// What waits for the broker.
    pub queue: queue::Config,
    /// How commands are taken.
    pub command: command::Config,
    /// How its own state is published.
    pub health: uplink::HealthConfig,
    /// When its clock is believed.
    pub clock: Clock,
    /// Its devices, by name.
    pub devices: Vec<Device>,
}

/// A device, ready to be started.
#[derive(Debug)]
pub struct Device {
    /// Its driver, its points and their rules.
    pub plan: Plan,
    /// Its points, as the other rooms see them; in the order of the plan.
    pub points: Vec<PointPlan>,
    /// Its table as it is written, without what other rooms own: where it is the same, the driver is.
    pub table: toml::Table,
}

/// A point, as the rooms beside `device` see it.
#[derive(Debug, Clone, PartialEq)]
pub struct PointPlan {
    /// Its declaration.
    pub point: Point,
    /// What guards its commands.
    pub command: command::PointConfig,
    /// Where its readings wait.
    pub queue: queue::PointConfig,
    /// How its readings look at the broker.
    pub uplink: uplink::PointConfig,
}

/// Reads and checks the config.
///
/// # Errors
/// All that is wrong with it, in the order in which it is written.
pub fn load(sources: &Sources) -> Result<Config, Vec<ConfigError>> {
    load_with(sources, KINDS).map(|(config, _)| config)
}

/// Who the gateway is and where it keeps its state, by a config that may be wrong in other places; `None` where that
/// can't be told. For those who look for the gateway that runs.
pub fn gateway(sources: &Sources) -> Option<Gateway> {
    let merged = sources.merge().ok()?;
    let mut findings = Vec::new();
    let keys: gateway::Keys = section(&merged.table, "gateway", gateway::Keys::read, &mut findings)?;
    keys.complete(sources, &mut findings)
}

/// The keys that only its owner can set, where that they are missing is all that is wrong: nobody has configured this
/// gateway yet. Else none.
pub fn left_to_the_owner(errors: &[ConfigError]) -> Vec<&str> {
    let is_missing = |error: &ConfigError| match error.key.as_str() {
        "mqtt.url" => error.text.starts_with(words::MISSING),
        "gateway.id" => error.text.starts_with(gateway::NO_ID),
        _ => false,
    };
    // A name that others have too is as good as none.
    let is_left = |error: &ConfigError| is_missing(error) || error.key == "gateway.id";
    if !errors.iter().all(is_left) || !errors.iter().any(is_missing) {
        return Vec::new();
    }
    let mut keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    keys.sort_unstable();
    keys
}

/// The config, and the table that it was read from.
fn load_with(sources: &Sources, kinds: &'static [&'static Kind]) -> Result<(Config, toml::Table), Vec<ConfigError>> {
    let mut merged = sources.merge()?;
    let mut composed = compose(&merged.table, sources, &merged, kinds);
    // A variable has no type: one that looked like a number may be a text.
    for variable in merged.variables.clone() {
        if composed.findings.iter().any(|finding| finding.path == variable.path) {
            let mut table = merged.table.clone();
            layers::set(&mut table, &variable.path, toml::Value::String(variable.raw.clone()));
            let again = compose(&table, sources, &merged, kinds);
            if !again.findings.iter().any(|finding| finding.path == variable.path) {
                merged.table = table;
                composed = again;
            }
        }
    }
    let Composed { config, findings, profiles } = composed;
    match config {
        Some(config) if findings.is_empty() && profiles.errors.is_empty() => Ok((config, merged.table)),
        _ => Err(placed(findings, &merged, profiles)),
    }
}

fn placed(findings: Vec<Finding>, merged: &Merged, profiles: Profiles) -> Vec<ConfigError> {
    let mut errors: Vec<ConfigError> =
        findings.into_iter().map(|finding| finding.place(merged, &profiles.files)).collect();
    errors.extend(profiles.errors);
    let file = |error: &ConfigError| match &error.place {
        Place::File { path, .. } => merged.files.iter().position(|file| file.name == *path),
        _ => None,
    };
    errors.sort_by_cached_key(|error| (file(error), error.place.clone(), error.key.clone()));
    errors.dedup();
    errors
}

/// What was put together, and what is wrong with it.
struct Composed {
    config: Option<Config>,
    findings: Vec<Finding>,
    profiles: Profiles,
}

/// Puts the rooms' settings together. Without findings there is a config.
fn compose(table: &toml::Table, sources: &Sources, merged: &Merged, kinds: &'static [&'static Kind]) -> Composed {
    const TABLES: [&str; 8] = ["gateway", "mqtt", "queue", "command", "health", "clock", "bus", "device"];
    let mut findings = Vec::new();
    for key in table.keys().filter(|key| !TABLES.contains(&key.as_str())) {
        findings.push(Finding::key(&[key], words::unknown_key(key, TABLES.into_iter())));
    }
    let gateway = section(table, "gateway", gateway::Keys::read, &mut findings);
    let gateway = gateway.and_then(|keys| keys.complete(sources, &mut findings));
    // What holds the id can be checked with any other.
    let id = gateway.as_ref().map_or_else(any_id, |gateway| gateway.id.clone());
    let mqtt = section(table, "mqtt", link::Config::read, &mut findings).map(|mut mqtt| {
        mqtt.expand(id.as_str());
        mqtt
    });
    let queue = section(table, "queue", queue::Config::read, &mut findings);
    let command = section(table, "command", command::Config::read, &mut findings);
    let health = section(table, "health", uplink::HealthConfig::read, &mut findings);
    let clock = section(table, "clock", Clock::read, &mut findings);
    let mut checked = |name: &str, faults: Option<Vec<Fault>>| {
        findings.extend(faults.into_iter().flatten().map(|fault| Finding::of(fault, &[name])));
    };
    checked("mqtt", mqtt.as_ref().map(link::Config::check));
    checked("queue", queue.as_ref().map(queue::Config::check));
    checked("command", command.as_ref().map(command::Config::check));
    checked("health", health.as_ref().map(uplink::HealthConfig::check));
    checked("clock", clock.as_ref().map(Clock::check));
    let mut tables = subtable(table, devices::DEVICE, &mut findings);
    let profiles = profiles::apply(&mut tables, sources, merged, &mut findings);
    let buses = subtable(table, buses::BUS, &mut findings);
    let named = buses::resolve(&buses, &mut tables, profiles.left_out, &mut findings);
    let devices = devices::devices(&tables, &id, kinds, &mut findings);
    findings.iter_mut().for_each(|finding| buses::place(finding, &named));
    check_together(&devices, mqtt.as_ref(), queue.as_ref(), &mut findings);
    let config = || {
        let (gateway, mqtt, queue, command) = (gateway?, mqtt?, queue?, command?);
        Some(Config { gateway, mqtt, queue, command, health: health?, clock: clock?, devices })
    };
    Composed { config: config(), findings, profiles }
}

fn any_id() -> GatewayId {
    GatewayId::new("id").expect("two letters make a name")
}

/// What only shows where rooms meet.
fn check_together(
    devices: &[Device],
    mqtt: Option<&link::Config>,
    queue: Option<&queue::Config>,
    findings: &mut Vec<Finding>,
) {
    let points = devices.iter().flat_map(|device| &device.points);
    // What is wrong in itself was told before.
    if let Some(mqtt) = mqtt.filter(|mqtt| mqtt.check().is_empty()) {
        let points: Vec<_> = points.clone().map(|plan| &plan.point).collect();
        let faults = uplink::collisions(mqtt, &points);
        findings.extend(faults.into_iter().map(|fault| Finding::of(fault, &["mqtt"])));
    }
    let least = mqtt.map(|mqtt| Span(mqtt.keep_alive.0 * 3 / 2));
    for PointPlan { point, command, .. } in points.clone() {
        if let (Some(loss), Some(least)) = (&command.on_link_loss, least)
            && loss.after < least
        {
            let path = ["device", point.device.as_str(), devices::POINT, point.name.as_str(), "on_link_loss", "after"];
            let text = format!(
                "`{}`: expected at least {least}, which is 1.5 times mqtt.keep_alive: sooner nobody can know that the \
                 link is lost",
                loss.after
            );
            findings.push(Finding::value(&path, text));
        }
    }
    check_client_ids(devices, mqtt, findings);
    let room = Size(command::MAX_OPEN * command::MAX_OUTCOME);
    if let Some(queue) = queue
        && queue.outcome.max_bytes < room
        && points.clone().any(|plan| plan.point.writable)
    {
        let text = format!(
            "`{}`: expected at least {room}, so that no answer to a command is dropped",
            queue.outcome.max_bytes
        );
        findings.push(Finding::value(&["queue", "outcome", "max_bytes"], text));
    }
}

/// A broker that gets a second connection of one name ends the first.
fn check_client_ids(devices: &[Device], mqtt: Option<&link::Config>, findings: &mut Vec<Finding>) {
    let mut known: Vec<(String, &link::Config)> = mqtt.map(|mqtt| ("[mqtt]".to_owned(), mqtt)).into_iter().collect();
    for Device { plan, .. } in devices {
        let Some(link) = plan.driver.link() else { continue };
        let same = |(_, other): &&(String, &link::Config)| {
            other.client_id == link.client_id && other.url.0.iter().any(|url| link.url.0.contains(url))
        };
        if let Some((other, _)) = known.iter().find(same) {
            let text = format!("`{}`: {other} has it at the same broker: expected another one", link.client_id);
            findings.push(Finding::value(&["device", plan.device.as_str(), "client_id"], text));
        }
        known.push((format!("device {}", plan.device), link));
    }
}

fn section<T>(
    table: &toml::Table,
    name: &str,
    read: fn(&toml::Table) -> Result<T, Vec<Fault>>,
    findings: &mut Vec<Finding>,
) -> Option<T> {
    let before = findings.len();
    let table = subtable(table, name, findings);
    if findings.len() > before { None } else { read::read(&table, &[name], read, findings) }
}

fn subtable(table: &toml::Table, name: &str, findings: &mut Vec<Finding>) -> toml::Table {
    match table.get(name) {
        None => toml::Table::new(),
        Some(toml::Value::Table(table)) => table.clone(),
        Some(_) => {
            findings.push(Finding::value(&[name], format!("expected a table [{name}]")));
            toml::Table::new()
        }
    }
}
