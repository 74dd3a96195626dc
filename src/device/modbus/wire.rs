//! One open way to slaves: a question out, its answer in.
//!
//! An answer on a line says neither what it answers nor when that was asked. So what is there before a question is
//! thrown away, an answer counts only with the unit, function and length that were asked for, and one that was given up
//! has the turnaround to pass. A refusal has no length of its own: where it may be another question's, what comes behind it
//! is waited for. Noise before and behind an answer is survived (`frame`). On some lines what is said comes back, and the
//! answer to a write of one register is the same again: reads tell whether it is such a line.
//!
//! Behind a server there may be a line on which it waits for a slave longer than we do: the next question waits for the
//! end of the one before, which has a number. A connection that stops within a frame is made anew.

use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::config::Bus;
use super::frame::{self, Found};
use super::pdu::{Answer, Exception, Request};
use crate::device::DeviceError;
use crate::device::port::Port;
use crate::device::tape::Tape;
use crate::model::{Timestamp, time};

/// For a server in the same building, over a VPN as well.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// More than the longest frame with noise around it; what is more is noise.
const MOST_BYTES: usize = 4096;

/// How many times `timeout` more a server may wait for a slave, before the next question is asked.
pub(super) const HOLD: u32 = 2;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The slave refuses.
    Refused(Exception),
    /// It said nothing in time that could be read; so many bytes came.
    Silence(usize),
    /// Its answer came with a wrong check.
    Damaged,
    /// The way itself is gone.
    Lost(DeviceError),
}

/// An open way.
#[derive(Debug)]
pub(super) struct Wire {
    way: Way,
    bus: Bus,
    /// Of the device whose turn it is.
    tape: Tape,
    heard: Timestamp,
    /// Nobody speaks before.
    quiet_until: Instant,
    /// A question is under way, whose answer may come until then.
    owed_until: Option<Instant>,
    transaction: u16,
    /// By TCP: the server is still at that one, as far as we know until then.
    held_until: Option<Instant>,
    /// Whether what is said comes back, once that is known.
    echoes: Option<bool>,
    /// What came, and belongs to the question under way. By TCP it may be the beginning of an answer that was given up.
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum Way {
    Port(Port),
    Stream(TcpStream),
    /// On the desk.
    Tape,
}

impl Wire {
    pub(super) async fn open(bus: &Bus, tape: &Tape) -> Result<Self, DeviceError> {
        if let Some(player) = tape.player() {
            player.opened().await;
        }
        let way = match (bus.settings(), &bus.address) {
            _ if tape.player().is_some() => Way::Tape,
            // The tape is not the port's: several devices share it, and each has its own.
            (Some(settings), _) => Way::Port(Port::open(settings, &Tape::idle()).await?),
            (None, address) => Way::Stream(connect(address.as_deref().unwrap_or_default()).await?),
        };
        Ok(Wire {
            way,
            bus: bus.clone(),
            tape: tape.clone(),
            heard: time::now(),
            quiet_until: Instant::now(),
            owed_until: None,
            transaction: 0,
            held_until: None,
            echoes: None,
            bytes: Vec::new(),
        })
    }

    /// It is this device's turn.
    pub(super) fn turn_to(&mut self, tape: &Tape) {
        self.tape = tape.clone();
    }

    /// Whether what is said comes back.
    pub(super) fn echoes(&self) -> Option<bool> {
        self.echoes
    }

    /// Says so.
    pub(super) fn set_echoes(&mut self, echoes: bool) {
        self.echoes = Some(echoes);
    }

    /// When the last answer came.
    pub(super) fn heard(&self) -> Timestamp {
        self.heard
    }

    pub(super) async fn close(self) {
        if let Way::Port(port) = self.way {
            port.close().await;
        }
    }

