//! The gaps that were not acknowledged yet, on flash.
//!
//! Two files, `gaps.0` and `gaps.1`, written by turns, each with all of them: CRC-32 (u32) of the rest, version (u32),
//! serial (u64: the greater one counts), the count (u32), and each gap as its length (u32) and [`Gap::encode`].
//! Little-endian. In every version the checksum covers as much, so that an earlier one knows a later one's file.
//!
//! Where one of them is of a later version both are left to it, and `gaps-1.0` and `gaps-1.1` stand in for them: of
//! version 1, so that each version has its own. Once the others can be read, those are read as well, and removed.

use super::format::{Later, crc, u32_at, u64_at};
use crate::model::Gap;

const VERSION: u32 = 1;
const HEAD: usize = 20;

/// Gaps that fit: far more than kinds of losses there are, and bounded all the same.
pub(in crate::queue) const MOST: usize = 4096;

/// Bytes of a file that are there from the beginning: for some hundred gaps.
pub(super) const ROOM: u64 = 8192;

/// Two files that are written by turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pair {
    /// The ledger.
    Main,
    /// What stands in for it while a later version has it.
    Beside,
}

impl Pair {
    /// The file that this serial is written to.
    pub(super) fn file(self, serial: u64) -> &'static str {
        match (self, serial.is_multiple_of(2)) {
            (Pair::Main, true) => "gaps.0",
            (Pair::Main, false) => "gaps.1",
            (Pair::Beside, true) => "gaps-1.0",
            (Pair::Beside, false) => "gaps-1.1",
        }
    }
}

/// The content of a file.
pub(in crate::queue) fn encode<'a>(serial: u64, gaps: impl Iterator<Item = &'a Gap>) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&serial.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    let mut count: u32 = 0;
    let mut one = Vec::new();
    for gap in gaps {
        one.clear();
        gap.encode(&mut one);
        bytes.extend_from_slice(&u32::try_from(one.len()).unwrap_or_default().to_le_bytes());
        bytes.extend_from_slice(&one);
        count += 1;
    }
    bytes.splice(HEAD - 4..HEAD, count.to_le_bytes());
    let crc = crc(&[bytes.get(4..).unwrap_or_default()]);
    bytes.splice(..4, crc.to_le_bytes());
    bytes
}

/// Serial and gaps of a file that is whole. What an earlier, longer content left behind the end counts for nothing.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(u64, Vec<Gap>)>, Later> {
    let Some(gaps) = whole(bytes) else { return Ok(None) };
    match u32_at(bytes, 4) {
        Some(version) if version > VERSION => Err(Later(version)),
        Some(VERSION) if gaps.len() <= MOST => {
            let gaps = gaps.into_iter().map(Gap::decode).collect::<Result<_, _>>().ok();
            Ok(u64_at(bytes, 8).zip(gaps))
        }
        _ => Ok(None),
    }
}

/// The gaps of a file whose checksum is right.
fn whole(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let count = u32_at(bytes, HEAD - 4)?;
    let mut at = HEAD;
    let mut gaps = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(u32_at(bytes, at)?).ok()?;
        gaps.push(bytes.get(at + 4..at.checked_add(4)?.checked_add(length)?)?);
        at += 4 + length;
    }
    (u32_at(bytes, 0)? == crc(&[bytes.get(4..at)?])).then_some(gaps)
}
