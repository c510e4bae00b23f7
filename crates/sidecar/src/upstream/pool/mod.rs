//! The connections of one worker to one endpoint in one protocol, handed out as exchanges.
//!
//! A request takes an idle HTTP/1 connection or a stream of a shared HTTP/2 connection, without
//! waiting; or else it waits, and takes whichever comes first: a connection that another request
//! gives back, or a new one. Attempts to connect belong to the pool and not to a request: a request
//! that is given up leaves its attempt to the next.
//!
//! Dropping a connection calls back into its pool, so no `RefCell` here is borrowed while one is
//! dropped.

mod counted;
mod idle;
mod protocol;
mod shared;
mod solitary;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::oneshot;

use self::counted::Counted;
use self::idle::IdleList;
use self::protocol::Agreed;
pub use self::protocol::Protocol;
use self::shared::SharedList;
pub use self::solitary::solitary;
use super::client::Client;
use super::connect;
use super::error::UpstreamError;
use super::exchange::{Event, Exchange, Lease, Owner, h1, h2};
use super::target::{ConnectionGuard, Target};
use crate::config::cluster::Priority;
use crate::config::endpoint::Endpoint;
use crate::http::h1::Limits;
use crate::tls::overrides::Overrides;

type Outcome = Result<Exchange, UpstreamError>;

/// See the module.
pub struct Pool {
    me: Weak<Pool>,
    target: Rc<Target>,
    priority: Priority,
    /// Whose connections they are, where clients share none.
    client: Client,
    protocol: Cell<Protocol>,
    idle: RefCell<IdleList<Box<h1::Connection>>>,
    shared: RefCell<SharedList>,
    waiting: RefCell<VecDeque<oneshot::Sender<Outcome>>>,
    /// Attempts under way for those who wait.
    connecting: Cell<usize>,
    /// Connections from the attempt to the end, whether idle or busy.
    open: Cell<usize>,
    /// Exchanges under way.
    leased: Cell<usize>,
    retired: Cell<bool>,
}

/// A new connection.
enum Connected {
    Http1(Box<h1::Connection>),
    Http2(h2::Connection),
}

impl Pool {
    /// A pool without connections.
    pub fn new(
        target: Rc<Target>,
        protocol: Protocol,
        priority: Priority,
        client: Client,
    ) -> Rc<Self> {
        Rc::new_cyclic(|me| Pool {
            me: me.clone(),
            target,
            priority,
            client,
            protocol: Cell::new(protocol),
            idle: RefCell::new(IdleList::new()),
            shared: RefCell::new(SharedList::default()),
            waiting: RefCell::default(),
            connecting: Cell::new(0),
            open: Cell::new(0),
            leased: Cell::new(0),
            retired: Cell::new(false),
        })
    }

    /// An exchange on a connection that is there, if one can take it. The fast path: it neither
    /// allocates nor waits.
    pub fn take(self: &Rc<Self>, cx: &mut Context<'_>) -> Option<Outcome> {
        loop {
            let popped = self.idle.borrow_mut().pop();
            let Some(mut connection) = popped else { break };
            if connection.poll_idle(cx).is_pending() {
                return Some(self.begin_http1(connection));
            }
            // The endpoint has closed it.
            drop(connection);
        }
        let shared = self.shared.borrow();
        let connection = shared.available()?;
        let begun = self.target.begin(self.priority);
        let begun = begun.map(|()| self.stream_of(connection));
        if self.is_worn_out(connection.served()) {
            drop(shared);
            self.retire_worn_out();
        }
        Some(begun)
    }

    /// [`take`](Self::take) for the present task.
    pub async fn take_now(self: &Rc<Self>) -> Option<Outcome> {
        poll_fn(|cx| Poll::Ready(self.take(cx))).await
    }

    /// Waits for an exchange: on a connection that is given back, or on a new one.
    pub async fn wait(self: &Rc<Self>) -> Outcome {
        let waiting = self.target.wait(self.priority)?;
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().push_back(sender);
        self.connect_for_waiting();
        let outcome = receiver.await;
        waiting.finish();
        outcome.unwrap_or_else(|_| {
            Err(UpstreamError::Local {
                reason: "the connection pool has gone".into(),
            })
        })
    }

    /// Waits for an exchange on a connection that served nobody before; it stays in the pool
    /// afterwards. Over HTTP/2, where connections tell when they can no longer be used, it is like
    /// any other.
    pub async fn fresh(self: &Rc<Self>) -> Outcome {
        let one_at_a_time = matches!(
            self.protocol.get(),
            Protocol::Http1 | Protocol::Negotiated(Some(Agreed::Http1))
        );
        if !one_at_a_time {
            return match self.take_now().await {
                Some(outcome) => outcome,
                None => self.wait().await,
            };
        }
        let waiting = self.target.wait(self.priority)?;
        let Some(guard) = self.open() else {
            waiting.finish();
            return Err(UpstreamError::Overflow);
        };
        let connected = self.connect(guard).await;
        waiting.finish();
        let connected = connected.inspect_err(|_| {
            let stats = &self.target.context.stats;
            stats.rq_pending_failure_eject.increment(1);
        })?;
        match connected {
            Connected::Http1(connection) => self.begin_http1(connection),
            Connected::Http2(connection) => {
                self.shared.borrow_mut().push(connection.clone());
                self.target.begin(self.priority)?;
                Ok(self.stream_of(&connection))
            }
        }
    }

