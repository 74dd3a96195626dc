//! What becomes of the values of a point's sources. Pure functions.

use std::time::Duration;

use crate::model::{Quality, Reading};

/// How a point is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Formula {
    /// All of them added up.
    Sum,
    /// The first one less all others.
    Difference,
    /// Their mean.
    Mean,
    /// The smallest one.
    Smallest,
    /// The largest one.
    Largest,
    /// The value times how long it was so, added up; no function of what is now.
    Integral,
}

/// What is known of a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// Nothing came yet.
    Unknown,
    /// It can't be believed, or its device is away.
    Lost,
    /// A number, and whether it is as good as new.
    Is(f64, Quality),
}

/// What is made of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Made {
    /// Nothing: some are not known yet.
    Nothing,
    /// No value: some are lost.
    Bad,
    /// A value, and whether all of it is as good as new.
    Is(f64, Quality),
}

impl Source {
    /// What a reading says.
    pub(super) fn of(reading: &Reading) -> Self {
        match (reading.quality, reading.value.as_ref().and_then(|value| value.as_f64())) {
            (Quality::Good | Quality::Stale, Some(number)) if number.is_finite() => Source::Is(number, reading.quality),
            _ => Source::Lost,
        }
    }
}

impl Formula {
    /// The value, from the sources in their order.
    pub(super) fn make(self, sources: &[Source]) -> Made {
        if sources.contains(&Source::Lost) {
            return Made::Bad;
        }
        let number = |source: &Source| if let Source::Is(number, _) = source { Some(*number) } else { None };
        let Some(numbers) = sources.iter().map(number).collect::<Option<Vec<f64>>>() else { return Made::Nothing };
        let Some((first, others)) = numbers.split_first() else { return Made::Nothing };
        let all = || others.iter().copied();
        #[expect(clippy::cast_precision_loss, reason = "nobody names 2^53 points")]
        let value = match self {
            Formula::Sum => all().fold(*first, |sum, number| sum + number),
            Formula::Difference => all().fold(*first, |left, number| left - number),
            Formula::Mean => all().fold(*first, |sum, number| sum + number) / numbers.len() as f64,
            Formula::Smallest => all().fold(*first, f64::min),
            Formula::Largest => all().fold(*first, f64::max),
            Formula::Integral => *first,
        };
        let is_stale = sources.iter().any(|source| matches!(source, Source::Is(_, Quality::Stale)));
        if value.is_finite() {
            Made::Is(value, if is_stale { Quality::Stale } else { Quality::Good })
        } else {
            Made::Bad
        }
    }
}

/// A value times time, added up. A value counts until the next one, and no longer than its device is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Integral {
    /// What it is, in the source's unit times `per`.
    pub(super) total: f64,
    /// What counts; `None`: nothing does.
    counts: Option<f64>,
    /// What was before is counted, or left out, by `CLOCK_BOOTTIME`.
    settled: Duration,
    /// Whether time was left out since this was asked last.
    has_hole: bool,
}

impl Integral {
    /// Goes on from there and then; nothing counts yet.
    pub(super) fn from(total: f64, now: Duration) -> Self {
        Integral { total, counts: None, settled: now, has_hole: false }
    }

    /// Adds what counted until then.
    pub(super) fn advance(&mut self, now: Duration, per: Duration) {
        if let Some(value) = self.counts {
            let sum = self.total + value * now.saturating_sub(self.settled).as_secs_f64() / per.as_secs_f64();
            if sum.is_finite() {
                self.total = sum;
            }
        } else {
            self.has_hole |= now > self.settled;
        }
        self.settled = self.settled.max(now);
    }

    /// From then on this counts; nothing does where it can't be believed.
    pub(super) fn count(&mut self, source: Source, at: Duration, per: Duration) {
        // A value may be older than the life that it is recalled in: then it counts from what is settled on.
        self.advance(at, per);
        self.counts = if let Source::Is(value, Quality::Good) = source { Some(value) } else { None };
        self.has_hole |= self.counts.is_none();
    }

    /// Something was missed: what counted since this was looked at last is left out.
    pub(super) fn miss(&mut self) {
        (self.counts, self.has_hole) = (None, true);
    }

