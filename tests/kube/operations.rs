//! What operators do, under load that must not notice: restarts, upgrades, and a control plane that
//! is gone. One after the other, since each troubles all of the mesh.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};
use outrider_testkit::cluster::Cluster;
use outrider_testkit::eventually;
use serde_json::{Value, json};

use crate::harness::{Load, PATIENCE, Place, SYSTEM, client, container, is_ready, server};

/// How many requests flow while something happens.
const REQUESTS: u32 = 10_000;
/// What a test holds that troubles the control plane.
pub static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Three servers, a client, and a first answer.
fn place(label: &str) -> Option<(Place, String)> {
    let place = Place::meshed(label)?;
    place
        .run(&[server("server").replicas(3), client("client")])
        .unwrap();
    let url = format!("http://{}/", place.host("server"));
    place.request_until_ok("client", &url).unwrap();
    Some((place, url))
}

/// Fails unless all of so many requests were answered well.
fn assert_flawless(load: Load) {
    let report = load.finish().unwrap();
    assert_eq!(report["failures"], json!({}), "{report}");
    assert!(
        report["requests"].as_u64() >= Some(REQUESTS.into()),
        "{report}"
    );
}

/// The chart of this checkout.
pub fn chart() -> String {
    let chart = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/outrider");
    chart.to_string_lossy().into_owned()
}

/// `helm upgrade` of the mesh to the chart of this checkout with a value changed.
fn helm_upgrade(cluster: &Cluster, value: &str) -> Result<()> {
    let chart = chart();
    let arguments = [
        "upgrade",
        "outrider",
        &chart,
        "--namespace",
        SYSTEM,
        "--reuse-values",
    ];
    let mut all = arguments.to_vec();
    all.extend(["--set", value, "--wait", "--timeout", "3m"]);
    cluster.helm(&all).map(drop)
}

#[test]
fn a_rolling_restart_under_load_fails_no_request() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((place, url)) = place("rolling") else {
        return;
    };
    let before = names(&place);
    let load = Load::start(&place, "client", &url, REQUESTS).unwrap();
    place
        .kubectl(&["rollout", "restart", "deployment/server"])
        .unwrap();
    place.rolled_out("deployment/server").unwrap();
    eventually(PATIENCE, || {
        let now = names(&place);
        ensure!(
            now.len() == 3 && now.iter().all(|name| !before.contains(name)),
            "{now:?}"
        );
        Ok(())
    })
    .unwrap();
    assert_flawless(load);
}

/// An upgrade with a changed value replaces the control plane and the injector, and keeps the
/// authority; a rollback does, too.
#[test]
fn an_upgrade_and_a_rollback_under_load_fail_no_request() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((place, url)) = place("upgrade") else {
        return;
    };
    let authority = || {
        let path = "jsonpath={.data.tls\\.crt}";
        let arguments = ["get", "secret", "outrider-ca", "-n", SYSTEM, "-o", path];
        place.cluster.kubectl(&arguments).unwrap()
    };
    let before = authority();
    assert!(!before.is_empty(), "the control plane made no authority");
    let load = Load::start(&place, "client", &url, REQUESTS).unwrap();
    // What changes the pods, so that all of them are replaced.
    let value = format!("control.podAnnotations.test=upgrade-{}", std::process::id());
    helm_upgrade(&place.cluster, &value).unwrap();
    let arguments = [
        "rollback",
        "outrider",
        "--namespace",
        SYSTEM,
        "--wait",
        "--timeout",
        "3m",
    ];
    place.cluster.helm(&arguments).unwrap();
    assert_flawless(load);
    assert_eq!(authority(), before);
    // New pods are still taken in.
    place
        .kubectl(&["rollout", "restart", "deployment/client"])
        .unwrap();
    place.rolled_out("deployment/client").unwrap();
    place.request_until_ok("client", &url).unwrap();
}

/// Without a control plane traffic goes on, and a sidecar that is restarted meanwhile comes up on
/// what it has on disk. When the control plane returns, all is as before.
#[test]
fn traffic_survives_the_control_plane() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((place, url)) = place("outage") else {
        return;
    };
    place.run(&[client("restarted")]).unwrap();
    place.request_until_ok("restarted", &url).unwrap();
    let load = Load::start(&place, "client", &url, REQUESTS).unwrap();
    let mesh = |arguments: &[&str]| {
        let mut all = vec!["--namespace", SYSTEM];
        all.extend(arguments);
        place.cluster.kubectl(&all)
    };
    mesh(&["delete", "deployment", "outrider-control", "--wait"]).unwrap();
    eventually(PATIENCE, || {
        let selector = "--selector=app.kubernetes.io/component=control";
        let left = mesh(&["get", "pods", selector, "-o", "name"])?;
        ensure!(left.is_empty(), "the control plane still runs: {left}");
        Ok(())
    })
    .unwrap();

    let outcome = restart_sidecar(&place, "restarted")
        .and_then(|()| place.request_until_ok("restarted", &url));
    // Whatever came of it: the other tests need the control plane.
    helm_upgrade(&place.cluster, "control.podAnnotations.test=returned").unwrap();
    outcome.unwrap();
    assert_flawless(load);
    // It gives out certificates again.
    place.run(&[client("late")]).unwrap();
    place.request_until_ok("late", &url).unwrap();
}

/// Kills the sidecar of an app's only pod, and waits until its successor is ready.
fn restart_sidecar(place: &Place, app: &str) -> Result<()> {
    let pod = place.pod(app)?;
    let status = container(&pod, "outrider-sidecar")
        .cloned()
        .unwrap_or_default();
    let id = status["containerID"].as_str().unwrap_or_default();
    let id = id.trim_start_matches("containerd://");
    let mut kill = place
        .cluster
        .containerd(&["task", "kill", "--signal", "SIGKILL", id]);
    let output = kill.output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    place.wait_for_pod(app, PATIENCE, |pod| {
        let status = container(pod, "outrider-sidecar").unwrap_or(&Value::Null);
        status["restartCount"] == 1 && status["ready"] == true && is_ready(pod)
    })?;
    Ok(())
}

fn names(place: &Place) -> Vec<String> {
    let pods = place.pods("server").unwrap();
    let names = pods
        .iter()
        .filter_map(|pod| pod["metadata"]["name"].as_str());
    names.map(str::to_owned).collect()
}
