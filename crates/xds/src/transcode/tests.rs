use prost::Message as _;
use serde_json::{Value, json};

use super::*;
use crate::pb::envoy::config::cluster::v3::Cluster;
use crate::pb::envoy::config::listener::v3::Listener;

const LISTENER: &str = "envoy.config.listener.v3.Listener";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const SECRET: &str = "envoy.extensions.transport_sockets.tls.v3.Secret";

const HCM_LISTENER: &str = r#"
name: inbound
address: {socket_address: {address: 0.0.0.0, portValue: 15006}}
listener_filters_timeout: 1.5s
use_original_dst: true
filter_chains:
- filter_chain_match: {destination_port: 8080, source_ports: [1, 70000]}
  filters:
  - name: hcm
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: inbound
      forward_client_cert_details: SANITIZE_SET
      route_config:
        virtual_hosts:
        - name: all
          domains: ["*"]
          routes:
          - match: {prefix: /}
            route: {weighted_clusters: {clusters: [{name: a, weight: 90}, {name: b, weight: "10"}]}, timeout: 0s}
      http_filters:
      - name: router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;

fn encode(name: &str, yaml: &str) -> Result<Vec<u8>, String> {
    json_to_proto(name, &yaml_to_value(yaml).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn documents_become_what_prost_reads_and_back() {
    let bytes = encode(LISTENER, HCM_LISTENER).unwrap();
    let listener = Listener::decode(bytes.as_slice()).unwrap();
    assert_eq!(
        listener.listener_filters_timeout.unwrap().nanos,
        500_000_000
    );
    let chain = &listener.filter_chains[0];
    let matching = chain.filter_chain_match.as_ref().unwrap();
    assert_eq!(matching.source_ports, [1, 70000]);
    assert_eq!(matching.destination_port.unwrap().value, 8080);
    assert_eq!(check(LISTENER, &bytes), Ok(vec![]));

    let json = proto_to_json(LISTENER, &bytes).unwrap();
    let config = &json["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(config["forward_client_cert_details"], "SANITIZE_SET");
    let route = &config["route_config"]["virtual_hosts"][0]["routes"][0]["route"];
    assert_eq!(route["timeout"], "0s");
    assert_eq!(
        route["weighted_clusters"]["clusters"][1],
        json!({"name": "b", "weight": 10})
    );
    // What was written reads back to the same bytes, and what prost writes reads the same.
    assert_eq!(json_to_proto(LISTENER, &json).unwrap(), bytes);
    assert_eq!(
        proto_to_json(LISTENER, &listener.encode_to_vec()).unwrap(),
        json
    );
}

#[test]
fn well_known_types_have_their_own_json() {
    let cases = [
        ("google.protobuf.Duration", json!("-0.250s")),
        ("google.protobuf.Duration", json!("315576000000s")),
        (
            "google.protobuf.Timestamp",
            json!("2026-01-31T12:00:00.500Z"),
        ),
        (
            "google.protobuf.Struct",
            json!({"a": [1, "x", null, true, {"b": 1.5}], "c": {}}),
        ),
        ("google.protobuf.Value", json!(null)),
        ("google.protobuf.Value", json!([])),
        ("google.protobuf.UInt64Value", json!("18446744073709551615")),
        ("google.protobuf.BoolValue", json!(false)),
        ("google.protobuf.DoubleValue", json!("-Infinity")),
        ("google.protobuf.BytesValue", json!("+/8=")),
        (
            "google.protobuf.Any",
            json!({"@type": "x/google.protobuf.Duration", "value": "1s"}),
        ),
        (
            "google.protobuf.Any",
            json!({"@type": "x/not.known", "value": "AQID"}),
        ),
        (
            CLUSTER,
            json!({"name": "c", "type": "EDS", "lb_policy": "LEAST_REQUEST"}),
        ),
        (
            CLUSTER,
            json!({"typed_extension_protocol_options": {"k": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}}),
        ),
    ];
    for (name, value) in cases {
        let bytes = json_to_proto(name, &value).unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(proto_to_json(name, &bytes).unwrap(), value, "{name}");
        assert_eq!(check(name, &bytes), Ok(vec![]), "{name}");
    }
    // An explicit value of a oneof or a wrapper is kept, a default without presence is not.
    assert!(!encode(CLUSTER, "type: STATIC").unwrap().is_empty());
    assert!(
        encode(CLUSTER, "lb_policy: ROUND_ROBIN")
            .unwrap()
            .is_empty()
    );
    let numbers = encode(CLUSTER, "lb_policy: 1\nconnect_timeout: null").unwrap();
    assert_eq!(Cluster::decode(numbers.as_slice()).unwrap().lb_policy, 1);
}

#[test]
fn bad_documents_are_told_with_the_path() {
    let cases = [
        (
            BOOTSTRAP,
            "static_resources: {listeners: [{address: {socket_address: {port_valu: 1}}}]}",
            "static_resources.listeners[0].address.socket_address.port_valu: no such field; \
             did you mean port_value?",
        ),
        (LISTENER, "zzz: 1", "zzz: no such field"),
        (
            LISTENER,
            "name: 1",
            "name: expected a string (put it in quotes), found a number",
        ),
        (
            LISTENER,
            "filter_chains: {}",
            "filter_chains: expected a list, found a mapping",
        ),
        (
            LISTENER,
            "{name: a, name_: b}",
            "name_: no such field; did you mean name?",
        ),
        (
            LISTENER,
            "{statPrefix: a, stat_prefix: b}",
            "stat_prefix: given twice",
        ),
        (
            LISTENER,
            "address: {socket_address: {port_value: -1}}",
            "address.socket_address.port_value: `-1` is not between 0 and 4294967295",
        ),
        (
            LISTENER,
            "address: {pipe: {path: a}, socket_address: {address: b}}",
            "address.socket_address: pipe is set too, and only one of the two can be",
        ),
        (
            LISTENER,
            "filter_chains: [{filters: [{typed_config: {'@type': x/a.B}}]}]",
            "filter_chains[0].filters[0].typed_config: the type x/a.B is not supported",
        ),
        (
            LISTENER,
            "filter_chains: [{filters: [{typed_config: {a: 1}}]}]",
            "filter_chains[0].filters[0].typed_config: has no \"@type\" to say what it is",
        ),
        (
            CLUSTER,
            "connect_timeout: 5",
            "expected a duration such as \"1.5s\", found a number",
        ),
        (
            CLUSTER,
            "connect_timeout: 5m",
            "connect_timeout: `5m` is not a duration such as 1.5s",
        ),
        (
            CLUSTER,
            "lb_policy: RANDUM",
            "`RANDUM` is not a value of envoy.config.cluster.v3.Cluster.LbPolicy; did you mean RANDOM? it \
             is one of ROUND_ROBIN, ",
        ),
        (
            CLUSTER,
            "outlier_detection: {}",
            "outlier_detection: not supported: ",
        ),
        ("a.B", "{}", "there is no message type a.B"),
    ];
    for (name, yaml, expected) in cases {
        let error = encode(name, yaml).unwrap_err();
        assert!(
            error.contains(expected),
            "{yaml}\n gave {error}\n not  {expected}"
        );
    }
    assert_eq!(
        yaml_to_value("a: 1\nb: [1\nc: 2\n").unwrap_err().line,
        Some(3)
    );
    let twice = yaml_to_value("x:\n  a: 1\n  b: 2\n  a: 3\n").unwrap_err();
    assert!(
        twice.to_string().contains("the key a is given twice"),
        "{twice}"
    );
    assert!(twice.line.is_some(), "{twice:?}");
    assert!(yaml_to_value("{\n\t\"a\": 1}").is_ok(), "JSON with tabs");
}

#[test]
fn what_is_set_and_not_acted_on_is_told() {
    let listener = encode(
        LISTENER,
        &HCM_LISTENER
            .replace("domains:", "rate_limits: []\n          domains:")
            .replace(
                "stat_prefix: inbound",
                "stat_prefix: inbound\n      http1_safe_max_connection_duration: true",
            )
            .replace("timeout: 0s", "timeout: 0s, retry_policy_typed_config: {}"),
    )
    .unwrap();
    let report = inspect(LISTENER, &listener);
    assert_eq!(
        report.ignored,
        [Ignored {
            path: "filter_chains[0].filters[0].typed_config.http1_safe_max_connection_duration"
                .into(),
            reason: "the end of a connection never cuts a request short"
        }]
    );
    let told: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0].route.\
         retry_policy_typed_config: not supported: retries by policy are not supported"
        ]
    );

    let cases: [(&str, &[u8], &str); 9] = [
        (CLUSTER, &[0x42, 0], "health_checks: not supported: "),
        (CLUSTER, &[0x42, 0, 0x42, 0], "health_checks"),
        (
            CLUSTER,
            &[0xfa, 0x7f, 0],
            "has no field of number 2047 that we know",
        ),
        (
            CLUSTER,
            &[0x08, 1],
            "name: encoded as another type of field",
        ),
        (
            CLUSTER,
            &[0x0a, 9, b'x'],
            "malformed bytes: it ends too early",
        ),
        (
            CLUSTER,
            &[0x0a, 1, 0xff],
            "name: malformed bytes: not UTF-8",
        ),
        (CLUSTER, &[0x30, 77], "lb_policy: `77` is not a value of"),
        (CLUSTER, &[0x0b], "a group or an unknown wire type"),
        ("google.protobuf.Any", &[0x12, 1, 0], "has no \"@type\""),
    ];
    for (name, bytes, expected) in cases {
        let violations = check(name, bytes).unwrap_err();
        assert_eq!(violations.len(), 1, "{violations:?}");
        assert!(
            violations[0].to_string().contains(expected),
            "{violations:?}"
        );
    }
    let any = json!({"typed_config": {"@type": "x/istio.Unknown", "value": ""}});
    let bytes = json_to_proto("envoy.config.listener.v3.Filter", &any).unwrap();
    let opaque = inspect("envoy.config.listener.v3.Filter", &bytes).opaque;
    assert_eq!(
        opaque,
        [Opaque {
            path: "typed_config".into(),
            type_url: "x/istio.Unknown".into()
        }]
    );
}

