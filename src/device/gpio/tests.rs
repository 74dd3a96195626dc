//! What needs no hardware: tables of configs, and the reports of lines that a test plays.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Want;
use super::line::{Edge, Line, Skill};
use super::tap::{Report, Tap, Taps};
use crate::device::testing::{faults, parts};
use crate::device::{Ask, DeviceIo, Driver, Held, Plan, Run, Supervisor, Wiring};
use crate::model::{Arrival, Point, PointName, ValueType, time};

#[test]
fn a_wrong_table_is_told_key_by_key() {
    for (device, point, expected) in [
        ("backend = \"mmap\"", "line = \"A\"", "backend: unknown variant `mmap`"),
        ("", "", "point.x: missing field `line`"),
        ("", "line = 17", "point.x.line: expected a line's name"),
        ("", "line = \"\"", "point.x.line: expected a line's name"),
        ("", "line = { chip = \"a\" }", "point.x.line: expected a line's name"),
        ("", "line = { chip = \"a\", offset = 1, number = 2 }", "point.x.line: expected a line's name"),
        ("", "line = { number = -1 }", "point.x.line: expected a line's name"),
        ("", "line = \"A\"\ndirection = \"both\"", "point.x.direction: unknown variant `both`"),
        ("", "line = \"A\"\ndirection = \"out\"", "point.x.safe: an output needs a safe state"),
        ("", "line = \"A\"\ndirection = \"out\"\nsafe = \"perhaps\"", "point.x.safe: expected true or false"),
        ("", "line = \"A\"\ndirection = \"out\"\nsafe = true\ndebounce = \"1s\"", "point.x.debounce: only an input"),
        ("", "line = \"A\"\nsafe = true", "point.x.safe: only an output has one"),
        ("", "line = \"A\"\ndrive = \"open-drain\"", "point.x.drive: only an output has one"),
        ("", "line = \"A\"\nbias = \"up\"", "point.x.bias: unknown variant `up`"),
        ("backend = \"sysfs\"", "line = \"A\"\nbias = \"pull-up\"", "point.x.bias: sysfs can't set it"),
        ("", "line = \"A\"\n[device.d.point.y]\nline = \"A\"", "point.y.line: the point `x` has this line already"),
    ] {
        let found = faults(&format!("[device.d]\nkind = \"gpio\"\n{device}\n[device.d.point.x]\n{point}"));
        assert!(found.iter().any(|fault| fault.contains(expected)), "{device} {point}: {found:?}");
    }
    for good in [
        "line = { chip = \"a\", offset = 1 }",
        "line = { number = 529 }\ndirection = \"out\"\nsafe = \"OFF\"",
        "line = \"A\"\nbias = \"as-is\"",
    ] {
        let table = format!("[device.d]\nkind = \"gpio\"\nbackend = \"sysfs\"\n[device.d.point.x]\n{good}");
        assert_eq!(faults(&table), Vec::<String>::new(), "{good}");
    }
}

/// A line as the test wants it.
#[derive(Clone)]
struct Played {
    skill: Skill,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    level: bool,
    edges: VecDeque<Edge>,
    gone: bool,
    /// Nobody was told of the edges yet.
    untold: bool,
}

impl Played {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn edge(&self, level: bool, missed: Option<u32>) {
        self.with(|state| {
            state.level = level;
            state.edges.push_back(Edge { level, at: time::now(), missed });
        });
    }
}

impl Line for Played {
    fn level(&self) -> io::Result<bool> {
        self.with(|state| if state.gone { Err(io::ErrorKind::NotFound.into()) } else { Ok(state.level) })
    }

    fn set(&self, level: bool) -> io::Result<()> {
        self.with(|state| state.level = level);
        Ok(())
    }

