//! A command under way: what was published for it, and what the device says of it. A state machine without I/O.

use std::time::Duration;

use super::ear::Said;
use crate::device::{DeviceIo, Write, WriteError};
use crate::link::{Refusal, Ticket};
use crate::model::{PointName, Value};

/// A command that was published.
#[derive(Debug)]
pub(super) struct Deed {
    pub(super) write: Write,
    /// The device has until then, by `CLOCK_BOOTTIME`.
    pub(super) until: Duration,
    steps: Vec<Step>,
}

/// One message of it.
#[derive(Debug)]
struct Step {
    point: PointName,
    /// The raw value that was asked for.
    value: Value,
    ticket: Ticket,
    is_acked: bool,
    /// Whether the device itself says what it did.
    confirms: bool,
    /// What it said last of this point, since.
    said: Option<Value>,
}

impl Deed {
    /// One of which nothing was published yet.
    pub(super) fn new(write: Write, until: Duration) -> Self {
        Deed { write, until, steps: Vec::new() }
    }

    /// A message of it was handed over.
    pub(super) fn published(&mut self, point: PointName, value: Value, ticket: Ticket, confirms: bool) {
        self.steps.push(Step { point, value, ticket, is_acked: false, confirms, said: None });
    }

    /// The broker answered a publish. An error: it did not take it.
    pub(super) fn acked(&mut self, ticket: Ticket, result: Result<(), Refusal>) -> Result<(), WriteError> {
        let alone = self.steps.len() == 1;
        let Some(step) = self.steps.iter_mut().find(|step| step.ticket == ticket) else { return Ok(()) };
        step.is_acked = true;
        let Err(Refusal::Later(why) | Refusal::Never(why)) = result else { return Ok(()) };
        let text = format!("the broker does not take the message for `{}`: {why}", step.point);
        // Of several, another one may have been taken.
        Err(if alone { WriteError::Failed(text) } else { WriteError::Unknown(text) })
    }

    /// The device said something.
    pub(super) fn heard(&mut self, said: &[Said<'_>]) {
        for Said { point, value } in said {
            if let (Some(step), Some(value)) = (self.steps.iter_mut().find(|step| step.point == **point), value) {
                step.said = Some(value.clone());
            }
        }
    }

    /// Whether this point is one that is being set.
    pub(super) fn sets(&self, point: &PointName) -> bool {
        self.steps.iter().any(|step| step.confirms && step.point == *point)
    }

    /// The raw values that the device has now, where it did all of it.
    pub(super) fn done(&self, io: &DeviceIo) -> Option<Vec<(PointName, Value)>> {
        let done = |step: &Step| match &step.said {
            Some(said) if step.confirms => {
                io.is_same(&step.point, &step.value, said).then(|| (step.point.clone(), said.clone()))
            }
            None if step.confirms => None,
            _ => step.is_acked.then(|| (step.point.clone(), step.value.clone())),
        };
        self.steps.iter().map(done).collect()
    }

    /// What is said when its time is over: the device has something else, or nobody knows.
    pub(super) fn overdue(&self) -> WriteError {
        let silent = self.steps.iter().find(|step| if step.confirms { step.said.is_none() } else { !step.is_acked });
        if let Some(step) = silent {
            return WriteError::Unknown(match step.is_acked {
                true => format!("it was published, and the device did not say `{}` in time", step.point),
                false => format!("the broker did not acknowledge the message for `{}`", step.point),
            });
        }
        let says: Vec<String> = self
            .steps
            .iter()
            .filter_map(|step| Some(format!("`{}` is {}", step.point, step.said.as_ref().filter(|_| step.confirms)?)))
            .collect();
        WriteError::Failed(format!("the device did not do it; it says that {}", says.join(" and ")))
    }
}
