//! One large mesh, which a real Envoy and the sidecar's own tables must accept whole.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use common::{ROUTED, add, cart, decode, settings};
use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{ConfigSource, Node};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrider_control::translate::{Translation, translate};
use prost::Message;

/// Something of everything, seen by a workload that has it all inbound too.
fn rich() -> Translation {
    let mut text = "
service cart: {clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9, 'fd00:96::9'], selector: {app: cart},
  ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 81}, {name: tcp, port: 82},
    {name: odd, port: 83}, {name: tcp-open, port: 84}]}
service pods: {clusterIP: None, selector: {app: cart}, ports: [{name: http, port: 8080}]}
workload cart-1 {app: cart}: {addresses: [10.0.0.9, 'fd00::9'], serviceAccount: cart,
  locality: r/z/s}
workload plain {app: cart}: {addresses: [10.0.0.8]}
policy ports: {selector: {matchLabels: {app: cart}}, mtls: {mode: STRICT},
  portLevelMtls: {84: {mode: DISABLED}, 83: {mode: PERMISSIVE}, 9999: {mode: STRICT}}}
"
    .to_owned();
    text += ROUTED;
    text += "
route r: {parentRefs: [{group: '', kind: Service, name: web}], rules: [
  {backendRefs: [{name: v1, port: 80, weight: 90}, {name: v2, port: 80, weight: 10, filters: [
    {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-v, value: '2'}]}}]}]},
  {matches: [{path: {value: /old}}], filters: [{type: URLRewrite, urlRewrite: {hostname: h.example,
    path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}], backendRefs: [{name: v1, port: 80}]},
  {matches: [{path: {value: /full}}], filters: [{type: URLRewrite, urlRewrite: {
    path: {type: ReplaceFullPath, replaceFullPath: /x}}}], backendRefs: [{name: v1, port: 80}],
    timeouts: {request: 1s}},
  {matches: [{path: {value: /away}}], filters: [{type: RequestRedirect, requestRedirect: {
    scheme: https, port: 8443, path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]},
  {matches: [{path: {type: RegularExpression, value: '/r.*'}, method: GET,
    headers: [{name: a, type: RegularExpression, value: b+}], queryParams: [{name: q, value: v}]}],
    backendRefs: [{name: nowhere, port: 80}]},
  {matches: [{path: {value: /copied}}], filters: [
    {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80}, percent: 10}},
    {type: RequestMirror, requestMirror: {backendRef: {name: v1, port: 80}}}],
    backendRefs: [{name: v1, port: 80, filters: [{type: URLRewrite, urlRewrite: {hostname: s.example}}]}]}]}
grpc-route g: {parentRefs: [{group: '', kind: Service, name: cart, port: 81}], rules: [
  {matches: [{method: {service: a.B, method: C}}, {method: {method: D}, headers: [{name: x, value: y}]}],
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 80},
      fraction: {numerator: 1, denominator: 3}}}],
    backendRefs: [{name: cart, port: 81, weight: 1}, {name: v1, port: 80, weight: 2}]}]}
tls-route t: {parentRefs: [{group: '', kind: Service, name: cart, port: 82}],
  hostnames: [a.example, '*.b.example'], rules: [{backendRefs: [{name: cart, port: 82}]}]}
tcp-route b: {parentRefs: [{group: '', kind: Service, name: cart, port: 83}],
  rules: [{backendRefs: [{name: cart, port: 83, weight: 3}, {name: cart, port: 82, weight: 1}]}]}
";
    let mut settings = settings();
    settings.access_log = true;
    let mesh = add(&text, settings);
    assert_eq!(mesh.warnings.len(), 1, "{:?}", mesh.warnings);
    translate(&mesh, &cart(&["10.0.0.9"]))
}