    fn poll_edges(&mut self, _: &mut Context<'_>, edges: &mut Vec<Edge>) -> Poll<io::Result<()>> {
        self.with(|state| {
            if !state.untold {
                edges.extend(state.edges.drain(..));
            }
            if edges.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
    }

    fn waiting(&mut self, edges: &mut Vec<Edge>) -> io::Result<()> {
        self.with(|state| edges.extend(state.edges.drain(..)));
        Ok(())
    }

    fn skill(&self) -> Skill {
        self.skill
    }
}

fn taps(config: &str, output: Option<bool>, edges: bool, debounced: bool) -> (Taps, Played) {
    let line = Played { skill: Skill { edges, debounced }, state: Arc::default() };
    let config = super::config::PointConfig::read(&format!("line = \"A\"\n{config}").parse().unwrap()).unwrap();
    let want = Want { point: PointName::new("x").unwrap(), config, output };
    let mut taps = Taps::default();
    taps.push(Tap::new(&want, Box::new(line.clone())));
    (taps, line)
}

async fn moved(taps: &mut Taps) -> Vec<Report> {
    let mut reports = Vec::new();
    taps.moved(&mut reports).await.unwrap();
    reports
}

fn settled(taps: &mut Taps, now: Instant, all: bool) -> Vec<Report> {
    let mut reports = Vec::new();
    taps.settled(now, all, &mut reports).unwrap();
    reports
}

fn rest(taps: &mut Taps) -> Vec<Report> {
    let mut reports = Vec::new();
    taps.rest(&mut reports).unwrap();
    reports
}

/// The reports as text: levels, and counts of what was lost.
fn shown(reports: Vec<Report>) -> Vec<String> {
    let show = |report| match report {
        Report::Level(_, level, _) => u8::from(level).to_string(),
        Report::Lost(_, count) => format!("lost {count}"),
    };
    reports.into_iter().map(show).collect()
}

#[tokio::test]
async fn each_change_is_told_once() {
    let (mut taps, line) = taps("", None, true, true);
    line.edge(true, Some(0));
    line.edge(true, Some(0));
    line.edge(false, Some(0));
    assert_eq!(shown(moved(&mut taps).await), ["1", "0"]);
    line.edge(true, None);
    line.with(|state| state.level = false);
    assert_eq!(shown(moved(&mut taps).await), ["1", "0"], "where losses are not counted the level is read again");
}

#[tokio::test]
async fn what_is_told_and_what_is_lost_are_all_edges() {
    let (mut taps, line) = taps("", None, true, true);
    // 1, then 0 1 0 1 of which the kernel dropped the first three, then 0 1 0 of which it dropped two.
    line.edge(true, Some(0));
    line.edge(true, Some(3));
    line.edge(false, Some(2));
    assert_eq!(shown(moved(&mut taps).await), ["1", "lost 4", "lost 2", "0"]);
    // The level is already that of an edge which was not read yet, and has its own date.
    line.edge(true, Some(2));
    line.with(|state| state.level = false);
    assert_eq!(shown(moved(&mut taps).await), ["lost 2", "1"]);
}

#[tokio::test]
async fn a_missed_edge_is_found_by_the_look_now_and_then() {
    let (mut taps, line) = taps("", None, true, true);
    line.with(|state| state.level = true);
    let now = Instant::now();
    assert_eq!(shown(settled(&mut taps, now, false)), Vec::<String>::new());
    assert_eq!(shown(settled(&mut taps, now, true)), ["1"]);
    line.with(|state| state.gone = true);
    assert!(taps.settled(now, true, &mut Vec::new()).unwrap_err().to_string().contains("is gone"));
}

#[tokio::test]
async fn a_level_counts_once_it_held() {
    let (mut taps, line) = taps("debounce = \"20ms\"", None, true, false);
    for level in [true, false, true] {
        line.edge(level, Some(0));
        assert_eq!(shown(moved(&mut taps).await), Vec::<String>::new());
    }
    let due = taps.due().unwrap();
    assert_eq!(shown(settled(&mut taps, due - Duration::from_millis(1), true)), Vec::<String>::new());
    assert_eq!(shown(settled(&mut taps, due, false)), ["1"]);
    assert_eq!(taps.due(), None);
    line.edge(false, Some(0));
    line.edge(true, Some(0));
    assert_eq!(shown(moved(&mut taps).await), Vec::<String>::new());
    let due = taps.due().unwrap();
    assert_eq!(shown(settled(&mut taps, due, false)), Vec::<String>::new(), "it is as it was");
}

#[tokio::test]
async fn a_line_without_an_interrupt_is_asked() {
    let (mut taps, line) = taps("", None, false, false);
    line.with(|state| state.level = true);
    let due = taps.due().unwrap();
    assert_eq!(shown(settled(&mut taps, due, false)), ["1"]);
    assert!(taps.due().unwrap() > due);
}

#[tokio::test]
async fn an_output_is_set_and_read_back() {
    let (mut taps, line) = taps("direction = \"out\"", Some(false), false, false);
    let name = PointName::new("x").unwrap();
    assert_eq!(taps.set(&name, true), Ok(true));
    assert!(line.with(|state| state.level));
    assert_eq!(taps.due(), None, "an output is not polled");
    assert_eq!(shown(settled(&mut taps, Instant::now(), true)), Vec::<String>::new());
    assert!(taps.set(&PointName::new("y").unwrap(), true).is_err());
}

#[tokio::test]
async fn a_look_at_the_level_takes_what_waits_first_with_its_own_date() {
    let (mut taps, line) = taps("", None, true, true);
    taps.iter_mut().for_each(|tap| assert!(!tap.ask().unwrap()));
    line.with(|state| state.untold = true);
    line.edge(true, Some(0));
    line.edge(false, Some(0));
    line.edge(true, Some(3));
    let dates: Vec<_> = line.with(|state| state.edges.iter().map(|edge| edge.at).collect());
    let moment = time::now().uptime;
    while time::now().uptime <= moment + Duration::from_millis(1) {}
    let reports = settled(&mut taps, Instant::now(), true);
    let found: Vec<_> = reports
        .iter()
        .filter_map(|report| match report {
            Report::Level(_, level, at) => Some((*level, *at)),
            Report::Lost(..) => None,
        })
        .collect();
    assert_eq!(found, [(true, dates[0]), (false, dates[1]), (true, dates[2])]);
    assert!(reports.contains(&Report::Lost(PointName::new("x").unwrap(), 3)));
    // At the end, all that happened is told.
    line.edge(false, Some(0));
    assert_eq!(rest(&mut taps).len(), 1);
    assert!(rest(&mut taps).is_empty());
}

#[tokio::test]
async fn debounce_waits_anew_for_an_edge_that_waited() {
    let (mut taps, line) = taps("debounce = \"20ms\"", None, true, false);
    line.edge(true, None);
    assert_eq!(shown(moved(&mut taps).await), Vec::<String>::new());
    let due = taps.due().unwrap();
    line.with(|state| state.untold = true);
    line.edge(false, None);
    line.edge(true, None);
    assert_eq!(shown(settled(&mut taps, due, false)), Vec::<String>::new(), "it moved right now");
}

#[tokio::test]
async fn a_line_that_is_gone_does_not_take_the_others_edges_with_it() {
    let (mut taps, line) = taps("", None, true, true);
    let gone = Played { skill: Skill { edges: true, debounced: true }, state: Arc::default() };
    gone.with(|state| state.gone = true);
    let config = super::config::PointConfig::read(&"line = \"B\"".parse().unwrap()).unwrap();
    let want = Want { point: PointName::new("y").unwrap(), config, output: None };
    taps.push(Tap::new(&want, Box::new(gone)));
    line.with(|state| state.untold = true);
    line.edge(true, Some(0));
    line.edge(false, Some(0));
    let mut reports = Vec::new();
    assert!(taps.settled(Instant::now(), true, &mut reports).is_err());
    assert_eq!(shown(reports), ["1", "0"]);
}

/// Finds six edges when it has to stop, as a GPIO device does that finds them at the kernel.
struct AtStop;

impl Driver for AtStop {
    fn run<'a>(&'a self, io: &'a mut DeviceIo) -> Run<'a, ()> {
        Box::pin(async {
            io.online();
            let Ask::Stop = io.next().await else { return Ok(()) };
            for n in 0..6 {
                Report::Level(PointName::new("x").unwrap(), n % 2 == 0, time::now()).send(io).await;
            }
            Ok(())
        })
    }

    fn probe(&self) -> Run<'_, String> {
        unreachable!()
    }
}

#[tokio::test]
async fn what_waited_at_a_stop_is_told_or_counted() {
    let mut parts = parts("[device.d]\nkind = \"gpio\"\nmax_rate = \"1/s\"\n[device.d.point.x]\nline = \"A\"");
    let point = Point {
        device: parts.spec.device.clone(),
        name: PointName::new("x").unwrap(),
        value_type: Some(ValueType::Bool),
        unit: None,
        min: None,
        max: None,
        safe: None,
        writable: false,
    };
    let plan = Plan {
        device: parts.spec.device.clone(),
        kind: "gpio",
        max_rate: parts.config.max_rate,
        driver: Arc::new(AtStop),
        points: vec![(point, parts.rules.remove(0), true)],
    };
    let (to_intake, mut arrivals) = tokio::sync::mpsc::channel(32);
    let (_writes, from_router) = tokio::sync::mpsc::channel(8);
    let (to_router, _answers) = tokio::sync::mpsc::channel(64);
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = crate::task::TaskSet::new();
    let supervisor = Supervisor::new(Held::nothing(), stop.clone());
    supervisor.start(&mut tasks, plan, Wiring { arrivals: to_intake, writes: from_router, answers: to_router });
    stop.cancel();
    let (mut read, mut lost) = (0, 0);
    while let Some(arrival) = arrivals.recv().await {
        match arrival {
            Arrival::Reading(_) => read += 1,
            Arrival::Lost { count, .. } => lost += count,
            Arrival::Outcome(_) => {}
        }
    }
    assert_eq!(read + lost, 6, "{read} read, {lost} told as lost");
}
