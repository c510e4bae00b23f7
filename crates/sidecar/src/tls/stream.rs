//! A downstream or upstream connection's bytes, plain or encrypted.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(test)]
use tokio::net::TcpStream;

pub use super::encrypted::TlsStream;
pub use super::socket::Socket;
pub use super::witness::Staple;
use crate::config::tls::TlsVersion;

/// What a finished TLS handshake agreed on.
#[derive(Debug)]
pub struct Handshake {
    /// TLS 1.2 or 1.3.
    pub version: TlsVersion,
    /// BoringSSL's name of the cipher suite.
    pub cipher: &'static str,
    /// The group of the key exchange; `None` where a session of TLS 1.2 was resumed.
    pub group: Option<rustls::NamedGroup>,
    /// How the peer signed, if it did.
    pub peer_scheme: Option<rustls::SignatureScheme>,
    /// Whether it continues an earlier session.
    pub resumed: bool,
    /// What became of the OCSP response, if the client asked for one.
    pub staple: Option<Staple>,
    /// The protocol agreed by ALPN; empty if none.
    pub alpn: Vec<u8>,
    /// Whether the peer's certificate is valid: where `trust_chain_verification` is
    /// ACCEPT_UNTRUSTED, one that is not is let in, too.
    pub peer_validated: bool,
    /// The peer's certificates, leaf first; empty if it gave none.
    pub peer_chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// The peer's URI names, the first of which is its SPIFFE id.
    pub peer_uris: Vec<Arc<str>>,
    /// The first URI name of our own certificate, if we showed one: our SPIFFE id.
    pub own_uri: Option<Arc<str>>,
    /// Our own certificate, if we showed one.
    pub own_certificate: Option<rustls_pki_types::CertificateDer<'static>>,
}

/// A connection's bytes. One task drives it, both ways.
///
/// - A read or write of a whole message costs one system call.
/// - A write may keep sealed bytes that the socket has not taken: flush before waiting for an
///   answer.
/// - The end of the peer's data is a read of nothing; over TLS an end without close_notify is
///   [`io::ErrorKind::UnexpectedEof`].
/// - `shutdown` ends our data (close_notify, then FIN) and leaves reading open.
/// - Dropping it sends FIN (no close_notify), [`Stream::abort`] sends RST.
pub enum Stream {
    /// Not encrypted
    Plain(PlainStream),
    /// TLS
    Tls(Box<TlsStream>),
}

impl Stream {
    #[cfg(test)]
    /// A plain TCP connection; `read_ahead` was received already and is read first.
    pub fn plain(tcp: TcpStream, read_ahead: Vec<u8>) -> Stream {
        Stream::Plain(PlainStream::new(tcp.into(), read_ahead))
    }

    /// The TLS handshake's outcome; `None` for a plain stream.
    pub fn handshake(&self) -> Option<&Rc<Handshake>> {
        match self {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => Some(tls.handshake()),
        }
    }

    /// Closes it at once, so that the peer sees RST.
    pub fn abort(self) {
        match self {
            Stream::Plain(plain) => plain.into_socket().abort(),
            Stream::Tls(tls) => tls.into_socket().abort(),
        }
    }

    /// From now on, dropping it sends RST.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.socket().set_zero_linger()
    }

    /// Gives back bytes that were read: they are read again first. Only what was read since the
    /// last time that all of it was read again.
    pub fn unread(&mut self, bytes: &[u8]) {
        if let Some(traffic) = self.traffic() {
            let received = traffic.received.get();
            traffic.received.set(received - bytes.len() as u64);
        }
        match self {
            Stream::Plain(plain) => plain.unread(bytes),
            Stream::Tls(tls) => tls.unread(bytes),
        }
    }

    /// From now on, counts its bytes there.
    pub fn count_into(&mut self, traffic: Rc<Traffic>) {
        match self {
            Stream::Plain(plain) => plain.traffic = Some(traffic),
            Stream::Tls(tls) => tls.traffic = Some(traffic),
        }
    }

    fn traffic(&self) -> Option<&Traffic> {
        match self {
            Stream::Plain(plain) => plain.traffic.as_deref(),
            Stream::Tls(tls) => tls.traffic.as_deref(),
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        if let (Some(traffic), Poll::Ready(Ok(length))) = (self.traffic(), outcome) {
            traffic.sent.set(traffic.sent.get() + *length as u64);
        }
    }

    /// The socket under it.
    pub fn socket(&self) -> &Socket {
        match self {
            Stream::Plain(plain) => &plain.socket,
            Stream::Tls(tls) => tls.socket(),
        }
    }

    /// Our own address; `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket().local_addr()
    }
}

impl From<TlsStream> for Stream {
    fn from(tls: TlsStream) -> Self {
        Stream::Tls(Box::new(tls))
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("socket", self.socket())
            .field("handshake", &self.handshake())
            .finish()
    }
}

/// The bytes of a connection so far, without what encryption adds.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Those that were read.
    pub received: Cell<u64>,
    /// Those that were written.
    pub sent: Cell<u64>,
}

/// A socket with bytes that were received before it came here.
#[derive(Debug)]
pub struct PlainStream {
    socket: Socket,
    read_ahead: Vec<u8>,
    start: usize,
    traffic: Option<Rc<Traffic>>,
}

impl PlainStream {
    /// A connection of which `read_ahead` was received already.
    pub fn new(socket: Socket, read_ahead: Vec<u8>) -> Self {
        PlainStream {
            socket,
            read_ahead,
            start: 0,
            traffic: None,
        }
    }

    /// The socket alone.
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    fn unread(&mut self, bytes: &[u8]) {
        self.read_ahead.splice(..self.start, bytes.iter().copied());
        self.start = 0;
    }
}

impl AsyncRead for PlainStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() {
            return self.socket.poll_read(cx, buffer);
        }
        let rest = &self.read_ahead[self.start..];
        let length = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..length]);
        self.start += length;
        if self.start == self.read_ahead.len() {
            self.read_ahead = Vec::new();
            self.start = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PlainStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = match &mut *self {
            Stream::Plain(plain) => Pin::new(plain).poll_read(cx, buffer),
            Stream::Tls(tls) => tls.poll_read(cx, buffer),
        };
        if let Some(traffic) = self.traffic() {
            let length = (buffer.filled().len() - before) as u64;
            traffic.received.set(traffic.received.get() + length);
        }
        outcome
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut *self {
            Stream::Plain(plain) => Pin::new(plain).poll_write(cx, bytes),
            Stream::Tls(tls) => tls.poll_write(cx, &[IoSlice::new(bytes)]),
        };
        self.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = match &mut *self {
            Stream::Plain(plain) => Pin::new(plain).poll_write_vectored(cx, slices),
            Stream::Tls(tls) => tls.poll_write(cx, slices),
        };
        self.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(plain) => Pin::new(plain).poll_flush(cx),
            Stream::Tls(tls) => tls.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(plain) => Pin::new(plain).poll_shutdown(cx),
            Stream::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}
