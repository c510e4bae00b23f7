//! A change costs what it touches: how much of the mesh is built anew, and what stays shared.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use common::{documents, settings};
use outrider_control::mesh::{MeshBuilder, MeshState};
use outrider_control::registry::{NamespacedName, Object, Source, document, lenient};

const SERVICES: usize = 5000;

fn objects(short: &str) -> Vec<Arc<Object>> {
    let file = Arc::new(PathBuf::from("mesh.yaml"));
    let objects = document::parse(&file, &documents(short)).unwrap();
    objects
        .into_iter()
        .map(|(_, object)| Arc::new(object))
        .collect()
}

fn slice(service: usize, endpoints: &str) -> String {
    format!(
        "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{service}-1, namespace: shop, labels: {{kubernetes.io/service-name: s{service}}}}}
addressType: IPv4
endpoints: [{endpoints}]
ports: [{{name: http, port: 8080}}]
"
    )
}

fn service(number: usize) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    format!(
        "service s{number}: {{clusterIP: 10.96.{high}.{low}, ports: [{{name: http, port: 80}}]}}\n"
    )
}

fn large() -> MeshBuilder {
    cluster(SERVICES)
}

/// A cluster of many services.
fn cluster(services: usize) -> MeshBuilder {
    let mut text = String::new();
    for number in 0..services {
        let (high, low) = (number / 250, number % 250 + 1);
        text += &service(number);
        let _ = write!(
            text,
            "{}",
            slice(number, &format!("{{addresses: [10.1.{high}.{low}]}}"))
        );
    }
    let mut builder = MeshBuilder::new(Arc::new(settings()));
    apply(&mut builder, &text);
    builder
}

fn apply(builder: &mut MeshBuilder, short: &str) -> MeshState {
    for object in objects(short) {
        builder.set(Source::Cluster, object);
    }
    builder.build()
}

fn name(number: usize) -> NamespacedName {
    NamespacedName::new("shop", format!("s{number}"))
}

fn replaced(before: &MeshState, after: &MeshState) -> usize {
    let kept = |(name, service): &(&NamespacedName, &Arc<_>)| {
        before
            .services
            .get(*name)
            .is_some_and(|old| Arc::ptr_eq(old, service))
    };
    after.services.len() - after.services.iter().filter(kept).count()
}

#[test]
fn one_endpoint_rebuilds_one_service_of_five_thousand() {
    let mut builder = large();
    let mut before = builder.build();
    assert_eq!((builder.rebuilt(), before.services.len()), (0, SERVICES));
    for ready in [false, true, false] {
        let endpoint = format!("{{addresses: [10.1.0.8], conditions: {{ready: {ready}}}}}");
        let after = apply(&mut builder, &slice(7, &endpoint));
        assert_eq!(builder.rebuilt(), 1);
        assert_eq!(replaced(&before, &after), 1);
        assert_eq!(after.services[&name(7)].ports[0].endpoints[0].ready, ready);
        assert!(after.routes_like(&before));
        before = after;
    }
    // What does not matter is no change.
    let same = slice(
        7,
        "{addresses: [10.1.0.8], conditions: {ready: false, serving: true}}",
    );
    let after = apply(&mut builder, &same);
    assert_eq!((builder.rebuilt(), replaced(&before, &after)), (1, 0));
    for object in objects(&same) {
        builder.set(Source::Cluster, object);
    }
    assert!(!builder.is_changed());
}

#[test]
fn a_policy_looks_at_all_and_replaces_what_it_concerns() {
    let mut builder = large();
    let text = "workload w shop {app: w}: {addresses: [10.1.0.4], serviceAccount: w}\n";
    let before = apply(&mut builder, text);
    assert!(before.services[&name(3)].ports[0].endpoints[0].mutual_tls);
    let policy = "---
apiVersion: outrider.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: p, namespace: shop}
spec: {mtls: {mode: DISABLED}}
";
    let after = apply(&mut builder, policy);
    assert_eq!(replaced(&before, &after), 1);
    assert!(!after.services[&name(3)].ports[0].endpoints[0].mutual_tls);
}

fn pod(label: &str, spec: &str, status: &str) -> Arc<Object> {
    let text = format!(
        "{{metadata: {{name: p, namespace: shop, labels: {{{label}}}}}, spec: {{{spec}}}, \
         status: {{{status}}}}}"
    );
    let value = serde_norway::from_str(&text).unwrap();
    Arc::new(Object::Pod(lenient::decode(value).unwrap()))
}

#[test]
fn a_pod_is_who_its_label_and_its_account_say_for_as_long_as_it_has_its_address() {
    let label = "outrider.dev/mutual-tls: enabled";
    let (account, running) = (
        "serviceAccountName: cart",
        "phase: Running, podIPs: [{ip: 10.1.0.8}, {ip: 'fd00::8'}]",
    );
    let ended = "phase: Succeeded, podIPs: [{ip: 10.1.0.8}]";
    // Whether there is a workload, and its identity's account.
    for (label, spec, status, expected) in [
        (label, account, running, Some(Some("cart"))),
        (label, "", running, Some(Some("default"))),
        ("", account, running, Some(None)),
        (
            "outrider.dev/mutual-tls: other",
            account,
            running,
            Some(None),
        ),
        (label, account, ended, None),
        (label, account, "phase: Pending", None),
        (label, "hostNetwork: true", running, None),
    ] {
        let mut builder = cluster(8);
        builder.set(Source::Cluster, pod(label, spec, status));
        let mesh = builder.build();
        let workload = mesh.workload("10.1.0.8".parse().unwrap());
        let found = workload.map(|workload| {
            let identity = workload.identity.as_ref();
            identity.map(|identity| identity.service_account().to_owned())
        });
        let expected = expected.map(|account: Option<&str>| account.map(str::to_owned));
        assert_eq!(found, expected, "{label} {spec} {status}");
        let endpoint = &mesh.services[&name(7)].ports[0].endpoints[0];
        assert_eq!(endpoint.mutual_tls, matches!(expected, Some(Some(_))));
        // Its other news are none to the mesh.
        let before = builder.revision();
        builder.set(
            Source::Cluster,
            pod(label, spec, &format!("{status}, reason: x")),
        );
        builder.build();
        assert_eq!(builder.revision(), before);
    }
}

