//! `tcp.<stat_prefix>.*`: what a tcp_proxy counts.

use metrics::Counter;

use crate::telemetry::metrics::{Family, Scope, Stats};

macro_rules! tcp_stats {
    ($($name:ident: $doc:literal,)+) => {
        /// Handles of one stat prefix on one worker, under Envoy's names.
        pub struct TcpStats {
            $(#[doc = $doc] pub $name: Counter,)+
            /// Keeps the subject alive.
            _scope: Scope,
        }

        impl TcpStats {
            /// Resolves the handles of one stat prefix.
            pub fn new(stats: &Stats, prefix: &str) -> Self {
                let scope = stats.scope(Family::Tcp, prefix);
                TcpStats {
                    $($name: scope.counter(stringify!($name)),)+
                    _scope: scope,
                }
            }
        }
    };
}

tcp_stats! {
    downstream_cx_total: "Connections.",
    downstream_cx_no_route: "Connections whose cluster is not configured.",
    downstream_cx_drain_close: "Connections that ended because their listener drains.",
    downstream_cx_rx_bytes_total: "Bytes from clients.",
    downstream_cx_tx_bytes_total: "Bytes to clients.",
    early_data_received_count_total: "Connections whose first bytes came before their endpoint was connected to.",
    idle_timeout: "Connections that ended because nothing was said for too long.",
    max_downstream_connection_duration: "Connections that ended because they lasted too long.",
}
