//! The topics of a gateway, and what a topic below it means.

use std::collections::{BTreeMap, BTreeSet};

use super::CHECK_DEVICE;
use crate::link;
use crate::model::{DeviceName, Fault, MAX_NAME, Point, PointName};

/// The words of a gateway's own topics.
const OWN: [&str; 5] = ["status", "info", "health", "problem", "gap"];

/// The words of a device's topics.
const OF_DEVICE: [&str; 4] = ["status", "problem", "set", "outcome"];

/// What stands for the names in a template.
const DEVICE: &str = "{device}";
const POINT: &str = "{point}";

/// The topics of one gateway: below a root, `sluicegate/<gateway>` by default, and those of points where a template puts
/// them, by default below the root too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topics {
    root: String,
    /// Each of the two names is a level of it, and stands there once ([`link::Config::check`]).
    template: String,
}

/// Whom a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) device: &'a str,
    /// `None`: several points of the device.
    pub(super) point: Option<&'a str>,
}

impl Topics {
    pub(super) fn new(config: &link::Config) -> Self {
        Topics::of(&config.root, config.topic.as_deref())
    }

    /// Below this root, by this template; one without the two names, which no gateway has, counts as none.
    pub(super) fn of(root: &str, template: Option<&str>) -> Self {
        let is_level = |template: &str, name| template.split('/').any(|level| level == name);
        let template = template.filter(|template| [DEVICE, POINT].iter().all(|name| is_level(template, *name)));
        let template = template.map_or_else(|| format!("{root}/{DEVICE}/{POINT}"), ToOwned::to_owned);
        Topics { root: root.to_owned(), template }
    }

    /// The template, where it is not the usual one.
    pub(super) fn template(&self) -> Option<&str> {
        (*self != Topics::of(&self.root, None)).then_some(&self.template)
    }

    fn of_point(&self, device: &str, point: &str) -> String {
        // A name has no braces, so neither can be taken for the other.
        self.template.replace(DEVICE, device).replace(POINT, point)
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
        self.of_point(device.as_str(), point.as_str())
    }

    /// Where the outcomes of commands go: to a point, or to several points of a device.
    pub(super) fn outcome(&self, device: &str, point: Option<&str>) -> String {
        match point {
            Some(point) => format!("{}/outcome", self.of_point(device, point)),
            None => format!("{}/{device}/outcome", self.root),
        }
    }

    /// Where commands are taken: to several points of a device, and to one. `+` for a name makes a filter.
    pub(super) fn commands(&self, device: &str, point: &str) -> [String; 2] {
        [format!("{}/{device}/set", self.root), format!("{}/set", self.of_point(device, point))]
    }

