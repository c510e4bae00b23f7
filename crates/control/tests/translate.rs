//! What a mesh becomes for one proxy: small meshes with what matters of the result.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use std::collections::BTreeSet;

use common::{cart, decode, mesh, proxy};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use outrider_control::translate::{Translation, translate};
use prost::Message;

fn listener(resources: &Translation, name: &str) -> Listener {
    decode(
        resources
            .listeners
            .get(name)
            .unwrap_or_else(|| panic!("no listener {name}")),
    )
}

fn names<T>(map: &std::collections::BTreeMap<String, T>) -> Vec<&str> {
    map.keys().map(String::as_str).collect()
}

/// `name: what it matches -> filter`, with the server names cut to their host.
fn describe(chain: &FilterChain) -> String {
    let matches = chain.filter_chain_match.clone().unwrap_or_default();
    let mut text = format!("{}:", chain.name);
    if let Some(port) = matches.destination_port {
        text += &format!(" port={}", port.value);
    }
    for name in &matches.server_names {
        text += &format!(" sni={name}");
    }
    if !matches.transport_protocol.is_empty() {
        text += &format!(" {}", matches.transport_protocol);
    }
    if !matches.application_protocols.is_empty() {
        text += &format!(" alpn={}", matches.application_protocols.join(","));
    }
    let filter = if chain.filters[0].name.ends_with("tcp_proxy") {
        "tcp"
    } else {
        "http"
    };
    let tls = if chain.transport_socket.is_some() {
        "tls+"
    } else {
        ""
    };
    format!("{text} -> {tls}{filter}")
}

#[test]
fn a_service_has_a_listener_per_address_and_a_cluster_with_its_identities() {
    let mesh = mesh(
        "
service web: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00:96::1'], selector: {app: web},
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90}, {name: odd, port: 91}]}
workload web-1 {app: web}: {addresses: [10.0.0.1, 'fd00::1'], serviceAccount: web, weight: 3}
workload web-2 {app: web}: {addresses: [10.0.0.2], serviceAccount: web-next}
workload web-3 {app: web}: {addresses: [10.0.0.3]}
",
    );
    let resources = translate(&mesh, &cart(&["10.0.0.9"]));
    assert_eq!(
        names(&resources.listeners),
        [
            "10.96.0.1_80",
            "10.96.0.1_90",
            "10.96.0.1_91",
            "fd00:96::1_80",
            "fd00:96::1_90",
            "fd00:96::1_91",
            "virtualInbound",
            "virtualOutbound",
        ]
    );
    let host = "web.shop.svc.cluster.local";
    assert_eq!(
        names(&resources.routes),
        [format!("{host}:80"), format!("{host}:91")]
    );
    let chains = |port| {
        let listener = listener(&resources, &format!("10.96.0.1_{port}"));
        assert!(!listener.bind_to_port.unwrap().value);
        let chains = listener
            .filter_chains
            .iter()
            .chain(&listener.default_filter_chain);
        chains.map(describe).collect::<Vec<_>>()
    };
    assert_eq!(chains(80), ["http: -> http"]);
    assert_eq!(chains(90), ["tcp: -> tcp"]);
    let detected = "http: raw_buffer alpn=http/1.0,http/1.1,h2c -> http";
    assert_eq!(chains(91), [detected, "tcp: -> tcp"]);

    let cluster: Cluster = decode(&resources.clusters[&format!("outbound|80||{host}")]);
    let tls = cluster.transport_socket.unwrap().config_type.unwrap();
    let envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType::TypedConfig(tls) =
        tls;
    let tls = UpstreamTlsContext::decode(tls.value.as_ref()).unwrap();
    assert_eq!(tls.sni, format!("outbound_.80_._.{host}"));
    rustls_pki_types::ServerName::try_from(tls.sni.clone()).unwrap();
    let shown = format!("{tls:?}");
    for account in ["web", "web-next"] {
        let id = format!("Exact(\"spiffe://cluster.local/ns/shop/sa/{account}\")");
        assert!(shown.contains(&id), "{id} in {shown}");
    }
    assert_eq!(cluster.transport_socket_matches.len(), 1);

    // One address of each workload, of the family that this proxy can dial; the one without a
    // sidecar says that it speaks plaintext.
    let endpoints = |proxy| {
        let resources = translate(&mesh, &proxy);
        let all: ClusterLoadAssignment =
            decode(&resources.endpoints[&format!("outbound|80||{host}")]);
        let text = format!("{all:?}");
        let plain = text.matches("\"disabled\"").count();
        let count = all
            .endpoints
            .iter()
            .map(|group| group.lb_endpoints.len())
            .sum::<usize>();
        (count, plain, text.contains("fd00::1"))
    };
    assert_eq!(endpoints(cart(&["10.0.0.9"])), (3, 1, false));
    assert_eq!(endpoints(cart(&["fd00::9"])), (1, 0, true));
    assert_eq!(endpoints(cart(&["10.0.0.9", "fd00::9"])), (3, 1, false));
}

