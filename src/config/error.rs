//! What is wrong with a config, and where.

use std::fmt;

use super::devices::DEVICE;
use super::locate::{self, Near};
use super::sources::{File, Merged, Variable};
use super::words::{self, Meaning};
use crate::model::Fault;

/// One thing that is wrong with the config. Shown as `FILE:LINE:COL: KEY.PATH: what is wrong and what was expected`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// Where it was written.
    pub place: Place,
    /// The keys from the root down, with dots between them; empty where no key is concerned.
    pub key: String,
    /// What is wrong and what was expected: lower case, no full stop.
    pub text: String,
}

/// Where something of the config was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file.
    File {
        /// Its path.
        path: String,
        /// Line and column, counted from 1 in characters; `None`: nothing in the file is near it.
        position: Option<(usize, usize)>,
    },
    /// In an environment variable.
    Variable(String),
    /// Nowhere.
    Nowhere,
}

/// Something wrong, before it is known where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// The keys from the root down; `[2]` is a place in a list.
    pub path: Vec<String>,
    /// Which part of the setting is meant.
    pub part: Part,
    /// What is wrong and what was expected.
    pub text: String,
}

/// Which part of a setting is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Its key.
    Key,
    /// Its value, or its absence.
    Value,
}

impl Finding {
    /// A wrong or missing value.
    pub(super) fn value(path: &[&str], text: impl Into<String>) -> Self {
        Finding { path: owned(path), part: Part::Value, text: text.into() }
    }

    /// A wrong key.
    pub(super) fn key(path: &[&str], text: impl Into<String>) -> Self {
        Finding { path: owned(path), part: Part::Key, text: text.into() }
    }

    /// A room's fault, seen from the root: in words for people.
    pub(super) fn of(fault: Fault, base: &[&str]) -> Self {
        let mut path = owned(base);
        path.extend(fault.path.iter().flat_map(|key| steps(key)));
        let (part, text) = match words::meaning(&fault.text) {
            Meaning::Unknown { key, known } => {
                if path.last() != Some(&key) {
                    path.push(key.clone());
                }
                (Part::Key, words::unknown_key(&key, known.iter().map(String::as_str)))
            }
            Meaning::Missing { key } => {
                path.push(key);
                (Part::Value, words::MISSING.to_owned())
            }
            Meaning::Wrong(text) => (Part::Value, text),
        };
        Finding { path, part, text }
    }

    /// A device's profile says what the device itself does not.
    fn in_profile(&self, profiles: &[(String, File)], near: Option<Near>) -> Option<Near> {
        let [device, name, path @ ..] = &self.path[..] else { return near };
        let file = profiles.iter().find(|(owner, _)| device == DEVICE && owner == name).map(|(_, file)| file);
        let there = file.and_then(|file| locate::deepest(std::slice::from_ref(file), path, self.part));
        match there {
            Some(there) if near.as_ref().is_none_or(|near| near.depth < there.depth + 2) => {
                Some(Near { depth: there.depth + 2, ..there })
            }
            _ => near,
        }
    }

    /// Looks up where it was written.
    pub(super) fn place(self, merged: &Merged, profiles: &[(String, File)]) -> ConfigError {
        let key = dotted(&self.path);
        let variable = |holds: fn(&Variable, &[String]) -> bool| {
            merged
                .variables
                .iter()
                .find(|variable| holds(variable, &self.path))
                .map(|v| Place::Variable(v.name.clone()))
        };
        // The environment comes last, so what it says is what counts.
        if let Some(place) = variable(|variable, path| path.starts_with(&variable.path)) {
            return ConfigError { place, key, text: self.text };
        }
        let near = self.in_profile(profiles, locate::deepest(&merged.files, &self.path, self.part));
        if near.as_ref().is_none_or(|near| near.depth < self.path.len())
            && let Some(place) = variable(|variable, path| variable.path.starts_with(path))
        {
            return ConfigError { place, key, text: self.text };
        }
        let place = match near {
            Some(near) => Place::File { path: near.file, position: Some(near.position) },
            None => match merged.files.last() {
                Some(file) => Place::File { path: file.name.clone(), position: None },
                None => Place::Nowhere,
            },
        };
        ConfigError { place, key, text: self.text }
    }
}

/// `url[1]` as the steps `url` and `[1]`.
fn steps(key: &str) -> Vec<String> {
    match key.split_once('[') {
        Some((name, rest)) if rest.strip_suffix(']').is_some_and(|n| n.parse::<usize>().is_ok()) => {
            let index = format!("[{rest}");
            if name.is_empty() { vec![index] } else { vec![name.to_owned(), index] }
        }
        _ => vec![key.to_owned()],
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|key| (*key).to_owned()).collect()
}

fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for key in path {
        if !text.is_empty() && !key.starts_with('[') {
            text.push('.');
        }
        // As it would stand in a file.
        let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !key.is_empty() && (key.chars().all(bare) || locate::index(key).is_some()) {
            text.push_str(key);
        } else {
            text.push_str(&format!("{key:?}"));
        }
    }
    text
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { path, position: Some((line, column)) } => write!(f, "{path}:{line}:{column}"),
            Place::File { path, position: None } => f.write_str(path),
            Place::Variable(name) => f.write_str(name),
            Place::Nowhere => f.write_str("config"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError { place, key, text } = self;
        if key.is_empty() { write!(f, "{place}: {text}") } else { write!(f, "{place}: {key}: {text}") }
    }
}
