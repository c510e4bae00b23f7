use super::*;
use clap::Parser;

fn load_text(text: &str) -> Result<Bootstrap, BootstrapError> {
    let options = Options::parse_from(["outrider-sidecar", "-c", "b.yaml", "--service-node", "me"]);
    parse(Path::new("b.yaml"), text, &options)
}

#[test]
fn a_bootstrap_is_taken_apart() {
    let bootstrap = load_text(
        "
node: {id: file, cluster: c}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 15000}}}
static_resources:
  clusters:
  - {name: a, connect_timeout: 1s}
  - {name: b}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds}}]
  cds_config: {ads: {}, resource_api_version: V3}
",
    )
    .unwrap();
    assert_eq!(
        (&bootstrap.node.id[..], &bootstrap.node.cluster[..]),
        ("me", "c")
    );
    assert_eq!(bootstrap.admin, Some("127.0.0.1:15000".parse().unwrap()));
    let names: Vec<_> = bootstrap
        .clusters
        .iter()
        .map(|cluster| &*cluster.name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert!(
        bootstrap
            .ads
            .is_some_and(|ads| ads.delta && &*ads.cluster == "xds")
    );
    assert_eq!((bootstrap.cds, bootstrap.lds), (Some(Origin::Ads), None));
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 1}}}",
            "admin.address: 0.0.0.0:1 is not on loopback",
        ),
        (
            "static_resources: {clusters: [{nam: x}]}",
            "static_resources.clusters[0].nam",
        ),
        (
            "static_resources: {clusters: [{name: [x]}]}",
            "static_resources.clusters[0].name",
        ),
        (
            "static_resources: {clusters: [{name: x}, {name: x}]}",
            "static_resources.clusters[1].name: static_resources.clusters[0] has the name `x` too",
        ),
        (
            "dynamic_resources: {cds_config: {ads: {}}}",
            "dynamic_resources.cds_config: is `ads`, but there is no ads_config",
        ),
        ("node: {id: x\n", "b.yaml"),
    ];
    for (text, expected) in cases {
        let error = load_text(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
