//! Commands: checked, routed, answered.

mod config;

pub use config::{Config, PointConfig};
