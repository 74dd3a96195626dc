//! Which chips there are, in `/dev` and in sysfs, and which of them are the same.

use std::fs;
use std::path::{Path, PathBuf};

use crate::device::pattern::fits;

/// A chip with a character device that could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chip {
    /// Its character device.
    pub path: PathBuf,
    /// What its driver calls it.
    pub label: String,
    /// How many lines it has.
    pub lines: u32,
}

/// A chip as sysfs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The number of its first line.
    pub base: u32,
    /// How many lines it has.
    pub lines: u32,
    /// What its driver calls it.
    pub label: String,
    /// The device it belongs to.
    pub device: PathBuf,
}

/// The chips in `/sys/class/gpio`.
pub(super) fn bases(class: &Path) -> Vec<Base> {
    let Ok(folder) = fs::read_dir(class) else { return Vec::new() };
    let read = |path: PathBuf| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let mut bases: Vec<Base> = folder
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("gpiochip"))
        .filter_map(|entry| {
            let chip = entry.path();
            Some(Base {
                base: read(chip.join("base"))?.parse().ok()?,
                lines: read(chip.join("ngpio"))?.parse().ok()?,
                label: read(chip.join("label"))?,
                device: fs::canonicalize(chip.join("device")).ok()?,
            })
        })
        .collect();
    bases.sort_by_key(|base| base.base);
    bases
}

/// The device folder of a character device, in `/sys/bus/gpio/devices`.
pub(super) fn device_of(chip: &Path, devices: &Path) -> Option<PathBuf> {
    let node = fs::canonicalize(chip).ok()?;
    fs::canonicalize(devices.join(node.file_name()?)).ok()
}

impl Base {
    /// Whether a character device with this device folder may be the same chip: sysfs names the chip's device or, for
    /// a chip without one, the chip itself.
    pub(super) fn is_at(&self, device: &Path) -> bool {
        self.device == device || Some(self.device.as_path()) == device.parent()
    }

    /// Whether a line of this number is on it.
    pub(super) fn holds(&self, number: u32) -> bool {
        number.checked_sub(self.base).is_some_and(|offset| offset < self.lines)
    }
}

/// Whether a chip is meant by its label, of which `*` and `?` may stand for what the kernel numbers: a port expander is called
/// by its I2C bus and address.
pub(super) fn is_called(label: &str, wanted: &str) -> bool {
    label == wanted || fits(wanted, label)
}

/// The only one of what was found, or what is wrong in words.
pub(super) fn only<T>(found: Vec<T>, what: &str, show: impl Fn(&T) -> String) -> Result<T, String> {
    match <[T; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(found) if found.is_empty() => Err(format!("there is no {what}")),
        Err(found) => {
            let list: Vec<String> = found.iter().map(show).collect();
            Err(format!("there is more than one {what}: {}", list.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn chip(root: &Path, base: u32, lines: u32, label: &str, device: &str) {
        let folder = root.join(format!("class/gpiochip{base}"));
        fs::create_dir_all(&folder).unwrap();
        fs::create_dir_all(root.join(device)).unwrap();
        fs::write(folder.join("base"), format!("{base}\n")).unwrap();
        fs::write(folder.join("ngpio"), format!("{lines}\n")).unwrap();
        fs::write(folder.join("label"), format!("{label}\n")).unwrap();
        symlink(root.join(device), folder.join("device")).unwrap();
    }

    #[test]
    fn a_chip_in_sysfs_is_found_by_its_device() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        chip(&root, 512, 54, "pinctrl-bcm2835", "soc/gpio/gpiochip0/..");
        chip(&root, 566, 8, "expander", "soc/i2c/gpiochip1");
        fs::create_dir_all(root.join("class/gpio520")).unwrap();
        fs::create_dir_all(root.join("soc/gpio/gpiochip0")).unwrap();
        let bases = bases(&root.join("class"));
        assert_eq!(bases.iter().map(|base| base.base).collect::<Vec<_>>(), [512, 566]);
        assert_eq!(bases[0].label, "pinctrl-bcm2835");
        assert!(bases[0].is_at(&root.join("soc/gpio/gpiochip0")) && !bases[1].is_at(&root.join("soc/gpio/gpiochip0")));
        assert!(bases[1].is_at(&root.join("soc/i2c/gpiochip1")));
        assert!(bases[0].holds(565) && !bases[0].holds(566) && !bases[0].holds(511));
    }

    #[test]
    fn a_chip_is_called_by_its_label_or_a_pattern_of_it() {
        for (label, wanted, expected) in [
            ("0-0020", "*-0020", true),
            ("1-0020", "*-0020", true),
            ("1-0021", "*-0020", false),
            ("odd*", "odd*", true),
            ("panel", "pane", false),
        ] {
            assert_eq!(is_called(label, wanted), expected, "{label} {wanted}");
        }
    }

    #[test]
    fn what_is_not_unique_is_listed() {
        let show = |n: &i32| n.to_string();
        assert_eq!(only(vec![7], "line", show), Ok(7));
        assert_eq!(only(vec![], "line `x`", show), Err("there is no line `x`".to_owned()));
        assert_eq!(only(vec![1, 2], "line", show), Err("there is more than one line: 1, 2".to_owned()));
    }
}
