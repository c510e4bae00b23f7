//! HTTP/2 towards an endpoint: the shared connection, and the exchange that is one of its streams.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use ::h2::client::{ResponseFuture, SendRequest};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::lease::{Event, Lease};
use crate::config::endpoint::Endpoint;
use crate::config::http_protocol::Http2Settings;
use crate::http::error::{Reset, StreamError};
use crate::http::h1::Limits;
use crate::http::h2::server::SEND_BUFFER;
use crate::http::h2::stream::{Receiver, Sender};
use crate::http::h2::{convert, corked, keepalive};
use crate::http::headers::Headers;
use crate::http::message::{RequestHead, ResponseHead};
use crate::tls::stream::Handshake;
use crate::upstream::stats::ClusterStats;

/// Informational responses to one request; more is an endpoint that never answers.
const INFORMATIONAL: u32 = 100;

/// A connection to an endpoint, shared by exchanges; clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    shared: Rc<Shared>,
}

struct Shared {
    /// `None` once retired: without it, and without streams, the connection ends.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    local: Option<SocketAddr>,
    tls: Option<Rc<Handshake>>,
    limits: Limits,
    max_streams: usize,
    active: Cell<usize>,
    served: Cell<u64>,
    closed: Cell<bool>,
}

impl Connection {
    /// Sends the preface and the settings, and starts the task (on this worker) that moves frames.
    /// `presumed_streams` is how many streams the endpoint is taken to allow until its settings have
    /// come. `local` is our end of the connection and `tls` what its handshake agreed on. `guard` is dropped when the connection has ended, wherever the clones are: let its
    /// `Drop` take the connection out of the pool.
    pub async fn handshake<IO>(
        io: IO,
        (local, tls): (Option<SocketAddr>, Option<Rc<Handshake>>),
        settings: &Http2Settings,
        presumed_streams: usize,
        limits: Limits,
        guard: Box<dyn Any>,
    ) -> Result<Self, StreamError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (io, cork) = corked::cork(io, corked::FULL);
        cork.close();
        let (sender, mut connection) = ::h2::client::Builder::new()
            .initial_max_send_streams(presumed_streams)
            .initial_window_size(settings.initial_stream_window)
            .initial_connection_window_size(settings.initial_connection_window)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .header_table_size(settings.header_table_size)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false)
            .handshake(io)
            .await
            .map_err(StreamError::from_h2)?;
        let shared = Rc::new(Shared {
            sender: RefCell::new(Some(sender)),
            local,
            tls,
            limits,
            max_streams: settings.max_concurrent_streams as usize,
            active: Cell::new(0),
            served: Cell::new(0),
            closed: Cell::new(false),
        });
        let pings = settings.keepalive.zip(connection.ping_pong());
        let alive = async move {
            match pings {
                Some((settings, pings)) => {
                    keepalive::until_dead(pings, settings, rand::random).await
                }
                None => std::future::pending().await,
            }
        };
        // The task must not keep the connection open: it ends when the last handle is gone.
        let weak = Rc::downgrade(&shared);
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| {
                loop {
                    let polled = Pin::new(&mut connection).poll(cx);
                    if polled.is_ready() || !cork.finish(cx) {
                        return polled;
                    }
                }
            });
            tokio::select! {
                biased;
                ended = ended => if let Err(error) = ended {
                    tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
                },
                () = alive => {
                    tracing::debug!("HTTP/2 connection to an endpoint answers no ping");
                }
            }
            if let Some(shared) = weak.upgrade() {
                shared.closed.set(true);
            }
            drop(guard);
        });
        Ok(Connection { shared })
    }

    /// How many more exchanges may begin now: what the endpoint's and our own settings leave; 0
    /// after GOAWAY or when closed.
    pub fn available_streams(&self) -> usize {
        if self.is_closed() {
            return 0;
        }
        self.allowed_streams()
            .min(self.shared.max_streams)
            .saturating_sub(self.shared.active.get())
    }

    /// How many streams the endpoint's settings allow at once; 0 once retired.
    pub fn allowed_streams(&self) -> usize {
        let sender = self.shared.sender.borrow();
        sender
            .as_ref()
            .map_or(0, SendRequest::current_max_send_streams)
    }

    /// Exchanges that are open now.
    pub fn active_streams(&self) -> usize {
        self.shared.active.get()
    }

    /// Exchanges begun so far (`max_requests_per_connection`).
    pub fn served(&self) -> u64 {
        self.shared.served.get()
    }

    /// Whether no further exchange can begin, ever: GOAWAY was received or the connection is gone.
    pub fn is_closed(&self) -> bool {
        if self.shared.closed.get() {
            return true;
        }
        match self.shared.sender.borrow_mut().as_mut() {
            None => true,
            Some(sender) => matches!(
                sender.poll_ready(&mut Context::from_waker(Waker::noop())),
                Poll::Ready(Err(_))
            ),
        }
    }

    /// No further exchange begins here; the connection ends with its last exchange.
    pub fn retire(&self) {
        self.shared.sender.borrow_mut().take();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("local", &self.shared.local)
            .field("active", &self.shared.active)
            .field("served", &self.shared.served)
            .finish_non_exhaustive()
    }
}

