//! How the broker misbehaves when it is asked to, and how that is decided: at random, but from a seed.

use std::fmt;

use super::packet::Publish;

/// What the broker does wrong to one client. The default is nothing.
#[derive(Default)]
pub(crate) struct Mischief {
    /// The client that has to bear it, by its client id. Others are treated well.
    pub(crate) victim: String,
    /// Where chance comes from.
    pub(crate) random: Random,
    /// Cuts the connection at each so-many-th publish on average: before it is taken, after it without a PUBACK, or
    /// behind its PUBACK.
    pub(crate) cut_every: Option<u64>,
    /// Holds so many PUBACKs back, and lets one of them go at random when there is one more.
    pub(crate) hold_back: usize,
    /// The subscription to this filter is refused.
    pub(crate) refused_filter: Option<String>,
    /// What is retained on this topic comes late: behind the PUBACK of the victim's own publish to it.
    pub(crate) late: Option<String>,
    /// Answers nothing any more, and takes nothing.
    pub(crate) silent: bool,
    /// What becomes of a publish; where this is not set, all are taken.
    pub(crate) judge: Option<Judge>,
}

/// Decides about one publish; called once for each copy that comes.
pub(crate) type Judge = Box<dyn FnMut(&Publish) -> Treatment + Send>;

/// What becomes of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It is taken.
    Take,
    /// It is refused with this reason code (MQTT 5 only; before it there is no such thing, and the connection ends).
    Refuse(u8),
    /// The connection is closed, with this reason code on MQTT 5.
    Close(u8),
}

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The publish was not taken.
    BeforeIt,
    /// It was taken, and its PUBACK does not leave.
    BeforeItsAck,
    /// Its PUBACK, unless that is held back, is the last that leaves.
    AfterItsAck,
}

impl Mischief {
    /// For this victim, from this seed.
    pub(crate) fn to(victim: &str, seed: u64) -> Self {
        Mischief { victim: victim.to_owned(), random: Random(seed), ..Mischief::default() }
    }

    /// Whether to cut at this publish, and where.
    pub(super) fn cut(&mut self) -> Option<Place> {
        let every = self.cut_every?;
        if self.random.below(every) != 0 {
            return None;
        }
        let places = [Place::BeforeIt, Place::BeforeItsAck, Place::AfterItsAck];
        places.get(self.random.index(places.len())).copied()
    }

    /// What becomes of a publish.
    pub(super) fn treatment(&mut self, publish: &Publish) -> Treatment {
        self.judge.as_mut().map_or(Treatment::Take, |judge| judge(publish))
    }

    /// Which of so many PUBACKs that are held back leaves now; `None` while there is room for another one.
    pub(super) fn release(&mut self, held: usize) -> Option<usize> {
        (held > self.hold_back).then(|| self.random.index(held))
    }
}

impl fmt::Debug for Mischief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mischief").field("victim", &self.victim).field("random", &self.random).finish_non_exhaustive()
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Debug, Default)]
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap_or(u64::MAX))).unwrap_or_default()
    }
}
