//! `POST /inject`: what is a review goes on, what is not is answered here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Shared;
use super::review::{self, Became, Context};
use crate::patch::HookSecret;

/// The path that the webhook's configuration names.
const PATH: &str = "/inject";
/// The largest review: the API server itself takes objects of 3 MiB at most.
const LARGEST: usize = 3 * 1024 * 1024;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may wait for its next request, and a request's head for its end.
const HEAD: Duration = Duration::from_secs(30);
/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(10);
/// A silent HTTP/2 connection is asked this often whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// Serves one connection until it ends, or until `stop` and the end of its requests.
pub(super) async fn connection(stream: TcpStream, shared: Arc<Shared>, stop: CancellationToken) {
    let Some(acceptor) = shared.certificate.acceptor() else {
        // Without a certificate there is no word that the other side would understand.
        shared.metrics.failed_handshakes.increment();
        return;
    };
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            shared.metrics.failed_handshakes.increment();
            debug!("a handshake failed: {error}");
            return;
        }
        Err(_elapsed) => {
            shared.metrics.failed_handshakes.increment();
            debug!("a handshake took too long");
            return;
        }
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(request, &shared).await) }
    });
    let io = TokioIo::new(stream);
    let result = if is_http2 {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .max_header_list_size(64 * 1024);
        let connection = server.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    } else {
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD);
        let connection = server.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => result,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = result {
        debug!("a connection ended: {error}");
    }
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, format!("there is only {PATH}"));
    }
    if request.method() != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only POST".to_owned());
        let post = HeaderValue::from_static("POST");
        response.headers_mut().insert(header::ALLOW, post);
        return response;
    }
    if !is_json(request.headers().get(header::CONTENT_TYPE)) {
        let wanted = "an AdmissionReview is application/json";
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, wanted.to_owned());
    }
    let body = Limited::new(request.into_body(), LARGEST).collect();
    let body = match timeout(BODY, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            shared.metrics.malformed.increment();
            let reason = format!("a review has at most {LARGEST} bytes");
            return plain(StatusCode::PAYLOAD_TOO_LARGE, reason);
        }
        Ok(Err(error)) => {
            shared.metrics.malformed.increment();
            return plain(
                StatusCode::BAD_REQUEST,
                format!("reading the body: {error}"),
            );
        }
        Err(_elapsed) => {
            shared.metrics.malformed.increment();
            let reason = format!("the body took more than {} s", BODY.as_secs());
            return plain(StatusCode::REQUEST_TIMEOUT, reason);
        }
    };
    review(&body, shared)
}

fn review(body: &[u8], shared: &Shared) -> Response<Full<Bytes>> {
    let start = Instant::now();
    let metrics = &shared.metrics;
    let config = shared.config.load();
    let context = Context {
        config: &config,
        server: shared.server,
        pod_security: &|namespace| shared.pod_security(namespace),
        hook_secret: HookSecret::random(),
    };
    let answer = match review::answer(body, &context) {
        Ok(answer) => answer,
        Err(error) => {
            metrics.malformed.increment();
            warn!("a request was malformed: {error}");
            return plain(StatusCode::BAD_REQUEST, error.to_string());
        }
    };
    match answer.became {
        Became::Patched => metrics.patched.increment(),
        Became::Left => metrics.left.increment(),
        Became::Refused => metrics.refused.increment(),
        Became::Other => metrics.other.increment(),
    }
    for report in answer.reports {
        let about = &report.about;
        info!(
            kind = about.kind.as_deref().unwrap_or_default(),
            namespace = about.namespace.as_deref().unwrap_or_default(),
            name = about.name.as_deref().unwrap_or_default(),
            "{}: {}",
            report.reason,
            report.message
        );
        shared.report(report);
    }
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    metrics.answered(start.elapsed());
    response
}

fn is_json(content_type: Option<&HeaderValue>) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok());
    let media_type = text.and_then(|text| text.split(';').next());
    media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case("application/json"))
}

fn plain(status: StatusCode, mut reason: String) -> Response<Full<Bytes>> {
    reason.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(reason)));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}
