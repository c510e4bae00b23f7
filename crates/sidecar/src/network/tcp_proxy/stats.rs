//! `tcp.<stat_prefix>.*`: what a tcp_proxy counts.

use metrics::Counter;

use crate::telemetry::metrics::{Family, Scope, Stats};

/// Handles of one stat prefix on one worker, under Envoy's names.
pub struct TcpStats {
    /// Connections.
    pub downstream_cx_total: Counter,
    /// Connections whose cluster is not configured.
    pub downstream_cx_no_route: Counter,
    /// Bytes from clients.
    pub downstream_cx_rx_bytes_total: Counter,
    /// Bytes to clients.
    pub downstream_cx_tx_bytes_total: Counter,
    /// Connections that ended because nothing was said for too long.
    pub idle_timeout: Counter,
    /// Keeps the subject alive.
    _scope: Scope,
}

impl TcpStats {
    /// Resolves the handles of one stat prefix.
    pub fn new(stats: &Stats, prefix: &str) -> Self {
        let scope = stats.scope(Family::Tcp, prefix);
        TcpStats {
            downstream_cx_total: scope.counter("downstream_cx_total"),
            downstream_cx_no_route: scope.counter("downstream_cx_no_route"),
            downstream_cx_rx_bytes_total: scope.counter("downstream_cx_rx_bytes_total"),
            downstream_cx_tx_bytes_total: scope.counter("downstream_cx_tx_bytes_total"),
            idle_timeout: scope.counter("idle_timeout"),
            _scope: scope,
        }
    }
}
