use std::fs;
use std::time::Duration;

use outrider_testkit::certs::Authority;
use outrider_xds::ads::ResourceType;
use outrider_xds::ads::client::{Event, Subscription, start};
use outrider_xds::ads::server::{self, Answer, ResourceSet, Source};
use outrider_xds::sds;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Extensions, Status, async_trait};

use super::*;
use crate::config::build::testing::cluster;
use crate::config::source::Metadata;
use crate::discovery::testing::terminate_tls;
use crate::tls::testing::Authority as TlsAuthority;

const DEADLINE: Duration = Duration::from_secs(20);

fn source(cluster: &str) -> GrpcSource {
    GrpcSource {
        cluster: cluster.into(),
        delta: true,
        authority: "control.test".into(),
        metadata: vec![Metadata {
            name: "clusterid".into(),
            value: "one".into(),
        }],
        max_message_bytes: None,
    }
}

fn dialer(cluster: Cluster, token_file: Option<TokenFile>) -> Dialer {
    Dialer {
        node: Node {
            id: "node".to_owned(),
            ..Default::default()
        },
        aggregated: Some(source(&cluster.name)),
        clusters: [(cluster.name.clone(), Arc::new(cluster))].into(),
        builtin: false,
        token_file,
    }
}

fn endpoints(addresses: &[String]) -> String {
    let endpoints: String = addresses
        .iter()
        .map(|address| format!("      - endpoint: {{address: {{{address}}}}}\n"))
        .collect();
    format!("load_assignment:\n  cluster_name: c\n  endpoints:\n    - lb_endpoints:\n{endpoints}")
}

fn tls(validation: &str) -> String {
    format!(
        "name: c\ntransport_socket:\n  name: tls\n  typed_config:\n    \
         '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n    \
         sni: control.test\n    common_tls_context: {{{validation}}}\n"
    )
}

struct Recorder(
    mpsc::UnboundedSender<MetadataMap>,
    watch::Receiver<Arc<ResourceSet>>,
);

#[async_trait]
impl Source for Recorder {
    type Caller = ();
    type Client = ();

    async fn authenticate(&self, got: &MetadataMap, _: &Extensions) -> Result<(), Status> {
        self.0.send(got.clone()).unwrap();
        Ok(())
    }

    async fn admit(&self, _: Node, (): ()) -> Result<(), Status> {
        Ok(())
    }

    fn watch(&self, (): &()) -> watch::Receiver<Arc<ResourceSet>> {
        self.1.clone()
    }

    fn answered(&self, (): &(), _: Answer) {}
}

