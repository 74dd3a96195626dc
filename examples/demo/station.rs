//! A serial weather station, played on a pty: it says a line of JSON each second, and takes `HEATER 1` and `HEATER 0`.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::time::{Instant, interval};

/// How often it looks whether somebody told it something.
const LISTEN: Duration = Duration::from_millis(50);

/// How often it speaks.
const SPEAK: Duration = Duration::from_secs(1);

/// The station's end of the line.
#[derive(Debug)]
pub(crate) struct Station {
    line: File,
    path: String,
    heater: bool,
    heard: Vec<u8>,
}

impl Station {
    /// A station on a new line.
    ///
    /// # Errors
    /// When the system has no pty to give.
    pub(crate) fn new() -> io::Result<Self> {
        let line: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&line)?;
        unlockpt(&line)?;
        // Without this the line echoes and edits, until the gateway sets it to raw.
        let mut attributes = tcgetattr(&line)?;
        attributes.make_raw();
        tcsetattr(&line, OptionalActions::Now, &attributes)?;
        rustix::io::ioctl_fionbio(&line, true)?;
        let path = ptsname(&line, Vec::new())?.to_string_lossy().into_owned();
        Ok(Station { line: File::from(line), path, heater: false, heard: Vec::new() })
    }

    /// Where the gateway finds it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Speaks and listens for ever.
    pub(crate) async fn run(mut self) {
        let start = Instant::now();
        let mut listen = interval(LISTEN);
        let mut speak = interval(SPEAK);
        loop {
            let spoken = tokio::select! {
                _ = speak.tick() => self.speak(start.elapsed().as_secs_f64()),
                _ = listen.tick() => match self.listen() {
                    // Who is told something shows at once that it heard it.
                    Ok(true) => self.speak(start.elapsed().as_secs_f64()),
                    Ok(false) => Ok(()),
                    Err(error) => Err(error),
                },
            };
            match spoken {
                Ok(()) => {}
                // Nobody reads, or nobody has the line open: a sensor does not care.
                Err(error) => tracing::debug!("the station's line: {error}"),
            }
        }
    }

    fn speak(&mut self, seconds: f64) -> io::Result<()> {
        let warmer = if self.heater { 1.5 } else { 0.0 };
        let temperature = 18.0 + 3.0 * (seconds / 17.0).sin() + 0.2 * (seconds * 2.9).sin() + warmer;
        let humidity = 55.0 - 8.0 * (seconds / 17.0).sin() + 0.7 * (seconds * 1.7).sin();
        let wind = (4.0 + 2.5 * (seconds / 7.0).sin() + 1.5 * (seconds * 1.3).sin()).max(0.0);
        let heater = u8::from(self.heater);
        let text = format!(
            "{{\"temperature\":{temperature:.2},\"humidity\":{humidity:.1},\"wind\":{wind:.1},\"heater\":{heater}}}\r\n"
        );
        self.line.write_all(text.as_bytes())
    }

    /// Whether it was told something that it knows.
    fn listen(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 256];
        match self.line.read(&mut buffer) {
            Ok(count) => self.heard.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut known = false;
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            match line.trim_ascii() {
                b"HEATER 1" => (self.heater, known) = (true, true),
                b"HEATER 0" => (self.heater, known) = (false, true),
                _ => {}
            }
        }
        Ok(known)
    }
}
