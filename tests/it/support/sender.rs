//! Who sends commands, many in a row: one mosquitto_pub for each topic, which stays connected.

use std::io::Write;
use std::process::{ChildStdin, Command, Stdio};

use super::Killed;

/// Publishes lines on one topic at QoS 1. What it had in its hands when its broker ended may be lost.
#[derive(Debug)]
pub(crate) struct Sender {
    port: u16,
    topic: String,
    child: Option<(Killed, ChildStdin)>,
}

impl Sender {
    pub(crate) fn to(port: u16, topic: &str) -> Self {
        Sender { port, topic: topic.to_owned(), child: None }
    }

    /// Connects anew with the next line.
    pub(crate) fn drop_line(&mut self) {
        self.child = None;
    }

    /// Sends these lines, each as a message of its own.
    pub(crate) fn send(&mut self, lines: &str) {
        let (_, input) = self.child.get_or_insert_with(|| connect(self.port, &self.topic));
        // It ends with its broker.
        if input.write_all(lines.as_bytes()).and_then(|()| input.flush()).is_err() {
            self.child = None;
        }
    }
}

fn connect(port: u16, topic: &str) -> (Killed, ChildStdin) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", topic, "-l"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("mosquitto_pub is installed");
    let input = child.stdin.take().unwrap();
    (Killed(child), input)
}
