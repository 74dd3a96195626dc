//! Who may know whom: every path of the source that leaves its room, against the rule of ARCHITECTURE.md.
//!
//! Reads tokens, not only `use` lines: a path in the middle of an expression counts as well, grouped imports are taken
//! apart, and `super::` is followed up to where it leads. Comments and texts are skipped. What a room re-exports of
//! another one is not seen.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The rooms, and whom each may name. A room names only rooms that stand below it.
const RULE: [(&str, &[&str]); 14] = [
    ("main", &["cli"]),
    // The crate's root declares the rooms and says nothing else.
    ("lib", &[]),
    ("cli", &["agent", "config", "device", "uplink", "queue", "command", "service", "link", "disk", "task", "model"]),
    ("agent", &["config", "device", "uplink", "queue", "command", "service", "link", "disk", "task", "model"]),
    ("config", &["device", "uplink", "queue", "command", "service", "link", "task", "model"]),
    ("device", &["link", "disk", "task", "model"]),
    // The one exception among the rooms in the middle: the uplink holds a reader of the queue.
    ("uplink", &["queue", "link", "task", "model"]),
    ("queue", &["disk", "task", "model"]),
    ("command", &["disk", "task", "model"]),
    ("service", &[]),
    ("link", &["task", "model"]),
    ("disk", &[]),
    ("task", &[]),
    ("model", &[]),
];

/// What stands for the crate's root where a path names it as a whole: all rooms at once.
const ROOT: &str = "*";

#[test]
fn rooms_name_only_whom_they_may() {
    let mut faults = String::new();
    let files = sources(&source_folder());
    assert!(files.len() > 50, "only {} files found", files.len());
    for file in &files {
        let module = module_of(file.strip_prefix(source_folder()).unwrap());
        for fault in faults_of(&module, &std::fs::read_to_string(file).unwrap()) {
            writeln!(faults, "{}:{fault}", file.display()).unwrap();
        }
    }
    assert!(faults.is_empty(), "paths that the architecture forbids:\n{faults}");
}

#[test]
fn every_room_is_in_the_rule() {
    let found: BTreeSet<String> = std::fs::read_dir(source_folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> = RULE.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(found, known);
}

#[test]
fn the_rule_points_one_way() {
    for (place, (room, may)) in RULE.iter().enumerate() {
        for other in *may {
            let below = RULE.iter().skip(place + 1).any(|(name, _)| name == other);
            assert!(below, "{room} may name {other}, which does not stand below it");
        }
    }
}

#[test]
fn a_forbidden_path_is_refused() {
    // The module, its source, and the rooms that it must not name.
    for (module, source, forbidden) in [
        ("link", "use crate::model::Value;", vec![]),
        ("link", "use crate::queue::Reader;", vec!["queue"]),
        ("model", "use crate::{link, task::Owned};", vec!["link", "task"]),
        ("device::gpio", "use crate::{model::{Value, Point}, uplink::{self, Topics as T}};", vec!["uplink"]),
        ("command", "fn f() { let x = crate::uplink::plain::reading::<u8>(1); }", vec!["uplink"]),
        ("queue", "impl From<crate::config::Config> for X {}", vec!["config"]),
        ("uplink::session", "use crate::queue::Reader;", vec![]),
        ("queue", "use crate::uplink::Uplink;", vec!["uplink"]),
        ("uplink", "pub use super::command::Router;", vec!["command"]),
        ("uplink::session", "use super::{publisher, super::device::Write};", vec!["device"]),
        ("uplink::session", "use super::super::queue::Reader;", vec![]),
        ("uplink", "mod tests { use super::*; fn f() { super::super::agent::run(); } }", vec!["agent"]),
        ("uplink", "mod a { fn f() {} } use super::service::Signals;", vec!["service"]),
        ("service::log", "use self::super::super::task::Pulse;", vec!["task"]),
        ("task", "use crate::*;", vec![ROOT]),
        ("task", "use crate as root;", vec![ROOT]),
        ("task", "use super::{self as root};", vec![ROOT]),
        ("main", "fn main() { sluicegate::cli::main() }", vec![]),
        ("main", "use sluicegate::agent;", vec!["agent"]),
        ("lib", "pub mod agent; pub(crate) mod link;", vec![]),
        ("model", "pub(super) fn f<'a>(x: &'a str) -> char { 'a' } // crate::link", vec![]),
        ("model", "/* crate::link /* */ crate::task */ const A: &str = \"crate::link \\\" crate::task\";", vec![]),
        ("model", "const A: &str = r#\"\"crate::link\"#; const B: char = '\\''; use crate::task::X;", vec!["task"]),
    ] {
        let module: Vec<&str> = module.split("::").collect();
        let found: Vec<String> = faults_of(&module, source);
        let named: Vec<&str> = found.iter().map(|fault| fault.rsplit(' ').next().unwrap()).collect();
        assert_eq!(named, forbidden, "{source}\n{found:#?}");
    }
}

fn source_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// `uplink/plain/tests.rs` is `uplink::plain::tests`, `uplink/mod.rs` is `uplink`.
fn module_of(file: &Path) -> Vec<&str> {
    let mut module: Vec<&str> = file.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs")).collect();
    if module.last() == Some(&"mod") {
        module.pop();
    }
    module
}

/// The paths of a module that lead where its room may not go: `LINE: why ROOM`.
fn faults_of(module: &[&str], source: &str) -> Vec<String> {
    let room = module[0];
    let (_, may) = RULE.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("the rule lacks {room}"));
    // The root's own module is the root.
    let module = if room == "lib" { &[] } else { module };
    let mut targets = targets(module, &tokens(source));
    targets.dedup();
    targets.retain(|(_, target)| target != room && !may.contains(&target.as_str()));
    targets.into_iter().map(|(line, target)| format!("{line}: {room} must not name {target}")).collect()
}

