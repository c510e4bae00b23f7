//! Health and metrics, in plain HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Shared;

const RETRY: Duration = Duration::from_secs(1);
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection may last: it is for one request.
const CONNECTION: Duration = Duration::from_secs(30);
/// How many connections are open at a time: the port can be reached from everywhere.
const CONNECTIONS: usize = 64;

/// Answers for as long as the process lives.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            // It is never closed.
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("accepting a connection failed: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request: Request<Incoming>| {
            let response = answer(request.method(), request.uri().path(), &shared);
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD);
            server.keep_alive(false);
            let served = server.serve_connection(TokioIo::new(stream), service);
            match timeout(CONNECTION, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!("a monitoring connection ended: {error}"),
                Err(_elapsed) => debug!("a monitoring connection took too long"),
            }
            drop(place);
        });
    }
}

fn answer(method: &Method, path: &str, shared: &Shared) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        _ if method != Method::GET && method != Method::HEAD => {
            (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned())
        }
        "/healthz/live" => (StatusCode::OK, "live\n".to_owned()),
        "/healthz/ready" => match shared.not_ready(SystemTime::now()) {
            None => (StatusCode::OK, "ready\n".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/metrics" => (StatusCode::OK, shared.metrics.render()),
        _ => (
            StatusCode::NOT_FOUND,
            "there are /healthz/live, /healthz/ready and /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
