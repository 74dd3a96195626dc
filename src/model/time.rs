//! Time on a board that may have no clock of its own.
//!
//! Two clocks are read here and nowhere else: `CLOCK_BOOTTIME`, which counts from boot, through suspend, and never
//! steps, and the wall clock, which a board without a battery sets from the network some time after it booted.
//! Durations and deadlines go by the first; only what people read carries the second.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// 2026-11-01: this code was written after it, so a wall clock that shows less has not been set.
const BUILD_FLOOR: Duration = Duration::from_secs(1_793_491_200);

/// A moment, as far as the board knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// `CLOCK_BOOTTIME`: since this boot.
    pub uptime: Duration,
    /// The wall clock, as time since 1970-01-01 UTC.
    pub wall: Duration,
    /// Whether the wall clock can be believed.
    pub synced: bool,
    /// The boot that `uptime` counts from; [`BootId::UNKNOWN`] for one that was kept on flash and is dated.
    pub boot: BootId,
}

/// The kernel's random id of a boot (`/proc/sys/kernel/random/boot_id`, a UUID).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BootId(pub u128);

impl BootId {
    /// Nobody knows which boot.
    pub const UNKNOWN: BootId = BootId(0);
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// This boot; where `/proc/sys` is hidden by the unit, it passes the id in `SLUICEGATE_BOOT_ID`.
pub fn boot() -> BootId {
    /// The same for every process that this kernel will ever run.
    static BOOT: OnceLock<BootId> = OnceLock::new();
    *BOOT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let text = text.or_else(|| std::env::var("SLUICEGATE_BOOT_ID").ok()).unwrap_or_default();
        u128::from_str_radix(&text.trim().replace('-', ""), 16).map_or(BootId::UNKNOWN, BootId)
    })
}

/// Now, by both clocks.
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { uptime: uptime(), wall, synced: wall >= BUILD_FLOOR, boot: boot() }
}

/// `CLOCK_BOOTTIME`: time since boot, suspend included. It never steps.
pub fn uptime() -> Duration {
    let t = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(t.tv_sec).unwrap_or_default(), u32::try_from(t.tv_nsec).unwrap_or_default())
}

impl Timestamp {
    /// How long ago this was, where that can be known: both dates are right, or both are of one boot.
    pub fn age(&self, now: &Timestamp) -> Option<Duration> {
        if self.boot == now.boot && self.boot != BootId::UNKNOWN {
            Some(now.uptime.saturating_sub(self.uptime))
        } else if self.synced && now.synced {
            Some(now.wall.saturating_sub(self.wall))
        } else {
            None
        }
    }

    /// RFC 3339 in UTC with milliseconds, or `None` where the wall clock was not set: no reading is dated 1970.
    pub fn rfc3339(&self) -> Option<String> {
        self.synced.then(|| humantime::format_rfc3339_millis(UNIX_EPOCH + self.wall).to_string())
    }
}

/// Reads a time as commands carry it: RFC 3339, or seconds since 1970 as a number. The result is since 1970.
///
/// # Errors
/// When it is neither.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: expected RFC 3339 such as \"2026-11-22T10:00:00Z\"");
    let moment = humantime::parse_rfc3339(text).map_err(|_| wrong())?;
    moment.duration_since(UNIX_EPOCH).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unset_clock_gives_no_date() {
        let at = |secs, synced| {
            let wall = Duration::from_secs(secs);
            Timestamp { uptime: Duration::ZERO, wall, synced, boot: BootId::UNKNOWN }
        };
        assert_eq!(at(3, false).rfc3339(), None);
        assert_eq!(at(1_795_341_600, true).rfc3339().as_deref(), Some("2026-11-22T10:00:00.000Z"));
        assert_eq!(parse("2026-11-22T10:00:00Z"), Ok(Duration::from_secs(1_795_341_600)));
        assert!(parse("22.11.2026").is_err());
    }

    #[test]
    fn the_time_since_boot_moves_forward() {
        let before = uptime();
        assert!(now().uptime >= before && before > Duration::ZERO);
    }
}
