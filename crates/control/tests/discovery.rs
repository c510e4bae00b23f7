//! Discovery over TLS: who is admitted, what a change sends, and what a refusal leaves in the log.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use common::control::{Control, message};
use outrider_control::push::report::{KindReport, ReplicaReport};
use outrider_testkit::clients::http1::Client;
use outrider_xds::pb::envoy::config::core::v3::Node;
use outrider_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use outrider_xds::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
};
use outrider_xds::pb::google::rpc::Status as RpcStatus;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

const MESH: &str = "
service web: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80}]}
workload web-1 {app: web}: {addresses: [10.0.0.1], serviceAccount: web}
";
const ID: &str = "sidecar~10.0.0.9~cart-1.shop~shop.svc.cluster.local";
const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const WEB: &str = "outbound|80||web.shop.svc.cluster.local";
const DEADLINE: Duration = Duration::from_secs(10);

struct Stream {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

fn subscribe(kind: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

impl Stream {
    async fn open(channel: Channel, token: MetadataMap, id: &str) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let first = DeltaDiscoveryRequest {
            node: Some(Node {
                id: id.to_owned(),
                ..Node::default()
            }),
            ..subscribe(CDS, &[])
        };
        requests.send(first).unwrap();
        let mut request = Request::new(UnboundedReceiverStream::new(receiver));
        *request.metadata_mut() = token;
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client
            .delta_aggregated_resources(request)
            .await?
            .into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    /// The next response, acknowledged or refused.
    async fn next(&mut self, refusal: Option<&str>) -> Result<DeltaDiscoveryResponse, Status> {
        let response = tokio::time::timeout(DEADLINE, self.responses.message())
            .await
            .unwrap()?;
        let response = response.ok_or_else(|| Status::ok("ended"))?;
        let error = |text: &str| RpcStatus {
            message: text.to_owned(),
            ..RpcStatus::default()
        };
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: refusal.map(error),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(answer).unwrap();
        Ok(response)
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

#[tokio::test]
async fn a_token_or_a_certificate_admits_its_own_node_and_no_other() {
    log();
    let control = Control::start(MESH).await;
    let bank = "sidecar~10.0.0.9~till-1.bank~bank.svc.cluster.local";
    let open = async |certificate: bool, token: bool, id: &str| {
        let certificate = certificate.then(|| control.certificate("shop", "cart"));
        let token = if token {
            control.token("shop", "cart")
        } else {
            MetadataMap::new()
        };
        let channel = control.channel(certificate).await.unwrap();
        Stream::open(channel, token, id)
            .await
            .err()
            .map(|status| message(&status))
    };
    assert_eq!(open(false, true, ID).await, None);
    assert_eq!(open(true, false, ID).await, None);
    let refused = open(false, false, ID).await.unwrap();
    assert!(
        refused.starts_with("Unauthenticated: no credentials"),
        "{refused}"
    );
    for (certificate, token) in [(true, false), (false, true)] {
        let refused = open(certificate, token, bank).await.unwrap();
        assert!(refused.starts_with("PermissionDenied"), "{refused}");
        assert!(
            refused.contains("\"bank\"") && refused.contains("shop/cart"),
            "{refused}"
        );
    }
    control.stop().await;
}

/// It takes as long as a connection may be anonymous.
#[tokio::test]
async fn a_connection_of_nobody_is_closed_and_one_of_somebody_is_not() {
    log();
    let control = Control::start(MESH).await;
    let channel = control.channel(None).await.unwrap();
    let token = control.token("shop", "cart");
    let mut known = Stream::open(channel, token, ID).await.unwrap();
    known.next(None).await.unwrap();
    let mut silent = control.connect().await;
    let mut bytes = Vec::new();
    let read = silent.read_to_end(&mut bytes);
    // However it is closed.
    let _ = tokio::time::timeout(3 * DEADLINE, read).await.unwrap();
    known.requests.send(subscribe(EDS, &[WEB])).unwrap();
    let endpoints = known.next(None).await.unwrap();
    assert_eq!(names(&endpoints), vec![WEB]);
    control.stop().await;
}

#[tokio::test]
async fn a_change_sends_what_it_changes_and_a_bad_file_nothing() {
    log();
    let control = Control::start(MESH).await;
    let channel = control.channel(None).await.unwrap();
    let mut stream = Stream::open(channel, control.token("shop", "cart"), ID)
        .await
        .unwrap();
    let clusters = stream.next(None).await.unwrap();
    let all = [
        "BlackHoleCluster",
        "InboundPassthroughCluster",
        "PassthroughCluster",
        WEB,
    ];
    assert_eq!(
        (clusters.type_url.as_str(), names(&clusters)),
        (CDS, all.to_vec())
    );
    stream.requests.send(subscribe(EDS, &[WEB])).unwrap();
    let first = stream.next(None).await.unwrap();
    assert_eq!((first.type_url.as_str(), names(&first)), (EDS, vec![WEB]));

    // Were anything sent for the bad file, the next response would not be that of the good one.
    control.write("bad.yaml", "service x: {nonsense: 1}");
    let more = "workload web-2 {app: web}: {addresses: [10.0.0.2], serviceAccount: web}";
    control.write("more.yaml", more);
    let second = stream.next(None).await.unwrap();
    assert_eq!((second.type_url.as_str(), names(&second)), (EDS, vec![WEB]));
    assert_ne!(first.resources[0].version, second.resources[0].version);

    let route = "route r: {parentRefs: [{group: '', kind: Service, name: web}]}\n\
         service v2: {clusterIP: 10.96.0.2, ports: [{name: tcp, port: 90}]}";
    control.write("more.yaml", &format!("{more}\n{route}"));
    let third = stream.next(None).await.unwrap();
    let v2 = "outbound|90||v2.shop.svc.cluster.local";
    assert_eq!((third.type_url.as_str(), names(&third)), (CDS, vec![v2]));
    control.write("more.yaml", more);
    let fourth = stream.next(None).await.unwrap();
    assert_eq!(
        (names(&fourth), fourth.removed_resources.clone()),
        (vec![], vec![v2.to_owned()])
    );

    let page = async |path: &'static str| {
        let address = control.monitoring;
        let get = move || Client::connect(address)?.get("localhost", path);
        let answer = tokio::task::spawn_blocking(get).await.unwrap().unwrap();
        (
            answer.head.status().unwrap(),
            String::from_utf8(answer.body).unwrap(),
        )
    };
    let (_, metrics) = page("/metrics").await;
    for line in [
        "outrider_control_proxies 1\n",
        "outrider_control_refused_files_total 1\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert_eq!(page("/healthz/ready").await.0, 200);

    // The stream ends when the server goes, at once.
    control.stop().await;
    let ended = stream.next(None).await.unwrap_err();
    assert!(
        message(&ended).starts_with("Unavailable"),
        "{}",
        message(&ended)
    );
}

/// What the control plane tells of its proxies is what they said.
#[tokio::test]
async fn the_report_tells_what_each_proxy_took_and_refused() {
    log();
    let control = Control::start(MESH).await;
    let channel = control.channel(None).await.unwrap();
    let token = control.token("shop", "cart");
    let mut stream = Stream::open(channel, token, ID).await.unwrap();
    let address = control.monitoring;
    let report = async |expected: fn(&KindReport) -> bool| {
        let look = async || {
            let get = move || Client::connect(address)?.get("localhost", "/debug/proxies");
            let answer = tokio::task::spawn_blocking(get).await??;
            let report: ReplicaReport = serde_json::from_slice(&answer.body)?;
            let mut clusters = report.proxies.iter().flat_map(|proxy| &proxy.kinds);
            let found = clusters.any(|kind| kind.kind == "clusters" && expected(kind));
            anyhow::ensure!(found, "{report:?}");
            Ok(report)
        };
        outrider_testkit::eventually_async(DEADLINE, look)
            .await
            .unwrap()
    };
    stream.next(Some(&format!("{WEB}: no"))).await.unwrap();
    let first = report(|kind| {
        let refusal = kind.refusal.as_ref();
        kind.accepted.is_none()
            && refusal.is_some_and(|refusal| refusal.objects == ["Service shop/web"])
    })
    .await;
    let proxy = &first.proxies[0];
    assert_eq!(
        (proxy.name.as_str(), proxy.namespace.as_str()),
        ("cart-1", "shop")
    );
    assert!(proxy.connected_since.ends_with('Z'), "{proxy:?}");
    // Another resource that it takes is no word on the one that it refused.
    control.write(
        "more.yaml",
        "service b: {clusterIP: 10.96.0.2, ports: [{name: http, port: 80}]}",
    );
    let response = stream.next(None).await.unwrap();
    assert!(!names(&response).contains(&WEB));
    report(|kind| kind.accepted.is_some() && kind.accepted == kind.sent && kind.refusal.is_some())
        .await;
    // But a later version of it is, or that it is no more.
    control.write(
        "mesh.yaml",
        "service c: {clusterIP: 10.96.0.3, ports: [{name: http, port: 80}]}",
    );
    stream.next(None).await.unwrap();
    report(|kind| kind.refusal.is_none()).await;
    control.stop().await;
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// What all tests of this file log. Each of them begins with this: a place in the code that is
/// reached before there is a subscriber may stay silent.
fn log() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        log
    })
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn refusals_are_logged_with_their_object_and_without_secrets() {
    let log = log();
    let control = Control::start(MESH).await;
    let token = control.token("shop", "cart");
    let channel = control.channel(None).await.unwrap();
    let mut stream = Stream::open(channel, token.clone(), ID).await.unwrap();
    stream
        .next(Some(&format!("{WEB}: transport_socket: no")))
        .await
        .unwrap();
    let expected = "Service shop/web (";
    let found = async || {
        let text = log.text();
        anyhow::ensure!(
            text.contains(expected) && text.contains("mesh.yaml, document"),
            "{text}"
        );
        Ok(())
    };
    outrider_testkit::eventually_async(DEADLINE, found)
        .await
        .unwrap();

    let channel = control.channel(None).await.unwrap();
    let old = std::time::SystemTime::now() - 2 * common::control::HOUR;
    let expired = control.token_for("shop", "cart", "outrider", old);
    assert!(Stream::open(channel, expired.clone(), ID).await.is_err());
    let text = log.text();
    assert!(
        text.contains("refused a proxy") && text.contains("expired"),
        "{text}"
    );
    for token in [token, expired] {
        let header = token.get("authorization").unwrap().to_str().unwrap();
        for part in header.trim_start_matches("Bearer ").split('.').skip(1) {
            assert!(!text.contains(part), "a token is in the log");
        }
    }
    assert!(!text.contains("PRIVATE KEY"));
    control.stop().await;
}
