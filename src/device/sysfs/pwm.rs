//! One channel of PWM (Linux, Documentation/driver-api/pwm.rst): its value is the share of the period in which it is on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::attribute::{put, text, wait};
use super::config::Pwm;
use super::find::{Beside, find};
use crate::model::Value;

/// udev gives a channel that was just exported to its group.
const PATIENCE: Duration = Duration::from_secs(2);

/// A channel of a chip.
#[derive(Debug)]
pub(super) struct Channel {
    chip: PathBuf,
    matches: BTreeMap<String, String>,
    number: u32,
    /// In nanoseconds, as the kernel has it.
    period: u64,
}

impl Channel {
    pub(super) fn new(chip: PathBuf, matches: BTreeMap<String, String>, pwm: Pwm) -> Self {
        let period = u64::try_from(pwm.period.0.as_nanos()).unwrap_or(u64::MAX);
        Channel { chip, matches, number: pwm.channel, period }
    }

    /// The chip, as it is called now; of a channel that is exported, the file of its share.
    pub(super) fn path(&self) -> Result<PathBuf, String> {
        let chip = self.chip()?;
        let share = self.below(&chip).join("duty_cycle");
        Ok(if share.exists() { share } else { chip.join("export") })
    }

    fn chip(&self) -> Result<PathBuf, String> {
        find(&self.chip, &self.matches, Beside::Within)
    }

    fn below(&self, chip: &Path) -> PathBuf {
        chip.join(format!("pwm{}", self.number))
    }

    /// Whether the channel is exported: somebody else may take that back, and the chip does with it what it likes.
    pub(super) fn there(&self) -> Result<(), String> {
        let share = self.below(&self.chip()?).join("duty_cycle");
        let gone = || format!("there is no {}: somebody has unexported the channel", share.display());
        share.exists().then_some(()).ok_or_else(gone)
    }

    /// Exports the channel where it is not, and gives it its period and this share. One that runs with this period goes on as it
    /// is. Blocks.
    pub(super) fn open(&self, safe: Option<&Value>) -> Result<(), String> {
        let chip = self.chip()?;
        let channel = self.below(&chip);
        if !channel.exists() {
            put(&chip.join("export"), &self.number.to_string())?;
        }
        let end = Instant::now() + PATIENCE;
        let share = safe.and_then(|safe| self.share(safe).ok()).unwrap_or_default();
        while let Err(error) = self.set_up(&channel, share) {
            if Instant::now() > end {
                return Err(error);
            }
            wait();
        }
        Ok(())
    }

    /// `share` in nanoseconds of the period.
    fn set_up(&self, channel: &Path, share: u64) -> Result<(), String> {
        let set = |share: u64| match ask(channel, "duty_cycle")? {
            // Kernels before 6.11 take nothing at all while the period is 0.
            is if is == share => Ok(()),
            _ => put(&channel.join("duty_cycle"), &share.to_string()),
        };
        let has_period = ask(channel, "period")? == self.period;
        if !has_period {
            // A period shorter than the share that is on is refused.
            set(0)?;
            put(&channel.join("period"), &self.period.to_string())?;
        }
        let is_off = ask(channel, "enable")? == 0;
        if is_off || !has_period {
            set(share)?;
        }
        if is_off {
            put(&channel.join("enable"), "1")?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "10 s are 10^10 ns, far below 2^53")]
    pub(super) fn read(&self) -> Result<Value, String> {
        let channel = self.below(&self.chip()?);
        let on = if ask(&channel, "enable")? == 0 { 0 } else { ask(&channel, "duty_cycle")? };
        let period = ask(&channel, "period")?.max(1);
        Ok(Value::Float(on as f64 * 100.0 / period as f64))
    }

    pub(super) fn write(&self, value: &Value) -> Result<(), String> {
        let share = self.share(value)?;
        let channel = self.below(&self.chip()?);
        put(&channel.join("duty_cycle"), &share.to_string())
    }

    /// So many nanoseconds of the period.
    #[expect(clippy::cast_precision_loss, reason = "10 s are 10^10 ns, far below 2^53")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to the period, which fits")]
    fn share(&self, value: &Value) -> Result<u64, String> {
        let share = value.as_f64().filter(|share| (0.0..=100.0).contains(share));
        let share = share.ok_or_else(|| format!("`{value}`: expected 0 to 100 percent"))?;
        Ok((share / 100.0 * self.period as f64).round() as u64)
    }
}

fn ask(channel: &Path, what: &str) -> Result<u64, String> {
    let path = channel.join(what);
    let text = text(&path)?;
    text.trim().parse().map_err(|_| format!("{} holds {:?}, which is no number", path.display(), text.trim()))
}
