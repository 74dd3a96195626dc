//! Totals that outlive power cuts, on flash: one file for each device, `totals/<device>` in the state directory.
//!
//! Two slots of 4 KiB, each a CRC-32 in hex, a space and a line of JSON: `{"version":1,"serial":7,"totals":{"water":4711.0}}`.
//! They are written by turns and synced, so a power cut in the middle of a write leaves the other one; the whole one with
//! the greater serial counts. Beside totals of what the kernel counts stands how far it was, and at which boot:
//! `"counts":{"water":[815,3735928559]},"boot":"5f…"`; the second number says which count that was.
//!
//! Calls of [`Totals`] block, those of [`Flash`] don't.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value as Json;

use super::{DeviceError, DeviceIo, Write, WriteError};
use crate::disk::{CRC_32, Disk, Folder};
use crate::model::{BootId, DeviceName, Fault, PointName, Value, time};

/// A block of most file systems and flashes: what tears one slot leaves the other one.
const SLOT: usize = 4096;

const FOLDER: &str = "totals";

/// Of the format.
const VERSION: u64 = 1;

/// Of a total in a slot, besides its point's name: quotes, a colon, a comma, and the longest number there is (-2.2250738585072014e-308).
const ENTRY: usize = 4 + 24;

/// Of how far the kernel was, besides its point's name: a number of 64 bits and one of 32, in brackets.
const COUNT: usize = 4 + 33;

/// What else stands in a slot: CRC, version, serial, boot.
const FRAME: usize = 128;

/// Of a key `safe`: a start after a crash would set the total to it.
pub(super) const NO_SAFE: &str = "a total is no output, and would begin there again after a crash: remove it";

/// What is kept of a point.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Amount {
    /// Which.
    pub(super) point: PointName,
    /// Its total.
    pub(super) total: f64,
    /// How far the kernel had counted then, where it does, and a number for which of its counts that was.
    pub(super) count: Option<(u64, u32)>,
}

/// Says where a device has more totals than one file has room for; of each, whether its count is kept as well.
pub(super) fn fault<'a>(points: impl Iterator<Item = (&'a PointName, bool)>) -> Option<Fault> {
    let (mut room, mut count, mut fitting) = (SLOT - FRAME, 0, 0);
    for (point, has_count) in points {
        count += 1;
        let needed = |entry| point.as_str().len() + entry;
        let needed = needed(ENTRY) + if has_count { needed(COUNT) } else { 0 };
        if let Some(left) = room.checked_sub(needed).filter(|_| fitting + 1 == count) {
            (room, fitting) = (left, count);
        }
    }
    let text = || {
        format!(
            "the totals of {count} points have no room in one block of flash: expected {fitting} of them, and a device of its own for the others, or shorter names"
        )
    };
    (fitting < count).then(|| Fault::at("point", text()))
}

/// The totals of a device, for one who must not wait for the flash. Where there is no state directory they are kept nowhere.
#[derive(Debug, Default)]
pub(super) struct Flash {
    totals: Option<Arc<Mutex<Totals>>>,
    /// Why they could not be saved last.
    trouble: Option<String>,
}

impl Flash {
    /// The totals of before, of which these are configured. What is damaged is logged, and begins at 0.
    ///
    /// # Errors
    /// When the folder can't be used, or a later version wrote the file.
    pub(super) async fn load(io: &DeviceIo, points: BTreeSet<PointName>) -> Result<Self, DeviceError> {
        let Some(folder) = io.held().folder().map(Folder::new) else { return Ok(Flash::default()) };
        let device = io.device().clone();
        let opened = tokio::task::spawn_blocking(move || Totals::open(Box::new(folder), &device, points)).await;
        match opened.map_err(|error| DeviceError::Panic(error.to_string()))? {
            Ok((totals, told)) => {
                if let Some(told) = told {
                    tracing::error!(DEVICE = %io.device(), "{told}");
                }
                Ok(Flash { totals: Some(Arc::new(Mutex::new(totals))), trouble: None })
            }
            Err(error) => Err(DeviceError::Open(format!("the totals can't be read: {error}"))),
        }
    }

    /// What is on flash for a point; `None`: nothing was ever counted.
    pub(super) fn of(&self, point: &PointName) -> Option<f64> {
        self.totals.as_ref().and_then(|totals| locked(totals).of(point))
    }

    /// How far the kernel had counted in its count of this number, and whether that was in this boot, where that is known.
    #[cfg_attr(not(feature = "gpio"), allow(dead_code))]
    pub(super) fn count_of(&self, point: &PointName, id: u32) -> Option<(u64, Option<bool>)> {
        let totals = locked(self.totals.as_ref()?);
        let (count, _) = totals.amount(point)?.count.filter(|(_, of)| *of == id)?;
        Some((count, is_same_boot(&totals.saved.boot, time::boot())))
    }