async fn first_update(events: &mut mpsc::Receiver<Event>) -> outrider_xds::ads::client::Update {
    loop {
        match tokio::time::timeout(DEADLINE, events.recv()).await {
            Ok(Some(Event::Update(update))) => return update,
            Ok(Some(Event::Disconnected { reason, .. })) => panic!("{reason}"),
            Ok(Some(Event::Connected)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn over_tls_to_the_first_endpoint_that_answers_with_the_token_of_the_moment() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "first\n").unwrap();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let (_set, resources) = watch::channel(Arc::new(ResourceSet::new("1")));
    let service = server::service(Arc::new(Recorder(sender, resources)), "test");
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = plain.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(plain)));
    let authority = TlsAuthority::new();
    let (certificate, key) = authority.issue("spiffe://a/ns/b/sa/control", "control.test");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(terminate_tls(listener, vec![certificate], key, inner));

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = |port| format!("socket_address: {{address: 127.0.0.1, port_value: {port}}}");
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let root = outrider_identity::certificate::certificate_to_pem(&authority.root);
    let validation = |name: &str| {
        let root = serde_json::Value::from(root.as_str());
        tls(&format!(
            "validation_context: {{trusted_ca: {{inline_string: {root}}}, \
             match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {name}}}}}]}}"
        ))
    };
    let places = endpoints(&[address(closed_port), address(port)]);
    let good = cluster(&(validation("control.test") + &places)).unwrap();
    let dialer_of = |cluster| dialer(cluster, Some(TokenFile::new(&token)));
    let options = dialer_of(good).options(&Origin::Ads).unwrap();
    for expected in ["Bearer first", "Bearer second"] {
        let (driver, handle, mut events) = start(options.clone());
        let running = tokio::spawn(driver.run());
        handle.set_subscription(ResourceType::Cluster, Subscription::everything());
        first_update(&mut events).await;
        let got = seen.recv().await.unwrap();
        assert_eq!(got.get("authorization").unwrap(), expected);
        assert_eq!(got.get("clusterid").unwrap(), "one");
        fs::write(&token, "second").unwrap();
        drop(handle);
        running.await.unwrap();
    }

    // Another name than the one demanded: no stream, and no token.
    let wrong = cluster(&(validation("other.test") + &places)).unwrap();
    let (driver, _handle, mut events) = start(dialer_of(wrong).options(&Origin::Ads).unwrap());
    tokio::spawn(driver.run());
    match tokio::time::timeout(DEADLINE, events.recv()).await {
        Ok(Some(Event::Disconnected { reason, .. })) => {
            let both = reason.contains("refused") && reason.contains("TLS");
            assert!(both || reason.contains("certificate"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(seen.try_recv().is_err());
}

#[test]
fn a_token_goes_only_to_a_server_that_is_verified_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "secret").unwrap();
    let root = Authority::new("root").unwrap();
    let root = serde_json::Value::from(root.certificate());
    let ca = format!("trusted_ca: {{inline_string: {root}}}");
    let name = "match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: control.test}}]";
    let hash = format!("verify_certificate_hash: ['{}']", "ab".repeat(32));
    let context = |fields: &str| tls(&format!("validation_context: {{{fields}}}"));
    let table = [
        ("name: c\n".to_owned(), false),
        (tls(""), false),
        (context(&ca), false),
        (context(&format!("{ca}, {name}")), true),
        (context(&hash), true),
        (
            context(&format!(
                "{ca}, {name}, trust_chain_verification: ACCEPT_UNTRUSTED"
            )),
            false,
        ),
    ];
    for (yaml, sent) in table {
        let cluster = cluster(&(yaml.clone() + &endpoints(&[]))).unwrap();
        let dialer = dialer(cluster, Some(TokenFile::new(&token)));
        let options = dialer.options(&Origin::Ads).unwrap();
        let metadata = (options.metadata)().unwrap();
        assert_eq!(metadata.contains_key("authorization"), sent, "{yaml}");
        assert!(metadata.contains_key("clusterid"));
        // Other servers never get it.
        let options = dialer.options(&Origin::Grpc(source("c"))).unwrap();
        assert!(!(options.metadata)().unwrap().contains_key("authorization"));
    }
}

#[tokio::test]
async fn secrets_come_from_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sds.sock");
    let (_set, resources) = watch::channel(Arc::new(ResourceSet::new("7")));
    let serving = path.clone();
    tokio::spawn(async move {
        let service = sds::service(resources, "test");
        sds::serve_unix(&serving, 0o600, service, std::future::pending::<()>()).await
    });
    let pipe = format!("pipe: {{path: {}}}", path.display());
    let cluster = cluster(&("name: c|d\n".to_owned() + &endpoints(&[pipe]))).unwrap();
    let source = GrpcSource {
        authority: "".into(),
        ..source("c|d")
    };
    let options = dialer(cluster, None)
        .options(&Origin::Grpc(source))
        .unwrap();
    let (driver, handle, mut events) = start(options);
    tokio::spawn(driver.run());
    handle.set_subscription(ResourceType::Secret, Subscription::named(["none"]));
    // The server may take a moment to be there.
    let update = loop {
        match tokio::time::timeout(DEADLINE, events.recv()).await {
            Ok(Some(Event::Update(update))) => break update,
            Ok(Some(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (update.removed, &*update.version),
        (vec!["none".to_owned()], "7")
    );
}

#[test]
fn what_cannot_be_asked_is_named() {
    let none = Dialer {
        node: Node::default(),
        aggregated: None,
        clusters: BTreeMap::new(),
        builtin: true,
        token_file: None,
    };
    let problem = |origin: Origin| none.options(&origin).err().unwrap();
    assert_eq!(problem(Origin::Ads), DialError::NoAggregated);
    assert_eq!(
        problem(Origin::Grpc(source("x"))),
        DialError::NoCluster("x".into())
    );
    let file = Origin::File {
        path: "x".into(),
        watched_directory: None,
    };
    assert_eq!(problem(file), DialError::File);
    let passthrough =
        cluster("name: c\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\n").unwrap();
    let error = dialer(passthrough, None)
        .options(&Origin::Ads)
        .err()
        .unwrap();
    assert_eq!(error, DialError::NotStatic("c".into()));
}
