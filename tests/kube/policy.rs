//! Who may speak plain text to whom.

use anyhow::ensure;
use outrider_testkit::eventually;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Place, client, condition, server};

pub fn peer_authentication(mode: &str) -> Value {
    json!({
        "apiVersion": "outrider.dev/v1alpha1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default"},
        "spec": {"mtls": {"mode": mode}},
    })
}

/// STRICT refuses a pod without a sidecar and takes those with one; PERMISSIVE takes both. The
/// object says that it is in force.
#[test]
fn strict_refuses_a_pod_that_is_not_injected() {
    let Some(place) = Place::meshed("policy") else {
        return;
    };
    let outsider = client("outsider").label("outrider.dev/inject", "disabled");
    place
        .run(&[server("server"), client("client"), outsider])
        .unwrap();
    let url = format!("http://{}/", place.host("server"));
    for from in ["client", "outsider"] {
        place.request_until_ok(from, &url).unwrap();
    }

    place.apply(&[peer_authentication("STRICT")]).unwrap();
    eventually(PATIENCE, || {
        let answer = place.request("outsider", &url, &[]);
        ensure!(
            answer.is_err(),
            "a plain request is still answered: {answer:?}"
        );
        Ok(())
    })
    .unwrap();
    assert_eq!(place.request("client", &url, &[]).unwrap().status, 200);
    eventually(PATIENCE, || {
        let object = place.get("peerauthentication/default")?;
        let accepted = condition(&object["status"]["conditions"], "Accepted");
        ensure!(accepted == Some("True"), "{}", object["status"]);
        Ok(())
    })
    .unwrap();

    place.apply(&[peer_authentication("PERMISSIVE")]).unwrap();
    place.request_until_ok("outsider", &url).unwrap();
}
