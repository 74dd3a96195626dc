//! Sluicegate: an IoT gateway agent for Linux SoCs.
//!
//! The rooms and who may know whom are described in `ARCHITECTURE.md`; `tests/it/architecture.rs` keeps it so.

pub mod agent;
pub mod cli;
pub mod command;
pub mod config;
pub mod device;
pub mod disk;
pub mod link;
pub mod model;
pub mod queue;
pub mod service;
pub mod task;
pub mod uplink;
