//! The server's side of an HTTP/2 connection.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ::h2::server::SendResponse;
use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use super::convert::{self, Refusal};
use super::corked::{self, Cork, Corked};
use super::stream::{Receiver, Sender, closed_by};
use crate::config::http_protocol::Http2Settings;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::{Limits, Transport};
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead};

/// Bytes that a stream may queue towards a slow peer before its relay has to wait. A peer that opens
/// all its windows and then reads nothing makes us keep this much for each of its streams: 48 MiB
/// for Envoy's default of 1024.
pub const SEND_BUFFER: usize = 48 * 1024;
/// Streams that the client reset before we even took them up: more is an attack (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that we reset because of the client's errors: more is an attack (CVE-2025-8671).
const ERROR_RESETS: usize = 100;
/// A stream that the client resets sooner than this, without a response, was opened to be reset.
const PREMATURE: Duration = Duration::from_secs(1);
/// From so many streams on, a connection of which more than half were premature is closed.
const PREMATURE_FROM: u32 = 500;

/// One connection from a client. Its streams make progress only while
/// [`accept`](Connection::accept) is polled.
pub struct Connection<IO = Transport> {
    inner: ::h2::server::Connection<Corked<IO>, Bytes>,
    cork: Cork<IO>,
    scheme: &'static str,
    limits: Limits,
    resets: Rc<Resets>,
}

type Accepted = Result<(Request<RecvStream>, SendResponse<Bytes>), ::h2::Error>;

/// How a client uses its streams.
#[derive(Debug, Default)]
struct Resets {
    streams: Cell<u32>,
    premature: Cell<u32>,
}

impl Resets {
    fn is_flood(&self) -> bool {
        self.streams.get() >= PREMATURE_FROM && self.premature.get() > self.streams.get() / 2
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    /// Exchanges the preface and the settings. A client that speaks something else is closed; it may
    /// take `patience` to notice.
    pub async fn handshake(
        io: IO,
        settings: &Http2Settings,
        limits: Limits,
        patience: Duration,
    ) -> Result<Self, StreamError> {
        let mut builder = ::h2::server::Builder::new();
        builder
            .initial_window_size(settings.initial_stream_window)
            .initial_connection_window_size(settings.initial_connection_window)
            .max_concurrent_streams(settings.max_concurrent_streams)
            .header_table_size(settings.header_table_size)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(Some(ERROR_RESETS));
        if settings.allow_connect {
            builder.enable_connect_protocol();
        }
        let (io, cork) = corked::cork(io, limits.buffer);
        let inner = match builder.handshake(io).await {
            Ok(inner) => inner,
            Err(error) => {
                cork.linger(patience).await;
                return Err(StreamError::from_h2(error));
            }
        };
        cork.close();
        Ok(Connection {
            inner,
            cork,
            scheme: "http",
            limits,
            resets: Rc::default(),
        })
    }

    /// The scheme of requests that come without `:authority`; `http` unless set.
    pub fn set_scheme(&mut self, scheme: &'static str) {
        self.scheme = scheme;
    }

    /// For [`super::keepalive`]; there is one.
    pub fn pings(&mut self) -> Option<::h2::PingPong> {
        self.inner.ping_pong()
    }

    /// The next request; `None` when the connection has ended, all its streams included. Requests
    /// that are malformed or over the limits are answered here. `head` gives a head to be reused.
    /// Cancel-safe.
    pub async fn accept(
        &mut self,
        head: impl Fn() -> RequestHead,
    ) -> Option<Result<(RequestHead, StreamPair), StreamError>> {
        loop {
            let (request, mut respond) = match poll_fn(|cx| self.poll_accept(cx)).await? {
                Ok(stream) => stream,
                Err(error) => return Some(Err(StreamError::from_h2(error))),
            };
            if self.resets.is_flood() {
                self.inner.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            self.resets
                .streams
                .set(self.resets.streams.get().saturating_add(1));
            let ended = request.body().is_end_stream();
            match convert::request_head(&request, self.scheme, ended, &self.limits, head()) {
                Ok(head) => {
                    return Some(Ok((
                        head,
                        StreamPair {
                            respond,
                            sender: None,
                            receiver: Receiver::new(request.into_body(), ended, self.limits),
                            accepted: Instant::now(),
                            resets: Rc::clone(&self.resets),
                        },
                    )));
                }
                Err(Refusal::Malformed(rule)) => {
                    tracing::debug!(rule, "HTTP/2 request refused");
                    respond.send_reset(Reason::PROTOCOL_ERROR);
                }
                Err(Refusal::TooManyFields) => {
                    let mut head = ResponseHead::new();
                    head.status = 431;
                    let sent = convert::response(&head)
                        .and_then(|response| {
                            respond
                                .send_response(response, true)
                                .map_err(StreamError::from_h2)
                        })
                        .is_ok();
                    if !sent {
                        respond.send_reset(Reason::PROTOCOL_ERROR);
                    }
                }
            }
        }
    }

    /// What is written is sent once nothing more can be accepted: a stream that was is served later.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Accepted>> {
        loop {
            let polled = self.inner.poll_accept(cx);
            if polled.is_ready() || !self.cork.finish(cx) {
                return polled;
            }
        }
    }

    /// Closes the connection, whose client has `patience` to notice.
    pub async fn close(self, patience: Duration) {
        let Connection { inner, cork, .. } = self;
        drop(inner);
        cork.linger(patience).await;
    }

    /// GOAWAY at once; the streams that there are finish, then `accept` says `None`.
    pub fn graceful(&mut self) {
        self.inner.graceful_shutdown();
    }
}

impl<IO> fmt::Debug for Connection<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("scheme", &self.scheme)
            .field("resets", &self.resets)
            .finish_non_exhaustive()
    }
}

