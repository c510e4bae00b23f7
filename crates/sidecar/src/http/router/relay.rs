//! One request on its way up and its response on its way down, both at once, in one task.
//!
//! Bytes are borrowed from one side's read buffer and copied into the other's write buffer; nothing
//! is sent while more is at hand, so a small message costs one send.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::mirror::Copies;
use crate::http::connection_manager::context::Context as HttpContext;
use crate::http::downstream::Downstream;
use crate::http::error::StreamError;
use crate::http::headers::Headers;
use crate::http::message::{BodyLength, RequestHead, ResponseHead};
use crate::runtime::timer::Timer;
use crate::telemetry::access_log::record::Moments;
use crate::upstream::exchange::Exchange;

/// What was sent of a request and could be sent again, on a connection that may turn out dead.
pub struct Replay {
    bytes: Vec<u8>,
    /// As many bytes were read for an earlier place, and count for the next one as well.
    carried: u64,
    /// The most bytes to keep.
    pub limit: usize,
    /// The request's body, with its trailers, has been read to its end.
    pub ended: bool,
    trailers: Option<Headers>,
    overflowed: bool,
    /// Who else is told what the client sends.
    pub copies: Copies,
}

impl Default for Replay {
    fn default() -> Self {
        Replay {
            bytes: Vec::new(),
            carried: 0,
            limit: Replay::LIMIT,
            ended: false,
            trailers: None,
            overflowed: false,
            copies: Copies::default(),
        }
    }
}

impl Replay {
    /// The most body bytes kept so that a request can be sent again; beyond it, it cannot.
    pub const LIMIT: usize = 64 * 1024;

    /// What is kept of a body that is to be sent to another place; nothing where it has none there.
    pub fn moved(&mut self, has_body: bool) -> Self {
        let kept = std::mem::take(self);
        let bytes = if has_body { kept.bytes } else { Vec::new() };
        Replay {
            carried: bytes.len() as u64,
            bytes,
            trailers: kept.trailers.filter(|_| has_body),
            ended: true,
            ..Replay::default()
        }
    }

    /// Tells the copies of a body that was read before.
    pub fn tell_copies(&mut self, context: &HttpContext) {
        if self.ended && !self.copies.is_empty() {
            self.copies.data(context, &self.bytes);
            self.copies.end(context, self.trailers.as_ref());
        }
    }

    /// Whether all that was taken from the client is still here.
    pub fn is_complete(&self) -> bool {
        !self.overflowed
    }

    fn keep(&mut self, data: &[u8]) {
        if self.overflowed || self.bytes.len() + data.len() > self.limit {
            self.overflowed = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(data);
        }
    }
}

/// How the relaying ended when it did not end well.
#[derive(Debug)]
pub enum RelayError {
    /// The client's side failed.
    Downstream(StreamError),
    /// The endpoint's side failed.
    Upstream(StreamError),
    /// `timeout` of the route.
    Timeout,
    /// Nothing moved for the stream's idle timeout.
    Idle,
    /// The request took longer to arrive than `request_timeout`.
    RequestTimeout,
    /// `max_stream_duration` passed.
    MaxDuration,
}

/// The deadlines of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadlines {
    /// Route timeout, counted from the end of the request.
    pub response: Option<std::time::Duration>,
    /// Idle timeout.
    pub idle: Option<std::time::Duration>,
    /// The same for a response that is complete, which the client does not take.
    pub flush: Option<std::time::Duration>,
    /// The request must have come by then.
    pub request: Option<Instant>,
    /// The stream must be over by then.
    pub stream: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Upload {
    /// Bytes kept from an earlier attempt go first.
    Replaying {
        sent: usize,
    },
    Body,
    Done,
    /// The endpoint takes no more; its response may still come.
    Abandoned,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Download {
    Head,
    Body,
    Flush,
    Done,
}

/// What the relay asks of its owner when a head arrives.
pub trait OnHead {
    /// An informational head (100, 103) has come: change it for the client. Answers whether the
    /// client is to see it.
    fn informational(&mut self, response: &mut ResponseHead) -> bool;

    /// The request lasts, and that is to be logged: so many bytes have been received and sent.
    fn lasts(&mut self, request: &RequestHead, response: &ResponseHead, bytes: (u64, u64));

    /// Whether this final head is a redirect that is followed instead of being passed on. `whole`:
    /// the request has come to its end, and its body is kept.
    fn is_followed(&mut self, request: &RequestHead, response: &ResponseHead, whole: bool) -> bool;

    /// Whether the connection is to end with this response, because it is draining.
    fn is_last(&self) -> bool;

    /// A final head has come, when so many bytes of the request's body had been read: change it for
    /// the client. Answers whether it ends the response, and
    /// whether it switches both sides to raw bytes (an accepted upgrade).
    fn final_head(
        &mut self,
        now: Instant,
        received: u64,
        request: &RequestHead,
        response: &mut ResponseHead,
    ) -> HeadOutcome;
}

/// What follows a final head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOutcome {
    /// The body follows, or none.
    Response,
    /// Both sides are raw bytes from here on.
    Upgraded,
}

