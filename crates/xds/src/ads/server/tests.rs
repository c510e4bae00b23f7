use std::sync::Arc;

use super::*;
use crate::ads::ResourceType::{Cluster, Endpoint, Listener, Secret};
use crate::pb::envoy::config::cluster::v3::Cluster as ClusterProto;
use crate::pb::envoy::config::cluster::v3::cluster::EdsClusterConfig;
use crate::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::pb::google::rpc::Status;

/// A resource; `detail` changes its version. (That every kind is a Cluster inside matters to no
/// server: of the others it does not look inside.)
fn resource(kind: ResourceType, name: &str, detail: &str) -> Versioned {
    let proto = ClusterProto {
        name: name.to_owned(),
        alt_stat_name: detail.to_owned(),
        ..Default::default()
    };
    Versioned::new(kind, &proto)
}

fn resources(kind: ResourceType, all: &[(&str, &str)]) -> Arc<Resources> {
    let entry = |(name, detail): &(&str, &str)| (name.to_string(), resource(kind, name, detail));
    Arc::new(all.iter().map(entry).collect())
}

fn set(version: &str) -> ResourceSet {
    ResourceSet::new(version)
        .with(Cluster, resources(Cluster, &[("a", "1"), ("b", "1")]))
        .with(Endpoint, resources(Endpoint, &[("a", "1"), ("b", "1")]))
        .with(Listener, resources(Listener, &[("l", "1")]))
}

fn subscribe(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn unsubscribe(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_unsubscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    }
}

/// What a response says: its kind, what it adds, what it removes.
fn said(response: &DeltaDiscoveryResponse) -> (ResourceType, Vec<&str>, Vec<&str>) {
    (
        ResourceType::of_type_url(&response.type_url).unwrap(),
        response
            .resources
            .iter()
            .map(|each| each.name.as_str())
            .collect(),
        response
            .removed_resources
            .iter()
            .map(String::as_str)
            .collect(),
    )
}

/// All responses until the stream waits, each acknowledged.
fn drain(stream: &mut DeltaStream) -> Vec<DeltaDiscoveryResponse> {
    let mut all = Vec::new();
    while let Some(response) = stream.next_response() {
        stream.on_request(ack(&response));
        all.push(response);
    }
    all
}

#[test]
fn delta_sends_what_was_asked_for_and_then_only_differences() {
    let mut stream = DeltaStream::new("me", Arc::new(set("1")));
    assert!(stream.next_response().is_none(), "nothing before a request");
    stream.on_request(subscribe(Listener, &[]));
    stream.on_request(subscribe(Cluster, &[]));
    stream.on_request(subscribe(Endpoint, &["b", "nowhere"]));
    let first = drain(&mut stream);
    let all: Vec<_> = first.iter().map(said).collect();
    assert_eq!(
        all,
        [
            (Cluster, vec!["a", "b"], vec![]),
            (Endpoint, vec!["b"], vec!["nowhere"]),
            (Listener, vec!["l"], vec![]),
        ]
    );
    assert_eq!(first[0].system_version_info, "1");
    assert_eq!(first[0].control_plane.as_ref().unwrap().identifier, "me");

    // Equal resources in new sets are not sent, whoever made them.
    stream.on_resources(Arc::new(set("2")));
    assert!(stream.next_response().is_none());

    // `b` goes and `c` comes, and the listener points at `c`: what is gone goes last.
    let next = set("3")
        .with(Cluster, resources(Cluster, &[("a", "1"), ("c", "1")]))
        .with(Endpoint, resources(Endpoint, &[("a", "2")]))
        .with(Listener, resources(Listener, &[("l", "2")]));
    stream.on_resources(Arc::new(next));
    let responses = drain(&mut stream);
    let all: Vec<_> = responses.iter().map(said).collect();
    assert_eq!(
        all,
        [
            (Cluster, vec!["c"], vec![]),
            (Listener, vec!["l"], vec![]),
            (Cluster, vec![], vec!["b"]),
            (Endpoint, vec![], vec!["b"]),
        ]
    );
}

