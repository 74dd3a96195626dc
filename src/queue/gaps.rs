//! The ledger of what was lost.
//!
//! Every loss is added before it is carried out. Losses of the same kind join one gap, but only until it is to be
//! handed out: from then on its number stands for exactly what is said. The keeper writes the ledger to flash before
//! anything there makes a loss final. A gap of which the flash has an earlier state is handed out only once it has this
//! one: the next start must not say something else under the same number.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use super::flash::MOST_GAPS;
use crate::model::{DeviceName, Gap, GapCause, GapRange, Lane, PointName, Timestamp, event};

/// Gaps of one kind are this far apart, so that a long outage does not become a flood of them.
const APART: Duration = Duration::from_secs(10);

/// Drops that are further apart are two episodes, for the log.
const EPISODE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Ledger {
    /// The number of the next gap.
    next: u64,
    open: Vec<Open>,
    last_sent: HashMap<Kind, Duration>,
    /// When records of a lane were last dropped for this cause.
    last_drop: HashMap<(Lane, GapCause), Duration>,
    /// Counts the changes.
    version: u64,
    /// The version that is on flash.
    stored: u64,
    /// The last version that may be on flash: it was to be written, whatever came of it.
    offered: Cell<u64>,
    /// The flash does not take the ledger.
    pub(super) failing: bool,
    /// The last change that has to be on flash before the lanes' files change: a loss of numbers.
    urgent: u64,
    /// What is on flash is no gap at all.
    stored_empty: bool,
    /// The gateway stops: nothing waits for its time any more.
    pub(super) hurry: bool,
}

#[derive(Debug)]
struct Open {
    gap: Gap,
    /// The first version of the ledger that has it, and the first that has it as it is.
    since: u64,
    version: u64,
    /// It is handed out, or will be once it is stored: nothing may be added to it.
    frozen: bool,
    /// It waits for its acknowledgement on this connection.
    handed: bool,
}

/// Gaps of the same kind may be joined.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Kind {
    Lane(Lane, u64, GapCause),
    Device(DeviceName, Option<PointName>, GapCause),
}

fn kind(gap: &Gap) -> Kind {
    match &gap.range {
        GapRange::Numbers { lane, epoch, .. } => Kind::Lane(*lane, *epoch, gap.cause),
        GapRange::Device { device, point, .. } => Kind::Device(device.clone(), point.clone(), gap.cause),
    }
}

impl Ledger {
    /// A ledger whose numbers begin here.
    pub(super) fn new(first: u64) -> Self {
        let (open, last_sent, last_drop) = (Vec::new(), HashMap::new(), HashMap::new());
        Ledger {
            next: first,
            open,
            last_sent,
            last_drop,
            version: 0,
            stored: 0,
            offered: Cell::new(0),
            failing: false,
            urgent: 0,
            stored_empty: true,
            hurry: false,
        }
    }

    /// The gaps of earlier starts, as the flash has them.
    pub(super) fn restore(&mut self, gaps: Vec<Gap>) {
        self.stored_empty &= gaps.is_empty();
        self.open.extend(gaps.into_iter().map(|gap| Open { gap, since: 0, version: 0, frozen: true, handed: false }));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether a loss is not on flash yet.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent > self.stored
    }

    /// Whether anything is not on flash yet.
    pub(super) fn is_dirty(&self) -> bool {
        self.version > self.stored && !(self.stored_empty && self.open.is_empty())
    }

    /// Whether a gap is not handed out because the flash has an earlier state of it.
    pub(super) fn is_awaited(&self) -> bool {
        self.open.iter().any(|open| open.frozen && !open.handed && !self.may_go(open))
    }

    fn may_go(&self, open: &Open) -> bool {
        open.since > self.offered.get() || open.version <= self.stored
    }

    /// All gaps, to be stored under this version.
    pub(super) fn snapshot(&self) -> (u64, impl Iterator<Item = &Gap>) {
        self.offered.set(self.version);
        (self.version, self.open.iter().map(|open| &open.gap))
    }

    #[cfg(test)]
    pub(super) fn snapshot_for_test(&self) -> (u64, Vec<Gap>) {
        let (version, gaps) = self.snapshot();
        (version, gaps.cloned().collect())
    }

    /// This version is on flash; it had so many gaps.
    pub(super) fn stored(&mut self, version: u64, gaps: usize) {
        self.stored = version;
        self.failing = false;
        self.stored_empty = gaps == 0;
    }

    /// A line when a lane begins to drop records at a bound. What the flash, damage or the broker cost is told by those
    /// who see the reason.
    fn say(&mut self, lane: Lane, cause: GapCause, now: Duration) {
        let why = match cause {
            GapCause::Bytes => "its max_bytes is reached",
            GapCause::Age => "they are older than its max_age",
            GapCause::Memory => "queue.max_memory is reached",
            GapCause::Disk | GapCause::Damaged | GapCause::Refused | GapCause::Stop | GapCause::Overflow => return,
        };
        let last = self.last_drop.insert((lane, cause), now);
        if last.is_none_or(|last| now.saturating_sub(last) > EPISODE) {
            tracing::error!(
                MESSAGE_ID = event::RECORDS_DROPPED,
                LANE = %lane,
                "the lane {lane} drops its oldest records: {why}; gaps tell which"
            );
        }
    }

