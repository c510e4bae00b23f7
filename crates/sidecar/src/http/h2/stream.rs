//! Both directions of one stream, for the server's side and the client's.

use std::task::{Context, Poll, ready};

use ::h2::{RecvStream, SendStream};
use bytes::{Buf, Bytes};

use super::convert;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::Limits;
use crate::http::headers::Headers;
use crate::http::message::BodyLength;

/// The most that one call of [`Sender::send_data`] takes: 64 KiB.
const PIECE: usize = 64 * 1024;

/// The direction in which the peer sends.
#[derive(Debug)]
pub struct Receiver {
    stream: RecvStream,
    /// The present DATA frame, as far as it was not consumed.
    chunk: Bytes,
    trailers: Option<Headers>,
    ended: bool,
    limits: Limits,
}

impl Receiver {
    /// A direction whose head has been read; with `ended` nothing followed it.
    pub fn new(stream: RecvStream, ended: bool, limits: Limits) -> Self {
        Receiver {
            ended,
            stream,
            chunk: Bytes::new(),
            trailers: None,
            limits,
        }
    }

    /// See [`crate::http::downstream::Downstream::poll_data`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        while self.chunk.is_empty() && !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(StreamError::from_h2(error))),
                None => {
                    let fields =
                        ready!(self.stream.poll_trailers(cx)).map_err(StreamError::from_h2)?;
                    if let Some(fields) = fields {
                        self.trailers = Some(convert::trailers(&fields, &self.limits)?);
                    }
                    self.ended = true;
                }
            }
        }
        Poll::Ready(Ok((!self.chunk.is_empty()).then_some(&self.chunk[..])))
    }

    /// See [`crate::http::downstream::Downstream::consume`].
    pub fn consume(&mut self, n: usize) {
        self.chunk.advance(n);
        // It refuses only more than was received, and `advance` would have panicked before.
        let _ = self.stream.flow_control().release_capacity(n);
        // Cheaper than to ask for more data and then for trailers.
        if self.chunk.is_empty() {
            self.ended = self.stream.is_end_stream();
        }
    }

    /// See [`crate::http::downstream::Downstream::request_ended`].
    pub fn has_ended(&self) -> bool {
        self.chunk.is_empty() && (self.ended || self.stream.is_end_stream())
    }

    /// See [`crate::http::downstream::Downstream::take_trailers`].
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.trailers.take()
    }
}

/// The direction in which we send.
///
/// The last piece is held until the next call, so that the end of the stream travels with it
/// instead of in a frame of its own.
#[derive(Debug)]
pub struct Sender {
    stream: SendStream<Bytes>,
    held: Bytes,
    /// How many bytes the last call left behind. No more than that is ever reserved: what one
    /// stream reserves of the connection's window and does not use, the others lack.
    wanted: usize,
    ended: bool,
}

impl Sender {
    /// A direction whose head was sent; with `ended` nothing follows it.
    pub fn new(stream: SendStream<Bytes>, ended: bool) -> Self {
        Sender {
            stream,
            held: Bytes::new(),
            wanted: 0,
            ended,
        }
    }

    /// How many bytes flow control and the send buffer have room for, beyond what is held.
    fn room(&self) -> usize {
        self.stream.capacity().saturating_sub(self.held.len())
    }

    fn send_held(&mut self, end: bool) -> Result<(), StreamError> {
        if self.held.is_empty() && !end {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.held);
        self.ended = end;
        self.stream
            .send_data(piece, end)
            .map_err(StreamError::from_h2)
    }

    /// See [`crate::http::downstream::Downstream::poll_ready`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let wanted = self.wanted.clamp(1, PIECE);
        self.stream.reserve_capacity(self.held.len() + wanted);
        if self.room() > 0 {
            return Poll::Ready(Ok(()));
        }
        // The peer opens its window only for what it has got.
        self.send_held(false)?;
        self.stream.reserve_capacity(wanted);
        while self.room() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(StreamError::from_h2(error))),
                None => return Poll::Ready(Err(StreamError::Closed)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// See [`crate::http::downstream::Downstream::send_data`].
    pub fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        if self.ended {
            return Err(StreamError::Unrepresentable(
                "a body after the message's end",
            ));
        }
        if data.is_empty() {
            return Ok(0);
        }
        self.send_held(false)?;
        let wanted = data.len().min(PIECE);
        self.stream.reserve_capacity(wanted);
        let n = wanted.min(self.stream.capacity());
        self.wanted = data.len() - n;
        if n > 0 {
            self.held = Bytes::copy_from_slice(&data[..n]);
        }
        Ok(n)
    }

    /// See [`crate::http::downstream::Downstream::send_end`].
    pub fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), StreamError> {
        if self.ended {
            return Ok(());
        }
        let Some(trailers) = trailers.filter(|trailers| !trailers.is_empty()) else {
            return self.send_held(true);
        };
        self.send_held(false)?;
        self.ended = true;
        let trailers = convert::header_map(trailers, BodyLength::None)?;
        self.stream
            .send_trailers(trailers)
            .map_err(StreamError::from_h2)
    }

    /// Hands on what is held. The connection's own task writes it.
    pub fn flush(&mut self) -> Result<(), StreamError> {
        self.send_held(false)
    }

    /// RST_STREAM.
    pub fn reset(&mut self, reset: Reset) {
        self.ended = true;
        self.stream.send_reset(reset.reason());
    }

    /// Ready when the peer has reset the stream, or the connection is gone.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        self.stream.poll_reset(cx).map(closed_by)
    }
}

/// What a `poll_reset` of the crate tells.
pub fn closed_by(result: Result<::h2::Reason, ::h2::Error>) -> StreamError {
    match result {
        Ok(reason) => StreamError::Reset(reason),
        Err(error) => StreamError::from_h2(error),
    }
}