#[test]
fn pods_that_end_take_traffic_only_when_no_other_is_there() {
    let ending = |address: &str, serving: bool| {
        format!(
            "{{addresses: [{address}], conditions: {{ready: false, serving: {serving}, terminating: true}}}}"
        )
    };
    let ready = "{addresses: [10.1.0.2]}";
    for (endpoints, expected) in [
        (format!("{}, {ready}", ending("10.1.0.1", true)), [false, true]),
        (format!("{}, {}", ending("10.1.0.1", true), ending("10.1.0.2", false)), [true, false]),
        ("{addresses: [10.1.0.1], conditions: {ready: false}}, {addresses: [10.1.0.2], conditions: {ready: false}}".to_owned(), [false, false]),
    ] {
        let mut builder = MeshBuilder::new(Arc::new(settings()));
        let mesh = apply(&mut builder, &format!("{}{}", service(1), slice(1, &endpoints)));
        let found = mesh.services[&name(1)].ports[0].endpoints.iter();
        assert_eq!(found.map(|endpoint| endpoint.ready).collect::<Vec<_>>(), expected);
    }
}

/// Whatever the order in which a cluster's objects come and go, the mesh is that of the objects.
#[test]
fn the_order_of_events_does_not_matter() {
    let text = [
        service(1),
        service(2),
        "service s3: {clusterIP: 10.96.0.2, selector: {app: w}, ports: [{name: http, port: 80}]}\n".to_owned(),
        "workload w shop {app: w}: {addresses: [10.1.0.1, 10.1.0.2], serviceAccount: w}\n".to_owned(),
        "workload v shop: {addresses: [10.1.0.2]}\n".to_owned(),
        slice(1, "{addresses: [10.1.0.2]}, {addresses: [10.1.0.9]}"),
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {outrider.dev/inject: enabled}}\n".to_owned(),
        "route r: {parentRefs: [{group: '', kind: Service, name: s1}], rules: [{backendRefs: [{name: s2, port: 80}]}]}\n".to_owned(),
    ];
    let describe = |mesh: &MeshState| {
        let services: Vec<_> = mesh.services.values().collect();
        format!("{services:?} {:?} {:?}", mesh.verdicts(), mesh.warnings)
    };
    let all: Vec<Vec<_>> = text.iter().map(|text| objects(text)).collect();
    let build = |order: &[usize]| {
        let mut builder = MeshBuilder::new(Arc::new(settings()));
        for index in order {
            for object in &all[*index] {
                builder.set(Source::Cluster, Arc::clone(object));
            }
            builder.build();
        }
        builder
    };
    let forth: Vec<usize> = (0..all.len()).collect();
    let back: Vec<usize> = forth.iter().rev().copied().collect();
    let expected = describe(&build(&forth).build());
    assert!(expected.contains("10.1.0.9") && !expected.contains("BackendNotFound"));
    assert_eq!(describe(&build(&back).build()), expected);
    // What goes and comes back leaves no trace.
    for (index, each) in all.iter().enumerate() {
        let mut builder = build(&forth);
        for object in each {
            builder.remove(&object.reference());
        }
        let without = describe(&builder.build());
        assert_ne!(without, expected, "{index}");
        for object in each {
            builder.set(Source::Cluster, Arc::clone(object));
        }
        assert_eq!(describe(&builder.build()), expected, "{index}");
    }
}

#[test]
fn a_refused_version_is_said_and_the_last_good_one_stays() {
    let policy = |mode: &str| {
        format!(
            "---
apiVersion: outrider.dev/v1alpha1
kind: PeerAuthentication
metadata: {{name: p, namespace: shop}}
spec: {{mtls: {{mode: {mode}}}}}
"
        )
    };
    let mut builder = MeshBuilder::new(Arc::new(settings()));
    apply(&mut builder, &policy("STRICT"));
    let object = objects(&policy("STRICT")).remove(0);
    let error = outrider_control::registry::FieldError::new("spec.mtls.mode", "is no mode");
    builder.refuse(object.reference(), 4, error);
    let mesh = builder.build();
    let verdict = &mesh.verdicts()[&object.reference()];
    assert_eq!(verdict.generation, 4);
    assert!(verdict.complaints()[0].starts_with("spec.mtls.mode: is no mode; "));
    let labels = std::collections::BTreeMap::new();
    let strict = outrider_control::registry::kinds::MutualTlsMode::Strict;
    assert_eq!(mesh.policies.mode("shop", &labels, 80), strict);
    builder.set(Source::Cluster, object);
    assert!(builder.build().faults.is_empty());
}
