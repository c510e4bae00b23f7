//! The mesh that documents describe: who is in it, and what does not fit together.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use common::mesh;
use outrider_control::mesh::MeshState;
use outrider_control::registry::NamespacedName;

#[test]
fn a_workload_has_a_sidecar_by_its_label_its_namespace_s_label_or_its_account() {
    let identity = |namespace: &str, label: &str, account: &str| {
        let label = match label {
            "" => String::new(),
            label => format!(" {{outrider.dev/inject: {label}}}"),
        };
        let mesh = mesh(&format!(
            "
---
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{{namespace}}}}}
workload w{label}: {{addresses: [10.0.0.1]{account}}}
"
        ));
        let workload = mesh.workload("10.0.0.1".parse().unwrap()).unwrap();
        workload
            .identity
            .as_ref()
            .map(|identity| identity.service_account().to_owned())
    };
    let (enabled, disabled) = (
        "outrider.dev/inject: enabled",
        "outrider.dev/inject: disabled",
    );
    let account = ", serviceAccount: a";
    for (namespace, label, account, expected) in [
        ("", "", "", None),
        ("", "", account, Some("a")),
        ("", "enabled", "", Some("default")),
        ("", "disabled", account, None),
        (enabled, "", "", Some("default")),
        (enabled, "", account, Some("a")),
        (enabled, "disabled", account, None),
        (disabled, "", account, None),
        (disabled, "enabled", account, Some("a")),
    ] {
        let found = identity(namespace, label, account);
        assert_eq!(
            found.as_deref(),
            expected,
            "{namespace:?} {label:?} {account:?}"
        );
    }
}

fn warnings(mesh: &MeshState) -> Vec<String> {
    mesh.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_does_not_fit_together_is_said() {
    let parent = "parentRefs: [{group: '', kind: Service, name: ";
    for (text, expected) in [
        (
            "service a: {clusterIP: 10.96.0.1}\nservice b: {clusterIP: 10.96.0.1}".to_owned(),
            "(Service shop/b): 10.96.0.1 is service shop/a's already",
        ),
        (
            "workload a: {addresses: [10.0.0.1]}\nworkload b: {addresses: [10.0.0.1]}".to_owned(),
            "(WorkloadEntry shop/b): 10.0.0.1 is workload shop/a's already",
        ),
        (
            "service a: {selector: {app: a}, ports: [{port: 80, targetPort: web}]}\n\
             workload w {app: a}: {addresses: [10.0.0.1], ports: {other: 80}}"
                .to_owned(),
            "targetPort \"web\" of port 80 is not among the ports of workload shop/w",
        ),
        (
            format!("route r: {{{parent}nowhere}}]}}"),
            "(HTTPRoute shop/r): spec.parentRefs[0]: there is no Service shop/nowhere",
        ),
        (
            format!(
                "service a: {{clusterIP: 10.96.0.1, ports: [{{name: tcp, port: 80}}]}}\n\
                 route r: {{{parent}a}}]}}"
            ),
            "spec.parentRefs[0]: Service shop/a has no such HTTP port",
        ),
    ] {
        let found = warnings(&mesh(&text));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains(expected),
            "{found:?} should contain {expected:?}"
        );
        assert!(found[0].starts_with("mesh.yaml, document "), "{found:?}");
    }
}

#[test]
fn endpoints_come_from_selectors_and_from_slices_and_count_once() {
    let mesh = mesh(
        "
service web: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
workload a {app: web}: {addresses: [10.0.0.1], serviceAccount: web}
workload elsewhere other {app: web}: {addresses: [10.0.0.5], serviceAccount: web}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
- {addresses: [10.0.0.2], conditions: {ready: false}}
- {addresses: [10.0.0.3], zone: z}
ports: [{name: http, port: 8080}, {name: other, port: 1}]
",
    );
    let service = &mesh.services[&NamespacedName::new("shop", "web")];
    let endpoints = service.ports[0].endpoints.iter();
    let found: Vec<_> = endpoints
        .map(|endpoint| {
            (
                endpoint.address.to_string(),
                endpoint.ready,
                endpoint.mutual_tls,
            )
        })
        .collect();
    let expected = [
        ("10.0.0.1:8080".to_owned(), true, true),
        ("10.0.0.2:8080".to_owned(), false, false),
        ("10.0.0.3:8080".to_owned(), true, false),
    ];
    assert_eq!(found, expected);
}
