//! The harness: brokers, agents, ptys, observers.

mod agent;
mod audit;
mod auditor;
mod broker;
mod certs;
mod chance;
mod child;
#[expect(dead_code, reason = "the demo uses more of it")]
#[path = "../../../examples/demo/broker/mod.rs"]
pub(crate) mod demo_broker;
mod esp;
mod flash;
mod gate;
mod mischievous;
mod modbus;
mod observer;
mod proxy;
mod pty;
mod sender;
#[expect(dead_code, reason = "a benchmark uses more of it")]
mod volume;
mod wait;

pub(crate) use agent::{Agent, Program};
pub(crate) use audit::Audit;
pub(crate) use auditor::{Report, audit, audit_lines, lines};
pub(crate) use broker::{Mosquitto, free_port};
pub(crate) use certs::{Authority, Identity};
pub(crate) use chance::Chance;
pub(crate) use child::{Killed, signal};
pub(crate) use esp::{Esp, Obeys};
pub(crate) use flash::Flash;
pub(crate) use gate::Gate;
pub(crate) use mischievous::Mischievous;
pub(crate) use modbus::{Faults, Line, take_time, tcp_slave};
pub(crate) use observer::{Heard, Observer, publish, publish_bytes, publish_lines, publish_lines_with, publish_with};
pub(crate) use proxy::Proxy;
pub(crate) use pty::Pty;
pub(crate) use sender::Sender;
pub(crate) use volume::Volume;
pub(crate) use wait::{pause, until};
