//! A serial port that tells the truth about being unplugged and never blocks.
//!
//! Of tokio-serial only the two directions are used: its flush is `tcdrain`, which stops the thread, and its read of
//! an unplugged adapter gives no bytes for ever.

pub(super) mod rivals;
mod rs485;
mod settings;
// What only `discover` of the kind `serial` shows.
#[cfg_attr(not(feature = "serial"), allow(dead_code))]
pub(super) mod usb;

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_serial::{ClearBuffer, DataBits, ErrorKind, SerialPort, SerialStream, StopBits};

pub(super) use self::rivals::Rival;
pub(super) use self::settings::{FlowControl, Parity, Settings};
use super::tape::Tape;
use super::{DeviceError, access};
use crate::model::{Timestamp, time};

/// A command of a few dozen bytes takes less at 300 baud; what takes longer is held back by the device.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// What was written just before the stop still goes out: 100 bytes at 1200 baud.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// An open port.
#[derive(Debug)]
pub(super) struct Port {
    /// `None`: on the desk, where the tape is all there is.
    stream: Option<SerialStream>,
    path: String,
    tape: Tape,
    heard: Timestamp,
}

impl Port {
    /// Opens the port for us alone, outside the runtime's threads: setting the line of a USB adapter up can take long.
    /// What goes through it is put on this tape, or comes from it.
    pub(super) async fn open(settings: &Settings, tape: &Tape) -> Result<Self, DeviceError> {
        let (path, tape) = (settings.port.clone(), tape.clone());
        if let Some(player) = tape.player() {
            player.opened().await;
            return Ok(Port { stream: None, path, tape, heard: time::now() });
        }
        let stream = Self::stream(settings).await?;
        Ok(Port { stream: Some(stream), path, tape, heard: time::now() })
    }

    async fn stream(settings: &Settings) -> Result<SerialStream, DeviceError> {
        let builder = tokio_serial::new(&settings.port, settings.baud_rate)
            .data_bits(match settings.data_bits {
                5 => DataBits::Five,
                6 => DataBits::Six,
                7 => DataBits::Seven,
                _ => DataBits::Eight,
            })
            .parity(match settings.parity {
                Parity::None => tokio_serial::Parity::None,
                Parity::Odd => tokio_serial::Parity::Odd,
                Parity::Even => tokio_serial::Parity::Even,
            })
            .stop_bits(if settings.stop_bits == 2 { StopBits::Two } else { StopBits::One })
            .flow_control(match settings.flow_control {
                FlowControl::None => tokio_serial::FlowControl::None,
                FlowControl::Software => tokio_serial::FlowControl::Software,
                FlowControl::Hardware => tokio_serial::FlowControl::Hardware,
            });
        let (path, rs485) = (settings.port.clone(), settings.rs485);
        let open = move || -> tokio_serial::Result<SerialStream> {
            let stream = SerialStream::open(&builder)?;
            let set = rs485.map_or(Ok(()), |rs485| rs485.set(&stream));
            set.map_err(|text| tokio_serial::Error::new(ErrorKind::Unknown, text))?;
            Ok(stream)
        };
        let opened = tokio::task::spawn_blocking(open).await;
        match opened {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let busy = matches!(error.kind(), ErrorKind::NoDevice);
                let rivals = if busy { rivals(&path).await } else { Vec::new() };
                Err(DeviceError::Open(match rivals.iter().find(|rival| rival.holds()) {
                    Some(rival) => rival.to_string(),
                    None => why(&path, error.kind(), &error.to_string()),
                }))
            }
            Err(error) => Err(DeviceError::Open(format!("{path} could not be opened: {error}"))),
        }
    }

    /// Waits for bytes. Cancel-safe.
    pub(super) async fn read(&mut self, chunk: &mut [u8]) -> Result<usize, DeviceError> {
        let Some(stream) = &mut self.stream else { return Ok(self.play(chunk).await) };
        match stream.read(chunk).await {
            Ok(0) => Err(self.lost("the adapter was unplugged, or the far end closed it")),
            Ok(count) => {
                self.heard = self.tape.heard(chunk.get(..count).unwrap_or_default());
                Ok(count)
            }
            Err(error) => Err(self.lost(&error.to_string())),
        }
    }

    async fn play(&mut self, chunk: &mut [u8]) -> usize {
        let Some(player) = self.tape.player() else { return std::future::pending().await };
        let (count, at) = player.read(chunk).await;
        self.heard = at;
        count
    }

    /// When the last bytes came; at first, when it was opened.
    pub(super) fn heard(&self) -> Timestamp {
        self.heard
    }

    /// Hands bytes to the kernel; when they are out on the wire nobody says.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.tape.said(bytes);
        let Some(stream) = &mut self.stream else {
            if let Some(player) = self.tape.player() {
                player.write(bytes).await;
            }
            return Ok(());
        };
        match timeout(WRITE_PATIENCE, stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            Err(_) => Err(self.lost("the device holds back what is sent to it (flow control)")),
        }
    }

    /// Drops what came and nobody read: it is no answer to what is asked next.
    pub(super) fn forget_input(&self) -> Result<(), DeviceError> {
        let Some(stream) = &self.stream else { return Ok(()) };
        stream.clear(ClearBuffer::Input).map_err(|error| self.lost(&error.to_string()))
    }

    /// Sets the line to another speed, once what was written is out.
    pub(super) async fn set_baud_rate(&mut self, baud_rate: u32) -> Result<(), DeviceError> {
        self.sent(WRITE_PATIENCE).await;
        self.tape.set_baud_rate(baud_rate);
        let Some(stream) = &mut self.stream else { return Ok(()) };
        stream.set_baud_rate(baud_rate).map_err(|error| self.lost(&error.to_string()))
    }

    /// Closes the port once what was written is out, within reason.
    pub(super) async fn close(self) {
        self.sent(CLOSE_PATIENCE).await;
    }

    /// Waits until what was written is out, so long at most.
    async fn sent(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while self.is_busy() && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_busy(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.bytes_to_write().is_ok_and(|waiting| waiting > 0))
    }

    fn lost(&self, why: &str) -> DeviceError {
        DeviceError::Lost(format!("{} is gone: {why}", self.path))
    }
}

