//! What stands in the journal.
//!
//! A file begins with 8 bytes: `SGCMDS`, the version (u8) and a zero. Then frames: CRC-32 of the rest (u32), the length
//! of the entry (u32), the entry. An entry is a byte that says what it is and its fields; all of it little-endian.
//! Outcomes and values are spelled as in the queue ([`Body::encode`]).

use std::time::Duration;

use crate::disk::CRC_32;
use crate::model::{Body, BootId, CommandId, Outcome, PointKey, Quality, Reading, Timestamp, Value};

/// The beginning of a file.
pub(super) const HEAD: [u8; 8] = *b"SGCMDS\x01\0";

/// What makes it one, whatever its version.
pub(super) const MAGIC: usize = 6;

/// Bytes of a frame beside its entry.
const FRAME: usize = 8;

/// An entry is shorter: an outcome with all its values, texts and addresses.
pub(super) const MAX_ENTRY: usize = 16 << 10;

/// So far behind a damaged one the next sound one is looked for.
const WINDOW: usize = 2 * (MAX_ENTRY + FRAME);

const ACCEPTED: u8 = 1;
const ENDED: u8 = 2;
const TOLD: u8 = 3;
const LEFT: u8 = 4;

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::command) enum Entry {
    /// A command will be handed to its device.
    Accepted {
        /// When.
        at: Timestamp,
        /// Whether the sender gave the id, so that a second one may come.
        named: bool,
        /// What is told of it if nothing more is known at the next start.
        unknown: Outcome,
    },
    /// What became of a command that was accepted.
    Ended(Outcome),
    /// The queue keeps the outcome of this command.
    Told(CommandId),
    /// At a clean stop: how an output was left.
    Left(Left),
}

/// How an output was left at a clean stop.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::command) struct Left {
    pub(in crate::command) key: PointKey,
    /// The value that it has, where that is known.
    pub(in crate::command) value: Option<Value>,
    /// Since when it is on, or at its safe value, by `CLOCK_BOOTTIME`.
    pub(in crate::command) since: Duration,
    /// When its lease ends.
    pub(in crate::command) until: Option<Duration>,
    pub(in crate::command) boot: BootId,
}

impl Entry {
    /// Appends the entry in its frame.
    pub(in crate::command) fn frame(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME]);
        match self {
            Entry::Accepted { at, named, unknown } => {
                out.push(ACCEPTED);
                put_timestamp(out, at);
                out.push(u8::from(*named));
                Body::Outcome(unknown.clone()).encode(out);
            }
            Entry::Ended(outcome) => {
                out.push(ENDED);
                Body::Outcome(outcome.clone()).encode(out);
            }
            Entry::Told(id) => {
                out.push(TOLD);
                out.extend_from_slice(id.as_str().as_bytes());
            }
            Entry::Left(left) => {
                out.push(LEFT);
                out.extend_from_slice(&left.boot.0.to_le_bytes());
                put_time(out, left.since);
                put_time(out, left.until.unwrap_or(Duration::MAX));
                Body::Reading(left.reading()).encode(out);
            }
        }
        let length = u32::try_from(out.len() - start - FRAME).unwrap_or(u32::MAX);
        out.splice(start + 4..start + FRAME, length.to_le_bytes());
        let crc = CRC_32.checksum(out.get(start + 4..).unwrap_or_default());
        out.splice(start..start + 4, crc.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Entry> {
        let (kind, rest) = bytes.split_first()?;
        match *kind {
            ACCEPTED => {
                let (at, rest) = timestamp(rest)?;
                let (named, rest) = rest.split_first()?;
                Some(Entry::Accepted { at, named: *named == 1, unknown: outcome(rest)? })
            }
            ENDED => outcome(rest).map(Entry::Ended),
            TOLD => CommandId::new(std::str::from_utf8(rest).ok()?).map(Entry::Told),
            LEFT => {
                let (boot, rest) = rest.split_first_chunk()?;
                let (since, rest) = time(rest)?;
                let (until, rest) = time(rest)?;
                let Ok(Body::Reading(reading)) = Body::decode(rest) else { return None };
                Some(Entry::Left(Left {
                    key: reading.key(),
                    value: reading.value,
                    since,
                    until: Some(until).filter(|until| *until < FOR_EVER),
                    boot: BootId(u128::from_le_bytes(*boot)),
                }))
            }
            _ => None,
        }
    }
}

impl Left {
    fn reading(&self) -> Reading {
        Reading {
            device: self.key.0.clone(),
            point: self.key.1.clone(),
            timestamp: Timestamp { uptime: self.since, wall: Duration::ZERO, synced: true, boot: BootId::UNKNOWN },
            value: self.value.clone(),
            unit: None,
            quality: Quality::Good,
            cause: None,
        }
    }
}

