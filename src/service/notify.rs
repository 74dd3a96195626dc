//! What systemd is told (sd_notify(3)).

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells systemd how the service is. Without systemd it does nothing.
#[derive(Debug, Default)]
pub struct Notifier {
    status: String,
    ready: bool,
}

impl Notifier {
    /// How often systemd wants to hear that all is well; `None`: never.
    pub fn watchdog(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }

    /// The service has started. Once is enough.
    pub fn ready(&mut self) {
        if !self.ready {
            self.ready = true;
            tell(&[NotifyState::Ready]);
        }
    }

    /// The config is read again, until [`Notifier::reloaded`]. Nothing before the service was ready.
    pub fn reloading(&self) {
        if !self.ready {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!("systemd could not be told: {error}"),
        }
    }

    /// The new config is in use, or was refused.
    pub fn reloaded(&self) {
        if self.ready {
            tell(&[NotifyState::Ready]);
        }
    }

    /// One line for `systemctl status`; told when it changes.
    pub fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            tell(&[NotifyState::Status(status)]);
        }
    }

    /// All loops have come around since the last time.
    pub fn alive(&self) {
        tell(&[NotifyState::Watchdog]);
    }

    /// The service is about to end.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd could not be told: {error}");
    }
}
