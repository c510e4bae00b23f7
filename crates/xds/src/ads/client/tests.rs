use std::time::{Duration, Instant};

use prost::Message;

use super::*;
use crate::ads::ResourceType::{self, Cluster, Endpoint, Listener, Secret};
use crate::pb::envoy::config::cluster::v3::Cluster as ClusterProto;
use crate::pb::envoy::config::core::v3::Node;
use crate::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    Resource as Wrapper,
};
use crate::pb::google::protobuf::{Any, Duration as ProtoDuration};

fn session(variant: Variant) -> Session {
    let mut session = Session::new(
        variant,
        Node {
            id: "sidecar~me".to_owned(),
            ..Default::default()
        },
    );
    session.connected();
    session
}

fn body(resource_type: ResourceType, name: &str) -> Any {
    // The name is field 1 in both.
    let value = match resource_type {
        Endpoint => ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
        _ => ClusterProto {
            name: name.to_owned(),
            ..Default::default()
        }
        .encode_to_vec(),
    };
    Any {
        type_url: resource_type.type_url().to_owned(),
        value,
    }
}

/// A state-of-the-world response: type, version, nonce, names.
fn sotw(kind: ResourceType, version: &str, nonce: &str, names: &[&str]) -> DiscoveryResponse {
    DiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        version_info: version.to_owned(),
        nonce: nonce.to_owned(),
        resources: names.iter().map(|name| body(kind, name)).collect(),
        ..Default::default()
    }
}