/// The entries of a file without its head, and how many of them are damaged. What is cut off at the end is no damage.
pub(super) fn read(bytes: &[u8]) -> (Vec<Entry>, usize) {
    let (mut entries, mut damaged, mut at) = (Vec::new(), 0, 0);
    loop {
        if let Some((entry, length)) = frame_at(bytes, at) {
            entries.push(entry);
            at += FRAME + length;
        } else if let Some(next) = (at + 1..bytes.len().min(at + WINDOW)).find(|at| frame_at(bytes, *at).is_some()) {
            // Its length may be what is damaged, so nobody knows where it ends.
            damaged += 1;
            at = next;
        } else {
            // The end; or the last one was torn, and never was durable.
            return (entries, damaged);
        }
    }
}

/// The sound frame there: its entry and the entry's length.
fn frame_at(bytes: &[u8], at: usize) -> Option<(Entry, usize)> {
    let word = |from: usize| bytes.get(from..from + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (crc, length) = (word(at)?, usize::try_from(word(at + 4)?).ok()?);
    if length == 0 || length > MAX_ENTRY {
        return None;
    }
    let covered = bytes.get(at + 4..at + FRAME + length)?;
    let entry = (CRC_32.checksum(covered) == crc).then(|| covered.get(4..).and_then(Entry::decode))?;
    Some((entry?, length))
}

fn outcome(bytes: &[u8]) -> Option<Outcome> {
    match Body::decode(bytes) {
        Ok(Body::Outcome(outcome)) => Some(outcome),
        _ => None,
    }
}

/// No `CLOCK_BOOTTIME` reaches it, and 64 bits of nanoseconds hold it.
const FOR_EVER: Duration = Duration::from_nanos(u64::MAX);

fn put_time(out: &mut Vec<u8>, time: Duration) {
    out.extend_from_slice(&u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
}

fn time(bytes: &[u8]) -> Option<(Duration, &[u8])> {
    let (nanos, rest) = bytes.split_first_chunk()?;
    Some((Duration::from_nanos(u64::from_le_bytes(*nanos)), rest))
}

fn put_timestamp(out: &mut Vec<u8>, at: &Timestamp) {
    put_time(out, at.uptime);
    put_time(out, at.wall);
    out.push(u8::from(at.synced));
    out.extend_from_slice(&at.boot.0.to_le_bytes());
}

fn timestamp(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (uptime, rest) = time(bytes)?;
    let (wall, rest) = time(rest)?;
    let (synced, rest) = rest.split_first()?;
    let (boot, rest) = rest.split_first_chunk()?;
    let boot = BootId(u128::from_le_bytes(*boot));
    Some((Timestamp { uptime, wall, synced: *synced == 1, boot }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DeviceName, PointName, Verdict};

    fn entries() -> Vec<Entry> {
        let at = Timestamp {
            uptime: Duration::from_nanos(12_345_678_901),
            wall: Duration::from_secs(1_795_341_600),
            synced: false,
            boot: BootId(7),
        };
        let outcome = Outcome {
            id: CommandId::new("c-1").unwrap(),
            device: "tank".to_owned(),
            point: Some("valve".to_owned()),
            verdict: Verdict::Unknown,
            text: Some("restarted".to_owned()),
            values: vec![(PointName::new("valve").unwrap(), Value::Int(40))],
            timestamp: Timestamp { uptime: Duration::from_millis(5), ..at },
            reply: None,
        };
        let key = PointKey(DeviceName::new("tank").unwrap(), PointName::new("valve").unwrap());
        let left = |until: Option<Duration>| Left {
            key: key.clone(),
            value: until.map(|_| Value::Int(40)),
            since: at.uptime,
            until,
            boot: BootId(7),
        };
        vec![
            Entry::Accepted { at, named: true, unknown: outcome.clone() },
            Entry::Ended(Outcome { verdict: Verdict::Done, ..outcome }),
            Entry::Told(CommandId::new("c-1").unwrap()),
            Entry::Left(left(Some(Duration::from_secs(99)))),
            Entry::Left(left(None)),
        ]
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = Vec::new();
        entries().iter().for_each(|entry| entry.frame(&mut bytes));
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&bytes()), (entries(), 0));
    }

    #[test]
    fn a_cut_at_any_place_loses_only_what_is_behind_it() {
        let whole = bytes();
        for cut in 0..whole.len() {
            let (found, damaged) = read(&whole[..cut]);
            assert_eq!((found.as_slice(), damaged), (&entries()[..found.len()], 0), "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_loses_one_entry_and_says_so() {
        let whole = bytes();
        let mut last = Vec::new();
        entries().last().unwrap().frame(&mut last);
        for place in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[place / 8] ^= 1 << (place % 8);
            let (found, count) = read(&damaged);
            assert_eq!(found.len(), entries().len() - 1, "bit {place}");
            assert!(found.iter().all(|entry| entries().contains(entry)), "bit {place}");
            // The last one may as well have been torn.
            assert!(count == 1 || place / 8 >= whole.len() - last.len(), "bit {place}");
        }
    }
}
