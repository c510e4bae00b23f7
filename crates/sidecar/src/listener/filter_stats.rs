//! What the listener filters count, under Envoy's names.

use std::rc::Rc;

use metrics::{Counter, Histogram};

use super::inspect::Found;
use crate::config::listener_filter::{FilterKind, ListenerFilter};
use crate::telemetry::metrics::{Family, Scope, Stats};

/// The handles of one filter of one listener on one worker.
pub enum FilterStats {
    /// It counts nothing.
    None,
    /// local_ratelimit
    RateLimit(RateLimitStats),
    /// proxy_protocol
    ProxyProtocol(ProxyProtocolStats),
    /// tls_inspector
    Tls(TlsStats),
    /// http_inspector
    Http(HttpStats),
}

/// `listener_local_ratelimit.<stat_prefix>.*`
pub struct RateLimitStats {
    pub rate_limited: Counter,
    _scope: Scope,
}

/// `proxy_proto.<stat_prefix>.*`
pub struct ProxyProtocolStats {
    pub not_found_allowed: Counter,
    pub not_found_disallowed: Counter,
    versions: [VersionStats; 2],
    _scope: Scope,
}

/// Those of one version of the protocol.
pub struct VersionStats {
    pub found: Counter,
    pub disallowed: Counter,
    pub error: Counter,
}

/// `tls_inspector.*`
pub struct TlsStats {
    pub client_hello_too_large: Counter,
    pub tls_found: Counter,
    pub tls_not_found: Counter,
    pub alpn_found: Counter,
    pub alpn_not_found: Counter,
    pub sni_found: Counter,
    pub sni_not_found: Counter,
    pub bytes_processed: Histogram,
    _scope: Scope,
}

/// `http_inspector.*`
pub struct HttpStats {
    pub http10_found: Counter,
    pub http11_found: Counter,
    pub http2_found: Counter,
    pub http_not_found: Counter,
    _scope: Scope,
}

/// Resolves the handles of a listener's filters, in their order.
pub fn of(stats: &Stats, filters: &[ListenerFilter]) -> Rc<[FilterStats]> {
    let one = |filter: &ListenerFilter| match &filter.kind {
        FilterKind::OriginalDst | FilterKind::OriginalSrc(_) => FilterStats::None,
        FilterKind::LocalRateLimit(config) => {
            let scope = stats.scope(Family::ListenerRateLimit, &config.stat_prefix);
            FilterStats::RateLimit(RateLimitStats {
                rate_limited: scope.counter("rate_limited"),
                _scope: scope,
            })
        }
        FilterKind::ProxyProtocol(config) => {
            FilterStats::ProxyProtocol(ProxyProtocolStats::new(stats, &config.stat_prefix))
        }
        FilterKind::TlsInspector(_) => FilterStats::Tls(TlsStats::new(stats)),
        FilterKind::HttpInspector => FilterStats::Http(HttpStats::new(stats)),
    };
    filters.iter().map(one).collect()
}

impl ProxyProtocolStats {
    fn new(stats: &Stats, prefix: &str) -> Self {
        let scope = stats.scope(Family::ProxyProtocol, prefix);
        let version = |found, disallowed, error| VersionStats {
            found: scope.counter(found),
            disallowed: scope.counter(disallowed),
            error: scope.counter(error),
        };
        ProxyProtocolStats {
            not_found_allowed: scope.counter("not_found_allowed"),
            not_found_disallowed: scope.counter("not_found_disallowed"),
            versions: [
                version(
                    "versions.v1.found",
                    "versions.v1.disallowed",
                    "versions.v1.error",
                ),
                version(
                    "versions.v2.found",
                    "versions.v2.disallowed",
                    "versions.v2.error",
                ),
            ],
            _scope: scope,
        }
    }

    /// Those of version 1 or 2.
    pub fn version(&self, version: u8) -> &VersionStats {
        &self.versions[usize::from(version == 2)]
    }
}

impl TlsStats {
    fn new(stats: &Stats) -> Self {
        let scope = stats.scope(Family::TlsInspector, "");
        TlsStats {
            client_hello_too_large: scope.counter("client_hello_too_large"),
            tls_found: scope.counter("tls_found"),
            tls_not_found: scope.counter("tls_not_found"),
            alpn_found: scope.counter("alpn_found"),
            alpn_not_found: scope.counter("alpn_not_found"),
            sni_found: scope.counter("sni_found"),
            sni_not_found: scope.counter("sni_not_found"),
            bytes_processed: scope.histogram("bytes_processed"),
            _scope: scope,
        }
    }

    /// Counts what was found in so many bytes.
    pub fn count(&self, found: &Found, bytes: usize) {
        self.bytes_processed.record(bytes as f64);
        let Some(hello) = &found.hello else {
            return self.tls_not_found.increment(1);
        };
        self.tls_found.increment(1);
        match hello.alpn.is_empty() {
            true => self.alpn_not_found.increment(1),
            false => self.alpn_found.increment(1),
        }
        match hello.server_name {
            None => self.sni_not_found.increment(1),
            Some(_) => self.sni_found.increment(1),
        }
    }
}

impl HttpStats {
    fn new(stats: &Stats) -> Self {
        let scope = stats.scope(Family::HttpInspector, "");
        HttpStats {
            http10_found: scope.counter("http10_found"),
            http11_found: scope.counter("http11_found"),
            http2_found: scope.counter("http2_found"),
            http_not_found: scope.counter("http_not_found"),
            _scope: scope,
        }
    }

    /// Counts the version that was found.
    pub fn count(&self, version: Option<&str>) {
        match version {
            Some("http/1.0") => self.http10_found.increment(1),
            Some("h2c") => self.http2_found.increment(1),
            Some(_) => self.http11_found.increment(1),
            None => self.http_not_found.increment(1),
        }
    }
}
