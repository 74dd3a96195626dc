//! Reading the frames of a segment, and finding out what is damaged.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use super::format::{self, FRAMES, Parsed, Seal, frame_size};
use crate::disk::Disk;
use crate::model::{Body, Number};

/// What is read at once: cheap in memory, and enough for the fastest line.
const CHUNK: usize = 64 << 10;

/// Where a walk through a segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Place {
    /// The segment.
    pub(in crate::queue) id: u64,
    /// The next byte to look at.
    pub(in crate::queue) offset: u32,
    /// What the next frame's ordinal should be.
    ordinal: u32,
    /// The last number that was read in this segment.
    last: Option<Number>,
}

/// Payloads, in the order of their numbers.
#[derive(Debug, Default)]
pub(in crate::queue) struct Chunk {
    bytes: Vec<u8>,
    frames: VecDeque<Found>,
}

#[derive(Debug)]
struct Found {
    number: Number,
    ordinal: u32,
    payload: Range<usize>,
}

/// Frames that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::queue) struct Damage {
    /// The segment.
    pub(in crate::queue) id: u64,
    /// The ordinal of the first one.
    pub(in crate::queue) ordinal: u32,
    /// How many.
    pub(in crate::queue) count: u32,
    /// The good frames around them; `None`: there is none in the segment.
    pub(in crate::queue) around: (Option<Number>, Option<Number>),
}

impl Place {
    pub(in crate::queue) fn start_of(id: u64) -> Self {
        Place { id, offset: FRAMES, ordinal: 0, last: None }
    }
}

impl Chunk {
    pub(in crate::queue) fn front(&self) -> Option<(Number, &[u8])> {
        let found = self.frames.front()?;
        Some((found.number, self.bytes.get(found.payload.clone())?))
    }

    pub(in crate::queue) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(in crate::queue) fn iter(&self) -> impl Iterator<Item = (Number, &[u8])> {
        self.frames.iter().filter_map(|found| Some((found.number, self.bytes.get(found.payload.clone())?)))
    }

    /// Frees what frames before this number take in the list.
    pub(in crate::queue) fn skip_to(&mut self, number: Number) {
        while self.frames.front().is_some_and(|found| found.number < number) {
            self.frames.pop_front();
        }
    }
}

/// Reads the next frames of a segment of which this is known. An empty chunk: it is through.
///
/// # Errors
/// When the file can't be read.
pub(super) fn read(
    disk: &mut dyn Disk,
    file: &str,
    place: &mut Place,
    known: &Seal,
) -> io::Result<(Chunk, Vec<Damage>)> {
    let mut damages = Vec::new();
    let mut want = CHUNK;
    while place.offset < known.end {
        let left = usize::try_from(known.end - place.offset).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(want)];
        let read = disk.read(file, u64::from(place.offset), &mut bytes)?;
        bytes.truncate(read);
        let mut chunk = Chunk { bytes, frames: VecDeque::new() };
        let before = place.offset;
        let stopped = advance(place, &mut chunk);
        if !chunk.frames.is_empty() {
            return Ok((chunk, damages));
        }
        match stopped {
            // A frame that is longer than a chunk, and all there.
            Parsed::Short(size) if size <= left && read == want.min(left) => want = want.max(size),
            _ if place.offset > before => {}
            _ => damages.extend(skip(disk, file, place, Some(known))?),
        }
    }
    // A file that was cut short has lost its end.
    if place.ordinal < known.count {
        let (ordinal, count) = (place.ordinal, known.count - place.ordinal);
        damages.push(Damage { id: place.id, ordinal, count, around: (place.last, None) });
        place.ordinal = known.count;
    }
    Ok((Chunk::default(), damages))
}

