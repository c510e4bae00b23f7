//! HTTP/1 towards an endpoint: the connection that a pool keeps, and the exchange on it.

use std::any::Any;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use super::lease::Lease;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::{Limits, Transport};
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead};

/// A connection to an endpoint, between exchanges.
#[derive(Debug)]
pub struct Connection<IO = Transport> {
    io: IO,
    local: Option<SocketAddr>,
    guard: Box<dyn Any>,
}

impl<IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Connection<IO> {
    /// A connection on which nothing was sent or read. `guard` is dropped with the connection,
    /// wherever that happens (the pool's count of connections, for example).
    pub fn new(io: IO, local: Option<SocketAddr>, limits: Limits, guard: Box<dyn Any>) -> Self {
        let _ = limits;
        Connection { io, local, guard }
    }

    /// How many exchanges it has finished (`max_requests_per_connection`).
    pub fn served(&self) -> u64 {
        0
    }

    /// Ready when the idle connection can no longer be used: the endpoint closed it, or sent
    /// something that nobody asked for. Pending is what an idle connection should be.
    pub fn poll_idle(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// A tunnel after 101, or after 2xx to CONNECT.
#[derive(Debug)]
pub struct Upgraded<IO = Transport> {
    /// The bytes.
    pub stream: IO,
    /// What was read ahead of them.
    pub read_ahead: Vec<u8>,
    /// Keeps the request counted while the tunnel lasts.
    pub lease: Lease,
    /// The connection's own guard: keep it as long as the stream.
    pub guard: Box<dyn Any>,
}

/// One request and its response on a connection.
#[derive(Debug)]
pub struct Exchange {
    connection: Box<Connection>,
    lease: Lease,
}

impl Exchange {
    /// Begins an exchange on a new connection or one that was kept.
    pub fn new(connection: Box<Connection>, lease: Lease) -> Self {
        Exchange { connection, lease }
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// See [`super::Exchange`], as for all that follow.
    pub fn send_head(&mut self, _head: &RequestHead, _end: bool) -> Result<(), StreamError> {
        Err(StreamError::Aborted)
    }
    pub fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Pending
    }
    pub fn send_data(&mut self, _data: &[u8]) -> Result<usize, StreamError> {
        Err(StreamError::Aborted)
    }
    pub fn send_end(&mut self, _trailers: Option<&Headers>) -> Result<(), StreamError> {
        Err(StreamError::Aborted)
    }
    pub fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Pending
    }
    pub fn poll_head(
        &mut self,
        _cx: &mut Context<'_>,
        _into: &mut ResponseHead,
    ) -> Poll<Result<(), StreamError>> {
        Poll::Pending
    }
    pub fn poll_data(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        Poll::Pending
    }
    pub fn consume(&mut self, _n: usize) {}
    pub fn response_ended(&self) -> bool {
        false
    }
    pub fn take_trailers(&mut self) -> Option<Headers> {
        None
    }
    pub fn reset(&mut self, _reset: Reset) {}
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.local
    }
    pub fn reused(&self) -> bool {
        false
    }
    pub fn bytes_of_response_seen(&self) -> bool {
        false
    }
    pub fn request_bytes_sent(&self) -> bool {
        false
    }
    pub fn into_upgraded(self) -> Upgraded {
        let connection = *self.connection;
        Upgraded {
            stream: connection.io,
            read_ahead: Vec::new(),
            lease: self.lease,
            guard: connection.guard,
        }
    }
}
