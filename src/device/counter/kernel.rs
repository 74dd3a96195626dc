//! A count of the kernel's own (`drivers/counter`): it goes on while the gateway does not run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::device::access::refusal;
use crate::device::sysfs::{Beside, find};
use crate::disk::CRC_32;

/// No counter is so fast that more than this comes between two looks: a count that falls further began again at 0.
const MOST: u64 = 1 << 24;

/// Where a count is, whatever the kernel calls it at this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The file `count`, with `*` for what the kernel numbers.
    pub(super) path: PathBuf,
    /// What files beside it must hold.
    pub(super) matches: BTreeMap<String, String>,
}

/// A count that is open.
#[derive(Debug)]
pub(super) struct Count {
    file: Arc<File>,
    /// Above this it begins again; `None`: nobody says.
    ceiling: Option<u64>,
    last: u64,
}

impl Wanted {
    /// What there is. Blocks.
    ///
    /// # Errors
    /// When it is not there, or is no count of pulses.
    pub(super) fn look(&self) -> Result<String, String> {
        let path = self.find()?;
        let count = File::open(&path).map_err(|error| error.to_string()).and_then(|file| read(&file));
        count
            .map(|count| format!("{} is {count}", path.display()))
            .map_err(|text| format!("{}: {text}", path.display()))
    }

    /// Tells it from others: a number of one is none of another's.
    pub(super) fn id(&self) -> u32 {
        let mut crc = CRC_32.digest();
        crc.update(self.path.as_os_str().as_bytes());
        for (file, text) in &self.matches {
            crc.update(format!("\0{file}\0{text}").as_bytes());
        }
        crc.finalize()
    }

    /// What must be written before it counts.
    pub(super) fn switch(&self) -> Option<PathBuf> {
        switch(&self.find().ok()?)
    }

    fn find(&self) -> Result<PathBuf, String> {
        let path = find(&self.path, &self.matches, Beside::It)?;
        match beside(&path, "function") {
            // Where it counts both ways, its number is a position.
            Some(function) if function != "increase" => Err(format!(
                "{} counts by `{function}`, so it may go back: write `increase` to `function` beside it",
                path.display()
            )),
            _ => Ok(path),
        }
    }

    /// Opens it, and switches it on where it is off. Blocks.
    ///
    /// # Errors
    /// When it is not there, is no count of pulses, or can't be switched on.
    pub(super) fn open(&self) -> Result<Count, String> {
        let path = self.find()?;
        let why = |error: String| format!("{}: {error}", path.display());
        if let Some(switch) = switch(&path) {
            fs::write(&switch, "1").map_err(|error| format!("it is off: {}", refusal(&switch, &error)))?;
        }
        let ceiling = beside(&path, "ceiling").and_then(|text| text.parse().ok()).filter(|ceiling| *ceiling > 0);
        let file = File::open(&path).map_err(|error| why(error.to_string()))?;
        let last = read(&file).map_err(why)?;
        Ok(Count { file: Arc::new(file), ceiling, last })
    }
}

impl Count {
    /// For [`read`], which blocks.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// The number that it had last.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What came since it had that number, where it did not begin again.
    pub(super) fn since(&self, before: u64) -> u64 {
        passed(before, self.last, self.ceiling)
    }

    /// It has this number now: what came since the last look.
    pub(super) fn take(&mut self, now: u64) -> u64 {
        let before = std::mem::replace(&mut self.last, now);
        self.since(before)
    }
}

/// The number that it has now. Blocks.
///
/// # Errors
/// What the kernel says.
pub(super) fn read(file: &File) -> Result<u64, String> {
    let mut text = [0; 32];
    let count = file.read_at(&mut text, 0).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(text.get(..count).unwrap_or_default());
    let count = text.trim().parse().map_err(|_| format!("`{}` is no count", text.trim()))?;
    Ok(unsigned(count))
}

