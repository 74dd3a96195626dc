//! Where in the files a key stands: the path of keys is walked through TOML's own spans.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Part;
use super::sources::File;

/// The place of a key, or of the nearest table above it.
#[derive(Debug)]
pub(super) struct Near {
    /// The file's name.
    pub file: String,
    /// How many steps of the path it has.
    pub depth: usize,
    /// Line and column, from 1.
    pub position: (usize, usize),
}

/// The deepest match of a path among the files; the later file where two are as deep, since it is the one that counts.
pub(super) fn deepest(files: &[File], path: &[String], part: Part) -> Option<Near> {
    let mut best: Option<Near> = None;
    for file in files.iter().rev() {
        if let Some((depth, offset)) = walk(&file.text, path, part)
            && best.as_ref().is_none_or(|best| depth > best.depth)
        {
            best = Some(Near { file: file.name.clone(), depth, position: position(&file.text, offset) });
        }
    }
    best
}

/// Line and column of a byte, counted from 1 in characters.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn walk(text: &str, path: &[String], part: Part) -> Option<(usize, usize)> {
    let root = DeTable::parse(text).ok()?;
    let mut table = Some(root.get_ref());
    let mut list = None;
    let mut found = None;
    for (depth, step) in path.iter().enumerate() {
        let (key, value): (Option<usize>, &Spanned<DeValue<'_>>) = if let Some(table) = table {
            let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == step.as_str()) else { break };
            (Some(key.span().start), value)
        } else if let Some(index) = index(step)
            && let Some(value) = list.and_then(|list: &toml::de::DeArray<'_>| list.get(index))
        {
            (None, value)
        } else {
            break;
        };
        // A table has its place where it is named; and what misses a key, too.
        let whole = depth + 1 == path.len() && part == Part::Value && !matches!(value.get_ref(), DeValue::Table(_));
        let offset = key.filter(|_| !whole).unwrap_or(value.span().start);
        found = Some((depth + 1, offset));
        (table, list) = match value.get_ref() {
            DeValue::Table(inner) => (Some(inner), None),
            DeValue::Array(inner) => (None, Some(inner)),
            _ => (None, None),
        };
    }
    found
}

/// A step such as `[2]`.
pub(super) fn index(step: &str) -> Option<usize> {
    step.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(texts: &[&str], path: &[&str], part: Part) -> Option<(String, usize, (usize, usize))> {
        let files: Vec<File> =
            texts.iter().enumerate().map(|(i, text)| File { name: i.to_string(), text: (*text).to_owned() }).collect();
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        deepest(&files, &path, part).map(|near| (near.file, near.depth, near.position))
    }

    #[test]
    fn a_key_is_found_where_it_counts() {
        let base = "[mqtt]\nurl = \"a\"\nwindow = 5 # ä\n[device.tank]\nlist = [1,\n  { a = 2 }]\n";
        let drop_in = "mqtt.window = 7\n";
        let at = |file: &str, depth, position| Some((file.to_owned(), depth, position));
        for (path, part, expected) in [
            (&["mqtt", "window"][..], Part::Value, at("1", 2, (1, 15))),
            (&["mqtt", "window"], Part::Key, at("1", 2, (1, 6))),
            (&["mqtt", "url"], Part::Value, at("0", 2, (2, 7))),
            (&["mqtt", "none"], Part::Value, at("1", 1, (1, 1))),
            (&["device", "tank", "none"], Part::Value, at("0", 2, (4, 9))),
            (&["device", "tank", "list", "[1]", "a"], Part::Value, at("0", 5, (6, 9))),
            (&["device", "tank", "list", "[9]"], Part::Value, at("0", 3, (5, 1))),
            (&["none"], Part::Value, None),
        ] {
            assert_eq!(find(&[base, drop_in], path, part), expected, "{path:?}");
        }
    }
}
