//! Lines through the character device, uAPI version 2 (Linux 5.10) or 1.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gpiocdev::line::{self, EdgeDetection, EdgeKind};
use gpiocdev::{AbiVersion, Request};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::chips::{self, Chip, only};
use super::config::{Bias, ChipLine, Drive, Number, Place, PointConfig};
use super::kept;
use super::line::{Edge, Line, Skill, watch};
use super::name::Name;
use super::{CLASS, DEVICES, Want};
use crate::device::{Held, access};
use crate::model::{Timestamp, time};

/// Edges the kernel keeps for a line until they are read: half a second of a bouncing contact.
const KERNEL_EVENTS: u32 = 64;

/// Edges taken in one read.
const EVENTS: usize = 16;

/// How often the clocks are looked at together.
const LOOKS: usize = 5;

/// Clocks that were looked at within this time show the same moment: dates have milliseconds.
const CLOSE: Duration = Duration::from_micros(100);

/// As much as the kernel keeps of a consumer's name.
const CONSUMER: usize = 31;

/// How the kernel calls who exports lines in sysfs.
const SYSFS: &str = "sysfs";

/// The kernel's own "not supported", which has no name outside of it.
const ENOTSUPP: i32 = 524;

/// The chips that can be opened; an error where there are some but none opens.
pub(super) fn chips() -> Result<Vec<Chip>, String> {
    let mut found = Vec::new();
    let mut refused = None;
    for path in gpiocdev::chip::chips().unwrap_or_default() {
        match gpiocdev::Chip::from_path(&path).and_then(|chip| chip.info()) {
            Ok(info) => found.push(Chip { path, label: info.label, lines: info.num_lines }),
            Err(error) => refused = Some((path, cause(&error))),
        }
    }
    match refused {
        Some((path, error)) if found.is_empty() => Err(refusal(&path, &error)),
        _ => Ok(found),
    }
}

pub(super) fn refusal(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => access::denied(path),
        _ => format!("{} could not be opened: {error}", path.display()),
    }
}

/// Where a line is, on these chips.
pub(super) fn locate(place: &Place, chips: &[Chip]) -> Result<ChipLine, String> {
    let at = |chip: &Chip, offset| ChipLine { chip: chip.path.display().to_string(), offset };
    match place {
        Place::Name(name) => {
            let named = |chip: &Chip| -> Vec<ChipLine> {
                let Ok(open) = gpiocdev::Chip::from_path(&chip.path) else { return Vec::new() };
                let lines = (0..chip.lines).filter_map(|offset| open.line_info(offset).ok());
                lines.filter(|line| line.name == *name).map(|line| at(chip, line.offset)).collect()
            };
            let hint =
                "`sluicegate discover` lists those there are; a line can also be named as { chip = …, offset = … }";
            let show = |line: &ChipLine| format!("line {} of {}", line.offset, line.chip);
            only(chips.iter().flat_map(named).collect(), &format!("line named `{name}`"), show)
                .map_err(|text| format!("{text} ({hint})"))
        }
        Place::Offset(ChipLine { chip, offset }) => {
            let path = std::fs::canonicalize(chip).unwrap_or_default();
            let is_path = chip.contains('/');
            let wanted = |c: &Chip| if is_path { c.path == path } else { chips::is_called(&c.label, chip) };
            let labels: Vec<String> = chips.iter().map(|c| format!("{} `{}`", c.path.display(), c.label)).collect();
            let found = chips.iter().filter(|c| wanted(c)).collect();
            let found: &Chip = only(found, &format!("GPIO chip `{chip}`"), |c| c.path.display().to_string())
                .map_err(|text| format!("{text} (there are: {})", labels.join(", ")))?;
            if *offset >= found.lines {
                return Err(format!("`{chip}` has only {} lines: expected an offset below that", found.lines));
            }
            Ok(at(found, *offset))
        }
        Place::Number(Number { number }) => {
            let base = chips::bases(Path::new(CLASS)).into_iter().find(|base| base.holds(*number));
            let base = base.ok_or_else(|| {
                format!("sysfs has no chip with line number {number}: name the line as {{ chip = …, offset = … }}")
            })?;
            let same = |chip: &&Chip| {
                let device = chips::device_of(&chip.path, Path::new(DEVICES));
                chip.label == base.label && chip.lines == base.lines && device.is_some_and(|device| base.is_at(&device))
            };
            let what = format!("character device with line number {number}");
            let chip = only(chips.iter().filter(same).collect(), &what, |chip| chip.path.display().to_string())?;
            Ok(at(chip, number - base.base))
        }
    }
}