    /// Asks, and waits for the answer; where a refusal may be another question's, until its time is over. Where this is
    /// dropped half-way, the next question waits until its answer has passed.
    pub(super) async fn ask(&mut self, unit: u8, request: &Request, may_refuse: bool) -> Result<Vec<u8>, Trouble> {
        self.make_ready().await?;
        let pdu = request.pdu();
        let is_tcp = self.bus.is_modbus_tcp();
        self.transaction = self.transaction.wrapping_add(1);
        // On the board others on the connection have numbers in between.
        let sent = self.tape.player().filter(|_| is_tcp).and_then(|player| player.next_sent());
        if let Some(&[high, low, ..]) = sent.as_ref().map(|(sent, _)| sent.as_slice()) {
            self.transaction = u16::from_be_bytes([high, low]);
        }
        let frame = if is_tcp { frame::tcp(self.transaction, unit, &pdu) } else { frame::rtu(unit, &pdu) };
        let sent = self.bus.time_of(frame.len());
        self.owed_until = Some(Instant::now() + sent + self.bus.timeout.0);
        self.tape.said(&frame);
        self.way.write(&frame, &self.tape).await?;
        let end = Instant::now() + sent;
        if unit == 0 && !is_tcp {
            self.owed_until = None;
            self.quiet_until = end + self.bus.turnaround.0;
            sleep_until(self.quiet_until).await;
            return Ok(Vec::new());
        }
        let until = end + self.bus.timeout.0;
        // Until its end is known, it may be under way.
        self.held_until = is_tcp.then(|| until + self.bus.timeout.0 * HOLD);
        let found = self.listen(unit, request, &frame, until, may_refuse).await;
        if !matches!(found, Err(Trouble::Silence(_))) {
            self.held_until = None;
        }
        self.owed_until = None;
        // What comes behind an answer that was given up, or was damaged, has its time to pass.
        let pause = if matches!(found, Err(Trouble::Silence(_) | Trouble::Damaged)) && !is_tcp {
            self.bus.turnaround.0
        } else {
            self.bus.silence()
        };
        self.quiet_until = Instant::now() + pause;
        match found? {
            Answer::Data(data) => Ok(data),
            Answer::Refused(exception) if exception.is_silence() => Err(Trouble::Silence(0)),
            Answer::Refused(exception) => Err(Trouble::Refused(exception)),
        }
    }

    async fn listen(
        &mut self,
        unit: u8,
        request: &Request,
        said: &[u8],
        until: Instant,
        may_refuse: bool,
    ) -> Result<Answer, Trouble> {
        let (mut count, mut is_suspect) = (0, false);
        let is_tcp = self.bus.is_modbus_tcp();
        let is_read = matches!(request, Request::Read { .. });
        // What is looked for first.
        let mut echo = (!is_tcp && (is_read || self.echoes != Some(false))).then_some(said);
        let mut chunk = [0; 512];
        self.bytes.clear();
        loop {
            let Ok(more) = timeout_at(until, self.way.read(&mut chunk, &self.tape)).await else {
                if count == 0 && is_read {
                    self.echoes.get_or_insert(false);
                }
                if !is_tcp
                    && !may_refuse
                    && let Found::Answer(refusal) = frame::find_rtu(&self.bytes, unit, request, true)
                {
                    return Ok(refusal);
                }
                return Err(if is_suspect { Trouble::Damaged } else { Trouble::Silence(count) });
            };
            let (more, at) = more?;
            let more = chunk.get(..more).unwrap_or_default();
            self.heard = at.unwrap_or_else(|| self.tape.heard(more));
            count += more.len();
            self.bytes.extend_from_slice(more);
            if let Some(said) = echo
                && let Some(at) = self.bytes.windows(said.len()).position(|part| part == said)
            {
                self.bytes.drain(..at + said.len());
                echo = None;
                // The answer to a write may look just like that.
                if is_read {
                    self.echoes = Some(true);
                }
            }
            let found = if is_tcp {
                frame::take_tcp(&mut self.bytes, self.transaction, unit, request)
                    .map_err(|text| self.way.lost(&text))?
            } else if echo.is_some_and(|said| !is_read || said.starts_with(&self.bytes)) {
                // So far it is, or may be, what was said.
                Found::Nothing
            } else {
                frame::find_rtu(&self.bytes, unit, request, may_refuse)
            };
            match found {
                Found::Answer(answer) => {
                    if is_read && !is_tcp {
                        self.echoes = Some(echo.is_none());
                    }
                    return Ok(answer);
                }
                Found::Damaged => return Err(Trouble::Damaged),
                Found::Suspect => is_suspect = true,
                Found::Nothing => drop(self.bytes.drain(..self.bytes.len().saturating_sub(MOST_BYTES))),
            }
        }
    }

