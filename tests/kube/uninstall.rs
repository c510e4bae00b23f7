//! The last test of all.

use anyhow::ensure;
use outrider_testkit::eventually;

use crate::harness::{PATIENCE, SYSTEM, cluster};

/// After `helm uninstall` nothing in the cluster has our name but the namespace that the user made.
#[test]
#[ignore = "it takes the mesh away; cargo xtask test kube runs it last"]
fn uninstall_leaves_nothing_behind() {
    let Some(cluster) = cluster() else { return };
    cluster
        .helm(&[
            "uninstall",
            "outrider",
            "--namespace",
            SYSTEM,
            "--wait",
            "--timeout",
            "2m",
        ])
        .unwrap();
    let kinds = cluster
        .kubectl(&["api-resources", "--verbs=list", "-o", "name"])
        .unwrap();
    // Events are of the past, and go by themselves.
    let kinds: Vec<&str> = kinds
        .lines()
        .filter(|kind| !kind.starts_with("events"))
        .collect();
    let kinds = kinds.join(",");
    eventually(PATIENCE, || {
        let path = r#"jsonpath={range .items[*]}{.kind}/{.metadata.namespace}/{.metadata.name}{"\n"}{end}"#;
        let all = cluster.kubectl(&["get", &kinds, "-A", "-o", path, "--ignore-not-found"])?;
        let own = format!("Namespace//{SYSTEM}");
        // What Kubernetes itself puts into every namespace goes with the namespace.
        let given = [
            format!("ServiceAccount/{SYSTEM}/default"),
            format!("ConfigMap/{SYSTEM}/kube-root-ca.crt"),
        ];
        let left: Vec<&str> = all
            .lines()
            .filter(|line| line.contains("outrider"))
            .filter(|line| *line != own && !given.iter().any(|given| given == line))
            .collect();
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(())
    })
    .unwrap();
}
