//! Topics and topic filters (MQTT 5.0, section 4.7), as far as a device's config has them.

use crate::link;

/// The longest topic, in bytes: every broker takes it, and no device has a longer one.
pub(super) const LONGEST: usize = 1000;

/// What topics a point is read from: `stat/plug/POWER`, `tele/+/SENSOR`, `plant/#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TopicFilter(String);

impl TopicFilter {
    /// Reads a filter.
    ///
    /// # Errors
    /// When it is none, or one that would share its messages with other clients.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        check_text(text)?;
        if text.starts_with("$share/") {
            return Err(format!("`{text}`: expected no shared subscription: it would leave messages to others"));
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            match level {
                "+" => {}
                "#" if levels.peek().is_none() => {}
                "#" => return Err(format!("`{text}`: expected `#` as the last level only")),
                level if level.contains(['+', '#']) => {
                    return Err(format!("`{text}`: expected `+` or `#` as a level of its own"));
                }
                _ => {}
            }
        }
        Ok(TopicFilter(text.to_owned()))
    }

    /// As it stands in the config.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether messages on this topic are among those asked for.
    pub(super) fn matches(&self, topic: &str) -> bool {
        self.covers(topic)
    }

    /// Whether all that the other filter asks for is asked for by this one. A topic is a filter without wildcards.
    fn covers(&self, other: &str) -> bool {
        if is_hidden(&self.0, other) || is_hidden(other, &self.0) {
            return false;
        }
        let mut theirs = other.split('/');
        for own in self.0.split('/') {
            match (own, theirs.next()) {
                // It asks for what stands above it as well.
                ("#", _) => return true,
                ("+", Some(their)) if their != "#" => {}
                (own, Some(their)) if own == their => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether some topic is asked for by both.
    fn overlaps(&self, other: &TopicFilter) -> bool {
        if is_hidden(&self.0, &other.0) || is_hidden(&other.0, &self.0) {
            return false;
        }
        let (mut ours, mut theirs) = (self.0.split('/'), other.0.split('/'));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
                (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
                (Some(one), Some(other)) if one == other => {}
                _ => return false,
            }
        }
    }
}

/// Wildcards at the first level don't ask for the broker's own topics.
fn is_hidden(filter: &str, topic: &str) -> bool {
    topic.starts_with('$') && filter.starts_with(['+', '#'])
}

/// A topic to publish to, or one that has no wildcards for another reason.
///
/// # Errors
/// When it is none.
pub(super) fn check_topic(text: &str) -> Result<(), String> {
    check_text(text)?;
    if text.contains(['+', '#']) { Err(format!("`{text}`: expected a topic without wildcards")) } else { Ok(()) }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
        return Err("expected a topic of 1 to 1000 bytes without control characters".to_owned());
    }
    Ok(())
}

/// The topic on which a client talks to itself.
pub(super) fn marker(client_id: &str) -> String {
    format!("{}/marker", client_id.replace(['+', '#', '$'], "_"))
}

/// What to subscribe to for all of these: not what another one covers, or the broker would send it twice.
///
/// # Errors
/// Two of them that overlap, of which neither covers the other: some messages would come twice.
pub(super) fn subscriptions(filters: &[TopicFilter]) -> Result<Vec<link::Filter>, (&TopicFilter, &TopicFilter)> {
    let mut needed: Vec<&TopicFilter> = Vec::new();
    for filter in filters {
        if needed.iter().any(|other| other.covers(&filter.0)) {
            continue;
        }
        needed.retain(|other| !filter.covers(&other.0));
        needed.push(filter);
    }
    for (place, filter) in needed.iter().enumerate() {
        if let Some(other) = needed.iter().skip(place + 1).find(|other| other.overlaps(filter)) {
            return Err((*filter, *other));
        }
    }
    // The stored ones are wanted of some topics, and marked as such in both versions of MQTT.
    Ok(needed.iter().map(|filter| link::Filter { path: filter.0.clone(), retained: true }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text).unwrap()
    }

    #[test]
    fn a_filter_is_read_or_refused() {
        for good in ["a", "/", "a//b", "+", "#", "a/+/b/#", "+/+", "$SYS/broker/uptime", "tele/grün/SENSOR"] {
            assert_eq!(filter(good).as_str(), good);
        }
        for wrong in ["", "a\0b", "a\nb", "a+", "a/b#", "#/a", "a/#/b", "$share/g/a", &"x".repeat(1001)] {
            assert!(TopicFilter::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_topic("cmnd/plug/POWER").is_ok());
        for wrong in ["", "a/+", "#", "a\0"] {
            assert!(check_topic(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_filter_matches_as_the_standard_says() {
        for (text, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/broker", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("a/b", "a/b", true),
            ("a/b", "a/B", false),
        ] {
            assert_eq!(filter(text).matches(topic), expected, "{text} {topic}");
        }
    }

    #[test]
    fn a_client_talks_to_itself_on_a_topic() {
        for (client_id, topic) in [("g-plug", "g-plug/marker"), ("$share/+/#", "_share/_/_/marker")] {
            assert_eq!(marker(client_id), topic);
            assert!(check_topic(&marker(client_id)).is_ok());
        }
    }

    #[test]
    fn nothing_is_subscribed_to_twice() {
        for (filters, expected) in [
            (&["a/b", "a/c"][..], Ok(vec!["a/b", "a/c"])),
            (&["a/b", "a/b"], Ok(vec!["a/b"])),
            (&["a/b", "a/+", "c"], Ok(vec!["a/+", "c"])),
            (&["a/#", "a/+/c", "a"], Ok(vec!["a/#"])),
            (&["+/b", "+/c", "$SYS/b"], Ok(vec!["+/b", "+/c", "$SYS/b"])),
            (&["#", "$SYS/#"], Ok(vec!["#", "$SYS/#"])),
            (&["+/#", "#"], Ok(vec!["#"])),
            (&["a/+/c", "a/b/+"], Err(("a/+/c", "a/b/+"))),
            (&["+/b", "a/#"], Err(("+/b", "a/#"))),
        ] {
            let filters: Vec<_> = filters.iter().map(|text| filter(text)).collect();
            let found = subscriptions(&filters);
            let found = found
                .as_ref()
                .map(|list| list.iter().map(|filter| filter.path.as_str()).collect::<Vec<_>>())
                .map_err(|(one, other)| (one.as_str(), other.as_str()));
            assert_eq!(found, expected);
        }
    }
}