/// How far the response has come.
#[derive(Debug)]
enum Receiving {
    /// Nothing was asked yet.
    Idle,
    Head(ResponseFuture),
    Body(Receiver),
    /// It ended with an error, which was told.
    Failed,
}

/// One stream.
#[derive(Debug)]
pub struct Exchange {
    connection: Connection,
    /// The way to begin the stream, taken when it has begun: of this exchange's own, since it may
    /// begin after the connection was retired, and since one handle takes no second request while
    /// its first one waits.
    begin: Option<SendRequest<Bytes>>,
    lease: Lease,
    reused: bool,
    head_request: bool,
    sender: Option<Sender>,
    receiving: Receiving,
    informational: u32,
    response_seen: bool,
    /// The endpoint takes no more of the request; what it answers is still read.
    write_error: bool,
}

impl Exchange {
    /// Begins an exchange. Ask [`Connection::available_streams`] first: beyond it, the request waits
    /// inside the connection.
    pub fn new(connection: &Connection, lease: Lease) -> Self {
        let shared = &connection.shared;
        let reused = shared.served.get() > 0;
        shared.active.set(shared.active.get() + 1);
        shared.served.set(shared.served.get() + 1);
        Exchange {
            begin: shared.sender.borrow().clone(),
            connection: connection.clone(),
            lease,
            reused,
            head_request: false,
            sender: None,
            receiving: Receiving::Idle,
            informational: 0,
            response_seen: false,
            write_error: false,
        }
    }

    pub(super) fn charge(&mut self, stats: Rc<ClusterStats>) {
        self.lease.charge(stats);
    }

    pub(super) fn note(&self, event: Event) {
        self.lease.note(event);
    }

