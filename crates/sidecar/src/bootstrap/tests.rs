use super::*;
use crate::config::source::Origin;
use clap::Parser;

/// Loads a file with this text, with more arguments; else what is wrong, each problem a line.
fn load_with(text: &str, arguments: &[&str]) -> Result<Bootstrap, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.yaml");
    std::fs::write(&path, text).unwrap();
    let mut all = vec!["outrider-sidecar", "-c", path.to_str().unwrap()];
    all.extend(["--service-node", "me"]);
    all.extend(arguments);
    let mut problems = Problems::default();
    let loaded = load(&Options::parse_from(all), |_| None, &mut problems);
    let loaded = loaded.map_err(|error| error.to_string())?;
    problems.into_error().map_err(|error| error.to_string())?;
    Ok(loaded)
}

fn load_text(text: &str) -> Result<Bootstrap, String> {
    load_with(text, &[])
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
    let address = bootstrap.admin.address.map(|address| address.to_string());
    assert_eq!(address.as_deref(), Some("127.0.0.1:15000"));
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
    let origin = |source: Option<ResourceSource>| source.map(|source| source.origin);
    let origins = (origin(bootstrap.cds), origin(bootstrap.lds));
    assert_eq!(origins, (Some(Origin::Ads), None));
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
        let error = load_text(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = load_text(
        "
admin: {address: {socket_address: {address: 10.0.0.1, port_value: 1}}}
hds_config: {}
node: {idd: x}
layered_runtime: {layers: [{name: a, admin_layer: {}}, {name: a, static_layer: {}}]}
application_log_config: {log_format: {text_format: '%Q'}}
static_resources: {clusters: [{nam: x}, {name: y, connect_timeout: soon}]}
dynamic_resources: {lds_config: {ads: {}}}
",
    )
    .unwrap_err();
    for path in [
        "admin.address: ",
        "hds_config: ",
        "node.idd: ",
        "layered_runtime.layers[1].name: ",
        "application_log_config.log_format.text_format: ",
        "static_resources.clusters[0].nam: ",
        "static_resources.clusters[1].connect_timeout: ",
        "dynamic_resources.lds_config: ",
    ] {
        assert_eq!(error.matches(path).count(), 1, "{path}: {error}");
    }
}

#[test]
fn the_command_line_is_merged_over_the_file() {
    let file = "
node: {id: a, cluster: c, metadata: {x: 1}}
static_resources: {clusters: [{name: one}]}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}
";
    let yaml = "
node: {cluster: d}
static_resources: {clusters: [{name: two}]}
admin: {address: {socket_address: {port_value: 2}}}
";
    let bootstrap = load_with(file, &["--config-yaml", yaml, "--service-zone", "z"]).unwrap();
    let names: Vec<_> = bootstrap.clusters.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["one", "two"]);
    let node = &bootstrap.node;
    assert_eq!((&*node.id, &*node.cluster), ("me", "d"));
    assert_eq!(node.locality.as_ref().unwrap().zone, "z");
    assert!(node.metadata.as_ref().unwrap().fields.contains_key("x"));
    let address = bootstrap.admin.address.unwrap().to_string();
    assert_eq!(address, "127.0.0.1:2");
}

#[test]
fn what_is_not_there_is_let_through_where_the_command_line_says_so() {
    let unknown = "static_resources: {clusters: [{name: x, nam: y}]}";
    assert!(load_text(unknown).is_err());
    load_with(unknown, &["--allow-unknown-static-fields"]).unwrap();
    let remote = "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 0}}}";
    assert!(load_with(remote, &["--allow-remote-admin"]).is_ok());
}

#[test]
fn json_must_not_have_a_key_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.json");
    std::fs::write(&path, r#"{"node": {"id": "a", "id": "b"}}"#).unwrap();
    let options = Options::parse_from(["outrider-sidecar", "-c", path.to_str().unwrap()]);
    let error = load(&options, |_| None, &mut Problems::default()).unwrap_err();
    assert!(
        error.to_string().contains("the key id is given twice"),
        "{error}"
    );
}
