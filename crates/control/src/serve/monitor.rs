//! Health and metrics.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::push::Publisher;
use crate::push::report::ReplicaReport;
use crate::signing::IssuedCertificates;

use super::Replica;
use super::places::{ConnectionLimits, Places};

const RETRY: Duration = Duration::from_secs(1);
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last: it is for one request.
const CONNECTION: Duration = Duration::from_secs(30);
/// The port can be reached from everywhere; nobody keeps the kubelet out.
const LIMITS: ConnectionLimits = ConnectionLimits {
    total: 64,
    per_address: 16,
};

/// Answers `/healthz/live`, `/healthz/ready`, `/metrics` and `/debug/proxies` for as long as the
/// process lives; ready from the first sync of the registry until it is told to stop. Only this
/// machine or pod, which a port-forward reaches, is told of the proxies: the names and addresses
/// of everybody's pods are not for everybody.
#[derive(Debug, Clone)]
pub(super) struct Monitor {
    pub(super) metrics: Arc<Metrics>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) issued: Arc<IssuedCertificates>,
    pub(super) replica: Replica,
    pub(super) ready: watch::Receiver<bool>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Monitor {
    pub(super) async fn serve(self, listener: TcpListener) {
        let places = Places::new(LIMITS);
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!("accepting a connection failed: {error}");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let Some(place) = places.take(peer.ip()) else {
                debug!(%peer, "too many monitoring connections");
                continue;
            };
            let monitor = self.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let response = monitor.answer(peer.ip(), request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(HEAD);
                server.keep_alive(false);
                let served = server.serve_connection(TokioIo::new(stream), service);
                match timeout(CONNECTION, served).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(%peer, "a monitoring connection ended: {error}"),
                    Err(_elapsed) => debug!(%peer, "a monitoring connection took too long"),
                }
                drop(place);
            });
        }
    }

    fn answer(&self, peer: IpAddr, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let text = "text/plain; version=0.0.4; charset=utf-8";
        let mut content_type = http::HeaderValue::from_static(text);
        let (status, body) = match path {
            _ if method != Method::GET && method != Method::HEAD => {
                (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned())
            }
            "/healthz/live" => (StatusCode::OK, "live\n".to_owned()),
            "/healthz/ready" if *self.stop.borrow() => {
                (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned())
            }
            "/healthz/ready" if !*self.ready.borrow() => (
                StatusCode::SERVICE_UNAVAILABLE,
                "reading the registry for the first time\n".to_owned(),
            ),
            "/healthz/ready" => (StatusCode::OK, "ready\n".to_owned()),
            "/metrics" => (StatusCode::OK, self.metrics.render()),
            "/debug/proxies" if !peer.to_canonical().is_loopback() => (
                StatusCode::FORBIDDEN,
                "only through a port-forward to this pod\n".to_owned(),
            ),
            "/debug/proxies" => {
                content_type = http::HeaderValue::from_static("application/json");
                match serde_json::to_string(&self.report()) {
                    Ok(report) => (StatusCode::OK, report),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                }
            }
            _ => (
                StatusCode::NOT_FOUND,
                "there are /healthz/live, /healthz/ready, /metrics and /debug/proxies\n".to_owned(),
            ),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, content_type);
        response
    }

    fn report(&self) -> ReplicaReport {
        ReplicaReport {
            replica: self.replica.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: self.replica.revision.clone(),
            proxies: self.publisher.report(&self.issued),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::{Authenticator, Tokens};
    use crate::kubernetes::token_review::TokenReviewer;
    use crate::mesh::{MeshBuilder, MeshSettings};
    use outrider_identity::TrustDomain;

    #[tokio::test]
    async fn only_this_machine_is_told_of_the_proxies() {
        let metrics = Arc::<Metrics>::default();
        let nobody = tower::service_fn(|_: Request<kube::client::Body>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let reviewer =
            TokenReviewer::new(kube::Client::new(nobody, "default"), Arc::clone(&metrics));
        let trust_domain = TrustDomain::new("cluster.local").unwrap();
        let settings = MeshSettings {
            trust_domain: trust_domain.clone(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: "outrider-system".to_owned(),
            mutual_tls: crate::registry::kinds::MutualTlsMode::Permissive,
            access_log: false,
        };
        let authenticator = Authenticator::new(Tokens::Reviewed(reviewer), trust_domain);
        let mesh = MeshBuilder::new(Arc::new(settings)).build();
        let monitor = Monitor {
            metrics: Arc::clone(&metrics),
            publisher: Arc::new(Publisher::new(authenticator, mesh, metrics)),
            issued: Arc::default(),
            replica: Replica::default(),
            ready: watch::Sender::new(true).subscribe(),
            stop: watch::Sender::new(false).subscribe(),
        };
        for (peer, path, status) in [
            ("127.0.0.1", "/debug/proxies", 200),
            ("::1", "/debug/proxies", 200),
            ("::ffff:127.0.0.1", "/debug/proxies", 200),
            ("10.0.0.1", "/debug/proxies", 403),
            ("::ffff:10.0.0.1", "/debug/proxies", 403),
            ("fd00::1", "/debug/proxies", 403),
            ("10.0.0.1", "/healthz/ready", 200),
        ] {
            let answer = monitor.answer(peer.parse().unwrap(), &Method::GET, path);
            assert_eq!(answer.status(), status, "{peer} {path}");
        }
    }
}
