//! What proxies share is translated service by service, and is the same as translating it at once.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{cart, documents, settings};
use outrider_control::mesh::MeshBuilder;
use outrider_control::registry::{Object, Source, document};
use outrider_control::translate::{Outbound, OutboundKey};
use outrider_xds::ads::ResourceType;

fn objects(short: &str) -> Vec<Arc<Object>> {
    let file = Arc::new(PathBuf::from("mesh.yaml"));
    let objects = document::parse(&file, &documents(short)).unwrap();
    objects
        .into_iter()
        .map(|(_, object)| Arc::new(object))
        .collect()
}

/// Services of all sorts; the two headless ones are over the same workload.
const MESH: &str = "
service web: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
service v1: {clusterIP: 10.96.0.2, selector: {app: web}, ports: [{name: http, port: 80}]}
service db: {clusterIP: 10.96.0.3, ports: [{name: tcp-db, port: 5432}]}
service one: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80}]}
service two: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80}]}
workload a {app: web}: {addresses: [10.0.0.1], serviceAccount: web}
workload b {app: web}: {addresses: [10.0.0.2]}
route r: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: v1, port: 80}]}]}
";

#[test]
fn a_change_translates_what_it_touches_and_gives_what_all_at_once_gives() {
    let mut builder = MeshBuilder::new(Arc::new(settings()));
    let all = objects(MESH);
    let mut mesh = Arc::new(builder.build());
    let key = OutboundKey::of(&mesh, &cart(&["10.0.0.9"]));
    let mut outbound = Outbound::new(&mesh, key.clone());
    // Each object comes, goes and comes back, in both orders.
    let forth = all.iter().map(|object| (object, true));
    let again = all
        .iter()
        .flat_map(|object| [(object, false), (object, true)]);
    let back = all.iter().rev().map(|object| (object, false));
    let build_up = all.iter().rev().map(|object| (object, true));
    for (object, comes) in forth.chain(again).chain(back).chain(build_up) {
        if comes {
            builder.set(Source::Cluster, Arc::clone(object));
        } else {
            builder.remove(&object.reference());
        }
        mesh = Arc::new(builder.build());
        outbound.update(&mesh);
        let fresh = Outbound::new(&mesh, key.clone());
        for kind in ResourceType::ALL {
            let (found, expected) = (outbound.kind(kind), fresh.kind(kind));
            assert_eq!(
                found,
                expected,
                "{kind} after {} {comes}",
                object.reference()
            );
        }
        assert_eq!(
            outbound.origins(),
            fresh.origins(),
            "{} {comes}",
            object.reference()
        );
    }
    assert_eq!(mesh.services.len(), 5);
}

#[test]
fn kinds_of_which_nothing_changed_keep_their_allocation() {
    let mut builder = MeshBuilder::new(Arc::new(settings()));
    let slice = |ready: bool| {
        format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: db-1, namespace: shop, labels: {{kubernetes.io/service-name: db}}}}
addressType: IPv4
endpoints: [{{addresses: [10.0.0.7], conditions: {{ready: {ready}}}}}]
ports: [{{name: tcp-db, port: 5432}}]
"
        )
    };
    let mut set = |text: &str| {
        for object in objects(text) {
            builder.set(Source::Cluster, object);
        }
        Arc::new(builder.build())
    };
    let mesh = set(&format!("{MESH}{}", slice(true)));
    let key = OutboundKey::of(&mesh, &cart(&["10.0.0.9"]));
    let mut outbound = Outbound::new(&mesh, key);
    let kinds = |outbound: &Outbound| ResourceType::ALL.map(|kind| Arc::clone(outbound.kind(kind)));
    let before = kinds(&outbound);
    outbound.update(&set(&slice(false)));
    assert_eq!(outbound.translated(), 1);
    let after = kinds(&outbound);
    for (kind, (before, after)) in ResourceType::ALL.iter().zip(before.iter().zip(&after)) {
        let same = Arc::ptr_eq(before, after);
        assert_eq!(same, *kind != ResourceType::Endpoint, "{kind}");
    }
    // A route of one service, and a service that routes may lead to.
    let moved = "route r: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: db, port: 5432}]}]}";
    outbound.update(&set(moved));
    assert_eq!(outbound.translated(), 1);
}
