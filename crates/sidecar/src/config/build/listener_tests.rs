use std::time::Duration;

use super::super::testing::{assert_error, listener};
use crate::config::http_connection_manager::{
    CodecType, ForwardClientCert, HttpConnectionManager, StripPort,
};
use crate::config::listener::{NetworkFilter, SourceType};
use crate::config::listener_filter::FilterKind;

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions";
const ADDRESS: &str = "address: {socket_address: {address: 0.0.0.0, port_value: 15001}}\n";

fn tcp(rest: &str) -> String {
    format!(
        "{{name: tcp, typed_config: {{{TYPE}.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, {rest}}}}}"
    )
}

fn router(rest: &str) -> String {
    format!("{{name: r, {rest} typed_config: {{{TYPE}.filters.http.router.v3.Router}}}}")
}

fn http(rest: &str) -> String {
    format!(
        "{{name: hcm, typed_config: {{{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: h, {rest}}}}}"
    )
}

fn one_filter(filter: &str) -> String {
    format!("{ADDRESS}filter_chains: [{{filters: [{filter}]}}]")
}

fn manager(rest: &str) -> std::sync::Arc<HttpConnectionManager> {
    let yaml = one_filter(&http(&format!("http_filters: [{}], {rest}", router(""))));
    match &listener(&yaml).unwrap().filter_chains[0].filter {
        NetworkFilter::Http(manager) => std::sync::Arc::clone(manager),
        _ => panic!(),
    }
}

#[test]
fn defaults_are_envoys() {
    let built = listener(&one_filter(&tcp("cluster: c"))).unwrap();
    assert_eq!(
        (&*built.name, &*built.stat_prefix),
        ("0.0.0.0:15001", "0.0.0.0_15001")
    );
    assert!(built.bind_to_port && !built.hand_over);
    assert_eq!(
        built.listener_filters_timeout,
        Some(Duration::from_secs(15))
    );
    assert!(built.filters.is_empty());
    let chain = &built.filter_chains[0];
    assert_eq!(
        (&*chain.name, chain.transport_timeout),
        ("0", Duration::from_secs(15))
    );
    let NetworkFilter::TcpProxy(proxy) = &chain.filter else {
        panic!()
    };
    assert_eq!(
        proxy.idle_timeout, None,
        "idle connections are never cut by default"
    );
    assert_eq!((proxy.total_weight, proxy.max_connect_attempts), (1, 1));

    let manager = manager("rds: {route_config_name: r, config_source: {ads: {}}}");
    assert!(manager.rds && !manager.routes.is_filled());
    assert_eq!(manager.codec, CodecType::Auto);
    assert_eq!(manager.stream_idle_timeout, Some(Duration::from_secs(300)));
    assert_eq!(manager.request_timeout, None);
    assert_eq!(manager.max_request_headers_bytes, 60 * 1024);
    assert_eq!(manager.max_headers_count, 100);
    assert_eq!(&*manager.server_name, b"envoy");
    assert_eq!(manager.client_cert.forward, ForwardClientCert::Sanitize);
    assert!(manager.generate_request_id && manager.internal_addresses.is_empty());
}

