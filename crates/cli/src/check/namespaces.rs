//! Namespaces that another mesh, or a pod security level, has a say in.

use k8s_openapi::api::core::v1::Namespace;

use super::finding::{Finding, some};
use crate::cluster::{Cluster, INJECT, REVISION};

const OTHERS: &str = "other meshes";
const SECURITY: &str = "pod security";

/// Labels and annotations by which other meshes take a namespace, with the value that leaves it.
const MARKS: &[(&str, &str, &str)] = &[
    ("Istio", "istio-injection", "disabled"),
    ("Istio", "istio.io/rev", ""),
    ("Istio", "istio.io/dataplane-mode", "none"),
    ("Linkerd", "linkerd.io/inject", "disabled"),
    ("Kuma", "kuma.io/sidecar-injection", "disabled"),
    (
        "Open Service Mesh",
        "openservicemesh.io/sidecar-injection",
        "disabled",
    ),
    ("Consul", "consul.hashicorp.com/connect-inject", "false"),
];

/// Looks at all.
pub(super) async fn check(cluster: &Cluster, findings: &mut Vec<Finding>) {
    match cluster.list_global::<Namespace>().await {
        Ok(namespaces) => {
            findings.push(others(&namespaces));
            findings.push(security(&namespaces));
        }
        Err(error) => findings.push(Finding::unknown(OTHERS, &error)),
    }
}

fn mark<'a>(namespace: &'a Namespace, name: &str) -> Option<&'a str> {
    let labels = namespace.metadata.labels.as_ref();
    let annotations = namespace.metadata.annotations.as_ref();
    let found = labels.and_then(|labels| labels.get(name));
    let found = found.or_else(|| annotations.and_then(|annotations| annotations.get(name)));
    found.map(String::as_str)
}

/// Whether the labels of a namespace ask this revision for sidecars, as the chart's webhooks select.
pub(super) fn is_injected(namespace: &Namespace, revision: &str) -> bool {
    mark(namespace, INJECT) == Some("enabled")
        && mark(namespace, REVISION).unwrap_or_default() == revision
}

fn name(namespace: &Namespace) -> String {
    namespace.metadata.name.clone().unwrap_or_default()
}

fn others(namespaces: &[Namespace]) -> Finding {
    let mut taken = Vec::new();
    for namespace in namespaces {
        let theirs = MARKS
            .iter()
            .find(|(_, label, off)| mark(namespace, label).is_some_and(|value| value != *off));
        if let Some((mesh, label, _)) = theirs {
            taken.push(format!("{} ({mesh}: {label})", name(namespace)));
        }
    }
    if taken.is_empty() {
        return Finding::pass(OTHERS, "no namespace belongs to another mesh");
    }
    Finding::warning(
        OTHERS,
        format!("another mesh takes the pods of {}", some(&taken)),
        "two sidecars in a pod capture each other: take that label off a namespace (kubectl label \
         namespace NAME LABEL-) before you give it outrider.dev/inject=enabled",
    )
}

/// The levels `baseline` and `restricted` forbid NET_ADMIN, which the init container needs.
fn security(namespaces: &[Namespace]) -> Finding {
    let strict = |namespace: &&Namespace| {
        let level = mark(namespace, "pod-security.kubernetes.io/enforce");
        let asked = mark(namespace, INJECT) == Some("enabled");
        asked && matches!(level, Some("baseline" | "restricted"))
    };
    let names: Vec<String> = namespaces.iter().filter(strict).map(name).collect();
    if names.is_empty() {
        return Finding::pass(SECURITY, "no injected namespace forbids the init container");
    }
    Finding::failure(
        SECURITY,
        format!("pods with a sidecar are refused in {}", some(&names)),
        "the init container needs NET_ADMIN and NET_RAW, which the levels baseline and restricted \
         forbid: kubectl label --overwrite namespace NAME \
         pod-security.kubernetes.io/enforce=privileged",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Outcome;
    use serde_json::json;

    fn namespace(name: &str, labels: serde_json::Value) -> Namespace {
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        serde_json::from_value(namespace).unwrap()
    }

    #[test]
    fn other_meshes_are_seen_by_their_labels() {
        let found = others(&[
            namespace("a", json!({"istio-injection": "enabled"})),
            namespace("b", json!({"istio-injection": "disabled"})),
            namespace("c", json!({"istio.io/rev": "canary"})),
            namespace("d", json!({"linkerd.io/inject": "ingress"})),
        ]);
        assert_eq!(found.outcome, Outcome::Warning);
        assert_eq!(
            found.message,
            "another mesh takes the pods of a (Istio: istio-injection), c (Istio: istio.io/rev), \
             d (Linkerd: linkerd.io/inject)"
        );
        assert_eq!(others(&[namespace("x", json!({}))]).outcome, Outcome::Pass);
    }

    #[test]
    fn a_strict_level_matters_only_where_pods_are_injected() {
        let level = "pod-security.kubernetes.io/enforce";
        let plain = namespace("a", json!({level: "restricted"}));
        let injected = namespace("b", json!({level: "baseline", INJECT: "enabled"}));
        assert_eq!(
            security(std::slice::from_ref(&plain)).outcome,
            Outcome::Pass
        );
        let found = security(&[plain, injected]);
        assert_eq!(found.message, "pods with a sidecar are refused in b");
    }

    #[test]
    fn the_labels_choose_one_revision() {
        for (labels, default, canary) in [
            (json!({}), false, false),
            (json!({INJECT: "enabled"}), true, false),
            (
                json!({INJECT: "disabled", REVISION: "canary"}),
                false,
                false,
            ),
            (json!({REVISION: "canary"}), false, false),
            (json!({INJECT: "enabled", REVISION: "canary"}), false, true),
        ] {
            let namespace = namespace("n", labels);
            assert_eq!(is_injected(&namespace, ""), default, "{namespace:?}");
            assert_eq!(is_injected(&namespace, "canary"), canary, "{namespace:?}");
        }
    }
}