/// The rooms that the paths of a module lead to, with their lines.
fn targets(module: &[&str], tokens: &[Token]) -> Vec<(usize, String)> {
    let mut here: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
    // How many braces are open, and with how many each inline module began.
    let (mut depth, mut inline) = (0, Vec::new());
    let mut found = Vec::new();
    let text = |n: usize| tokens.get(n).map_or("", |token| token.text.as_str());
    for n in 0..tokens.len() {
        match text(n) {
            "{" => {
                depth += 1;
                if n >= 2 && text(n - 2) == "mod" {
                    inline.push(depth);
                    here.push(text(n - 1).to_owned());
                }
            }
            "}" => {
                if inline.last() == Some(&depth) {
                    inline.pop();
                    here.pop();
                }
                depth -= 1;
            }
            "crate" | "super" | "self" | "sluicegate"
                if matches!(text(n + 1), "::" | "as") && (n == 0 || text(n - 1) != "::") =>
            {
                let mut ends = Vec::new();
                follow(tokens, n, here.clone(), &mut ends);
                for end in ends {
                    found.push((tokens[n].line, end.into_iter().next().unwrap_or_else(|| ROOT.to_owned())));
                }
            }
            _ => {}
        }
    }
    found
}

/// Follows a path from the token `n` on, standing `at` a module; each of its ends goes to `ends`. Returns the token
/// behind it.
fn follow(tokens: &[Token], mut n: usize, mut at: Vec<String>, ends: &mut Vec<Vec<String>>) -> usize {
    let text = |n: usize| tokens.get(n).map_or("", |token| token.text.as_str());
    match text(n) {
        "{" => {
            n += 1;
            while !matches!(text(n), "}" | "") {
                n = follow(tokens, n, at.clone(), ends);
                // `as NAME`, and the comma.
                while !matches!(text(n), "," | "}" | "") {
                    n += 1;
                }
                if text(n) == "," {
                    n += 1;
                }
            }
            return n + 1;
        }
        "crate" | "sluicegate" => at.clear(),
        "super" => drop(at.pop()),
        "self" => {}
        name => at.push(name.to_owned()),
    }
    let goes_on = text(n + 1) == "::" && text(n + 2).starts_with(|c: char| c.is_alphabetic() || "_{*".contains(c));
    if goes_on {
        return follow(tokens, n + 2, at, ends);
    }
    ends.push(at);
    n + 1
}

struct Token {
    line: usize,
    text: String,
}

/// Names, `::` and single signs. Comments, texts and characters are left out, but for a `"` in their place.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |n: usize| chars.get(n).copied().unwrap_or('\0');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let (mut n, mut line, mut tokens) = (0, 1, Vec::new());
    while n < chars.len() {
        let start = n;
        let text = match (at(n), at(n + 1)) {
            ('/', '/') => {
                n = behind(&chars, n, "\n") - 1;
                None
            }
            ('/', '*') => {
                let mut open = 0;
                loop {
                    match (at(n), at(n + 1)) {
                        ('/', '*') => (open, n) = (open + 1, n + 2),
                        ('*', '/') => (open, n) = (open - 1, n + 2),
                        _ => n += 1,
                    }
                    if open == 0 || n >= chars.len() {
                        break None;
                    }
                }
            }
            ('"', _) => {
                n += 1;
                while n < chars.len() && at(n) != '"' {
                    n += if at(n) == '\\' { 2 } else { 1 };
                }
                n += 1;
                Some("\"".to_owned())
            }
            ('\'', '\\') => {
                n = behind(&chars, n + 3, "'");
                Some("\"".to_owned())
            }
            ('\'', _) if at(n + 2) == '\'' => {
                n += 3;
                Some("\"".to_owned())
            }
            (':', ':') => {
                n += 2;
                Some("::".to_owned())
            }
            (c, _) if is_name(c) => {
                while is_name(at(n)) {
                    n += 1;
                }
                let name: String = chars[start..n].iter().collect();
                let hashes = chars[n..].iter().take_while(|c| **c == '#').count();
                if matches!(name.as_str(), "r" | "br" | "cr") && at(n + hashes) == '"' {
                    n = behind(&chars, n + hashes + 1, &format!("\"{}", "#".repeat(hashes)));
                    Some("\"".to_owned())
                } else {
                    Some(name)
                }
            }
            (c, _) => {
                n += 1;
                (!c.is_whitespace()).then(|| c.to_string())
            }
        };
        tokens.extend(text.map(|text| Token { line, text }));
        line += chars[start..n.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// The place behind the next `end`.
fn behind(chars: &[char], from: usize, end: &str) -> usize {
    let end: Vec<char> = end.chars().collect();
    (from..chars.len()).find(|n| chars[*n..].starts_with(&end)).map_or(chars.len() + 1, |n| n + end.len())
}