#[test]
fn all_that_is_set_arrives() {
    let listener = listener(&format!(
        r#"
name: virtualOutbound
address: {{socket_address: {{address: 0.0.0.0, port_value: 15001}}}}
additional_addresses: [{{address: {{socket_address: {{address: '::', port_value: 15001}}}}}}]
use_original_dst: true
deprecated_v1: {{bind_to_port: false}}
traffic_direction: OUTBOUND
listener_filters_timeout: 0s
continue_on_listener_filters_timeout: true
listener_filters:
- {{name: tls, typed_config: {{{TYPE}.filters.listener.tls_inspector.v3.TlsInspector}}}}
- {{name: http, typed_config: {{{TYPE}.filters.listener.http_inspector.v3.HttpInspector}}, filter_disabled: {{or_match: {{rules: [{{destination_port_range: {{start: 3306, end: 3307}}}}, {{not_match: {{any_match: true}}}}]}}}}}}
access_log: [{{name: l, typed_config: {{{TYPE}.access_loggers.stream.v3.StdoutAccessLog}}}}]
default_filter_chain: {{filters: [{default}]}}
filter_chains:
- name: tls
  filter_chain_match:
    destination_port: 443
    prefix_ranges: [{{address_prefix: 10.1.2.3, prefix_len: 8}}]
    server_names: ['*.Example.com', Exact.example.com]
    transport_protocol: tls
    application_protocols: [h2]
    source_type: EXTERNAL
    source_ports: [7]
  transport_socket_connect_timeout: 0s
  filters: [{weighted}]
"#,
        default = tcp("cluster: passthrough, idle_timeout: 0s"),
        weighted = tcp("weighted_clusters: {clusters: [{name: a, weight: 2}, {name: b, weight: 3}]}"),
    ))
    .unwrap();
    assert_eq!(listener.addresses.len(), 2);
    assert!(!listener.bind_to_port && listener.hand_over);
    assert_eq!(listener.listener_filters_timeout, None);
    let [original_dst, tls, http] = &listener.filters[..] else {
        panic!("{:?}", listener.filters);
    };
    assert!(matches!(original_dst.kind, FilterKind::OriginalDst));
    assert!(tls.looks_at(Some(3306)) && http.looks_at(Some(80)));
    assert!(!http.looks_at(Some(3306)));
    let chain = &listener.filter_chains[0];
    let matcher = &chain.matcher;
    assert_eq!(matcher.destinations, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(
        *matcher.server_names,
        [".example.com".into(), "exact.example.com".into()]
    );
    assert_eq!(matcher.source_type, SourceType::External);
    assert_eq!(chain.transport_timeout, Duration::MAX);
    let NetworkFilter::TcpProxy(proxy) = &chain.filter else {
        panic!()
    };
    assert_eq!(proxy.total_weight, 5);
    let NetworkFilter::TcpProxy(proxy) = &listener.default_filter_chain.unwrap().filter else {
        panic!()
    };
    assert_eq!(proxy.idle_timeout, None);

    let manager = manager(
        "route_config: {name: inline, virtual_hosts: [{name: a, domains: ['*']}]}, codec_type: HTTP2, \
         use_remote_address: true, xff_num_trusted_hops: 1, forward_client_cert_details: SANITIZE_SET, \
         set_current_client_cert_details: {uri: true, subject: true}, upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: x, enabled: false}], \
         strip_any_host_port: true, request_timeout: 3s, common_http_protocol_options: {idle_timeout: 0s, max_headers_count: 5}, \
         internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}, proxy_100_continue: true",
    );
    assert!(!manager.rds && manager.routes.is_filled());
    assert_eq!(manager.codec, CodecType::Http2);
    assert!(manager.client_cert.details.uri && manager.client_cert.details.subject);
    assert_eq!(manager.upgrades, [Box::from(*b"websocket")]);
    assert_eq!(manager.strip_host_port, StripPort::Any);
    assert_eq!((manager.idle_timeout, manager.max_headers_count), (None, 5));
    assert_eq!(manager.internal_addresses.len(), 1);
}

#[test]
fn an_optional_filter_that_is_unknown_is_left_out() {
    let unknown = |optional: bool| {
        one_filter(&http(&format!(
            "rds: {{route_config_name: r, config_source: {{ads: {{}}}}}}, http_filters: [{{name: x, is_optional: {optional}, \
             typed_config: {{'@type': type.googleapis.com/google.protobuf.Duration, value: 1s}}}}, {}]",
            router("")
        )))
    };
    assert!(listener(&unknown(true)).is_ok());
    assert_error(
        listener(&unknown(false)),
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: \
         `type.googleapis.com/google.protobuf.Duration` is not a supported HTTP filter; supported: envoy.extensions.filters.http.router.v3.Router",
    );
}

#[test]
fn chains_that_did_not_change_keep_their_fingerprint() {
    let chains = |second: &str| {
        listener(&format!(
            "{ADDRESS}filter_chains: [{{filter_chain_match: {{destination_port: 1}}, filters: [{}]}}, {{filters: [{}]}}]",
            tcp("cluster: a"),
            tcp(second)
        ))
        .unwrap()
    };
    let (old, new) = (chains("cluster: b"), chains("cluster: c"));
    assert_ne!(old.fingerprint, new.fingerprint);
    assert_eq!(
        old.filter_chains[0].fingerprint,
        new.filter_chains[0].fingerprint
    );
    assert_ne!(
        old.filter_chains[1].fingerprint,
        new.filter_chains[1].fingerprint
    );
}

#[test]
fn errors_name_the_field() {
    let in_filter = "filter_chains[0].filters[0].typed_config";
    let in_manager = |rest: &str| one_filter(&http(rest));
    let with_router = |rest: &str| {
        in_manager(&format!(
            "rds: {{route_config_name: r, config_source: {{ads: {{}}}}}}, http_filters: [{}], {rest}",
            router("")
        ))
    };
    for (yaml, expect) in [
        (format!("filter_chains: [{{filters: [{}]}}]", tcp("cluster: c")), "address: set one of socket_address, pipe".to_owned()),
        (ADDRESS.into(), "filter_chains: must hold a chain".into()),
        (format!("{ADDRESS}filter_chains: [{{}}]"), "filter_chains[0].filters: must end with a terminal filter".into()),
        (
            format!("{ADDRESS}filter_chains: [{{filters: [{0}, {0}]}}]", tcp("cluster: c")),
            "filter_chains[0].filters[0]: is a terminal filter, which must be the last".into(),
        ),
        (
            format!("{ADDRESS}filter_chains: [{{filters: [{0}]}}, {{name: n, filters: [{0}]}}]", tcp("cluster: c")),
            "filter_chains[1].filter_chain_match: matches the same connections as filter_chains[0] (`0`)".into(),
        ),
        (one_filter(&tcp("")), format!("{in_filter}: set one of cluster, weighted_clusters")),
        (
            one_filter("{name: x}"),
            "filter_chains[0].filters[0].typed_config: must be set".into(),
        ),
        (
            format!("address: {{pipe: {{path: '@name', mode: 384}}}}\nfilter_chains: [{{filters: [{}]}}]", tcp("cluster: c")),
            "address.pipe.mode: is not for abstract sockets, which are no files".into(),
        ),
        (
            format!("{ADDRESS}filter_chains: [{{filter_chain_match: {{server_names: ['*']}}, filters: [{}]}}]", tcp("cluster: c")),
            "filter_chains[0].filter_chain_match.server_names[0]: `*`: only a whole first label".into(),
        ),
        (
            format!("{ADDRESS}filter_chains: [{{filter_chain_match: {{prefix_ranges: [{{address_prefix: 10.0.0.0, prefix_len: 33}}]}}, filters: [{}]}}]", tcp("cluster: c")),
            "filter_chains[0].filter_chain_match.prefix_ranges[0].prefix_len: 33 is too long".into(),
        ),
        (in_manager("http_filters: []"), format!("{in_filter}: set one of rds, route_config")),
        (
            in_manager("rds: {route_config_name: r, config_source: {ads: {}}}"),
            format!("{in_filter}.http_filters: must end with the router"),
        ),
        (
            in_manager(&format!("rds: {{route_config_name: r, config_source: {{ads: {{}}}}}}, http_filters: [{}, {}]", router(""), router(""))),
            format!("{in_filter}.http_filters[1]: the router must be the last filter"),
        ),
        (
            in_manager(&format!("route_config: {{virtual_hosts: [{{name: a}}]}}, http_filters: [{}]", router(""))),
            format!("{in_filter}.route_config.virtual_hosts[0].domains: must name at least one"),
        ),
        (with_router("max_request_headers_kb: 9000"), format!("{in_filter}.max_request_headers_kb: 9000 is not between 1 and 8192")),
        (with_router("codec_type: HTTP3"), format!("{in_filter}.codec_type: HTTP/3")),
        (
            with_router("http_protocol_options: {allow_absolute_url: false}"),
            format!("{in_filter}.http_protocol_options.allow_absolute_url: cannot be turned off"),
        ),
        (
            with_router(&format!("access_log: [{{name: f, typed_config: {{{TYPE}.access_loggers.file.v3.FileAccessLog, path: /dev/stdout, log_format: {{text_format_source: {{inline_string: '%NO%'}}}}}}}}]")),
            format!("{in_filter}.access_log[0].typed_config.log_format.text_format_source: unknown operator %NO%"),
        ),
    ] {
        assert_error(listener(&yaml), &expect);
    }
}