/// The state of relaying one exchange.
pub struct Relay<'a, 'd> {
    context: &'a HttpContext,
    pub request: &'a RequestHead,
    pub response: &'a mut ResponseHead,
    pub downstream: &'a mut Downstream<'d>,
    pub replay: &'a mut Replay,
    /// Whether the request may have to be sent again, so that its body is to be kept.
    keeps: bool,
    pub deadlines: Deadlines,
    pub timer: &'a mut Timer,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Trailers of the response, for the access log.
    pub trailers: Option<Headers>,
    /// When the request had been read to its end.
    request_ended: Option<Instant>,
    last_activity: Instant,
    began: Instant,
    /// When the whole request had been sent.
    sent: Option<Instant>,
    /// When the whole response had come.
    response_ended: Option<Instant>,
    /// The time of the present poll, once somebody has asked for it.
    now: Option<Instant>,
    /// When the request is logged next, for it lasts.
    next_log: Option<Instant>,
    upload: Upload,
    download: Download,
}

impl<'a, 'd> Relay<'a, 'd> {
    /// Relays `request` over an exchange whose head has been sent. What `replay` has kept of an
    /// earlier attempt goes first; with `keeps`, more is kept in it. `request_ended` is when the
    /// request had been read to its end, if it has.
    #[expect(clippy::too_many_arguments, reason = "each is a part of one stream")]
    pub fn new(
        context: &'a HttpContext,
        request: &'a RequestHead,
        response: &'a mut ResponseHead,
        downstream: &'a mut Downstream<'d>,
        replay: &'a mut Replay,
        keeps: bool,
        deadlines: Deadlines,
        request_ended: Option<Instant>,
        timer: &'a mut Timer,
    ) -> Self {
        let began = Instant::now();
        let already = replay.carried;
        replay.carried = 0;
        Relay {
            context,
            request,
            response,
            downstream,
            upload: if request.body == BodyLength::None {
                Upload::Done
            } else if !replay.bytes.is_empty() || replay.ended {
                Upload::Replaying { sent: 0 }
            } else {
                Upload::Body
            },
            replay,
            keeps,
            deadlines,
            timer,
            bytes_received: already,
            bytes_sent: 0,
            trailers: None,
            request_ended,
            last_activity: began,
            began,
            sent: (request.body == BodyLength::None).then_some(began),
            response_ended: None,
            now: None,
            next_log: context.manager.log_times.every.map(|every| began + every),
            download: Download::Head,
        }
    }

    /// When the request had been read to its end, if it has.
    pub fn request_ended(&self) -> Option<Instant> {
        self.request_ended
    }

    /// When what happened, for a request that came at `started`.
    pub fn moments(&self, started: std::time::Instant) -> Moments {
        let since = |at: Instant| at.into_std().saturating_duration_since(started);
        Moments {
            request_end: self.request_ended.map(since),
            upstream_begin: Some(since(self.began)),
            upstream_sent: self.sent.map(since),
            response_end: self.response_ended.map(since),
        }
    }

    /// Whether a final head has gone to the client.
    pub fn response_started(&self) -> bool {
        self.download != Download::Head
    }

    /// Whether the request has been read and sent to its end.
    pub fn upload_done(&self) -> bool {
        self.upload == Upload::Done
    }

