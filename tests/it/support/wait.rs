//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// Far more than anything needs on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until the condition holds; fails, saying what was waited for, after [`DEADLINE`].
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// Waits until there is something.
#[track_caller]
pub(crate) fn until_some<T>(what: &str, mut something: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = something() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        pause();
    }
}

/// Between two looks at a condition.
pub(crate) fn pause() {
    #[expect(clippy::disallowed_methods, reason = "the one pause between two looks at a condition; no runtime here")]
    std::thread::sleep(Duration::from_millis(5));
}
