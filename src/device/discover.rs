//! What this board has, as a config to paste: for `sluicegate discover`.
//!
//! Each kind says what it finds for itself, in its folder. Nothing is requested, opened as a port, or set. A line that
//! begins with `#` and no space is config that a person may want; with a space it is a comment. Names that chips and
//! adapters give themselves may hold anything: none of it gets out of a comment or a text.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::KINDS;
use crate::model::PointName;

/// What a board was found to have, so far.
#[derive(Debug)]
pub struct Board {
    /// What stands for `/`.
    root: PathBuf,
    /// The names of devices that are given away.
    devices: BTreeSet<String>,
    text: String,
}

/// Looks around below this root, and says what is there.
pub fn discover(root: &Path) -> String {
    let mut board = Board::new(root);
    board.note(
        "What this board has, as config: for /etc/sluicegate/conf.d/devices.toml, or below the rest of the config.",
    );
    board.note("Remove what is not wanted, and the # of what is. `sluicegate check --devices` says whether it works.");
    for kind in KINDS {
        (kind.discover)(&mut board);
    }
    board.text
}

impl Board {
    pub(super) fn new(root: &Path) -> Self {
        Board { root: root.to_owned(), devices: BTreeSet::new(), text: String::new() }
    }

    /// A path of the board.
    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below.trim_start_matches('/'))
    }

    /// The root.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The entries of a folder, in their natural order: `tty10` after `tty9`.
    pub(super) fn entries(&self, folder: &str) -> Vec<String> {
        entries(&self.path(folder))
    }

    /// A name for a device that no other one has.
    pub(super) fn name(&mut self, wish: &str, else_: &str) -> String {
        unique(wish, else_, &mut self.devices)
    }

    /// A heading.
    pub(super) fn part(&mut self, title: &str) {
        self.text.push_str(&format!("\n# --- {title}\n"));
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A comment for people.
    pub(super) fn note(&mut self, text: &str) {
        self.text.push_str(&format!("# {}\n", shown(text)));
    }

    /// A line of config, switched off or not, and what there is to say about it.
    pub(super) fn config(&mut self, is_on: bool, line: &str, note: &str) {
        let off = if is_on { "" } else { "#" };
        let line = format!("{off}{line}");
        match note {
            "" => self.text.push_str(&format!("{line}\n")),
            note => self.text.push_str(&format!("{line:<50} # {}\n", shown(note))),
        }
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// The names in a folder, in their natural order.
pub(super) fn entries(folder: &Path) -> Vec<String> {
    let folder = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = folder.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_by_cached_key(|name| {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
        (stem, name.len(), name.clone())
    });
    names
}

/// What stands in a file of sysfs or procfs.
pub(super) fn read(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// A text that stays in its line.
pub(super) fn shown(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A text as TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A name for a device or a point that is not among those taken: as near to the wish as the rules of names allow.
pub(super) fn unique(wish: &str, else_: &str, taken: &mut BTreeSet<String>) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let words = wish.chars().map(allowed).collect::<String>();
    let mut name = words.split('-').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
    // Leaves room for a number.
    name.truncate(56);
    if name.is_empty() {
        name = else_.to_owned();
    }
    let is_free = |name: &String| PointName::new(name).is_ok() && !taken.contains(name);
    let found = (2_u32..).map(|n| format!("{name}-{n}"));
    let name = std::iter::once(name.clone()).chain(found).find(is_free).unwrap_or(name);
    taken.insert(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_valid_and_unique() {
        let mut taken = BTreeSet::new();
        for (wish, expected) in [
            ("door", "door"),
            ("door", "door-2"),
            ("FT232R USB UART", "FT232R-USB-UART"),
            ("set", "set-2"),
            ("", "line7"),
            ("\"\n[mqtt]\n", "mqtt"),
            ("größe/1", "gr-e-1"),
            ("--", "line7-2"),
        ] {
            assert_eq!(unique(wish, "line7", &mut taken), expected, "{wish}");
        }
        assert_eq!(unique(&"x".repeat(100), "", &mut taken).len(), 56);
    }

    #[test]
    fn a_comment_stays_in_its_line() {
        let mut board = Board::new(Path::new("/"));
        board.note("a\nb = 1\r\u{85}\u{7f}");
        assert_eq!(board.text(), "# a\\nb = 1\\r\\u{85}\\u{7f}\n");
    }
}
