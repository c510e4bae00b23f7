//! The operating system's end of a connection: TCP, or a Unix socket for `pipe` addresses.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Has a socket whose other end is on this host take the simplest congestion control: there is
/// nothing to probe for between an application and its sidecar, and one that paces (bbr) costs
/// timers. Measured with bbr as the default: 1280 against 1100 us of a pair per MiB.
pub fn expect_same_host(socket: &impl AsFd) {
    // Always compiled in, and allowed unless an administrator took it from the list: then it stays
    // as it is.
    let _ = socket2::SockRef::from(socket).set_tcp_congestion(b"reno");
}

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP
    Tcp(TcpStream),
    /// A Unix socket
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Socket::Tcp(tcp)
    }
}

impl From<UnixStream> for Socket {
    fn from(unix: UnixStream) -> Self {
        Socket::Unix(unix)
    }
}

macro_rules! each {
    ($socket:expr, $stream:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($stream) => $call,
            Socket::Unix($stream) => $call,
        }
    };
}

impl Socket {
    /// Our own address; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(tcp) => tcp.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// The other end's address; `None` for a Unix socket.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(tcp) => tcp.peer_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Closes it at once: the peer of a TCP connection sees RST, and what it has not read is lost.
    pub fn abort(self) {
        // It fails only where the connection is gone already.
        let _ = self.set_zero_linger();
    }

    /// From now on, dropping it sends RST.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(tcp) => socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Appends what has come; 0 is the end. May be dropped and called again.
    pub async fn read_more(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            each!(self, stream => stream.readable().await)?;
            into.reserve(2048);
            match each!(self, stream => stream.try_read_buf(into)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    /// Sends FIN.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