/// A driver that counts in an `int` (interrupt-cnt, of most kernels and wherever a `long` has 32 bits) says 2^64 - 2^31 behind
/// 2^31 - 1.
fn unsigned(count: u64) -> u64 {
    if count >= u64::MAX << 31 { count & u64::from(u32::MAX) } else { count }
}

/// What a file beside it holds.
fn beside(path: &Path, name: &str) -> Option<String> {
    fs::read_to_string(path.with_file_name(name)).ok().map(|text| text.trim().to_owned())
}

/// The file that switches it on, where it is off.
fn switch(path: &Path) -> Option<PathBuf> {
    (beside(path, "enable").as_deref() == Some("0")).then(|| path.with_file_name("enable"))
}

/// How many came from one number to the other. Where that is smaller, it went over its ceiling, or began again at 0, as after
/// its driver was loaded anew. A ceiling that nobody names is that of 32 bits.
fn passed(before: u64, now: u64, ceiling: Option<u64>) -> u64 {
    let ceiling = ceiling.unwrap_or(u32::MAX.into());
    if now >= before {
        return now - before;
    }
    let over = ceiling.checked_sub(before).map(|rest| rest.saturating_add(now).saturating_add(1));
    over.filter(|over| *over <= MOST.min(ceiling / 2)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_known_over_the_ceiling_and_a_new_beginning() {
        let bits = u64::from(u32::MAX);
        for (before, now, ceiling, came) in [
            (5, 5, None, 0),
            (5, 105, None, 100),
            (bits - 1, 3, None, 5),
            (bits + 7, 3, None, 3),
            (1000, 3, None, 3),
            (bits - MOST, 7, None, 7),
            (65_530, 4, Some(65_535), 10),
            (1000, 4, Some(65_535), 4),
            (u64::MAX - 1, 1, Some(u64::MAX), 3),
        ] {
            assert_eq!(passed(before, now, ceiling), came, "{before} {now} {ceiling:?}");
        }
    }

    #[test]
    fn a_count_of_32_bits_goes_on_behind_its_half() {
        let half = 1 << 31;
        for (count, expected) in [(half - 1, half - 1), (u64::MAX - half + 1, half), (u64::MAX, 2 * half - 1)] {
            assert_eq!(unsigned(count), expected, "{count}");
        }
        assert_eq!(unsigned(u64::MAX - half), u64::MAX - half, "one of 64 bits");
        assert_eq!(passed(unsigned(u64::MAX), 0, None), 1);
    }

    #[test]
    fn a_count_is_switched_on_and_one_that_goes_both_ways_refused() {
        let folder = tempfile::tempdir().unwrap();
        let count = folder.path().join("counter3/count0");
        fs::create_dir_all(&count).unwrap();
        let put = |name: &str, text: &str| fs::write(count.join(name), text).unwrap();
        put("count", "17\n");
        put("enable", "0\n");
        put("function", "increase\n");
        put("ceiling", "65535\n");
        fs::write(folder.path().join("counter3/name"), "meter\n").unwrap();
        let matches = BTreeMap::from([("../name".to_owned(), "meter".to_owned())]);
        let wanted = Wanted { path: folder.path().join("counter*/count0/count"), matches };
        let mut open = wanted.open().unwrap();
        assert_eq!(fs::read_to_string(count.join("enable")).unwrap(), "1");
        assert_eq!((open.last(), open.since(15)), (17, 2));
        put("count", "20\n");
        let now = read(&open.file()).unwrap();
        assert_eq!(open.take(now), 3);
        assert!(wanted.look().unwrap().ends_with("count0/count is 20"));
        put("function", "quadrature x4\n");
        assert!(wanted.open().unwrap_err().contains("counts by `quadrature x4`, so it may go back"));
        put("function", "increase\n");
        put("count", "many\n");
        assert!(wanted.look().unwrap_err().ends_with("`many` is no count"));
        fs::remove_dir_all(&count).unwrap();
        assert!(wanted.open().unwrap_err().starts_with("there is no "));
    }
}
