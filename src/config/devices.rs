//! The tables `[device.…]`: each point's flat table is split among the rooms that own its keys.

use std::sync::Arc;

use super::error::Finding;
use super::layers;
use super::profiles::PROFILE;
use super::read::{complete, read};
use super::words;
use super::{Device, PointPlan};
use crate::device::{self, Kind, Plan, PointRulesConfig, PointSpec, Raw, Shape, Spec};
use crate::model::{Declaration, DeviceName, Fault, GatewayId, Point, PointKey, PointName, ValueType};
use crate::{command, queue, uplink};

/// Who, beside the device's kind, owns keys of a point's table.
pub(super) const OWNERS: [(&str, &[&str]); 5] = [
    ("declaration", Declaration::KEYS),
    ("point rules", PointRulesConfig::KEYS),
    ("command", command::PointConfig::KEYS),
    ("queue", queue::PointConfig::KEYS),
    ("uplink", uplink::PointConfig::KEYS),
];

/// The table of the devices.
pub(super) const DEVICE: &str = "device";

/// The table of a device's points.
pub(super) const POINT: &str = "point";

/// All devices. Those with anything wrong are reported, and left out.
pub(super) fn devices(
    tables: &toml::Table,
    gateway: &GatewayId,
    kinds: &'static [&'static Kind],
    findings: &mut Vec<Finding>,
) -> Vec<Device> {
    let devices: Vec<Device> =
        tables.iter().filter_map(|(name, table)| Reader { gateway, kinds, name, findings }.device(table)).collect();
    for device in &devices {
        for (point, key, of) in device.plan.driver.reads() {
            if let Some(text) = no_source(of, tables, &devices) {
                findings.push(Finding::value(&[DEVICE, device.plan.device.as_str(), POINT, point.as_str(), key], text));
            }
        }
    }
    devices
}

/// What is wrong with a point that another one is made of.
fn no_source(of: &PointKey, tables: &toml::Table, devices: &[Device]) -> Option<String> {
    let PointKey(device, point) = of;
    let Some(table) = tables.get(device.as_str()) else {
        return Some(words::unknown_choice(device.as_str(), tables.keys().map(String::as_str)));
    };
    let points = table.get(POINT).and_then(toml::Value::as_table);
    if points.is_none_or(|points| !points.contains_key(point.as_str())) {
        let known = points.into_iter().flat_map(toml::Table::keys).map(String::as_str);
        return Some(format!("device `{device}`: {}", words::unknown_choice(point.as_str(), known)));
    }
    // One that is wrong itself is told where it stands.
    let source = devices.iter().find(|known| known.plan.device == *device)?;
    if !source.plan.driver.reads().is_empty() {
        return Some(format!("`{device}` is made of others itself: expected points of a device that is not"));
    }
    let (point, rules, _) = source.plan.points.iter().find(|(known, ..)| known.name == *point)?;
    let is_text = point.value_type == Some(ValueType::Text) || rules.map.values().any(|name| name.as_f64().is_none());
    is_text.then(|| format!("`{device}/{}` is text: expected a number", point.name))
}

/// What the other rooms say about a point.
struct Rest {
    rules: PointRulesConfig,
    command: command::PointConfig,
    queue: queue::PointConfig,
    uplink: uplink::PointConfig,
    /// The keys that were written.
    written: Vec<String>,
}

