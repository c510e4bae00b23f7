//! Pods that end, and containers that run before the app.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_testkit::eventually;
use serde_json::json;

use crate::harness::{App, IMAGE, PATIENCE, PROGRAM, Place, client, container, server};
use crate::policy::peer_authentication;

/// The sidecar ends with the app of a Job, so that the Job completes within 5 s of it.
#[test]
fn a_job_completes_with_its_app() {
    let Some(place) = Place::meshed("jobs") else {
        return;
    };
    place.apply(&[peer_authentication("STRICT")]).unwrap();
    place.run(&[server("server")]).unwrap();
    let url = format!("http://{}/from-a-job", place.host("server"));
    let app = App::new("job", "Deployment", &["get", &url])
        .with("serviceAccountName", json!("default"))
        .with("restartPolicy", json!("Never"));
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job"},
        "spec": {"template": app.template(), "backoffLimit": 0},
    });
    place.apply(&[job]).unwrap();
    let arguments = [
        "wait",
        "--for=condition=complete",
        "job/job",
        "--timeout=90s",
    ];
    place.kubectl(&arguments).unwrap();

    let pod = place.pod("job").unwrap();
    let ended = |name: &str| {
        let container = container(&pod, name).unwrap();
        let time = container["state"]["terminated"]["finishedAt"].as_str();
        let time = time
            .with_context(|| format!("{name} has not ended: {container}"))
            .unwrap();
        seconds(time)
    };
    let job = place.get("job/job").unwrap();
    let completed = seconds(job["status"]["completionTime"].as_str().unwrap());
    let app = ended("app");
    assert!(
        completed >= app && completed - app <= 5,
        "{} s",
        completed - app
    );
    assert!(ended("outrider-sidecar") >= app);
    let sidecar = container(&pod, "outrider-sidecar").unwrap();
    assert_eq!(sidecar["state"]["terminated"]["exitCode"], 0, "{sidecar}");
}

/// The app's own init containers start after the sidecar, and reach what takes mutual TLS alone, at
/// their first attempt.
#[test]
fn init_containers_reach_the_network_through_the_mesh() {
    let Some(place) = Place::meshed("init") else {
        return;
    };
    place.apply(&[peer_authentication("STRICT")]).unwrap();
    place.run(&[server("server")]).unwrap();
    let url = format!("http://{}/from-init", place.host("server"));
    let first = json!([{"name": "first", "image": IMAGE, "command": [PROGRAM, "get", &url]}]);
    place
        .run(&[client("late").with("initContainers", first)])
        .unwrap();
    let pod = place.pod("late").unwrap();
    let first = container(&pod, "first").unwrap();
    assert_eq!(first["restartCount"], 0, "{first}");
    assert_eq!(first["state"]["terminated"]["exitCode"], 0, "{first}");
}

/// A pod that is deleted is gone soon: nothing waits for its grace period to run out.
#[test]
fn a_deleted_pod_is_gone_soon() {
    let Some(place) = Place::meshed("delete") else {
        return;
    };
    place
        .run(&[client("app").with("terminationGracePeriodSeconds", json!(60))])
        .unwrap();
    let pod = place.pod("app").unwrap();
    let name = pod["metadata"]["name"].as_str().unwrap();
    place
        .kubectl(&["delete", "pod", name, "--wait=false"])
        .unwrap();
    eventually(Duration::from_secs(20), || {
        let left = place.kubectl(&["get", "pod", name, "--ignore-not-found", "-o", "name"])?;
        ensure!(left.is_empty(), "{name} is still there");
        Ok(())
    })
    .unwrap();
    // Its successor is there too, before the place goes.
    place
        .wait_for_pod("app", PATIENCE, crate::harness::is_ready)
        .unwrap();
}

/// Kubernetes' times, in seconds of their day: what is compared is never a day apart.
fn seconds(time: &str) -> i64 {
    let clock = time.split_once('T').unwrap().1.trim_end_matches('Z');
    let parts = clock.split(':').map(|part| part.parse::<i64>().unwrap());
    parts.fold(0, |sum, part| sum * 60 + part)
}
