//! Clusters.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy, TransportSocketMatch,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, Http1ProtocolOptions, Http2ProtocolOptions,
};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Duration, Struct, UInt32Value, Value};

use crate::mesh::{AppProtocol, MeshPort, MeshService, MeshState};
use crate::registry::kinds::IpFamily;

use super::bind::inbound_source;
use super::names::{
    BLACKHOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, PASSTHROUGH_CLUSTER, PLAINTEXT_MODE,
    direct_cluster, inbound_cluster, outbound_cluster,
};
use super::resource::pack;
use super::tls;

const CONNECT_TIMEOUT_SECONDS: i64 = 10;

/// From the same stream as everything else.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        // A timeout would put a cluster without endpoints, or a listener without routes, in place.
        initial_fetch_timeout: Some(Duration::default()),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// Balances over the endpoints of a service's port. Mutual TLS is the rule; only an endpoint that
/// says so itself is spoken to in plaintext.
pub(super) fn balanced(mesh: &MeshState, service: &MeshService, port: &MeshPort) -> Cluster {
    let name = outbound_cluster(&service.host, port.number);
    let (key, value) = PLAINTEXT_MODE;
    Cluster {
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: name.clone(),
        }),
        lb_policy: LbPolicy::LeastRequest.into(),
        transport_socket: Some(tls::upstream(mesh, service, port)),
        transport_socket_matches: vec![TransportSocketMatch {
            name: "plaintext".to_owned(),
            r#match: Some(text_struct(key, value)),
            transport_socket: Some(tls::plaintext()),
        }],
        typed_extension_protocol_options: http_options(port.protocol),
        ..base(name, DiscoveryType::Eds)
    }
}

/// Dials the address that the client dialled.
pub(super) fn direct(
    mesh: &MeshState,
    service: &MeshService,
    port: &MeshPort,
    mutual_tls: bool,
) -> Cluster {
    Cluster {
        lb_policy: LbPolicy::ClusterProvided.into(),
        transport_socket: mutual_tls.then(|| tls::upstream(mesh, service, port)),
        typed_extension_protocol_options: http_options(port.protocol),
        ..base(
            direct_cluster(&service.host, port.number, mutual_tls),
            DiscoveryType::OriginalDst,
        )
    }
}

/// Dials the proxy's own workload at the address and port that the caller dialled.
pub(super) fn inbound(port: u16, protocol: AppProtocol, families: &[IpFamily]) -> Cluster {
    Cluster {
        lb_policy: LbPolicy::ClusterProvided.into(),
        upstream_bind_config: Some(inbound_source(families)),
        typed_extension_protocol_options: http_options(protocol),
        ..base(inbound_cluster(port), DiscoveryType::OriginalDst)
    }
}

/// The same for ports that no service names.
pub(super) fn inbound_passthrough(families: &[IpFamily]) -> Cluster {
    Cluster {
        lb_policy: LbPolicy::ClusterProvided.into(),
        upstream_bind_config: Some(inbound_source(families)),
        ..base(
            INBOUND_PASSTHROUGH_CLUSTER.to_owned(),
            DiscoveryType::OriginalDst,
        )
    }
}

/// Outbound connections to what is no service.
pub(super) fn passthrough() -> Cluster {
    Cluster {
        lb_policy: LbPolicy::ClusterProvided.into(),
        ..base(PASSTHROUGH_CLUSTER.to_owned(), DiscoveryType::OriginalDst)
    }
}

/// Leads nowhere.
pub(super) fn blackhole() -> Cluster {
    let name = BLACKHOLE_CLUSTER.to_owned();
    Cluster {
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.clone(),
            ..ClusterLoadAssignment::default()
        }),
        ..base(name, DiscoveryType::Static)
    }
}

fn base(name: String, discovery: DiscoveryType) -> Cluster {
    Cluster {
        name,
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        connect_timeout: Some(Duration {
            seconds: CONNECT_TIMEOUT_SECONDS,
            nanos: 0,
        }),
        circuit_breakers: Some(unlimited()),
        ..Cluster::default()
    }
}

/// Without the mesh nothing would limit a workload's connections, and Envoy's default of 1024 is
/// fewer than some hold. Limits are for who asks for them.
fn unlimited() -> CircuitBreakers {
    let most = Some(UInt32Value { value: u32::MAX });
    let thresholds = Thresholds {
        max_connections: most,
        max_pending_requests: most,
        max_requests: most,
        max_retries: most,
        ..Thresholds::default()
    };
    CircuitBreakers {
        thresholds: vec![thresholds],
        ..CircuitBreakers::default()
    }
}

/// The protocol of the requests that leave: what the client speaks, unless the port says HTTP/2.
fn http_options(protocol: AppProtocol) -> HashMap<String, envoy_types::pb::google::protobuf::Any> {
    let options = match protocol {
        AppProtocol::Tcp => return HashMap::new(),
        AppProtocol::Http2 => UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(
                Http2ProtocolOptions::default(),
            )),
        }),
        AppProtocol::Http | AppProtocol::Auto => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions {
                    enable_trailers: true,
                    ..Http1ProtocolOptions::default()
                }),
                http2_protocol_options: Some(Http2ProtocolOptions::default()),
                ..UseDownstreamHttpConfig::default()
            })
        }
    };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(options),
        ..HttpProtocolOptions::default()
    };
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    HashMap::from([(key.to_owned(), pack(&options))])
}

/// A struct with one text field. One only: the order of several would not be the same in each
/// encoding, and the resource would seem to change.
pub(super) fn text_struct(key: &str, value: &str) -> Struct {
    let value = Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    };
    Struct {
        fields: HashMap::from([(key.to_owned(), value)]),
    }
}
