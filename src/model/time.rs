//! Time on a board that may have no clock of its own.
//!
//! Two clocks are read here and nowhere else: `CLOCK_BOOTTIME`, which counts from boot, through suspend, and never
//! steps, and the wall clock, which a board without a battery sets from the network some time after it booted.
//! Durations and deadlines go by the first; only what people read carries the second.
//!
//! Whether the wall clock can be believed costs a look at the system, and each reading asks. So whoever runs the
//! program looks ([`believe`], [`past`]) and this keeps the answer.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// 2026-11-01: this code was written after it, so a wall clock that shows less has not been set.
pub const BUILD_DATE: Duration = Duration::from_secs(BUILD_SECONDS as u64);

const BUILD_SECONDS: u32 = 1_793_491_200;

/// No clock shows it: the year 2106.
const NEVER: u32 = u32::MAX;

/// The date from which on the wall clock is believed, in seconds since 1970; [`NEVER`] while it is not, as before
/// anybody has looked. As process-wide as the kernel's own clock, of which it tells: there is one, whoever asks. 32 bits,
/// since a MIPS has no larger atomics.
static BELIEVED_FROM: AtomicU32 = AtomicU32::new(NEVER);

/// A date that has passed for certain, in seconds since 1970.
static PAST: AtomicU32 = AtomicU32::new(BUILD_SECONDS);

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

/// The clock on which a recording is replayed: it shows what the board's did. As process-wide as those it stands in for.
#[cfg(feature = "desk")]
static STAND_IN: OnceLock<Box<dyn Fn() -> Timestamp + Send + Sync>> = OnceLock::new();

/// Puts a clock in the place of the board's, for good; a second one is ignored. Only for a process that does nothing but
/// replay.
#[cfg(feature = "desk")]
pub fn stand_in(clock: impl Fn() -> Timestamp + Send + Sync + 'static) {
    STAND_IN.get_or_init(|| Box::new(clock));
}

/// Now, by both clocks.
pub fn now() -> Timestamp {
    #[cfg(feature = "desk")]
    if let Some(clock) = STAND_IN.get() {
        return clock();
    }
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let synced = wall >= Duration::from_secs(BELIEVED_FROM.load(Ordering::Relaxed).into());
    Timestamp { uptime: uptime(), wall, synced, boot: boot() }
}

/// Says that the wall clock can be believed as soon as it shows this date, since 1970; `None`: that it can't.
pub fn believe(from: Option<Duration>) {
    BELIEVED_FROM.store(from.map_or(NEVER, seconds), Ordering::Relaxed);
}

/// Says that this date, since 1970, has passed for certain, and no later one.
pub fn past(date: Duration) {
    PAST.store(seconds(date), Ordering::Relaxed);
}

/// The time to judge certificates by, since 1970: what the wall clock shows, but where that is not believed never less
/// than a date that has passed for certain. So a board that booted in 1970 has a link before its clock is set.
pub fn at_least() -> Duration {
    let now = now();
    if now.synced { now.wall } else { now.wall.max(Duration::from_secs(PAST.load(Ordering::Relaxed).into())) }
}

/// Whole seconds, up to the last one before [`NEVER`].
fn seconds(date: Duration) -> u32 {
    u32::try_from(date.as_secs()).unwrap_or(NEVER).min(NEVER - 1)
}

/// `CLOCK_BOOTTIME`: time since boot, suspend included. It never steps.
pub fn uptime() -> Duration {
    #[cfg(feature = "desk")]
    if let Some(clock) = STAND_IN.get() {
        return clock().uptime;
    }
    read(ClockId::CLOCK_BOOTTIME)
}

/// `CLOCK_MONOTONIC`: the same without suspend, by which the kernel dates the edges of lines.
pub fn monotonic() -> Duration {
    read(ClockId::CLOCK_MONOTONIC)
}

// By `nix`: `rustix` takes what musl on MIPS has under this name for its 64-bit form, which it is not, and has seconds and
// nanoseconds in one number.
fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).expect("Linux has this clock since 2.6.39, and it can't be refused").into()
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

    /// The same moment with its date, where `now` can tell it: the wall clock is set by now, and it is the same boot, so
    /// that the time since then is known. Else as it is.
    #[must_use]
    pub fn dated(self, now: &Timestamp) -> Self {
        if self.synced || !now.synced || self.boot != now.boot || self.boot == BootId::UNKNOWN {
            return self;
        }
        let ago = now.uptime.saturating_sub(self.uptime);
        Timestamp { wall: now.wall.saturating_sub(ago), synced: true, ..self }
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
    fn a_moment_of_this_boot_is_dated_once_the_clock_is_set() {
        const NOON: u64 = 1_795_341_600;
        let at = |uptime, wall, synced, boot| {
            let (uptime, wall) = (Duration::from_secs(uptime), Duration::from_secs(wall));
            Timestamp { uptime, wall, synced, boot: BootId(boot) }
        };
        let now = at(100, NOON, true, 7);
        for (what, before, now, expected) in [
            ("a minute ago", at(40, 12, false, 7), now, Some(NOON - 60)),
            ("just now, by a clock that was read a moment later", at(101, 12, false, 7), now, Some(NOON)),
            ("dated by itself", at(40, NOON + 5, true, 7), now, Some(NOON + 5)),
            ("of another boot", at(40, 12, false, 8), now, None),
            ("of a boot that nobody knows", at(40, 12, false, 0), at(100, NOON, true, 0), None),
            ("not yet", at(40, 12, false, 7), at(100, 72, false, 7), None),
        ] {
            let dated = before.dated(&now);
            assert_eq!(dated.synced.then_some(dated.wall.as_secs()), expected, "{what}");
            assert_eq!((dated.uptime, dated.boot), (before.uptime, before.boot), "{what}");
        }
    }

    #[test]
    fn a_date_beyond_all_clocks_is_not_never() {
        assert_eq!(seconds(Duration::MAX), NEVER - 1);
        assert_eq!(seconds(BUILD_DATE), BUILD_SECONDS);
    }

    #[test]
    fn the_time_since_boot_moves_forward() {
        let before = uptime();
        assert!(now().uptime >= before && before > Duration::ZERO);
    }
}
