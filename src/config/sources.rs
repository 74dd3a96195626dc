//! Where the config comes from: files, one over the other, and the environment over all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::{ConfigError, Place};
use super::layers;
use super::locate;
use crate::model::MAX_NAME;

/// What variables of the environment that set a key begin with.
const PREFIX: &str = "SLUICEGATE__";

/// The layer of the image's, for all gateways of the board.
const IMAGE_LAYER: &str = "usr/lib/sluicegate/conf.d";

/// Where profiles of devices are, besides those beside the config.
const SYSTEM_PROFILES: [&str; 2] = ["etc/sluicegate/profiles", "usr/share/sluicegate/profiles"];

/// Where the config comes from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The files.
    pub places: Places,
    /// Which gateway of this system: that of `sluicegate.service`, or of an instance.
    pub instance: Option<Instance>,
    /// The environment: `SLUICEGATE__MQTT__WINDOW` sets `mqtt.window`; `STATE_DIRECTORY` is the default of
    /// `gateway.state_directory`.
    pub environment: BTreeMap<String, String>,
    /// The default of `gateway.id`.
    pub host_name: String,
}

/// Which files are read.
#[derive(Debug, Clone)]
pub enum Places {
    /// `usr/lib/sluicegate/conf.d/*.toml`, `etc/sluicegate/sluicegate.toml` and `etc/sluicegate/conf.d/*.toml` below
    /// this folder, in this order; each may be missing. Of an instance: `NAME.toml` and `NAME.d/*.toml` instead of the
    /// last two, one of which must be there.
    Standard(PathBuf),
    /// One file, and no other.
    File(PathBuf),
    /// No file, but this text.
    Text {
        /// What messages call it.
        name: String,
        /// TOML.
        text: String,
    },
}

/// The name of a gateway that is run by `sluicegate@NAME.service`, beside or instead of that of `sluicegate.service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance(pub(super) String);

impl FromStr for Instance {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(good) {
            return Err(format!("expected 1 to {MAX_NAME} of A-Z, a-z, 0-9, _ and -"));
        }
        // Their files are those of the gateway without a name.
        if ["sluicegate", "conf"].contains(&name) {
            return Err("is the name of files of the gateway that has none".to_owned());
        }
        Ok(Instance(name.to_owned()))
    }
}

/// A file that was read.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub name: String,
    pub text: String,
}

/// A variable that sets a key.
#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub name: String,
    pub path: Vec<String>,
    pub raw: String,
}

/// All layers in one table, and what they were.
#[derive(Debug)]
pub(super) struct Merged {
    pub table: toml::Table,
    pub files: Vec<File>,
    pub variables: Vec<Variable>,
}

impl Sources {
    /// The standard places, of an instance or not, or that one file, and the environment of this process.
    pub fn of_process(file: Option<&Path>, instance: Option<Instance>) -> Self {
        let environment = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let places = file.map_or_else(|| Places::Standard(PathBuf::from("/")), |file| Places::File(file.to_owned()));
        Sources { places, instance, environment, host_name }
    }

    /// The name of the systemd unit, and of its directories.
    pub fn unit(&self) -> String {
        self.instance.as_ref().map_or_else(|| "sluicegate".to_owned(), |Instance(name)| format!("sluicegate@{name}"))
    }

    /// What the unit's `RuntimeDirectory=` makes.
    pub fn runtime_directory(&self) -> PathBuf {
        Path::new("/run").join(self.unit())
    }

    /// A text, without any environment. The host name is empty: the text must say `gateway.id`.
    pub fn text(name: &str, text: &str) -> Self {
        let places = Places::Text { name: name.to_owned(), text: text.to_owned() };
        Sources { places, instance: None, environment: BTreeMap::new(), host_name: String::new() }
    }

