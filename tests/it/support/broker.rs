//! A real mosquitto, on a port and in a folder of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{Killed, signal, wait};

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Debian installs it where a user's PATH may not reach.
fn program() -> PathBuf {
    let found =
        ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().map(PathBuf::from).find(|p| p.exists());
    found.unwrap_or_else(|| PathBuf::from("mosquitto"))
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Mosquitto {
    child: Option<Killed>,
    pub(crate) port: u16,
    folder: PathBuf,
}

impl Mosquitto {
    /// Plain, for everybody, keeping nothing.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::with(folder, "allow_anonymous true\n")
    }

    /// With these lines of config after its listener.
    pub(crate) fn with(folder: &Path, config: &str) -> Self {
        let port = free_port();
        let text = format!("listener {port} 127.0.0.1\nset_tcp_nodelay true\n{config}");
        fs::write(folder.join("mosquitto.conf"), text).unwrap();
        let mut broker = Mosquitto { child: None, port, folder: folder.to_owned() };
        broker.run();
        broker
    }

    /// Starts it again on the same port.
    pub(crate) fn run(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("mosquitto.log")).unwrap();
        let mut command = Command::new(program());
        command.arg("-c").arg(self.folder.join("mosquitto.conf")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = Some(Killed(child.expect("mosquitto is installed (apt-get install mosquitto)")));
        let port = self.port;
        wait::until("mosquitto to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child = None;
    }

    /// SIGTERM, on which it saves what it keeps.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        signal(&child.0, Signal::TERM);
        wait::until("the broker to stop", || child.0.try_wait().unwrap().is_some());
    }

    /// Leaves it alive and silent: a half-open link.
    pub(crate) fn freeze(&self) {
        signal(&self.child.as_ref().unwrap().0, Signal::STOP);
    }

    /// And on again.
    pub(crate) fn thaw(&self) {
        signal(&self.child.as_ref().unwrap().0, Signal::CONT);
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("mosquitto.log")).unwrap_or_default()
    }
}
