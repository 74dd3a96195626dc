//! What goes between a device and its driver, on tape: recorded on the board, played on the desk.
//!
//! Each device has a [`Tape`]. On the board it is idle, and costs one look at an atomic number a chunk of bytes, until
//! somebody records ([`Tapes::record`]). Then the driver begins a new life at a moment that suits it, so that nothing
//! which it knew before has a part in what follows; the way to the device stays open. What it hands over to that life is
//! the first line ([`Seed`]). A driver of bytes has its bytes recorded, any other one what it reports of its points.
//!
//! On the desk the tape plays ([`player`]), in the place of the port: the driver is the same code.
//!
//! Recording never holds the device back: what whoever records does not take in time is missed, and said to be.

mod line;
#[cfg_attr(not(feature = "desk"), path = "no_player.rs")]
mod player;
#[cfg(feature = "desk")]
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crc::Digest;
use tokio::sync::{Notify, mpsc};

#[cfg(feature = "desk")]
use self::line::digits;
pub use self::line::{Event, Head};
pub(super) use self::line::{Report, Seed, What};
#[cfg(feature = "desk")]
pub use self::line::{read, sum};
use self::player::Player;
use super::DeviceError;
use crate::disk::CRC_32;
use crate::model::{DeviceName, PointName, Timestamp, Value, time};

/// Events on their way to who records: at most 2 MiB, in chunks of 4 KiB, and seconds of any line.
const EVENTS: usize = 256;

/// Nobody records.
const IDLE: u8 = 0;
/// Somebody wants to, from the next life of the driver on.
const WANTED: u8 = 1;
/// Somebody does.
const RUNNING: u8 = 2;
/// The device was stopped for good: no life begins any more.
const STOPPED: u8 = 3;

/// One device's tape. All clones are one.
#[derive(Debug, Clone)]
pub struct Tape(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    Board(Board),
    #[cfg(feature = "desk")]
    Desk(Player),
    Idle,
}

/// On the board.
#[derive(Debug)]
struct Board {
    device: DeviceName,
    kind: &'static str,
    /// The driver's bytes are recorded, not its reports.
    is_of_bytes: bool,
    state: AtomicU8,
    recorder: Mutex<Option<Recorder>>,
    wanted: Notify,
}

/// The tape's end of a recording.
#[derive(Debug)]
struct Recorder {
    lines: mpsc::Sender<String>,
    start: Duration,
    missed: u64,
}

/// The tapes of the devices that run. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Tapes(Arc<Mutex<BTreeMap<DeviceName, Tape>>>);

/// A recording under way; it ends with this.
pub struct Recording {
    lines: mpsc::Receiver<String>,
    tape: Tape,
    sum: Digest<'static, u32>,
    /// The driver's life has begun with which it does.
    has_begun: bool,
    /// The tape is another one's.
    is_over: bool,
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("tape", &self.tape).finish_non_exhaustive()
    }
}

impl Tapes {
    /// The tape for a device that starts. One that was there before has ended.
    pub(super) fn thread(&self, device: &DeviceName, kind: &'static str, is_of_bytes: bool) -> Tape {
        let board = Board {
            device: device.clone(),
            kind,
            is_of_bytes,
            state: AtomicU8::new(IDLE),
            recorder: Mutex::new(None),
            wanted: Notify::new(),
        };
        let tape = Tape(Arc::new(Inner::Board(board)));
        self.lock().insert(device.clone(), tape.clone());
        tape
    }

    /// Records a device from its driver's next life on, which begins soon.
    ///
    /// # Errors
    /// When there is no such device, its driver has ended, or somebody records it already.
    pub fn record(&self, device: &str) -> Result<Recording, String> {
        let tapes = self.lock();
        let tape = tapes.iter().find(|(name, _)| name.as_str() == device).map(|(_, tape)| tape.clone());
        let tape = tape.ok_or_else(|| format!("the running gateway has no device `{device}`: reload its config?"))?;
        let Inner::Board(board) = &*tape.0 else { return Err("nothing can be recorded on the desk".to_owned()) };
        let mut recorder = board.recorder();
        if board.state.load(Ordering::Acquire) == STOPPED {
            return Err(format!("the driver of device `{device}` has ended: try again when it was started anew"));
        }
        if recorder.is_some() {
            return Err(format!("device `{device}` is being recorded already"));
        }
        let (sender, lines) = mpsc::channel(EVENTS);
        *recorder = Some(Recorder { lines: sender, start: Duration::ZERO, missed: 0 });
        board.state.store(WANTED, Ordering::Release);
        board.wanted.notify_one();
        drop(recorder);
        Ok(Recording { lines, tape, sum: CRC_32.digest(), has_begun: false, is_over: false })
    }