/// What the kernel knows of a line: for a person, and whether somebody else has it.
pub(super) fn look(place: &Place, chips: &[Chip]) -> Result<(String, Option<String>), String> {
    let at = locate(place, chips)?;
    let info = info(&at).map_err(|error| refusal(Path::new(&at.chip), &error))?;
    let name = if info.name.is_empty() { "without a name".to_owned() } else { format!("named {}", info.name) };
    let user = info.used.then(|| if info.consumer.is_empty() { "the kernel".to_owned() } else { info.consumer });
    let text = format!("line {} of {}, {name}, {}", at.offset, at.chip, if user.is_some() { "in use" } else { "free" });
    Ok((text, user))
}

fn info(at: &ChipLine) -> io::Result<line::Info> {
    gpiocdev::Chip::from_path(&at.chip).and_then(|chip| chip.line_info(at.offset)).map_err(|error| cause(&error))
}

/// Requests a line, or takes it over where it is held as it is wanted. An output has its level from the first moment on.
pub(super) async fn request(want: &Want, chips: &[Chip], held: &Held) -> Result<Box<dyn Line>, String> {
    let at = locate(&want.config.line, chips)?;
    let output = want.output.map(|safe| name(want, safe, &at, chips));
    match kept::adopt(node(&at), at.offset, output.as_ref(), held).await {
        Ok(Some(line)) => return Ok(Box::new(line)),
        Ok(None) => {}
        Err(error) => return Err(want.explain(&at, &error)),
    }
    let abi = gpiocdev::Chip::from_path(&at.chip).and_then(|chip| chip.detect_abi_version());
    let abi = abi.map_err(|error| format!("{}: {error}", at.chip))?;
    let skill = Skill { edges: true, debounced: abi == AbiVersion::V2 };
    if let Some(name) = &output {
        let line = match ask(want, &at, abi, skill).and_then(|request| request.as_fd().try_clone_to_owned()) {
            Ok(descriptor) => kept::hold(name, descriptor, held).await,
            Err(error) => Err(error),
        };
        return line.map(|line| Box::new(line) as Box<dyn Line>).map_err(|error| want.explain(&at, &error));
    }
    match ask(want, &at, abi, skill).and_then(|request| input(request, abi, skill)) {
        Ok(line) => Ok(line),
        // No interrupt for this line: it is asked for its level instead.
        Err(error) if is_without_interrupt(&error) => {
            let skill = Skill { edges: false, ..skill };
            let asked = ask(want, &at, abi, skill).and_then(|request| input(request, abi, skill));
            asked.map_err(|error| want.explain(&at, &error))
        }
        Err(error) => Err(want.explain(&at, &error)),
    }
}

/// Whether this name is that of a line in this place.
pub(super) fn is_at(name: &Name, place: &Place, chips: &[Chip]) -> bool {
    locate(place, chips).is_ok_and(|at| name.is_at(node(&at), at.offset))
}

/// The chip's character device, below `/dev`.
fn node(at: &ChipLine) -> &str {
    at.chip.rsplit('/').next().unwrap_or(&at.chip)
}

/// What an output is held as.
fn name(want: &Want, safe: bool, at: &ChipLine, chips: &[Chip]) -> Name {
    let label = chips.iter().find(|chip| chip.path == Path::new(&at.chip)).map(|chip| chip.label.clone());
    Name {
        node: node(at).to_owned(),
        label: label.unwrap_or_default(),
        offset: at.offset,
        safe,
        active_low: want.config.active_low,
        drive: want.config.drive.unwrap_or(Drive::PushPull),
        bias: want.config.bias.unwrap_or(Bias::AsIs),
    }
}

pub(super) fn is_without_interrupt(error: &io::Error) -> bool {
    const ENXIO: i32 = 6;
    const ENODEV: i32 = 19;
    const EINVAL: i32 = 22;
    matches!(error.raw_os_error(), Some(ENXIO | ENODEV | EINVAL | ENOTSUPP))
}

