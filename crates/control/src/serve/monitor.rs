//! Health and metrics.

use std::convert::Infallible;
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
use tracing::{debug, warn};

use crate::metrics::Metrics;

const RETRY: Duration = Duration::from_secs(1);
const HEAD: Duration = Duration::from_secs(10);

/// Answers `/healthz/live`, `/healthz/ready` and `/metrics` for as long as the process lives; ready
/// from the first sync of the registry until it is told to stop.
#[derive(Debug, Clone)]
pub(super) struct Monitor {
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: watch::Receiver<bool>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Monitor {
    pub(super) async fn serve(self, listener: TcpListener) {
        loop {
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!("accepting a connection failed: {error}");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            let monitor = self.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let response = monitor.answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let mut server = http1::Builder::new();
                let server = server.timer(TokioTimer::new()).header_read_timeout(HEAD);
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    debug!("a monitoring connection ended: {error}");
                }
            });
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
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
            _ => (
                StatusCode::NOT_FOUND,
                "there are /healthz/live, /healthz/ready and /metrics\n".to_owned(),
            ),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let text = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, text);
        response
    }
}