    /// Whom a message on this topic commands; `None`: nobody.
    pub(super) fn target<'a>(&self, topic: &'a str) -> Option<Target<'a>> {
        let above = topic.strip_suffix("/set")?;
        let several = || {
            let device = above.strip_prefix(&self.root)?.strip_prefix('/')?;
            (!device.contains('/')).then_some(Target { device, point: None })
        };
        let target = several().or_else(|| self.names(above))?;
        // A longer word is no name, and must not be kept and sent back.
        let is_short = |word: &str| word.len() <= MAX_NAME;
        if !is_short(target.device) || !target.point.is_none_or(is_short) {
            return None;
        }
        // The loop of a check is no command.
        (target.device != CHECK_DEVICE).then_some(target)
    }

    /// The names in a topic that the template made.
    fn names<'a>(&self, topic: &'a str) -> Option<Target<'a>> {
        let (mut device, mut point) = ("", None);
        let (mut here, mut there) = (self.template.split('/'), topic.split('/'));
        loop {
            match (here.next(), there.next()) {
                (Some(DEVICE), Some(name)) => device = name,
                (Some(POINT), Some(name)) => point = Some(name),
                (Some(word), Some(level)) if word == level => {}
                (None, None) => return Some(Target { device, point }),
                _ => return None,
            }
        }
    }

    /// What of all topics of these points would be two things at once: the two, and the topic. A template may lead into
    /// the tree below the root.
    pub(super) fn collisions(&self, points: &[&Point]) -> Vec<Fault> {
        let mut found = Vec::new();
        let mut topics: BTreeMap<String, String> = BTreeMap::new();
        let mut add = |topic: String, what: String, target: Option<Target<'_>>| {
            let taken = self.target(&topic).filter(|taken| Some(taken) != target.as_ref());
            let other = match taken {
                Some(Target { device, point: Some(point) }) => Some(format!("a command to {device}.{point}")),
                Some(Target { device, point: None }) => Some(format!("a command to points of {device}")),
                None => topics.get(&topic).cloned(),
            };
            if let Some(other) = other {
                found.push(Fault::at("topic", format!("`{topic}` would be both {what} and {other}")));
            }
            topics.insert(topic, what);
        };
        OWN.iter().for_each(|word| add(self.own(word), format!("the gateway's `{word}`"), None));
        let devices: BTreeSet<&DeviceName> = points.iter().map(|point| &point.device).collect();
        for device in devices {
            for word in OF_DEVICE {
                let target = (word == "set").then_some(Target { device: device.as_str(), point: None });
                add(self.device(device, word), format!("`{word}` of {device}"), target);
            }
        }
        for Point { device, name, .. } in points {
            let [_, command] = self.commands(device.as_str(), name.as_str());
            let target = Target { device: device.as_str(), point: Some(name.as_str()) };
            add(self.reading(device, name), format!("the readings of {device}.{name}"), None);
            add(command, format!("the commands to {device}.{name}"), Some(target));
            let outcomes = self.outcome(device.as_str(), Some(name.as_str()));
            add(outcomes, format!("the outcomes of {device}.{name}"), None);
        }
        found
    }

    /// Whether the gateway may publish an outcome to this topic of somebody else's choice: no wildcard, nothing of
    /// the broker's own, and not in the gateway's tree, where it could become a command or a lie.
    pub(super) fn is_foreign(&self, topic: &str) -> bool {
        let wild = topic.is_empty() || topic.contains(['+', '#', '\0']) || topic.starts_with('$');
        let own = topic.strip_prefix(&self.root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let of_point = || {
            let is_name = |word: &str| word == DEVICE || word == POINT;
            let mut levels = topic.split('/');
            self.template.split('/').all(|word| levels.next().is_some_and(|level| is_name(word) || word == level))
        };
        !wild && !own && !of_point()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_by_its_topic() {
        let topics = Topics::of("sluicegate/g", None);
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
        let topics = Topics::of("sluicegate/g", None);
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

    fn point(device: &str, name: &str) -> Point {
        let (device, name) = (DeviceName::new(device).unwrap(), PointName::new(name).unwrap());
        let (value_type, unit, min, max, safe) = (None, None, None, None, None);
        Point { device, name, value_type, unit, min, max, safe, writable: true }
    }

    #[test]
    fn a_template_puts_the_points_elsewhere() {
        let topics = Topics::of("sluicegate/g", Some("plant/{point}/of/{device}"));
        let Point { device, name, .. } = point("tank", "valve");
        assert_eq!(topics.reading(&device, &name), "plant/valve/of/tank");
        assert_eq!(topics.outcome("tank", Some("valve")), "plant/valve/of/tank/outcome");
        assert_eq!(topics.outcome("tank", None), "sluicegate/g/tank/outcome");
        assert_eq!(topics.device(&device, "status"), "sluicegate/g/tank/status");
        assert_eq!(topics.commands("+", "+"), ["sluicegate/g/+/set", "plant/+/of/+/set"]);
        for (topic, expected) in [
            ("plant/valve/of/tank/set", Some(Target { device: "tank", point: Some("valve") })),
            ("sluicegate/g/tank/set", Some(Target { device: "tank", point: None })),
            ("sluicegate/g/tank/valve/set", None),
            ("plant/valve/in/tank/set", None),
            ("plant/valve/of/tank", None),
            ("plant/valve/of/tank/x/set", None),
        ] {
            assert_eq!(topics.target(topic), expected, "{topic}");
        }
        for (topic, foreign) in [
            ("plant/valve/of/tank/set", false),
            ("plant/x/of/y", false),
            ("plant/valve/of", true),
            ("sluicegate/g/x", false),
        ] {
            assert_eq!(topics.is_foreign(topic), foreign, "{topic}");
        }
        assert_eq!(topics.template(), Some("plant/{point}/of/{device}"));
        assert_eq!(Topics::of("a", Some("a/{device}/{point}")).template(), None);
    }

    #[test]
    fn a_topic_that_would_be_two_things_is_a_fault() {
        let points = [point("tank", "level"), point("level", "g"), point("g", "level")];
        let found = |template: &str, points: &[&Point]| -> Vec<String> {
            let faults = Topics::of("sluicegate/g", Some(template)).collisions(points);
            assert!(faults.iter().all(|fault| fault.path == ["topic"]), "{faults:?}");
            faults.into_iter().map(|fault| fault.text).collect()
        };
        let [first, second, third] = points.each_ref();
        for template in ["sluicegate/g/{device}/{point}", "plant/{point}/{device}", "sluicegate/g/{device}/set/{point}"]
        {
            assert_eq!(found(template, &[first, second, third]), [""; 0], "{template}");
        }
        assert_eq!(found("sluicegate/{device}/{point}", &[first, second]), [""; 0]);
        assert_eq!(
            found("sluicegate/{device}/{point}", &[second, third]),
            [
                "`sluicegate/g/level/set` would be both the commands to g.level and a command to points of level",
                "`sluicegate/g/level/outcome` would be both the outcomes of g.level and `outcome` of level",
            ]
        );
        // A reading that the gateway itself would take for a command.
        assert_eq!(
            found("sluicegate/{device}/{point}/set", &[third]),
            ["`sluicegate/g/level/set` would be both the readings of g.level and a command to points of level"]
        );
    }
}