fn ask(want: &Want, at: &ChipLine, abi: AbiVersion, skill: Skill) -> io::Result<Request> {
    let PointConfig { active_low, bias, drive, debounce, .. } = &want.config;
    let mut builder = Request::builder();
    builder.on_chip(&at.chip).with_line(at.offset).with_consumer(consumer(want.point.as_str())).using_abi_version(abi);
    match want.output {
        Some(safe) => {
            builder.as_output(safe.into());
            if let Some(drive) = drive {
                builder.with_drive(match drive {
                    Drive::PushPull => line::Drive::PushPull,
                    Drive::OpenDrain => line::Drive::OpenDrain,
                    Drive::OpenSource => line::Drive::OpenSource,
                });
            }
        }
        None => {
            builder.as_input();
            if skill.edges {
                builder.with_edge_detection(EdgeDetection::BothEdges);
            }
            if abi == AbiVersion::V2 {
                builder.with_kernel_event_buffer_size(KERNEL_EVENTS);
                if let Some(period) = debounce {
                    builder.with_debounce_period(period.0);
                }
            }
        }
    }
    if *active_low {
        builder.as_active_low();
    }
    builder.with_bias(self::bias(*bias));
    builder.request().map_err(|error| cause(&error))
}

/// What others see of who has a line.
pub(super) fn consumer(point: &str) -> String {
    format!("sluicegate:{point}").chars().take(CONSUMER).collect()
}

/// A line's own resistor, in the kernel's words.
pub(super) fn bias(bias: Option<Bias>) -> Option<line::Bias> {
    match bias {
        None | Some(Bias::AsIs) => None,
        Some(Bias::Disabled) => Some(line::Bias::Disabled),
        Some(Bias::PullUp) => Some(line::Bias::PullUp),
        Some(Bias::PullDown) => Some(line::Bias::PullDown),
    }
}

fn input(request: Request, abi: AbiVersion, skill: Skill) -> io::Result<Box<dyn Line>> {
    let flags = fcntl_getfl(&request)?;
    fcntl_setfl(&request, flags | OFlags::NONBLOCK)?;
    let buffer = vec![0; request.edge_event_u64_size() * EVENTS];
    let descriptor = match watch(request, Interest::READABLE) {
        Ok(watched) => Descriptor::Watched(watched),
        // An input of version 1 without edges has nothing to tell, and so can't be watched.
        Err((request, error)) if error.kind() == io::ErrorKind::PermissionDenied => Descriptor::Mute(request),
        Err((_, error)) => return Err(error),
    };
    Ok(Box::new(CdevLine { descriptor, buffer, abi, skill, seqno: 0 }))
}

/// What to do about a line that this one has.
pub(super) fn remedy(user: &str) -> &'static str {
    match user {
        SYSFS => "free it through /sys/class/gpio/unexport",
        _ => {
            "choose another line, or end that program or, if it is a driver of the kernel, take it out of the device tree"
        }
    }
}

impl Want {
    fn explain(&self, at: &ChipLine, error: &io::Error) -> String {
        let what = if self.output.is_some() { "output" } else { "input" };
        explain(at, self.config.needs_cdev(), what, error)
    }
}

/// Why the kernel refused, and what to do. `key`: what was asked for that not every line can; `what` it was to be.
pub(super) fn explain(at: &ChipLine, key: Option<&str>, what: &str, error: &io::Error) -> String {
    let place = format!("line {} of {}", at.offset, at.chip);
    if error.kind() == io::ErrorKind::ResourceBusy {
        let user = info(at).map(|info| info.consumer).unwrap_or_default();
        let hint = if user == SYSFS { format!(" ({})", remedy(&user)) } else { String::new() };
        return format!("{place} is in use by `{user}`{hint}");
    }
    match (error.raw_os_error(), key) {
        (Some(ENOTSUPP), Some(key)) => format!("{place} can't do what `{key}` asks for"),
        (Some(ENOTSUPP), None) => format!("{place} can't be an {what}"),
        _ => refusal(&PathBuf::from(&at.chip), error),
    }
}

/// An input in use.
struct CdevLine {
    descriptor: Descriptor,
    buffer: Vec<u64>,
    abi: AbiVersion,
    skill: Skill,
    /// The number of the last edge.
    seqno: u32,
}