struct Reader<'a> {
    gateway: &'a GatewayId,
    kinds: &'static [&'static Kind],
    name: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl Reader<'_> {
    fn device(mut self, value: &toml::Value) -> Option<Device> {
        let before = self.findings.len();
        let name = match DeviceName::new(self.name) {
            Ok(name) => Some(name),
            Err(error) => self.wrong(Finding::key(&["device", self.name], error.to_string())),
        };
        let Some(table) = value.as_table() else {
            return self.wrong(Finding::value(&["device", self.name], "expected a table [device.NAME]"));
        };
        let kind = self.kind(table)?;
        let (common, own) = split(table, device::Config::KEYS);
        let (of_uplink, mut own) = split(&own, uplink::DeviceConfig::KEYS);
        let points = own.remove(POINT);
        self.known_keys(&own, kind);
        own.retain(|key, _| (kind.device_keys)().contains(&key));
        let base = ["device", self.name];
        let common = read(&common, &base, device::Config::read, self.findings);
        let of_uplink = read(&of_uplink, &base, uplink::DeviceConfig::read, self.findings);
        let points = match points {
            Some(toml::Value::Table(points)) => points,
            None => toml::Table::new(),
            Some(_) => {
                return self
                    .wrong(Finding::value(&["device", self.name, POINT], "expected tables [device.NAME.point.NAME]"));
            }
        };
        let points: Vec<_> = points.iter().map(|(point, table)| self.point(point, table, kind)).collect();
        // The kind has its say also when another room's part of a point is wrong.
        let (specs, mut rest): (Vec<Option<PointSpec>>, Vec<Option<Rest>>) = points.into_iter().unzip();
        let payload = of_uplink.unwrap_or_default().payload;
        for rest in rest.iter_mut().flatten().filter(|rest| !rest.written.iter().any(|key| key == "payload")) {
            rest.uplink.payload = payload.unwrap_or(rest.uplink.payload);
        }
        let (name, specs) = (name?, specs.into_iter().collect::<Option<Vec<_>>>()?);
        let declared: Vec<_> = specs.iter().map(|spec| (spec.name.clone(), spec.declaration.clone())).collect();
        let spec = Spec { gateway: self.gateway.clone(), device: name.clone(), table: own, points: specs };
        let driver_table = driver_table(table);
        let built = match (kind.build)(copy(&spec)) {
            Ok(built) => built,
            Err(faults) => {
                let base = ["device", self.name];
                for fault in faults {
                    let mut finding = Finding::of(fault, &base);
                    let path = finding.path.clone();
                    complete(&mut finding, |wrong| said(kind, &spec, &path, wrong));
                    self.findings.push(finding);
                }
                return None;
            }
        };
        let plans: Vec<(PointPlan, PointRulesConfig, bool)> = declared
            .into_iter()
            .zip(rest)
            .zip(&built.points)
            .filter_map(|(((point, declaration), rest), shape)| {
                let mut rest = rest?;
                rest.command.sleeps = built.driver.sleeps().filter(|_| shape.writable);
                let raw = built.driver.raw(&point);
                Some(self.plan(&name, point, declaration, rest, *shape, raw))
            })
            .collect();
        if self.findings.len() > before {
            return None;
        }
        let common = common?;
        let rules = plans.iter().map(|(plan, rules, holds)| (plan.point.clone(), rules.clone(), *holds)).collect();
        let driver = Arc::clone(&built.driver);
        let plan = Plan { device: name, kind: kind.name, max_rate: common.max_rate, driver, points: rules };
        let points = plans.into_iter().map(|(plan, _, _)| plan).collect();
        Some(Device { plan, points, table: driver_table })
    }

    fn kind(&mut self, table: &toml::Table) -> Option<&'static Kind> {
        let names = || self.kinds.iter().map(|kind| kind.name);
        let path = ["device", self.name, "kind"];
        let text = match table.get("kind") {
            None => {
                format!("{}: expected {}", words::MISSING, words::choices(names()))
            }
            Some(toml::Value::String(name)) => match self.kinds.iter().find(|kind| kind.name == name) {
                Some(kind) => return Some(kind),
                None => words::unknown_choice(name, names()),
            },
            Some(_) => "expected the name of a kind in quotes (see `sluicegate list-kinds`)".to_owned(),
        };
        self.wrong(Finding::value(&path, text))
    }

    /// Reports the keys of a device's table that nobody reads.
    fn known_keys(&mut self, own: &toml::Table, kind: &Kind) {
        let known = (kind.device_keys)();
        for key in own.keys().filter(|key| !known.contains(&key.as_str())) {
            let text = if of_point(kind).any(|other| other == key) {
                format!("unknown key: it belongs to a point, below [device.{}.point.NAME]", self.name)
            } else {
                let known = known.iter().copied().chain(of_device()).chain([POINT, PROFILE]);
                self.foreign(key, |kind| (kind.device_keys)()).unwrap_or_else(|| words::unknown_key(key, known))
            };
            self.findings.push(Finding::key(&["device", self.name, key], text));
        }
    }

    /// What is said of a key that another kind would know.
    fn foreign(&self, key: &str, keys: impl Fn(&Kind) -> &'static [&'static str]) -> Option<String> {
        let kinds: Vec<String> =
            self.kinds.iter().filter(|kind| keys(kind).contains(&key)).map(|kind| format!("{:?}", kind.name)).collect();
        (!kinds.is_empty()).then(|| format!("unknown key: it belongs to kind {}", kinds.join(", ")))
    }

    fn point(&mut self, name: &str, value: &toml::Value, kind: &Kind) -> (Option<PointSpec>, Option<Rest>) {
        let base = ["device", self.name, POINT, name];
        let checked = match PointName::new(name) {
            Ok(name) => Some(name),
            Err(error) => self.wrong(Finding::key(&base, error.to_string())),
        };
        let Some(table) = value.as_table() else {
            return (self.wrong(Finding::value(&base, "expected a table [device.NAME.point.NAME]")), None);
        };
        let mut own = table.clone();
        let declaration = self.part(&mut own, &base, Declaration::KEYS, Declaration::read);
        let rules = self.part(&mut own, &base, PointRulesConfig::KEYS, PointRulesConfig::read);
        let command = self.part(&mut own, &base, command::PointConfig::KEYS, command::PointConfig::read);
        let queue = self.part(&mut own, &base, queue::PointConfig::KEYS, queue::PointConfig::read);
        let uplink = self.part(&mut own, &base, uplink::PointConfig::KEYS, uplink::PointConfig::read);
        let known = (kind.point_keys)();
        for key in own.keys().filter(|key| !known.contains(&key.as_str())) {
            let text = self
                .foreign(key, |kind| (kind.point_keys)())
                .unwrap_or_else(|| words::unknown_key(key, of_point(kind)));
            self.findings.push(Finding::key(&["device", self.name, POINT, name, key], text));
        }
        own.retain(|key, _| known.contains(&key));
        let spec = || Some(PointSpec { name: checked?, declaration: declaration?, table: own });
        let written = table.keys().cloned().collect();
        let rest = || Some(Rest { rules: rules?, command: command?, queue: queue?, uplink: uplink?, written });
        (spec(), rest())
    }

    /// Takes an owner's keys out of a point's table, and reads them.
    fn part<T>(
        &mut self,
        table: &mut toml::Table,
        base: &[&str],
        keys: &[&str],
        of: fn(&toml::Table) -> Result<T, Vec<Fault>>,
    ) -> Option<T> {
        let (mine, others) = split(table, keys);
        *table = others;
        read(&mine, base, of, self.findings)
    }

    fn plan(
        &mut self,
        device: &DeviceName,
        name: PointName,
        declaration: Declaration,
        rest: Rest,
        shape: Shape,
        raw: Raw,
    ) -> (PointPlan, PointRulesConfig, bool) {
        let Rest { rules, command, mut queue, uplink, written } = rest;
        let mut faults = Vec::new();
        let value_type = shape.value_type.or(declaration.value_type);
        let Declaration { unit, min, max, safe, .. } = declaration;
        let safe = safe.map(|safe| value_type.map_or_else(|| Ok(safe.clone()), |wanted| safe.convert(wanted)));
        let safe = safe.transpose().unwrap_or_else(|error| {
            faults.push(Fault::at("safe", error.to_string()));
            None
        });
        let writable = shape.writable;
        let point = Point { device: device.clone(), name, value_type, unit, min, max, safe, writable };
        faults.extend(declaration_faults(&point));
        faults.extend(rules.check(&point));
        faults.extend(rules.check_type(&point, raw));
        faults.extend(command.check(&point));
        if !point.writable {
            let guards = command::PointConfig::KEYS.iter().chain(&["safe"]);
            for key in guards.filter(|key| written.iter().any(|written| written == *key)) {
                faults.push(Fault::at(
                    key,
                    "only a writable point has this key: remove it, or let commands change the point",
                ));
            }
        }
        if uplink.payload == uplink::Payload::Bytes && value_type != Some(ValueType::Text) {
            let text = "expected type = \"text\" beside it: the value of such a point is hexadecimal digits";
            faults.push(Fault::at("payload", text));
        }
        if uplink.payload.is_bare() {
            if queue.keep == queue::Keep::All && written.iter().any(|key| key == "keep") {
                let text = "a bare value has no number: expected \"latest\", or payload = \"json\"";
                faults.push(Fault::at("keep", text));
            }
            queue.keep = queue::Keep::Latest;
        }
        if rules.limits.is_some() && queue.keep == queue::Keep::Latest {
            let text = "an alarm is a record of its own: expected keep = \"all\" beside it, and no bare payload";
            faults.push(Fault::at("limits", text));
        }
        let base = ["device", self.name, POINT, point.name.as_str()];
        self.findings.extend(faults.into_iter().map(|fault| Finding::of(fault, &base)));
        (PointPlan { point, command, queue, uplink }, rules, shape.holds)
    }

    fn wrong<T>(&mut self, finding: Finding) -> Option<T> {
        self.findings.push(finding);
        None
    }
}

