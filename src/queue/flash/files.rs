//! The files of one lane.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use super::cursor::{Cursor, SLOT};
use super::format::{self, FRAMES, Head, Later, Seal, frame_size};
use super::walk::{self, Chunk, Damage, Place};
use super::{Bug, keeper};
use crate::disk::Disk;
use crate::model::{Body, Lane, Number};
use crate::queue::LaneConfig;
use crate::queue::lane::{Batch, Log, Segment};

/// A lane has at least so many segments, so that dropping the oldest is never most of it.
const SEGMENTS: u64 = 16;

/// Segments are not larger: what is written anew after an outage, and read at once when one is damaged.
const LARGEST: u64 = 1 << 20;

/// Nor smaller: a page of flash.
const SMALLEST: u64 = 4096;

/// Zeros are written in pieces of this size.
const PIECE: usize = 64 << 10;

/// A segment that was used before and may be used again.
const SPARE: &str = "spare";

/// The files of a lane, and the segment that is being filled.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) lane: Lane,
    folder: String,
    /// Bytes of a segment.
    pub(super) size: u64,
    active: Option<Active>,
    next_id: u64,
    /// Bytes of the spare segment.
    spare: Option<u64>,
    pub(super) cursor: Cursor,
    /// Segments that a later version wrote. They are left to it.
    pub(super) later: Vec<u64>,
    /// So is the whole lane, if its cursor is of a later version.
    pub(super) left: bool,
}

/// The segment that is being filled.
#[derive(Debug, Clone, Copy)]
struct Active {
    id: u64,
    size: u64,
    seal: Seal,
    /// All of its records have a date.
    dated: bool,
    /// It has a seal from a stop, which what comes now makes wrong.
    sealed: bool,
}

/// What a segment turned out to be.
#[derive(Debug)]
enum Is {
    /// Of a newer version.
    Newer,
    /// There are records in it. Without its head nobody knows from where on their numbers were.
    Full { seal: Seal, size: u64, has_head: bool },
    /// Nothing of this queue is in it.
    Empty { size: u64 },
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// There is no room: a segment may be dropped for it.
    #[error("the file system is full, but for what keep_free leaves to others")]
    Full,
    /// The flash would not.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => WriteError::Full,
            _ => WriteError::Io(error),
        }
    }
}

/// A lane is so many segments, that can be dropped one by one.
fn segment_size(config: &LaneConfig) -> u64 {
    (config.max_bytes.0 / SEGMENTS).clamp(SMALLEST, LARGEST) / SMALLEST * SMALLEST
}

impl Files {
    pub(super) fn new(lane: Lane, config: &LaneConfig) -> Self {
        let (size, cursor) = (segment_size(config), Cursor::default());
        let (folder, later) = (lane.to_string(), Vec::new());
        Files { lane, folder, size, active: None, next_id: 1, spare: None, cursor, later, left: false }
    }

    /// The lane has other bounds: so large are the next segments.
    pub(super) fn resize(&mut self, config: &LaneConfig) {
        self.size = segment_size(config);
    }

