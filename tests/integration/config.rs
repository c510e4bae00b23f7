//! What `outrider-sidecar --mode validate` says of bootstrap files.

use std::process::Command;

use outrider_testkit::bins;

/// Validates a file's text: the exit code, and what it wrote to standard error.
fn validate(text: &str, extension: &str) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bootstrap").with_extension(extension);
    std::fs::write(&file, text).unwrap();
    let output = Command::new(bins::path("outrider-sidecar").unwrap())
        .arg("-c")
        .arg(&file)
        .args(["--mode", "validate"])
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), message)
}

const TYPE: &str = "'@type': type.googleapis.com/envoy.extensions";

/// A bootstrap with one listener, whose connection manager has this `route_config`.
fn with_routes(route_config: &str) -> String {
    format!(
        "
static_resources:
  clusters:
  - {{name: app, load_assignment: {{cluster_name: app, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 9}}}}}}}}]}}]}}}}
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: 15006}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          {TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          http_filters: [{{name: router, typed_config: {{{TYPE}.filters.http.router.v3.Router}}}}]
          route_config: {route_config}
"
    )
}

const CHAIN: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";

#[test]
fn good_files_are_good_in_either_language() {
    let yaml = with_routes(
        "{virtual_hosts: [{name: a, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: app}}]}]}",
    );
    let json = r#"{"node": {"id": "a", "cluster": "b"},
        "admin": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 15000}}},
        "staticResources": {"clusters": [{"name": "c", "loadAssignment": {"clusterName": "c"}}]}}"#;
    for (text, extension) in [(yaml.as_str(), "yaml"), (json, "json")] {
        let (code, message) = validate(text, extension);
        assert_eq!(code, Some(0), "{text}\n{message}");
    }
}

#[test]
fn bad_files_end_with_1_and_the_path_of_the_field() {
    let routes = |hosts: &str| with_routes(&format!("{{virtual_hosts: [{hosts}]}}"));
    let matcher = |matcher: &str| {
        routes(&format!(
            "{{name: a, domains: ['*'], routes: [{{match: {matcher}, route: {{cluster: app}}}}]}}"
        ))
    };
    let cluster = |rest: &str| {
        format!(
            "static_resources: {{clusters: [{{name: c, load_assignment: {{cluster_name: c}}, {rest}}}]}}"
        )
    };
    for (text, expected) in [
        (
            "static_resources: {clusters: [{nam: c}]}".to_owned(),
            "static_resources.clusters[0].nam: no such field; did you mean name?".to_owned(),
        ),
        (
            cluster("connect_timeout: 5"),
            "static_resources.clusters[0].connect_timeout: expected a duration".into(),
        ),
        (
            cluster("lb_policy: FASTEST"),
            "static_resources.clusters[0].lb_policy: `FASTEST` is not a value".into(),
        ),
        (
            cluster("type: LOGICAL_DNS"),
            "static_resources.clusters[0].load_assignment: must have exactly one endpoint".into(),
        ),
        (
            cluster("lrs_report_endpoint_metrics: [x]"),
            "static_resources.clusters[0].lrs_report_endpoint_metrics: not supported".into(),
        ),
        (
            "header_prefix: x-other".into(),
            "header_prefix: not supported: the x-envoy- prefix is fixed".into(),
        ),
        (
            "admin: {address: {socket_address: {address: 0.0.0.0, port_value: 15000}}}".into(),
            "admin.address: 0.0.0.0:15000 is not on loopback".into(),
        ),
        (
            "dynamic_resources: {lds_config: {ads: {}}}".into(),
            "dynamic_resources.lds_config: is `ads`, but there is no ads_config".into(),
        ),
        (
            matcher("{safe_regex: {regex: '/(a'}}"),
            format!("{CHAIN}.route_config.virtual_hosts[0].routes[0].match.safe_regex.regex: not a regular expression"),
        ),
        (
            routes("{name: a, domains: [x]}, {name: b, domains: [y, x]}"),
            format!("{CHAIN}.route_config.virtual_hosts[1].domains[1]: `x` is a domain of virtual_hosts[0]"),
        ),
        (
            routes("{name: a, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: app}, tracing: {custom_tags: [{}]}, request_headers_to_add: [{header: {key: ':x'}}]}]}"),
            format!("{CHAIN}.route_config.virtual_hosts[0].routes[0].request_headers_to_add[0].header.key: pseudo-headers"),
        ),
        (
            matcher("{prefix: /}").replace("router.v3.Router", "fault.v3.HTTPFault"),
            "http_filters[0].typed_config: `type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault` is not a supported HTTP filter; supported: ".into(),
        ),
        (
            matcher("{prefix: /}").replace("stat_prefix: in", "stat_prefix: in\n          codec_type: HTTP3"),
            format!("{CHAIN}.codec_type: HTTP/3 is not supported"),
        ),
        ("a: [".into(), "line".into()),
    ] {
        let (code, message) = validate(&text, "yaml");
        assert_eq!(code, Some(1), "{text}\n{message}");
        assert!(message.contains(&expected), "{message}\nexpected {expected}");
        assert!(message.contains("bootstrap.yaml"), "{message}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let output = Command::new(bins::path("outrider-sidecar").unwrap())
        .args(["-c", "/nonexistent/bootstrap.yaml"])
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("/nonexistent/bootstrap.yaml: No such file"),
        "{message}"
    );
}

#[test]
fn no_message_shows_a_key() {
    let text = "static_resources: {secrets: [{name: s, tls_certificate: {certificate_chain: {inline_string: x}, \
                private_key: {inline_string: '-----BEGIN PRIVATE KEY-----SECRETSECRET'}}}]}";
    let (code, message) = validate(text, "yaml");
    assert_eq!(code, Some(1));
    assert!(
        message.contains(
            "static_resources.secrets[0].tls_certificate.certificate_chain: no CERTIFICATE"
        ),
        "{message}"
    );
    assert!(!message.contains("SECRETSECRET"), "{message}");
}

#[test]
fn without_a_file_the_environment_must_be_that_of_a_pod() {
    let run = |environment: &[(&str, &str)]| {
        let output = Command::new(bins::path("outrider-sidecar").unwrap())
            .env_clear()
            .envs(environment.iter().copied())
            .args(["--mode", "validate"])
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), message)
    };
    let (code, message) = run(&[("POD_NAME", "cart")]);
    assert_eq!(code, Some(1));
    assert!(message.contains("give a bootstrap file (-c FILE), or the environment of a pod"));
    assert!(
        message.contains("POD_IPS") && !message.contains("POD_NAME "),
        "{message}"
    );

    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    let pod = [
        ("POD_NAME", "cart"),
        ("POD_NAMESPACE", "shop"),
        ("POD_IPS", "10.0.0.1"),
        ("SERVICE_ACCOUNT", "cart"),
        ("OUTRIDER_CA_ADDRESS", "control.mesh.svc:15012"),
        ("OUTRIDER_TOKEN_FILE", "/token"),
        ("OUTRIDER_ROOT_FILE", root.to_str().unwrap()),
    ];
    let (code, message) = run(&pod);
    assert_eq!(code, Some(1));
    assert!(
        message.contains("(environment): static_resources.clusters[0]"),
        "{message}"
    );
    assert!(message.contains("root.pem"), "{message}");
    let authority = outrider_testkit::certs::Authority::new("root").unwrap();
    std::fs::write(&root, authority.certificate()).unwrap();
    assert_eq!(run(&pod).0, Some(0));
}