    /// Whether nothing was ever counted, as far as can be known.
    pub(super) fn is_new(&self, point: &PointName) -> bool {
        self.totals.as_ref().is_none_or(|totals| locked(totals).is_new(point))
    }

    /// Whether the last save was refused.
    #[cfg_attr(not(feature = "gpio"), allow(dead_code))]
    pub(super) fn is_refused(&self) -> bool {
        self.trouble.is_some()
    }

    /// Puts totals on flash, outside the runtime's threads. That it fails is logged once.
    ///
    /// # Errors
    /// Why the flash does not take them.
    pub(super) async fn save(&mut self, io: &DeviceIo, all: Vec<Amount>) -> Result<(), String> {
        let Some(totals) = self.totals.clone() else { return Ok(()) };
        let saved = tokio::task::spawn_blocking(move || locked(&totals).save(&all)).await;
        let saved = saved.map_err(|error| error.to_string()).and_then(|saved| saved.map_err(|error| error.to_string()));
        match (&self.trouble, &saved) {
            (None, Err(text)) => {
                tracing::error!(DEVICE = %io.device(), "the totals can't be saved, and are stale as long: {text}");
            }
            (Some(_), Ok(())) => tracing::info!(DEVICE = %io.device(), "the totals can be saved again"),
            _ => {}
        }
        self.trouble = saved.clone().err();
        saved
    }

    /// Does a write that sets totals, to these; or says what is wrong with it. The error is its answer.
    ///
    /// # Errors
    /// When it is wrong or too late, and nothing was done; when the flash does not take them.
    pub(super) async fn set(
        &mut self,
        io: &mut DeviceIo,
        write: &Write,
        amounts: Result<Vec<Amount>, String>,
    ) -> Result<(), WriteError> {
        let amounts = amounts.map_err(WriteError::Failed)?;
        io.begin(write)?;
        let saved = self.save(io, amounts).await;
        saved.map_err(|text| WriteError::Unknown(format!("the total could not be saved: {text}")))
    }
}

/// Reports a total. One that may go back, or lacks something, is not to be taken for one that never does.
pub(super) async fn tell(io: &mut DeviceIo, point: &PointName, value: &Value, is_whole: bool) {
    if is_whole { io.report(point, value).await } else { io.report_stale(point, value).await }
}

/// Whether what was saved at this boot is of that one; `None`: one of them is not known.
fn is_same_boot(saved: &str, now: BootId) -> Option<bool> {
    let is_known = now != BootId::UNKNOWN && !saved.is_empty() && saved != BootId::UNKNOWN.to_string();
    is_known.then(|| saved == now.to_string())
}

fn locked(totals: &Mutex<Totals>) -> MutexGuard<'_, Totals> {
    // Whole after each statement, so a panic elsewhere has not broken it.
    totals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands in a slot. Written and read by hand: derived code for these few keys would be several times as large.
#[derive(Debug, Clone, PartialEq)]
struct Saved {
    version: u64,
    /// Counts the writes.
    serial: u64,
    amounts: Vec<Amount>,
    /// At which boot the kernel had counted so far; empty: it has counted nothing.
    boot: String,
}

/// The totals of a device.
#[derive(Debug)]
struct Totals {
    disk: Box<dyn Disk>,
    file: String,
    /// Those that are configured.
    points: BTreeSet<PointName>,
    saved: Saved,
    /// The file was damaged: what was counted before, nobody knows.
    is_lost: bool,
    /// The serial of the last save, where it failed: nobody knows whether the flash has it.
    unsure: Option<u64>,
    /// What was read is on flash: the process before may have written what it had not synced, or could not.
    is_on_flash: bool,
}