    pub(super) fn name(&self, id: u64) -> String {
        format!("{}/{id:016x}.seg", self.folder)
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// Looks through the folder. What can only be read is read; what has to be written for that is tried and not
    /// insisted on.
    ///
    /// # Errors
    /// When the folder can't be used, or its cursor is of a later version: without it nobody knows what of the segments
    /// has come to its end, and nothing here is touched.
    pub(super) fn open(&mut self, disk: &mut dyn Disk, bug: Option<Bug>) -> io::Result<VecDeque<Segment>> {
        let mut ids = Vec::new();
        let mut foreign = 0;
        for name in disk.list(&self.folder)? {
            match segment_id(&name) {
                Some(id) => ids.push(id),
                None if name == SPARE => self.spare = disk.size(&self.file(SPARE)).ok(),
                None if name == "cursor" => {}
                None => foreign += 1,
            }
        }
        if foreign > 0 {
            tracing::warn!(LANE = %self.lane, "{foreign} files in the queue's folder are not the queue's; they are left alone");
        }
        ids.sort_unstable();
        self.next_id = ids.last().map_or(1, |last| last + 1);
        self.read_cursor(disk)?;
        let mut segments = VecDeque::new();
        let mut bound: Option<Number> = None;
        let mut newest = true;
        self.later.clear();
        let mut headless = Vec::new();
        for id in ids.into_iter().rev() {
            match self.open_segment(disk, id, bound, newest, bug) {
                Ok(Is::Newer) => {
                    self.later.push(id);
                    continue;
                }
                Ok(Is::Full { seal, size, has_head }) => {
                    bound = Some(seal.first);
                    segments.push_front(Segment::new(id, size, seal));
                    if !has_head {
                        headless.push(id);
                    }
                }
                Ok(Is::Empty { size }) => {
                    let name = self.name(id);
                    attempt(self.recycle(disk, &name, size), "an empty segment could not be removed");
                }
                // One bad place of the flash must not cost all others. The next start tries it again.
                Err(error) => {
                    let name = self.name(id);
                    tracing::error!(LANE = %self.lane, "{name} can't be read, and is left alone: {error}");
                    continue;
                }
            }
            newest = false;
        }
        // Without a head nobody knows how many numbers were before the first that can be read: all may have been that
        // are in no segment before.
        let mut before = Number::default();
        for segment in &mut segments {
            let first = &mut segment.seal.first;
            if headless.contains(&segment.id) {
                first.seq = if before.epoch == first.epoch { before.seq + 1 } else { 1 };
            }
            before = segment.seal.last;
        }
        if !seeded(bug, Bug::FolderNotSynced) {
            attempt(disk.sync_folder(&self.folder), "the queue's folder could not be synced");
        }
        self.note_ended(&mut segments);
        Ok(segments)
    }

    /// What there is in a segment.
    fn open_segment(
        &mut self,
        disk: &mut dyn Disk,
        id: u64,
        bound: Option<Number>,
        newest: bool,
        bug: Option<Bug>,
    ) -> io::Result<Is> {
        let name = self.name(id);
        let mut head = [0; FRAMES as usize];
        let read = disk.read(&name, 0, &mut head)?;
        let size = disk.size(&name)?;
        let whole = |seal: &Seal| bound.is_none_or(|bound| seal.last < bound);
        let mut has_head = true;
        let seal = match format::read_head(id, head.get(..read).unwrap_or_default()) {
            Head::Newer => return Ok(Is::Newer),
            Head::Sealed(seal) if newest => Some(self.reopen(disk, id, seal, bug)?),
            Head::Sealed(seal) if whole(&seal) => Some(seal),
            Head::Sealed(Seal { first, .. }) => self.survey(disk, id, (Some(first), bound), newest, bug)?,
            Head::Open(first) => {
                has_head = first.is_some();
                self.survey(disk, id, (first, bound), newest, bug)?
            }
        };
        Ok(seal.map_or(Is::Empty { size }, |seal| Is::Full { seal, size, has_head }))
    }

    /// Reads a segment that was not sealed. What is found of it must be on flash before anybody counts on it: it may
    /// have been written and not synced.
    fn survey(
        &mut self,
        disk: &mut dyn Disk,
        id: u64,
        (first, bound): (Option<Number>, Option<Number>),
        newest: bool,
        bug: Option<Bug>,
    ) -> io::Result<Option<Seal>> {
        let name = self.name(id);
        let survey = walk::survey(disk, &name, id, bound, seeded(bug, Bug::CutAtDamage))?;
        let Some(mut seal) = survey else { return Ok(None) };
        // Where the first ones are damaged, the header tells from where on their numbers were.
        seal.first = first.map_or(seal.first, |first| first.min(seal.first));
        if !(newest && bound.is_none() && self.fill_on(disk, id, seal, false, bug)?) {
            attempt(self.seal(disk, id, &seal), "a segment could not be sealed");
        }
        Ok(Some(seal))
    }

    /// The segment gets what comes next, where it has room. False: it has none, or is not as large as it should be.
    fn fill_on(
        &mut self,
        disk: &mut dyn Disk,
        id: u64,
        seal: Seal,
        sealed: bool,
        bug: Option<Bug>,
    ) -> io::Result<bool> {
        let name = self.name(id);
        let size = disk.size(&name)?;
        let has_room = size == self.size && u64::from(seal.end) < size;
        if has_room {
            if !seeded(bug, Bug::TrustsTheCache) {
                attempt(disk.sync(&name), "a segment could not be synced");
            }
            self.active = Some(Active { id, size, seal, dated: seal.newest > 0, sealed });
        }
        Ok(has_room)
    }

    /// The newest segment was sealed at a stop. It may have got more since, and is filled on; or it has lost its end.
    fn reopen(&mut self, disk: &mut dyn Disk, id: u64, seal: Seal, bug: Option<Bug>) -> io::Result<Seal> {
        let name = self.name(id);
        let found = walk::survey(disk, &name, id, None, seeded(bug, Bug::CutAtDamage))?;
        let Some(found) = found.filter(|found| found.count >= seal.count) else { return Ok(seal) };
        let found = Seal { first: seal.first, ..found };
        self.fill_on(disk, id, found, true, bug)?;
        // A cut may have kept a record and not that the seal was taken away for it. As soon as another segment is the newest
        // one, nobody looks behind a seal.
        if found != seal {
            attempt(self.seal(disk, id, &found), "a segment could not be sealed");
        }
        Ok(found)
    }

    fn seal(&self, disk: &mut dyn Disk, id: u64, seal: &Seal) -> io::Result<()> {
        let (at, bytes) = format::seal(id, seal);
        let name = self.name(id);
        disk.write(&name, at, &bytes)?;
        disk.sync(&name)
    }

    fn read_cursor(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        let mut bytes = vec![0; usize::try_from(2 * SLOT).unwrap_or_default()];
        let read = match disk.read(&self.file("cursor"), 0, &mut bytes) {
            Ok(read) => read,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::error!(LANE = %self.lane, "the queue's cursor can't be read: {error}");
                }
                0
            }
        };
        let cursor = Cursor::decode(bytes.get(..read).unwrap_or_default());
        self.left = cursor.is_err();
        let later = |Later(version)| {
            let file = self.file("cursor");
            let text = "which a later sluicegate wrote; it is left alone, with the lane's records, and only such a one";
            io::Error::other(format!("{file} is of version {version}, {text} will publish them"))
        };
        self.cursor = cursor.map_err(later)?.unwrap_or_default();
        Ok(())
    }

    /// What the cursor knows to have come to its end is so in these segments.
    fn note_ended(&self, segments: &mut VecDeque<Segment>) {
        for range in &self.cursor.ranges {
            let place = segments.partition_point(|segment| segment.seal.last < range.first);
            if let Some(segment) = segments.get_mut(place)
                && segment.seal.first <= range.first
                && segment.ended.records() + range.records <= segment.seal.count
            {
                segment.ended.add(*range);
            }
        }
    }

    /// From this start on, ids are greater than all that any start before gave: a spare segment may still hold frames
    /// under an id whose file is gone.
    pub(super) fn number_from(&mut self, epoch: u64) {
        self.next_id = self.next_id.max((epoch >> 16) << 32 | 1);
    }

    /// A bound that no epoch of a segment which was left to a later version is below: its start is in its name.
    pub(super) fn later_epoch(&self) -> u64 {
        let newest = if self.left { Some(self.next_id - 1) } else { self.later.iter().max().copied() };
        newest.map_or(0, |id| id >> 32 << 16)
    }

    /// The greatest epoch in the files.
    pub(super) fn highest(&self, segments: &VecDeque<Segment>) -> Number {
        segments.back().map_or(self.cursor.high, |last| last.seal.last.max(self.cursor.high))
    }

    /// Room for a record of this size in the segment that is being filled.
    fn has_room(&self, size: usize) -> bool {
        self.active.is_some_and(|active| u64::from(active.seal.end) + size as u64 <= active.size)
    }

    /// Whether a new segment is needed for the next record, and how large it is.
    pub(super) fn needs_segment(&self, payload: usize) -> Option<u64> {
        let frame = frame_size(payload);
        let least = (u64::from(FRAMES) + frame as u64).next_multiple_of(SMALLEST);
        (!self.has_room(frame)).then_some(self.size.max(least))
    }

    /// Bytes on flash beside the segments that hold records.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.spare.unwrap_or(0)
    }

    /// Makes a new segment of this size for numbers from this one on, and leaves `keep_free` bytes of the file system.
    pub(super) fn new_segment(
        &mut self,
        disk: &mut dyn Disk,
        (first, size): (Number, u64),
        keep_free: u64,
        bug: Option<Bug>,
    ) -> Result<u64, WriteError> {
        if let Some(active) = self.active.take()
            && active.seal.count > 0
        {
            self.seal(disk, active.id, &active.seal)?;
        }
        let id = self.next_id;
        let name = self.name(id);
        let mut written = u64::from(FRAMES);
        let mut made = Ok(());
        if self.spare == Some(size) {
            // Whatever comes of it: the next one does without.
            self.spare = None;
            disk.rename(&self.file(SPARE), &name)?;
        } else {
            if disk.free()? < keep_free.saturating_add(size) {
                return Err(WriteError::Full);
            }
            made = fill(disk, &name, size);
            written += size;
        }
        self.next_id += 1;
        let made = made.and_then(|()| disk.write(&name, 0, &format::head(id, first))).and_then(|()| disk.sync(&name));
        let made =
            made.and_then(|()| if seeded(bug, Bug::FolderNotSynced) { Ok(()) } else { disk.sync_folder(&self.folder) });
        if let Err(error) = made {
            // A segment that is not used would only take room, one more with each attempt.
            discard(disk, &name);
            return Err(error.into());
        }
        let nothing = Number::default();
        let seal = Seal { end: FRAMES, count: 0, first: nothing, last: nothing, newest: 0 };
        self.active = Some(Active { id, size, seal, dated: true, sealed: false });
        Ok(written)
    }

    /// Puts what is fresh in the lane into `bytes`, as much as fits into the segment and a commit.
    pub(super) fn batch(&self, log: &mut Log, bytes: &mut Vec<u8>) -> Option<(Batch, u64, u64)> {
        let Active { id, size, mut seal, mut dated, .. } = self.active?;
        bytes.clear();
        let (seqs, to) = log.batch(|number, payload| {
            let frame = frame_size(payload.len());
            let fits = u64::from(seal.end) + frame as u64 <= size && bytes.len() < keeper::COMMIT;
            if fits {
                format::put_frame(bytes, id, seal.count, number, payload);
                let at = Body::decode_timestamp(payload).ok().filter(|at| at.synced);
                dated &= at.is_some();
                let date = at.and_then(|at| u64::try_from(at.wall.as_millis()).ok()).unwrap_or_default();
                seal.newest = seal.newest.max(date);
                seal.first = if seal.count == 0 { number } else { seal.first };
                seal.last = number;
                seal.end += u32::try_from(frame).unwrap_or(u32::MAX);
                seal.count += 1;
            }
            fits
        })?;
        seal.newest = if dated { seal.newest } else { 0 };
        Some((Batch { seqs, to, seal }, id, size))
    }

    /// Writes a batch. Once it returns, it is on flash.
    pub(super) fn commit(
        &mut self,
        disk: &mut dyn Disk,
        batch: &Batch,
        bytes: &[u8],
        bug: Option<Bug>,
    ) -> io::Result<()> {
        let Some(active) = self.active else { return Err(io::Error::other("there is no segment")) };
        let name = self.name(active.id);
        if active.sealed {
            let (at, seal) = format::no_seal();
            disk.write(&name, at, &seal)?;
        }
        disk.write(&name, u64::from(active.seal.end), bytes)?;
        if !seeded(bug, Bug::NotSynced) {
            disk.sync(&name)?;
        }
        let dated = batch.seal.newest > 0;
        self.active = Some(Active { seal: batch.seal, dated, sealed: false, ..active });
        Ok(())
    }

    /// Says what is in the segment, at a stop: what its end loses from then on is noticed.
    pub(super) fn seal_active(&self, disk: &mut dyn Disk) -> io::Result<()> {
        match self.active.filter(|active| active.seal.count > 0) {
            Some(active) => self.seal(disk, active.id, &active.seal),
            None => Ok(()),
        }
    }

    /// After an error nobody knows what is in the segment: it gets nothing more. One without any record goes.
    pub(super) fn abandon(&mut self, disk: &mut dyn Disk) {
        let Some(active) = self.active.take() else { return };
        let name = self.name(active.id);
        disk.forget(&name);
        if active.seal.count == 0 {
            discard(disk, &name);
        }
    }

    /// Whether this is the segment that is being filled.
    pub(super) fn is_active(&self, id: u64) -> bool {
        self.active.is_some_and(|active| active.id == id)
    }

    /// Removes a segment, or keeps it for the next one.
    pub(super) fn release(&mut self, disk: &mut dyn Disk, id: u64, size: u64) -> io::Result<()> {
        if self.is_active(id) {
            self.active = None;
        }
        self.recycle(disk, &self.name(id), size)?;
        disk.sync_folder(&self.folder)
    }

    fn recycle(&mut self, disk: &mut dyn Disk, name: &str, size: u64) -> io::Result<()> {
        let done = if self.spare.is_none() && size == self.size {
            disk.rename(name, &self.file(SPARE)).inspect(|()| self.spare = Some(size))
        } else {
            disk.remove(name)
        };
        gone(done)
    }

    /// Gives the spare segment's room back.
    pub(super) fn drop_spare(&mut self, disk: &mut dyn Disk) -> io::Result<()> {
        match self.spare.take() {
            Some(_) => gone(disk.remove(&self.file(SPARE))),
            None => Ok(()),
        }
    }

    /// Writes the cursor.
    pub(super) fn write_cursor(&mut self, disk: &mut dyn Disk, cursor: Cursor) -> io::Result<u64> {
        // Counted on only once it is there: the next one must not go over the other slot, which is whole.
        let cursor = Cursor { serial: self.cursor.serial + 1, ..cursor };
        let (at, bytes) = cursor.encode();
        let name = self.file("cursor");
        let is_new = disk.size(&name).unwrap_or(0) < 2 * SLOT;
        if is_new {
            fill(disk, &name, 2 * SLOT)?;
        }
        disk.write(&name, at, &bytes)?;
        disk.sync(&name)?;
        if is_new {
            disk.sync_folder(&self.folder)?;
        }
        self.cursor = cursor;
        Ok(bytes.len() as u64)
    }

    /// Reads on in a segment.
    pub(super) fn read(
        &self,
        disk: &mut dyn Disk,
        place: &mut Place,
        known: &Seal,
    ) -> io::Result<(Chunk, Vec<Damage>)> {
        walk::read(disk, &self.name(place.id), place, known)
    }
}

