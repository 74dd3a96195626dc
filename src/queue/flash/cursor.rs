//! What of a lane's log came to its end: a small file with two slots, written by turns.
//!
//! Written lazily, so after a crash some records go out again that had been acknowledged. A slot is a CRC-32 (u32) of
//! the rest, version (u32), serial (u64: the greater one counts), the highest number that is settled (epoch, seq), a
//! byte of [`Cursor::ram`], one of [`Cursor::always`], two zeros, the count of ranges (u32), and each range as epoch,
//! first, last (u64), records (u32). Little-endian.
//!
//! In every version checksum, version and count have these places, and the checksum reaches over 28 bytes for each that
//! is counted. So an earlier version can tell a later one's slot from a damaged one, and leaves the file to it.

use super::format::{Later, crc, is_number, u32_at, u64_at};
use crate::model::Number;
use crate::queue::ranges::Range;

/// The slots are a page apart, so that a torn page leaves the other one.
pub(super) const SLOT: u64 = 4096;

/// Ranges that are kept: the largest ones. What is in none is sent again after a crash.
const MOST: usize = 64;

const VERSION: u32 = 1;
const HEAD: usize = 40;
const RANGE: usize = 28;

/// What is known of a lane beside its segments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::queue) struct Cursor {
    pub(in crate::queue) serial: u64,
    /// Every number up to this one is in a segment, or came to its end.
    pub(in crate::queue) high: Number,
    /// Records may have been in RAM only although the lane's are kept on flash: the flash failed.
    pub(in crate::queue) ram: bool,
    /// The lane's records were on flash before anybody was told that they were taken.
    pub(in crate::queue) always: bool,
    pub(in crate::queue) ranges: Vec<Range>,
}

impl Cursor {
    /// Its slot, and where that is written.
    pub(super) fn encode(&self) -> (u64, Vec<u8>) {
        let mut ranges: Vec<&Range> = self.ranges.iter().collect();
        ranges.sort_by_key(|range| std::cmp::Reverse(range.records));
        ranges.truncate(MOST);
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.serial, self.high.epoch, self.high.seq] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&[u8::from(self.ram), u8::from(self.always), 0, 0]);
        bytes.extend_from_slice(&u32::try_from(ranges.len()).unwrap_or_default().to_le_bytes());
        for Range { first, last, records } in ranges {
            for number in [first.epoch, first.seq, *last] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&records.to_le_bytes());
        }
        let crc = crc(&[bytes.get(4..).unwrap_or_default()]);
        bytes.splice(..4, crc.to_le_bytes());
        ((self.serial % 2) * SLOT, bytes)
    }

    /// The newer one of the slots that are whole.
    pub(super) fn decode(file: &[u8]) -> Result<Option<Cursor>, Later> {
        let mut newest: Option<Cursor> = None;
        for bytes in file.chunks(usize::try_from(SLOT).unwrap_or(usize::MAX)).filter_map(whole) {
            match u32_at(bytes, 4) {
                Some(version) if version > VERSION => return Err(Later(version)),
                Some(VERSION) => newest = newest.into_iter().chain(decode_slot(bytes)).max_by_key(|of| of.serial),
                _ => {}
            }
        }
        Ok(newest)
    }
}

/// What the checksum of a slot covers, with itself, if it is right.
fn whole(slot: &[u8]) -> Option<&[u8]> {
    let count = usize::try_from(u32_at(slot, HEAD - 4)?).ok()?;
    let bytes = slot.get(..count.checked_mul(RANGE)?.checked_add(HEAD)?)?;
    (u32_at(bytes, 0)? == crc(&[bytes.get(4..)?])).then_some(bytes)
}

fn decode_slot(bytes: &[u8]) -> Option<Cursor> {
    let count = usize::try_from(u32_at(bytes, HEAD - 4)?).ok().filter(|count| *count <= MOST)?;
    let range = |at| {
        let first = Number { epoch: u64_at(bytes, at)?, seq: u64_at(bytes, at + 8)? };
        let (last, records) = (u64_at(bytes, at + 16)?, u32_at(bytes, at + 24)?);
        let width = last.checked_sub(first.seq)?.checked_add(1)?;
        let good = u64::from(records) <= width && is_number(first) && is_number(Number { seq: last, ..first });
        good.then_some(Range { first, last, records })
    };
    let high = Number { epoch: u64_at(bytes, 16)?, seq: u64_at(bytes, 24)? };
    // 0: of no number yet.
    (high.seq == 0 || is_number(high)).then_some(())?;
    Some(Cursor {
        serial: u64_at(bytes, 8)?,
        high,
        ram: bytes.get(32) == Some(&1),
        always: bytes.get(33) == Some(&1),
        ranges: (0..count).map(|place| range(HEAD + place * RANGE)).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_newer_slot_counts_and_a_damaged_one_leaves_the_other() {
        let number = |seq| Number { epoch: 5 << 16, seq };
        let range = |first, last| Range { first: number(first), last, records: 2 };
        let old = Cursor { serial: 4, high: number(9), ram: true, always: false, ranges: vec![range(1, 7)] };
        let new =
            Cursor { serial: 5, high: number(20), ram: false, always: true, ranges: vec![range(1, 9), range(11, 12)] };
        let mut file = vec![0; 2 * usize::try_from(SLOT).unwrap()];
        for cursor in [&old, &new] {
            let (at, bytes) = cursor.encode();
            let at = usize::try_from(at).unwrap();
            file[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(Cursor::decode(&file), Ok(Some(new)));
        file[usize::try_from(SLOT).unwrap() + 20] ^= 1;
        assert_eq!(Cursor::decode(&file), Ok(Some(old)));
        assert_eq!(Cursor::decode(&file[..30]), Ok(None));
    }

    #[test]
    fn one_slot_of_a_later_version_is_enough() {
        let mut file = vec![0; 2 * usize::try_from(SLOT).unwrap()];
        for serial in [8, 9] {
            let (at, mut bytes) = Cursor { serial, ..Cursor::default() }.encode();
            if serial == 8 {
                bytes[4] = 3;
                let crc = crc(&[&bytes[4..]]);
                bytes[..4].copy_from_slice(&crc.to_le_bytes());
            }
            let at = usize::try_from(at).unwrap();
            file[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        assert_eq!(Cursor::decode(&file), Err(Later(3)));
        // Damage makes nothing of a later version.
        file[4] = 2;
        assert_eq!(Cursor::decode(&file).unwrap().unwrap().serial, 9);
    }

    #[test]
    fn only_the_largest_ranges_are_kept() {
        let range = |place: u64| {
            let first = Number { epoch: 1, seq: place * 1000 };
            Range { first, last: first.seq + place, records: u32::try_from(place).unwrap() + 1 }
        };
        let cursor = Cursor { ranges: (0..100).map(range).collect(), ..Cursor::default() };
        let (_, bytes) = cursor.encode();
        let read = Cursor::decode(&bytes).unwrap().unwrap();
        assert_eq!(read.ranges.len(), MOST);
        assert_eq!(read.ranges.iter().map(|range| range.records).min(), Some(37));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            _ = Cursor::decode(&bytes);
        }
    }
}
