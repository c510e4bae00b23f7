//! `listener.<address>.*`: what a listener counts.

use metrics::{Counter, Gauge, Histogram};

use crate::telemetry::metrics::{Family, Scope, Stats};
use crate::tls::stats::TlsStats;

/// Handles of one listener on one worker, under Envoy's names.
pub struct ListenerStats {
    pub downstream_cx_total: Counter,
    pub downstream_cx_destroy: Counter,
    /// Connections that were too many for the listener.
    pub downstream_cx_overflow: Counter,
    /// Connections that were too many for the process.
    pub downstream_global_cx_overflow: Counter,
    /// Refused by the overload manager.
    pub downstream_cx_overload_reject: Counter,
    /// Clients that went away while a listener filter waited for them.
    pub downstream_listener_filter_remote_close: Counter,
    /// Connections that broke while a listener filter waited.
    pub downstream_listener_filter_error: Counter,
    pub downstream_pre_cx_timeout: Counter,
    pub downstream_cx_transport_socket_connect_timeout: Counter,
    pub no_filter_chain_match: Counter,
    /// Connections that were made to the listener's own port although it takes only redirected ones.
    pub downstream_cx_direct: Counter,
    pub ssl: TlsStats,
    pub downstream_cx_active: Gauge,
    pub downstream_pre_cx_active: Gauge,
    pub downstream_cx_length_ms: Histogram,
    pub connections_accepted_per_socket_event: Histogram,
    /// Those of this worker alone: `listener.<address>.worker_<index>.*`
    pub worker: WorkerStats,
    _scope: Scope,
}

/// What one worker counts of a listener.
pub struct WorkerStats {
    pub downstream_cx_total: Counter,
    pub downstream_cx_active: Gauge,
    _scope: Scope,
}

impl ListenerStats {
    /// Resolves the handles of the listener with that stat prefix.
    pub fn new(stats: &Stats, prefix: &str, worker: usize) -> Self {
        let scope = stats.scope(Family::Listener, prefix);
        ListenerStats {
            downstream_cx_total: scope.counter("downstream_cx_total"),
            downstream_cx_destroy: scope.counter("downstream_cx_destroy"),
            downstream_cx_overflow: scope.counter("downstream_cx_overflow"),
            downstream_global_cx_overflow: scope.counter("downstream_global_cx_overflow"),
            downstream_cx_overload_reject: scope.counter("downstream_cx_overload_reject"),
            downstream_listener_filter_remote_close: scope
                .counter("downstream_listener_filter_remote_close"),
            downstream_listener_filter_error: scope.counter("downstream_listener_filter_error"),
            downstream_pre_cx_timeout: scope.counter("downstream_pre_cx_timeout"),
            downstream_cx_transport_socket_connect_timeout: scope
                .counter("downstream_cx_transport_socket_connect_timeout"),
            no_filter_chain_match: scope.counter("no_filter_chain_match"),
            downstream_cx_direct: scope.counter("downstream_cx_direct"),
            ssl: TlsStats::downstream(stats.scope(Family::Listener, prefix)),
            downstream_cx_active: scope.gauge("downstream_cx_active"),
            downstream_pre_cx_active: scope.gauge("downstream_pre_cx_active"),
            downstream_cx_length_ms: scope.histogram("downstream_cx_length_ms"),
            connections_accepted_per_socket_event: scope
                .histogram("connections_accepted_per_socket_event"),
            worker: WorkerStats::new(stats, &format!("{prefix}.worker_{worker}")),
            _scope: scope,
        }
    }
}

impl WorkerStats {
    fn new(stats: &Stats, subject: &str) -> Self {
        let scope = stats.scope(Family::ListenerWorker, subject);
        WorkerStats {
            downstream_cx_total: scope.counter("downstream_cx_total"),
            downstream_cx_active: scope.gauge("downstream_cx_active"),
            _scope: scope,
        }
    }
}
