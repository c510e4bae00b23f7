use std::time::Duration;

use super::super::testing::{assert_error, cluster};
use crate::config::address::Address;
use crate::config::cluster::{
    AssignmentSource, ClusterDiscovery, LoadBalancer, UpstreamProtocol, UpstreamTransport,
};
use crate::config::endpoint::HealthStatus;

const STATIC: &str = "name: c\nload_assignment: {cluster_name: c}\n";

#[test]
fn defaults_are_envoys() {
    let cluster = cluster(STATIC).unwrap();
    assert_eq!((&*cluster.name, &*cluster.stat_name), ("c", "c"));
    assert_eq!(cluster.connect_timeout, Duration::from_secs(5));
    assert!(matches!(
        cluster.load_balancing.policy,
        LoadBalancer::RoundRobin
    ));
    assert_eq!(cluster.load_balancing.panic_threshold, 50);
    assert_eq!(cluster.circuit_breakers[0].max_requests, 1024);
    assert_eq!(cluster.circuit_breakers[0].max_retries, 3);
    assert_eq!(cluster.protocol, UpstreamProtocol::Http1);
    assert_eq!(cluster.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(cluster.max_requests_per_connection, None);
    assert_eq!(cluster.http2.initial_stream_window, 16 << 20);
    assert!(matches!(cluster.transport_socket, UpstreamTransport::Plain));
}

#[test]
fn all_that_is_set_arrives() {
    let cluster = cluster(
        r#"
name: outbound|80||svc
alt_stat_name: outbound.80.svc
type: STATIC
connect_timeout: 0.25s
lb_policy: LEAST_REQUEST
least_request_lb_config: {choice_count: 4}
common_lb_config: {healthy_panic_threshold: {value: 0}}
circuit_breakers: {thresholds: [{max_connections: 7}, {priority: HIGH, max_connections: 9}]}
upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}, extra_source_addresses: [{address: {address: '::6', port_value: 0}}]}
upstream_connection_options: {tcp_keepalive: {keepalive_time: 300}}
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 10}}
    common_http_protocol_options: {idle_timeout: 0s, max_requests_per_connection: 5}
transport_socket_matches:
- name: mesh
  match: {tlsMode: istio}
  transport_socket: {name: raw, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}
load_assignment:
  cluster_name: c
  endpoints:
  - priority: 1
    locality: {region: r, zone: z}
    lb_endpoints:
    - endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}, hostname: h}
      load_balancing_weight: 3
      health_status: DRAINING
      metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: istio, n: 1}}}
    - endpoint: {address: {pipe: {path: /run/x}}}
"#,
    )
    .unwrap();
    assert_eq!(&*cluster.stat_name, "outbound.80.svc");
    assert!(matches!(
        cluster.load_balancing.policy,
        LoadBalancer::LeastRequest {
            choices: Some(4),
            bias: None
        }
    ));
    assert_eq!(cluster.load_balancing.panic_threshold, 0);
    assert_eq!(cluster.circuit_breakers[0].max_connections, 7);
    assert_eq!(cluster.protocol, UpstreamProtocol::Http2);
    assert_eq!(cluster.http2.max_concurrent_streams, 10);
    assert_eq!(
        (cluster.idle_timeout, cluster.max_requests_per_connection),
        (None, Some(5))
    );
    assert_eq!(
        cluster.keepalive.unwrap().time,
        Some(Duration::from_secs(300))
    );
    let bind = cluster.bind.unwrap();
    let source = |text: &str| Some(text.parse::<std::net::SocketAddr>().unwrap().into());
    assert_eq!(bind.v4, source("127.0.0.6:0"));
    assert_eq!(bind.v6, source("[::6]:0"));
    let ClusterDiscovery::Assignment {
        slot,
        source: AssignmentSource::Static,
    } = &cluster.discovery
    else {
        panic!()
    };
    let assignment = slot.load().unwrap();
    let locality = &assignment.localities[0];
    assert_eq!((locality.priority, &*locality.name), (1, "r/z/"));
    let first = &locality.endpoints[0];
    assert_eq!(
        (first.weight, first.health, &*first.hostname),
        (3, HealthStatus::Draining, "h")
    );
    assert_eq!(first.transport_socket_match["n"], serde_json::json!(1));
    assert_eq!(
        cluster.transport_socket_matches[0].criteria["tlsMode"],
        first.transport_socket_match["tlsMode"]
    );
    assert_eq!(
        locality.endpoints[1].address,
        Address::Pipe("/run/x".into())
    );
}

