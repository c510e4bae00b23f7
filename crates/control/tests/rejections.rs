//! What a proxy refuses is told in the status of the object that it was made from.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use std::sync::Arc;
use std::time::SystemTime;

use outrider_control::authenticate::{Authenticator, Tokens};
use outrider_control::push::Publisher;
use outrider_control::registry::ObjectRef;
use outrider_control::status;
use outrider_identity::token::AUDIENCE;
use outrider_identity::{ServiceAccount, TokenSigner};
use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{Answer, Source as _};
use outrider_xds::pb::envoy::config::core::v3::Node;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tonic::Extensions;

const MESH: &str = "
service web: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
service v1: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}]}
route r: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: v1, port: 80}]}]}
";

/// The status that a route is to have, and how many refuse it.
fn status_of(publisher: &Publisher, present: Option<&Value>, route: &ObjectRef) -> Option<Value> {
    let rejecting = publisher.refusals().get(route).copied();
    let mesh = publisher.mesh();
    let verdict = &mesh.verdicts()[route];
    let now = OffsetDateTime::UNIX_EPOCH;
    status::wanted(present, verdict, rejecting.unwrap_or_default(), now)
}

fn programmed(status: &Value) -> [&Value; 3] {
    let conditions = status["parents"][0]["conditions"].as_array().unwrap();
    let mut conditions = conditions.iter();
    let condition = conditions.find(|one| one["type"] == "Programmed").unwrap();
    ["status", "reason", "message"].map(|field| &condition[field])
}

#[tokio::test]
async fn a_refusal_is_told_of_its_object_until_it_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let signer = TokenSigner::open_or_create(&folder.path().join("ca")).unwrap();
    let tokens = Tokens::Signed(signer.verifier());
    let trust_domain = common::settings().trust_domain;
    let authenticator = Authenticator::new(tokens, trust_domain);
    let publisher = Publisher::new(authenticator, common::mesh(MESH), Arc::default());
    let account = ServiceAccount::new("shop", "cart").unwrap();
    let hour = common::control::HOUR;
    let token = signer.sign(&account, AUDIENCE, hour, SystemTime::now());
    let metadata = common::control::bearer(&format!("Bearer {}", token.unwrap()));
    let admit = async |pod: &str, address: &str| {
        let node = Node {
            id: format!("sidecar~{address}~{pod}.shop~shop.svc.cluster.local"),
            ..Node::default()
        };
        let extensions = Extensions::default();
        let caller = publisher.authenticate(&metadata, &extensions).await;
        publisher.admit(node, caller.unwrap()).await.unwrap()
    };
    let one = admit("cart-1", "10.0.0.8").await;
    let other = admit("cart-2", "10.0.0.9").await;
    let verdicts = Arc::clone(publisher.mesh().verdicts());
    let mut routes = verdicts.keys().filter(|object| object.kind == "HTTPRoute");
    let route = routes.next().unwrap();

    let first = status_of(&publisher, None, route).unwrap();
    let fine = [
        json!("True"),
        json!("Programmed"),
        json!("no proxy refused it"),
    ];
    assert_eq!(programmed(&first), fine.each_ref());

    // A text that names no resource refuses all of its kind, and the route is part of one.
    let kind = ResourceType::Route;
    let set = publisher.watch(&one).borrow().clone();
    let names: Vec<String> = set
        .kind(kind)
        .iter()
        .map(|(name, _)| name.to_string())
        .collect();
    let answer = |refusal: Option<String>| Answer {
        resource_type: kind,
        version: "1".to_owned(),
        names: names.clone(),
        refusal,
    };
    assert!(!names.is_empty());
    let told = publisher.changed();
    let mut status = first.clone();
    for (client, message) in [
        (&one, "1 proxy refused it"),
        (&other, "2 proxies refused it"),
    ] {
        publisher.answered(client, answer(Some("no".to_owned())));
        status = status_of(&publisher, Some(&status), route).unwrap();
        let wanted = [json!("False"), json!("Rejected"), json!(message)];
        assert_eq!(programmed(&status), wanted.each_ref());
        assert_eq!(
            status_of(&publisher, Some(&status), route),
            None,
            "it is so already"
        );
    }
    assert!(told.has_changed().unwrap(), "whoever writes it is told");

    // One takes it, the other goes.
    publisher.answered(&one, answer(None));
    drop(other);
    status = status_of(&publisher, Some(&status), route).unwrap();
    assert_eq!(programmed(&status), fine.each_ref());
}
