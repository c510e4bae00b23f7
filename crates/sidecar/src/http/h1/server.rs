//! The server's side of an HTTP/1 connection.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::decoder::{Decoder, Step};
use super::encoder::{self, Dialect, Encoder, ResponseContext};
use super::error::HeadError;
use super::request::{self, RequestParser};
use super::response::Asked;
use super::wire::Wire;
use super::{Limits, Transport};
use crate::http::error::{Reset, StreamError};
use crate::http::headers::Headers;
use crate::http::message::{BodyLength, RequestHead, ResponseHead, Version};

/// What becomes of a connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It can carry the next request.
    Next,
    /// It is to be closed with [`Connection::close`].
    Close,
}

/// One connection from a client. It carries one request at a time; what comes of the next one
/// meanwhile stays in the read buffer.
#[derive(Debug)]
pub struct Connection<IO = Transport> {
    wire: Wire<IO>,
    scheme: &'static str,
    limits: Limits,
    dialect: Dialect,
    /// The head being read, across calls.
    parser: Option<RequestParser>,
    version: Version,
    asked: Asked,
    decoder: Decoder,
    encoder: Encoder,
    /// The client means to send another request after this one.
    persists: bool,
    /// The proxy wants the connection to end with this response.
    closing: bool,
    tunnel: bool,
    aborted: bool,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Connection<IO> {
    /// A connection on which nothing was read. `scheme` goes into each head.
    pub fn new(io: IO, scheme: &'static str, limits: Limits) -> Self {
        Connection {
            wire: Wire::new(io),
            scheme,
            limits,
            dialect: Dialect {
                trailers: limits.trailers,
                ..Dialect::default()
            },
            parser: None,
            version: Version::Http11,
            asked: Asked::Body,
            decoder: Decoder::none(),
            encoder: Encoder::new(Dialect {
                trailers: limits.trailers,
                ..Dialect::default()
            }),
            persists: true,
            closing: false,
            tunnel: false,
            aborted: false,
        }
    }

    /// How responses are written; names as they came unless set.
    pub fn set_dialect(&mut self, dialect: Dialect) {
        self.dialect = dialect;
        self.encoder = Encoder::new(dialect);
    }

    /// Waits until there is a byte of a next request: true, or the clean end of the connection:
    /// false. Holds no buffer while it waits. Cancel-safe.
    pub async fn wait(&mut self) -> Result<bool, HeadError> {
        poll_fn(|cx| self.poll_wait(cx)).await
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, HeadError>> {
        if !self.wire.input.is_empty() || self.parser.is_some() {
            return Poll::Ready(Ok(true));
        }
        match ready!(self.wire.poll_fill(cx)) {
            Ok(n) => Poll::Ready(Ok(n > 0)),
            // Between requests nothing is lost by it, and clients do end so.
            Err(error) if is_end(&error) => Poll::Ready(Ok(false)),
            Err(error) => Poll::Ready(Err(HeadError::Io(error))),
        }
    }

    /// Reads the next request's head into `head`; `false` is the clean end between requests.
    /// Cancel-safe as long as the same head is given again. After an error whose `status()` is
    /// `Some`, answer with `send_head` and close.
    pub async fn next_request(&mut self, head: &mut RequestHead) -> Result<bool, HeadError> {
        poll_fn(|cx| self.poll_request(cx, head)).await
    }

    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut RequestHead,
    ) -> Poll<Result<bool, HeadError>> {
        if !ready!(self.poll_wait(cx))? {
            return Poll::Ready(Ok(false));
        }
        if self.parser.is_none() {
            self.begin(head);
        }
        loop {
            let Some(parser) = &mut self.parser else {
                return Poll::Ready(Ok(false));
            };
            let mut taken = 0;
            let parsed = parser.parse(self.wire.input.filled(), &mut taken, head, &self.limits);
            self.wire.input.consume(taken);
            match parsed {
                Ok(true) => {
                    self.persists = parser.persists(head.version);
                    self.accept(head);
                    return Poll::Ready(Ok(true));
                }
                Ok(false) => {}
                Err(error) => {
                    // Whatever follows cannot be told apart from this head.
                    self.version =
                        match error.is_told_in_its_version() && self.limits.accept_http_10 {
                            true => head.version,
                            false => Version::Http11,
                        };
                    self.closing = true;
                    return Poll::Ready(Err(error));
                }
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Err(HeadError::Closed)),
                Ok(_) => {}
                Err(error) if is_end(&error) => return Poll::Ready(Err(HeadError::Closed)),
                Err(error) => return Poll::Ready(Err(HeadError::Io(error))),
            }
        }
    }

    fn begin(&mut self, head: &mut RequestHead) {
        request::clear(head, self.scheme);
        self.parser = Some(RequestParser::default());
        self.wire.reset_counts();
        self.asked = Asked::Body;
        self.encoder = Encoder::new(self.dialect);
        // An undecided body is one that is never whole: after a bad head nothing can follow.
        self.decoder = Decoder::until_close();
    }

    fn accept(&mut self, head: &RequestHead) {
        self.parser = None;
        self.version = head.version;
        self.asked = Asked::by(&head.method);
        self.decoder = match head.body {
            BodyLength::None => Decoder::none(),
            BodyLength::Sized(length) => Decoder::sized(length),
            BodyLength::Streamed => Decoder::chunked(),
        };
        self.wire.input.release();
    }

    /// Says `connection: close` in the next head written, and closes after it.
    pub fn force_close(&mut self) {
        self.closing = true;
    }

