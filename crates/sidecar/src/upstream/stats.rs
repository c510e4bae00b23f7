//! What a worker counts of a cluster, under Envoy's names (its "cluster manager statistics").

use std::cell::OnceCell;
use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use super::datagrams::DatagramStats;
use super::lb::zones::{Choice, Problem};
use crate::config::cluster::Priority;
use crate::telemetry::metrics::{Family, Scope, Stats};
use crate::tls::stats::TlsStats;

macro_rules! cluster_stats {
    (
        counters { $($counter:ident = $counter_name:literal: $counter_doc:literal,)+ }
        gauges { $($gauge:ident = $gauge_name:literal: $gauge_doc:literal,)+ }
        histograms { $($histogram:ident = $histogram_name:literal: $histogram_doc:literal,)+ }
    ) => {
        /// The stats of one cluster on one worker: handles that were looked up once.
        pub struct ClusterStats {
            $(#[doc = $counter_doc] pub $counter: Counter,)+
            $(#[doc = $gauge_doc] pub $gauge: Gauge,)+
            $(#[doc = $histogram_doc] pub $histogram: Histogram,)+
            /// TLS handshakes.
            pub ssl: TlsStats,
            codes: [OnceCell<Box<Codes>>; 5],
            zones: OnceCell<Box<ZoneStats>>,
            scope: Scope,
        }

        impl ClusterStats {
            /// The handles for the cluster of that (stat) name.
            pub fn new(stats: &Stats, name: &str) -> Self {
                let scope = stats.scope(Family::Cluster, name);
                ClusterStats {
                    $($counter: scope.counter($counter_name),)+
                    $($gauge: scope.gauge($gauge_name),)+
                    $($histogram: scope.histogram($histogram_name),)+
                    ssl: TlsStats::upstream(stats.scope(Family::Cluster, name)),
                    codes: Default::default(),
                    zones: OnceCell::new(),
                    scope,
                }
            }
        }
    };
}

cluster_stats! {
    counters {
        cx_total = "upstream_cx_total": "Connections made or tried.",
        cx_http1_total = "upstream_cx_http1_total": "HTTP/1 connections.",
        cx_http2_total = "upstream_cx_http2_total": "HTTP/2 connections.",
        cx_connect_fail = "upstream_cx_connect_fail": "Connections that failed to come about.",
        cx_connect_timeout = "upstream_cx_connect_timeout": "Those of them that took too long.",
        cx_connect_attempts_exceeded = "upstream_cx_connect_attempts_exceeded": "Clients for which every attempt to connect failed.",
        cx_idle_timeout = "upstream_cx_idle_timeout": "Connections closed because nobody used them.",
        cx_overflow = "upstream_cx_overflow": "Connections that the breaker held back.",
        cx_destroy = "upstream_cx_destroy": "Connections that ended.",
        cx_max_requests = "upstream_cx_max_requests": "Connections closed after their last request.",
        cx_max_duration_reached = "upstream_cx_max_duration_reached": "Connections closed because they were old.",
        cx_none_healthy = "upstream_cx_none_healthy": "Times that no endpoint could be used.",
        cx_rx_bytes_total = "upstream_cx_rx_bytes_total": "Bytes received from endpoints.",
        cx_tx_bytes_total = "upstream_cx_tx_bytes_total": "Bytes sent to endpoints.",
        bind_errors = "bind_errors": "Sockets that could not have their configured source.",
        rq_total = "upstream_rq_total": "Requests that reached a connection.",
        rq_pending_total = "upstream_rq_pending_total": "Requests that waited for a connection.",
        rq_pending_overflow = "upstream_rq_pending_overflow": "Requests that the breaker kept from waiting for a connection.",
        rq_active_overflow = "upstream_rq_active_overflow": "Requests that the breaker kept from a connection that there was.",
        rq_pending_failure_eject = "upstream_rq_pending_failure_eject": "Waiting requests whose connection failed.",
        rq_cancelled = "upstream_rq_cancelled": "Waiting requests that were given up.",
        internal_redirect_succeeded = "upstream_internal_redirect_succeeded_total": "Redirects that were followed.",
        internal_redirect_failed = "upstream_internal_redirect_failed_total": "Redirects that were left to the client though the route follows some.",
        rq_timeout = "upstream_rq_timeout": "Requests that timed out.",
        rq_rx_reset = "upstream_rq_rx_reset": "Requests that the endpoint reset.",
        rq_tx_reset = "upstream_rq_tx_reset": "Requests that we reset.",
        rq_retry = "upstream_rq_retry": "Retries.",
        rq_retry_success = "upstream_rq_retry_success": "Retries that succeeded.",
        rq_retry_overflow = "upstream_rq_retry_overflow": "Retries that the breaker refused.",
        rq_completed = "upstream_rq_completed": "Responses.",
        rq_1xx = "upstream_rq_1xx": "Responses of 1xx.",
        rq_2xx = "upstream_rq_2xx": "Responses of 2xx.",
        rq_3xx = "upstream_rq_3xx": "Responses of 3xx.",
        rq_4xx = "upstream_rq_4xx": "Responses of 4xx.",
        rq_5xx = "upstream_rq_5xx": "Responses of 5xx.",
        lb_healthy_panic = "lb_healthy_panic": "Picks for which health was disregarded.",
        membership_change = "membership_change": "Changes of the endpoints.",
        original_dst_host_invalid = "original_dst_host_invalid": "Requests whose header names no address to go to.",
    }
    gauges {
        cx_active = "upstream_cx_active": "Connections now.",
        rq_active = "upstream_rq_active": "Requests now.",
        rq_pending_active = "upstream_rq_pending_active": "Requests that wait for a connection now.",
        membership_total = "membership_total": "Endpoints; one worker tells.",
        membership_healthy = "membership_healthy": "Healthy endpoints; one worker tells.",
        membership_degraded = "membership_degraded": "Degraded endpoints; one worker tells.",
        cx_open = "circuit_breakers.default.cx_open": "Whether no more connections may be made.",
        rq_pending_open = "circuit_breakers.default.rq_pending_open": "Whether no more requests may wait.",
        rq_open = "circuit_breakers.default.rq_open": "Whether no more requests may be made.",
        rq_retry_open = "circuit_breakers.default.rq_retry_open": "Whether no more may be retried.",
        high_cx_open = "circuit_breakers.high.cx_open": "The same for HIGH.",
        high_rq_pending_open = "circuit_breakers.high.rq_pending_open": "The same for HIGH.",
        high_rq_open = "circuit_breakers.high.rq_open": "The same for HIGH.",
        high_rq_retry_open = "circuit_breakers.high.rq_retry_open": "The same for HIGH.",
        remaining_cx = "circuit_breakers.default.remaining_cx": "Connections that are left; 0 unless tracked.",
        remaining_pending = "circuit_breakers.default.remaining_pending": "Requests that may still wait.",
        remaining_rq = "circuit_breakers.default.remaining_rq": "Requests that are left.",
        remaining_retries = "circuit_breakers.default.remaining_retries": "Retries that are left.",
        high_remaining_cx = "circuit_breakers.high.remaining_cx": "The same for HIGH.",
        high_remaining_pending = "circuit_breakers.high.remaining_pending": "The same for HIGH.",
        high_remaining_rq = "circuit_breakers.high.remaining_rq": "The same for HIGH.",
        high_remaining_retries = "circuit_breakers.high.remaining_retries": "The same for HIGH.",
    }
    histograms {
        cx_connect_ms = "upstream_cx_connect_ms": "Milliseconds until a connection was made.",
        cx_length_ms = "upstream_cx_length_ms": "Milliseconds that a connection lasted.",
        rq_time = "upstream_rq_time": "Milliseconds until a response had ended.",
    }
}

/// What zone-aware routing counts.
pub struct ZoneStats {
    recalculated: Counter,
    too_small: Counter,
    directly: Counter,
    sampled: Counter,
    across: Counter,
    nothing_left: Counter,
    local_not_ok: Counter,
}

impl ZoneStats {
    fn new(scope: &Scope) -> Self {
        ZoneStats {
            recalculated: scope.counter("lb_recalculate_zone_structures"),
            too_small: scope.counter("lb_zone_cluster_too_small"),
            directly: scope.counter("lb_zone_routing_all_directly"),
            sampled: scope.counter("lb_zone_routing_sampled"),
            across: scope.counter("lb_zone_routing_cross_zone"),
            nothing_left: scope.counter("lb_zone_no_capacity_left"),
            local_not_ok: scope.counter("lb_local_cluster_not_ok"),
        }
    }

    /// Counts a new plan, and what keeps zones from having a say.
    pub fn planned(&self, problem: Option<Problem>) {
        self.recalculated.increment(1);
        match problem {
            None => {}
            Some(Problem::TooSmall) => self.too_small.increment(1),
            Some(Problem::LocalNotOk) => self.local_not_ok.increment(1),
        }
    }

    /// Counts how the zone of one request was found.
    pub fn chose(&self, choice: Choice) {
        match choice {
            Choice::Directly => self.directly.increment(1),
            Choice::Sampled => self.sampled.increment(1),
            Choice::Across => self.across.increment(1),
            Choice::NothingLeft => {
                self.across.increment(1);
                self.nothing_left.increment(1);
            }
            Choice::LocalNotOk => self.local_not_ok.increment(1),
        }
    }
}

/// One counter for each status of a class, made when it first occurs.
struct Codes([OnceCell<Counter>; 100]);

/// `upstream_rq_100` to `upstream_rq_599`.
static CODE_NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    (100..600)
        .map(|status| format!("upstream_rq_{status}"))
        .collect()
});

/// The name of the counter of one status.
pub fn code_name(status: u16) -> Option<&'static str> {
    let at = usize::from(status).checked_sub(100)?;
    CODE_NAMES.get(at).map(String::as_str)
}

