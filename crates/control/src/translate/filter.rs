//! Filters and filter chains, shared by both directions.

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::core::v3::{Http1ProtocolOptions, TransportSocket};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, ListenerFilter, ListenerFilterChainMatchPredicate,
    filter, listener_filter,
};
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::StdoutAccessLog;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, RouteSpecifier, ServerHeaderTransformation, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster,
};
use envoy_types::pb::google::protobuf::{BoolValue, Duration};
use prost::{Message, Name};

use crate::mesh::MeshState;

use super::resource::pack;

/// How long a client may be silent before its bytes are taken for no protocol that is known: 1 s.
/// Only a proxy that does not dial meanwhile makes a server that speaks first wait for it.
pub(super) const DETECTION_TIMEOUT: Duration = Duration {
    seconds: 1,
    nanos: 0,
};

/// The same for inbound connections: 5 s. A peer's sidecar speaks at once, but may itself wait for
/// the processor; taken for plaintext, its first bytes would be given to the application.
pub(super) const INBOUND_DETECTION_TIMEOUT: Duration = Duration {
    seconds: 5,
    nanos: 0,
};

/// Passes bytes to a cluster.
pub(super) fn tcp_proxy(mesh: &MeshState, cluster: &str) -> Filter {
    let config = TcpProxy {
        stat_prefix: cluster.to_owned(),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        access_log: access_log(mesh),
        ..TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", &config)
}

/// Passes bytes to several clusters by weight; to none where there is none, which refuses them.
pub(super) fn weighted_tcp_proxy(
    mesh: &MeshState,
    stat_prefix: &str,
    clusters: Vec<(String, u32)>,
) -> Filter {
    let weight = |(name, weight)| ClusterWeight {
        name,
        weight,
        ..ClusterWeight::default()
    };
    let specifier = match clusters.as_slice() {
        [] => ClusterSpecifier::Cluster(format!("{stat_prefix}|nowhere")),
        [(single, _)] => ClusterSpecifier::Cluster(single.clone()),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: clusters.into_iter().map(weight).collect(),
        }),
    };
    let config = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(specifier),
        access_log: access_log(mesh),
        ..TcpProxy::default()
    };
    network_filter("envoy.filters.network.tcp_proxy", &config)
}

/// A connection manager that changes as little as it can: what the application sent arrives.
pub(super) fn connection_manager(
    mesh: &MeshState,
    stat_prefix: &str,
    routes: RouteSpecifier,
) -> HttpConnectionManager {
    HttpConnectionManager {
        codec_type: CodecType::Auto.into(),
        stat_prefix: stat_prefix.to_owned(),
        route_specifier: Some(routes),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack(
                &Router::default(),
            ))),
            ..HttpFilter::default()
        }],
        http_protocol_options: Some(Http1ProtocolOptions {
            accept_http_10: true,
            enable_trailers: true,
            allow_custom_methods: true,
            ..Http1ProtocolOptions::default()
        }),
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        // The caller is the workload beside us, or the peer's sidecar: neither is an edge.
        use_remote_address: Some(BoolValue { value: false }),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        // A stream may be silent for as long as both ends like.
        stream_idle_timeout: Some(Duration::default()),
        access_log: access_log(mesh),
        ..HttpConnectionManager::default()
    }
}

pub(super) fn http_filter(manager: &HttpConnectionManager) -> Filter {
    network_filter("envoy.filters.network.http_connection_manager", manager)
}

/// A chain with one filter.
pub(super) fn chain(
    name: &str,
    matches: Option<FilterChainMatch>,
    filter: Filter,
    transport_socket: Option<TransportSocket>,
) -> FilterChain {
    FilterChain {
        name: name.to_owned(),
        filter_chain_match: matches,
        filters: vec![filter],
        transport_socket,
        ..FilterChain::default()
    }
}

pub(super) fn original_destination() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.original_dst",
        &OriginalDst::default(),
        None,
    )
}

pub(super) fn tls_inspector(disabled: Option<ListenerFilterChainMatchPredicate>) -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.tls_inspector",
        &TlsInspector::default(),
        disabled,
    )
}

pub(super) fn http_inspector(
    disabled: Option<ListenerFilterChainMatchPredicate>,
) -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.http_inspector",
        &HttpInspector::default(),
        disabled,
    )
}

fn listener_filter<M: Message + Name>(
    name: &str,
    config: &M,
    filter_disabled: Option<ListenerFilterChainMatchPredicate>,
) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        filter_disabled,
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack(config))),
    }
}

fn network_filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(config))),
    }
}

fn access_log(mesh: &MeshState) -> Vec<AccessLog> {
    let stdout = || AccessLog {
        name: "envoy.access_loggers.stdout".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(pack(
            &StdoutAccessLog::default(),
        ))),
        ..AccessLog::default()
    };
    mesh.settings.access_log.then(stdout).into_iter().collect()
}