/// Tries what may fail without harm; says so.
pub(super) fn attempt(done: io::Result<()>, what: &str) {
    if let Err(error) = done {
        tracing::warn!("{what}: {error}");
    }
}

/// What is not there needs no removal: a step before this one failed after it was done, or somebody else removed it.
fn gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Removes what nothing counts on. Where that fails too, the next start does it.
fn discard(disk: &mut dyn Disk, name: &str) {
    if let Err(error) = disk.remove(name) {
        tracing::debug!("{name} could not be removed: {error}");
    }
}

/// The id of a segment that this code may have named: no count of starts comes to half of what there is, and one more
/// than an id must be an id.
fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (id > 0 && id <= u64::MAX >> 1 && format!("{id:016x}") == digits).then_some(id)
}

/// Writes zeros, so that the file has its place when the file system is full.
pub(super) fn fill(disk: &mut dyn Disk, name: &str, size: u64) -> io::Result<()> {
    let zeros = [0; PIECE];
    let mut at = 0;
    while at < size {
        let piece = usize::try_from(size - at).unwrap_or(PIECE).min(PIECE);
        disk.write(name, at, zeros.get(..piece).unwrap_or_default())?;
        at += piece as u64;
    }
    Ok(())
}

/// Whether this fault was put in by a test, which then has to notice it.
pub(super) fn seeded(bug: Option<Bug>, which: Bug) -> bool {
    cfg!(test) && bug == Some(which)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_could_be_named_so_here_is_a_segment() {
        for (name, id) in [
            ("0000000000000001.seg", Some(1)),
            ("00000002000000ab.seg", Some(0x2_0000_00ab)),
            ("0000000000000000.seg", None),
            ("00000000000000AB.seg", None),
            ("1.seg", None),
            ("000000000000000g.seg", None),
            ("+000000000000001.seg", None),
            ("0000000000000001", None),
            ("ffffffffffffffff.seg", None),
        ] {
            assert_eq!(segment_id(name), id, "{name}");
        }
    }
}
