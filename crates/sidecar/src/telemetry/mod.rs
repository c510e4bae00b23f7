//! Metrics and access logs.

pub mod access_log;
mod certificate_stats;
pub mod metrics;
pub mod program_log;
pub mod server_stats;
