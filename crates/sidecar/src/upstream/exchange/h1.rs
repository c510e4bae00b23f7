//! HTTP/1 towards an endpoint: the connection that a pool keeps, and the exchange on it.

use std::any::Any;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::lease::{Event, Lease};
use crate::config::endpoint::Endpoint;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::decoder::Decoder;
use crate::http::h1::encoder::{Dialect, Encoder};
use crate::http::h1::error::HeadError;
use crate::http::h1::response::{self, Asked, ResponseParser};
use crate::http::h1::wire::{HIGH_WATERMARK, Wire};
use crate::http::h1::{Limits, Transport};
use crate::http::headers::{Headers, Name};
use crate::http::message::{BodyLength, RequestHead, ResponseHead};
use crate::tls::stream::Handshake;
use crate::upstream::stats::ClusterStats;

/// Informational responses to one request; more is an endpoint that never answers.
const INFORMATIONAL: u32 = 100;

/// A connection to an endpoint, between exchanges.
#[derive(Debug)]
pub struct Connection {
    wire: Wire<Transport>,
    local: Option<SocketAddr>,
    limits: Limits,
    served: u64,
    guard: Box<dyn Any>,
}

impl Connection {
    /// A connection on which nothing was sent or read. `guard` is dropped with the connection,
    /// wherever that happens (the pool's count of connections, for example).
    pub fn new(
        io: Transport,
        local: Option<SocketAddr>,
        limits: Limits,
        guard: Box<dyn Any>,
    ) -> Self {
        Connection {
            wire: Wire::new(io),
            local,
            limits,
            served: 0,
            guard,
        }
    }

    /// How many exchanges it has finished (`max_requests_per_connection`).
    pub fn served(&self) -> u64 {
        self.served
    }

    /// What [`new`](Self::new) was given.
    pub fn guard(&self) -> &dyn Any {
        &*self.guard
    }

    /// Ready when the idle connection can no longer be used: the endpoint closed it, or sent
    /// something that nobody asked for. Pending is what an idle connection should be.
    pub fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.wire.input.is_empty() {
            return Poll::Ready(());
        }
        // Bytes, an end and an error are all the same here.
        self.wire.poll_fill(cx).map(|_| ())
    }
}

/// A tunnel after 101, or after 2xx to CONNECT.
#[derive(Debug)]
pub struct Upgraded {
    /// The bytes.
    pub stream: Transport,
    /// What was read ahead of them.
    pub read_ahead: Vec<u8>,
    /// Keeps the request counted while the tunnel lasts.
    pub lease: Lease,
    /// The connection's own guard: keep it as long as the stream.
    pub guard: Box<dyn Any>,
}

/// How far the response has come.
#[derive(Debug)]
enum Receiving {
    /// A head is being read.
    Head(ResponseParser),
    Body(Decoder),
}

/// One request and its response on a connection.
#[derive(Debug)]
pub struct Exchange {
    /// There until the exchange is dropped or upgraded.
    connection: Option<Box<Connection>>,
    lease: Option<Lease>,
    /// These three are copied out of the above, so that they are told even without those.
    endpoint: Arc<Endpoint>,
    reused: bool,
    local: Option<SocketAddr>,
    encoder: Encoder,
    receiving: Receiving,
    asked: Asked,
    asked_upgrade: bool,
    informational: u32,
    /// The endpoint means to keep the connection.
    persists: bool,
    tunnel: bool,
    /// Why nothing can be written any more; what comes is still read.
    write_error: bool,
    failed: bool,
}

impl Exchange {
    /// Begins an exchange on a new connection or one that was kept.
    pub fn new(mut connection: Box<Connection>, lease: Lease, dialect: Dialect) -> Self {
        connection.wire.reset_counts();
        Exchange {
            endpoint: Arc::clone(lease.endpoint()),
            reused: connection.served > 0,
            local: connection.local,
            connection: Some(connection),
            lease: Some(lease),
            encoder: Encoder::new(dialect),
            receiving: Receiving::Head(ResponseParser::default()),
            asked: Asked::Body,
            asked_upgrade: false,
            informational: 0,
            persists: false,
            tunnel: false,
            write_error: false,
            failed: false,
        }
    }

    /// See [`super::Exchange::endpoint`].
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    pub(super) fn charge(&mut self, stats: Rc<ClusterStats>) {
        if let Some(lease) = &mut self.lease {
            lease.charge(stats);
        }
    }

    pub(super) fn note(&self, event: Event) {
        if let Some(lease) = &self.lease {
            lease.note(event);
        }
    }

    fn note_transfer(&self) {
        if let Some(connection) = &self.connection {
            self.note(Event::Transferred {
                received: connection.wire.received,
                sent: connection.wire.written,
            });
        }
    }

    /// The connection as long as it may be used.
    fn open(&mut self) -> Result<&mut Connection, StreamError> {
        match &mut self.connection {
            Some(connection) if !self.failed => Ok(connection),
            _ => Err(StreamError::Aborted),
        }
    }

