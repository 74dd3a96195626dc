//! The picture for a person: a screen that is drawn over and over on a terminal, else lines.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::picture::{Device, Picture, Point};

/// No line is longer.
const WIDTH: usize = 80;

/// Events on the screen.
const EVENTS: usize = 5;

/// Lines on the screen, and one for the cursor: the smallest terminal that is common.
const HEIGHT: usize = 24;

/// What the picture can't know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Backstage {
    /// Where the page is served.
    pub(crate) page: u16,
    /// Where the broker listens.
    pub(crate) port: u16,
    /// Whether it is there.
    pub(crate) broker: bool,
    /// Readings that wait in the gateway.
    pub(crate) waiting: u64,
    /// How the demo ends.
    pub(crate) end: String,
}

/// Where the picture is shown.
#[derive(Debug)]
pub(crate) enum View {
    /// Drawn again and again on the same place.
    Screen {
        /// Lines that were drawn last time.
        height: usize,
        events: VecDeque<String>,
    },
    /// Line after line.
    Lines {
        /// Late readings that were told.
        late: u64,
    },
}

/// SGR codes of the terminal.
#[derive(Debug, Clone, Copy)]
enum Ink {
    Good = 32,
    Bad = 31,
    Strong = 1,
    Faint = 2,
    Curve = 36,
}

impl View {
    /// As stdout is.
    pub(crate) fn new() -> Self {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let fits = size.is_some_and(|size| usize::from(size.ws_col) >= WIDTH && usize::from(size.ws_row) >= HEIGHT);
        let knows_codes = std::env::var_os("TERM").is_some_and(|terminal| terminal != "dumb");
        if io::stdout().is_terminal() && fits && knows_codes {
            View::Screen { height: 0, events: VecDeque::new() }
        } else {
            View::Lines { late: 0 }
        }
    }

    /// How often it wants to be shown.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_millis(match self {
            View::Screen { .. } => 200,
            View::Lines { .. } => 1000,
        })
    }

    /// Shows what is new.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub(crate) fn show(&mut self, picture: &mut Picture, backstage: &Backstage) -> io::Result<()> {
        let seconds = picture.elapsed().as_secs_f64();
        let line = |(at, text): (Duration, String)| cut(&format!("{:5.1} s  {text}", at.as_secs_f64()));
        let news: Vec<String> = picture.news.drain(..).map(line).collect();
        let mut out = io::stdout().lock();
        match self {
            View::Screen { height, events } => {
                events.extend(news);
                events.drain(..events.len().saturating_sub(EVENTS));
                let mut lines = screen(picture, backstage, events);
                lines.truncate(HEIGHT - 1);
                // What stood below would stay.
                lines.resize(lines.len().max(*height), String::new());
                if *height > 0 {
                    write!(out, "\x1b[{height}A")?;
                }
                for line in &lines {
                    writeln!(out, "\r{line}\x1b[K")?;
                }
                *height = lines.len();
            }
            View::Lines { late } => {
                for line in news {
                    writeln!(out, "{line}")?;
                }
                for line in readings(picture) {
                    writeln!(out, "{}", cut(&format!("{seconds:5.1} s  {line}")))?;
                }
                if !backstage.broker {
                    writeln!(out, "{seconds:5.1} s  no broker; {} readings wait in the gateway", backstage.waiting)?;
                }
                let more = picture.counts.late - *late;
                if more > 0 {
                    *late = picture.counts.late;
                    writeln!(out, "{seconds:5.1} s  backlog: {more} readings that had waited arrived, late")?;
                }
            }
        }
        out.flush()
    }
}

/// What to say before anything else.
///
/// # Errors
/// When nobody reads.
pub(crate) fn introduce(backstage: &Backstage) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "sluicegate demo: a weather station on a pty, a simulated plant, the gateway, and")?;
    writeln!(out, "an MQTT broker on 127.0.0.1:{}. {}", backstage.port, backstage.end)?;
    for line in join_in(backstage) {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    out.flush()
}

