//! A static Envoy bootstrap as a mesh would write it for any pod, for whichever proxy reads it.

use std::net::Ipv4Addr;
use std::path::Path;

use serde_json::{Value, json};

/// The ports of the apps.
pub const HTTP1: u16 = 80;
pub const HTTP2: u16 = 81;
pub const TCP: u16 = 90;
pub const BANNER: u16 = 91;
/// The address of the service that stands for one pod's HTTP/1 app.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// What every identity begins with.
pub const TRUST_DOMAIN: &str = "spiffe://cluster.local/";

/// An address family, with what differs by it.
struct Family {
    name: &'static str,
    any: &'static str,
    /// The source that the redirects leave alone.
    source: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "v4",
        any: "0.0.0.0",
        source: "127.0.0.6",
    },
    Family {
        name: "v6",
        any: "::",
        source: "::6",
    },
];

/// The bootstrap of a pod whose certificates are in `files`. `service` is the pod that
/// [`SERVICE`] stands for.
pub fn pod(files: &Path, service: Ipv4Addr) -> Value {
    let mut listeners = Vec::new();
    let mut clusters = vec![
        cluster(
            "service",
            json!({
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": "service",
                    "endpoints": [{"lb_endpoints": [
                        {"endpoint": {"address": address(&service.to_string(), HTTP1)}}
                    ]}]
                },
                "transport_socket": upstream_tls(files, &["http/1.1"]),
            }),
            Some("http_protocol_options"),
        ),
        original(
            "out_http1",
            Some("http_protocol_options"),
            upstream_tls(files, &["http/1.1"]),
        ),
        original(
            "out_http2",
            Some("http2_protocol_options"),
            upstream_tls(files, &["h2"]),
        ),
        original("out_tcp", None, upstream_tls(files, &[])),
    ];
    for family in FAMILIES {
        listeners.push(outbound(&family));
        listeners.push(inbound(&family, files));
        for (kind, options) in [
            ("http1", Some("http_protocol_options")),
            ("http2", Some("http2_protocol_options")),
            ("tcp", None),
        ] {
            let mut inbound = original(&format!("in_{kind}_{}", family.name), options, Value::Null);
            inbound["upstream_bind_config"] =
                json!({"source_address": {"address": family.source, "port_value": 0}});
            clusters.push(inbound);
        }
    }
    json!({
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": address("127.0.0.1", 15000)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

fn outbound(family: &Family) -> Value {
    let mut chains = vec![
        chain(
            json!({"destination_port": HTTP1}),
            manager("out_http1", false),
        ),
        chain(
            json!({"destination_port": HTTP2}),
            manager("out_http2", false),
        ),
        chain(json!({"destination_port": TCP}), tcp_proxy("out_tcp")),
        chain(json!({"destination_port": BANNER}), tcp_proxy("out_tcp")),
    ];
    if family.name == "v4" {
        let range = json!([{"address_prefix": SERVICE.to_string(), "prefix_len": 32}]);
        let wanted = json!({"destination_port": HTTP1, "prefix_ranges": range});
        chains.push(chain(wanted, manager("service", false)));
    }
    json!({
        "name": format!("outbound_{}", family.name),
        "traffic_direction": "OUTBOUND",
        "address": address(family.any, 15001),
        "listener_filters": [listener_filter("original_dst", "OriginalDst")],
        "filter_chains": chains,
    })
}

/// Mutual TLS alone: what is not TLS finds no chain.
fn inbound(family: &Family, files: &Path) -> Value {
    let cluster = |kind: &str| format!("in_{kind}_{}", family.name);
    let chains: Vec<Value> = [
        (HTTP1, manager(&cluster("http1"), true)),
        (HTTP2, manager(&cluster("http2"), true)),
        (TCP, tcp_proxy(&cluster("tcp"))),
        (BANNER, tcp_proxy(&cluster("tcp"))),
    ]
    .into_iter()
    .map(|(port, filter)| {
        let wanted = json!({"destination_port": port, "transport_protocol": "tls"});
        let mut chain = chain(wanted, filter);
        chain["transport_socket"] = downstream_tls(files, &["h2", "http/1.1"]);
        chain
    })
    .collect();
    json!({
        "name": format!("inbound_{}", family.name),
        "traffic_direction": "INBOUND",
        "address": address(family.any, 15006),
        "listener_filters": [
            listener_filter("original_dst", "OriginalDst"),
            listener_filter("tls_inspector", "TlsInspector"),
        ],
        "filter_chains": chains,
    })
}

fn address(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

fn chain(wanted: Value, filter: Value) -> Value {
    json!({"filter_chain_match": wanted, "filters": [filter]})
}

fn listener_filter(name: &str, message: &str) -> Value {
    let kind = format!("envoy.extensions.filters.listener.{name}.v3.{message}");
    typed(&format!("envoy.filters.listener.{name}"), &kind, json!({}))
}

fn manager(cluster: &str, sets_client_certificate: bool) -> Value {
    let mut fields = json!({
        "stat_prefix": cluster,
        "codec_type": "AUTO",
        "route_config": {"name": cluster, "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
        }]},
        "http_filters": [typed(
            "envoy.filters.http.router",
            "envoy.extensions.filters.http.router.v3.Router",
            json!({}),
        )],
    });
    if sets_client_certificate {
        fields["forward_client_cert_details"] = json!("SANITIZE_SET");
        fields["set_current_client_cert_details"] = json!({"uri": true});
    }
    typed(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        fields,
    )
}

fn tcp_proxy(cluster: &str) -> Value {
    typed(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({"stat_prefix": cluster, "cluster": cluster}),
    )
}

/// A cluster that dials whatever address the client meant.
fn original(name: &str, options: Option<&str>, transport_socket: Value) -> Value {
    let mut fields = json!({"type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"});
    if !transport_socket.is_null() {
        fields["transport_socket"] = transport_socket;
    }
    cluster(name, fields, options)
}

fn cluster(name: &str, mut fields: Value, options: Option<&str>) -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    fields["name"] = json!(name);
    fields["connect_timeout"] = json!("5s");
    if let Some(options) = options {
        fields["typed_extension_protocol_options"] = json!({OPTIONS: {
            "@type": format!("type.googleapis.com/{OPTIONS}"),
            "explicit_http_config": {options: {}},
        }});
    }
    fields
}