#[test]
fn nobody_may_answer_for_a_service_without_identities() {
    let mesh = mesh(
        "
service web: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}
",
    );
    let resources = translate(&mesh, &cart(&["10.0.0.9"]));
    let cluster = &resources.clusters["outbound|80||web.shop.svc.cluster.local"];
    let bytes = String::from_utf8_lossy(&cluster.body.value).into_owned();
    let id = "spiffe://cluster.local/ns/shop/sa/";
    let (_, rest) = bytes.split_once(id).unwrap();
    assert!(
        !rest.starts_with(char::is_alphanumeric),
        "the account has no name"
    );
}

#[test]
fn a_headless_service_is_reached_at_its_workloads_each_in_its_own_way() {
    let mesh = mesh(
        "
service db: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 81}]}
workload db-1 {app: db}: {addresses: [10.0.0.1], serviceAccount: db}
workload db-2 {app: db}: {addresses: [10.0.0.2]}
",
    );
    let resources = translate(&mesh, &cart(&["10.0.0.9"]));
    let host = "db.shop.svc.cluster.local";
    for (address, table, kind) in [
        ("10.0.0.1_81", format!("{host}:81"), "direct"),
        (
            "10.0.0.2_81",
            format!("{host}:81|plaintext"),
            "direct-plaintext",
        ),
    ] {
        let listener = listener(&resources, address);
        let filter = listener.filter_chains[0].filters[0]
            .config_type
            .clone()
            .unwrap();
        let envoy_types::pb::envoy::config::listener::v3::filter::ConfigType::TypedConfig(filter) =
            filter
        else {
            panic!()
        };
        let manager = HttpConnectionManager::decode(filter.value.as_ref()).unwrap();
        let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier else {
            panic!()
        };
        assert_eq!(rds.route_config_name, table);
        let routes: RouteConfiguration = decode(&resources.routes[&table]);
        let cluster = format!("outbound|81|{kind}|{host}");
        assert!(format!("{routes:?}").contains(&cluster));
        let cluster: Cluster = decode(&resources.clusters[&cluster]);
        assert_eq!(cluster.transport_socket.is_some(), kind == "direct");
    }
}

#[test]
fn inbound_chains_by_mode_and_protocol() {
    let sni = "sni=outbound_.80_._.cart.shop.svc.cluster.local";
    let http_alpn = "alpn=h2,http/1.1";
    let detected = "alpn=http/1.0,http/1.1,h2c";
    let mtls_http = |sni: &str| format!("8080|mtls-http: port=8080{sni} tls -> tls+http");
    let mtls_tcp = |sni: &str| format!("8080|mtls-tcp: port=8080{sni} tls -> tls+tcp");
    let mtls_alpn =
        |sni: &str| format!("8080|mtls-http: port=8080{sni} tls {http_alpn} -> tls+http");
    let http = "8080|http: port=8080 raw_buffer -> http".to_owned();
    let raw_tcp = "8080|tcp: port=8080 raw_buffer -> tcp".to_owned();
    let http_detected = format!("8080|http: port=8080 raw_buffer {detected} -> http");
    let own_tls = "8080|tls: port=8080 tls -> tcp".to_owned();
    let tcp = "8080|tcp: port=8080 -> tcp".to_owned();
    let sni = format!(" {sni}");
    for (mode, port, expected) in [
        ("STRICT", "http", vec![mtls_http("")]),
        ("STRICT", "tcp", vec![mtls_tcp("")]),
        ("STRICT", "odd", vec![mtls_alpn(""), mtls_tcp("")]),
        (
            "PERMISSIVE",
            "http",
            vec![mtls_http(&sni), http.clone(), own_tls.clone()],
        ),
        ("PERMISSIVE", "tcp", vec![mtls_tcp(&sni), tcp.clone()]),
        (
            "PERMISSIVE",
            "odd",
            vec![
                mtls_alpn(&sni),
                mtls_tcp(&sni),
                http_detected.clone(),
                raw_tcp.clone(),
                own_tls.clone(),
            ],
        ),
        ("DISABLED", "http", vec![http, own_tls.clone()]),
        ("DISABLED", "tcp", vec![tcp]),
        ("DISABLED", "odd", vec![http_detected, raw_tcp, own_tls]),
    ] {
        let mesh = mesh(&format!(
            "
service cart: {{clusterIP: 10.96.0.1, selector: {{app: cart}},
  ports: [{{name: {port}, port: 80, targetPort: 8080}}]}}
workload cart-1 {{app: cart}}: {{addresses: [10.0.0.9], serviceAccount: cart}}
policy all: {{mtls: {{mode: {mode}}}}}
"
        ));
        let resources = translate(&mesh, &cart(&["10.0.0.9"]));
        let listener = listener(&resources, "virtualInbound");
        let chains: Vec<String> = listener.filter_chains.iter().map(describe).collect();
        assert_eq!(
            chains[..2],
            [
                "blackhole|15001: port=15001 -> tcp",
                "blackhole|15006: port=15006 -> tcp"
            ]
        );
        assert_eq!(chains[2..chains.len() - 1], expected, "{mode} {port}");
        let last = match mode {
            "STRICT" => "passthrough|mtls: tls -> tls+tcp",
            _ => "passthrough: -> tcp",
        };
        assert_eq!(chains[chains.len() - 1], last, "{mode} {port}");
        let waits = listener.listener_filters[1].filter_disabled.is_none();
        assert_eq!(waits, (mode, port) != ("DISABLED", "tcp"), "{mode} {port}");
        assert!(resources.clusters.contains_key("inbound|8080||"));
        let endpoints: ClusterLoadAssignment = decode(resources.endpoints.values().next().unwrap());
        assert_eq!(
            format!("{endpoints:?}").contains("tlsMode"),
            mode == "DISABLED"
        );
    }
}