/// One stream: a request and its response.
#[derive(Debug)]
pub struct StreamPair {
    respond: SendResponse<Bytes>,
    /// There once the head of the response is sent.
    sender: Option<Sender>,
    receiver: Receiver,
    accepted: Instant,
    resets: Rc<Resets>,
}

impl StreamPair {
    /// See [`crate::http::downstream::Downstream::poll_data`], as for all that follow.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        self.receiver.poll_data(cx)
    }

    /// See [`crate::http::downstream::Downstream::consume`].
    pub fn consume(&mut self, n: usize) {
        self.receiver.consume(n);
    }

    /// See [`crate::http::downstream::Downstream::request_ended`].
    pub fn request_ended(&self) -> bool {
        self.receiver.has_ended()
    }

    /// See [`crate::http::downstream::Downstream::take_trailers`].
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.receiver.take_trailers()
    }

    /// See [`crate::http::downstream::Downstream::send_informational`].
    pub fn send_informational(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        self.respond
            .send_informational(convert::response(head)?)
            .map_err(StreamError::from_h2)
    }

    /// See [`crate::http::downstream::Downstream::send_head`].
    pub fn send_head(&mut self, head: &ResponseHead, end: bool) -> Result<(), StreamError> {
        let stream = self
            .respond
            .send_response(convert::response(head)?, end)
            .map_err(StreamError::from_h2)?;
        self.sender = Some(Sender::new(stream, end));
        Ok(())
    }

    fn sender(&mut self) -> Result<&mut Sender, StreamError> {
        self.sender
            .as_mut()
            .ok_or(StreamError::Unrepresentable("a body before its head"))
    }

    /// See [`crate::http::downstream::Downstream::poll_ready`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.sender()?.poll_ready(cx)
    }

    /// See [`crate::http::downstream::Downstream::send_data`].
    pub fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        self.sender()?.send_data(data)
    }

    /// See [`crate::http::downstream::Downstream::send_end`].
    pub fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), StreamError> {
        self.sender()?.send_end(trailers)
    }

    /// See [`crate::http::downstream::Downstream::poll_flush`].
    pub fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Poll::Ready(match &mut self.sender {
            Some(sender) => sender.flush(),
            None => Ok(()),
        })
    }

    /// See [`crate::http::downstream::Downstream::reset`].
    pub fn reset(&mut self, reset: Reset) {
        match &mut self.sender {
            Some(sender) => sender.reset(reset),
            None => self.respond.send_reset(reset.reason()),
        }
    }

    /// See [`crate::http::downstream::Downstream::poll_closed`].
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        match &mut self.sender {
            Some(sender) => sender.poll_closed(cx),
            None => self.respond.poll_reset(cx).map(closed_by),
        }
    }
}

impl Drop for StreamPair {
    fn drop(&mut self) {
        // Only a stream without a response can be a premature one.
        if self.sender.is_none()
            && self.accepted.elapsed() < PREMATURE
            && let Poll::Ready(Ok(_)) = self
                .respond
                .poll_reset(&mut Context::from_waker(Waker::noop()))
        {
            let premature = self.resets.premature.get();
            self.resets.premature.set(premature.saturating_add(1));
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
