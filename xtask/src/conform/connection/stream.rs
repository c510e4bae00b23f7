//! The sockets beneath connections, and what has come from them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::PATIENCE;
use crate::conform::file::Open;

pub(in crate::conform) trait Stream:
    AsyncRead + AsyncWrite + Unpin + Send + Sync
{
}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// Where a connection goes.
pub(in crate::conform) enum Target {
    Tcp(SocketAddr),
    Unix(String),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::conform) enum Ended {
    Closed,
    Reset,
}

/// What has come.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    pub(super) changed: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) bytes: Vec<u8>,
    pub(super) ended: Option<Ended>,
}

impl Inbox {
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn end(&self, error: Option<&io::Error>) {
        let reset = error.is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            )
        });
        self.with(|state| {
            state
                .ended
                .get_or_insert(if reset { Ended::Reset } else { Ended::Closed });
        });
        self.changed.notify_waiters();
    }
}

/// Datagrams to and from one address, as a stream of what is in them.
struct Datagrams(tokio::net::UdpSocket);

impl Datagrams {
    async fn new(address: SocketAddr, open: &Open) -> Result<Self> {
        let ours = open.from.unwrap_or(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
        let socket = tokio::net::UdpSocket::bind((ours, 0)).await?;
        let theirs = open.at.unwrap_or(address.ip());
        socket.connect((theirs, address.port())).await?;
        Ok(Self(socket))
    }
}

impl AsyncRead for Datagrams {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = self.0.poll_recv(cx, buffer);
        // Nothing read would be the end of a stream.
        if polled.is_ready() && buffer.filled().len() == before {
            buffer.put_slice(b"<empty>");
        }
        polled
    }
}

impl AsyncWrite for Datagrams {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Connects; a second handle of a TCP socket comes with it.
///
/// # Errors
/// When that fails; the `io::Error` is the cause.
pub(super) async fn dial(
    target: &Target,
    open: &Open,
) -> Result<(Box<dyn Stream>, Option<socket2::Socket>)> {
    let address = match target {
        Target::Unix(path) => {
            let stream = match path.strip_prefix('@') {
                None => tokio::net::UnixStream::connect(path).await?,
                Some(name) => {
                    use std::os::linux::net::SocketAddrExt as _;
                    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
                    stream.set_nonblocking(true)?;
                    tokio::net::UnixStream::from_std(stream)?
                }
            };
            return Ok((Box::new(stream), None));
        }
        Target::Tcp(address) => *address,
    };
    if open.udp {
        return Ok((Box::new(Datagrams::new(address, open).await?), None));
    }
    let address = open
        .at
        .map_or(address, |ip| SocketAddr::new(ip, address.port()));
    let socket = if address.is_ipv4() {
        tokio::net::TcpSocket::new_v4()?
    } else {
        tokio::net::TcpSocket::new_v6()?
    };
    if let Some(from) = open.from {
        socket.bind(SocketAddr::new(from, 0)).context("open.from")?;
    }
    let stream = tokio::time::timeout(PATIENCE, socket.connect(address))
        .await
        .context("connect: not in time")??;
    stream.set_nodelay(true)?;
    let second = socket2::SockRef::from(&stream).try_clone()?;
    Ok((Box::new(stream), Some(second)))
}

/// Keeps a copy of all that is read.
pub(super) struct Tee {
    pub(super) inner: Box<dyn Stream>,
    pub(super) inbox: Arc<Inbox>,
}

impl AsyncRead for Tee {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        match &result {
            Poll::Ready(Ok(())) => {
                let new = &buffer.filled()[before..];
                if new.is_empty() {
                    self.inbox.end(None);
                } else {
                    self.inbox.with(|state| state.bytes.extend_from_slice(new));
                    self.inbox.changed.notify_waiters();
                }
            }
            Poll::Ready(Err(error)) => self.inbox.end(Some(error)),
            Poll::Pending => {}
        }
        result
    }
}

impl AsyncWrite for Tee {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
