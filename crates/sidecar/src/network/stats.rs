//! What the filters before a terminal one count.

use metrics::{Counter, Gauge};

use crate::telemetry::metrics::{Family, Scope, Stats};

/// `connection_limit.<stat_prefix>.*`
pub struct ConnectionLimitStats {
    /// Connections that were too many.
    pub limited_connections: Counter,
    /// Connections that were let through and are open.
    pub active_connections: Gauge,
    _scope: Scope,
}

impl ConnectionLimitStats {
    /// Resolves the handles of one stat prefix.
    pub fn new(stats: &Stats, prefix: &str) -> Self {
        let scope = stats.scope(Family::ConnectionLimit, prefix);
        ConnectionLimitStats {
            limited_connections: scope.counter("limited_connections"),
            active_connections: scope.gauge("active_connections"),
            _scope: scope,
        }
    }
}

/// `local_rate_limit.<stat_prefix>.*`
pub struct LocalRateLimitStats {
    /// Connections for which there was no token.
    pub rate_limited: Counter,
    _scope: Scope,
}

impl LocalRateLimitStats {
    /// Resolves the handles of one stat prefix.
    pub fn new(stats: &Stats, prefix: &str) -> Self {
        let scope = stats.scope(Family::LocalRateLimit, prefix);
        LocalRateLimitStats {
            rate_limited: scope.counter("rate_limited"),
            _scope: scope,
        }
    }
}
