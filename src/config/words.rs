//! Messages for people, made of what the rooms say of their tables.

/// What is said of a key that is not there.
pub(super) const MISSING: &str = "this key is missing";

pub(super) use crate::model::NO_CHOICE as CHOICE;
use crate::model::cut;

/// How alike two keys are, from 0 to 1, so that one is taken for a slip of the other.
const ALIKE: f64 = 0.8;

/// More keys than this are not listed in a message.
const LISTED: usize = 8;

/// What a message about a table is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A key that nobody reads.
    Unknown {
        /// The key.
        key: String,
        /// Those that are read there.
        known: Vec<String>,
    },
    /// A key that must be there, and is not.
    Missing {
        /// The key.
        key: String,
    },
    /// Anything else, in words for people.
    Wrong(String),
}

/// What a message means; one that is in words for people already stays as it is.
pub(super) fn meaning(message: &str) -> Meaning {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut quoted = quoted(rest, true);
        let key = quoted.next().unwrap_or_default();
        return Meaning::Unknown { key, known: quoted.collect() };
    }
    if let Some(rest) = message.strip_prefix("missing field `") {
        return Meaning::Missing { key: quoted(rest, true).next().unwrap_or_default() };
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let mut quoted = quoted(rest, true);
        let found = quoted.next().unwrap_or_default();
        let known: Vec<String> = quoted.collect();
        return Meaning::Wrong(unknown_choice(&found, known.iter().map(String::as_str)));
    }
    Meaning::Wrong(message.to_owned())
}

/// What is said of an unknown key.
pub(super) fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    hint("unknown key".to_owned(), key, known)
}

/// What is said of a value that is none of a few.
pub(super) fn unknown_choice<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let text = format!("expected {}, found {}", choices(known.iter().copied()), cut(&format!("{found:?}")));
    match nearest(found, known.into_iter()) {
        Some(near) => format!("{text} (did you mean `{near}`?)"),
        None => text,
    }
}

/// The words that could stand somewhere, in quotes.
pub(super) fn choices<'a>(known: impl Iterator<Item = &'a str>) -> String {
    either(&known.map(|choice| format!("{choice:?}")).collect::<Vec<_>>())
}

/// The most similar of the known words, if one is similar at all.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |other: &str| strsim::jaro_winkler(&word, &other.to_lowercase());
    known
        .map(|other| (likeness(other), other))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, other)| other)
}

fn hint<'a>(text: String, word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    known.dedup();
    if let Some(near) = nearest(word, known.iter().copied()) {
        return format!("{text} (did you mean `{near}`?)");
    }
    if known.is_empty() || known.len() > LISTED {
        return text;
    }
    let list: Vec<String> = known.iter().map(|key| (*key).to_owned()).collect();
    format!("{text}, expected {}", either(&list))
}

/// `a, b or c`.
fn either(list: &[String]) -> String {
    match list {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The texts between backticks; `open`: the first one has begun already.
fn quoted(text: &str, open: bool) -> impl Iterator<Item = String> {
    text.split('`').skip(usize::from(!open)).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_put_into_words() {
        for (message, expected) in [
            (
                "unknown variant `telemtry`, expected `telemetry` or `alarm`",
                "expected \"telemetry\" or \"alarm\", found \"telemtry\" (did you mean `telemetry`?)",
            ),
            ("`x` is not a duration: expected \"30s\"", "`x` is not a duration: expected \"30s\""),
        ] {
            assert_eq!(meaning(message), Meaning::Wrong(expected.to_owned()));
        }
        assert_eq!(
            meaning("unknown field `a`, expected one of `b`, `c`"),
            Meaning::Unknown { key: "a".to_owned(), known: vec!["b".to_owned(), "c".to_owned()] }
        );
        assert_eq!(meaning("missing field `a`"), Meaning::Missing { key: "a".to_owned() });
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let known = ["window", "username", "baud_rate", "keep_alive"];
        for (word, expected) in [
            ("windwo", Some("window")),
            ("user", Some("username")),
            ("baudrate", Some("baud_rate")),
            ("KeepAlive", Some("keep_alive")),
            ("colour", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), expected);
        }
        assert_eq!(unknown_key("x", ["b", "a"].into_iter()), "unknown key, expected a or b");
    }
}
