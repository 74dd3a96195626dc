//! Files whose names the kernel numbers: by a pattern, and by what stands beside them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// More files than this are not told apart by a person either.
const MOST: usize = 1000;

/// More of them are not listed in a message.
const LISTED: usize = 4;

/// The one file of this name. `beside` is where the files of `matches` are: its own folder, or the file where that is one.
///
/// # Errors
/// When there is none, or more than one, with what there is.
pub(super) fn find(path: &Path, matches: &BTreeMap<String, String>, beside: Beside) -> Result<PathBuf, String> {
    let named = named(path);
    if named.is_empty() {
        return Err(format!("there is no {}", path.display()));
    }
    let folder = |path: &PathBuf| match beside {
        Beside::It => path.parent().map(Path::to_owned).unwrap_or_default(),
        Beside::Within => path.clone(),
    };
    let holds = |path: &PathBuf| {
        let text = |file: &String| fs::read_to_string(folder(path).join(file)).unwrap_or_default();
        matches.iter().all(|(file, wanted)| text(file).trim() == wanted)
    };
    let (found, others): (Vec<PathBuf>, Vec<PathBuf>) = named.into_iter().partition(holds);
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let wanted: Vec<String> = matches.iter().map(|(file, wanted)| format!("{file} = {wanted:?}")).collect();
            let held = others.iter().take(LISTED).map(|path| {
                let files = matches.keys().map(|file| {
                    let text = fs::read_to_string(folder(path).join(file)).unwrap_or_default();
                    format!("{file} = {:?}", text.trim())
                });
                format!("{} has {}", path.display(), files.collect::<Vec<_>>().join(", "))
            });
            Err(format!("no {} has {}: {}", path.display(), wanted.join(", "), held.collect::<Vec<_>>().join("; ")))
        }
        several => {
            let list: Vec<String> = several.iter().take(LISTED).map(|path| path.display().to_string()).collect();
            let more = if several.len() > LISTED { ", …" } else { "" };
            Err(format!(
                "{} is not one file: it may be {}{more}; tell them apart by `match`",
                path.display(),
                list.join(", ")
            ))
        }
    }
}

/// Where the files are that tell one from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// In the same folder.
    It,
    /// It is a folder itself, and they are in it.
    Within,
}

/// All files of this name, in the order of their names.
fn named(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let pattern = match part {
            Component::Normal(name) => name.to_string_lossy(),
            other => {
                found.iter_mut().for_each(|path| path.push(other));
                continue;
            }
        };
        if !pattern.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(pattern.as_ref()));
            continue;
        }
        let entries = |folder: &PathBuf| {
            let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
            let mut fitting: Vec<_> = names.filter(|name| fits(&pattern, &name.to_string_lossy())).collect();
            fitting.sort_unstable();
            fitting.into_iter().map(|name| folder.join(name)).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(entries).take(MOST).collect();
    }
    found.retain(|path| path.exists());
    found
}

/// Whether a name fits a pattern: `*` stands for any characters, `?` for one.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let mut tails = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            tails.any(|at| name.get(at..).is_some_and(|tail| fits(rest.as_str(), tail)))
        }
        Some(wanted) => {
            let mut characters = name.chars();
            characters.next().is_some_and(|found| wanted == '?' || wanted == found)
                && fits(rest.as_str(), characters.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::tree;

    #[test]
    fn a_pattern_stands_for_what_the_kernel_numbers() {
        for (pattern, name, expected) in [
            ("hwmon*", "hwmon0", true),
            ("hwmon*", "hwmon", true),
            ("hwmon?", "hwmon12", false),
            ("iio:device?", "iio:device0", true),
            ("*_input", "temp1_input", true),
            ("*_input", "temp1_label", false),
            ("t*1*t", "temp1_input", true),
            ("*", "", true),
            ("?", "", false),
            ("28-*", "28-0316ä", true),
            ("28-?", "28-ä", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn one_file_is_found_by_what_stands_beside_it() {
        let root = tree(&[
            ("hwmon0/name", "cpu_thermal\n"),
            ("hwmon0/temp1_input", "47312\n"),
            ("hwmon1/name", "lm75\n"),
            ("hwmon1/temp1_input", "21000\n"),
            ("hwmon1/device/serial", "7\n"),
            ("hwmon2/name", "lm75\n"),
            ("hwmon2/device/serial", "8\n"),
            ("hwmon2/temp1_input", "22000\n"),
        ]);
        let matching = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
        };
        let look = |pattern: &str, pairs: &[(&str, &str)], beside| {
            let shown = root.path().display().to_string();
            let found = find(&root.path().join(pattern), &matching(pairs), beside);
            found.map(|path| path.display().to_string().replace(&shown, "")).map_err(|text| text.replace(&shown, ""))
        };
        let temp = "hwmon*/temp1_input";
        assert_eq!(look(temp, &[("name", "cpu_thermal")], Beside::It), Ok("/hwmon0/temp1_input".to_owned()));
        assert_eq!(
            look(temp, &[("name", "lm75"), ("device/serial", "8")], Beside::It),
            Ok("/hwmon2/temp1_input".to_owned())
        );
        assert_eq!(look("hwmon*", &[("name", "cpu_thermal")], Beside::Within), Ok("/hwmon0".to_owned()));
        assert_eq!(look("hwmon1/temp1_input", &[], Beside::It), Ok("/hwmon1/temp1_input".to_owned()));
        assert_eq!(look("hwmon9/temp1_input", &[], Beside::It), Err("there is no /hwmon9/temp1_input".to_owned()));
        assert_eq!(
            look(temp, &[("name", "lm75")], Beside::It),
            Err("/hwmon*/temp1_input is not one file: it may be /hwmon1/temp1_input, /hwmon2/temp1_input; tell them apart by `match`".to_owned())
        );
        assert_eq!(
            look("hwmon0/temp1_input", &[("name", "bme280")], Beside::It),
            Err("no /hwmon0/temp1_input has name = \"bme280\": /hwmon0/temp1_input has name = \"cpu_thermal\""
                .to_owned())
        );
    }
}
