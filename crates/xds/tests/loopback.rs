//! Clients and servers of this crate over real gRPC on loopback.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrider_xds::ads::ResourceType::{self, Cluster, Listener, Secret};
use outrider_xds::ads::client::{
    ChannelFactory, ConnectError, Event, Handle, Options, Rejection, Service, Subscription, Update,
    Variant, bearer, channel, start,
};
use outrider_xds::ads::server::{self, Answer, ResourceSet, Resources, Source, Versioned};
use outrider_xds::certificate::{
    Authority, CertificateRequest, CertificateResponse, CertificateService, create_certificate,
};
use outrider_xds::pb::envoy::config::cluster::v3::Cluster as ClusterProto;
use outrider_xds::pb::envoy::config::core::v3::Node;
use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3::Secret as SecretProto;
use outrider_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use outrider_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrider_xds::sds;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

struct Mesh {
    set: watch::Receiver<Arc<ResourceSet>>,
    answers: mpsc::UnboundedSender<(String, Answer)>,
}

fn authorized(metadata: &MetadataMap) -> Result<(), Status> {
    match metadata.get("authorization").map(|value| value.as_bytes()) {
        Some(b"Bearer good") => Ok(()),
        _ => Err(Status::unauthenticated("the token is not good")),
    }
}

#[async_trait]
impl Source for Mesh {
    type Caller = ();
    type Client = String;

    async fn authenticate(&self, metadata: &MetadataMap, _: &Extensions) -> Result<(), Status> {
        authorized(metadata)
    }

    async fn admit(&self, node: Node, (): ()) -> Result<String, Status> {
        Ok(node.id)
    }

    fn watch(&self, _client: &String) -> watch::Receiver<Arc<ResourceSet>> {
        self.set.clone()
    }

    fn answered(&self, client: &String, answer: Answer) {
        let _ = self.answers.send((client.clone(), answer));
    }
}

fn clusters(all: &[(&str, &str)]) -> Arc<Resources> {
    let entry = |(name, detail): &(&str, &str)| {
        let proto = ClusterProto {
            name: name.to_string(),
            alt_stat_name: detail.to_string(),
            ..Default::default()
        };
        (name.to_string(), Versioned::new(Cluster, &proto))
    };
    Arc::new(all.iter().map(entry).collect())
}

async fn event(events: &mut mpsc::Receiver<Event>) -> Event {
    match tokio::time::timeout(DEADLINE, events.recv()).await {
        Ok(Some(event)) => event,
        Ok(None) => panic!("the client ended"),
        Err(_) => panic!("no event came in time"),
    }
}

async fn update(events: &mut mpsc::Receiver<Event>) -> Update {
    loop {
        match event(events).await {
            Event::Update(update) => return update,
            Event::Connected => {}
            Event::Disconnected { reason, .. } => panic!("disconnected: {reason}"),
        }
    }
}

