//! The gateway as a service: systemd's protocol, signals, where logs go, the control socket.
//!
//! May touch the environment, the notify socket and the runtime directory; knows no other room.

pub mod control;
pub mod log;
mod memory;
mod notify;
mod signals;

pub use memory::resident_memory;
pub use notify::Notifier;
pub use signals::{HangUp, Signals};
