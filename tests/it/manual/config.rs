//! sluicegate.toml(5): config/sluicegate.toml and the kinds' samples, read as what they are: text, and keys below it.

use std::fmt::Write;

use sluicegate::device::KINDS;

use super::roff::{bold, entry, prose};

/// The whole page.
pub(super) fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(".TH SLUICEGATE.TOML 5 \"\" \"sluicegate {version}\" \"Sluicegate\"\n");
    page.push_str(include_str!("config.man"));
    page.push_str(&shipped(include_str!("../../../config/sluicegate.toml")));
    page.push_str(".SH KINDS OF DEVICES\nSamples, with all keys of each kind; the same as ");
    writeln!(page, "{} prints them.", bold("sluicegate list-kinds KIND")).unwrap();
    for kind in KINDS {
        write!(page, ".SS {}\n{}.\n", kind.name, prose(kind.summary)).unwrap();
        page.push_str(&sample(kind.sample));
    }
    page.push_str(include_str!("config-end.man"));
    page
}

/// Of the shipped config: a line that begins with `#` and no space shows a key, the lines above it say what it is.
fn shipped(file: &str) -> String {
    let mut page = String::from(".SH KEYS\n");
    let (mut text, mut keys) = (Vec::new(), Vec::new());
    // What stands above the first table is of the file as a whole, which the page says in its own words.
    let (_, tables) = file.split_at(file.find("\n[").unwrap() + 1);
    for line in tables.lines().chain([""]) {
        let said = line.strip_prefix("# ");
        if !keys.is_empty() && (said.is_some() || line.is_empty() || line.contains('[') && head(line).is_some()) {
            page.push_str(&entry(&keys, &of_keys(&text)));
            text.clear();
            keys.clear();
        }
        if let Some(said) = said {
            text.push(said);
        } else if let Some(table) = head(line) {
            writeln!(page, ".SS {table}").unwrap();
            if !text.is_empty() {
                writeln!(page, "{}", prose(&of_keys(&text))).unwrap();
                text.clear();
            }
        } else if let Some(key) = line.strip_prefix('#') {
            keys.push(key);
        }
    }
    assert!(text.is_empty() && keys.is_empty(), "{text:?} {keys:?}");
    page
}

/// The table that a line begins.
fn head(line: &str) -> Option<&str> {
    let line = line.strip_prefix('#').unwrap_or(line);
    line.starts_with('[').then_some(line)
}

/// What is said above keys, for a page where the keys stand above it.
fn of_keys(text: &[&str]) -> String {
    let text = text.join(" ").replace("docs/", "/usr/share/doc/sluicegate/docs/");
    let text = match text.strip_suffix(" Example:") {
        Some(text) => format!("{text} Shown is an example."),
        None => text,
    };
    text.strip_suffix(':').map_or_else(|| text.clone(), |text| format!("{text}."))
}

/// Of a kind's sample: what a key is stands behind it, and on the lines below that begin with a comment.
fn sample(sample: &str) -> String {
    let mut page = String::new();
    for line in sample.lines().filter(|line| !line.is_empty()) {
        let (code, comment) = match line.split_once("  #") {
            Some((code, comment)) => (code.trim(), comment.trim()),
            None => (line.trim(), ""),
        };
        if code.starts_with('[') {
            write!(page, ".PP\n{}\n", bold(code)).unwrap();
        } else if let Some(other) = code.strip_prefix('#') {
            write!(page, ".br\n{}\n{}\n", bold(other.trim()), prose(comment)).unwrap();
        } else if code.is_empty() {
            writeln!(page, "{}", prose(comment)).unwrap();
        } else {
            page.push_str(&entry(&[code], comment));
        }
    }
    page.replace("\n\n", "\n")
}
