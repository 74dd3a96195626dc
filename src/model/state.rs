//! What is up, what is down, and what a person should look at.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DeviceName, Timestamp, time};

/// Whether a device answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceState {
    /// It was started, and has not answered yet.
    Starting,
    /// It answers.
    Online,
    /// It does not.
    Offline {
        /// What happened and what to do.
        why: String,
        /// Since when.
        since: Timestamp,
    },
}

/// The states of all devices.
pub type DeviceStates = BTreeMap<DeviceName, DeviceState>;

/// Something that a person should look at now.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// A short word that a program can test for.
    pub code: &'static str,
    /// What it is and what to do, for a person.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
}

/// The problems of one room, by what they are about (a device, a lane, a topic; empty for the room itself).
pub type Problems = BTreeMap<(&'static str, String), Problem>;

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut problem = serializer.serialize_struct("Problem", 3)?;
        problem.serialize_field("code", self.code)?;
        problem.serialize_field("text", &self.text)?;
        problem.serialize_field("since", &self.since.dated(&time::now()).rfc3339())?;
        problem.end()
    }
}
