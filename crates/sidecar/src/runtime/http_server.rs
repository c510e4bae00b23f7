//! The small HTTP servers of the control thread: the admin API and those for the pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What is answered.
pub type Page = Response<Full<Bytes>>;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections of one server are open at once: each takes memory of the control thread, and
/// some of the servers can be reached from everywhere.
const MAX_CONNECTIONS: usize = 128;
/// The wait after a connection that could not be accepted, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Who asks was not given an answer: the connection ends without one.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
pub struct Hangup;

/// Answers until the process ends. `answer` gets the address of who asks.
pub async fn serve<A, F>(name: &'static str, listener: TcpListener, answer: A)
where
    A: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Page, Hangup>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "{name}: accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(peer, request));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(socket), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "{name}: a connection ended");
            }
            drop(permit);
        });
    }
}