    /// Waits until the line is free, and throws away what is on it.
    pub(super) async fn make_ready(&mut self) -> Result<(), Trouble> {
        if let Some(until) = self.owed_until.take() {
            self.quiet_until = self.quiet_until.max(until);
        }
        sleep_until(self.quiet_until).await;
        if let Some(player) = self.tape.player() {
            // What the board read until the line was free is on no tape; when it was, is.
            if let (Some(held), Some((_, sent))) = (self.held_until.take(), player.next_sent()) {
                sleep_until(sent.min(held)).await;
            }
            return Ok(());
        }
        self.pass_held().await?;
        if let Way::Port(port) = &self.way {
            port.forget_input()?;
        }
        let is_tcp = self.bus.is_modbus_tcp();
        let mut chunk = [0; 512];
        while let Some(more) = self.way.read(&mut chunk, &self.tape).now_or_never() {
            match more {
                Ok((more, _)) if is_tcp => {
                    self.bytes.extend_from_slice(chunk.get(..more).unwrap_or_default());
                    frame::ends_tcp(&mut self.bytes, self.transaction).map_err(|text| self.way.lost(&text))?;
                }
                Ok(_) => {}
                // A server ends a connection on which it has heard nothing for long: nothing was asked yet.
                Err(error) => self.connect_anew(error).await?,
            }
        }
        if is_tcp && !self.bytes.is_empty() {
            self.connect_anew(self.way.lost("the rest of an answer did not come")).await?;
        }
        Ok(())
    }

    /// Waits for the end of the question that the server may still be at.
    async fn pass_held(&mut self) -> Result<(), Trouble> {
        let Some(until) = self.held_until else { return Ok(()) };
        let mut chunk = [0; 512];
        while let Ok(more) = timeout_at(until, self.way.read(&mut chunk, &self.tape)).await {
            // A connection that ends is made anew behind this.
            let Ok((more, _)) = more else { break };
            self.bytes.extend_from_slice(chunk.get(..more).unwrap_or_default());
            if frame::ends_tcp(&mut self.bytes, self.transaction).map_err(|text| self.way.lost(&text))? {
                break;
            }
        }
        self.held_until = None;
        Ok(())
    }

    /// Opens the way again, where it is a connection; else this is why it is lost.
    async fn connect_anew(&mut self, why: DeviceError) -> Result<(), Trouble> {
        let Some(address) = self.bus.address.as_deref() else { return Err(Trouble::Lost(why)) };
        self.bytes.clear();
        self.way = Way::Stream(connect(address).await?);
        Ok(())
    }
}

impl Way {
    /// How many bytes came, and from a tape, when.
    async fn read(&mut self, chunk: &mut [u8], tape: &Tape) -> Result<(usize, Option<Timestamp>), DeviceError> {
        match self {
            Way::Tape => match tape.player() {
                Some(player) => {
                    let (count, at) = player.read(chunk).await;
                    Ok((count, Some(at)))
                }
                None => std::future::pending().await,
            },
            Way::Port(port) => Ok((port.read(chunk).await?, None)),
            Way::Stream(stream) => match stream.read(chunk).await {
                Ok(0) => Err(self.lost("the server ended the connection")),
                Ok(count) => Ok((count, None)),
                Err(error) => Err(self.lost(&error.to_string())),
            },
        }
    }

    async fn write(&mut self, bytes: &[u8], tape: &Tape) -> Result<(), DeviceError> {
        match self {
            Way::Tape => {
                if let Some(player) = tape.player() {
                    player.write(bytes).await;
                }
                Ok(())
            }
            Way::Port(port) => port.write(bytes).await,
            Way::Stream(stream) => match timeout(CONNECT_PATIENCE, stream.write_all(bytes)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(self.lost(&error.to_string())),
                Err(_) => Err(self.lost("the server takes nothing more")),
            },
        }
    }

    fn lost(&self, why: &str) -> DeviceError {
        let server = match self {
            Way::Stream(stream) => stream.peer_addr().map(|address| address.to_string()).unwrap_or_default(),
            Way::Port(_) | Way::Tape => String::new(),
        };
        DeviceError::Lost(format!("the connection to {server} is gone: {why}"))
    }
}

impl From<DeviceError> for Trouble {
    fn from(error: DeviceError) -> Self {
        Trouble::Lost(error)
    }
}

/// Connects to a server.
pub(super) fn connect(address: &str) -> impl Future<Output = Result<TcpStream, DeviceError>> + Send {
    let address = address.to_owned();
    async move {
        let failed = |why: &str| DeviceError::Open(format!("{address} can't be reached: {why}"));
        match timeout(CONNECT_PATIENCE, TcpStream::connect(&address)).await {
            Ok(Ok(stream)) => match stream.set_nodelay(true) {
                Ok(()) => Ok(stream),
                Err(error) => Err(failed(&error.to_string())),
            },
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed(&format!("no answer for {} s", CONNECT_PATIENCE.as_secs()))),
        }
    }
}
