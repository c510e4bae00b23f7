//! `TcpProxy`.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug)]
pub struct TcpProxy {
    /// `stat_prefix`
    pub stat_prefix: Arc<str>,
    /// `cluster`, or the weighted ones. Weights add up to `total_weight`.
    pub clusters: Vec<(Arc<str>, u32)>,
    /// Sum of the weights; at least 1.
    pub total_weight: u32,
    /// `idle_timeout`; unless set, or where it is zero, never: databases keep idle connections for
    /// days, and keep-alive finds peers that are gone. (Envoy would cut them after an hour.)
    pub idle_timeout: Option<Duration>,
    /// `max_connect_attempts`, 1 unless set.
    pub max_connect_attempts: u32,
    /// `access_log`
    pub access_log: Vec<AccessLog>,
}