/// A delta response: type, nonce, added as (name, version), removed.
fn delta(
    kind: ResourceType,
    nonce: &str,
    added: &[(&str, &str)],
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    let wrapper = |&(name, version): &(&str, &str)| Wrapper {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(body(kind, name)),
        ..Default::default()
    };
    DeltaDiscoveryResponse {
        type_url: kind.type_url().to_owned(),
        nonce: nonce.to_owned(),
        resources: added.iter().map(wrapper).collect(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn sent_sotw(session: &mut Session) -> Vec<DiscoveryRequest> {
    let requests = std::iter::from_fn(|| session.next_request());
    requests
        .map(|request| match request {
            Request::StateOfTheWorld(request) => request,
            Request::Delta(_) => panic!("a delta request on another stream"),
        })
        .collect()
}

fn sent_delta(session: &mut Session) -> Vec<DeltaDiscoveryRequest> {
    let requests = std::iter::from_fn(|| session.next_request());
    requests
        .map(|request| match request {
            Request::Delta(request) => request,
            Request::StateOfTheWorld(_) => panic!("another request on a delta stream"),
        })
        .collect()
}

fn names(update: &Update) -> Vec<&str> {
    update
        .added
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

fn rejection(resource: &str, reason: &str) -> Rejection {
    Rejection {
        resource: resource.to_owned(),
        reason: reason.to_owned(),
    }
}

#[test]
fn state_of_the_world_acks_and_nacks() {
    let mut session = session(Variant::StateOfTheWorld);
    session.set_subscription(Listener, Subscription::everything());
    session.set_subscription(Cluster, Subscription::everything());
    let first = sent_sotw(&mut session);
    let types: Vec<&str> = first
        .iter()
        .map(|request| request.type_url.as_str())
        .collect();
    assert_eq!(types, [Cluster.type_url(), Listener.type_url()]);
    assert_eq!(first[0].node.as_ref().unwrap().id, "sidecar~me");
    assert_eq!(
        first[1].node, None,
        "the node goes into the first request only"
    );
    assert!(
        first[0].resource_names.is_empty(),
        "a first request without names is a wildcard"
    );

    let now = Instant::now();
    let update = session
        .on_response(sotw(Cluster, "1", "n1", &["a", "b"]), now)
        .unwrap();
    assert_eq!(names(&update), ["a", "b"]);
    assert!(
        sent_sotw(&mut session).is_empty(),
        "no answer before the outcome"
    );
    session.outcome(update.ticket.unwrap(), vec![]);
    let ack = sent_sotw(&mut session);
    assert_eq!(
        (ack[0].version_info.as_str(), ack[0].response_nonce.as_str()),
        ("1", "n1")
    );
    assert_eq!(ack[0].error_detail, None);

    // `b` goes, `c` is bad, `d` is there twice: what is bad is not gone.
    let update = session
        .on_response(sotw(Cluster, "2", "n2", &["a", "c", "d", "d"]), now)
        .unwrap();
    assert_eq!(
        (names(&update), update.removed.as_slice()),
        (vec!["a", "c"], &["b".to_owned()][..])
    );
    session.outcome(
        update.ticket.unwrap(),
        vec![rejection("c", "lb_policy: no")],
    );
    let nack = sent_sotw(&mut session);
    assert_eq!(
        (
            nack[0].version_info.as_str(),
            nack[0].response_nonce.as_str()
        ),
        ("1", "n2")
    );
    let detail = nack[0].error_detail.as_ref().unwrap();
    assert_eq!(
        detail.message,
        "c: lb_policy: no; d: the response has two of this name"
    );

    // An empty response deletes all that was accepted: `a` only.
    let update = session
        .on_response(sotw(Cluster, "3", "n3", &[]), now)
        .unwrap();
    assert_eq!(update.removed, ["a"]);
    session.outcome(update.ticket.unwrap(), vec![]);
    assert_eq!(sent_sotw(&mut session)[0].version_info, "3");

    // The version outlives the stream; the nonce, and an outcome still owed, do not.
    let owed = session
        .on_response(sotw(Cluster, "4", "n4", &["e"]), now)
        .unwrap();
    session.disconnected();
    session.outcome(owed.ticket.unwrap(), vec![]);
    assert!(sent_sotw(&mut session).is_empty());
    session.connected();
    let again = sent_sotw(&mut session);
    assert_eq!(again.len(), 2);
    assert_eq!(
        (
            again[0].version_info.as_str(),
            again[0].response_nonce.as_str()
        ),
        ("4", "")
    );
    assert!(again[0].node.is_some());
}

#[test]
fn state_of_the_world_names() {
    let mut session = session(Variant::StateOfTheWorld);
    assert!(
        sent_sotw(&mut session).is_empty(),
        "nothing is asked for without a name"
    );
    session.set_subscription(Endpoint, Subscription::named(["a", "b"]));
    session.subscribe(Endpoint, ["c".to_owned()]);
    let requests = sent_sotw(&mut session);
    assert_eq!(requests.len(), 1, "names that come together leave together");
    assert_eq!(requests[0].resource_names, ["a", "b", "c"]);

    // Absence deletes nothing here, what was not asked for is dropped, and a change of names waits
    // for the answer, which has it.
    let now = Instant::now();
    let update = session
        .on_response(sotw(Endpoint, "1", "n1", &["a", "x"]), now)
        .unwrap();
    assert_eq!((names(&update), update.removed.len()), (vec!["a"], 0));
    session.unsubscribe(Endpoint, ["b".to_owned()]);
    assert!(sent_sotw(&mut session).is_empty());
    session.outcome(update.ticket.unwrap(), vec![]);
    let requests = sent_sotw(&mut session);
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].resource_names, ["a", "c"]);

    // Two responses before an outcome: only the last nonce is answered.
    let one = session
        .on_response(sotw(Endpoint, "2", "n2", &["a"]), now)
        .unwrap();
    let two = session
        .on_response(sotw(Endpoint, "3", "n3", &["c"]), now)
        .unwrap();
    session.outcome(one.ticket.unwrap(), vec![]);
    assert!(sent_sotw(&mut session).is_empty());
    session.outcome(two.ticket.unwrap(), vec![]);
    assert_eq!(sent_sotw(&mut session)[0].response_nonce, "n3");

    session.set_subscription(Endpoint, Subscription::default());
    let requests = sent_sotw(&mut session);
    assert!(
        requests[0].resource_names.is_empty(),
        "an empty list unsubscribes"
    );
    assert!(sent_sotw(&mut session).is_empty());
}

#[test]
fn delta_subscriptions() {
    let mut session = session(Variant::Delta);
    session.set_subscription(Cluster, Subscription::everything());
    session.set_subscription(Listener, Subscription::named(["l1"]));
    let first = sent_delta(&mut session);
    assert!(first[0].resource_names_subscribe.is_empty());
    assert_eq!(first[1].resource_names_subscribe, ["l1"]);
    assert!(first[0].node.is_some() && first[1].node.is_none());

    let now = Instant::now();
    let update = session
        .on_delta_response(
            delta(Listener, "n1", &[("l1", "v1"), ("other", "v1")], &[]),
            now,
        )
        .unwrap();
    assert_eq!(names(&update), ["l1"]);
    // A change of the subscription goes by itself, with no nonce, and not in the answer.
    session.subscribe(Listener, ["l2".to_owned()]);
    session.outcome(update.ticket.unwrap(), vec![]);
    let requests = sent_delta(&mut session);
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].response_nonce, "n1");
    assert!(requests[0].resource_names_subscribe.is_empty());
    assert_eq!(requests[1].response_nonce, "");
    assert_eq!(requests[1].resource_names_subscribe, ["l2"]);

    // What does not change the set sends nothing.
    session.subscribe(Listener, ["l2".to_owned()]);
    session.set_subscription(Listener, Subscription::named(["l1", "l2"]));
    assert!(sent_delta(&mut session).is_empty());
    // But a name that was given up and is wanted again must come again: we have forgotten it.
    session.unsubscribe(Listener, ["l1".to_owned()]);
    session.subscribe(Listener, ["l1".to_owned()]);
    assert_eq!(sent_delta(&mut session)[0].resource_names_subscribe, ["l1"]);
    session.set_subscription(
        Listener,
        Subscription {
            wildcard: true,
            ..Subscription::named(["l2"])
        },
    );
    let requests = sent_delta(&mut session);
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert_eq!(requests[0].resource_names_unsubscribe, ["l1"]);
}