impl Totals {
    /// Reads the totals. What is damaged is told in the second part, and counts from 0.
    ///
    /// # Errors
    /// When the folder can't be used, or a later version wrote the file: it is left alone.
    fn open(
        mut disk: Box<dyn Disk>,
        device: &DeviceName,
        points: BTreeSet<PointName>,
    ) -> io::Result<(Self, Option<String>)> {
        let file = format!("{FOLDER}/{device}");
        let known = disk.list(FOLDER)?.iter().any(|name| *name == device.as_str());
        if !known {
            let saved = Saved::default();
            return Ok((Totals { disk, file, points, saved, is_lost: false, unsure: None, is_on_flash: true }, None));
        }
        let (mut slots, mut is_first) = (Vec::new(), true);
        for offset in [0, SLOT] {
            let mut bytes = vec![0; SLOT];
            let count = disk.read(&file, offset as u64, &mut bytes)?;
            slots.extend(Saved::read(bytes.get(..count).unwrap_or_default()));
            // The first save goes to the second slot, and a power cut may have torn it.
            is_first &= offset > 0 || bytes.iter().all(|byte| *byte == 0);
        }
        let newest = slots.into_iter().max_by_key(|saved| saved.serial);
        if let Some(version) = newest.as_ref().map(|saved| saved.version).filter(|version| *version > VERSION) {
            let text = format!("{file} is of version {version}, which a later sluicegate wrote; it is left alone");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let told = (newest.is_none() && !is_first).then(|| format!("{file} is damaged: its totals begin at 0 again"));
        let (is_on_flash, saved) = (newest.is_none(), newest.unwrap_or_default());
        Ok((Totals { disk, file, points, saved, is_lost: told.is_some(), unsure: None, is_on_flash }, told))
    }

    /// What is on flash for a point; `None`: nothing was ever counted.
    fn of(&self, point: &PointName) -> Option<f64> {
        self.amount(point).map(|amount| amount.total)
    }

    fn amount(&self, point: &PointName) -> Option<&Amount> {
        self.saved.amounts.iter().find(|amount| amount.point == *point)
    }

    /// Whether nothing was ever counted, as far as can be known.
    fn is_new(&self, point: &PointName) -> bool {
        self.of(point).is_none() && !self.is_lost
    }

    /// Puts the totals on flash; those of points that are not named stay as they are. Those that are not configured any more are
    /// kept as long as there is room.
    ///
    /// # Errors
    /// When the flash does not take them: those of before are there.
    fn save(&mut self, all: &[Amount]) -> io::Result<()> {
        let mut next = self.saved.clone();
        let boot =
            if all.iter().any(|amount| amount.count.is_some()) { time::boot().to_string() } else { String::new() };
        if next.boot != boot {
            // Those of another boot say nothing any more.
            next.amounts.iter_mut().for_each(|amount| amount.count = None);
            next.boot = boot;
        }
        for amount in all {
            match next.amounts.iter_mut().find(|known| known.point == amount.point) {
                Some(known) => known.clone_from(amount),
                None => next.amounts.push(amount.clone()),
            }
        }
        if !self.is_on_flash {
            // The same bytes: torn they are as before. First, since the other slot may be all that the flash has.
            let (offset, mut bytes) = (self.saved.serial % 2 * SLOT as u64, vec![0; SLOT]);
            let count = self.disk.read(&self.file, offset, &mut bytes)?;
            self.disk.write(&self.file, offset, bytes.get(..count).unwrap_or_default())?;
            self.disk.sync(&self.file)?;
            self.disk.sync_folder(FOLDER)?;
            self.is_on_flash = true;
        }
        if next == self.saved && self.unsure.is_none() {
            return Ok(());
        }
        // Behind a save that failed: above it, and in its slot, so that the last good one stays.
        next.serial = self.unsure.map_or(next.serial + 1, |serial| serial + 2);
        self.unsure = Some(next.serial);
        let mut slot = next.slot();
        if slot.len() > SLOT {
            next.amounts.retain(|amount| self.points.contains(&amount.point));
            slot = next.slot();
        }
        if slot.len() > SLOT {
            return Err(io::Error::other("too many points for one file"));
        }
        let is_new = self.saved.serial == 0;
        self.disk.write(&self.file, next.serial % 2 * SLOT as u64, slot.as_bytes())?;
        self.disk.sync(&self.file)?;
        if is_new {
            self.disk.sync_folder(FOLDER)?;
        }
        self.saved = next;
        self.unsure = None;
        Ok(())
    }
}

impl Default for Saved {
    fn default() -> Self {
        Saved { version: VERSION, serial: 0, amounts: Vec::new(), boot: String::new() }
    }
}

impl Saved {
    /// As it stands on flash.
    fn slot(&self) -> String {
        // A name has nothing that JSON has another spelling for.
        let list = |value: &dyn Fn(&Amount) -> Option<String>| {
            let each =
                self.amounts.iter().filter_map(|amount| Some(format!("\"{}\":{}", amount.point, value(amount)?)));
            each.collect::<Vec<_>>().join(",")
        };
        let totals = list(&|amount| Some(format!("{:?}", amount.total)));
        let counts = list(&|amount| amount.count.map(|(count, id)| format!("[{count},{id}]")));
        let more = match self.boot.as_str() {
            "" => String::new(),
            boot => format!(",\"counts\":{{{counts}}},\"boot\":\"{boot}\""),
        };
        let Saved { version, serial, .. } = self;
        let json = format!("{{\"version\":{version},\"serial\":{serial},\"totals\":{{{totals}}}{more}}}");
        format!("{:08x} {json}\n", CRC_32.checksum(json.as_bytes()))
    }

