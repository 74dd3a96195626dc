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
pub(super) use self::settings::{FlowControl, Parity, Rs485, Settings, baud_rate, bits};
use super::{DeviceError, access};

/// A command of a few dozen bytes takes less at 300 baud; what takes longer is held back by the device.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// What was written just before the stop still goes out: 100 bytes at 1200 baud.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// An open port.
#[derive(Debug)]
pub(super) struct Port {
    stream: SerialStream,
    path: String,
}

impl Port {
    /// Opens the port for us alone, outside the runtime's threads: setting the line of a USB adapter up can take long.
    pub(super) async fn open(settings: &Settings) -> Result<Self, DeviceError> {
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
            rs485.map_or(Ok(()), |rs485| rs485.set(&stream)).map_err(|error| {
                let text = format!("its driver switches no RS-485 transceiver ({error}): remove `rs485`, most adapters do it by themselves");
                tokio_serial::Error::new(ErrorKind::Unknown, text)
            })?;
            Ok(stream)
        };
        let opened = tokio::task::spawn_blocking(open).await;
        match opened {
            Ok(Ok(stream)) => Ok(Port { stream, path }),
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
        match self.stream.read(chunk).await {
            Ok(0) => Err(self.lost("the adapter was unplugged, or the far end closed it")),
            Ok(count) => Ok(count),
            Err(error) => Err(self.lost(&error.to_string())),
        }
    }

    /// Hands bytes to the kernel; when they are out on the wire nobody says.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        match timeout(WRITE_PATIENCE, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.lost(&error.to_string())),
            Err(_) => Err(self.lost("the device holds back what is sent to it (flow control)")),
        }
    }

    /// Drops what came and nobody read: it is no answer to what is asked next.
    pub(super) fn forget_input(&self) -> Result<(), DeviceError> {
        self.stream.clear(ClearBuffer::Input).map_err(|error| self.lost(&error.to_string()))
    }

    /// Sets the line to another speed, once what was written is out.
    pub(super) async fn set_baud_rate(&mut self, baud_rate: u32) -> Result<(), DeviceError> {
        let end = Instant::now() + WRITE_PATIENCE;
        while self.stream.bytes_to_write().is_ok_and(|waiting| waiting > 0) && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
        self.stream.set_baud_rate(baud_rate).map_err(|error| self.lost(&error.to_string()))
    }

    /// Closes the port once what was written is out, within reason.
    pub(super) async fn close(self) {
        let end = Instant::now() + CLOSE_PATIENCE;
        while self.stream.bytes_to_write().is_ok_and(|waiting| waiting > 0) && Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn lost(&self, why: &str) -> DeviceError {
        DeviceError::Lost(format!("{} is gone: {why}", self.path))
    }
}

impl Drop for Port {
    /// The kernel would wait up to 30 s in `close` for bytes that the device does not take. Only where there are some:
    /// on a pseudo-terminal nothing waits, and clearing would take from the far end what it has not read yet.
    fn drop(&mut self) {
        let stuck = self.stream.bytes_to_write().is_ok_and(|waiting| waiting > 0);
        if stuck && let Err(error) = self.stream.clear(ClearBuffer::Output) {
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
    Port::open(settings).await?.close().await;
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
