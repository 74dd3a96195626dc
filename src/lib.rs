//! Sluicegate: an IoT gateway agent for Linux SoCs.
//!
//! The rooms and who may know whom are described in `ARCHITECTURE.md`; `tests/it/architecture.rs` keeps it so.

pub mod device;
pub mod model;
pub mod task;
