//! The broker side of the gateway.

mod config;

pub use config::{HealthConfig, Payload, PointConfig};
