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

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::kernel_clock;
use crate::config::{self, Trust};
use crate::model::{Problem, Problems, Span, Timestamp, event, time};
use crate::service::{self, Notifier};

/// How often it looks. A link that waits for the clock comes so much later.
const LOOK: Duration = Duration::from_secs(1);

/// By so much the wall clock moves against the time since boot when somebody sets it. Slewing moves it by half a
/// millisecond a second, and between two readings of the clocks passes less.
const STEP: Duration = Duration::from_secs(1);

/// systemd-timesyncd makes it when it has set the clock.
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";

/// Where sluicegate-clock.service, while it runs, has its own: it may ask the kernel, which the unit's sandbox refuses
/// to the gateway itself.
const WATCHER: &str = "/run/sluicegate-clock";

/// What it leaves there.
const MARKER: &str = "synchronized";

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
    /// There is nobody to tell whether one has.
    Untold,
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
            tracing::info!(
                MESSAGE_ID = event::CLOCK_STEPPED,
                "the clock was set: it showed {}, now {}",
                shown(before.wall),
                shown(now.wall)
            );
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
                tracing::info!(
                    MESSAGE_ID = event::CLOCK_BELIEVED,
                    "the clock is set after {waited} s: {}",
                    shown(now.wall)
                );
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
            tracing::warn!(MESSAGE_ID = event::CLOCK_DOUBTED, "{text}");
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

    /// `kept`: whether a time service has set the clock, if anybody tells; not asked once it had.
    fn look(&mut self, kept: impl FnOnce() -> Option<bool>, now: &Timestamp) -> Verdict {
        let stepped = self.before.replace(*now).is_some_and(|before| {
            let expected = before.wall + now.uptime.saturating_sub(before.uptime);
            now.wall.abs_diff(expected) > STEP
        });
        let told = if self.kept { Some(true) } else { kept() };
        self.kept = told.unwrap_or_default();
        self.set |= stepped || self.kept;
        let past = if self.set { time::BUILD_DATE } else { self.saved.max(time::BUILD_DATE) };
        let doubt = match self.trusts() {
            false if told.is_none() => Some(Doubt::Untold),
            false => Some(Doubt::Unkept),
            true => (now.wall < past).then_some(Doubt::Behind),
        };
        Verdict { past, doubt, stepped }
    }
}

/// What is wrong with the clock, and what to do.
fn explain(doubt: Doubt, verdict: Verdict, now: &Timestamp) -> (String, &'static str) {
    match doubt {
        Doubt::Untold => (
            "may not be synchronised: the sandbox keeps the gateway from asking the kernel, and \
             sluicegate-clock.service, which asks for it, does not run"
                .to_owned(),
            "start it, or set clock.trust = \"always\" if this board keeps the time by itself",
        ),
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

/// What sluicegate-clock.service does: waits until a time service has set the clock, and leaves a file that says so in
/// its runtime directory.
///
/// # Errors
/// When it has no such directory, the file can't be made, or the kernel does not answer.
pub async fn watch_clock() -> anyhow::Result<()> {
    let folder =
        service::runtime_directory().context("$RUNTIME_DIRECTORY is not set: sluicegate-clock.service does this")?;
    let mut notifier = Notifier::default();
    while !kernel_clock::is_kept().context("the kernel does not say whether its clock is synchronised")? {
        notifier.ready();
        tokio::time::sleep(LOOK).await;
    }
    let marker = folder.join(MARKER);
    std::fs::write(&marker, "").with_context(|| format!("{} can't be made", marker.display()))?;
    notifier.ready();
    Ok(())
}

/// `None`: nobody tells. None of them waits for anything: the files are in RAM.
fn is_kept() -> Option<bool> {
    let watcher = Path::new(WATCHER);
    if Path::new(TIMESYNCD).exists() || watcher.join(MARKER).exists() {
        return Some(true);
    }
    kernel_clock::is_kept().or_else(|| watcher.exists().then_some(false))
}

fn shown(wall: Duration) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + wall).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BootId;

    const DAY: u64 = 24 * 3600;
    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);

    /// Looks at these times: seconds since boot, seconds of the wall clock after the date of the program (before, where
    /// negative), whether a time service has set it, if anybody tells. The verdict of the last look.
    fn check(trust: Trust, saved: u64, looks: &[(u64, i64, Option<bool>)]) -> Verdict {
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
        use Doubt::{Behind, Unkept, Untold};
        use Trust::{Always, Synchronized};
        const FIRST: i64 = -56 * 365 * 24 * 3600;
        let build = time::BUILD_DATE.as_secs();
        for (what, trust, saved, looks, doubt, stepped) in [
            ("a board without a battery", Synchronized, 0, &[(5, FIRST, NO)][..], Some(Unkept), false),
            ("it shows a likely time, but nobody says so", Synchronized, 0, &[(5, 9, NO)], Some(Unkept), false),
            ("it was set by a time service", Synchronized, 0, &[(5, 9, YES)], None, false),
            ("nobody may ask", Synchronized, 0, &[(5, 9, None)], Some(Untold), false),
            ("asked no more", Synchronized, 0, &[(5, 9, YES), (6, 10, None)], None, false),
            ("nobody may ask, nor need to", Always, 0, &[(5, 9, None)], None, false),
            ("set while it runs", Synchronized, 0, &[(5, FIRST, NO), (6, 9, YES)], None, true),
            ("set by hand", Synchronized, 0, &[(5, FIRST, NO), (6, 9, NO)], Some(Unkept), true),
            ("the network is gone for a day", Synchronized, 0, &[(5, 9, YES), (86405, 86409, NO)], None, false),
            ("slewed", Synchronized, 0, &[(5, 9, YES), (65, 70, YES)], None, false),
            ("a time service in 1970", Synchronized, 0, &[(5, FIRST, YES)], Some(Behind), false),
            ("set back to 1970", Synchronized, 0, &[(5, 9, YES), (6, FIRST, YES)], Some(Behind), true),
            ("what was saved was wrong", Synchronized, build + 9 * DAY, &[(5, 9, YES)], None, false),
            ("a battery", Always, build, &[(5, 9, NO)], None, false),
            ("an empty one", Always, build, &[(5, FIRST, NO)], Some(Behind), false),
            ("a clock from an old file", Always, build + 9 * DAY, &[(5, 9, NO)], Some(Behind), false),
            ("and then set", Always, build + 9 * DAY, &[(5, 9, NO), (6, 3 * 86400, NO)], None, true),
            ("what was saved was wrong", Always, build + 9 * DAY, &[(5, 9, NO), (6, 4, NO)], None, true),
        ] {
            let found = check(trust, saved, looks);
            assert_eq!((found.doubt, found.stepped), (doubt, stepped), "{what}");
        }
    }

    #[test]
    fn what_was_saved_has_passed_until_the_clock_is_set() {
        let saved = time::BUILD_DATE + Duration::from_secs(DAY);
        for (looks, expected) in [
            (&[(5, 9, NO)][..], saved),
            (&[(5, 9, NO), (6, 99, NO)], time::BUILD_DATE),
            (&[(5, 9, YES)], time::BUILD_DATE),
        ] {
            assert_eq!(check(Trust::Synchronized, saved.as_secs(), looks).past, expected, "{looks:?}");
        }
    }
}