/// Takes the frames at the beginning of the chunk; what ended it.
fn advance(place: &mut Place, chunk: &mut Chunk) -> Parsed<'static> {
    let mut at = 0;
    loop {
        match format::parse(place.id, chunk.bytes.get(at..).unwrap_or_default()) {
            Parsed::Frame(frame) if frame.ordinal == place.ordinal => {
                let start = at + format::FRAME_HEAD;
                let length = frame.payload.len();
                // What does not rise is a copy that a failed write left behind.
                if place.last.is_none_or(|last| last < frame.number) {
                    place.last = Some(frame.number);
                    let (number, ordinal) = (frame.number, frame.ordinal);
                    chunk.frames.push_back(Found { number, ordinal, payload: start..start + length });
                }
                at += frame_size(length);
                place.offset += u32::try_from(frame_size(length)).unwrap_or(u32::MAX);
                place.ordinal += 1;
            }
            Parsed::Short(size) => return Parsed::Short(size),
            _ => return Parsed::Bad,
        }
    }
}

/// Goes over what is no frame, to the next one or to the end.
fn skip(disk: &mut dyn Disk, file: &str, place: &mut Place, known: Option<&Seal>) -> io::Result<Option<Damage>> {
    let end = match known {
        Some(known) => known.end,
        None => u32::try_from(disk.size(file)?).unwrap_or(u32::MAX),
    };
    let mut rest = vec![0; usize::try_from(end.saturating_sub(place.offset)).unwrap_or(usize::MAX)];
    let read = disk.read(file, u64::from(place.offset), &mut rest)?;
    rest.truncate(read);
    let Some((at, frame)) = format::find(place.id, &rest, place.ordinal) else {
        // Nothing behind it: a torn tail, or, in a segment that was full, damage to its end, which the caller counts.
        place.offset = end;
        return Ok(None);
    };
    let (ordinal, count) = (place.ordinal, frame.ordinal - place.ordinal);
    place.offset += u32::try_from(at).unwrap_or(u32::MAX);
    place.ordinal = frame.ordinal;
    let damage = Damage { id: place.id, ordinal, count, around: (place.last, Some(frame.number)) };
    Ok((count > 0).then_some(damage))
}

/// Finds out what is in a segment that was not sealed: reads all of it. `None`: nothing. Numbers from `bound` on stand
/// in a later segment, so what is here of them was never promised.
///
/// # Errors
/// When the file can't be read.
pub(super) fn survey(
    disk: &mut dyn Disk,
    file: &str,
    id: u64,
    bound: Option<Number>,
    cut_at_damage: bool,
) -> io::Result<Option<Seal>> {
    let mut place = Place::start_of(id);
    let mut found: Option<Seal> = None;
    let mut dated = true;
    let size = u32::try_from(disk.size(file)?).unwrap_or(u32::MAX);
    let mut want = CHUNK;
    while place.offset < size {
        let left = usize::try_from(size - place.offset).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(want)];
        let read = disk.read(file, u64::from(place.offset), &mut bytes)?;
        bytes.truncate(read);
        let mut chunk = Chunk { bytes, frames: VecDeque::new() };
        let base = place.offset;
        let stopped = advance(&mut place, &mut chunk);
        for frame in &chunk.frames {
            if bound.is_some_and(|bound| frame.number >= bound) {
                return Ok(found.map(|seal| Seal { newest: if dated { seal.newest } else { 0 }, ..seal }));
            }
            let payload = chunk.bytes.get(frame.payload.clone()).unwrap_or_default();
            let date = Body::decode_timestamp(payload).ok().filter(|at| at.synced).map(|at| at.wall.as_millis());
            dated &= date.is_some();
            let newest = date.and_then(|date| u64::try_from(date).ok()).unwrap_or_default();
            let end = base + u32::try_from(frame.payload.end.next_multiple_of(4)).unwrap_or(u32::MAX);
            let seal = found.get_or_insert(Seal { end, count: 0, first: frame.number, last: frame.number, newest });
            (seal.end, seal.count, seal.last) = (end, frame.ordinal + 1, frame.number);
            seal.newest = seal.newest.max(newest);
        }
        match stopped {
            Parsed::Short(size) if size <= left && read == want.min(left) => want = want.max(size),
            _ if place.offset > base => {}
            _ if cut_at_damage => break,
            _ => _ = skip(disk, file, &mut place, None)?,
        }
    }
    Ok(found.map(|seal| Seal { newest: if dated { seal.newest } else { 0 }, ..seal }))
}