#[test]
fn secrets_are_not_shown() {
    let secret = json!({"name": "default", "tls_certificate": {
        "certificate_chain": {"inline_string": "PUBLIC"},
        "private_key": {"inline_bytes": "c2VjcmV0"}}});
    let bytes = json_to_proto(SECRET, &secret).unwrap();
    let any = json!({"@type": format!("type.googleapis.com/{SECRET}"), "name": "default",
        "tls_certificate": {"private_key": {"inline_string": "secret"}}});
    let any = json_to_proto("google.protobuf.Any", &any).unwrap();
    let shown = proto_to_json(SECRET, &bytes).unwrap();
    assert_eq!(
        shown["tls_certificate"]["certificate_chain"]["inline_string"],
        "PUBLIC"
    );
    assert_eq!(
        shown["tls_certificate"]["private_key"],
        json!({"inline_bytes": "W3JlZGFjdGVkXQ=="})
    );
    let shown = proto_to_json("google.protobuf.Any", &any).unwrap();
    assert_eq!(
        shown["tls_certificate"]["private_key"],
        json!({"inline_string": "[redacted]"})
    );
    let wrong = json!({"tls_certificate": {"private_key": {"inline_bytes": "!secret!"}}});
    assert!(
        !json_to_proto(SECRET, &wrong)
            .unwrap_err()
            .to_string()
            .contains("secret")
    );
}