/// A client warms a changed cluster with endpoints that it does not ask for again.
#[test]
fn delta_sends_the_endpoints_of_a_changed_cluster_again() {
    let cluster = |detail: &str| {
        let proto = ClusterProto {
            name: "a".to_owned(),
            alt_stat_name: detail.to_owned(),
            eds_cluster_config: Some(EdsClusterConfig {
                service_name: "b".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        Arc::new([("a".to_owned(), Versioned::new(Cluster, &proto))].into())
    };
    let mut stream = DeltaStream::new("me", Arc::new(set("1").with(Cluster, cluster("1"))));
    stream.on_request(subscribe(Cluster, &[]));
    stream.on_request(subscribe(Endpoint, &["b"]));
    drain(&mut stream);
    stream.on_resources(Arc::new(set("2").with(Cluster, cluster("2"))));
    let responses = drain(&mut stream);
    let all: Vec<_> = responses.iter().map(said).collect();
    let wanted = [(Cluster, vec!["a"], vec![]), (Endpoint, vec!["b"], vec![])];
    assert_eq!(all, wanted);
}

#[test]
fn delta_has_one_unanswered_response_of_a_kind() {
    let mut stream = DeltaStream::new("me", Arc::new(set("1")));
    stream.on_request(subscribe(Cluster, &[]));
    let first = stream.next_response().unwrap();
    for (version, detail) in [("2", "2"), ("3", "3")] {
        let resources = resources(Cluster, &[("a", detail)]);
        stream.on_resources(Arc::new(set(version).with(Cluster, resources)));
        assert!(
            stream.next_response().is_none(),
            "until the first is answered"
        );
    }
    assert_eq!(stream.on_request(ack(&first)).unwrap().refusal, None);
    assert_eq!(
        stream.on_request(ack(&first)),
        None,
        "a nonce is answered once"
    );
    let next = stream.next_response().unwrap();
    assert_eq!(said(&next), (Cluster, vec!["a"], vec![]));
    assert_eq!(next.system_version_info, "3");

    // A refusal is told, names what was refused, and is not answered by sending the same again.
    let mut nack = ack(&next);
    nack.error_detail = Some(Status {
        message: "a: no".to_owned(),
        ..Default::default()
    });
    let answer = stream.on_request(nack).unwrap();
    assert_eq!(answer.refusal.as_deref(), Some("a: no"));
    assert_eq!(
        (answer.version.as_str(), answer.names.as_slice()),
        ("3", &["a".to_owned()][..])
    );
    assert_eq!(said(&drain(&mut stream)[0]), (Cluster, vec![], vec!["b"]));
    assert!(stream.next_response().is_none());
}

#[test]
fn delta_takes_up_where_an_earlier_stream_ended() {
    let mut stream = DeltaStream::new("me", Arc::new(set("1")));
    let version = |name| resource(Cluster, name, "1").version.to_string();
    let mut request = subscribe(Cluster, &["a", "b"]);
    request.initial_resource_versions = [
        ("a".to_owned(), version("a")),
        ("b".to_owned(), "old".to_owned()),
    ]
    .into();
    stream.on_request(request);
    let mut listeners = subscribe(Listener, &[]);
    listeners.initial_resource_versions = [("gone".to_owned(), "1".to_owned())].into();
    stream.on_request(listeners);
    let responses = drain(&mut stream);
    let all: Vec<_> = responses.iter().map(said).collect();
    assert_eq!(
        all,
        [
            (Cluster, vec!["b"], vec![]),
            (Listener, vec!["l"], vec!["gone"])
        ]
    );
}

#[test]
fn delta_follows_subscriptions() {
    let mut stream = DeltaStream::new("me", Arc::new(set("1")));
    let mut step = |request| {
        stream.on_request(request);
        let responses = drain(&mut stream);
        let all: Vec<String> = responses
            .iter()
            .map(|each| format!("{:?}", (said(each).1, said(each).2)))
            .collect();
        all.join(" ")
    };
    // A first request without names means everything only for clusters and listeners.
    assert_eq!(step(subscribe(Endpoint, &[])), "");
    assert_eq!(step(subscribe(Endpoint, &["a"])), r#"(["a"], [])"#);
    // Again: the client wants it again.
    assert_eq!(step(subscribe(Endpoint, &["a"])), r#"(["a"], [])"#);
    assert_eq!(step(unsubscribe(Endpoint, &["a"])), "");
    assert_eq!(
        step(subscribe(Endpoint, &["a", "b"])),
        r#"(["a", "b"], [])"#
    );
    assert_eq!(step(subscribe(Cluster, &["b"])), r#"(["b"], [])"#);
    assert_eq!(step(subscribe(Cluster, &["*"])), r#"(["a"], [])"#);
    assert_eq!(step(unsubscribe(Cluster, &["*"])), "");
    assert_eq!(step(subscribe(Cluster, &["*"])), r#"(["a"], [])"#);
    // A kind that we do not have: nothing of it exists.
    let strange = DeltaDiscoveryRequest {
        type_url: "x/y.Z".to_owned(),
        ..subscribe(Cluster, &["q"])
    };
    stream.on_request(strange);
    let response = stream.next_response().unwrap();
    assert_eq!(
        (response.type_url.as_str(), response.removed_resources),
        ("x/y.Z", vec!["q".to_owned()])
    );
    assert_eq!(stream.next_response(), None);

    let mut empty = DeltaStream::new("me", Arc::new(ResourceSet::new("0")));
    empty.on_request(subscribe(Cluster, &[]));
    assert_eq!(
        drain(&mut empty).len(),
        1,
        "a client that starts waits for an answer"
    );
}

#[test]
fn delta_splits_what_is_large() {
    let detail = "x".repeat(1 << 20);
    let names: Vec<String> = (0..7).map(|at| format!("c{at}")).collect();
    let all: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), detail.as_str()))
        .collect();
    let set = ResourceSet::new("1").with(Cluster, resources(Cluster, &all));
    let mut stream = DeltaStream::new("me", Arc::new(set));
    stream.on_request(subscribe(Cluster, &[]));
    let responses = drain(&mut stream);
    let sizes: Vec<usize> = responses.iter().map(|each| each.resources.len()).collect();
    assert_eq!(sizes, [2, 2, 2, 1]);
}

#[test]
fn state_of_the_world_serves_secrets_by_name() {
    let secrets =
        |all: &[(&str, &str)]| Arc::new(ResourceSet::new("1").with(Secret, resources(Secret, all)));
    let request = |names: &[&str], answer: Option<&DiscoveryResponse>, refusal: Option<&str>| {
        DiscoveryRequest {
            resource_names: names.iter().map(ToString::to_string).collect(),
            response_nonce: answer
                .map(|answer| answer.nonce.clone())
                .unwrap_or_default(),
            error_detail: refusal.map(|text| Status {
                message: text.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    };
    let mut stream = SotwStream::new(Secret, "me", secrets(&[]));
    assert_eq!(stream.on_request(request(&["default"], None, None)), None);
    assert_eq!(
        stream.next_response(),
        None,
        "what does not exist yet is waited for"
    );
    stream.on_resources(secrets(&[("default", "1"), ("ROOTCA", "1")]));
    let first = stream.next_response().unwrap();
    assert_eq!(
        (first.resources.len(), first.type_url.as_str()),
        (1, Secret.type_url())
    );
    assert_eq!(stream.next_response(), None);

    // Out of date: it does not answer the response.
    assert_eq!(stream.on_request(request(&["ROOTCA"], None, None)), None);
    let answer = stream
        .on_request(request(&["ROOTCA", "default"], Some(&first), None))
        .unwrap();
    assert_eq!(answer.refusal, None);
    let second = stream.next_response().unwrap();
    assert_eq!(second.resources.len(), 2);
    let refused = request(&["ROOTCA", "default"], Some(&second), Some("no"));
    assert_eq!(
        stream.on_request(refused).unwrap().refusal.as_deref(),
        Some("no")
    );
    assert_eq!(
        stream.next_response(),
        None,
        "what was refused is not sent again"
    );
    stream.on_resources(secrets(&[("default", "2"), ("ROOTCA", "1")]));
    let third = stream.next_response().unwrap();
    assert_ne!(third.version_info, second.version_info);

    // A client that comes back with the newest version has it.
    let mut back = SotwStream::new(Secret, "me", secrets(&[("default", "2"), ("ROOTCA", "1")]));
    let mut request = request(&["default", "ROOTCA"], None, None);
    request.version_info = third.version_info;
    back.on_request(request);
    assert_eq!(back.next_response(), None);
}
