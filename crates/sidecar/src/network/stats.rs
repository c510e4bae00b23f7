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

/// `<stat_prefix>.rbac.*`
pub struct RbacStats {
    /// Connections that the rules let through.
    pub allowed: Counter,
    /// Connections that they did not.
    pub denied: Counter,
    _scope: Scope,
}

impl RbacStats {
    /// Resolves the handles of one prefix.
    pub fn new(stats: &Stats, prefix: &str) -> Self {
        let scope = stats.scope(Family::Rbac, prefix);
        RbacStats {
            allowed: scope.counter("allowed"),
            denied: scope.counter("denied"),
            _scope: scope,
        }
    }
}

/// `<stat_prefix>.rbac.<shadow_rules_stat_prefix>.*`
pub struct ShadowRbacStats {
    /// Connections that the shadow rules would let through.
    pub shadow_allowed: Counter,
    /// Connections that they would not.
    pub shadow_denied: Counter,
    _scope: Scope,
}

impl ShadowRbacStats {
    /// Resolves the handles of one prefix.
    pub fn new(stats: &Stats, prefix: &str) -> Self {
        let scope = stats.scope(Family::Rbac, prefix);
        ShadowRbacStats {
            shadow_allowed: scope.counter("shadow_allowed"),
            shadow_denied: scope.counter("shadow_denied"),
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
