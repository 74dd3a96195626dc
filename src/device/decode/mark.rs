//! A place in a frame where certain bytes stand.

use toml::Table;

use crate::model::{Fault, Keys};

/// Bytes that stand at a certain place of a frame, by which it is told from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::device) struct Mark {
    /// Where, from 0; below 0 from the end.
    at: i64,
    /// Which.
    is: Vec<u8>,
}

impl Mark {
    /// Reads `{ at = …, is = … }`.
    pub(in crate::device) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        let (at, is) = (keys.place("at").unwrap_or_default(), keys.octets("is"));
        if !keys.has("is") {
            keys.wrong("", "expected `is`: the bytes that stand there");
        }
        keys.end(Mark { at, is: is.unwrap_or_default() })
    }

    /// Whether a frame has them.
    pub(in crate::device) fn fits(&self, frame: &[u8]) -> bool {
        place(self.at, frame.len()).and_then(|at| frame.get(at..)).is_some_and(|rest| rest.starts_with(&self.is))
    }
}

/// A place in so many bytes, where one below 0 counts from the end.
pub(super) fn place(at: i64, length: usize) -> Option<usize> {
    let back = usize::try_from(at.unsigned_abs()).ok()?;
    if at < 0 { length.checked_sub(back) } else { Some(back).filter(|at| *at <= length) }
}