    /// After the response is sent and flushed: may the client send another request?
    pub fn after(&mut self) -> After {
        let can_continue = self.persists
            && !self.closing
            && !self.aborted
            && !self.tunnel
            && self.encoder.has_ended()
            && self.wire.output.is_empty();
        // What is left of the body and here already costs nothing; more is not worth waiting for.
        if can_continue && self.skip_buffered_body() {
            After::Next
        } else {
            After::Close
        }
    }

    /// Throws away what there is of the request's body; true if that was all of it.
    pub fn skip_buffered_body(&mut self) -> bool {
        loop {
            match self.decoder.step(self.wire.input.filled(), &self.limits) {
                Ok(Step::End) => return true,
                Ok(Step::Skip(n)) => self.wire.input.consume(n),
                Ok(Step::Data(n)) => self.consume(n),
                Ok(Step::More) | Err(_) => return false,
            }
        }
    }

    /// After an upgrade's or CONNECT's response is flushed: the bytes below, and what was read
    /// ahead of them.
    pub fn into_upgraded(self) -> (IO, Vec<u8>) {
        (self.wire.io, self.wire.input.into_vec())
    }

    /// The version of the present request.
    pub fn version(&self) -> Version {
        self.version
    }

    /// See [`crate::http::downstream::Downstream::poll_data`], as for all that follow.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        if self.aborted {
            return Poll::Ready(Err(StreamError::Aborted));
        }
        let n = ready!(self.wire.poll_body(cx, &mut self.decoder, &self.limits))?;
        Poll::Ready(Ok(match n {
            0 => None,
            n => Some(&self.wire.input.filled()[..n]),
        }))
    }

    /// See [`crate::http::downstream::Downstream::consume`].
    pub fn consume(&mut self, n: usize) {
        self.wire.input.consume(n);
        self.decoder.consumed(n);
    }

    /// See [`crate::http::downstream::Downstream::request_ended`].
    pub fn request_ended(&self) -> bool {
        self.decoder.is_done()
    }

    /// See [`crate::http::downstream::Downstream::take_trailers`].
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.decoder.take_trailers()
    }

    /// See [`crate::http::downstream::Downstream::send_informational`].
    pub fn send_informational(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        self.check_open()?;
        encoder::put_informational(&mut self.wire.output, self.version, head);
        Ok(())
    }

    /// See [`crate::http::downstream::Downstream::send_head`].
    pub fn send_head(&mut self, head: &ResponseHead, end: bool) -> Result<(), StreamError> {
        self.check_open()?;
        // A whole answer to a request whose body is still to come ends the connection: say so.
        if end && !self.skip_buffered_body() {
            self.closing = true;
        }
        self.tunnel =
            head.status == 101 || (self.asked == Asked::Connect && head.status / 100 == 2);
        let context = ResponseContext {
            version: self.version,
            bodiless: self.asked.is_bodiless(head.status),
            tunnel: self.tunnel,
            persists: self.persists && !self.closing,
        };
        self.encoder
            .response(&mut self.wire.output, head, context, end);
        self.closing |= self.encoder.ends_with_connection();
        Ok(())
    }

    /// See [`crate::http::downstream::Downstream::poll_ready`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check_open()?;
        let most = self.limits.buffer;
        if self.wire.output.len() < most {
            return Poll::Ready(Ok(()));
        }
        self.wire
            .poll_drain(cx, most / 2)
            .map_err(StreamError::from_io)
    }

    /// See [`crate::http::downstream::Downstream::send_data`].
    pub fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        self.check_open()?;
        let room = self.limits.buffer.saturating_sub(self.wire.output.len());
        let n = room.min(data.len());
        self.encoder.data(&mut self.wire.output, &data[..n])?;
        Ok(n)
    }

    /// See [`crate::http::downstream::Downstream::send_end`].
    pub fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), StreamError> {
        self.check_open()?;
        self.encoder.end(&mut self.wire.output, trailers)
    }

    /// See [`crate::http::downstream::Downstream::poll_flush`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.check_open()?;
        self.wire.poll_drain(cx, 0).map_err(StreamError::from_io)
    }

    /// See [`crate::http::downstream::Downstream::reset`].
    pub fn reset(&mut self, _reset: Reset) {
        self.aborted = true;
    }

    /// See [`crate::http::downstream::Downstream::poll_closed`]. A client that closes its half of
    /// the connection counts as gone, as with Envoy.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        loop {
            if self.wire.input.len() >= self.limits.buffer {
                return Poll::Pending;
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(StreamError::Closed),
                Ok(_) => {}
                Err(error) => return Poll::Ready(StreamError::from_io(error)),
            }
        }
    }

    fn check_open(&self) -> Result<(), StreamError> {
        match self.aborted {
            true => Err(StreamError::Aborted),
            false => Ok(()),
        }
    }

    /// Flushes, closes for writing, and throws away what still comes until the client closes too.
    async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.wire.poll_drain(cx, 0)).await?;
        self.wire.io.shutdown().await?;
        loop {
            let n = self.wire.input.len();
            self.wire.input.consume(n);
            if poll_fn(|cx| self.wire.poll_fill(cx)).await? == 0 {
                return Ok(());
            }
        }
    }
}

impl Connection {
    /// Ends the connection: aborted (RST) after [`reset`](Self::reset); otherwise flushed, closed
    /// for writing, and what the client still sends is thrown away for at most `linger`, so that it
    /// can read the response before the kernel resets the connection.
    pub async fn close(mut self, linger: Duration) {
        if self.aborted {
            // Without it the kernel would say FIN, and a truncated response could pass for whole.
            return self.wire.io.abort();
        }
        // An error means that the client is gone, and an end of the time that it is not worth
        // waiting for: either way the connection ends here.
        let _ = tokio::time::timeout(linger, self.finish()).await;
    }
}

/// How peers end a connection when they have nothing more to say.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
