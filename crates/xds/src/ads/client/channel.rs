//! Connections to discovery servers.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};

use super::options::ConnectError;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a quiet connection is asked whether it is alive, and how long the answer may take: a
/// server that vanished without a FIN is noticed within their sum.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Connects by what `connect` returns: TLS, or whatever the caller makes of it. `authority` is what
/// the server sees as the host, such as `control.outrider.svc:15012`.
///
/// # Errors
/// An authority that is none, and whatever `connect` fails with.
pub async fn over<C, F, S>(authority: &str, mut connect: C) -> Result<Channel, ConnectError>
where
    C: FnMut() -> F + Send + 'static,
    F: Future<Output = std::io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let connector = tower::service_fn(move |_| {
        let connecting = connect();
        async move { connecting.await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// Connects to `address`, a `host:port`, without TLS.
///
/// # Errors
/// Whatever the connection fails with.
pub async fn tcp(address: &str) -> Result<Channel, ConnectError> {
    let target = address.to_owned();
    over(address, move || {
        let target = target.clone();
        async move {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
    })
    .await
}

/// Connects to a Unix socket.
///
/// # Errors
/// Whatever the connection fails with.
pub async fn unix(path: impl Into<PathBuf>) -> Result<Channel, ConnectError> {
    let path = path.into();
    over("localhost", move || UnixStream::connect(path.clone())).await
}