#[test]
fn kinds_of_discovery() {
    let eds =
        cluster("name: c\ntype: EDS\neds_cluster_config: {service_name: s, eds_config: {ads: {}}}")
            .unwrap();
    let ClusterDiscovery::Assignment {
        slot,
        source: AssignmentSource::Eds,
    } = &eds.discovery
    else {
        panic!()
    };
    assert_eq!((&**slot.name(), slot.is_filled()), ("s", false));
    let original = cluster("name: c\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED").unwrap();
    assert!(matches!(
        original.discovery,
        ClusterDiscovery::OriginalDestination
    ));
    assert!(matches!(
        original.load_balancing.policy,
        LoadBalancer::Provided
    ));
}

#[test]
fn errors_name_the_field() {
    let options = |options: &str| {
        format!(
            "{STATIC}typed_extension_protocol_options: {{x: {{'@type': type.googleapis.com/{options}}}}}"
        )
    };
    let endpoint = |endpoint: &str| {
        format!(
            "name: c\nload_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{endpoint}]}}]}}"
        )
    };
    for (yaml, expect) in [
        (
            "load_assignment: {cluster_name: c}".into(),
            "name: must not be empty",
        ),
        (
            "name: c\ntype: STRICT_DNS".into(),
            "load_assignment: must be set",
        ),
        (
            format!("{STATIC}type: LOGICAL_DNS"),
            "load_assignment: must have exactly one endpoint",
        ),
        (
            "name: c\ntype: EDS".into(),
            "eds_cluster_config: must be set",
        ),
        (
            "name: c\ntype: EDS\neds_cluster_config: {}".into(),
            "eds_cluster_config.eds_config: must be set",
        ),
        (
            "name: c\ntype: ORIGINAL_DST".into(),
            "lb_policy: CLUSTER_PROVIDED goes with",
        ),
        (
            format!("{STATIC}lb_policy: RING_HASH"),
            "lb_policy: RING_HASH is not supported",
        ),
        (
            format!("{STATIC}connect_timeout: 0s"),
            "connect_timeout: must be above zero",
        ),
        (
            format!("{STATIC}lrs_report_endpoint_metrics: [x]"),
            "lrs_report_endpoint_metrics: not supported",
        ),
        (
            format!("{STATIC}common_lb_config: {{healthy_panic_threshold: {{value: 101}}}}"),
            "common_lb_config.healthy_panic_threshold: must be between",
        ),
        (
            format!("{STATIC}circuit_breakers: {{thresholds: [{{}}, {{}}]}}"),
            "circuit_breakers.thresholds[1].priority: is given twice",
        ),
        (
            format!(
                "{STATIC}upstream_bind_config: {{source_address: {{address: x, port_value: 0}}}}"
            ),
            "upstream_bind_config.source_address.address: `x` is not an IP address",
        ),
        (
            options("envoy.config.core.v3.HttpProtocolOptions"),
            "typed_extension_protocol_options[x]: `type.googleapis.com/envoy.config.core.v3.HttpProtocolOptions` is not a supported",
        ),
        (
            options("envoy.extensions.upstreams.http.v3.HttpProtocolOptions"),
            "typed_extension_protocol_options[x]: set one of explicit_http_config, ",
        ),
        (
            options(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {initial_stream_window_size: 1}}",
            ),
            "typed_extension_protocol_options[x].explicit_http_config.http2_protocol_options.initial_stream_window_size: 1 is not between 65535",
        ),
        (
            endpoint(
                "{endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 70000}}}}",
            ),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: 70000 is not a port",
        ),
        (
            endpoint("{load_balancing_weight: 0, endpoint: {address: {pipe: {path: /x}}}}"),
            "load_assignment.endpoints[0].lb_endpoints[0].load_balancing_weight: 0 is not between",
        ),
    ] {
        assert_error(cluster(&yaml), expect);
    }
}
