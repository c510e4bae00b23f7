//! What all requests of one downstream connection share.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::config::http_connection_manager::HttpConnectionManager;
use crate::http::route::ClientCertificate;
use crate::http::stats::HttpStats;
use crate::listener::connection::Connection;
use crate::runtime::overload::{Action, OVERLOAD, ShedPoint};
use crate::runtime::worker::Worker;

use super::client_certificate::Elements;

/// One downstream connection with its manager.
pub struct Context {
    pub worker: Rc<Worker>,
    pub connection: Rc<Connection>,
    pub manager: Arc<HttpConnectionManager>,
    pub stats: Rc<HttpStats>,
    /// What `x-forwarded-client-cert` gets.
    pub client_certificate: Elements,
    /// `max_connection_duration` with this connection's share of the jitter.
    pub max_age: Option<Duration>,
    /// `drain_timeout` with this connection's share of the jitter.
    pub drain_timeout: Duration,
    /// Whether it gave one, for routes that ask.
    pub certificate: ClientCertificate,
    /// Requests begun on this connection.
    requests: Cell<u32>,
    /// It is we who end the connection, not the client.
    pub ends_here: Cell<bool>,
}

impl Context {
    /// Looks up once what every request needs.
    pub fn new(
        worker: &Rc<Worker>,
        connection: Rc<Connection>,
        manager: Arc<HttpConnectionManager>,
    ) -> Rc<Self> {
        let stats = worker.http_stats(&manager.stat_prefix);
        let client_certificate = Elements::new(&connection, &manager);
        let later = |time: Duration, jitter: f64| {
            if jitter == 0.0 {
                return time;
            }
            let share = (worker.random() >> 11) as f64 / (1_u64 << 53) as f64;
            time.saturating_add(time.mul_f64(jitter * share))
        };
        let max_age = manager
            .max_connection_duration
            .map(|max| later(max, manager.max_connection_jitter));
        let drain_timeout = later(manager.drain_timeout, manager.drain_jitter);
        let tls = connection.tls.as_ref();
        let certificate = ClientCertificate {
            presented: tls.is_some_and(|tls| !tls.peer_chain.is_empty()),
            validated: tls.is_some_and(|tls| tls.peer_validated),
        };
        Rc::new(Context {
            worker: worker.clone(),
            connection,
            manager,
            stats,
            client_certificate,
            max_age,
            drain_timeout,
            certificate,
            requests: Cell::new(0),
            ends_here: Cell::new(false),
        })
    }

    /// Counts a request that begins, and tells whether the connection is to end after it: the
    /// process drains, or the connection has served or lived as long as it may.
    pub fn begin_request(&self) -> bool {
        let requests = self.requests.get().saturating_add(1);
        self.requests.set(requests);
        let max = self.manager.max_requests_per_connection;
        let spent = max.is_some_and(|max| requests >= max);
        if spent {
            self.stats.downstream_cx_max_requests_reached.increment(1);
        }
        let old = self
            .max_age
            .is_some_and(|max| self.connection.accepted.elapsed() >= max);
        if old {
            self.stats.downstream_cx_max_duration_reached.increment(1);
        }
        let overloaded = self.overload_asks(Action::DisableKeepalive);
        if overloaded {
            let disabled = &self.stats.downstream_cx_overload_disable_keepalive;
            disabled.increment(1);
        }
        spent || old || overloaded || self.is_draining()
    }

    /// Whether the overload manager wants this done this time, and may have it of this listener.
    pub fn overload_asks(&self, action: Action) -> bool {
        !self.connection.listener.bypasses_overload
            && OVERLOAD.happens(action, || self.worker.random())
    }

    /// Whether a request is to be turned away as it comes.
    pub fn overload_refuses(&self) -> bool {
        self.overload_asks(Action::StopRequests)
            || (!self.connection.listener.bypasses_overload
                && OVERLOAD.sheds(ShedPoint::DecodeHeaders, || self.worker.random()))
    }

    /// Whether an answer is to end the connection: the process, the listener or the filter chain
    /// drains, or health checks are told to fail.
    pub fn is_draining(&self) -> bool {
        let listener = &self.connection.listener;
        let drain = &self.worker.drain;
        self.connection.drain.is_draining()
            || drain.concerns(listener.direction, || self.worker.random())
            || (listener.drains_when_unhealthy && drain.is_unhealthy())
    }

    /// Resolves when the process, the listener or the filter chain begins to drain. Health checks
    /// that fail leave a connection alone on which nothing is asked for, as Envoy does: they may be
    /// well again before.
    pub async fn drain_begun(&self) {
        tokio::select! {
            () = self.worker.drain.begun(self.connection.listener.direction) => {}
            () = self.connection.drain.begun() => {}
        }
    }
}
