//! Whether the wall clock can be believed: looks once a second, and tells those who must know.
//!
//! Once a time service has set the clock, it is believed for the rest of this run: without a network the kernel takes
//! that back after hours, but a quartz loses seconds a day, and a date that is off by those is worth more than none.
//!
//! The time that was last saved judges only the clock that the board booted with, which may come from an old file. Who
//! sets the clock after that, by a time service or by hand, knows better than the flash: from then on no more than the
//! date of the program is asked for. Else a clock that was once ahead by years would lock the board out until then.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::kernel_clock;
use crate::config::{self, Trust};
use crate::model::{Problem, Problems, Span, Timestamp, time};

/// How often it looks. A link that waits for the clock comes so much later.
const LOOK: Duration = Duration::from_secs(1);

/// By so much the wall clock moves against the time since boot when somebody sets it. Slewing moves it by half a
/// millisecond a second, and between two readings of the clocks passes less.
const STEP: Duration = Duration::from_secs(1);

/// systemd-timesyncd makes it when it has set the clock. A sandbox that hides the kernel's answer leaves this.
const MARKER: &str = "/run/systemd/timesync/synchronized";

/// The task that looks after the clock.
#[derive(Debug)]
pub(super) struct Clock {
    config: watch::Receiver<config::Clock>,
    judge: Judge,
    wait: Span,
    /// Why it is not believed, and since when.
    doubted: Option<(Doubt, Timestamp)>,
    changes: watch::Sender<u32>,
    problems: watch::Sender<Problems>,
}

/// Decides from what is seen whether the clock is believed.
#[derive(Debug)]
struct Judge {
    trust: Trust,
    /// The last time that was saved, since 1970.
    saved: Duration,
    /// A time service has set the clock.
    kept: bool,
    /// Somebody has set it since this start.
    set: bool,
    before: Option<Timestamp>,
}

/// What comes of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    /// A date that has passed for certain.
    past: Duration,
    /// Why the clock is not believed; `None` when it is.
    doubt: Option<Doubt>,
    /// It was set since the last look.
    stepped: bool,
}

/// Why the clock is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// No time service has set it.
    Unkept,
    /// It shows a time that has passed.
    Behind,
}

impl Clock {
    /// Looks for the first time, so that whatever comes after knows how the clock is. `saved`: the last time that was
    /// saved, since 1970. Gives besides: what counts the changes, and the problems.
    pub(super) fn new(
        config: watch::Receiver<config::Clock>,
        saved: Duration,
    ) -> (Self, watch::Receiver<u32>, watch::Receiver<Problems>) {
        let (changes, changed) = watch::channel(0);
        let (problems, told) = watch::channel(Problems::new());
        let config::Clock { wait, trust } = *config.borrow();
        let judge = Judge { trust, saved, kept: false, set: false, before: None };
        let mut clock = Clock { config, judge, wait, doubted: None, changes, problems };
        clock.look();
        (clock, changed, told)
    }

