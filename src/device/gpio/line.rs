//! One requested line, whichever way the kernel was asked for it.

use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::model::Timestamp;

/// A line that is ours until it is dropped. Levels are logical: `active_low` is the kernel's business.
pub(super) trait Line: Send {
    /// The level now.
    fn level(&self) -> io::Result<bool>;

    /// Sets an output.
    fn set(&self, level: bool) -> io::Result<()>;

    /// Adds the edges that came to the list; at least one, once it is ready. An error means that the line is gone.
    fn poll_edges(&mut self, context: &mut Context<'_>, edges: &mut Vec<Edge>) -> Poll<io::Result<()>>;

    /// Adds the edges that the kernel keeps, if any, whether or not the runtime has told of them already.
    fn waiting(&mut self, _: &mut Vec<Edge>) -> io::Result<()> {
        Ok(())
    }

    /// What it does by itself.
    fn skill(&self) -> Skill;
}

/// A change of a line's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// The level after it.
    pub level: bool,
    /// When it was.
    pub at: Timestamp,
    /// How many edges before this one the kernel had to drop; `None` where it does not count them.
    pub missed: Option<u32>,
}

/// What a line does by itself; the driver does the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Skill {
    /// It tells of edges. Where not (a port expander without an interrupt), it must be asked.
    pub edges: bool,
    /// It is debounced as wanted.
    pub debounced: bool,
}

/// Puts a descriptor under the runtime's watch; gives it back where the kernel can't watch it.
pub(super) fn watch<T: AsRawFd>(inner: T, interest: Interest) -> Result<AsyncFd<T>, (T, io::Error)> {
    #[expect(unsafe_code, reason = "tokio asks for the promise that the descriptor stays open and the same")]
    // SAFETY: `T` is a `File`, an `Output` over one or a `gpiocdev::Request`, which own one descriptor each from their
    // making to their drop, and `AsyncFd` owns them; nothing here replaces what is inside.
    let watched = unsafe { AsyncFd::register_with_interest(inner, interest) };
    watched.map_err(tokio::io::unix::AsyncFdRegisterError::into_parts)
}
