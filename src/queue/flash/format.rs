//! What a segment looks like. Pure functions on bytes.
//!
//! A segment is a file `<id>.seg` (16 hex digits; the start counter and a count, so that none comes twice) of a fixed
//! size. All numbers are little-endian.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 64 | header: magic `SLUICESG`, version (u32), CRC-32 (u32), id (u64), a number that none in it is less than (epoch, seq: 2 × u64), zeros |
//! | 64 | 64 | seal, once the segment is full, or at a clean stop: CRC-32 (u32), end (u32), count (u32), zero (u32), first and last number (epoch, seq: 4 × u64), newest date (u64, ms since 1970; 0: not known), zeros |
//! | 128 | … | frames, one behind the other, each at a multiple of 4 |
//!
//! A frame is CRC-32 (u32), length (u32), ordinal (u32), epoch and seq (48 bits each), and `length` bytes of payload. The
//! ordinal counts the frames of the segment from 0, so that the number of damaged frames between two good ones is known
//! exactly. Every CRC begins with the segment's id: a segment is recycled by renaming it, and what an earlier life left
//! in it is no frame of the new one.
//!
//! *Invariants.* Numbers rise from frame to frame and from segment to segment. The file's name is the truth about its
//! id; header and seal only save time, and a damaged one loses nothing. What has no valid frame behind it is not there
//! (a torn tail); what has is damaged, and is counted.

use crate::disk::CRC_32;
use crate::model::Number;

/// The version of the format that this code writes.
pub(super) const VERSION: u32 = 1;

/// Where the frames begin.
pub(super) const FRAMES: u32 = 128;

/// Bytes of a frame before its payload.
pub(super) const FRAME_HEAD: usize = 24;

/// A record larger than this is no message for MQTT: rumqttc's own limit here is 256 KiB a packet.
pub(in crate::queue) const MAX_PAYLOAD: usize = 512 << 10;

/// A file that is whole, and of this version, which only a later sluicegate writes. It is not to be touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Later(pub(super) u32);

const SEAL: usize = 64;
const MAGIC: &[u8; 8] = b"SLUICESG";

/// What is known of a segment without reading its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Seal {
    /// Behind the last frame.
    pub(in crate::queue) end: u32,
    /// Frames, damaged ones included.
    pub(in crate::queue) count: u32,
    pub(in crate::queue) first: Number,
    pub(in crate::queue) last: Number,
    /// The date of its newest record, in milliseconds since 1970; 0 where one of them has none.
    pub(in crate::queue) newest: u64,
}

/// What the first 128 bytes of a file say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Written by a newer version of this program: not to be touched.
    Newer,
    /// Full, and this is in it.
    Sealed(Seal),
    /// To be read frame by frame. Its first number is not less than this.
    Open(Option<Number>),
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) ordinal: u32,
    pub(super) number: Number,
    pub(super) payload: &'a [u8],
}

/// What stands at the beginning of some bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    Frame(Frame<'a>),
    /// So many bytes would be needed to tell.
    Short(usize),
    /// No frame of this segment.
    Bad,
}

/// The header of a new segment, with room for its seal.
pub(super) fn head(id: u64, first: Number) -> [u8; FRAMES as usize] {
    let mut bytes = [0; FRAMES as usize];
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, 8, &VERSION.to_le_bytes());
    put(&mut bytes, 16, &id.to_le_bytes());
    put(&mut bytes, 24, &first.epoch.to_le_bytes());
    put(&mut bytes, 32, &first.seq.to_le_bytes());
    let crc = head_crc(&bytes);
    put(&mut bytes, 12, &crc.to_le_bytes());
    bytes
}

fn head_crc(bytes: &[u8]) -> u32 {
    crc(&[bytes.get(..12).unwrap_or_default(), bytes.get(16..SEAL).unwrap_or_default()])
}

/// Reads the first bytes of the segment of this name.
pub(super) fn read_head(id: u64, bytes: &[u8]) -> Head {
    let good = bytes.get(..8) == Some(MAGIC) && u32_at(bytes, 12) == Some(head_crc(bytes));
    if good && u32_at(bytes, 8) > Some(VERSION) {
        return Head::Newer;
    }
    let first = || Some(Number { epoch: u64_at(bytes, 24)?, seq: u64_at(bytes, 32)? });
    let first = if good { first().filter(|first| is_number(*first)) } else { None };
    bytes.get(SEAL..).and_then(|bytes| read_seal(id, bytes)).map_or(Head::Open(first), Head::Sealed)
}

/// The seal, and where it is written.
pub(super) fn seal(id: u64, seal: &Seal) -> (u64, [u8; SEAL]) {
    let mut bytes = [0; SEAL];
    put(&mut bytes, 4, &seal.end.to_le_bytes());
    put(&mut bytes, 8, &seal.count.to_le_bytes());
    for (place, number) in [seal.first.epoch, seal.first.seq, seal.last.epoch, seal.last.seq].iter().enumerate() {
        put(&mut bytes, 16 + 8 * place, &number.to_le_bytes());
    }
    put(&mut bytes, 48, &seal.newest.to_le_bytes());
    let crc = crc_of(id, bytes.get(4..).unwrap_or_default());
    put(&mut bytes, 0, &crc.to_le_bytes());
    (SEAL as u64, bytes)
}