#[test]
fn delta_keeps_versions_over_a_reconnect() {
    let mut session = session(Variant::Delta);
    session.seed(Cluster, "from-disk", "v0".to_owned());
    session.set_subscription(Cluster, Subscription::everything());
    let first = sent_delta(&mut session);
    assert_eq!(first[0].initial_resource_versions["from-disk"], "v0");

    let now = Instant::now();
    let added = [("a", "1"), ("b", ""), ("bad", "1")];
    let update = session
        .on_delta_response(delta(Cluster, "n1", &added, &["gone"]), now)
        .unwrap();
    assert_eq!(update.removed, ["gone"]);
    session.outcome(update.ticket.unwrap(), vec![rejection("bad", "name: no")]);
    let nack = sent_delta(&mut session);
    assert_eq!(
        nack[0].error_detail.as_ref().unwrap().message,
        "bad: name: no"
    );
    assert_eq!(nack[0].response_nonce, "n1");
    // Each delta is answered, in order, also when the next is there already.
    let one = session
        .on_delta_response(delta(Cluster, "n2", &[("a", "2")], &[]), now)
        .unwrap();
    let two = session
        .on_delta_response(delta(Cluster, "n3", &[], &["from-disk"]), now)
        .unwrap();
    session.outcome(one.ticket.unwrap(), vec![]);
    session.outcome(two.ticket.unwrap(), vec![]);
    let nonces: Vec<String> = sent_delta(&mut session)
        .into_iter()
        .map(|request| request.response_nonce)
        .collect();
    assert_eq!(nonces, ["n2", "n3"]);

    session.disconnected();
    session.connected();
    let again = sent_delta(&mut session);
    let mut versions: Vec<(String, String)> = again[0]
        .initial_resource_versions
        .clone()
        .into_iter()
        .collect();
    versions.sort();
    // The bad one is not held, so it will come again; one without a version is held as "".
    let expected = [("a", "2"), ("b", "")].map(|(name, v)| (name.to_owned(), v.to_owned()));
    assert_eq!(versions, expected);
}

#[test]
fn malformed_resources_are_refused_one_by_one() {
    let mut session = session(Variant::Delta);
    session.set_subscription(Secret, Subscription::named(["a", "b"]));
    assert_eq!(sent_delta(&mut session).len(), 1);
    let mut response = delta(Secret, "n", &[("a", "1"), ("b", "1"), ("", "1")], &[]);
    response.resources[0].resource = Some(body(Cluster, "a"));
    response.resources[1].resource.as_mut().unwrap().value = vec![0x0a, 200];
    response.resources[2].resource = Some(body(Secret, ""));
    let update = session.on_delta_response(response, Instant::now()).unwrap();
    assert!(update.added.is_empty());
    let names: Vec<&str> = update
        .refused
        .iter()
        .map(|rejection| rejection.resource.as_str())
        .collect();
    assert_eq!(names, ["a", "b", ""]);
    session.outcome(update.ticket.unwrap(), vec![]);
    let requests = sent_delta(&mut session);
    assert!(
        requests.last().unwrap().error_detail.is_some(),
        "{requests:?}"
    );

    let unknown = DeltaDiscoveryResponse {
        type_url: "x/y.Z".to_owned(),
        ..Default::default()
    };
    let error = session
        .on_delta_response(unknown, Instant::now())
        .unwrap_err();
    assert!(error.to_string().contains("x/y.Z"));
}

#[test]
fn resources_live_as_long_as_they_are_told() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut session = session(Variant::Delta);
    session.set_subscription(Cluster, Subscription::everything());
    let mut response = delta(Cluster, "n1", &[("a", "1"), ("b", "1")], &[]);
    response.resources[0].ttl = Some(ProtoDuration {
        seconds: 10,
        nanos: 0,
    });
    let update = session.on_delta_response(response, start).unwrap();
    session.outcome(update.ticket.unwrap(), vec![]);
    assert_eq!(session.next_expiry(), Some(after(10)));

    let mut heartbeat = delta(Cluster, "n2", &[("a", "1")], &[]);
    heartbeat.resources[0].resource = None;
    heartbeat.resources[0].ttl = Some(ProtoDuration {
        seconds: 10,
        nanos: 0,
    });
    let update = session.on_delta_response(heartbeat, after(8)).unwrap();
    assert!(update.added.is_empty() && update.refused.is_empty());
    assert!(session.expire(after(10)).is_empty());
    let updates = session.expire(after(18));
    assert_eq!(
        (updates[0].removed.as_slice(), updates[0].ticket),
        (&["a".to_owned()][..], None)
    );
    assert_eq!(session.next_expiry(), None);
}

#[test]
fn backoff_grows_to_its_limit_and_starts_anew() {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let waits: Vec<u128> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
    assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    assert_eq!(backoff.next(0.0), Duration::ZERO);
    for _ in 0..100 {
        backoff.next(0.5);
    }
    assert_eq!(backoff.next(0.5), Duration::from_secs(15));
    backoff.reset();
    assert_eq!(backoff.next(1.0), Duration::from_millis(500));
}
