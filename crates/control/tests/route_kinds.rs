//! What GRPCRoutes, TLSRoutes and TCPRoutes become, and what routes of one port make together.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use common::{ROUTED, cart, cluster_mesh, decode, documents, lenient_mesh};
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use outrider_control::mesh::MeshState;
use outrider_control::translate::translate;
use outrider_xds::ads::ResourceType;
use prost::Message as _;

const PARENT: &str = "parentRefs: [{group: '', kind: Service, name: web}]";

fn routes(mesh: &MeshState) -> Vec<Route> {
    let resources = translate(mesh, &cart(&["10.0.0.9"]));
    let table: RouteConfiguration = decode(&resources.routes["web.shop.svc.cluster.local:80"]);
    table.virtual_hosts[0].routes.clone()
}

fn listener(mesh: &MeshState, name: &str) -> Listener {
    decode(&translate(mesh, &cart(&["10.0.0.9"])).listeners[name])
}

/// The clusters of a chain's tcp_proxy with their weights.
fn clusters(listener: &Listener, chain: usize) -> Vec<(String, u32)> {
    let filter = listener.filter_chains[chain].filters[0].config_type.clone();
    let Some(filter::ConfigType::TypedConfig(any)) = filter else {
        panic!()
    };
    let proxy = TcpProxy::decode(any.value.as_ref()).unwrap();
    match proxy.cluster_specifier.unwrap() {
        ClusterSpecifier::Cluster(name) => vec![(name, 1)],
        ClusterSpecifier::WeightedClusters(several) => several
            .clusters
            .into_iter()
            .map(|part| (part.name, part.weight))
            .collect(),
    }
}

#[test]
fn calls_go_by_service_and_method() {
    let mesh = lenient_mesh(&format!(
        "{ROUTED}grpc-route g: {{{PARENT}, rules: [
  {{name: rest, backendRefs: [{{name: v1, port: 80, weight: 70}}, {{name: v2, port: 80, weight: 30}},
    {{name: gone, port: 80, weight: 0}}]}},
  {{matches: [{{method: {{service: a.B}}}}, {{method: {{service: a.B, method: C}}, headers: [{{name: X, value: y}}]}},
    {{method: {{service: a.B, method: C}}}}], backendRefs: [{{name: v2, port: 80}}]}},
  {{matches: [{{method: {{service: c.D}}}}], backendRefs: [{{name: gone, port: 80}}]}}]}}\n"
    ));
    let routes = routes(&mesh);
    let seen: Vec<String> = routes
        .iter()
        .map(|route| {
            let matches = route.r#match.as_ref().unwrap();
            assert!(matches.grpc.is_some(), "only gRPC");
            format!(
                "{} {:?}",
                route.name,
                matches.path_specifier.as_ref().unwrap()
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            "shop/g/1 Path(\"/a.B/C\")",
            "shop/g/1 Path(\"/a.B/C\")",
            "shop/g/1 Prefix(\"/a.B/\")",
            "shop/g/2 Prefix(\"/c.D/\")",
            "shop/g/rest Prefix(\"/\")",
        ]
    );
    assert_eq!(routes[0].r#match.as_ref().unwrap().headers.len(), 1);
    // UNAVAILABLE is what gRPC sees of 503.
    let Some(Action::DirectResponse(gone)) = &routes[3].action else {
        panic!()
    };
    assert_eq!(gone.status, 503);
    let Some(Action::Route(split)) = &routes[4].action else {
        panic!()
    };
    let text = format!("{split:?}");
    assert!(
        text.contains("value: 70") && text.contains("value: 30"),
        "{text}"
    );
    assert!(!text.contains("gone"), "a weight of 0 is no share: {text}");
}

#[test]
fn a_filter_that_cannot_be_applied_is_never_skipped() {
    let mesh = lenient_mesh(&format!(
        "{ROUTED}route r: {{{PARENT}, rules: [{{backendRefs: [{{name: v1, port: 80}}]}},
  {{matches: [{{path: {{value: /guarded}}}}], filters: [{{type: ExternalAuth, externalAuth: {{}}}}],
    backendRefs: [{{name: v1, port: 80}}]}},
  {{matches: [{{path: {{value: /dropped}}}}], retry: {{}}, backendRefs: [{{name: v1, port: 80}}]}}]}}\n"
    ));
    let routes = routes(&mesh);
    assert_eq!(routes.len(), 2, "{routes:?}");
    let Some(Action::DirectResponse(refusal)) = &routes[0].action else {
        panic!("{routes:?}")
    };
    assert_eq!(refusal.status, 500);
}

