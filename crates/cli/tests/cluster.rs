//! Against an API server that knows a few answers.

#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use common::api::{Api, list};
use common::outrider;
use serde_json::{Value, json};

/// What a cluster without the mesh says.
fn fit() -> std::collections::BTreeMap<&'static str, Value> {
    let node = json!({"operatingSystem": "linux", "kernelVersion": "6.1.0", "osImage": "Debian 12",
        "architecture": "arm64", "bootID": "", "machineID": "", "systemUUID": "",
        "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": ""});
    let crd = json!({
        "metadata": {"annotations": {"gateway.networking.k8s.io/bundle-version": "v1.4.0",
            "gateway.networking.k8s.io/channel": "standard"}},
        "spec": {"group": "g", "scope": "Namespaced", "names": {"kind": "k", "plural": "p"},
            "versions": [{"name": "v1", "served": true, "storage": true}]}});
    [
        (
            "GET /version",
            json!({"major": "1", "minor": "34", "gitVersion": "v1.34.4", "gitCommit": "",
                "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "",
                "platform": ""}),
        ),
        (
            "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            json!({"spec": {}, "status": {"allowed": true}}),
        ),
        (
            "GET /api/v1/nodes",
            list(
                "Node",
                json!([{"metadata": {"name": "n"}, "status": {"nodeInfo": node}}]),
            ),
        ),
        (
            "GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions/\
             httproutes.gateway.networking.k8s.io",
            crd,
        ),
        (
            "GET /api/v1/namespaces",
            list("Namespace", json!([{"metadata": {"name": "default"}}])),
        ),
        (
            "GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            list("MutatingWebhookConfiguration", json!([])),
        ),
    ]
    .into()
}

fn findings(out: &str) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(out).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings
        .map(|finding| (text(&finding["check"]), text(&finding["outcome"])))
        .collect()
}

#[test]
fn a_fit_cluster_passes() {
    let api = Api::start(fit());
    let run = outrider(&["check", "--kubeconfig", &api.file()], "");
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.out.ends_with("\nThe cluster is fit for the mesh.\n"),
        "{}",
        run.out
    );
    assert!(!run.out.contains("What to do"), "{}", run.out);
    let asked = api.requests();
    let reviews = asked
        .iter()
        .filter(|request| request.starts_with("POST "))
        .count();
    assert_eq!(reviews, 14, "{asked:?}");
}

#[test]
fn each_thing_that_is_wrong_is_told_with_what_to_do() {
    let mut answers = fit();
    answers.insert(
        "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        json!({"spec": {}, "status": {"allowed": false}}),
    );
    answers.remove(
        "GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions/\
         httproutes.gateway.networking.k8s.io",
    );
    let labels = json!({"istio-injection": "enabled"});
    answers.insert(
        "GET /api/v1/namespaces",
        list(
            "Namespace",
            json!([{"metadata": {"name": "shop", "labels": labels}}]),
        ),
    );
    answers.insert(
        "GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        list(
            "MutatingWebhookConfiguration",
            json!([{"metadata": {"name": "outrider-injector"}}]),
        ),
    );
    let api = Api::start(answers);
    let file = api.file();
    let run = outrider(&["check", "--kubeconfig", &file, "-o", "json"], "");
    assert_eq!(run.code, 1);
    let found = findings(&run.out);
    let found: Vec<(&str, &str)> = found
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("API server", "pass"),
            ("clock", "pass"),
            ("permissions", "failure"),
            ("nodes", "pass"),
            ("Gateway API", "warning"),
            ("other meshes", "warning"),
            ("pod security", "pass"),
            ("other webhooks", "warning"),
        ]
    );
    let run = outrider(&["check", "--kubeconfig", &file], "");
    assert!(
        run.out
            .contains("you may not create namespaces, customresource"),
        "{}",
        run.out
    );
    assert!(
        run.out.contains("kubectl apply --server-side -f https://"),
        "{}",
        run.out
    );
    assert!(
        run.out
            .ends_with("\n1 check failed. There are 3 warnings.\n"),
        "{}",
        run.out
    );
}

#[test]
fn an_absent_installation_is_told_part_by_part() {
    let api = Api::start(fit());
    let file = api.file();
    let arguments = ["check", "--installed", "-n", "mesh", "--revision", "canary"];
    let run = outrider(&[&arguments[..], &["--kubeconfig", &file]].concat(), "");
    assert_eq!(run.code, 1);
    for expected in [
        "there is no Deployment mesh/outrider-control-canary",
        "there is no Deployment mesh/outrider-injector-canary",
        "there is no MutatingWebhookConfiguration outrider-injector-canary",
        "Secret mesh/outrider-ca has no certificate and key",
    ] {
        assert!(run.out.contains(expected), "{expected}\n{}", run.out);
    }
    let dry = "POST /api/v1/namespaces/default/pods?&dryRun=All";
    assert!(
        api.requests().iter().any(|request| request == dry),
        "{:?}",
        api.requests()
    );
    for verb in ["status", "version"] {
        let run = outrider(&[verb, "--kubeconfig", &file], "");
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.error.contains("listing deployments: "), "{}", run.error);
    }
}

#[test]
fn a_cluster_that_cannot_be_reached_is_told() {
    let run = outrider(&["status"], "");
    assert_eq!(run.code, 1);
    assert!(
        run.error.contains("give --kubeconfig FILE"),
        "{}",
        run.error
    );
    let run = outrider(&["check", "--kubeconfig", "/gone"], "");
    assert!(run.error.contains("outrider: /gone: "), "{}", run.error);
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{"name": "t", "cluster": {"server": format!("http://{port}")}}],
        "users": [{"name": "t", "user": {}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let run = outrider(&["check", "--kubeconfig", path.to_str().unwrap()], "");
    assert_eq!(run.code, 1);
    assert!(run.out.contains("does not answer: "), "{}", run.out);
    assert!(run.out.contains("Connection refused"), "{}", run.out);
}