enum Descriptor {
    Watched(AsyncFd<Request>),
    Mute(Request),
}

impl Descriptor {
    fn request(&self) -> &Request {
        match self {
            Descriptor::Watched(watched) => watched.get_ref(),
            Descriptor::Mute(request) => request,
        }
    }
}

impl CdevLine {
    /// The edges in so many words of the buffer.
    fn take(&mut self, words: usize, edges: &mut Vec<Edge>) -> io::Result<()> {
        let moment = Moment::find();
        let size = self.descriptor.request().edge_event_u64_size();
        for event in self.buffer.get(..words).unwrap_or_default().chunks_exact(size) {
            let event = self.descriptor.request().edge_event_from_slice(event).map_err(|error| cause(&error))?;
            // Version 1 does not count.
            let counts = self.abi == AbiVersion::V2;
            let missed = counts.then(|| event.line_seqno.wrapping_sub(self.seqno).saturating_sub(1));
            self.seqno = event.line_seqno;
            let at = if counts { moment.date(event.timestamp_ns) } else { time::now() };
            edges.push(Edge { level: event.kind == EdgeKind::Rising, at, missed });
        }
        Ok(())
    }
}

/// Reads what the kernel has of edges, as many as fit; how many words they are. `WouldBlock`: there are none.
pub(super) fn read_edges(request: &Request, buffer: &mut [u64]) -> io::Result<usize> {
    request.read_edge_events_into_slice(buffer).map_err(|error| cause(&error))
}

impl Line for CdevLine {
    fn level(&self) -> io::Result<bool> {
        self.descriptor.request().lone_value().map(bool::from).map_err(|error| cause(&error))
    }

    fn set(&self, _: bool) -> io::Result<()> {
        Err(io::Error::other("it is an input"))
    }

    fn poll_edges(&mut self, context: &mut Context<'_>, edges: &mut Vec<Edge>) -> Poll<io::Result<()>> {
        loop {
            let Descriptor::Watched(watched) = &self.descriptor else { return Poll::Pending };
            let mut guard = ready!(watched.poll_read_ready(context))?;
            match read_edges(watched.get_ref(), &mut self.buffer) {
                Ok(words) => return Poll::Ready(self.take(words, edges)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn waiting(&mut self, edges: &mut Vec<Edge>) -> io::Result<()> {
        if matches!(self.descriptor, Descriptor::Mute(_)) {
            return Ok(());
        }
        // No more than the kernel keeps: a line that never rests is not to hold up the others.
        for _ in 0..=KERNEL_EVENTS as usize / EVENTS {
            match read_edges(self.descriptor.request(), &mut self.buffer) {
                Ok(words) => self.take(words, edges)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn skill(&self) -> Skill {
        self.skill
    }
}

/// The same moment by the gateway's clocks and by the monotonic one, which the kernel dates edges with.
#[derive(Debug, Clone, Copy)]
struct Moment {
    now: Timestamp,
    monotonic: Duration,
}

impl Moment {
    /// Now. Between two looks at clocks the process may have to wait for the processor: the closest of a few counts.
    fn find() -> Self {
        let mut found = Moment { now: time::now(), monotonic: time::monotonic() };
        let mut least = Duration::MAX;
        for _ in 0..LOOKS {
            let before = time::monotonic();
            let now = time::now();
            let apart = time::monotonic().saturating_sub(before);
            if apart < least {
                (found, least) = (Moment { now, monotonic: before }, apart);
            }
            if least <= CLOSE {
                break;
            }
        }
        found
    }

    /// A moment before, by the monotonic clock.
    fn date(&self, nanoseconds: u64) -> Timestamp {
        let age = self.monotonic.saturating_sub(Duration::from_nanos(nanoseconds));
        let Moment { now, .. } = self;
        Timestamp { uptime: now.uptime.saturating_sub(age), wall: now.wall.saturating_sub(age), ..*now }
    }
}

/// What the kernel said.
pub(super) fn cause(error: &gpiocdev::Error) -> io::Error {
    match error {
        gpiocdev::Error::Os(errno) | gpiocdev::Error::Uapi(_, gpiocdev_uapi::Error::Os(errno)) => {
            io::Error::from_raw_os_error(errno.0)
        }
        other => io::Error::other(other.to_string()),
    }
}