fn copy(spec: &Spec) -> Spec {
    let point = |point: &PointSpec| PointSpec {
        name: point.name.clone(),
        declaration: point.declaration.clone(),
        table: point.table.clone(),
    };
    Spec {
        gateway: spec.gateway.clone(),
        device: spec.device.clone(),
        table: spec.table.clone(),
        points: spec.points.iter().map(point).collect(),
    }
}

/// What a kind says of a wrong value at this path.
fn said(kind: &Kind, spec: &Spec, path: &[String], wrong: toml::Value) -> Option<String> {
    let mut spec = copy(spec);
    let device = spec.device.as_str().to_owned();
    match path.get(2..)? {
        [point, name, rest @ ..] if point == POINT => {
            let point = spec.points.iter_mut().find(|point| point.name.as_str() == name)?;
            layers::set(&mut point.table, rest, wrong);
        }
        rest => layers::set(&mut spec.table, rest, wrong),
    }
    let faults = (kind.build)(spec).err()?;
    let mut findings = faults.into_iter().map(|fault| Finding::of(fault, &["device", &device]));
    findings.find(|finding| finding.path == path).map(|finding| finding.text)
}

/// Every key that a device of any kind may have.
pub(super) fn of_device() -> impl Iterator<Item = &'static str> {
    device::Config::KEYS.iter().chain(uplink::DeviceConfig::KEYS).copied()
}

