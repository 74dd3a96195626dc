//! The harness: brokers, agents, ptys, observers.

mod agent;
mod audit;
mod auditor;
mod broker;
mod certs;
#[expect(dead_code, reason = "the demo uses more of it")]
#[path = "../../../examples/demo/broker/mod.rs"]
pub(crate) mod demo_broker;
mod flash;
mod gate;
mod mischievous;
mod observer;
mod pty;
#[expect(dead_code, reason = "a benchmark uses more of it")]
mod volume;
mod wait;

pub(crate) use agent::Agent;
pub(crate) use audit::Audit;
pub(crate) use auditor::{Report, audit, audit_lines, lines};
pub(crate) use broker::{Mosquitto, free_port};
pub(crate) use certs::{Authority, Identity};
pub(crate) use flash::Flash;
pub(crate) use gate::Gate;
pub(crate) use mischievous::Mischievous;
pub(crate) use observer::{Heard, Observer, publish, publish_lines, publish_with};
pub(crate) use pty::Pty;
pub(crate) use volume::Volume;
pub(crate) use wait::until;

use std::process::Child;

/// A child that does not outlive its test.
#[derive(Debug)]
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        if self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}