    fn begin_http1(self: &Rc<Self>, connection: Box<h1::Connection>) -> Outcome {
        match self.target.begin(self.priority) {
            Ok(()) => {
                let dialect = self.target.context.config.http1.dialect;
                let exchange = h1::Exchange::new(connection, self.lease(), dialect);
                Ok(Exchange::H1(exchange))
            }
            Err(error) => {
                self.put_back(connection);
                Err(error)
            }
        }
    }

    fn stream_of(self: &Rc<Self>, connection: &h2::Connection) -> Exchange {
        Exchange::H2(h2::Exchange::new(connection, self.lease()))
    }

    fn lease(self: &Rc<Self>) -> Lease {
        self.leased.set(self.leased.get() + 1);
        Lease::new(self.clone())
    }

    /// Counts one more connection, if there may be one.
    fn open(&self) -> Option<ConnectionGuard> {
        let only = self.open.get() == 0;
        let guard = self.target.open(self.me.clone(), self.priority, only)?;
        self.open.set(self.open.get() + 1);
        Some(guard)
    }

    /// Makes as many connections as help those who wait.
    fn connect_for_waiting(&self) {
        let waiting = self.still_waiting();
        let wanted = self
            .protocol
            .get()
            .attempts_wanted(waiting, self.connecting.get());
        for _ in 0..wanted {
            let Some(guard) = self.open() else { break };
            let Some(me) = self.me.upgrade() else { break };
            self.connecting.set(self.connecting.get() + 1);
            tokio::task::spawn_local(async move { me.attempt(guard).await });
        }
    }