    /// Drives both directions until the response has been sent, or something fails.
    pub async fn run(
        &mut self,
        exchange: &mut Exchange,
        on_head: &mut impl OnHead,
    ) -> Result<(), RelayError> {
        std::future::poll_fn(|cx| self.poll(cx, exchange, on_head)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        on_head: &mut impl OnHead,
    ) -> Poll<Result<(), RelayError>> {
        self.now = None;
        if let Poll::Ready(Err(error)) = self.poll_upload(cx, exchange) {
            return Poll::Ready(Err(error));
        }
        if let Poll::Ready(outcome) = self.poll_download(cx, exchange, on_head) {
            return Poll::Ready(outcome);
        }
        // Nobody else would notice a client that has gone while the endpoint is thinking.
        if matches!(self.upload, Upload::Done | Upload::Abandoned)
            && let Poll::Ready(error) = self.downstream.poll_closed(cx)
        {
            return Poll::Ready(Err(RelayError::Downstream(error)));
        }
        let Some(log) = self.next_log else {
            return self.poll_deadlines(cx);
        };
        let bytes = (self.bytes_received, self.bytes_sent);
        let mut now = Instant::now();
        if now >= log {
            on_head.lasts(self.request, self.response, bytes);
            now = Instant::now();
            let every = self.context.manager.log_times.every;
            self.next_log = every.map(|every| now + every);
        }
        self.poll_deadlines(cx)
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        let response = self
            .request_ended
            .zip(self.deadlines.response)
            .map(|(from, after)| from + after);
        let request = if self.request_ended.is_some() {
            None
        } else {
            self.deadlines.request
        };
        let idle = match self.download {
            Download::Flush => self.deadlines.flush,
            _ => self.deadlines.idle,
        };
        let idle = idle.map(|after| self.last_activity + after);
        let log = self.next_log;
        let first = [response, request, idle, self.deadlines.stream, log]
            .into_iter()
            .flatten()
            .min();
        ready!(self.timer.poll(cx, first));
        if first == log {
            // Polled once more, it is written.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Err(if first == response {
            RelayError::Timeout
        } else if first == request {
            RelayError::RequestTimeout
        } else if first == idle {
            RelayError::Idle
        } else {
            RelayError::MaxDuration
        }))
    }

    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            match self.upload {
                Upload::Done => {
                    return match exchange.poll_flush(cx) {
                        // A failed write is not the end: the endpoint may have answered before it
                        // closed. Reading the response tells.
                        Poll::Ready(Err(_)) => {
                            self.upload = Upload::Abandoned;
                            Poll::Ready(Ok(()))
                        }
                        other => other.map(|_| Ok(())),
                    };
                }
                Upload::Abandoned => return Poll::Ready(Ok(())),
                Upload::Replaying { sent } => {
                    ready!(self.poll_replay(cx, exchange, sent));
                    continue;
                }
                Upload::Body => {}
            }
            // The body before the room for it: its end needs none, and a peer that has got all that
            // its window allows would open it only for more.
            match self.downstream.poll_data(cx) {
                Poll::Pending => {
                    // A 100 Continue may be waiting to be sent.
                    let _ = self
                        .downstream
                        .poll_flush(cx)
                        .map_err(RelayError::Downstream)?;
                    if let Poll::Ready(Err(_)) = exchange.poll_flush(cx) {
                        self.upload = Upload::Abandoned;
                        continue;
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Some(data))) => {
                    let Ok(taken) = exchange.send_data(data) else {
                        self.upload = Upload::Abandoned;
                        continue;
                    };
                    if taken == 0 {
                        if ready!(exchange.poll_ready(cx)).is_err() {
                            self.upload = Upload::Abandoned;
                        }
                        continue;
                    }
                    if self.keeps {
                        self.replay.keep(&data[..taken]);
                    }
                    if !self.replay.copies.is_empty() {
                        self.replay.copies.data(self.context, &data[..taken]);
                    }
                    self.downstream.consume(taken);
                    self.bytes_received += taken as u64;
                    self.touch();
                }
                Poll::Ready(Ok(None)) => {
                    let trailers = self.downstream.take_trailers();
                    self.upload = match exchange.send_end(trailers.as_ref()) {
                        Ok(()) => Upload::Done,
                        Err(_) => Upload::Abandoned,
                    };
                    self.replay.copies.end(self.context, trailers.as_ref());
                    self.replay.ended = true;
                    self.replay.trailers = trailers;
                    self.touch();
                    self.request_ended = Some(self.last_activity);
                    self.sent = Some(self.last_activity);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(RelayError::Downstream(error))),
            }
        }
    }

    fn poll_replay(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        sent: usize,
    ) -> Poll<()> {
        let rest = &self.replay.bytes[sent..];
        self.upload = if !rest.is_empty() {
            match exchange.send_data(rest) {
                Ok(0) => match ready!(exchange.poll_ready(cx)) {
                    Ok(()) => return Poll::Ready(()),
                    Err(_) => Upload::Abandoned,
                },
                Ok(taken) => Upload::Replaying { sent: sent + taken },
                Err(_) => Upload::Abandoned,
            }
        } else if self.replay.ended {
            match exchange.send_end(self.replay.trailers.as_ref()) {
                Ok(()) => Upload::Done,
                Err(_) => Upload::Abandoned,
            }
        } else {
            Upload::Body
        };
        Poll::Ready(())
    }

    fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
        on_head: &mut impl OnHead,
    ) -> Poll<Result<(), RelayError>> {
        loop {
            match self.download {
                Download::Head => {
                    ready!(exchange.poll_head(cx, self.response)).map_err(RelayError::Upstream)?;
                    self.touch();
                    if (100..200).contains(&self.response.status) && self.response.status != 101 {
                        if !on_head.informational(self.response) {
                            continue;
                        }
                        self.downstream
                            .send_informational(self.response)
                            .map_err(RelayError::Downstream)?;
                        let _ = self
                            .downstream
                            .poll_flush(cx)
                            .map_err(RelayError::Downstream)?;
                        continue;
                    }
                    let whole = self.request_ended.is_some() && self.replay.is_complete();
                    if on_head.is_followed(self.request, self.response, whole) {
                        return Poll::Ready(Ok(()));
                    }
                    // The client's answer has come: there is nothing to send again any more.
                    self.keeps = false;
                    if on_head.is_last() {
                        self.downstream.end_connection();
                    }
                    let (now, received) = (self.last_activity, self.bytes_received);
                    let outcome = on_head.final_head(now, received, self.request, self.response);
                    if outcome == HeadOutcome::Upgraded {
                        self.downstream
                            .send_head(self.response, false)
                            .map_err(RelayError::Downstream)?;
                        self.download = Download::Flush;
                        continue;
                    }
                    let end = self.response.body == BodyLength::None;
                    self.downstream
                        .send_head(self.response, end)
                        .map_err(RelayError::Downstream)?;
                    if end {
                        self.response_ended = Some(self.last_activity);
                        self.download = Download::Flush;
                    } else {
                        self.download = Download::Body;
                    }
                }
                Download::Body => match exchange.poll_data(cx) {
                    Poll::Pending => {
                        let _ = self
                            .downstream
                            .poll_flush(cx)
                            .map_err(RelayError::Downstream)?;
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(Some(data))) => {
                        let taken = self
                            .downstream
                            .send_data(data)
                            .map_err(RelayError::Downstream)?;
                        if taken == 0 {
                            ready!(self.downstream.poll_ready(cx))
                                .map_err(RelayError::Downstream)?;
                            continue;
                        }
                        exchange.consume(taken);
                        self.bytes_sent += taken as u64;
                        self.touch();
                    }
                    Poll::Ready(Ok(None)) => {
                        self.trailers = exchange.take_trailers();
                        self.touch();
                        self.response_ended = Some(self.last_activity);
                        self.downstream
                            .send_end(self.trailers.as_ref())
                            .map_err(RelayError::Downstream)?;
                        self.download = Download::Flush;
                    }
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Err(RelayError::Upstream(error)));
                    }
                },
                Download::Flush => {
                    ready!(self.downstream.poll_flush(cx)).map_err(RelayError::Downstream)?;
                    self.download = Download::Done;
                }
                Download::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Something moved: the idle timeout starts anew.
    fn touch(&mut self) {
        self.last_activity = *self.now.get_or_insert_with(Instant::now);
    }
}
