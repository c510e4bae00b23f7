//! Callers whose tokens a cluster judges, while its API server is there and while it is not.
#![allow(
    clippy::unwrap_used,
    reason = "the exemption for tests does not reach their helpers"
)]

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use common::control::{Control, message};
use http_body_util::{BodyExt as _, Full};
use outrider_control::authenticate::Tokens;
use outrider_control::kubernetes::TokenReviewer;
use outrider_identity::WorkloadKey;
use outrider_identity::authority::Lifetimes;
use outrider_identity::token::{AUDIENCE, TokenVerifier};
use outrider_xds::certificate::{CertificateRequest, create_certificate};
use outrider_xds::pb::envoy::config::core::v3::Node;
use outrider_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use outrider_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use serde_json::json;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

const MESH: &str = "
workload cart-1 {app: cart}: {addresses: [10.0.0.1], serviceAccount: cart}
workload till-1 {app: till}: {addresses: [10.0.0.2], serviceAccount: till}
";
const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// An API server that takes our own tokens for those of pod `cart-1`, while it is up.
fn api_server(tokens: TokenVerifier, up: Arc<AtomicBool>) -> TokenReviewer {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (tokens, up) = (tokens.clone(), up.load(Ordering::SeqCst));
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let review: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let token = review["spec"]["token"].as_str().unwrap();
            let (code, answer) = match tokens.verify(token, SystemTime::now()) {
                _ if !up => (
                    503,
                    json!({"kind": "Status", "code": 503, "message": "away"}),
                ),
                Ok(account) => (
                    201,
                    review_of(&json!({
                        "authenticated": true,
                        "audiences": [AUDIENCE],
                        "user": {
                            "username": format!(
                                "system:serviceaccount:{}:{}", account.namespace(), account.name(),
                            ),
                            "extra": {
                                "authentication.kubernetes.io/pod-name": ["cart-1"],
                                "authentication.kubernetes.io/pod-uid": ["1"],
                            },
                        },
                    })),
                ),
                Err(_) => (201, review_of(&json!({"error": "unknown"}))),
            };
            let response = http::Response::builder().status(code);
            Ok::<_, Infallible>(response.body(Full::from(answer.to_string())).unwrap())
        }
    });
    TokenReviewer::new(kube::Client::new(service, "default"), Arc::default())
}

fn review_of(status: &serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {},
        "status": status,
    })
}

/// Opens a stream as a node, with a token and perhaps a certificate.
async fn discover(
    control: &Control,
    token: MetadataMap,
    certified: bool,
    id: &str,
) -> Result<(), Status> {
    let certificate = certified.then(|| control.certificate("shop", "cart"));
    let channel = control.channel(certificate).await.unwrap();
    let first = DeltaDiscoveryRequest {
        node: Some(Node {
            id: id.to_owned(),
            ..Node::default()
        }),
        type_url: CDS.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    // It goes on for ever, as the stream of a sidecar does.
    let requests = futures_util::StreamExt::chain(
        futures_util::stream::iter([first]),
        futures_util::stream::pending(),
    );
    let mut request = Request::new(requests);
    *request.metadata_mut() = token;
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let answers = client.delta_aggregated_resources(request).await?;
    match answers.into_inner().message().await? {
        Some(_) => Ok(()),
        None => Err(Status::ok("ended")),
    }
}

#[tokio::test]
async fn the_cluster_judges_tokens_and_its_absence_makes_nobody_good() {
    let up = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&up);
    let control = Control::start_judging(MESH, Lifetimes::default(), |tokens| {
        Tokens::Reviewed(api_server(tokens.verifier(), switch))
    })
    .await;
    let sign = async |token: MetadataMap| {
        let csr = WorkloadKey::generate().unwrap().signing_request(None);
        let request = CertificateRequest {
            csr: csr.unwrap(),
            ..CertificateRequest::default()
        };
        let channel = control.channel(None).await.unwrap();
        create_certificate(channel, token, request).await
    };
    let node =
        |address: &str, pod: &str| format!("sidecar~{address}~{pod}.shop~shop.svc.cluster.local");
    let own = node("10.0.0.1", "cart-1");
    // Tokens of one account that differ, or an answer would be remembered.
    let start = SystemTime::now();
    let fresh = |seconds: u64| {
        let start = start - Duration::from_secs(seconds);
        control.token_for("shop", "cart", AUDIENCE, start)
    };

    let known = fresh(1);
    assert!(sign(known.clone()).await.is_ok());
    discover(&control, known.clone(), false, &own)
        .await
        .unwrap();
    for (id, reason) in [
        (
            node("10.0.0.1", "cart-2"),
            "credentials are those of pod cart-1",
        ),
        (
            node("10.0.0.2", "cart-1"),
            "10.0.0.2, which is shop/till-1's",
        ),
    ] {
        let refused = discover(&control, known.clone(), false, &id).await;
        let text = message(&refused.unwrap_err());
        assert!(
            text.starts_with("PermissionDenied") && text.contains(reason),
            "{text}"
        );
    }

    up.store(false, Ordering::SeqCst);
    assert!(
        sign(known.clone()).await.is_ok(),
        "the answer is remembered"
    );
    let refused = message(&sign(fresh(2)).await.unwrap_err());
    assert!(refused.starts_with("Unavailable"), "{refused}");
    let refused = discover(&control, fresh(2), false, &own).await;
    let refused = message(&refused.unwrap_err());
    assert!(refused.starts_with("Unavailable"), "{refused}");
    // The certificate proves the same, and needs nobody's word; but it gets no new one.
    discover(&control, fresh(2), true, &own).await.unwrap();

    up.store(true, Ordering::SeqCst);
    assert!(sign(fresh(2)).await.is_ok());
    control.stop().await;
}
