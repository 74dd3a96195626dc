//! Which acknowledgement belongs to which publish.
//!
//! Publishes are handed to rumqttc in order and leave it in order, so the n-th `Sent` names the packet id of the n-th
//! ticket. Acknowledgements may come in any order.

use std::collections::{BTreeSet, HashMap, VecDeque};

/// Names one publish on one link; counts up from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

#[derive(Debug, Default)]
pub(super) struct Tickets {
    next: u64,
    /// Given to rumqttc, not yet on the wire.
    handed: VecDeque<Ticket>,
    /// On the wire, by packet id.
    by_packet: HashMap<u16, Ticket>,
    /// All without an acknowledgement.
    open: BTreeSet<Ticket>,
}

impl Tickets {
    /// A publish was handed over.
    pub(super) fn hand_over(&mut self) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.handed.push_back(ticket);
        self.open.insert(ticket);
        ticket
    }

    /// The next publish in line left under this packet id; `None` if there is none, or the id is in use.
    pub(super) fn sent(&mut self, packet_id: u16) -> Option<Ticket> {
        let ticket = self.handed.pop_front()?;
        self.by_packet.insert(packet_id, ticket).is_none().then_some(ticket)
    }

    /// The publish under this packet id was acknowledged; `None` if there is none.
    pub(super) fn acked(&mut self, packet_id: u16) -> Option<Ticket> {
        let ticket = self.by_packet.remove(&packet_id)?;
        self.open.remove(&ticket);
        Some(ticket)
    }

    /// From the oldest open ticket to the next one.
    pub(super) fn distance(&self) -> usize {
        let oldest = self.open.first().map_or(self.next, |ticket| ticket.0);
        usize::try_from(self.next - oldest).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_out_of_order_find_their_publishes() {
        let mut tickets = Tickets::default();
        let handed: Vec<Ticket> = (0..3).map(|_| tickets.hand_over()).collect();
        for id in 1..=3 {
            assert_eq!(tickets.sent(id), Some(handed[usize::from(id) - 1]));
        }
        assert_eq!(tickets.acked(3), Some(handed[2]));
        assert_eq!(tickets.acked(2), Some(handed[1]));
        assert_eq!(tickets.distance(), 3, "the oldest is still open");
        assert_eq!(tickets.acked(1), Some(handed[0]));
        assert_eq!(tickets.distance(), 0);
        assert_eq!(tickets.acked(1), None, "once only");
        assert_eq!(tickets.sent(1), None, "nothing was handed over");
    }
}
