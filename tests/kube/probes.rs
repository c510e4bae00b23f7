//! The kubelet's probes, which come from outside the mesh, under STRICT.

use std::time::Duration;

use anyhow::ensure;
use outrider_testkit::eventually;
use serde_json::{Value, json};

use crate::harness::{App, IMAGE, PATIENCE, PROGRAM, Place, container};
use crate::policy::peer_authentication;

/// A container that does nothing, with one probe, which may ask any port of the pod.
fn probed(name: &str, kind: &str, probe: &Value) -> Value {
    let mut probe = probe.clone();
    probe["periodSeconds"] = json!(1);
    probe["failureThreshold"] = json!(2);
    json!({
        "name": name,
        "image": IMAGE,
        "args": ["pause"],
        kind: probe,
    })
}

fn serving(protocol: &str, port: u16) -> Value {
    let listen = format!("[::]:{port}");
    let arguments = [
        "serve",
        "--listen",
        &listen,
        "--name",
        protocol,
        "--protocol",
        protocol,
    ];
    json!({"name": protocol, "image": IMAGE, "args": arguments})
}

/// Readiness, liveness and start-up probes of every kind say what the app says.
#[test]
fn probes_of_every_kind_pass_and_fail_rightly() {
    let Some(place) = Place::meshed("probes") else {
        return;
    };
    place.apply(&[peer_authentication("STRICT")]).unwrap();
    let get = |path: &str| json!({"httpGet": {"port": 8080, "path": path}});
    let exec = |path: &str| {
        let url = format!("http://127.0.0.1:8080{path}");
        json!({"exec": {"command": [PROGRAM, "get", url]}})
    };
    let readiness = [
        ("http", get("/"), get("/?status=503")),
        (
            "tcp",
            json!({"tcpSocket": {"port": 9000}}),
            json!({"tcpSocket": {"port": 9}}),
        ),
        (
            "grpc",
            json!({"grpc": {"port": 7070}}),
            json!({"grpc": {"port": 7070, "service": "what.does.not.serve"}}),
        ),
        (
            "https",
            json!({"httpGet": {"port": 8443, "path": "/", "scheme": "HTTPS"}}),
            json!({"httpGet": {"port": 8443, "path": "/?status=500", "scheme": "HTTPS"}}),
        ),
        ("exec", exec("/"), exec("/?status=503")),
    ];
    let mut containers = vec![
        serving("http1", 8080),
        serving("tcp", 9000),
        serving("grpc", 7070),
        serving("https", 8443),
    ];
    for (name, good, bad) in &readiness {
        containers.push(probed(&format!("{name}-good"), "readinessProbe", good));
        containers.push(probed(&format!("{name}-bad"), "readinessProbe", bad));
    }
    containers.push(probed("alive", "livenessProbe", &get("/")));
    containers.push(probed("dying", "livenessProbe", &get("/?status=500")));
    containers.push(probed("starts", "startupProbe", &get("/")));
    containers.push(probed("never-starts", "startupProbe", &get("/?status=500")));

    let app = App::new("probed", "Deployment", &["pause"]);
    let mut objects = app.objects();
    objects[1]["spec"]["template"]["spec"]["containers"] = json!(containers);
    place.apply(&objects).unwrap();
    let state = |name: &str| -> anyhow::Result<Value> {
        let pod = place.pod("probed")?;
        let status = container(&pod, name);
        Ok(status.cloned().unwrap_or_default())
    };

    // What fails is shown to fail by what it brings about; what is merely not ready yet looks the
    // same as what never will be, so it is asked last.
    for name in ["dying", "never-starts"] {
        eventually(PATIENCE, || {
            let status = state(name)?;
            let restarts = status["restartCount"].as_u64();
            ensure!(restarts > Some(0), "{name} was not restarted: {status}");
            Ok(())
        })
        .unwrap();
    }
    for (name, ..) in &readiness {
        eventually(PATIENCE, || {
            let status = state(&format!("{name}-good"))?;
            ensure!(
                status["ready"] == true,
                "{name}-good is not ready: {status}"
            );
            Ok(())
        })
        .unwrap();
        let failed = format!(
            "{{.items[?(@.involvedObject.fieldPath==\"spec.containers{{{name}-bad}}\")].reason}}"
        );
        eventually(Duration::from_secs(30), || {
            let events = place.kubectl(&["get", "events", "-o", &format!("jsonpath={failed}")])?;
            ensure!(
                events.contains("Unhealthy"),
                "{name}-bad has not failed: {events}"
            );
            Ok(())
        })
        .unwrap();
        assert_eq!(
            state(&format!("{name}-bad")).unwrap()["ready"],
            false,
            "{name}-bad"
        );
    }
    for name in ["alive", "starts"] {
        let status = state(name).unwrap();
        assert_eq!(status["restartCount"], 0, "{status}");
        assert_eq!(status["ready"], true, "{status}");
    }
}
