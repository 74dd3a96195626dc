//! Messages for people, made of those of serde.

/// What is said of a key that is not there.
pub(super) const MISSING: &str = "this key is missing";

pub(super) use crate::model::NO_CHOICE as CHOICE;

/// How alike two keys are, from 0 to 1, so that one is taken for a slip of the other.
const ALIKE: f64 = 0.8;

/// More keys than this are not listed in a message.
const LISTED: usize = 8;

/// Longer values are cut in messages.
const SHOWN: usize = 40;

/// What a message of serde is about.
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
    let message = message.trim_end();
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
    for prefix in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((found, expected)) = message.strip_prefix(prefix).and_then(|rest| rest.rsplit_once(", expected ")) {
            return Meaning::Wrong(format!("expected {}, found {}", kind_of(expected), shown(found)));
        }
    }
    if message.starts_with("data did not match any variant") {
        return Meaning::Wrong("no such value fits here".to_owned());
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

/// What serde says it found, as it stands in the file.
fn shown(found: &str) -> String {
    let inner = |prefix: &str| found.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('`'));
    let text = match found {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        _ => ["integer `", "floating point `", "boolean `"]
            .iter()
            .find_map(|prefix| inner(prefix))
            .or_else(|| found.strip_prefix("string "))
            .unwrap_or(found)
            .to_owned(),
    };
    cut(&text)
}

fn cut(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

/// What serde says it wanted, in words for people.
fn kind_of(expected: &str) -> String {
    let range = |max: &str| format!("a whole number from 0 to {max}");
    match expected {
        "u8" => range("255"),
        "u16" => range("65535"),
        "u32" => range("4294967295"),
        "u64" | "usize" => "a whole number of at least 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a string" | "string or table" | "path string" => "text in quotes".to_owned(),
        "a map" => "a table".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other if other.contains("tagged enum") => "a table such as { kind = \"…\" }".to_owned(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_is_put_into_words() {
        for (message, expected) in [
            ("invalid type: string \"x\", expected u16", "expected a whole number from 0 to 65535, found \"x\""),
            ("invalid type: integer `5`, expected a string", "expected text in quotes, found 5"),
            ("invalid type: map, expected a boolean", "expected true or false, found a table"),
            ("invalid value: integer `-1`, expected u8", "expected a whole number from 0 to 255, found -1"),
            ("invalid type: string \"a, expected b\", expected f64", "expected a number, found \"a, expected b\""),
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