    /// Looks until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => self.look(),
            }
        }
    }

    fn look(&mut self) {
        config::Clock { wait: self.wait, trust: self.judge.trust } = *self.config.borrow();
        let (before, now) = (self.judge.before, time::now());
        let verdict = self.judge.look(is_kept, &now);
        tell(&verdict, self.judge.trusts());
        if let Some(before) = before.filter(|_| verdict.stepped) {
            tracing::info!("the clock was set: it showed {}, now {}", shown(before.wall), shown(now.wall));
        }
        let news = self.doubted.map(|(doubt, _)| doubt) != verdict.doubt;
        if news {
            self.doubted = self.doubt(verdict, &now);
        }
        if news || verdict.stepped {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// A line when doubt begins and one when it ends, and the problem in between.
    fn doubt(&self, verdict: Verdict, now: &Timestamp) -> Option<(Doubt, Timestamp)> {
        let Some(doubt) = verdict.doubt else {
            if let Some((_, since)) = self.doubted {
                let waited = now.uptime.saturating_sub(since.uptime).as_secs();
                tracing::info!("the clock is set after {waited} s: {}", shown(now.wall));
            }
            self.problems.send_replace(Problems::new());
            return None;
        };
        let (fault, remedy) = explain(doubt, verdict, now);
        let wait = self.wait;
        let text = format!(
            "the clock {fault}: readings wait for it up to {wait} after the first connection, and then go out undated; \
             {remedy}"
        );
        if self.doubted.is_none() {
            tracing::warn!("{text}");
        }
        let since = self.doubted.map_or(*now, |(_, since)| since);
        self.problems.send_replace([(("clock", String::new()), Problem { code: "clock", text, since })].into());
        Some((doubt, since))
    }
}

impl Judge {
    fn trusts(&self) -> bool {
        self.kept || self.trust == Trust::Always
    }

    /// `kept`: whether a time service has set the clock; not asked once it had.
    fn look(&mut self, kept: impl FnOnce() -> bool, now: &Timestamp) -> Verdict {
        let stepped = self.before.replace(*now).is_some_and(|before| {
            let expected = before.wall + now.uptime.saturating_sub(before.uptime);
            now.wall.abs_diff(expected) > STEP
        });
        self.kept = self.kept || kept();
        self.set |= stepped || self.kept;
        let past = if self.set { time::BUILD_DATE } else { self.saved.max(time::BUILD_DATE) };
        let doubt = match self.trusts() {
            false => Some(Doubt::Unkept),
            true => (now.wall < past).then_some(Doubt::Behind),
        };
        Verdict { past, doubt, stepped }
    }
}

/// What is wrong with the clock, and what to do.
fn explain(doubt: Doubt, verdict: Verdict, now: &Timestamp) -> (String, &'static str) {
    match doubt {
        Doubt::Unkept => (
            "is not synchronised".to_owned(),
            "see to the time service (NTP), or set clock.trust = \"always\" if this board keeps the time by itself",
        ),
        Doubt::Behind => (format!("shows {}, but {} has passed", shown(now.wall), shown(verdict.past)), "set it"),
    }
}

/// Looks once, for those who do not stay. What is wrong with the clock, if anything.
pub(super) fn look_once(config: config::Clock) -> Option<String> {
    let mut judge = Judge { trust: config.trust, saved: Duration::ZERO, kept: false, set: false, before: None };
    let now = time::now();
    let verdict = judge.look(is_kept, &now);
    tell(&verdict, judge.trusts());
    let (fault, remedy) = explain(verdict.doubt?, verdict, &now);
    Some(format!("it {fault}; {remedy}"))
}

fn tell(verdict: &Verdict, trusted: bool) {
    time::past(verdict.past);
    time::believe(trusted.then_some(verdict.past));
}

/// Neither waits for anything: the marker is in RAM.
fn is_kept() -> bool {
    kernel_clock::is_kept() || Path::new(MARKER).exists()
}

fn shown(wall: Duration) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + wall).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BootId;

    const DAY: u64 = 24 * 3600;

    /// Looks at these times: seconds since boot, seconds of the wall clock after the date of the program (before, where
    /// negative), whether a time service has set it. The verdict of the last look.
    fn check(trust: Trust, saved: u64, looks: &[(u64, i64, bool)]) -> Verdict {
        let build = i64::try_from(time::BUILD_DATE.as_secs()).unwrap();
        let saved = Duration::from_secs(saved);
        let mut judge = Judge { trust, saved, kept: false, set: false, before: None };
        let mut verdict = None;
        for (uptime, wall, kept) in looks {
            let wall = Duration::from_secs(u64::try_from(build + wall).unwrap());
            let now = Timestamp { uptime: Duration::from_secs(*uptime), wall, synced: false, boot: BootId(7) };
            verdict = Some(judge.look(|| *kept, &now));
        }
        verdict.unwrap()
    }

    #[test]
    fn a_clock_is_believed_when_there_is_a_reason() {
        use Doubt::{Behind, Unkept};
        use Trust::{Always, Synchronized};
        const FIRST: i64 = -56 * 365 * 24 * 3600;
        let build = time::BUILD_DATE.as_secs();
        for (what, trust, saved, looks, doubt, stepped) in [
            ("a board without a battery", Synchronized, 0, &[(5, FIRST, false)][..], Some(Unkept), false),
            ("it shows a likely time, but nobody says so", Synchronized, 0, &[(5, 9, false)], Some(Unkept), false),
            ("it was set by a time service", Synchronized, 0, &[(5, 9, true)], None, false),
            ("set while it runs", Synchronized, 0, &[(5, FIRST, false), (6, 9, true)], None, true),
            ("set by hand", Synchronized, 0, &[(5, FIRST, false), (6, 9, false)], Some(Unkept), true),
            ("the network is gone for a day", Synchronized, 0, &[(5, 9, true), (86405, 86409, false)], None, false),
            ("slewed", Synchronized, 0, &[(5, 9, true), (65, 70, true)], None, false),
            ("a time service in 1970", Synchronized, 0, &[(5, FIRST, true)], Some(Behind), false),
            ("set back to 1970", Synchronized, 0, &[(5, 9, true), (6, FIRST, true)], Some(Behind), true),
            ("what was saved was wrong", Synchronized, build + 9 * DAY, &[(5, 9, true)], None, false),
            ("a battery", Always, build, &[(5, 9, false)], None, false),
            ("an empty one", Always, build, &[(5, FIRST, false)], Some(Behind), false),
            ("a clock from an old file", Always, build + 9 * DAY, &[(5, 9, false)], Some(Behind), false),
            ("and then set", Always, build + 9 * DAY, &[(5, 9, false), (6, 3 * 86400, false)], None, true),
            ("what was saved was wrong", Always, build + 9 * DAY, &[(5, 9, false), (6, 4, false)], None, true),
        ] {
            let found = check(trust, saved, looks);
            assert_eq!((found.doubt, found.stepped), (doubt, stepped), "{what}");
        }
    }

    #[test]
    fn what_was_saved_has_passed_until_the_clock_is_set() {
        let saved = time::BUILD_DATE + Duration::from_secs(DAY);
        for (looks, expected) in [
            (&[(5, 9, false)][..], saved),
            (&[(5, 9, false), (6, 99, false)], time::BUILD_DATE),
            (&[(5, 9, true)], time::BUILD_DATE),
        ] {
            assert_eq!(check(Trust::Synchronized, saved.as_secs(), looks).past, expected, "{looks:?}");
        }
    }
}
