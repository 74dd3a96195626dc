//! What is under way on a connection, and the window that bounds it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::poison::Place;
use crate::link::{Limits, Link, Publish, Ticket};
use crate::model::Reading;

/// A publish that waits for its acknowledgement.
#[derive(Debug)]
pub(super) enum UnderWay {
    /// Presence, info, health, a problem, an answer: sent anew on each connection, or lost with it.
    Word(Publish),
    /// A record of the queue.
    Record(Place),
    /// The newest value of a `keep = "latest"` point.
    Latest(Box<Reading>),
    /// A gap, by its number.
    Gap(u64),
}

/// The publishes of one connection.
#[derive(Debug)]
pub(super) struct Publisher {
    under_way: HashMap<Ticket, UnderWay>,
    /// Words that wait for a place in the window. They go before records.
    words: VecDeque<Publish>,
    window: usize,
    packet_size: usize,
}

impl Publisher {
    pub(super) fn new() -> Self {
        Publisher { under_way: HashMap::new(), words: VecDeque::new(), window: 1, packet_size: usize::MAX }
    }

    /// The broker said what it takes. Four places of its Receive Maximum stay free, for the moment between an
    /// acknowledgement and our notice of it.
    pub(super) fn limit(&mut self, window: u16, limits: Limits) {
        self.window = usize::from(window.min(limits.receive_maximum.saturating_sub(4)).max(1));
        self.packet_size = limits.packet_size.map_or(usize::MAX, |size| usize::try_from(size).unwrap_or(usize::MAX));
    }

    /// Whether one more publish may go out now.
    pub(super) fn has_room(&self, link: &Link) -> bool {
        !link.is_ending() && link.distance() < self.window
    }

    /// Whether the broker takes a packet of this size (MQTT 5, section 3.1.2.11.4): fixed header, topic, packet id,
    /// properties and payload.
    pub(super) fn fits(&self, publish: &Publish) -> bool {
        /// Fixed header 5, topic length 2, packet id 2, property length 2, payload format 2, content type 3, correlation
        /// data 3, with room to spare.
        const OVERHEAD: usize = 24;
        let properties = publish.content.mime().len() + publish.correlation.as_ref().map_or(0, bytes::Bytes::len);
        publish.topic.len() + publish.payload.len() + properties + OVERHEAD <= self.packet_size
    }

    /// Sends a word as soon as there is room for it.
    pub(super) fn say(&mut self, word: Publish) {
        self.words.push_back(word);
    }

    /// Sends a word once more that the broker did not want before; unless it is retained, and a newer one for its topic
    /// is on its way, which the old one must not overwrite.
    pub(super) fn say_again(&mut self, word: Publish) {
        let newer = |other: &Publish| word.retain && other.topic == word.topic;
        let under_way = self.under_way.values().any(|what| matches!(what, UnderWay::Word(other) if newer(other)));
        if !under_way && !self.words.iter().any(newer) {
            self.words.push_back(word);
        }
    }

    /// The next word that waits.
    pub(super) fn next_word(&mut self) -> Option<Publish> {
        self.words.pop_front()
    }

    /// Words that were not acknowledged yet.
    pub(super) fn words_open(&self) -> usize {
        self.words.len() + self.under_way.values().filter(|what| matches!(what, UnderWay::Word(_))).count()
    }

    /// Sends now. False: the link would not take it, which is a fault in our own counting and ends the link.
    pub(super) fn send(&mut self, link: &mut Link, publish: Publish, what: UnderWay) -> bool {
        match link.publish(publish) {
            Ok(ticket) => self.under_way.insert(ticket, what).is_none(),
            Err(_) => false,
        }
    }

    /// What was acknowledged.
    pub(super) fn acked(&mut self, ticket: Ticket) -> Option<UnderWay> {
        self.under_way.remove(&ticket)
    }

    /// The records under way.
    pub(super) fn records(&self) -> BTreeSet<Place> {
        let place = |what: &UnderWay| match what {
            UnderWay::Record(place) => Some(*place),
            _ => None,
        };
        self.under_way.values().filter_map(place).collect()
    }

    /// How many publishes of all sorts are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Whether nothing is under way and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.words.is_empty()
    }
}