/// What it all came to.
///
/// # Errors
/// When nobody reads.
pub(crate) fn summarize(picture: &Picture, outages: u32) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let counts = picture.counts;
    let all = counts.live + counts.late;
    writeln!(out)?;
    writeln!(out, "In {:.0} s, outages of the broker: {outages}", picture.elapsed().as_secs_f64())?;
    writeln!(out, "  {all} readings arrived, {} of them late; missing: {}", counts.late, picture.missing())?;
    writeln!(out, "  {} came twice, which a cut explains; gaps told: {}", picture.copies(), counts.gaps)?;
    writeln!(out, "  {} commands done, {} refused", counts.done, counts.refused)?;
    match &picture.presence {
        Some(word) => writeln!(out, "  the gateway said at its end that it is {word}")?,
        None => writeln!(out, "  the broker was away, so that nobody heard the gateway's farewell")?,
    }
    out.flush()
}

fn join_in(backstage: &Backstage) -> [String; 3] {
    let Backstage { page, port, .. } = backstage;
    [
        format!("  look:    http://127.0.0.1:{page}/#ws://127.0.0.1:{port}/mqtt"),
        format!("  watch:   mosquitto_sub -p {port} -v -t 'sluicegate/demo/#'"),
        format!("  command: mosquitto_pub -p {port} -t sluicegate/demo/plant/fan/set -m ON"),
    ]
}

fn screen(picture: &Picture, backstage: &Backstage, events: &VecDeque<String>) -> Vec<String> {
    let mut lines = Vec::new();
    let broker = if backstage.broker { paint(Ink::Good, "up") } else { paint(Ink::Bad, "gone") };
    lines.push(format!(
        "{} {:>4.0} s   broker {broker}   readings: {} live, {} late, {} waiting",
        paint(Ink::Strong, "sluicegate demo"),
        picture.elapsed().as_secs_f64(),
        picture.counts.live,
        picture.counts.late,
        backstage.waiting,
    ));
    lines.push(format!("gateway demo    {}", presence(picture.presence.as_deref())));
    for (name, device) in &picture.devices {
        lines.push(format!("device {name:<8} {}", presence(device.presence.as_deref())));
        lines.extend(device.points.iter().map(|(name, point)| point_line(name, point)));
    }
    lines.push(rule("commands"));
    for command in &picture.commands {
        let outcome = command.outcome.as_deref().unwrap_or("…");
        lines.push(cut(&format!("{:5.1} s  {:<24} {outcome}", command.at.as_secs_f64(), command.text)));
    }
    lines.push(rule("events"));
    lines.extend(events.iter().cloned());
    lines.push(rule("join in"));
    lines.extend(join_in(backstage));
    lines
}

fn point_line(name: &str, point: &Point) -> String {
    let low = point.history.iter().copied().fold(f64::INFINITY, f64::min);
    let high = point.history.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let curve: String = point.history.iter().map(|value| bar((value - low) / (high - low))).collect();
    format!("  {name:<14} {:>9} {:<5} {}", point.value, point.unit, paint(Ink::Curve, &curve))
}

/// A block as high as the value, which is between 0 and 1; in the middle where all are the same.
fn bar(value: f64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let steps = [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875];
    let place = if value.is_nan() { 3 } else { steps.iter().filter(|step| value >= **step).count() };
    BARS.get(place).copied().unwrap_or(' ')
}

fn presence(word: Option<&str>) -> String {
    match word {
        Some("online") => paint(Ink::Good, "● online"),
        Some(other) => paint(Ink::Bad, &format!("● {other}")),
        None => paint(Ink::Faint, "○ nobody can say"),
    }
}

/// What changed since the last time, a line a device.
fn readings(picture: &mut Picture) -> Vec<String> {
    picture.devices.iter_mut().filter_map(|(name, device)| changed(name, device)).collect()
}

fn changed(name: &str, device: &mut Device) -> Option<String> {
    let mut line = String::new();
    for (point, state) in device.points.iter_mut().filter(|(_, state)| state.fresh) {
        state.fresh = false;
        let comma = if line.is_empty() { "" } else { "," };
        let unit = if state.unit.is_empty() { String::new() } else { format!(" {}", state.unit) };
        if write!(line, "{comma} {point} {}{unit}", state.value).is_err() {
            return None;
        }
    }
    (!line.is_empty()).then(|| format!("{name}:{line}"))
}

fn rule(title: &str) -> String {
    let line = format!("── {title} {}", "─".repeat(WIDTH - 5 - title.len()));
    paint(Ink::Faint, &line)
}

fn cut(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 1).chain(['…']).collect()
}

fn paint(ink: Ink, text: &str) -> String {
    format!("\x1b[{}m{text}\x1b[0m", ink as u8)
}
