//! The ledger of what was lost.
//!
//! Every loss is added before it is carried out. Losses of the same kind join one gap, but only until it was first
//! handed out: from then on its number stands for exactly what was said.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{DeviceName, Gap, GapCause, GapRange, Lane, PointName, Timestamp};

/// Gaps of one kind are this far apart, so that a long outage does not become a flood of them.
const APART: Duration = Duration::from_secs(10);

/// Gap numbers of one start of the gateway; more than any start can use.
const PER_START: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Ledger {
    next: u64,
    open: Vec<Open>,
    last_sent: HashMap<Kind, Duration>,
}

#[derive(Debug)]
struct Open {
    gap: Gap,
    /// It was handed out once: nothing may be added to it.
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
    /// A ledger whose numbers follow those of all starts before: the epoch counts them.
    pub(super) fn new(epoch: u64) -> Self {
        Ledger { next: (epoch >> 16) * PER_START + 1, open: Vec::new(), last_sent: HashMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn add(&mut self, cause: GapCause, range: GapRange, now: Timestamp) {
        let gap = Gap { n: self.next, cause, range, since: now };
        let of_kind = kind(&gap);
        let joined = self
            .open
            .iter_mut()
            .filter(|open| !open.frozen && kind(&open.gap) == of_kind)
            .any(|open| join(&mut open.gap.range, &gap.range));
        if !joined {
            self.next += 1;
            self.open.push(Open { gap, frozen: false, handed: false });
        }
    }

    /// The next gap to send.
    pub(super) fn next(&mut self, now: Duration) -> Option<Gap> {
        let last_sent = &self.last_sent;
        let ripe = |kind: &Kind| last_sent.get(kind).is_none_or(|sent| now.saturating_sub(*sent) >= APART);
        let open = self.open.iter_mut().find(|open| !open.handed && (open.frozen || ripe(&kind(&open.gap))))?;
        open.frozen = true;
        open.handed = true;
        self.last_sent.insert(kind(&open.gap), now);
        Some(open.gap.clone())
    }

    /// When [`Ledger::next`] may have something that it does not have now.
    pub(super) fn next_due(&self, now: Duration) -> Option<Duration> {
        let waiting = self.open.iter().filter(|open| !open.handed);
        waiting.map(|open| self.last_sent.get(&kind(&open.gap)).map_or(now, |sent| *sent + APART)).min()
    }

    pub(super) fn acked(&mut self, n: u64) {
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
        let mut ledger = Ledger::new(3 << 16);
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