fn names(update: &Update) -> Vec<&str> {
    update
        .added
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

fn run(options: Options) -> (Handle, mpsc::Receiver<Event>) {
    let (driver, handle, events) = start(options);
    tokio::spawn(driver.run());
    (handle, events)
}

fn node() -> Node {
    Node {
        id: "sidecar~10.0.0.1~a.b~b.svc".to_owned(),
        ..Default::default()
    }
}

/// Whoever is nobody is told so before it has said anything: what it says would take memory.
#[tokio::test]
async fn a_stranger_is_refused_before_its_first_message_is_read() {
    let (_sender, set) = watch::channel(Arc::new(ResourceSet::new("1")));
    let (answers, _answered) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let service = server::service(Arc::new(Mesh { set, answers }), "loopback");
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = channel::tcp(&address).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let silence = tokio_stream::pending::<DeltaDiscoveryRequest>();
    let opened = client.delta_aggregated_resources(silence);
    // Well before a first message would be given up.
    let refused = tokio::time::timeout(Duration::from_secs(10), opened).await;
    let status = refused.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
}

#[tokio::test]
async fn ads_client_and_server_understand_each_other() {
    let first = ResourceSet::new("1").with(Cluster, clusters(&[("a", "1"), ("b", "1")]));
    let (sender, set) = watch::channel(Arc::new(first.clone()));
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mesh = Arc::new(Mesh { set, answers });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let service = server::service(mesh, "loopback");
    let serving = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            }),
    );

    let target = address.clone();
    let factory: ChannelFactory = Arc::new(move || {
        let target = target.clone();
        Box::pin(async move { channel::tcp(&target).await })
    });
    let token = Arc::new(Mutex::new("bad".to_owned()));
    let mut options = Options::new(Service::Aggregated, Variant::Delta, node(), factory);
    let read = Arc::clone(&token);
    options.metadata = Arc::new(move || bearer(&read.lock().unwrap()));
    let (handle, mut events) = run(options.clone());
    handle.set_subscription(Cluster, Subscription::everything());
    handle.set_subscription(Listener, Subscription::named(["no-such"]));

    // The wrong token is refused; the next attempt reads it anew.
    let Event::Disconnected { reason, retry_in } = event(&mut events).await else {
        panic!("expected a refusal")
    };
    assert!(reason.contains("the token is not good"), "{reason}");
    assert!(retry_in <= Duration::from_millis(500), "{retry_in:?}");
    "good".clone_into(&mut token.lock().unwrap());
    let mut update_of_clusters = loop {
        match event(&mut events).await {
            Event::Update(update) => break update,
            Event::Connected | Event::Disconnected { .. } => {}
        }
    };
    assert_eq!(update_of_clusters.resource_type, Cluster);
    assert_eq!(names(&update_of_clusters), ["a", "b"]);
    let update_of_listeners = update(&mut events).await;
    assert_eq!(update_of_listeners.removed, ["no-such"]);
    handle.outcome(update_of_listeners.ticket.unwrap(), vec![]);

    // A refusal reaches the source with the client's name on it.
    let rejection = Rejection {
        resource: "b".to_owned(),
        reason: "lb_policy: no".to_owned(),
    };
    handle.outcome(update_of_clusters.ticket.unwrap(), vec![rejection]);
    let refused = loop {
        let (client, answer) = tokio::time::timeout(DEADLINE, answered.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(client, node().id);
        if let Some(refusal) = answer.refusal {
            break refusal;
        }
    };
    assert_eq!(refused, "b: lb_policy: no");

    // Only what changed is sent; what is gone comes when the rest was answered.
    let next = first
        .with(Cluster, clusters(&[("a", "1"), ("c", "1")]))
        .versioned("2");
    sender.send_replace(Arc::new(next));
    update_of_clusters = update(&mut events).await;
    assert_eq!(
        (names(&update_of_clusters), update_of_clusters.removed.len()),
        (vec!["c"], 0)
    );
    handle.outcome(update_of_clusters.ticket.unwrap(), vec![]);
    update_of_clusters = update(&mut events).await;
    assert_eq!(update_of_clusters.removed, ["b"]);
    handle.outcome(update_of_clusters.ticket.unwrap(), vec![]);

    // The other form of the protocol is refused in words.
    let mut sotw = options.clone();
    sotw.variant = Variant::StateOfTheWorld;
    let (other, mut refused) = run(sotw);
    other.set_subscription(Cluster, Subscription::everything());
    let Event::Disconnected { reason, .. } = event(&mut refused).await else {
        panic!("refusal")
    };
    assert!(reason.contains("DELTA_GRPC"), "{reason}");
    drop(other);

    // The server goes and comes back at the same address: nothing is sent that is held already.
    let _ = stop.send(());
    drop(sender);
    let reason = loop {
        if let Event::Disconnected { reason, .. } = event(&mut events).await {
            break reason;
        }
    };
    assert!(
        reason.contains("the server has ended this stream"),
        "{reason}"
    );
    serving.await.unwrap().unwrap();
    let set = ResourceSet::new("3").with(Cluster, clusters(&[("a", "1"), ("c", "2")]));
    let (_sender, set) = watch::channel(Arc::new(set));
    let (answers, _answered) = mpsc::unbounded_channel();
    let service = server::service(Arc::new(Mesh { set, answers }), "loopback");
    let listener = TcpListener::bind(&address).await.unwrap();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    update_of_clusters = loop {
        match event(&mut events).await {
            Event::Update(update) if update.resource_type == Cluster => break update,
            _ => {}
        }
    };
    assert_eq!(names(&update_of_clusters), ["c"]);
}

