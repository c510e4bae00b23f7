//! One request with its response, towards the client, whatever the protocol.

use std::task::{Context, Poll};

use super::error::{Reset, StreamError};
use super::h1;
use super::h2;
use super::headers::Headers;
use super::message::{ResponseHead, Version};

/// The request that a client has sent, as the connection manager relays it. The verbs are those of
/// [`crate::upstream::exchange::Exchange`], mirrored. All polls expect the same task.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives in one future and is not moved about"
)]
pub enum Downstream<'a> {
    /// The connection itself: it carries one request at a time.
    H1(&'a mut h1::server::Connection),
    /// One stream of many.
    H2(h2::server::StreamPair),
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Downstream::H1($stream) => $call,
            Downstream::H2($stream) => $call,
        }
    };
}

impl Downstream<'_> {
    /// The protocol of the request.
    pub fn version(&self) -> Version {
        match self {
            Downstream::H1(connection) => connection.version(),
            Downstream::H2(_) => Version::Http2,
        }
    }

    /// The next bytes of the request's body, borrowed from the read buffer; `None` once it has
    /// ended. The same bytes come again until [`consume`](Self::consume) takes them.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        each!(self, stream => stream.poll_data(cx))
    }

    /// Takes `n` bytes of what [`poll_data`](Self::poll_data) gave; with HTTP/2 this opens the
    /// client's window again.
    pub fn consume(&mut self, n: usize) {
        each!(self, stream => stream.consume(n))
    }

    /// The connection ends with this response, and the client is told so. With HTTP/2 it is the
    /// connection's own task that says so.
    pub fn end_connection(&mut self) {
        if let Downstream::H1(connection) = self {
            connection.force_close();
        }
    }

    /// Whether the whole request was read.
    pub fn request_ended(&self) -> bool {
        match self {
            Downstream::H1(connection) => connection.request_ended(),
            Downstream::H2(stream) => stream.request_ended(),
        }
    }

    /// Whether the whole request has come, once the part of its body that is here already is thrown
    /// away (HTTP/1): then the client may send another one.
    pub fn finish_request(&mut self) -> bool {
        match self {
            Downstream::H1(connection) => connection.skip_buffered_body(),
            Downstream::H2(stream) => stream.request_ended(),
        }
    }

    /// The request's trailers, once, after `poll_data` said `None`.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        each!(self, stream => stream.take_trailers())
    }

    /// Queues an informational response (100, 103); nothing is sent to an HTTP/1.0 client. 101 is a
    /// final head: give it to [`send_head`](Self::send_head).
    pub fn send_informational(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        each!(self, stream => stream.send_informational(head))
    }

    /// Queues the head of the response, and with `end` says that there is nothing after it. HTTP/1
    /// writes the framing that `head.body` tells.
    pub fn send_head(&mut self, head: &ResponseHead, end: bool) -> Result<(), StreamError> {
        each!(self, stream => stream.send_head(head, end))
    }

    /// Ready when `send_data` will take at least one byte.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        each!(self, stream => stream.poll_ready(cx))
    }

    /// Queues bytes of the body and says how many it took: 0 means `poll_ready` first.
    pub fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        each!(self, stream => stream.send_data(data))
    }

    /// Ends the response, with trailers where the protocol can carry them.
    pub fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), StreamError> {
        each!(self, stream => stream.send_end(trailers))
    }

    /// Hands what is queued to the kernel (HTTP/1) or to the connection's task (HTTP/2).
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    /// Ends the stream before its time: RST_STREAM, or with HTTP/1 the connection is to be aborted.
    pub fn reset(&mut self, reset: Reset) {
        each!(self, stream => stream.reset(reset))
    }

    /// Ready when the client has gone away or reset the stream, while we wait for something else.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        each!(self, stream => stream.poll_closed(cx))
    }
}