impl Drop for Port {
    /// The kernel would wait up to 30 s in `close` for bytes that the device does not take. Only where there are some:
    /// on a pseudo-terminal nothing waits, and clearing would take from the far end what it has not read yet.
    fn drop(&mut self) {
        if self.is_busy()
            && let Some(stream) = &self.stream
            && let Err(error) = stream.clear(ClearBuffer::Output)
        {
            tracing::debug!("{} was gone before it was closed: {error}", self.path);
        }
    }
}

/// Tries whether a port can be had, for `check --devices`.
pub(super) async fn probe(settings: &Settings) -> Result<String, DeviceError> {
    let port = &settings.port;
    let rivals = rivals(port).await;
    if let Some(rival) = rivals.iter().find(|rival| rival.holds() && !rival.is_gateway()) {
        return Err(DeviceError::Open(rival.to_string()));
    }
    if rivals.iter().any(Rival::is_gateway) {
        return Ok(format!("{port} is in use by the running gateway"));
    }
    drop(Port::stream(settings).await?);
    let more: String = rivals.iter().map(|rival| format!("; {rival}")).collect();
    Ok(format!("{port} can be opened{more}"))
}

/// Who else has it. Looks at every process, so outside the runtime's threads.
pub(super) async fn rivals(path: &str) -> Vec<Rival> {
    let path = path.to_owned();
    let found = tokio::task::spawn_blocking(move || rivals::of(Path::new("/"), Path::new(&path))).await;
    // What panics there is no reason not to go on without it.
    found.unwrap_or_default()
}

/// Why a port can't be opened, and what to do.
fn why(path: &str, kind: ErrorKind, text: &str) -> String {
    match kind {
        ErrorKind::Io(io::ErrorKind::NotFound) => {
            format!("there is no {path}: is the adapter plugged in? `sluicegate discover` shows the ports there are")
        }
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => access::denied(Path::new(path)),
        // EBUSY, or a lock that somebody has.
        ErrorKind::NoDevice => format!(
            "{path} is in use by another program: a console (console= on the kernel's command line, or a getty), ModemManager or a terminal; `fuser -v {path}` names it"
        ),
        _ => format!("{path} could not be opened as a serial port: {text}"),
    }
}
