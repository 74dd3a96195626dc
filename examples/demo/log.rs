//! The gateway's log as lines for the view, in place of the journal.

use std::io::{self, Write};

use tokio::sync::mpsc;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that may wait for the view; more are lost, as nobody could read them.
const LINES: usize = 64;

/// Takes the log over.
pub(crate) fn start() -> mpsc::Receiver<String> {
    let (lines, log) = mpsc::channel(LINES);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(move || Lines(lines.clone()))
        .with_ansi(false)
        .with_level(false)
        .with_target(false)
        .without_time();
    let filter = Targets::new().with_target("sluicegate", LevelFilter::INFO);
    tracing_subscriber::registry().with(filter).with(layer).init();
    log
}

/// Gets a whole line with each write.
struct Lines(mpsc::Sender<String>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).trim().to_owned();
        // Full: see `LINES`. Closed: the demo ends.
        drop(self.0.try_send(line));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