#[test]
fn hostile_depth_and_size_end_in_an_error() {
    // Value -> ListValue -> Value ..., 400 deep.
    let mut deep = vec![0x20, 1];
    for at in 0..400 {
        let mut outer = Vec::new();
        wire::put_bytes(&mut outer, if at % 2 == 0 { 1 } else { 6 }, &deep);
        deep = outer;
    }
    let violations = check("google.protobuf.Value", &deep).unwrap_err();
    assert!(
        violations[0].reason.contains("nested more than 100 deep"),
        "{violations:?}"
    );
    assert_eq!(
        proto_to_json("google.protobuf.Value", &deep)
            .unwrap_err()
            .problem,
        Problem::TooDeep
    );
    let mut value = Value::Null;
    for _ in 0..200 {
        value = Value::Array(vec![value]);
    }
    assert_eq!(
        json_to_proto("google.protobuf.Value", &value)
            .unwrap_err()
            .problem,
        Problem::TooDeep
    );
    // A million unknown fields are not a million messages.
    let many: Vec<u8> = [0xfa, 0x7f, 0].repeat(1_000_000);
    assert_eq!(check(CLUSTER, &many).unwrap_err().len(), 100);
}

#[test]
fn the_order_of_maps_does_not_matter() {
    let metadata = |order: [&str; 3]| {
        let entries: Vec<Vec<u8>> = order
            .iter()
            .map(|key| {
                let value = json!({ *key: {"b": 1, "a": [{"z": 1}]} });
                json_to_proto("google.protobuf.Struct", &value).unwrap()
            })
            .collect();
        let mut any = Vec::new();
        wire::put_bytes(&mut any, 1, b"x/google.protobuf.Struct");
        wire::put_bytes(&mut any, 2, &entries.concat());
        any
    };
    let (one, other) = (metadata(["a", "b", "c"]), metadata(["c", "a", "b"]));
    assert_ne!(one, other);
    let canonical = canonicalize("google.protobuf.Any", &other);
    assert_eq!(canonicalize("google.protobuf.Any", &one), canonical);
    let show = |bytes: &[u8]| proto_to_json("google.protobuf.Any", bytes).unwrap();
    assert_eq!(show(&canonical)["value"], show(&one)["value"]);
    // Listeners come through unchanged in meaning, and what is malformed comes through as it is.
    let listener = encode(LISTENER, HCM_LISTENER).unwrap();
    assert_eq!(canonicalize(LISTENER, &listener), listener);
    assert_eq!(canonicalize(LISTENER, &[0x0b]), [0x0b]);
}
