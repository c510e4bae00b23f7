//! What is wrong is refused with its field named, and harms nothing else.

use std::process::Output;

use anyhow::ensure;
use outrider_testkit::certs::Authority;
use outrider_testkit::eventually;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Place, SYSTEM, cluster};
use crate::operations::chart;
use crate::routes::route;

/// The schema refuses what it can, by the field's path.
#[test]
fn a_bad_object_of_ours_is_refused_with_its_field() {
    let Some(place) = Place::plain("bad-input") else {
        return;
    };
    let cases = [
        (json!({"mtls": {"mode": "LOUD"}}), "spec.mtls.mode"),
        (json!({"mtls": {"mode": "STRICT"}, "mtsl": {}}), "mtsl"),
        (
            json!({"mtls": {"mode": "STRICT"}, "portLevelMtls": {"80": {"mode": "DISABLED"}}}),
            "portLevelMtls needs a selector",
        ),
        (json!({}), "mtls must be set"),
    ];
    for (spec, expected) in cases {
        let object = json!({
            "apiVersion": "outrider.dev/v1alpha1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "bad"},
            "spec": spec,
        });
        let error = place.apply(&[object]).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{spec}: {error:#}");
    }
}

/// What no schema can refuse is not accepted, and the status names the field.
#[test]
fn a_route_that_cannot_be_understood_is_not_accepted() {
    let Some(place) = Place::plain("bad-route") else {
        return;
    };
    place.run(&[crate::harness::server("shop")]).unwrap();
    let rules = json!([{
        "matches": [{"path": {"type": "RegularExpression", "value": "/a(b"}}],
        "backendRefs": [{"name": "shop", "port": 80}],
    }]);
    place.apply(&[route("bad", rules)]).unwrap();
    eventually(PATIENCE, || {
        let route = place.get("httproute/bad")?;
        let conditions = route["status"]["parents"][0]["conditions"]
            .as_array()
            .cloned();
        let accepted = conditions
            .into_iter()
            .flatten()
            .find(|one| one["type"] == "Accepted");
        let accepted = accepted.unwrap_or_default();
        let message = accepted["message"].as_str().unwrap_or_default();
        let named = message.contains("rules[0].matches[0].path");
        ensure!(
            accepted["status"] == "False" && named,
            "{}",
            route["status"]
        );
        Ok(())
    })
    .unwrap();
}

/// What the webhook cannot read is answered by 400, and it goes on.
#[test]
fn a_malformed_review_is_answered_by_400() {
    let Some(cluster) = cluster() else { return };
    let path = "jsonpath={.spec.clusterIP}";
    let arguments = [
        "get",
        "service",
        "outrider-injector",
        "-n",
        SYSTEM,
        "-o",
        path,
    ];
    let address = cluster.kubectl(&arguments).unwrap();
    let url = format!("https://{address}/inject");
    let bodies = [
        "",
        "{",
        "[]",
        r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
        r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":7}}"#,
        "\u{0}\u{1}\u{2}",
    ];
    for body in bodies {
        let output = cluster
            .command("curl")
            .args([
                "--silent",
                "--insecure",
                "--max-time",
                "10",
                "--output",
                "/dev/null",
            ])
            .args([
                "--write-out",
                "%{http_code}",
                "--header",
                "content-type: application/json",
            ])
            .args(["--data-binary", &body.replace('\0', "\\u0000"), &url])
            .output()
            .unwrap();
        let status = String::from_utf8_lossy(&output.stdout);
        assert_eq!(status, "400", "{body:?}");
    }
}

/// The control plane does not start without its authority, or with one whose halves do not belong
/// together, and says which Secret it is.
#[test]
fn a_control_plane_without_its_authority_says_which_secret_it_lacks() {
    let Some(cluster) = cluster() else { return };
    let first = Authority::new("first").unwrap();
    let lifetime = std::time::Duration::from_secs(3600);
    let other = first.issue("spiffe://cluster.local/x", lifetime).unwrap();
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mismatched-ca", "namespace": SYSTEM},
        "stringData": {
            "tls.crt": first.certificate(),
            "tls.key": other.key,
            "ca.crt": first.certificate(),
        },
    });
    cluster.apply(&secret.to_string()).unwrap();
    let chart = chart();
    for (revision, name) in [("absent", "absent-ca"), ("mismatched", "mismatched-ca")] {
        let release = format!("outrider-{revision}");
        let values = format!(
            "revision={revision},ca.existingSecret={name},control.replicas=1,injector.replicas=1"
        );
        let arguments = [
            "install",
            &release,
            &chart,
            "--namespace",
            SYSTEM,
            "--set",
            &values,
        ];
        cluster.helm(&arguments).unwrap();
        let deployment = format!("deployment/outrider-control-{revision}");
        let said = eventually(PATIENCE, || {
            let logs = |previous: &str| -> Output {
                let arguments = ["logs", &deployment, "-n", SYSTEM, previous];
                cluster
                    .kubectl_command(&arguments)
                    .output()
                    .unwrap_or_else(|error| panic!("{error}"))
            };
            let both = [logs("--previous=true"), logs("--previous=false")];
            let text: String = both
                .iter()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .collect();
            ensure!(
                text.contains(name),
                "{deployment} does not name {name}: {text}"
            );
            let pods: Value = serde_json::from_str(&cluster.kubectl(&[
                "get",
                "deployment",
                &format!("outrider-control-{revision}"),
                "-n",
                SYSTEM,
                "-o",
                "json",
            ])?)?;
            ensure!(
                pods["status"]["readyReplicas"].is_null(),
                "it became ready: {pods}"
            );
            Ok(text)
        });
        let uninstalled = cluster.helm(&["uninstall", &release, "--namespace", SYSTEM]);
        let said = said.unwrap();
        uninstalled.unwrap();
        if revision == "mismatched" {
            assert!(said.contains("key"), "{said}");
        }
    }
    cluster
        .kubectl(&["delete", "secret", "mismatched-ca", "-n", SYSTEM])
        .unwrap();
}