#[test]
fn mirrors_and_hosts_of_backends() {
    let mesh = lenient_mesh(&format!(
        "{ROUTED}route r: {{{PARENT}, rules: [{{filters: [
   {{type: RequestMirror, requestMirror: {{backendRef: {{name: v2, port: 80}}}}}},
   {{type: RequestMirror, requestMirror: {{backendRef: {{name: v1, port: 80}}, fraction: {{numerator: 1, denominator: 4}}}}}},
   {{type: RequestMirror, requestMirror: {{backendRef: {{name: gone, port: 80}}}}}},
   {{type: RequestMirror, requestMirror: {{backendRef: {{name: v1, port: 80}}, percent: 0}}}},
   {{type: URLRewrite, urlRewrite: {{hostname: rule.example}}}}],
  backendRefs: [{{name: v1, port: 80, filters: [{{type: URLRewrite, urlRewrite: {{hostname: backend.example}}}}]}},
    {{name: v2, port: 80}}]}}]}}\n"
    ));
    let Some(Action::Route(action)) = routes(&mesh)[0].action.clone() else {
        panic!()
    };
    let mirrors: Vec<_> = action
        .request_mirror_policies
        .iter()
        .map(|mirror| {
            assert!(mirror.disable_shadow_host_suffix_append);
            let fraction = mirror.runtime_fraction.clone();
            let parts = fraction.map(|fraction| fraction.default_value.unwrap().numerator);
            (mirror.cluster.as_str(), parts)
        })
        .collect();
    assert_eq!(
        mirrors,
        [
            ("outbound|80||v2.shop.svc.cluster.local", None),
            ("outbound|80||v1.shop.svc.cluster.local", Some(250_000)),
        ]
    );
    assert_eq!(
        action.host_rewrite_specifier, None,
        "the proxy would apply it last"
    );
    let text = format!("{:?}", action.cluster_specifier);
    for host in ["backend.example", "rule.example"] {
        assert!(
            text.contains(&format!("HostRewriteLiteral(\"{host}\")")),
            "{text}"
        );
    }
}

#[test]
fn connections_go_by_server_name_or_all_alike() {
    let services = "
service web: {clusterIP: 10.96.0.1, ports: [{name: tls, port: 443}, {name: http, port: 80}]}
service v1: {clusterIP: 10.96.0.2, ports: [{name: tls, port: 443}]}
";
    let v1 = "outbound|443||v1.shop.svc.cluster.local".to_owned();
    let tls = |hosts: &str, rest: &str| {
        format!("{{{PARENT}, hostnames: [{hosts}], rules: [{{backendRefs: [{rest}]}}]}}")
    };
    let mesh = lenient_mesh(&format!(
        "{services}
tls-route one: {}
tls-route two: {}
",
        tls("a.example, '*.b.example'", "{name: v1, port: 443}"),
        tls(
            "A.example, c.example",
            "{name: v1, port: 443, weight: 3}, {name: gone, port: 443, weight: 1}"
        ),
    ));
    let at = listener(&mesh, "10.96.0.1_443");
    let names: Vec<_> = at
        .filter_chains
        .iter()
        .map(|chain| chain.filter_chain_match.clone().unwrap().server_names)
        .collect();
    // The senior route has the name that both want.
    assert_eq!(names, [vec!["a.example", "*.b.example"], vec!["c.example"]]);
    assert_eq!(at.default_filter_chain, None, "other names lead nowhere");
    assert!(format!("{:?}", at.listener_filters).contains("tls_inspector"));
    assert_eq!(clusters(&at, 0), [(v1.clone(), 1)]);
    let shares = clusters(&at, 1);
    assert_eq!((shares[0].clone(), shares[1].1), ((v1.clone(), 3), 1));
    let known = translate(&mesh, &cart(&["10.0.0.9"])).clusters;
    assert!(!known.contains_key(&shares[1].0), "its share is refused");

    let mesh = lenient_mesh(&format!(
        "{services}tcp-route t: {{{PARENT}, rules: [{{backendRefs: [{{name: v1, port: 443}}]}}]}}\n"
    ));
    for port in [443, 80] {
        let at = listener(&mesh, &format!("10.96.0.1_{port}"));
        assert_eq!(at.filter_chains.len(), 1);
        assert_eq!(clusters(&at, 0), [(v1.clone(), 1)]);
    }
    let resources = translate(&mesh, &cart(&["10.0.0.9"]));
    assert!(resources.routes.is_empty(), "{:?}", resources.routes.keys());
}

#[test]
fn among_equals_the_older_route_and_the_earlier_rule_goes_first() {
    let rule = |backend: &str| {
        format!(
            "{{matches: [{{path: {{value: /a}}}}], backendRefs: [{{name: {backend}, port: 80}}]}}"
        )
    };
    let text = documents(&format!(
        "{ROUTED}route a: {{{PARENT}, rules: [{}, {}]}}\nroute b: {{{PARENT}, rules: [{}]}}\n",
        rule("v1"),
        rule("v2"),
        rule("v2")
    ));
    let names = |text: &str| -> Vec<String> {
        let routes = routes(&cluster_mesh(text));
        routes.into_iter().map(|route| route.name).collect()
    };
    assert_eq!(names(&text), ["shop/a/0", "shop/a/1", "shop/b/0"]);
    let origins = translate(&cluster_mesh(&text), &cart(&["10.0.0.9"])).origins;
    let table = (
        ResourceType::Route,
        "web.shop.svc.cluster.local:80".to_owned(),
    );
    let told = origins[&table].iter().map(ToString::to_string);
    let told: Vec<String> = told.collect();
    assert_eq!(told, ["HTTPRoute shop/a", "HTTPRoute shop/b"]);
    let aged = |text: &str, name: &str, time: &str| {
        let (head, aged) = (
            format!("metadata: {{name: {name},"),
            format!("metadata: {{name: {name}, creationTimestamp: '{time}',"),
        );
        text.replace(&head, &aged)
    };
    let text = aged(&text, "a", "2026-01-02T00:00:00Z");
    let text = aged(&text, "b", "2026-01-01T00:00:00Z");
    assert_eq!(names(&text), ["shop/b/0", "shop/a/0", "shop/a/1"]);
}
