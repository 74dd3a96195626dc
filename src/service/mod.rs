//! The gateway as a service: systemd's protocol and its store of descriptors, signals, where logs go, the control socket, its user.
//!
//! May touch the environment, the notify socket and the runtime directory; knows no other room.

pub mod control;
mod descriptors;
pub mod log;
mod memory;
mod notify;
mod signals;
mod user;

pub use descriptors::{handed_over, store};
pub use memory::resident_memory;
pub use notify::Notifier;
pub use signals::{HangUp, Signals};
pub use user::{Need, ServiceUser};

/// The directory that the unit's `RuntimeDirectory=` made; `None` without one.
pub fn runtime_directory() -> Option<std::path::PathBuf> {
    std::env::var_os("RUNTIME_DIRECTORY").map(Into::into)
}
