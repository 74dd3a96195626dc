//! One open way to slaves: a question out, its answer in.
//!
//! An answer on a line says neither what it answers nor when that was asked. So what is there before a question is
//! thrown away, an answer counts only with the unit, function and length that were asked for, and one that was given up
//! has the turnaround to pass. Noise before and behind an answer is survived (`frame`).

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
            (Some(settings), _) => Way::Port(Port::open(&settings, &Tape::idle()).await?),
            (None, address) => Way::Stream(connect(address.as_deref().unwrap_or_default()).await?),
        };
        let (bus, tape, now) = (bus.clone(), tape.clone(), Instant::now());
        Ok(Wire { way, bus, tape, heard: time::now(), quiet_until: now, owed_until: None, transaction: 0 })
    }

    /// It is this device's turn.
    pub(super) fn turn_to(&mut self, tape: &Tape) {
        self.tape = tape.clone();
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

    /// Asks, and waits for the answer. Where this is dropped half-way, the next question waits until its answer has passed.
    pub(super) async fn ask(&mut self, unit: u8, request: &Request) -> Result<Vec<u8>, Trouble> {
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
        let found = self.listen(unit, request, end + self.bus.timeout.0).await;
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

    async fn listen(&mut self, unit: u8, request: &Request, until: Instant) -> Result<Answer, Trouble> {
        let (mut bytes, mut count) = (Vec::new(), 0);
        let mut chunk = [0; 512];
        loop {
            let Ok(more) = timeout_at(until, self.way.read(&mut chunk, &self.tape)).await else {
                return Err(Trouble::Silence(count));
            };
            let (more, at) = more?;
            let more = chunk.get(..more).unwrap_or_default();
            self.heard = at.unwrap_or_else(|| self.tape.heard(more));
            count += more.len();
            bytes.extend_from_slice(more);
            let found = if self.bus.is_modbus_tcp() {
                frame::take_tcp(&mut bytes, self.transaction, unit, request).map_err(|text| self.way.lost(&text))?
            } else {
                frame::find_rtu(&bytes, unit, request)
            };
            match found {
                Found::Answer(answer) => return Ok(answer),
                Found::Damaged => return Err(Trouble::Damaged),
                Found::Nothing => drop(bytes.drain(..bytes.len().saturating_sub(MOST_BYTES))),
            }
        }
    }

    /// Waits until the line is free, and throws away what is on it.
    pub(super) async fn make_ready(&mut self) -> Result<(), Trouble> {
        if let Some(until) = self.owed_until.take() {
            self.quiet_until = self.quiet_until.max(until);
        }
        sleep_until(self.quiet_until).await;
        if let Way::Port(port) = &self.way {
            port.forget_input()?;
        }
        if let Way::Tape = self.way {
            return Ok(());
        }
        let mut chunk = [0; 512];
        while let Some(more) = self.way.read(&mut chunk, &self.tape).now_or_never() {
            if let Err(error) = more {
                // A server ends a connection on which it has heard nothing for long: nothing was asked yet.
                let Some(address) = self.bus.address.as_deref() else { return Err(Trouble::Lost(error)) };
                self.way = Way::Stream(connect(address).await?);
            }
        }
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
