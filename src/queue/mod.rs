//! Lanes: what waits for the broker.

mod config;

pub use config::{Config, Keep, LaneConfig, PointConfig, Replay, Sync};
