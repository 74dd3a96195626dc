//! What arrives on a connection: commands, and what is said about ourselves.

use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;

use super::{End, Session};
use crate::link::Message;
use crate::model::{Command, DeviceName, Outcome, PointKey, PointName, Reason, Verdict, event, time};
use crate::uplink::presence::{Info, Stage};
use crate::uplink::topics::Topics;
use crate::uplink::{births, plain};

impl Session<'_> {
    pub(super) fn message(&mut self, message: Message) {
        if message.topic == self.shared.topics.own("status") {
            self.own_status(&message);
        } else if message.topic == self.shared.topics.own("info") {
            self.own_info(&message);
        } else {
            self.command(&message);
        }
        self.link.ack(&message);
    }

    fn own_status(&mut self, message: &Message) {
        if message.retain || self.parting.is_some() {
            return;
        }
        match (&message.payload[..], self.stage) {
            (b"online", Stage::Introducing { since, .. }) => self.stage = Stage::Introducing { since, echoed: true },
            (b"online", Stage::Open) => self.corrections.heard(true),
            (b"offline", Stage::Open) if self.takes_commands => self.corrections.heard(false),
            _ => {}
        }
    }

    /// Contradicts who said that this gateway is offline.
    pub(super) fn correct(&mut self) {
        if self.parting.is_none() && self.corrections.take(time::uptime()) {
            tracing::warn!(MESSAGE_ID = event::CORRECTED, "somebody said that this gateway is offline; corrected");
            self.publisher.say(self.shared.own_status(true));
        }
    }

    fn own_info(&mut self, message: &Message) {
        let Ok(info) = serde_json::from_slice::<Info>(&message.payload) else { return };
        if info.instance == self.shared.parts.start.instance || self.parting.is_some() {
            return;
        }
        /// For so long after the subscription the broker may still bring what it had retained.
        const LATE: Duration = Duration::from_secs(10);
        // A broker may look up what it retained while it takes our own: then the run before comes late.
        let is_soon = self.opened.is_none_or(|opened| time::uptime() < opened + LATE);
        let is_late = self.introduces && self.shared.run_before.is_none() && is_soon;
        if message.retain && (!self.shared.introduced || is_late) {
            self.clear_obsolete(&info);
            self.shared.run_before = Some(info.instance);
        } else if message.retain && self.shared.run_before.as_ref() == Some(&info.instance) {
            // A broker that came back from an older state of itself: nobody else is there.
            tracing::info!("the broker has forgotten this run, and remembers the one before");
        } else {
            self.publisher.say(self.shared.info_word());
            self.part(End::Duplicate(info.instance));
        }
    }

    /// Retained topics of points and devices that the run before had and this one has not.
    fn clear_obsolete(&mut self, before: &Info) {
        let mut topics = Vec::new();
        let stood = Topics::of(&self.shared.parts.link.root, before.topic.as_deref());
        for (device, points) in &before.devices {
            let Ok(device) = DeviceName::new(device) else { continue };
            if !self.shared.parts.devices.contains_key(&device) {
                topics.push(self.shared.topics.device(&device, "status"));
                topics.push(self.shared.topics.device(&device, "problem"));
            }
            for point in points.points.keys() {
                let Ok(point) = PointName::new(point) else { continue };
                let key = PointKey(device.clone(), point);
                let topic = stood.reading(&key.0, &key.1);
                let stays = topic == self.shared.topics.reading(&key.0, &key.1);
                if !stays || self.shared.points.get(&key).is_none_or(|plan| !plan.config.retain) {
                    topics.push(topic);
                }
            }
        }
        for topic in topics {
            tracing::info!("clearing {topic}, which is no longer configured");
            self.publisher.say(births::cleared(topic));
        }
    }

    fn command(&mut self, message: &Message) {
        let Some(target) = self.shared.topics.target(&message.topic) else { return };
        // In a tree of somebody else's, a device that is not here is another one's: who commands it would hear a refusal first.
        let is_here = self.shared.parts.devices.keys().any(|device| device.as_str() == target.device);
        if target.point.is_some() && !is_here && self.shared.topics.template().is_some() {
            return;
        }
        let reply = plain::reply_to(message).filter(|reply| self.shared.topics.is_foreign(&reply.topic));
        let spelling = self.shared.spelling_of_commands(target.device, target.point);
        let command = plain::command(target, message, reply, spelling);
        let (command, reason, text): (Command, _, _) = match self.shared.parts.commands.try_send(command) {
            Ok(()) => return,
            Err(TrySendError::Full(command)) => (command, Reason::Busy, "too many commands at once"),
            Err(TrySendError::Closed(command)) => (command, Reason::Stopping, "the gateway stops"),
        };
        self.shared.keep_refusal(Outcome::of(&command, Verdict::Rejected(reason), Some(text.to_owned())));
    }
}
