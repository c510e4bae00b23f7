//! Which pods are in the mesh, and what is in them.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::ensure;
use outrider_testkit::eventually;
use serde_json::{Value, json};

use crate::harness::{App, PATIENCE, Place, client, container, container_spec, server};

/// Whether the pod has a sidecar, of the native form.
fn is_injected(pod: &Value) -> bool {
    container_spec(pod, "outrider-sidecar")
        .is_some_and(|sidecar| sidecar["restartPolicy"] == "Always")
}

/// A label on the namespace takes its pods in, and one on the pod wins over it, both ways.
#[test]
fn labels_of_namespace_and_pod_decide() {
    let (Some(place), Some(plain)) = (Place::meshed("by-namespace"), Place::plain("by-pod")) else {
        return;
    };
    let out = client("out").label("outrider.dev/inject", "disabled");
    place.run(&[server("in"), out]).unwrap();
    plain
        .run(&[
            client("in").label("outrider.dev/inject", "enabled"),
            client("out"),
        ])
        .unwrap();

    for (place, app, expected) in [
        (&place, "in", true),
        (&place, "out", false),
        (&plain, "in", true),
        (&plain, "out", false),
    ] {
        let pod = place.pod(app).unwrap();
        assert_eq!(is_injected(&pod), expected, "{app} in {}", place.name);
        let label = &pod["metadata"]["labels"]["outrider.dev/mutual-tls"];
        assert_eq!(label == "enabled", expected, "{label}");
        let status = pod["metadata"]["annotations"]["outrider.dev/status"].as_str();
        assert_eq!(status.is_some(), expected, "{status:?}");
    }
    // What runs is what was asked for.
    let pod = place.pod("in").unwrap();
    let sidecar = container(&pod, "outrider-sidecar").unwrap();
    assert_eq!(sidecar["ready"], true, "{sidecar}");
    assert_eq!(sidecar["restartCount"], 0, "{sidecar}");
    // The one that is only in by its own label is served by its mesh.
    let url = format!("http://{}/", place.host("in"));
    let seen = plain.request_until_ok("in", &url).unwrap().seen().unwrap();
    assert!(seen.to_string().contains("/sa/in"), "{seen}");
}

/// A pod in the node's own network would have the node's traffic redirected: it is left alone, and
/// an event says so.
#[test]
fn a_pod_in_the_nodes_network_is_left_alone_with_an_event() {
    let Some(place) = Place::meshed("host-network") else {
        return;
    };
    place
        .run(&[client("host").with("hostNetwork", json!(true))])
        .unwrap();
    assert!(!is_injected(&place.pod("host").unwrap()));
    eventually(PATIENCE, || {
        let events = place.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"])?;
        ensure!(
            events.contains("hostNetwork"),
            "no event says why: {events}"
        );
        Ok(())
    })
    .unwrap();
}

/// A dry run shows the pod as it would be, and leaves nothing.
#[test]
fn a_dry_run_shows_the_injected_pod() {
    let Some(place) = Place::meshed("dry-run") else {
        return;
    };
    let mut pod = App::new("dry", "Deployment", &["pause"])
        .with("serviceAccountName", json!("default"))
        .template();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("dry");
    let arguments = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
    let mut command = place.kubectl_command(&arguments);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(pod.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(is_injected(&shown), "{shown}");
    assert!(place.pods("dry").unwrap().is_empty());
}
