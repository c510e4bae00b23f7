//! `udp.<stat_prefix>.*`: what a udp_proxy counts.

use std::cell::Cell;

use metrics::{Counter, Gauge};

use crate::telemetry::metrics::{Family, Scope, Stats};

/// A counter that a log line shows as well.
pub struct Count {
    counter: Counter,
    here: Cell<u64>,
}

impl Count {
    fn new(counter: Counter) -> Self {
        Count {
            counter,
            here: Cell::new(0),
        }
    }

    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.counter.increment(count);
        self.here.set(self.here.get() + count);
    }

    /// What was counted here, on this worker.
    pub fn here(&self) -> u64 {
        self.here.get()
    }
}

/// Handles of one filter on one worker, under Envoy's names.
pub struct UdpStats {
    /// Sessions.
    pub total: Count,
    /// Datagrams for which there is no cluster.
    pub no_route: Count,
    /// Bytes from clients.
    pub rx_bytes: Count,
    /// Datagrams from clients.
    pub rx_datagrams: Count,
    /// Failures to receive.
    pub rx_errors: Count,
    /// Bytes to clients.
    pub tx_bytes: Count,
    /// Datagrams to clients.
    pub tx_datagrams: Count,
    /// Failures to send.
    pub tx_errors: Count,
    /// Sessions that ended because nothing was said for too long.
    pub idle_timeout: Count,
    /// Sessions now.
    pub active: Gauge,
    /// `listener.<address>.udp.downstream_rx_datagram_dropped`: datagrams that were too long.
    pub dropped: Counter,
    _scopes: [Scope; 2],
}

impl UdpStats {
    /// Resolves the handles of a filter, and of its listener.
    pub fn new(stats: &Stats, prefix: &str, listener: &str) -> Self {
        let scope = stats.scope(Family::Udp, prefix);
        let of_listener = stats.scope(Family::Listener, listener);
        let count = |name| Count::new(scope.counter(name));
        UdpStats {
            total: count("downstream_sess_total"),
            no_route: count("downstream_sess_no_route"),
            rx_bytes: count("downstream_sess_rx_bytes"),
            rx_datagrams: count("downstream_sess_rx_datagrams"),
            rx_errors: count("downstream_sess_rx_errors"),
            tx_bytes: count("downstream_sess_tx_bytes"),
            tx_datagrams: count("downstream_sess_tx_datagrams"),
            tx_errors: count("downstream_sess_tx_errors"),
            idle_timeout: count("idle_timeout"),
            active: scope.gauge("downstream_sess_active"),
            dropped: of_listener.counter("udp.downstream_rx_datagram_dropped"),
            _scopes: [scope, of_listener],
        }
    }
}