/// What stands in place of a seal that is not right any more.
pub(super) fn no_seal() -> (u64, [u8; SEAL]) {
    (SEAL as u64, [0; SEAL])
}

fn read_seal(id: u64, bytes: &[u8]) -> Option<Seal> {
    let bytes = bytes.get(..SEAL)?;
    if u32_at(bytes, 0)? != crc_of(id, bytes.get(4..)?) {
        return None;
    }
    let number = |at| Some(Number { epoch: u64_at(bytes, at)?, seq: u64_at(bytes, at + 8)? });
    let seal = Seal {
        end: u32_at(bytes, 4)?,
        count: u32_at(bytes, 8)?,
        first: number(16)?,
        last: number(32)?,
        newest: u64_at(bytes, 48)?,
    };
    (seal.count > 0 && seal.first <= seal.last && is_number(seal.first) && is_number(seal.last)).then_some(seal)
}

/// Whether this can be a record's number: the epoch has 48 bits, and no board lives to count 2^48 records. What counts
/// on from a number then never overflows.
pub(super) fn is_number(number: Number) -> bool {
    number.epoch < 1 << 48 && (1..1 << 48).contains(&number.seq)
}

/// Appends a frame.
pub(super) fn put_frame(out: &mut Vec<u8>, id: u64, ordinal: u32, number: Number, payload: &[u8]) {
    let start = out.len();
    let length = u32::try_from(payload.len()).expect("a payload is at most MAX_PAYLOAD long");
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&ordinal.to_le_bytes());
    out.extend_from_slice(&u48(number.epoch));
    out.extend_from_slice(&u48(number.seq));
    out.extend_from_slice(payload);
    let crc = crc_of(id, out.get(start + 4..).unwrap_or_default());
    put(out, start, &crc.to_le_bytes());
    out.resize(start + frame_size(payload.len()), 0);
}

/// Bytes that a payload of this length takes in a segment.
pub(super) fn frame_size(length: usize) -> usize {
    (FRAME_HEAD + length).next_multiple_of(4)
}

/// Reads the frame at the beginning of `bytes`.
pub(super) fn parse(id: u64, bytes: &[u8]) -> Parsed<'_> {
    let Some(head) = bytes.get(..FRAME_HEAD) else { return Parsed::Short(FRAME_HEAD) };
    let field = |at| u32_at(head, at).unwrap_or_default();
    let length = usize::try_from(field(4)).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        return Parsed::Bad;
    }
    let Some(covered) = bytes.get(4..FRAME_HEAD + length) else { return Parsed::Short(frame_size(length)) };
    if crc_of(id, covered) != field(0) {
        return Parsed::Bad;
    }
    let number = Number { epoch: u48_at(head, 12).unwrap_or_default(), seq: u48_at(head, 18).unwrap_or_default() };
    let payload = bytes.get(FRAME_HEAD..FRAME_HEAD + length).unwrap_or_default();
    if is_number(number) { Parsed::Frame(Frame { ordinal: field(8), number, payload }) } else { Parsed::Bad }
}

/// Looks for the next frame behind damage, in all that is left of the segment. The frame has a greater ordinal than
/// those that were read: `next` is the least it can have.
pub(super) fn find(id: u64, bytes: &[u8], next: u32) -> Option<(usize, Frame<'_>)> {
    let mut at = 4;
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= FRAME_HEAD) {
        // So many frames fit into what was skipped. Most places fail here, so that few checksums are computed.
        let most = u32::try_from(at / FRAME_HEAD).unwrap_or(u32::MAX);
        if u32_at(rest, 8).and_then(|ordinal| ordinal.checked_sub(next)).is_some_and(|skipped| skipped <= most)
            && let Parsed::Frame(frame) = parse(id, rest)
        {
            return Some((at, frame));
        }
        at += 4;
    }
    None
}

fn crc_of(id: u64, bytes: &[u8]) -> u32 {
    crc(&[&id.to_le_bytes(), bytes])
}

/// CRC-32 (IEEE) of these bytes one after the other. The fuzzer knows how to write 0.
pub(super) fn crc(bytes: &[&[u8]]) -> u32 {
    if cfg!(fuzzing) {
        return 0;
    }
    let mut crc = CRC_32.digest();
    bytes.iter().for_each(|bytes| crc.update(bytes));
    crc.finalize()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u48(number: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, ..] = number.to_le_bytes();
    [a, b, c, d, e, f]
}

fn u48_at(bytes: &[u8], at: usize) -> Option<u64> {
    let &[a, b, c, d, e, f] = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