#[tokio::test]
async fn secrets_are_served_on_a_unix_socket() {
    let secret = |name: &str| {
        let proto = SecretProto {
            name: name.to_owned(),
            ..Default::default()
        };
        (name.to_owned(), Versioned::new(Secret, &proto))
    };
    let set = |names: &[&str]| {
        let all: Resources = names.iter().map(|name| secret(name)).collect();
        Arc::new(ResourceSet::new("1").with(Secret, Arc::new(all)))
    };
    let (send, receive) = watch::channel(set(&[]));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sds.sock");
    // What a dead process left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = path.clone();
    let serving = tokio::spawn(async move {
        let service = sds::service(receive, "loopback");
        sds::serve_unix(&served, 0o600, service, async {
            stopped.await.unwrap_or(())
        })
        .await
    });

    for variant in [Variant::StateOfTheWorld, Variant::Delta] {
        send.send_replace(set(&[]));
        let path = path.clone();
        let factory: ChannelFactory = Arc::new(move || Box::pin(channel::unix(path.clone())));
        let (handle, mut events) = run(Options::new(Service::Secrets, variant, node(), factory));
        handle.set_subscription(Secret, Subscription::named(["default"]));
        // It may take the server a moment to be there.
        while event(&mut events).await != Event::Connected {}
        send.send_replace(set(&["default", "other"]));
        let got = loop {
            let got = update(&mut events).await;
            handle.outcome(got.ticket.unwrap(), vec![]);
            if !got.added.is_empty() {
                break got;
            }
        };
        assert_eq!(
            (names(&got), got.resource_type),
            (vec!["default"], ResourceType::Secret)
        );
    }

    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let service = sds::service(send.subscribe(), "second");
    let error = sds::serve_unix(&path, 0o600, service, std::future::pending())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("served by another program"),
        "{error}"
    );
    let _ = stop.send(());
    drop(send);
    tokio::time::timeout(DEADLINE, serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!path.exists());
}

struct Signer;

#[async_trait]
impl Authority for Signer {
    async fn create_certificate(
        &self,
        request: CertificateRequest,
        metadata: &MetadataMap,
        _extensions: &Extensions,
    ) -> Result<CertificateResponse, Status> {
        authorized(metadata)?;
        let leaf = format!("signed {} for {} s", request.csr, request.validity_duration);
        Ok(CertificateResponse {
            cert_chain: vec![leaf, "root".to_owned()],
        })
    }
}

#[tokio::test]
async fn certificates_are_signed_for_a_good_token_only() -> Result<(), ConnectError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(CertificateService::new(Arc::new(Signer)))
            .serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let request = CertificateRequest {
        csr: "csr".to_owned(),
        validity_duration: 60,
        metadata: None,
    };
    let channel = channel::tcp(&address).await?;
    let good = bearer("good\n")?;
    let response = create_certificate(channel.clone(), good, request.clone()).await?;
    assert_eq!(response.cert_chain, ["signed csr for 60 s", "root"]);
    let status = create_certificate(channel, MetadataMap::new(), request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
    assert!(!bearer("sec\nret").unwrap_err().to_string().contains("sec"));
    Ok(())
}