    /// The device is there no more.
    pub(super) fn forget(&self, device: &DeviceName) {
        self.lock().remove(device);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceName, Tape>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording {
    /// The next line. `None`: the device was stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<String> {
        let line = self.lines.recv().await?;
        self.add(&line);
        Some(line)
    }

    /// Ends it: the lines that are left.
    pub fn finish(mut self) -> Vec<String> {
        let Inner::Board(board) = &*self.tape.0 else { return Vec::new() };
        let ended = board.end();
        self.is_over = true;
        let mut lines = Vec::new();
        while let Ok(line) = self.lines.try_recv() {
            self.add(&line);
            lines.push(line);
        }
        if let Some(Recorder { start, missed, .. }) = ended.filter(|_| self.has_begun) {
            let t = time::uptime().saturating_sub(start);
            if missed > 0 {
                let line = Event { t, date: None, what: What::Missed(missed) }.line();
                self.add(&line);
                lines.push(line);
            }
            lines.push(Event { t, date: None, what: What::End(self.sum.clone().finalize()) }.line());
        }
        lines
    }

    fn add(&mut self, line: &str) {
        self.has_begun = true;
        self.sum.update(line.as_bytes());
        self.sum.update(b"\n");
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Once it is over, somebody else may record.
        if let Inner::Board(board) = &*self.tape.0
            && !self.is_over
        {
            drop(board.end());
        }
    }
}

impl Tape {
    /// A tape that plays a recording, from now on.
    #[cfg(feature = "desk")]
    pub fn play(head: Head, events: Vec<Event>) -> Self {
        Tape(Arc::new(Inner::Desk(Player::new(head, events))))
    }

    /// The player, on the desk.
    pub fn player(&self) -> Option<&Player> {
        match &*self.0 {
            #[cfg(feature = "desk")]
            Inner::Desk(player) => Some(player),
            _ => None,
        }
    }

    /// A tape that nobody records on.
    pub(super) fn idle() -> Self {
        Tape(Arc::new(Inner::Idle))
    }

    fn board(&self, state: u8) -> Option<&Board> {
        match &*self.0 {
            Inner::Board(board) if board.state.load(Ordering::Acquire) == state => Some(board),
            _ => None,
        }
    }

    /// Waits until somebody wants a new life of the driver to record, where the driver hands over between its lives. Cancel-safe.
    pub(super) async fn wanted(&self) {
        match &*self.0 {
            Inner::Board(board) => {
                while board.state.load(Ordering::Acquire) != WANTED {
                    board.wanted.notified().await;
                }
            }
            _ => std::future::pending().await,
        }
    }

    /// A life of the driver begins with this. The result is with what it begins: on the desk, with what is on the tape.
    pub(super) async fn begin(&self, seed: Seed) -> Seed {
        match &*self.0 {
            #[cfg(feature = "desk")]
            Inner::Desk(player) => player.begin().await,
            _ => {
                self.begin_on_board(&seed);
                seed
            }
        }
    }

    /// The same where it must not wait.
    pub(super) fn begin_on_board(&self, seed: &Seed) {
        let now = whole(time::now());
        if let Some(board) = self.board(WANTED) {
            let head = Head {
                device: board.device.clone(),
                kind: board.kind.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                start: now,
            };
            if let Some(recorder) = &mut *board.recorder() {
                recorder.start = now.uptime;
                recorder.send(head.line());
                board.state.store(RUNNING, Ordering::Release);
            }
        }
        self.note(now, || What::Start(seed.clone()));
    }

