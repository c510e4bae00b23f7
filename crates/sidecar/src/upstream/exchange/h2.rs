//! HTTP/2 towards an endpoint: the shared connection, and the exchange that is one of its streams.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::lease::Lease;
use crate::config::cluster::Http2Settings;
use crate::config::endpoint::Endpoint;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::Limits;
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead};

/// A connection to an endpoint, shared by exchanges; clones are the same connection.
#[derive(Clone, Debug)]
pub struct Connection {
    local: Option<SocketAddr>,
}

impl Connection {
    /// Sends the preface and the settings, and starts the task (on this worker) that moves frames.
    /// `guard` is dropped when the connection has ended, wherever the clones are: let its `Drop`
    /// take the connection out of the pool.
    pub async fn handshake<IO>(
        io: IO,
        local: Option<SocketAddr>,
        settings: &Http2Settings,
        limits: Limits,
        guard: Box<dyn Any>,
    ) -> Result<Self, StreamError>
    where
        IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    {
        let _ = (io, settings, limits, guard);
        Ok(Connection { local })
    }

    /// How many more exchanges may begin now: what the endpoint's and our own settings leave; 0
    /// after GOAWAY or when closed.
    pub fn available_streams(&self) -> usize {
        0
    }

    /// Exchanges that are open now.
    pub fn active_streams(&self) -> usize {
        0
    }

    /// Exchanges begun so far (`max_requests_per_connection`).
    pub fn served(&self) -> u64 {
        0
    }

    /// Whether no further exchange can begin, ever: GOAWAY was received or the connection is gone.
    pub fn is_closed(&self) -> bool {
        true
    }

    /// No further exchange begins here; the connection ends with its last exchange.
    pub fn retire(&self) {}
}

/// One stream.
#[derive(Debug)]
pub struct Exchange {
    connection: Connection,
    lease: Lease,
}

impl Exchange {
    /// Begins an exchange. Ask [`Connection::available_streams`] first: beyond it, the request waits
    /// inside the connection.
    pub fn new(connection: &Connection, lease: Lease) -> Self {
        Exchange {
            connection: connection.clone(),
            lease,
        }
    }

    /// See [`super::Exchange::endpoint`].
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.lease.endpoint()
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
}