impl ClusterStats {
    /// Of each breaker of a priority, in the order of the resources: whether it is open, and what is
    /// left.
    pub fn breakers(&self, priority: Priority) -> [(&Gauge, &Gauge); 4] {
        match priority {
            Priority::Default => [
                (&self.cx_open, &self.remaining_cx),
                (&self.rq_pending_open, &self.remaining_pending),
                (&self.rq_open, &self.remaining_rq),
                (&self.rq_retry_open, &self.remaining_retries),
            ],
            Priority::High => [
                (&self.high_cx_open, &self.high_remaining_cx),
                (&self.high_rq_pending_open, &self.high_remaining_pending),
                (&self.high_rq_open, &self.high_remaining_rq),
                (&self.high_rq_retry_open, &self.high_remaining_retries),
            ],
        }
    }

    /// The counters of zone-aware routing, made when it is first needed.
    pub fn zones(&self) -> &ZoneStats {
        self.zones
            .get_or_init(|| Box::new(ZoneStats::new(&self.scope)))
    }

    /// Those of datagrams, for the clusters that have any.
    pub(super) fn datagrams(&self) -> DatagramStats {
        DatagramStats::new(&self.scope)
    }

    /// Counts the head of a final response.
    pub fn response(&self, status: u16) {
        self.rq_completed.increment(1);
        let Some(class) = (status / 100)
            .checked_sub(1)
            .filter(|class| *class < 5)
            .map(usize::from)
        else {
            return;
        };
        let classes = [
            &self.rq_1xx,
            &self.rq_2xx,
            &self.rq_3xx,
            &self.rq_4xx,
            &self.rq_5xx,
        ];
        classes[class].increment(1);
        let codes =
            self.codes[class].get_or_init(|| Box::new(Codes([const { OnceCell::new() }; 100])));
        let at = usize::from(status % 100);
        codes.0[at]
            .get_or_init(|| self.scope.counter(&CODE_NAMES[class * 100 + at]))
            .increment(1);
    }
}

/// The unit of Envoy's histograms of time.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::telemetry::metrics::Registry;

    #[test]
    fn statuses_are_counted_by_class_and_code() {
        let registry = Registry::default();
        let stats = ClusterStats::new(&registry.thread(), "backend");
        for status in [200, 200, 204, 404, 503, 600, 999] {
            stats.response(status);
        }
        let mut seen = BTreeMap::new();
        registry.read(|_, subject, name, value| {
            assert_eq!(subject, "backend");
            if name.starts_with("upstream_rq_") {
                seen.insert(name.to_owned(), format!("{value:?}"));
            }
        });
        for (name, want) in [
            ("upstream_rq_completed", 7),
            ("upstream_rq_2xx", 3),
            ("upstream_rq_200", 2),
            ("upstream_rq_204", 1),
            ("upstream_rq_404", 1),
            ("upstream_rq_5xx", 1),
            ("upstream_rq_503", 1),
        ] {
            assert_eq!(seen[name], format!("Counter({want})"), "{name}");
        }
        assert!(!seen.contains_key("upstream_rq_201"));
    }
}
