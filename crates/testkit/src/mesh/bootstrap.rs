//! The bootstrap of a real Envoy: everything else comes from the control plane. Our own sidecar makes
//! the like from its environment.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::control::{CONTROL_HOST, CONTROL_PORT, ControlPlane};

/// Who the proxy is.
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) app: &'a str,
    pub(super) addresses: [IpAddr; 2],
}

/// The bootstrap, with the token for the control plane and the socket that certificates come from.
pub(super) fn envoy(node: &Node<'_>, control: &ControlPlane, token: &str, folder: &Path) -> Value {
    let secrets = json!({
        "name": "sds-grpc",
        "type": "STATIC",
        "typed_extension_protocol_options": http2(),
        "load_assignment": assignment(
            "sds-grpc",
            json!({"pipe": {"path": folder.join("sds.sock")}}),
        ),
    });
    let metadata = json!([{"key": "authorization", "value": format!("Bearer {token}")}]);
    bootstrap(node, &[control_cluster(control), secrets], metadata)
}

fn bootstrap(node: &Node<'_>, clusters: &[Value], metadata: Value) -> Value {
    let Node {
        name,
        namespace,
        app,
        addresses: [v4, v6],
    } = node;
    let service = json!({
        "envoy_grpc": {"cluster_name": "xds-grpc"},
        "initial_metadata": metadata,
    });
    // For ever: a proxy without its listeners must not be taken for ready.
    let from_control =
        json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"});
    json!({
        "node": {
            "id": format!("sidecar~{v4}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            "cluster": format!("{name}.{namespace}"),
            "metadata": {
                "NAMESPACE": namespace,
                "SERVICE_ACCOUNT": name,
                "INSTANCE_IPS": format!("{v4},{v6}"),
                "LABELS": {"app": app},
            },
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 15000}}},
        "dynamic_resources": {
            "lds_config": from_control,
            "cds_config": from_control,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [service],
            },
        },
        "static_resources": {"clusters": clusters},
    })
}

fn control_cluster(control: &ControlPlane) -> Value {
    let address = json!({"socket_address": {
        "address": control.pod().v4(),
        "port_value": CONTROL_PORT,
    }});
    json!({
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": http2(),
        "load_assignment": assignment("xds-grpc", address),
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/\
                          envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": CONTROL_HOST,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    // Envoy's clients go up to 1.2 unless told.
                    "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                    "validation_context": {
                        "trusted_ca": {"filename": control.root_file()},
                        "match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": CONTROL_HOST}}
                        ],
                    },
                },
            },
        },
    })
}

fn assignment(name: &str, address: Value) -> Value {
    json!({
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    })
}

fn http2() -> Value {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({OPTIONS: {
        "@type": format!("type.googleapis.com/{OPTIONS}"),
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}
