//! Files whose names the kernel numbers: by a pattern, and by what stands beside them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::device::pattern::fits;

/// More files than this are not told apart by a person either.
const MOST: usize = 1000;

/// More of them are not listed in a message.
const LISTED: usize = 4;

/// The one file of this name. `beside` is where the files of `matches` are: its own folder, or the file where that is one.
///
/// # Errors
/// When there is none, or more than one, with what there is.
pub(in crate::device) fn find(
    path: &Path,
    matches: &BTreeMap<String, String>,
    beside: Beside,
) -> Result<PathBuf, String> {
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
        matches.iter().all(|(file, wanted)| says(&text(file), wanted))
    };
    let (found, others): (Vec<PathBuf>, Vec<PathBuf>) = named.into_iter().partition(holds);
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let wanted: Vec<String> = matches.iter().map(|(file, wanted)| format!("{file} = {wanted:?}")).collect();
            let held = others.iter().take(LISTED).map(|path| {
                let files = matches.keys().map(|file| {
                    let text = fs::read_to_string(folder(path).join(file)).unwrap_or_default();
                    format!("{file} = {:?}", trimmed(&text))
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

/// Whether a file has this text, as a whole or as one of its lines: `uevent` has several. Of the device tree's files each text
/// ends with a NUL instead, and `compatible` has several of them.
fn says(text: &str, wanted: &str) -> bool {
    trimmed(text) == wanted || text.split(['\n', '\0']).any(|line| line.trim() == wanted && !line.is_empty())
}

/// Without what surrounds the text.
pub(super) fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
}

/// Where the files are that tell one from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::device) enum Beside {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::tree;

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
            ("pwmchip0/device/uevent", "DRIVER=pwm-gpio\nOF_NAME=pwm-fan\nOF_COMPATIBLE_0=pwm-gpio\n"),
            ("pwmchip1/device/uevent", "DRIVER=pwm-gpio\nOF_NAME=pwm-valve\nOF_COMPATIBLE_0=pwm-gpio\n"),
            ("pwmchip0/device/of_node/name", "pwm-fan\0"),
            ("pwmchip1/device/of_node/name", "pwm-valve\0"),
            ("pwmchip0/device/of_node/compatible", "maker,fan\0pwm-gpio\0"),
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
        // A line of several, and texts of the device tree.
        for pair in [
            ("device/uevent", "OF_NAME=pwm-valve"),
            ("device/of_node/name", "pwm-valve"),
            ("device/uevent", "DRIVER=pwm-gpio\nOF_NAME=pwm-valve\nOF_COMPATIBLE_0=pwm-gpio"),
        ] {
            assert_eq!(look("pwmchip*", &[pair], Beside::Within), Ok("/pwmchip1".to_owned()), "{pair:?}");
        }
        for pair in [("device/of_node/compatible", "pwm-gpio"), ("device/of_node/compatible", "maker,fan")] {
            assert_eq!(look("pwmchip*", &[pair], Beside::Within), Ok("/pwmchip0".to_owned()), "{pair:?}");
        }
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
