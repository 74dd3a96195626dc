//! The files of the queue, and the one thread that owns them.
//!
//! ```text
//! queue/
//!   alarm/      0000000000000001.seg …  cursor  spare
//!   outcome/    …
//!   telemetry/  …
//!   gaps.0  gaps.1       gaps-1.0  gaps-1.1  while a later version has those
//! ```
//!
//! [`mod@format`] says what stands in a segment, [`cursor`] and [`ledger`] in the other files; [`walk`] reads segments,
//! [`files`] writes those of a lane, [`keeper`] decides when. What this code did not write is left alone.
//!
//! *Order.* Nothing is called durable before its file, and the name of its file, are synced. The ledger is written before
//! any write that makes a loss final: a commit behind the lost numbers, a cursor that knows their end, the end of a
//! segment. A file that failed to sync is never synced again: its lane goes on in a new segment with all that was not
//! durable.

mod cursor;
mod files;
mod format;
mod keeper;
mod ledger;
mod walk;

pub(super) use format::{MAX_PAYLOAD, Seal};
pub(super) use keeper::{Found, Keeper};
pub(super) use ledger::MOST as MOST_GAPS;
pub(super) use walk::{Chunk, Damage, Place};

/// Faults that the tests put in, to prove that they would notice them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) enum Bug {
    /// Called durable before it is synced.
    NotSynced,
    /// The first bad checksum is taken for the end.
    CutAtDamage,
    /// The names of new files are not synced.
    FolderNotSynced,
    /// What an earlier process wrote, and did not sync, is counted on.
    TrustsTheCache,
    /// The ledger is written after the loss it tells.
    GapsLast,
}