fn upstream_tls(files: &Path, alpn: &[&str]) -> Value {
    let fields = json!({"sni": "outrider.test", "common_tls_context": common_tls(files, alpn)});
    tls("UpstreamTlsContext", fields)
}

fn downstream_tls(files: &Path, alpn: &[&str]) -> Value {
    let context = common_tls(files, alpn);
    let fields = json!({"require_client_certificate": true, "common_tls_context": context});
    tls("DownstreamTlsContext", fields)
}

fn tls(message: &str, fields: Value) -> Value {
    let kind = format!("envoy.extensions.transport_sockets.tls.v3.{message}");
    typed("envoy.transport_sockets.tls", &kind, fields)
}

fn common_tls(files: &Path, alpn: &[&str]) -> Value {
    let file = |name: &str| json!({"filename": files.join(name)});
    let mut context = json!({
        "tls_certificates": [
            {"certificate_chain": file("certificate.pem"), "private_key": file("key.pem")}
        ],
        "validation_context": {
            "trusted_ca": file("root.pem"),
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": TRUST_DOMAIN}}
            ],
        },
    });
    if !alpn.is_empty() {
        context["alpn_protocols"] = json!(alpn);
    }
    context
}

fn typed(name: &str, kind: &str, mut fields: Value) -> Value {
    fields["@type"] = json!(format!("type.googleapis.com/{kind}"));
    json!({"name": name, "typed_config": fields})
}
