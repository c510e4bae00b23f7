//! Metrics and access logs.

pub mod access_log;
pub mod metrics;
pub mod program_log;
pub mod server_stats;
