//! What becomes of a point's numbers before they are readings: noise taken out, a rate made of them, one for a whole window
//! of time. Pure functions of numbers and times (`CLOCK_BOOTTIME`).

use std::collections::VecDeque;
use std::time::Duration;

use toml::Table;

use crate::model::{Fault, Keys, Span};

/// As many numbers as a filter looks back at, at most.
const MOST: usize = 1000;

/// The shortest time that means anything here.
const SHORTEST: Span = Span(Duration::from_millis(1));

/// A window, or a time to smooth over, is no longer than this.
const LONGEST: Span = Span::secs(7 * 24 * 3600);

/// One filter.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// The middle one of the last so many numbers: single wrong ones vanish.
    Median {
        /// 2 to 1000; an odd number has a middle.
        of: usize,
    },
    /// The mean of the last so many.
    Mean {
        /// 2 to 1000.
        of: usize,
    },
    /// Follows the numbers exponentially: after this time it has made up 63 % of a step, however often numbers come.
    Smooth {
        /// 1 ms to a week.
        time: Span,
    },
    /// How fast the number changes: by how much in this time.
    Rate {
        /// 1 ms to a week (1 s).
        per: Span,
    },
}

#[derive(Clone, Copy)]
enum Form {
    Median,
    Mean,
    Smooth,
    Rate,
}

const FORMS: [(&str, Form); 4] =
    [("median", Form::Median), ("mean", Form::Mean), ("smooth", Form::Smooth), ("rate", Form::Rate)];

impl Filter {
    /// Reads `{ kind = …, … }`.
    pub(super) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        keys.needs("kind");
        let kind = keys.one_of("kind", &FORMS);
        let (of, time, per) = (keys.count("of", 0, i64::MAX), keys.time("time"), keys.time("per"));
        let nothing = Filter::Median { of: 0 };
        let Some(kind) = kind else { return keys.end(nothing) };
        let made = match (kind, of, time, per) {
            (Form::Median, Some(of), None, None) => Ok(Filter::Median { of }),
            (Form::Mean, Some(of), None, None) => Ok(Filter::Mean { of }),
            (Form::Median | Form::Mean, ..) => Err("expected `of` beside `kind`: so many numbers, such as 5"),
            (Form::Smooth, None, Some(time), None) => Ok(Filter::Smooth { time }),
            (Form::Smooth, ..) => Err("expected `time` beside `kind`, such as \"30s\""),
            (Form::Rate, None, None, per) => Ok(Filter::Rate { per: per.unwrap_or(Span::secs(1)) }),
            (Form::Rate, ..) => Err("expected nothing but `per` beside `kind`, such as \"1h\""),
        };
        let made = made.map_err(|text| keys.wrong("", text));
        keys.end(made.unwrap_or(nothing))
    }
}

/// One number for all that came in a time.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// How long it is: 1 ms to a week.
    pub every: Span,
    /// Which number stands for all.
    pub take: Take,
}

/// See [`Window::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Their mean.
    Mean,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl Filter {
    /// What is wrong with it: the key, and what is expected there.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        match self {
            Filter::Median { of } | Filter::Mean { of } => {
                (!(2..=MOST).contains(of)).then(|| ("of", format!("`{of}`: expected 2 to {MOST}")))
            }
            Filter::Smooth { time } => time_fault(*time).map(|text| ("time", text)),
            Filter::Rate { per } => time_fault(*per).map(|text| ("per", text)),
        }
    }
}

impl Window {
    /// Reads `{ every = …, take = … }`.
    pub(super) fn read(table: &Table) -> Result<Self, Vec<Fault>> {
        let mut keys = Keys::of(table);
        ["every", "take"].into_iter().for_each(|key| keys.needs(key));
        let every = keys.time("every").unwrap_or_default();
        let take = keys.one_of("take", &[("mean", Take::Mean), ("min", Take::Min), ("max", Take::Max)]);
        keys.end(Window { every, take: take.unwrap_or(Take::Mean) })
    }

    /// What is wrong with it: the key, and what is expected there.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        time_fault(self.every).map(|text| ("every", text))
    }
}

fn time_fault(time: Span) -> Option<String> {
    (!(SHORTEST..=LONGEST).contains(&time)).then(|| format!("`{time}`: expected a duration from \"1ms\" to \"7days\""))
}

/// The filters of a point, one behind the other, and its window.
#[derive(Debug, Default)]
pub(super) struct Chain {
    filters: Vec<(Filter, Memory)>,
    window: Option<Window>,
    open: Option<Open>,
}

/// What a filter remembers.
#[derive(Debug, Default)]
struct Memory {
    numbers: VecDeque<f64>,
    /// The last number, or what was made of it, and when.
    last: Option<(f64, Duration)>,
}

