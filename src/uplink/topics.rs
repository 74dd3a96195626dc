//! The topics of a gateway, and what a topic below it means.

use super::CHECK_DEVICE;
use crate::model::{DeviceName, MAX_NAME, PointName};

/// The topics under one root, `sluicegate/<gateway>` by default.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    root: String,
}

/// Whom a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) device: &'a str,
    /// `None`: several points of the device.
    pub(super) point: Option<&'a str>,
}

impl Topics {
    pub(super) fn new(root: &str) -> Self {
        Topics { root: root.to_owned() }
    }

    /// A topic of the gateway itself: `status`, `info`, `health`, `problem`, `gap`.
    pub(super) fn own(&self, word: &str) -> String {
        format!("{}/{word}", self.root)
    }

    /// A topic of a device: `status`, `problem`.
    pub(super) fn device(&self, device: &DeviceName, word: &str) -> String {
        format!("{}/{device}/{word}", self.root)
    }

    /// Where the readings of a point go.
    pub(super) fn reading(&self, device: &DeviceName, point: &PointName) -> String {
        format!("{}/{device}/{point}", self.root)
    }

    /// Where the outcomes of commands go: to a point, or to several points of a device.
    pub(super) fn outcome(&self, device: &str, point: Option<&str>) -> String {
        match point {
            Some(point) => format!("{}/{device}/{point}/outcome", self.root),
            None => format!("{}/{device}/outcome", self.root),
        }
    }

    /// What to subscribe to for commands.
    pub(super) fn commands(&self) -> [String; 2] {
        [format!("{}/+/set", self.root), format!("{}/+/+/set", self.root)]
    }

    /// Whom a message on this topic commands; `None`: nobody.
    pub(super) fn target<'a>(&self, topic: &'a str) -> Option<Target<'a>> {
        let below = topic.strip_prefix(&self.root)?.strip_prefix('/')?;
        let mut levels = below.split('/');
        let target = match (levels.next(), levels.next(), levels.next()) {
            (Some(device), Some("set"), None) => Target { device, point: None },
            (Some(device), Some(point), Some("set")) => Target { device, point: Some(point) },
            _ => return None,
        };
        // A longer word is no name, and must not be kept and sent back.
        let is_short = |word: &str| word.len() <= MAX_NAME;
        if !is_short(target.device) || !target.point.is_none_or(is_short) {
            return None;
        }
        // The loop of a check is no command.
        (levels.next().is_none() && target.device != CHECK_DEVICE).then_some(target)
    }

    /// Whether the gateway may publish an outcome to this topic of somebody else's choice: no wildcard, nothing of
    /// the broker's own, and not in the gateway's tree, where it could become a command or a lie.
    pub(super) fn is_foreign(&self, topic: &str) -> bool {
        let wild = topic.is_empty() || topic.contains(['+', '#', '\0']) || topic.starts_with('$');
        let own = topic.strip_prefix(&self.root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        !wild && !own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_by_its_topic() {
        let topics = Topics::new("sluicegate/g");
        for (topic, expected) in [
            ("sluicegate/g/tank/valve/set", Some(Target { device: "tank", point: Some("valve") })),
            ("sluicegate/g/tank/set", Some(Target { device: "tank", point: None })),
            ("sluicegate/g/set", None),
            ("sluicegate/g/command/set", None),
            ("sluicegate/g/tank/valve", None),
            ("sluicegate/g/tank/valve/set/more", None),
            ("sluicegate/gg/tank/set", None),
            ("sluicegate/other/tank/set", None),
            (&format!("sluicegate/g/{}/set", "x".repeat(64)), Some(Target { device: &"x".repeat(64), point: None })),
            (&format!("sluicegate/g/{}/set", "x".repeat(65)), None),
            (&format!("sluicegate/g/tank/{}/set", "x".repeat(65)), None),
        ] {
            assert_eq!(topics.target(topic), expected, "{topic}");
        }
    }

    #[test]
    fn an_answer_never_goes_into_the_own_tree() {
        let topics = Topics::new("sluicegate/g");
        for (topic, foreign) in [
            ("app/7/answers", true),
            ("sluicegate/gg/x", true),
            ("sluicegate/g", false),
            ("sluicegate/g/tank/valve/set", false),
            ("app/+/answers", false),
            ("$SYS/x", false),
            ("", false),
        ] {
            assert_eq!(topics.is_foreign(topic), foreign, "{topic}");
        }
    }
}