    /// Whether time was left out since this was asked last.
    pub(super) fn take_hole(&mut self) -> bool {
        std::mem::replace(&mut self.has_hole, self.counts.is_none())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is(number: f64) -> Source {
        Source::Is(number, Quality::Good)
    }

    #[test]
    fn a_value_is_made_of_all_of_them_or_not_at_all() {
        let good = |number| Made::Is(number, Quality::Good);
        for (formula, expected) in [
            (Formula::Sum, good(6.0)),
            (Formula::Difference, good(2.0)),
            (Formula::Mean, good(2.0)),
            (Formula::Smallest, good(0.5)),
            (Formula::Largest, good(4.0)),
        ] {
            assert_eq!(formula.make(&[is(4.0), is(1.5), is(0.5)]), expected, "{formula:?}");
            assert_eq!(formula.make(&[is(4.0), Source::Unknown]), Made::Nothing);
            assert_eq!(formula.make(&[is(4.0), Source::Unknown, Source::Lost]), Made::Bad);
            let stale = Source::Is(1.5, Quality::Stale);
            assert!(matches!(formula.make(&[is(4.0), stale]), Made::Is(_, Quality::Stale)), "{formula:?}");
        }
        assert_eq!(Formula::Sum.make(&[is(f64::MAX), is(f64::MAX)]), Made::Bad);
    }

    #[test]
    fn time_that_was_left_out_is_told_until_it_is_over() {
        let (per, at) = (Duration::from_secs(1), Duration::from_secs);
        let mut integral = Integral::from(0.0, at(1));
        // It was so before: that was counted, by whoever was there.
        integral.count(is(2.0), at(0), per);
        integral.count(Source::Lost, at(2), per);
        integral.count(is(2.0), at(5), per);
        integral.advance(at(6), per);
        assert!(integral.take_hole());
        assert!(!integral.take_hole());
        assert_eq!(integral.total, 4.0);
        integral.count(Source::Is(2.0, Quality::Stale), at(7), per);
        assert!(integral.take_hole() && integral.take_hole(), "as long as it lasts");
    }

    #[test]
    fn what_came_before_the_first_value_was_left_out() {
        let (per, at) = (Duration::from_secs(1), Duration::from_secs);
        let mut integral = Integral::from(10.0, at(1));
        integral.advance(at(2), per);
        assert!(integral.take_hole(), "nothing was heard yet");
        integral.count(is(2.0), at(3), per);
        integral.advance(at(4), per);
        assert!(integral.take_hole(), "nor between 2 and 3");
        integral.advance(at(5), per);
        assert!(!integral.take_hole());
        assert_eq!(integral.total, 14.0);
        // One that is known at once leaves nothing out.
        let mut integral = Integral::from(10.0, at(1));
        integral.count(is(2.0), at(0), per);
        integral.advance(at(2), per);
        assert!(!integral.take_hole());
        // What was missed is left out, and counts again from what is known next.
        integral.miss();
        integral.count(is(2.0), at(4), per);
        integral.advance(at(5), per);
        assert!(integral.take_hole());
        assert_eq!(integral.total, 14.0);
    }

    proptest! {
        /// Against a plain reference: each interval by itself, in whatever steps it was looked at.
        #[test]
        fn an_integral_is_the_sum_of_all_that_counted(
            steps in proptest::collection::vec((0u64..5_000, proptest::option::of(-1e3..1e3f64), any::<bool>()), 1..50),
        ) {
            let per = Duration::from_secs(60);
            let mut integral = Integral::from(7.0, Duration::from_secs(1));
            let (mut now, mut value, mut expected) = (Duration::from_secs(1), None, 7.0);
            for (millis, next, only_looks) in steps {
                let time = Duration::from_millis(millis);
                now += time;
                expected += value.unwrap_or(0.0) * time.as_secs_f64() / 60.0;
                if only_looks {
                    integral.advance(now, per);
                } else {
                    integral.count(next.map_or(Source::Lost, is), now, per);
                    value = next;
                }
                prop_assert!((integral.total - expected).abs() <= 1e-9 * expected.abs().max(1.0));
            }
        }
    }
}
