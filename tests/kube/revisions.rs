//! Two control planes side by side, as an upgrade is tried on some before it is for all.

use std::sync::PoisonError;

use anyhow::{Result, ensure};
use outrider_testkit::cluster::Cluster;
use outrider_testkit::eventually;
use serde_json::{Value, json};

use crate::harness::{
    PATIENCE, Place, SYSTEM, client, condition, container_spec, seen_header, server,
};
use crate::operations::{ONE_AT_A_TIME, chart};
use crate::policy::peer_authentication;

/// A release with a revision takes the namespaces that are labelled with it, has the same authority
/// as the default one, so that pods of both talk mutual TLS, and leaves nothing of its own. What
/// both judge is written by one of them, once.
#[test]
fn a_second_revision_takes_what_is_labelled_with_it() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(old) = Place::meshed("revision-old") else {
        return;
    };
    let labels = json!({"outrider.dev/inject": "enabled", "outrider.dev/rev": "next"});
    let Some(new) = Place::labelled("revision-new", &labels) else {
        return;
    };
    let cluster = &new.cluster;
    let chart = chart();
    let values = "revision=next,control.replicas=1,injector.replicas=1";
    let arguments = [
        "install",
        "outrider-next",
        &chart,
        "--namespace",
        SYSTEM,
        "--set",
        values,
    ];
    let mut all = arguments.to_vec();
    all.extend(["--wait", "--timeout", "2m"]);
    let installed = cluster.helm(&all);
    let outcome = installed.and_then(|_| {
        for place in [&old, &new] {
            place.apply(&[peer_authentication("STRICT")])?;
            place.run(&[server("server"), client("client")])?;
        }
        let written = [judged(&old)?, judged(&new)?];
        let talked = [(&old, &new), (&new, &old)].map(|(from, to)| {
            from.request_until_ok("client", &format!("http://{}/", to.host("server")))?
                .seen()
        });
        let later = [judged(&old)?, judged(&new)?];
        ensure!(written == later, "{written:?} was written again: {later:?}");
        writer(cluster)?;
        Ok((talked, old.pod("client")?, new.pod("client")?))
    });
    let uninstalled = cluster.helm(&[
        "uninstall",
        "outrider-next",
        "--namespace",
        SYSTEM,
        "--wait",
    ]);
    let (talked, old_pod, new_pod) = outcome.unwrap();
    uninstalled.unwrap();

    for (seen, from) in talked.into_iter().zip([&old, &new]) {
        let seen = seen.unwrap();
        let certificate = seen_header(&seen, "x-forwarded-client-cert").unwrap_or_default();
        let identity = format!("spiffe://cluster.local/ns/{}/sa/client", from.name);
        assert!(certificate.contains(&identity), "{seen}");
    }
    for (pod, address) in [
        (&old_pod, format!("outrider-control.{SYSTEM}.svc:15012")),
        (
            &new_pod,
            format!("outrider-control-next.{SYSTEM}.svc:15012"),
        ),
    ] {
        let sidecar = container_spec(pod, "outrider-sidecar").unwrap();
        let environment = sidecar["env"].as_array().unwrap();
        let value = environment
            .iter()
            .find(|one| one["name"] == "OUTRIDER_CA_ADDRESS");
        assert_eq!(value.unwrap()["value"], address, "{sidecar}");
    }
    // The authority is the default release's, and stays.
    let secret = ["get", "secret", "outrider-ca", "-n", SYSTEM, "-o", "name"];
    cluster.kubectl(&secret).unwrap();
    let left = [
        "get",
        "deployment,mutatingwebhookconfiguration",
        "-n",
        SYSTEM,
        "-o",
        "name",
    ];
    let left = cluster.kubectl(&left).unwrap();
    assert!(!left.contains("-next"), "{left}");
    eventually(PATIENCE, || {
        let writer = writer(cluster)?;
        ensure!(
            !writer.contains("-next"),
            "{writer} is gone and still writes"
        );
        Ok(())
    })
    .unwrap();
}

/// The version of a place's policy from the time on that its status is written.
fn judged(place: &Place) -> Result<Value> {
    eventually(PATIENCE, || {
        let policy = place.get("peerauthentication/default")?;
        let accepted = condition(&policy["status"]["conditions"], "Accepted");
        ensure!(accepted == Some("True"), "{policy}");
        Ok(policy["metadata"]["resourceVersion"].clone())
    })
}

/// Who writes statuses. The Lease that tells so goes with the last release that owns it.
fn writer(cluster: &Cluster) -> Result<String> {
    let get = [
        "get",
        "lease",
        "outrider-status",
        "-n",
        SYSTEM,
        "-o",
        "json",
    ];
    let lease: Value = serde_json::from_str(&cluster.kubectl(&get)?)?;
    let owner = lease["metadata"]["ownerReferences"][0]["kind"].as_str();
    ensure!(owner == Some("ClusterRole"), "{lease}");
    let holder = lease["spec"]["holderIdentity"].as_str();
    let holder = holder.filter(|holder| !holder.is_empty());
    Ok(holder.ok_or_else(|| anyhow::anyhow!("{lease}"))?.to_owned())
}