    /// Of a later version no more than which it is.
    fn read(slot: &[u8]) -> Option<Self> {
        let line = slot.split(|byte| *byte == b'\n').next()?;
        let (crc, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
        if u32::from_str_radix(crc, 16).ok()? != CRC_32.checksum(json.as_bytes()) {
            return None;
        }
        let json: Json = serde_json::from_str(json).ok()?;
        let (version, serial) = (json.get("version")?.as_u64()?, json.get("serial")?.as_u64()?);
        let mut amounts = Vec::new();
        let totals = json.get("totals").and_then(Json::as_object).filter(|_| version <= VERSION);
        for (name, total) in totals.into_iter().flatten() {
            let count = json.get("counts").and_then(|counts| {
                let count = counts.get(name)?.as_array()?;
                Some((count.first()?.as_u64()?, count.get(1)?.as_u64()?.try_into().ok()?))
            });
            amounts.push(Amount { point: PointName::new(name).ok()?, total: total.as_f64()?, count });
        }
        let boot = json.get("boot").and_then(Json::as_str).unwrap_or_default().to_owned();
        Some(Saved { version, serial, amounts, boot })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::fake::{Failing, Fake};

    fn device() -> DeviceName {
        DeviceName::new("meters").unwrap()
    }

    fn point() -> PointName {
        PointName::new("water").unwrap()
    }

    fn amount(point: PointName, total: f64) -> Amount {
        Amount { point, total, count: None }
    }

    fn open(disk: &Fake) -> Totals {
        let (totals, told) = Totals::open(Box::new(disk.clone()), &device(), BTreeSet::from([point()])).unwrap();
        assert_eq!(told, None);
        totals
    }

    fn save(totals: &mut Totals, total: u32) -> io::Result<()> {
        totals.save(&[amount(point(), f64::from(total))])
    }

    #[test]
    fn a_point_that_is_not_configured_any_more_keeps_its_total() {
        let disk = Fake::new();
        let mut totals = open(&disk);
        assert_eq!(totals.of(&point()), None);
        save(&mut totals, 7).unwrap();
        totals.save(&[amount(PointName::new("gas").unwrap(), 1.0)]).unwrap();
        assert_eq!(open(&disk).of(&point()), Some(7.0));
    }

    #[test]
    fn what_the_config_takes_has_room_whatever_it_is() {
        let name = |n: usize| PointName::new(&format!("{n:x<64}")).unwrap();
        for has_count in [false, true] {
            let told = |count| fault((0..count).map(name).collect::<Vec<_>>().iter().map(|name| (name, has_count)));
            let most = (1..).find(|count| told(*count).is_some()).unwrap() - 1;
            let disk = Fake::new();
            let own: BTreeSet<PointName> = (0..most).map(name).collect();
            let (mut totals, _) = Totals::open(Box::new(disk.clone()), &device(), own.clone()).unwrap();
            // What was there before has its room as long as nobody else wants it.
            let kept = |point: PointName| Amount {
                point,
                total: -f64::MIN_POSITIVE,
                count: has_count.then_some((u64::MAX, u32::MAX)),
            };
            totals.save(&(997..1000).map(name).map(kept).collect::<Vec<_>>()).unwrap();
            totals.saved.serial = u64::MAX - 2;
            totals.save(&own.iter().cloned().map(kept).collect::<Vec<_>>()).unwrap();
            assert_eq!(open(&disk).of(&name(0)), Some(-f64::MIN_POSITIVE));
            assert_eq!(open(&disk).of(&name(999)), None);
            let text = told(most + 1).unwrap().text;
            assert!(text.starts_with(&format!("the totals of {} points have no room", most + 1)), "{text}");
            assert!(text.contains(&format!("expected {most} of them")), "{text}");
        }
    }

    #[test]
    fn how_far_the_kernel_was_is_known_of_the_boot_in_which_that_was() {
        let disk = Fake::new();
        let mut totals = open(&disk);
        totals.save(&[Amount { count: Some((815, 1)), ..amount(point(), 7.0) }]).unwrap();
        let flash = || Flash { totals: Some(Arc::new(Mutex::new(open(&disk)))), trouble: None };
        let is_known = (time::boot() != BootId::UNKNOWN).then_some(true);
        assert_eq!(flash().count_of(&point(), 1), Some((815, is_known)));
        assert_eq!(flash().count_of(&point(), 2), None, "that is another count");
        let (one, unknown) = (BootId(1).to_string(), BootId::UNKNOWN.to_string());
        for (saved, now, expected) in [
            (one.as_str(), BootId(1), Some(true)),
            (&one, BootId(2), Some(false)),
            (&one, BootId::UNKNOWN, None),
            (&unknown, BootId(1), None),
            (&unknown, BootId::UNKNOWN, None),
        ] {
            assert_eq!(is_same_boot(saved, now), expected, "{saved} {now}");
        }
        // A point that counts something else from then on leaves none behind.
        save(&mut totals, 8).unwrap();
        assert_eq!(flash().count_of(&point(), 1), None);
    }

    #[test]
    fn what_did_not_change_is_not_written() {
        let disk = Fake::new();
        let mut totals = open(&disk);
        save(&mut totals, 7).unwrap();
        let before = disk.operations();
        save(&mut totals, 7).unwrap();
        assert_eq!(disk.operations(), before);
    }

    #[test]
    fn a_flash_that_fails_leaves_what_was() {
        let disk = Fake::new();
        let mut totals = open(&disk);
        save(&mut totals, 7).unwrap();
        disk.set_failing(Some(Failing::ReadOnly));
        assert!(save(&mut totals, 8).is_err());
        assert_eq!(totals.of(&point()), Some(7.0));
        disk.set_failing(None);
        save(&mut totals, 9).unwrap();
        assert_eq!(open(&disk).of(&point()), Some(9.0));
    }

    #[test]
    fn a_file_of_a_later_version_is_left_alone_and_a_damaged_one_told() {
        let disk = Fake::new();
        let mut totals = open(&disk);
        save(&mut totals, 7).unwrap();
        let json = r#"{"version":2,"serial":9,"wheels":[]}"#;
        let slot = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        disk.clone().write("totals/meters", 0, slot.as_bytes()).unwrap();
        let error = Totals::open(Box::new(disk.clone()), &device(), BTreeSet::new()).unwrap_err().to_string();
        assert!(error.contains("of version 2"), "{error}");
        for offset in [0, SLOT as u64] {
            disk.clone().write("totals/meters", offset, b"noise").unwrap();
        }
        let (totals, told) = Totals::open(Box::new(disk), &device(), BTreeSet::new()).unwrap();
        assert!(told.is_some() && totals.of(&point()).is_none());
    }

    proptest! {
        /// Whatever a power cut tears: what was saved is there, and nothing that was never counted.
        #[test]
        fn what_was_saved_outlives_power_cuts(
            cuts in proptest::collection::vec((0u64..12, any::<u32>()), 1..8)
        ) {
            let disk = Fake::new();
            let (mut counted, mut durable) = (0, 0);
            for (fuse, mut chance) in cuts {
                let mut totals = open(&disk);
                let found = totals.of(&point()).unwrap_or(0.0) as u32;
                prop_assert!((durable..=counted).contains(&found), "{durable} <= {found} <= {counted}");
                (counted, durable) = (found, found);
                disk.set_fuse(Some(fuse));
                while !disk.is_dead() {
                    counted += 3;
                    if save(&mut totals, counted).is_ok() {
                        durable = counted;
                    }
                }
                disk.set_fuse(None);
                disk.cut(|| {
                    chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    chance >> 8
                });
            }
        }

        /// Whatever fails, is killed or cut in between: what a save took is there from then on.
        #[test]
        fn what_was_saved_outlives_failures_kills_and_cuts(
            steps in proptest::collection::vec((0u8..5, 0u64..6, any::<u32>()), 1..40)
        ) {
            let disk = Fake::new();
            let mut totals = open(&disk);
            let (mut counted, mut durable) = (0, 0);
            for (step, fuse, mut chance) in steps {
                match step {
                    0 => disk.set_failing(Some(Failing::Sync)),
                    1 => disk.set_failing(Some(Failing::ReadOnly)),
                    2 => disk.set_fuse(Some(fuse)),
                    _ => {}
                }
                counted += chance % 2;
                if save(&mut totals, counted).is_ok() {
                    durable = counted;
                }
                disk.set_failing(None);
                disk.set_fuse(None);
                if step == 2 {
                    disk.cut(|| {
                        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        chance >> 8
                    });
                }
                if step >= 2 || chance % 3 == 0 {
                    totals = open(&disk);
                    let found = totals.of(&point()).unwrap_or(0.0) as u32;
                    prop_assert!((durable..=counted).contains(&found), "{durable} <= {found} <= {counted}");
                    counted = found;
                }
            }
        }
    }
}