    pub(super) fn add(&mut self, cause: GapCause, range: GapRange, now: Timestamp) {
        self.version += 1;
        if matches!(range, GapRange::Numbers { .. }) {
            self.urgent = self.version;
        }
        if let GapRange::Numbers { lane, .. } = range {
            self.say(lane, cause, now.uptime);
        }
        let gap = Gap { n: self.next, cause, range, since: now };
        let of_kind = kind(&gap);
        for open in self.open.iter_mut().filter(|open| !open.frozen && kind(&open.gap) == of_kind) {
            if join(&mut open.gap.range, &gap.range) {
                open.version = self.version;
                return;
            }
        }
        if self.open.len() >= MOST_GAPS {
            tracing::error!("there are too many gaps to keep; the oldest is forgotten: {:?}", self.open.remove(0).gap);
        }
        self.next += 1;
        self.open.push(Open { gap, since: self.version, version: self.version, frozen: false, handed: false });
    }

    /// The next gap to send.
    pub(super) fn next(&mut self, now: Duration) -> Option<Gap> {
        for place in 0..self.open.len() {
            let open = self.open.get(place)?;
            if open.handed || !(open.frozen || self.due(open, now) <= now) {
                continue;
            }
            let may_go = self.may_go(open) || self.failing;
            let offered = self.offered.get();
            let renumber = self.failing && !self.may_go(open) && open.since <= offered;
            let (version, next) = (self.version + 1, self.next);
            let open = self.open.get_mut(place)?;
            open.frozen = true;
            if renumber {
                // The flash may have another content under this number, and does not take this one.
                (open.gap.n, open.since, open.version) = (next, version, version);
                (self.version, self.next) = (version, next + 1);
            }
            if may_go {
                open.handed = true;
                self.last_sent.insert(kind(&open.gap), now);
                return Some(open.gap.clone());
            }
        }
        None
    }

    fn due(&self, open: &Open, now: Duration) -> Duration {
        match self.last_sent.get(&kind(&open.gap)) {
            Some(sent) if !open.frozen && !self.hurry => *sent + APART,
            _ => now,
        }
    }

    /// When [`Ledger::next`] may have something that it does not have now.
    pub(super) fn next_due(&self, now: Duration) -> Option<Duration> {
        // For one that has to be stored first, the reader is woken.
        let goes = |open: &Open| !open.frozen || self.failing || self.may_go(open);
        let waiting = self.open.iter().filter(|open| !open.handed && goes(open));
        waiting.map(|open| self.due(open, now)).min()
    }

    pub(super) fn acked(&mut self, n: u64) {
        self.version += 1;
        self.open.retain(|open| open.gap.n != n);
    }

    /// The broker asked to be sent this one again.
    pub(super) fn again(&mut self, n: u64) {
        self.open.iter_mut().filter(|open| open.gap.n == n).for_each(|open| open.handed = false);
    }

    /// A new connection: what was handed out and not acknowledged is to be sent again.
    pub(super) fn begin(&mut self) {
        for open in &mut self.open {
            open.handed = false;
        }
    }
}

/// Adds `more` to `range`, where both have a count.
fn join(range: &mut GapRange, more: &GapRange) -> bool {
    match (range, more) {
        (
            GapRange::Numbers { from, to: Some(to), count: Some(count), .. },
            GapRange::Numbers { from: more_from, to: Some(more_to), count: Some(more_count), .. },
        ) => {
            *from = (*from).min(*more_from);
            *to = (*to).max(*more_to);
            *count += more_count;
            true
        }
        (GapRange::Device { count, .. }, GapRange::Device { count: more, .. }) => {
            *count += more;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time;

    fn range(from: u64, to: u64) -> GapRange {
        GapRange::Numbers { lane: Lane::Telemetry, epoch: 1 << 16, from, to: Some(to), count: Some(to - from + 1) }
    }

    #[test]
    fn losses_join_until_they_are_told() {
        let mut ledger = Ledger::new(3_000_001);
        let now = time::now();
        ledger.add(GapCause::Bytes, range(1, 1), now);
        ledger.add(GapCause::Bytes, range(2, 2), now);
        ledger.add(GapCause::Age, range(3, 3), now);
        let first = ledger.next(now.uptime).unwrap();
        assert_eq!((first.n, first.range), (3_000_001, range(1, 2)));
        ledger.add(GapCause::Bytes, range(4, 4), now);
        assert_eq!(
            ledger.next(now.uptime).map(|gap| gap.cause),
            Some(GapCause::Age),
            "a different cause need not wait"
        );
        assert_eq!(ledger.next(now.uptime), None, "the same cause waits");
        assert_eq!(ledger.next_due(now.uptime), Some(now.uptime + APART));
        let later = now.uptime + APART;
        assert_eq!(ledger.next(later).map(|gap| gap.range), Some(range(4, 4)));
        ledger.begin();
        let again = ledger.next(later).unwrap();
        assert_eq!((again.n, again.range), (3_000_001, range(1, 2)), "unacknowledged: sent again as it was");
        ledger.acked(3_000_001);
        ledger.begin();
        assert_eq!(ledger.next(later).map(|gap| gap.n), Some(3_000_002));
    }
}
