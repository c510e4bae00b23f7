//! Metrics and access logs.

pub mod access_log;
pub mod metrics;
pub mod server_stats;