    fn fail<T>(&mut self, error: StreamError) -> Result<T, StreamError> {
        self.failed = true;
        Err(error)
    }

    /// See [`super::Exchange::send_head`], as for all that follow.
    pub fn send_head(&mut self, head: &RequestHead, end: bool) -> Result<(), StreamError> {
        self.asked = Asked::by(&head.method);
        self.asked_upgrade = head.headers.contains(Name::Upgrade);
        match &mut self.connection {
            Some(connection) if !self.failed => {
                self.encoder.request(&mut connection.wire.output, head, end);
                Ok(())
            }
            _ => Err(StreamError::Aborted),
        }
    }

    /// See [`super::Exchange::poll_ready`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.open()?.wire.output.len() < HIGH_WATERMARK {
            return Poll::Ready(Ok(()));
        }
        self.poll_drain(cx, HIGH_WATERMARK / 2)
    }

    /// See [`super::Exchange::send_data`].
    pub fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        if self.write_error {
            return Ok(data.len());
        }
        let Some(connection) = self.connection.as_mut().filter(|_| !self.failed) else {
            return Err(StreamError::Aborted);
        };
        let output = &mut connection.wire.output;
        let n = HIGH_WATERMARK.saturating_sub(output.len()).min(data.len());
        match self.encoder.data(output, &data[..n]) {
            Ok(()) => Ok(n),
            Err(error) => self.fail(error),
        }
    }

    /// See [`super::Exchange::send_end`].
    pub fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), StreamError> {
        if self.write_error {
            return Ok(());
        }
        let Some(connection) = self.connection.as_mut().filter(|_| !self.failed) else {
            return Err(StreamError::Aborted);
        };
        match self.encoder.end(&mut connection.wire.output, trailers) {
            Ok(()) => Ok(()),
            Err(error) => self.fail(error),
        }
    }

    /// See [`super::Exchange::poll_flush`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.open()?;
        self.poll_drain(cx, 0)
    }

    /// Writes. An endpoint that reads no more may have answered all the same (413, for example), so
    /// an error only ends the writing, and reading tells what became of the request.
    fn poll_drain(&mut self, cx: &mut Context<'_>, keep: usize) -> Poll<Result<(), StreamError>> {
        if self.write_error {
            return Poll::Ready(Ok(()));
        }
        let wire = &mut self.open()?.wire;
        if ready!(wire.poll_drain(cx, keep)).is_err() {
            let rest = wire.output.len();
            wire.output.consume(rest);
            self.write_error = true;
        }
        Poll::Ready(Ok(()))
    }

    /// See [`super::Exchange::poll_head`].
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ResponseHead,
    ) -> Poll<Result<(), StreamError>> {
        loop {
            let (Some(connection), false) = (&mut self.connection, self.failed) else {
                return Poll::Ready(Err(StreamError::Aborted));
            };
            let Receiving::Head(parser) = &mut self.receiving else {
                return Poll::Ready(Err(StreamError::Aborted));
            };
            if !parser.has_begun() {
                response::clear(into);
            }
            let wire = &mut connection.wire;
            let mut taken = 0;
            let parsed = parser.parse(
                wire.input.filled(),
                &mut taken,
                into,
                self.asked,
                &connection.limits,
            );
            wire.input.consume(taken);
            match parsed {
                Ok(true) => {
                    wire.input.release();
                    let result = self.accept(into);
                    self.failed |= result.is_err();
                    return Poll::Ready(result);
                }
                Ok(false) => {}
                Err(error) => return Poll::Ready(self.fail(of_head(error))),
            }
            match ready!(wire.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(self.fail(StreamError::Closed)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(self.fail(StreamError::from_io(error))),
            }
        }
    }

    /// Acts on a whole head.
    fn accept(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        let Receiving::Head(parser) = &self.receiving else {
            return Err(StreamError::Aborted);
        };
        if head.status == 101 && !self.asked_upgrade {
            return Err(StreamError::Protocol("101 without an upgrade asked for"));
        }
        if head.status < 200 && head.status != 101 {
            self.informational += 1;
            if self.informational > INFORMATIONAL {
                return Err(StreamError::LimitExceeded("informational responses"));
            }
            self.receiving = Receiving::Head(ResponseParser::default());
            return Ok(());
        }
        self.tunnel =
            head.status == 101 || (self.asked == Asked::Connect && head.status / 100 == 2);
        self.persists = parser.persists(head.version);
        let decoder = match head.body {
            BodyLength::None => Decoder::none(),
            BodyLength::Sized(length) => Decoder::sized(length),
            BodyLength::Streamed if parser.is_chunked() => Decoder::chunked(),
            BodyLength::Streamed => {
                self.persists = false;
                Decoder::until_close()
            }
        };
        self.receiving = Receiving::Body(decoder);
        Ok(())
    }

    /// See [`super::Exchange::poll_data`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        let (Some(connection), Receiving::Body(decoder), false) =
            (&mut self.connection, &mut self.receiving, self.failed)
        else {
            return Poll::Ready(Err(StreamError::Aborted));
        };
        match ready!(connection.wire.poll_body(cx, decoder, &connection.limits)) {
            Ok(0) => Poll::Ready(Ok(None)),
            Ok(n) => Poll::Ready(Ok(Some(&connection.wire.input.filled()[..n]))),
            Err(error) => {
                self.failed = true;
                Poll::Ready(Err(error))
            }
        }
    }

    /// See [`super::Exchange::consume`].
    pub fn consume(&mut self, n: usize) {
        if let (Some(connection), Receiving::Body(decoder)) =
            (&mut self.connection, &mut self.receiving)
        {
            connection.wire.input.consume(n);
            decoder.consumed(n);
        }
    }

    /// See [`super::Exchange::response_ended`].
    pub fn response_ended(&self) -> bool {
        matches!(&self.receiving, Receiving::Body(decoder) if decoder.is_done())
    }

    /// See [`super::Exchange::take_trailers`].
    pub fn take_trailers(&mut self) -> Option<Headers> {
        match &mut self.receiving {
            Receiving::Body(decoder) => decoder.take_trailers(),
            Receiving::Head(_) => None,
        }
    }

    /// See [`super::Exchange::reset`].
    pub fn reset(&mut self, _reset: Reset) {
        self.failed = true;
    }

    /// See [`super::Exchange::local_addr`].
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// See [`super::Exchange::tls`].
    pub fn tls(&self) -> Option<&Rc<Handshake>> {
        self.connection.as_ref()?.wire.io.handshake()
    }

    /// See [`super::Exchange::reused`].
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// See [`super::Exchange::bytes_of_response_seen`].
    pub fn bytes_of_response_seen(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.wire.received > 0)
    }

    /// See [`super::Exchange::request_bytes_sent`].
    pub fn request_bytes_sent(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(|connection| connection.wire.written > 0)
    }

    /// See [`super::Exchange::into_upgraded`].
    pub fn into_upgraded(mut self) -> Option<Upgraded> {
        self.note_transfer();
        let connection = *self.connection.take().filter(|_| self.tunnel)?;
        Some(Upgraded {
            stream: connection.wire.io,
            read_ahead: connection.wire.input.into_vec(),
            lease: self.lease.take()?,
            guard: connection.guard,
        })
    }

    /// Whether the connection can carry another exchange: both messages are whole, nothing came
    /// behind the response, and nobody wants it closed.
    fn is_reusable(&self) -> bool {
        !self.failed
            && !self.write_error
            && !self.tunnel
            && self.persists
            && self.encoder.has_ended()
            && self.response_ended()
            && self.connection.as_ref().is_some_and(|connection| {
                connection.wire.input.is_empty() && connection.wire.output.is_empty()
            })
    }

    /// Whether the exchange was given up before anything happened on the connection.
    fn is_untouched(&self) -> bool {
        !self.failed
            && !self.write_error
            && self.connection.as_ref().is_some_and(|connection| {
                let wire = &connection.wire;
                wire.written == 0
                    && wire.received == 0
                    && wire.input.is_empty()
                    && wire.output.is_empty()
            })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.note_transfer();
        let (reusable, untouched) = (self.is_reusable(), self.is_untouched());
        if let (Some(mut connection), Some(lease)) = (self.connection.take(), &self.lease)
            && (reusable || untouched)
        {
            connection.served += u64::from(reusable);
            connection.wire.input.release();
            lease.keep(connection);
        }
    }
}

fn of_head(error: HeadError) -> StreamError {
    match error {
        HeadError::Malformed(rule) => StreamError::Protocol(rule),
        HeadError::TwoLengths => {
            StreamError::Protocol("content-length together with transfer-encoding")
        }
        HeadError::Characters => StreamError::Protocol("a field value has a control character"),
        HeadError::Length(_) => StreamError::Protocol("a content-length that is not one number"),
        HeadError::TransferEncoding(_) => {
            StreamError::Protocol("a transfer-encoding that is not chunked alone")
        }
        HeadError::Target(rule) | HeadError::Authority(rule) => StreamError::Protocol(rule),
        HeadError::Scheme | HeadError::Plaintext | HeadError::Body => {
            StreamError::Protocol("what only a request can have")
        }
        HeadError::Version | HeadError::LowVersion => {
            StreamError::Protocol("the version of HTTP is not supported")
        }
        HeadError::TooLarge => StreamError::LimitExceeded("the size of the response's head"),
        HeadError::TooManyFields => StreamError::LimitExceeded("the number of response headers"),
        HeadError::Closed => StreamError::Closed,
        HeadError::Io(error) => StreamError::Io(error),
    }
}

#[cfg(test)]
#[path = "h1_tests.rs"]
mod tests;