/// A window that has numbers.
#[derive(Debug)]
struct Open {
    end: Duration,
    count: f64,
    /// The sum, the smallest or the largest so far.
    made: f64,
}

impl Chain {
    pub(super) fn new(filters: &[Filter], window: Option<&Window>) -> Self {
        let filters = filters.iter().map(|filter| (filter.clone(), Memory::default())).collect();
        Chain { filters, window: window.cloned(), open: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty() && self.window.is_none()
    }

    /// Whether what comes out is in the unit of what goes in: a rate is not.
    pub(super) fn keeps_the_unit(&self) -> bool {
        !self.filters.iter().any(|(filter, _)| matches!(filter, Filter::Rate { .. }))
    }

    /// A number came. The result is the one that stands for it, if any.
    pub(super) fn feed(&mut self, number: f64, at: Duration) -> Option<f64> {
        let mut number = number;
        for (filter, memory) in &mut self.filters {
            number = memory.feed(filter, number, at)?;
        }
        let Some(Window { every, take }) = self.window.clone() else { return Some(number) };
        let done = self.close(at);
        let open = self.open.get_or_insert(Open { end: at + every.0, count: 0.0, made: 0.0 });
        open.made = match take {
            _ if open.count == 0.0 => number,
            Take::Mean => open.made + number,
            Take::Min => open.made.min(number),
            Take::Max => open.made.max(number),
        };
        open.count += 1.0;
        done
    }

    /// When the window ends, if it has a number.
    pub(super) fn ends(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| open.end)
    }

    /// The number of the window that has ended by now.
    pub(super) fn close(&mut self, now: Duration) -> Option<f64> {
        let open = self.open.take_if(|open| open.end <= now)?;
        let is_mean = self.window.as_ref().is_some_and(|window| window.take == Take::Mean);
        Some(if is_mean { open.made / open.count } else { open.made })
    }

    /// Forgets all: the device was away.
    pub(super) fn reset(&mut self) {
        self.open = None;
        self.filters.iter_mut().for_each(|(_, memory)| *memory = Memory::default());
    }
}

impl Memory {
    fn feed(&mut self, filter: &Filter, number: f64, at: Duration) -> Option<f64> {
        match filter {
            Filter::Median { of } => {
                self.keep(number, *of);
                let mut sorted: Vec<f64> = self.numbers.iter().copied().collect();
                sorted.sort_by(f64::total_cmp);
                let (middle, half) = (sorted.len() / 2, sorted.len().is_multiple_of(2));
                let upper = *sorted.get(middle)?;
                Some(if half { (sorted.get(middle - 1)? + upper) / 2.0 } else { upper })
            }
            Filter::Mean { of } => {
                self.keep(number, *of);
                #[expect(clippy::cast_precision_loss, reason = "1000 at most")]
                let count = self.numbers.len() as f64;
                Some(self.numbers.iter().sum::<f64>() / count)
            }
            Filter::Smooth { time } => {
                let made = match self.last {
                    None => number,
                    Some((made, before)) => {
                        let passed = at.saturating_sub(before).as_secs_f64();
                        made + (number - made) * -(-passed / time.0.as_secs_f64()).exp_m1()
                    }
                };
                self.last = Some((made, at));
                Some(made)
            }
            Filter::Rate { per } => {
                let before = self.last;
                // Of two numbers at one time the later counts, for the next rate.
                let (last, then) = before.filter(|(_, then)| *then < at).or_else(|| {
                    self.last = Some((number, before.map_or(at, |(_, then)| then)));
                    None
                })?;
                self.last = Some((number, at));
                Some((number - last) / (at - then).as_secs_f64() * per.0.as_secs_f64())
            }
        }
    }

