//! Profiles: what is the same for all devices of a model, in a file of its own. `profile = "eastron-sdm120"` lays the
//! device's own table over that of `eastron-sdm120.toml`, key by key; `point.x = false` leaves a point out.
//!
//! A profile is looked for in `profiles/` beside each file of the config, the last one first, and in the system's places.

use std::path::PathBuf;

use super::devices::{DEVICE, POINT};
use super::error::{ConfigError, Finding};
use super::layers;
use super::sources::{self, File, Merged, Sources};
use super::words;

/// The key of a device that names its profile.
pub(super) const PROFILE: &str = "profile";

/// The profiles that were read, for where something in them is wrong.
#[derive(Debug, Default)]
pub(super) struct Profiles {
    /// The device that names it, and the file.
    pub(super) files: Vec<(String, File)>,
    pub(super) errors: Vec<ConfigError>,
    /// Devices without the profile that they name: what they are, nobody knows.
    pub(super) left_out: usize,
}

/// Lays each device over its profile. A device without its profile is left out.
pub(super) fn apply(
    devices: &mut toml::Table,
    sources: &Sources,
    merged: &Merged,
    findings: &mut Vec<Finding>,
) -> Profiles {
    let mut profiles = Profiles::default();
    let folders = sources.profile_folders(&merged.files);
    let names: Vec<String> = devices.keys().cloned().collect();
    for device in names {
        let Some(toml::Value::Table(table)) = devices.get_mut(&device) else { continue };
        let laid = match table.remove(PROFILE) {
            None => {
                for point in without(table) {
                    let text = "`false` leaves out a point of a profile, and this device names none: remove it";
                    findings.push(Finding::value(&[DEVICE, &device, POINT, &point], text));
                }
                Some(std::mem::take(table))
            }
            Some(toml::Value::String(name)) => {
                let own = std::mem::take(table);
                profiles.lay(own, &device, &name, &folders, findings)
            }
            Some(_) => {
                findings.push(Finding::value(&[DEVICE, &device, PROFILE], "expected the name of a profile in quotes"));
                None
            }
        };
        match laid {
            Some(mut laid) => {
                if let Some(toml::Value::Table(points)) = laid.get_mut(POINT) {
                    points.retain(|_, point| point.as_bool() != Some(false));
                }
                *table = laid;
            }
            None => {
                profiles.left_out += 1;
                devices.remove(&device);
            }
        }
    }
    profiles
}

impl Profiles {
    fn lay(
        &mut self,
        own: toml::Table,
        device: &str,
        name: &str,
        folders: &[PathBuf],
        findings: &mut Vec<Finding>,
    ) -> Option<toml::Table> {
        let base = [DEVICE, device, PROFILE];
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            findings.push(Finding::value(
                &base,
                format!("`{name}`: expected the name of a profile, of A-Z, a-z, 0-9, - and _"),
            ));
            return None;
        }
        let Some(path) = folders.iter().map(|folder| folder.join(format!("{name}.toml"))).find(|path| path.exists())
        else {
            findings.push(Finding::value(&base, missing(name, folders)));
            return None;
        };
        let file = sources::read(&path, &mut self.errors)?;
        let below = match file.text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                self.errors.push(sources::syntax(&file, &error));
                return None;
            }
        };
        let has = |point: &String| below.get(POINT).is_some_and(|points| points.get(point).is_some());
        for point in without(&own).filter(|point| !has(point)) {
            let text = format!("`{name}` has no point of this name: nothing is left out");
            findings.push(Finding::key(&[DEVICE, device, POINT, &point], text));
        }
        if below.contains_key(PROFILE) {
            findings.push(Finding::key(&base, format!("the profile `{name}` names another one, which it can't")));
        }
        self.files.push((device.to_owned(), file));
        // As deep as in the config, where it matters to what a later layer replaces.
        let deep = |table: toml::Table| {
            let devices = toml::Table::from_iter([(device.to_owned(), toml::Value::Table(table))]);
            toml::Table::from_iter([(DEVICE.to_owned(), toml::Value::Table(devices))])
        };
        let mut laid = layers::merge(vec![deep(below), deep(own)]);
        match laid.get_mut(DEVICE).and_then(|devices| devices.get_mut(device)) {
            Some(toml::Value::Table(table)) => Some(std::mem::take(table)),
            _ => None,
        }
    }
}

/// The points that a device's table leaves out.
fn without(table: &toml::Table) -> impl Iterator<Item = String> {
    let points = table.get(POINT).and_then(toml::Value::as_table).into_iter().flatten();
    points.filter(|(_, value)| value.as_bool() == Some(false)).map(|(point, _)| point.clone())
}

fn missing(name: &str, folders: &[PathBuf]) -> String {
    let in_folder = |folder: &PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let stem = |entry: std::fs::DirEntry| {
        let path = entry.path();
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        path.file_stem().filter(|_| is_toml).map(|stem| stem.to_string_lossy().into_owned())
    };
    let known: Vec<String> = folders.iter().flat_map(in_folder).filter_map(stem).collect();
    match words::nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("there is no profile `{name}` (did you mean `{near}`?)"),
        None => {
            let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            format!("there is no profile `{name}`: expected {name}.toml in {}", folders.join(", "))
        }
    }
}
