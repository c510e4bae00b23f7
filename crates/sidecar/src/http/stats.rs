//! `http.<stat_prefix>.*`: what the connection manager counts.

use metrics::{Counter, Gauge, Histogram};

use crate::http::message::Version;
use crate::telemetry::metrics::{Family, Scope, Stats};

macro_rules! http_stats {
    (counters: $($counter:ident),+; gauges: $($gauge:ident),+; histograms: $($histogram:ident),+;) => {
        /// Handles of one stat prefix on one worker, under Envoy's names.
        pub struct HttpStats {
            $(#[doc = stringify!($counter)] pub $counter: Counter,)+
            $(#[doc = stringify!($gauge)] pub $gauge: Gauge,)+
            $(#[doc = stringify!($histogram)] pub $histogram: Histogram,)+
            classes: [Counter; 5],
            /// Keeps the subject alive.
            _scope: Scope,
        }

        impl HttpStats {
            /// Resolves the handles of one stat prefix.
            pub fn new(stats: &Stats, prefix: &str) -> Self {
                let scope = stats.scope(Family::Http, prefix);
                // Envoy shows it for internal redirects, of which we follow none: it stays at zero.
                let _ = scope.counter("rq_redirect");
                HttpStats {
                    $($counter: scope.counter(stringify!($counter)),)+
                    $($gauge: scope.gauge(stringify!($gauge)),)+
                    $($histogram: scope.histogram(stringify!($histogram)),)+
                    classes: [
                        scope.counter("downstream_rq_1xx"),
                        scope.counter("downstream_rq_2xx"),
                        scope.counter("downstream_rq_3xx"),
                        scope.counter("downstream_rq_4xx"),
                        scope.counter("downstream_rq_5xx"),
                    ],
                    _scope: scope,
                }
            }
        }
    };
}

http_stats! {
    counters:
        downstream_cx_total, downstream_cx_http1_total, downstream_cx_http2_total,
        downstream_cx_ssl_total, downstream_cx_upgrades_total, downstream_cx_destroy,
        downstream_cx_destroy_local, downstream_cx_destroy_remote,
        downstream_cx_idle_timeout, downstream_cx_max_duration_reached, downstream_cx_max_requests_reached,
        downstream_cx_protocol_error, downstream_cx_drain_close,
        downstream_rq_overload_close, downstream_cx_overload_disable_keepalive,
        downstream_rq_total, downstream_rq_http1_total, downstream_rq_http2_total,
        downstream_rq_completed, downstream_rq_rx_reset, downstream_rq_tx_reset,
        downstream_rq_timeout, downstream_rq_header_timeout, downstream_rq_idle_timeout,
        downstream_rq_response_before_rq_complete, downstream_rq_ws_on_non_ws_route,
        downstream_rq_max_duration_reached, downstream_rq_non_relative_path, no_route, no_cluster,
        passthrough_internal_redirect_bad_location, passthrough_internal_redirect_no_route,
        passthrough_internal_redirect_predicate,
        passthrough_internal_redirect_too_many_redirects,
        passthrough_internal_redirect_unsafe_scheme,
        rq_direct_response, rq_mirror_dropped, rq_total;
    gauges:
        downstream_cx_active, downstream_cx_http1_active, downstream_cx_http2_active,
        downstream_cx_ssl_active, downstream_cx_upgrades_active, downstream_rq_active;
    histograms:
        downstream_cx_length_ms, downstream_rq_time;
}

impl HttpStats {
    /// Counts a finished response by its class.
    pub fn count_class(&self, status: u16) {
        if let Some(class) = self.classes.get((status as usize / 100).wrapping_sub(1)) {
            class.increment(1);
        }
    }

    /// Counts a request that has begun.
    pub fn begin_request(&self, version: Version) {
        self.downstream_rq_total.increment(1);
        self.downstream_rq_active.increment(1.0);
        match version {
            Version::Http2 => self.downstream_rq_http2_total.increment(1),
            Version::Http10 | Version::Http11 => self.downstream_rq_http1_total.increment(1),
        }
    }
}