    fn keep(&mut self, number: f64, most: usize) {
        self.numbers.push_back(number);
        while self.numbers.len() > most {
            self.numbers.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(filters: &str, numbers: &[(u64, f64)]) -> Vec<Option<f64>> {
        let config = crate::device::point::Config::read(&filters.parse().unwrap()).unwrap();
        let mut chain = Chain::new(&config.filter, config.window.as_ref());
        numbers.iter().map(|(millis, number)| chain.feed(*number, Duration::from_millis(*millis))).collect()
    }

    #[test]
    fn a_single_wrong_number_does_not_pass_a_median() {
        let numbers = [(0, 20.0), (1, 21.0), (2, -127.0), (3, 21.0), (4, 22.0)];
        let expected = [20.0, 20.5, 20.0, 21.0, 21.0].map(Some);
        assert_eq!(fed("filter = [{ kind = \"median\", of = 3 }]", &numbers), expected);
    }

    #[test]
    fn a_rate_is_by_time_and_not_by_number() {
        let numbers = [(1000, 10.0), (1000, 12.0), (1500, 13.0), (3500, 13.0), (4500, 3.0)];
        let expected = [None, None, Some(120.0), Some(0.0), Some(-600.0)];
        assert_eq!(fed("filter = [{ kind = \"rate\", per = \"1m\" }]", &numbers), expected);
    }

    #[test]
    fn a_step_is_followed_in_its_time_however_often_numbers_come() {
        let step = |every: u64| {
            let numbers: Vec<_> = (0..=1000).step_by(usize::try_from(every).unwrap()).map(|at| (at, 1.0)).collect();
            let numbers = [&[(0, 0.0)][..], &numbers].concat();
            fed("filter = [{ kind = \"smooth\", time = \"1s\" }]", &numbers).last().unwrap().unwrap()
        };
        for every in [1, 10, 100, 500] {
            assert!((step(every) - 0.632_120_558).abs() < 1e-9, "{every}: {}", step(every));
        }
    }

    #[test]
    fn a_window_gives_one_number_when_it_is_over() {
        let numbers = [(0, 4.0), (400, 2.0), (999, 6.0), (1000, 9.0), (2500, 1.0)];
        for (take, first) in [("mean", 4.0), ("min", 2.0), ("max", 6.0)] {
            let window = format!("window = {{ every = \"1s\", take = \"{take}\" }}");
            assert_eq!(fed(&window, &numbers), [None, None, None, Some(first), Some(9.0)], "{take}");
        }
        let mut chain = Chain::new(&[], Some(&Window { every: Span::secs(1), take: Take::Max }));
        assert_eq!(chain.ends(), None);
        assert_eq!(chain.feed(5.0, Duration::from_secs(3)), None);
        assert_eq!(chain.ends(), Some(Duration::from_secs(4)));
        assert_eq!(chain.close(Duration::from_millis(3999)), None);
        assert_eq!((chain.close(Duration::from_secs(4)), chain.ends()), (Some(5.0), None));
    }

    #[test]
    fn what_can_not_be_is_a_fault() {
        let times = "expected a duration from \"1ms\" to \"7days\"";
        for (filter, key, text) in [
            (Filter::Median { of: 1 }, "of", "`1`: expected 2 to 1000".to_owned()),
            (Filter::Mean { of: 1001 }, "of", "`1001`: expected 2 to 1000".to_owned()),
            (Filter::Smooth { time: Span::secs(0) }, "time", format!("`0s`: {times}")),
            (Filter::Rate { per: Span(Duration::from_micros(1)) }, "per", format!("`1us`: {times}")),
        ] {
            assert_eq!(filter.fault(), Some((key, text)));
        }
        assert_eq!(Filter::Mean { of: 2 }.fault(), None);
    }

    proptest! {
        /// Against the same said in another way: over the whole list, without a memory.
        #[test]
        fn they_do_what_their_definition_says(
            numbers in prop::collection::vec((1u64..5000, -1e6..1e6f64), 1..60),
            of in 2usize..8,
            time in 1u64..5000,
        ) {
            let mut at = 0;
            let numbers: Vec<(u64, f64)> = numbers.into_iter().map(|(step, n)| { at += step; (at, n) }).collect();
            let last = |index: usize| {
                let begin = (index + 1).saturating_sub(of);
                numbers[begin..=index].iter().map(|(_, n)| *n).collect::<Vec<_>>()
            };
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (1.0 + b.abs());
            let median = fed(&format!("filter = [{{ kind = \"median\", of = {of} }}]"), &numbers);
            let mean = fed(&format!("filter = [{{ kind = \"mean\", of = {of} }}]"), &numbers);
            let smooth = fed(&format!("filter = [{{ kind = \"smooth\", time = \"{time}ms\" }}]"), &numbers);
            let rate = fed("filter = [{ kind = \"rate\" }]", &numbers);
            let mut made = numbers[0].1;
            for index in 0..numbers.len() {
                let mut some = last(index);
                some.sort_by(f64::total_cmp);
                let expected = (some[(some.len() - 1) / 2] + some[some.len() / 2]) / 2.0;
                prop_assert!(near(median[index].unwrap(), expected));
                #[expect(clippy::cast_precision_loss, reason = "a few")]
                let expected = some.iter().sum::<f64>() / some.len() as f64;
                prop_assert!(near(mean[index].unwrap(), expected));
                #[expect(clippy::cast_precision_loss, reason = "some seconds")]
                let seconds = |index: usize| (numbers[index].0 - numbers[index - 1].0) as f64 / 1000.0;
                if index > 0 {
                    #[expect(clippy::cast_precision_loss, reason = "some seconds")]
                    let share = 1.0 - (-seconds(index) * 1000.0 / time as f64).exp();
                    made = (1.0 - share) * made + share * numbers[index].1;
                    let expected = (numbers[index].1 - numbers[index - 1].1) / seconds(index);
                    prop_assert!(near(rate[index].unwrap(), expected));
                }
                prop_assert!(near(smooth[index].unwrap(), made));
            }
        }
    }
}
