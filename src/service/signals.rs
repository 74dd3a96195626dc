//! Signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the service.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    ///
    /// # Errors
    /// When the kernel refuses that.
    pub fn new() -> std::io::Result<Self> {
        Ok(Signals { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Waits for one that ends the service, and names it. Cancel-safe.
    pub async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// SIGHUP: the config is to be read again.
#[derive(Debug)]
pub struct HangUp(Signal);

impl HangUp {
    /// Takes over SIGHUP, which ends a process that has not.
    ///
    /// # Errors
    /// When the kernel refuses that.
    pub fn new() -> std::io::Result<Self> {
        Ok(HangUp(signal(SignalKind::hangup())?))
    }

    /// Waits for one; several that come at once are one. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // No more can come.
            std::future::pending().await
        }
    }
}