    /// Forgets who was given up, and counts the others.
    fn still_waiting(&self) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|sender| !sender.is_closed());
        waiting.len()
    }

    async fn attempt(self: Rc<Self>, guard: ConnectionGuard) {
        let connected = self.connect(guard).await;
        self.connecting.set(self.connecting.get() - 1);
        match connected {
            Ok(Connected::Http1(connection)) => {
                self.idle.borrow_mut().push(connection, Instant::now());
            }
            Ok(Connected::Http2(connection)) => self.shared.borrow_mut().push(connection),
            Err(error) => self.eject(&error),
        }
        self.dispatch();
        if self.retired.get() {
            self.close_idle();
        }
    }

    /// Fails those for whom an attempt that failed was made.
    fn eject(&self, error: &UpstreamError) {
        let waiting = self.still_waiting();
        let ejected = self.protocol.get().ejected_by_failure(waiting);
        let senders: Vec<_> = self.waiting.borrow_mut().drain(..ejected).collect();
        for sender in senders {
            let stats = &self.target.context.stats;
            stats.rq_pending_failure_eject.increment(1);
            // A send fails where the request was given up in the meantime.
            let _ = sender.send(Err(error.clone()));
        }
    }

    /// One connection, ready for HTTP.
    async fn connect(&self, guard: ConnectionGuard) -> Result<Connected, UpstreamError> {
        let protocol = self.protocol.get();
        let connected =
            connect::connect(&self.target, protocol.alpn(), &self.client, Overrides::NONE).await;
        let stream = match connected {
            Ok(stream) => stream,
            Err(error) => {
                self.target.failed(&error);
                return Err(error);
            }
        };
        guard.connected();
        let alpn = stream.handshake().map(|handshake| &*handshake.alpn);
        let agreed = protocol.outcome(alpn);
        if let Protocol::Negotiated(_) = protocol {
            self.protocol.set(Protocol::Negotiated(Some(agreed)));
        }
        let local = stream.local_addr();
        let tls = stream.handshake().cloned();
        let context = &self.target.context;
        let guard = Box::new(guard);
        match agreed {
            Agreed::Http1 => {
                context.stats.cx_http1_total.increment(1);
                let limits = Limits {
                    trailers: context.config.http1.dialect.trailers,
                    ..Limits::default()
                };
                let connection = h1::Connection::new(stream, local, limits, guard);
                Ok(Connected::Http1(Box::new(connection)))
            }
            Agreed::Http2 => {
                context.stats.cx_http2_total.increment(1);
                let presumed = self.shared.borrow().presumed_streams();
                let settings = &context.config.http2;
                let limits = Limits::default();
                let stream = Counted::new(stream, context.stats.clone());
                let begun = h2::Connection::handshake(
                    stream,
                    (local, tls),
                    settings,
                    presumed,
                    limits,
                    guard,
                );
                begun.await.map(Connected::Http2).map_err(|error| {
                    let error = UpstreamError::Protocol {
                        reason: error.to_string().into(),
                    };
                    self.target.failed(&error);
                    error
                })
            }
        }
    }

    /// Gives what is free to those who wait, the first first, and connects for the rest.
    fn dispatch(&self) {
        let Some(me) = self.me.upgrade() else { return };
        while self.still_waiting() > 0 {
            // Whoever takes the exchange registers its own waker with the connection.
            let Some(outcome) = me.take(&mut Context::from_waker(Waker::noop())) else {
                break;
            };
            let first = self.waiting.borrow_mut().pop_front();
            if let Some(sender) = first {
                // It cannot have been given up since it was counted; and if it were, the exchange
                // would come back when it is dropped here.
                drop(sender.send(outcome));
            }
        }
        self.connect_for_waiting();
    }

    fn is_worn_out(&self, served: u64) -> bool {
        let most = self.target.context.config.max_requests_per_connection;
        most.is_some_and(|most| served >= u64::from(most))
    }

    fn is_old(&self, connection: &h1::Connection, now: Instant) -> bool {
        let most = self.target.context.config.max_connection_duration;
        most.is_some_and(|most| {
            let guard = connection.guard().downcast_ref::<ConnectionGuard>();
            guard.is_some_and(|guard| now.saturating_duration_since(guard.created()) >= most)
        })
    }

    /// Has no further request begin on shared connections that have served enough.
    fn retire_worn_out(&self) {
        let worn_out = |connection: &h2::Connection| self.is_worn_out(connection.served());
        let retired = self.shared.borrow_mut().take_worn_out(worn_out);
        let stats = &self.target.context.stats;
        stats.cx_max_requests.increment(retired.len() as u64);
        retired.iter().for_each(h2::Connection::retire);
    }

    fn put_back(&self, connection: Box<h1::Connection>) {
        self.idle.borrow_mut().push(connection, Instant::now());
    }

    /// A connection of this pool has ended.
    pub(super) fn connection_gone(&self) {
        self.open.set(self.open.get() - 1);
        if !self.waiting.borrow().is_empty() {
            self.connect_for_waiting();
        }
    }

    /// Drops idle connections that their endpoint has closed, and has `cx` woken when it closes
    /// another.
    pub fn drop_closed(&self, cx: &mut Context<'_>) {
        let closed = self
            .idle
            .borrow_mut()
            .take_if(|connection| connection.poll_idle(cx).is_ready());
        drop(closed);
        let closed = self.shared.borrow_mut().take_closed();
        drop(closed);
    }

    /// Closes connections that nobody used for too long, or that are too old.
    pub fn sweep(&self, now: Instant) {
        let config = &self.target.context.config;
        let stats = &self.target.context.stats;
        if let Some(timeout) = config.idle_timeout {
            let expired = self.idle.borrow_mut().take_expired(now, timeout);
            stats.cx_idle_timeout.increment(expired.len() as u64);
            drop(expired);
            let expired = self.shared.borrow_mut().take_expired(now, timeout);
            stats.cx_idle_timeout.increment(expired.len() as u64);
            expired.iter().for_each(h2::Connection::retire);
        }
        if let Some(most) = config.max_connection_duration {
            let mut idle = self.idle.borrow_mut();
            let old = idle.take_if(|connection| self.is_old(connection, now));
            drop(idle);
            stats.cx_max_duration_reached.increment(old.len() as u64);
            drop(old);
            let old = self.shared.borrow_mut().take_old(now, most);
            stats.cx_max_duration_reached.increment(old.len() as u64);
            old.iter().for_each(h2::Connection::retire);
        }
    }

    /// Whether nothing is kept, under way or waited for.
    pub fn is_empty(&self) -> bool {
        self.open.get() == 0 && self.waiting.borrow().is_empty()
    }

    /// Whether anybody uses it or waits for it.
    pub fn is_busy(&self) -> bool {
        self.leased.get() > 0 || !self.waiting.borrow().is_empty()
    }

    /// The endpoint has left, or the cluster: what is idle is closed now, the rest when it becomes
    /// idle. Those who wait are still served.
    pub fn retire(&self) {
        self.retired.set(true);
        self.close_idle();
    }

    fn close_idle(&self) {
        let idle = self.idle.borrow_mut().take_if(|_| true);
        drop(idle);
        let shared = self.shared.borrow_mut().take_all();
        shared.iter().for_each(h2::Connection::retire);
    }
}

impl Owner for Pool {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.target.endpoint
    }

    fn note(&self, event: Event) {
        self.target.note(event);
    }

    fn keep(&self, connection: Box<h1::Connection>) {
        let now = Instant::now();
        if self.is_worn_out(connection.served()) {
            self.target.context.stats.cx_max_requests.increment(1);
        } else if self.is_old(&connection, now) {
            self.target
                .context
                .stats
                .cx_max_duration_reached
                .increment(1);
        } else if !self.retired.get() || !self.waiting.borrow().is_empty() {
            self.idle.borrow_mut().push(connection, now);
        }
    }

    fn released(&self) {
        self.leased.set(self.leased.get() - 1);
        self.target.end(self.priority);
        if !self.waiting.borrow().is_empty() {
            self.dispatch();
            if self.retired.get() {
                self.close_idle();
            }
        }
    }
}