    /// The driver's life ended by itself.
    pub(super) fn ended(&self, why: &DeviceError) {
        match &*self.0 {
            #[cfg(feature = "desk")]
            Inner::Desk(player) => player.ended(why),
            _ => self.note_now(|| What::Lost(why.to_string())),
        }
    }

    /// On the desk: waits until the driver's life ended on the board. Cancel-safe.
    pub(super) async fn lost(&self) -> DeviceError {
        match &*self.0 {
            #[cfg(feature = "desk")]
            Inner::Desk(player) => player.lost().await,
            _ => std::future::pending().await,
        }
    }

    /// These bytes came, now.
    pub(super) fn heard(&self, bytes: &[u8]) -> Timestamp {
        let now = whole(time::now());
        self.note(now, || What::In(bytes.to_vec()));
        now
    }

    /// These bytes are about to be sent.
    pub(super) fn said(&self, bytes: &[u8]) {
        self.note_now(|| What::Out(bytes.to_vec()));
    }

    /// The line has another speed.
    pub(super) fn set_baud_rate(&self, baud_rate: u32) {
        self.note_now(|| What::Baud(baud_rate));
    }

    /// Whether the writes that the driver takes are recorded.
    pub(super) fn takes_writes(&self) -> bool {
        self.board(RUNNING).is_some_and(|board| board.is_of_bytes)
    }

    /// The driver begins with a write of these values, in the points' units.
    pub(super) fn wrote(&self, values: Vec<(PointName, Value)>, timeout: Duration) {
        self.note_now(|| What::Write(values, timeout));
    }

    /// Whether the driver's reports are recorded: `None` where they are not, else whether that is yet to begin.
    pub(super) fn reports(&self) -> Option<bool> {
        match &*self.0 {
            Inner::Board(board) if !board.is_of_bytes => match board.state.load(Ordering::Acquire) {
                IDLE | STOPPED => None,
                state => Some(state == WANTED),
            },
            _ => None,
        }
    }

    /// The driver said this.
    pub(super) fn report(&self, report: impl FnOnce() -> Report, at: Timestamp) {
        self.note(at, || What::Report(report()));
    }

    /// The device was stopped for good: so is a recording of it, and none begins.
    pub(super) fn stop(&self) {
        let Inner::Board(board) = &*self.0 else { return };
        let mut recorder = board.recorder();
        board.state.store(STOPPED, Ordering::Release);
        if let Some(recorder) = recorder.as_mut() {
            recorder.lines = mpsc::channel(1).0;
        }
    }

    fn note_now(&self, what: impl FnOnce() -> What) {
        if self.board(RUNNING).is_some() {
            self.note(time::now(), what);
        }
    }

    fn note(&self, at: Timestamp, what: impl FnOnce() -> What) {
        if self.board(RUNNING).is_some() {
            self.write_down(at, what());
        }
    }

    /// Rare, and one piece of code.
    #[inline(never)]
    fn write_down(&self, at: Timestamp, what: What) {
        let Some(board) = self.board(RUNNING) else { return };
        let Some(recorder) = &mut *board.recorder() else { return };
        let t = at.uptime.saturating_sub(recorder.start);
        let dates = matches!(what, What::In(_) | What::Report(_)) && at.synced;
        if recorder.missed > 0 {
            let line = Event { t, date: None, what: What::Missed(recorder.missed) }.line();
            if recorder.lines.try_send(line).is_err() {
                recorder.missed += 1;
                return;
            }
            recorder.missed = 0;
        }
        recorder.send(Event { t, date: dates.then_some(at.wall), what }.line());
    }
}

impl Board {
    fn recorder(&self) -> MutexGuard<'_, Option<Recorder>> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> Option<Recorder> {
        let mut recorder = self.recorder();
        if self.state.load(Ordering::Acquire) != STOPPED {
            self.state.store(IDLE, Ordering::Release);
        }
        recorder.take()
    }
}

impl Recorder {
    fn send(&mut self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.missed += 1;
        }
    }
}

/// As the tape has it: in whole microseconds, so that what is dated by it here is dated by the same there.
fn whole(at: Timestamp) -> Timestamp {
    let nanos = at.uptime.subsec_nanos() % 1000;
    Timestamp { uptime: at.uptime.saturating_sub(Duration::from_nanos(nanos.into())), ..at }
}