#[test]
fn an_address_of_another_account_s_workload_gives_nothing() {
    let mesh = mesh(
        "
service web: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
workload web-1 {app: web}: {addresses: [10.0.0.1], serviceAccount: web}
",
    );
    let inbound = |account| {
        let resources = translate(&mesh, &proxy("shop", account, &["10.0.0.1"]));
        resources.clusters.contains_key("inbound|80||")
    };
    assert!(inbound("web"));
    assert!(!inbound("cart"));
}

#[test]
fn virtual_listeners_are_a_pair_where_the_workload_has_both_families() {
    let mesh = mesh(
        "
service cart: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{name: http, port: 80}]}
workload cart-1 {app: cart}: {addresses: [10.0.0.9, 'fd00::9'], serviceAccount: cart}
",
    );
    for (addresses, pair, source) in [
        (&["10.0.0.9"][..], true, "127.0.0.6"),
        (&["10.0.0.8"], false, "127.0.0.6"),
        (&["fd00::8"], false, "\"::6\""),
    ] {
        let resources = translate(&mesh, &cart(addresses));
        for name in ["virtualInbound", "virtualOutbound"] {
            let listener = listener(&resources, name);
            assert_eq!(
                listener.additional_addresses.len(),
                usize::from(pair),
                "{addresses:?}"
            );
        }
        let cluster: Cluster = decode(&resources.clusters["InboundPassthroughCluster"]);
        let bind = cluster.upstream_bind_config.unwrap();
        assert!(format!("{:?}", bind.source_address).contains(source));
        assert_eq!(bind.extra_source_addresses.len(), usize::from(pair));
    }
}

#[test]
fn a_change_changes_only_what_it_touches() {
    let text = "
service web: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
service v2: {clusterIP: 10.96.0.2, selector: {app: v2}, ports: [{name: http, port: 80}]}
workload web-1 {app: web}: {addresses: [10.0.0.1], serviceAccount: web}
";
    let proxy = cart(&["10.0.0.9"]);
    let before = translate(&mesh(text), &proxy);
    assert_eq!(
        before,
        translate(&mesh(text), &proxy),
        "the same mesh gives the same bytes"
    );
    let more = "workload web-2 {app: web}: {addresses: [10.0.0.2], serviceAccount: web}\n";
    let after = translate(&mesh(&format!("{text}{more}")), &proxy);
    assert_eq!(before.listeners, after.listeners);
    assert_eq!(before.clusters, after.clusters);
    assert_eq!(before.routes, after.routes);
    let changed: BTreeSet<_> = after
        .endpoints
        .iter()
        .filter(|(name, resource)| before.endpoints.get(*name) != Some(resource))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        changed,
        BTreeSet::from(["outbound|80||web.shop.svc.cluster.local"])
    );
}