    /// Reads all of it into one table.
    pub(super) fn merge(&self) -> Result<Merged, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let mut files = Vec::new();
        let mut tables = Vec::new();
        for file in self.files(&mut errors) {
            match file.text.parse::<toml::Table>() {
                Ok(table) => {
                    tables.push(table);
                    files.push(file);
                }
                Err(error) => errors.push(syntax(&file, &error)),
            }
        }
        let mut assigned = Vec::new();
        for (name, raw) in &self.environment {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let keys: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
            if keys.iter().any(String::is_empty) {
                let text = "expected SLUICEGATE__TABLE__KEY, such as SLUICEGATE__MQTT__WINDOW".to_owned();
                errors.push(ConfigError { place: Place::Variable(name.clone()), key: String::new(), text });
            } else {
                assigned.push((name, keys, raw));
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let below = layers::merge(tables);
        let mut top = toml::Table::new();
        let mut variables = Vec::new();
        for (name, keys, raw) in assigned {
            let path = layers::spelled(&below, &keys);
            layers::set(&mut top, &path, layers::typed(raw));
            variables.push(Variable { name: name.clone(), path, raw: raw.clone() });
        }
        if files.is_empty() && variables.is_empty() {
            let text = "no config was found: expected /etc/sluicegate/sluicegate.toml, or --config FILE".to_owned();
            return Err(vec![ConfigError { place: Place::Nowhere, key: String::new(), text }]);
        }
        Ok(Merged { table: layers::merge(vec![below, top]), files, variables })
    }

    /// Whether a file of the instance's own, or the environment, sets this key; not only a layer of the image's.
    pub(super) fn instance_says(&self, path: &[&str]) -> bool {
        let has = |table: toml::Table| {
            let (last, above) = path.split_last()?;
            let table = above.iter().try_fold(&table, |table, key| table.get(*key)?.as_table())?;
            Some(table.contains_key(*last))
        };
        let variable = format!("{PREFIX}{}", path.join("__").to_uppercase());
        let own = self.files(&mut Vec::new());
        let own = own.iter().filter(|file| !file.name.contains(IMAGE_LAYER));
        self.environment.contains_key(&variable)
            || own.filter_map(|file| file.text.parse::<toml::Table>().ok().and_then(has)).any(|is_there| is_there)
    }

    /// Where profiles are, the first one first: beside the files that were read, and in the system's places.
    pub(super) fn profile_folders(&self, files: &[File]) -> Vec<PathBuf> {
        let root = match &self.places {
            Places::Standard(root) => root.as_path(),
            Places::File(_) => Path::new("/"),
            Places::Text { .. } => return Vec::new(),
        };
        let beside = files.iter().rev().filter_map(|file| Some(Path::new(&file.name).parent()?.join("profiles")));
        let mut folders: Vec<PathBuf> = beside.chain(SYSTEM_PROFILES.map(|folder| root.join(folder))).collect();
        let mut known = BTreeSet::new();
        folders.retain(|folder| known.insert(folder.clone()));
        folders
    }

    /// The files that were found, where they are those of the service.
    pub fn of_service(&self) -> Vec<PathBuf> {
        match &self.places {
            Places::Standard(_) => self.files(&mut Vec::new()).into_iter().map(|file| file.name.into()).collect(),
            Places::File(_) | Places::Text { .. } => Vec::new(),
        }
    }

    fn files(&self, errors: &mut Vec<ConfigError>) -> Vec<File> {
        let root = match &self.places {
            Places::Text { name, text } => return vec![File { name: name.clone(), text: text.clone() }],
            Places::File(path) => return read(path, errors).into_iter().collect(),
            Places::Standard(root) => root,
        };
        let (main, folder) = match &self.instance {
            None => ("sluicegate", "conf.d".to_owned()),
            Some(Instance(name)) => (name.as_str(), format!("{name}.d")),
        };
        let etc = root.join("etc/sluicegate");
        let main = etc.join(format!("{main}.toml"));
        let above = drop_ins(&etc.join(folder), errors);
        if self.instance.is_some() && !main.exists() && above.is_empty() {
            // Else the image's layer alone would be a gateway of any name.
            let text = format!("no config was found: expected {}", main.display());
            errors.push(ConfigError { place: Place::Nowhere, key: String::new(), text });
        }
        let mut paths = drop_ins(&root.join(IMAGE_LAYER), errors);
        paths.push(main);
        paths.extend(above);
        paths.iter().filter(|path| path.symlink_metadata().is_ok()).filter_map(|path| read(path, errors)).collect()
    }
}

pub(super) fn read(path: &Path, errors: &mut Vec<ConfigError>) -> Option<File> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(File { name: path.display().to_string(), text }),
        Err(error) => {
            errors.push(unreadable(path, &error));
            None
        }
    }
}

fn drop_ins(folder: &Path, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    };
    match list() {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            errors.push(unreadable(folder, &error));
            Vec::new()
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    let text = match error.kind() {
        io::ErrorKind::InvalidData => "not UTF-8 text: expected a TOML file".to_owned(),
        io::ErrorKind::PermissionDenied => format!("can't be read: {error}; expected a file that the gateway may read"),
        _ => format!("can't be read: {error}"),
    };
    let place = Place::File { path: path.display().to_string(), position: None };
    ConfigError { place, key: String::new(), text }
}

pub(super) fn syntax(file: &File, error: &toml::de::Error) -> ConfigError {
    let position = error.span().map(|span| locate::position(&file.text, span.start));
    let place = Place::File { path: file.name.clone(), position };
    let message = error.message().trim_end();
    let message = message.strip_suffix(", expected nothing").unwrap_or(message);
    ConfigError { place, key: String::new(), text: format!("not TOML: {message}") }
}
