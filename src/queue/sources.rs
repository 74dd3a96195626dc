//! Who filled the RAM: no device takes more than its share of it.
//!
//! A device whose records wait in RAM for the flash, and take up its share, has to wait until they are there; the other
//! devices have not.

/// Where a record came from: the place of its device at the intake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Source(pub(super) u16);

/// What each source has in RAM.
#[derive(Debug, Default)]
pub(super) struct Sources {
    bytes: Vec<usize>,
    share: usize,
}

/// A share is never less than some readings of a fast device.
const LEAST: usize = 16 << 10;

impl Sources {
    /// So many sources may fill so much RAM together.
    pub(super) fn new(count: usize, bytes: usize) -> Self {
        let mut sources = Sources::default();
        sources.share(count, count, bytes);
        sources
    }

    /// So many sources are there now, at places below `places`. What they have in RAM stays theirs.
    pub(super) fn share(&mut self, places: usize, count: usize, bytes: usize) {
        self.bytes.resize(places.max(self.bytes.len()), 0);
        self.share = (bytes / count.max(1)).max(LEAST);
    }

    pub(super) fn add(&mut self, source: Source, bytes: usize) {
        if let Some(sum) = self.bytes.get_mut(usize::from(source.0)) {
            *sum += bytes;
        }
    }

    pub(super) fn free(&mut self, source: Source, bytes: usize) {
        if let Some(sum) = self.bytes.get_mut(usize::from(source.0)) {
            *sum = sum.saturating_sub(bytes);
        }
    }

    /// Whether the source has taken its share.
    pub(super) fn is_full(&self, source: Source) -> bool {
        self.bytes.get(usize::from(source.0)).is_some_and(|sum| *sum >= self.share)
    }

    pub(super) fn any_full(&self) -> bool {
        self.bytes.iter().any(|sum| *sum >= self.share)
    }

    /// Which sources have taken their share.
    pub(super) fn full(&self) -> Vec<bool> {
        self.bytes.iter().map(|sum| *sum >= self.share).collect()
    }
}
