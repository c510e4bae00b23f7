//! The server's side of an HTTP/1 connection.

use std::task::{Context, Poll};
use std::time::Duration;

use super::error::HeadError;
use super::{Limits, Transport};
use crate::http::error::{Reset, StreamError};
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead, Version};

/// What becomes of a connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It can carry the next request.
    Next,
    /// It is to be closed with [`Connection::close`].
    Close,
}

/// One connection from a client.
#[derive(Debug)]
pub struct Connection<IO = Transport> {
    io: IO,
}

impl<IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Connection<IO> {
    /// A connection on which nothing was read. `scheme` goes into each head.
    pub fn new(io: IO, scheme: &'static str, limits: Limits) -> Self {
        let _ = (scheme, limits);
        Connection { io }
    }

    /// Waits until there is a byte of a next request: true, or the clean end of the connection:
    /// false. Holds no buffer while it waits. Cancel-safe.
    pub async fn wait(&mut self) -> Result<bool, HeadError> {
        std::future::pending().await
    }

    /// Reads the next request's head into `head`; `false` is the clean end between requests.
    /// Cancel-safe as long as the same head is given again. After an error whose `status()` is
    /// `Some`, answer with `send_head` and close.
    pub async fn next_request(&mut self, head: &mut RequestHead) -> Result<bool, HeadError> {
        let _ = head;
        std::future::pending().await
    }

    /// Says `connection: close` in the next head written, and closes after it.
    pub fn force_close(&mut self) {}

    /// After the response is sent: may the client send another request?
    pub fn after(&self) -> After {
        After::Close
    }

    /// The bytes below, for the addresses.
    pub fn transport(&self) -> &IO {
        &self.io
    }

    /// After an upgrade's or CONNECT's response is flushed: the bytes below, and what was read
    /// ahead of them.
    pub fn into_upgraded(self) -> (IO, Vec<u8>) {
        (self.io, Vec::new())
    }

    /// The version of the present request.
    pub fn version(&self) -> Version {
        Version::Http11
    }

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

impl Connection {
    /// Ends the connection: aborted (RST) after [`reset`](Self::reset); otherwise flushed, closed
    /// for writing, and what the client still sends is thrown away for at most `linger`, so that it
    /// can read the response before the kernel resets the connection.
    pub async fn close(self, linger: Duration) {
        let _ = linger;
    }
}