/// Every key that a point of this kind may have.
pub(super) fn of_point(kind: &Kind) -> impl Iterator<Item = &'static str> {
    OWNERS.iter().flat_map(|(_, keys)| *keys).chain((kind.point_keys)()).copied()
}

/// A device's table without what the router, the queue and the uplink own: what is left makes its driver.
fn driver_table(table: &toml::Table) -> toml::Table {
    let mut table = table.clone();
    table.retain(|key, _| !uplink::DeviceConfig::KEYS.contains(&key));
    let points = table.get_mut(POINT).and_then(toml::Value::as_table_mut);
    for (_, point) in points.into_iter().flat_map(|points| points.iter_mut()) {
        let Some(point) = point.as_table_mut() else { continue };
        let others = [command::PointConfig::KEYS, queue::PointConfig::KEYS, uplink::PointConfig::KEYS];
        point.retain(|key, _| !others.iter().any(|keys| keys.contains(&key)));
    }
    table
}

fn split(table: &toml::Table, keys: &[&str]) -> (toml::Table, toml::Table) {
    table.clone().into_iter().partition(|(key, _)| keys.contains(&key.as_str()))
}

/// What is wrong with a declaration in itself.
fn declaration_faults(point: &Point) -> Vec<Fault> {
    let mut faults = Vec::new();
    let Point { min, max, .. } = *point;
    for (key, bound) in [("min", min), ("max", max)] {
        if bound.is_some_and(|bound| !bound.is_finite()) {
            faults.push(Fault::at(key, "expected a number"));
        } else if bound.is_some() && matches!(point.value_type, Some(ValueType::Bool | ValueType::Text)) {
            faults.push(Fault::at(key, "only a point of type int or float has it"));
        }
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        faults.push(Fault::at("min", format!("`{min}`: expected at most `max`, which is {max}")));
    } else if let Some(safe) = point.safe.as_ref().filter(|safe| point.writable && !point.in_range(safe)) {
        faults.push(Fault::at("safe", format!("`{safe}` is out of range: expected {}", point.range())));
    }
    if point.unit.as_ref().is_some_and(|unit| unit.is_empty() || unit.contains(char::is_control)) {
        faults.push(Fault::at("unit", "expected a text such as \"Cel\""));
    }
    faults
}