#[test]
fn the_sidecar_acts_on_every_field_that_is_set() {
    let resources = rich();
    let all = [
        &resources.clusters,
        &resources.endpoints,
        &resources.listeners,
        &resources.routes,
    ];
    let mut checked = 0;
    for (name, resource) in all.into_iter().flatten() {
        let (_, kind) = resource.body.type_url.rsplit_once('/').unwrap();
        let report = outrider_xds::transcode::inspect(kind, &resource.body.value);
        assert!(
            report.violations.is_empty(),
            "{name}: {:?}",
            report.violations
        );
        assert!(report.opaque.is_empty(), "{name}: {:?}", report.opaque);
        // The weight of a locality is for proxies that are told to weigh localities.
        let mut ignored = report.ignored;
        ignored.retain(|field| field.path != "endpoints[0].load_balancing_weight");
        assert!(ignored.is_empty(), "{name}: {ignored:?}");
        checked += 1;
    }
    assert!(checked > 30);
}

/// A bootstrap that holds every resource.
fn bootstrap() -> Bootstrap {
    let resources = rich();
    let mut clusters: Vec<Cluster> = resources.clusters.values().map(decode).collect();
    // What the proxy's own bootstrap defines.
    for name in ["sds-grpc", "xds"] {
        clusters.push(Cluster {
            name: name.to_owned(),
            ..Cluster::default()
        });
    }
    let mut listeners: Vec<Listener> = resources.listeners.values().map(decode).collect();
    // A bootstrap holds no route tables and no endpoints by themselves: put them where they are
    // checked in the same way.
    let routes: Vec<RouteConfiguration> = resources.routes.values().map(decode).collect();
    let count = routes.len();
    for (index, table) in routes.into_iter().enumerate() {
        let mut listener = listeners[0].clone();
        let port = 20_000 + u16::try_from(index).unwrap();
        listener.name = format!("table {index}");
        listener.address = Some(common::address(port));
        let filter = &mut listener.filter_chains[0].filters[0];
        common::edit_manager(filter, |manager| {
            manager.route_specifier = Some(RouteSpecifier::RouteConfig(table));
        });
        listeners.push(listener);
    }
    for (index, assignment) in resources.endpoints.values().enumerate() {
        let name = format!("assignment {index}");
        let load_assignment: ClusterLoadAssignment = decode(assignment);
        let load_assignment = ClusterLoadAssignment {
            cluster_name: name.clone(),
            ..load_assignment
        };
        clusters.push(Cluster {
            name,
            load_assignment: Some(load_assignment),
            ..Cluster::default()
        });
    }
    assert!(count > 5 && listeners.len() > 20);
    let ads = common::ads_over("xds");
    Bootstrap {
        node: Some(Node {
            id: "n".to_owned(),
            cluster: "c".to_owned(),
            ..Node::default()
        }),
        static_resources: Some(StaticResources {
            listeners,
            clusters,
            ..StaticResources::default()
        }),
        dynamic_resources: Some(DynamicResources {
            ads_config: Some(ads),
            cds_config: None::<ConfigSource>,
            ..DynamicResources::default()
        }),
        ..Bootstrap::default()
    }
}

#[test]
fn a_real_envoy_accepts_every_resource() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap.pb");
    std::fs::write(&path, bootstrap().encode_to_vec()).unwrap();
    let output = std::process::Command::new(outrider_testkit::envoy::binary().unwrap())
        .args([
            "--mode",
            "validate",
            "--log-level",
            "error",
            "--config-path",
        ])
        .arg(&path)
        .output()
        .unwrap();
    let (out, errors) = (&output.stdout, &output.stderr);
    let text = [out, errors]
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .concat();
    assert!(output.status.success(), "{text}");
}

#[test]
fn the_sidecar_builds_every_resource() {
    let bytes = bootstrap().encode_to_vec();
    let kind = "envoy.config.bootstrap.v3.Bootstrap";
    let json = outrider_xds::transcode::proto_to_json(kind, &bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap.json");
    std::fs::write(&path, json.to_string()).unwrap();
    let program = outrider_testkit::bins::path("outrider-sidecar").unwrap();
    let output = std::process::Command::new(program)
        .args(["--mode", "validate", "--config-path"])
        .arg(&path)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}