    /// See [`super::Exchange::endpoint`], as for all that follow.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.lease.endpoint()
    }

    /// See [`super::Exchange::send_head`].
    pub fn send_head(&mut self, head: &RequestHead, end: bool) -> Result<(), StreamError> {
        let request = convert::request(head)?;
        self.head_request = head.method == b"HEAD";
        let mut sender = self.begin.take().ok_or(StreamError::Refused)?;
        let (response, stream) = sender.send_request(request, end).map_err(|error| {
            // Nothing was sent on a connection that is gone or going.
            match StreamError::from_h2(error) {
                StreamError::Closed | StreamError::Io(_) | StreamError::Reset(_) => {
                    StreamError::Refused
                }
                error => error,
            }
        })?;
        self.sender = Some(Sender::new(stream, end));
        self.receiving = Receiving::Head(response);
        Ok(())
    }

    /// The request's direction, as long as it is of use; `Ok(None)` when what is sent is dropped.
    fn writing(&mut self) -> Result<Option<&mut Sender>, StreamError> {
        if self.write_error {
            return Ok(None);
        }
        self.sender
            .as_mut()
            .map(Some)
            .ok_or(StreamError::Unrepresentable("a body before its head"))
    }

    /// An endpoint may end a stream for writing after it has answered: reading tells.
    fn written<T>(&mut self, result: Result<T, StreamError>, else_: T) -> Result<T, StreamError> {
        match result {
            Err(StreamError::Unrepresentable(reason)) => Err(StreamError::Unrepresentable(reason)),
            Err(_) => {
                self.write_error = true;
                Ok(else_)
            }
            ok => ok,
        }
    }

    /// See [`super::Exchange::poll_ready`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let Some(sender) = self.writing()? else {
            return Poll::Ready(Ok(()));
        };
        let result = ready!(sender.poll_ready(cx));
        Poll::Ready(self.written(result, ()))
    }

    /// See [`super::Exchange::send_data`].
    pub fn send_data(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        let Some(sender) = self.writing()? else {
            return Ok(data.len());
        };
        let result = sender.send_data(data);
        self.written(result, data.len())
    }

    /// See [`super::Exchange::send_end`].
    pub fn send_end(&mut self, trailers: Option<&Headers>) -> Result<(), StreamError> {
        let Some(sender) = self.writing()? else {
            return Ok(());
        };
        let result = sender.send_end(trailers);
        self.written(result, ())
    }

    /// See [`super::Exchange::poll_flush`].
    pub fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let Some(sender) = self.writing()? else {
            return Poll::Ready(Ok(()));
        };
        let result = sender.flush();
        Poll::Ready(self.written(result, ()))
    }

    /// See [`super::Exchange::poll_head`].
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ResponseHead,
    ) -> Poll<Result<(), StreamError>> {
        let result = ready!(self.poll_response(cx, into));
        if result.is_err() {
            self.receiving = Receiving::Failed;
        }
        Poll::Ready(result)
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut ResponseHead,
    ) -> Poll<Result<(), StreamError>> {
        let limits = self.connection.shared.limits;
        let Receiving::Head(future) = &mut self.receiving else {
            return Poll::Ready(Err(StreamError::Aborted));
        };
        // Nothing at all has come while this is pending, and it has us woken.
        if let Some(Ok(response)) = ready!(future.poll_informational(cx)) {
            self.response_seen = true;
            self.informational += 1;
            if self.informational > INFORMATIONAL {
                return Poll::Ready(Err(StreamError::LimitExceeded("informational responses")));
            }
            return Poll::Ready(convert::response_head(
                response.status(),
                response.headers(),
                false,
                true,
                &limits,
                into,
            ));
        }
        let response = ready!(Pin::new(future).poll(cx)).map_err(StreamError::from_h2)?;
        self.response_seen = true;
        let (parts, body) = response.into_parts();
        let ended = body.is_end_stream();
        convert::response_head(
            parts.status,
            &parts.headers,
            ended,
            self.head_request,
            &limits,
            into,
        )?;
        self.receiving = Receiving::Body(Receiver::new(body, ended, limits));
        Poll::Ready(Ok(()))
    }

    /// See [`super::Exchange::poll_data`].
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, StreamError>> {
        match &mut self.receiving {
            Receiving::Body(receiver) => receiver.poll_data(cx),
            _ => Poll::Ready(Err(StreamError::Aborted)),
        }
    }

    /// See [`super::Exchange::consume`].
    pub fn consume(&mut self, n: usize) {
        if let Receiving::Body(receiver) = &mut self.receiving {
            receiver.consume(n);
        }
    }

    /// See [`super::Exchange::response_ended`].
    #[cfg(test)]
    pub fn response_ended(&self) -> bool {
        matches!(&self.receiving, Receiving::Body(receiver) if receiver.has_ended())
    }

    /// See [`super::Exchange::take_trailers`].
    pub fn take_trailers(&mut self) -> Option<Headers> {
        match &mut self.receiving {
            Receiving::Body(receiver) => receiver.take_trailers(),
            _ => None,
        }
    }

    /// See [`super::Exchange::reset`].
    pub fn reset(&mut self, reset: Reset) {
        if let Some(sender) = &mut self.sender {
            sender.reset(reset);
        }
        self.write_error = true;
        self.receiving = Receiving::Failed;
    }

    /// See [`super::Exchange::local_addr`].
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.shared.local
    }

    /// See [`super::Exchange::tls`].
    pub fn tls(&self) -> Option<&Rc<Handshake>> {
        self.connection.shared.tls.as_ref()
    }

    /// See [`super::Exchange::reused`].
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// See [`super::Exchange::bytes_of_response_seen`].
    pub fn bytes_of_response_seen(&self) -> bool {
        self.response_seen
    }

    /// See [`super::Exchange::request_bytes_sent`].
    pub fn request_bytes_sent(&self) -> bool {
        self.sender.is_some()
    }
}

/// The `h2` crate cancels a stream of which both halves are dropped before their end.
impl Drop for Exchange {
    fn drop(&mut self) {
        let active = &self.connection.shared.active;
        active.set(active.get() - 1);
    }
}

#[cfg(test)]
#[path = "h2_tests.rs"]
mod tests;
