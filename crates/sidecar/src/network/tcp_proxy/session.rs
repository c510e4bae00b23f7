//! One connection of a tcp_proxy, counted and logged however it ends.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::dial::{self, DialError, Dialled, Wishes};
use super::relay::{End, Limits, Way, relay};
use super::stats::TcpStats;
use super::{idle_timeout, keep_alive};
use crate::config::endpoint::Endpoint;
use crate::config::tcp_proxy::TcpProxy;
use crate::listener::connection::Connection;
use crate::network::filters;
use crate::runtime::timer::Timer;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::{LogKind, Record};
use crate::tls::stream::Stream;

pub(super) struct Session {
    pub(super) worker: Rc<Worker>,
    pub(super) connection: Rc<Connection>,
    pub(super) proxy: Arc<TcpProxy>,
    pub(super) stats: Rc<TcpStats>,
    pub(super) flags: Flags,
    received: Cell<u64>,
    sent: Cell<u64>,
    failure: String,
    cluster: Option<Arc<str>>,
    endpoint: Option<Arc<Endpoint>>,
    upstream_local: Option<SocketAddr>,
    attempts: u32,
}

impl Session {
    pub(super) fn begin(
        worker: &Rc<Worker>,
        connection: Rc<Connection>,
        proxy: Arc<TcpProxy>,
    ) -> Self {
        let stats = worker.tcp_stats(&proxy.stat_prefix);
        stats.downstream_cx_total.increment(1);
        Session {
            worker: Rc::clone(worker),
            connection,
            proxy,
            stats,
            flags: Flags::NONE,
            received: Cell::new(0),
            sent: Cell::new(0),
            failure: String::new(),
            cluster: None,
            endpoint: None,
            upstream_local: None,
            attempts: 0,
        }
    }

    /// When the connection has lasted for as long as it may: some time after its longest duration,
    /// at random, so that clients do not come back all at once.
    pub(super) fn until(&self) -> Option<Instant> {
        let longest = self.proxy.max_duration?;
        let share = self.worker.random() as f64 / u64::MAX as f64;
        let more = longest.mul_f64(self.proxy.max_duration_jitter * share / 100.0);
        Some(Instant::now() + longest + more)
    }

    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        let state = self.connection.state.filter_state.borrow();
        idle_timeout(&self.proxy, &state)
    }

    pub(super) async fn dial(&self, cluster: &Arc<str>) -> Result<Dialled, DialError> {
        let wishes = {
            let state = self.connection.state.filter_state.borrow();
            Wishes::new(&state, self.connection.local.socket())
        };
        dial::dial(&self.worker, &self.proxy, cluster, &wishes).await
    }

    /// Relays until the connection ends. `awaits_data`: filters want to hear of the first bytes.
    pub(super) async fn relay(
        &mut self,
        downstream: Stream,
        dialled: Dialled,
        until: Option<Instant>,
        mut awaits_data: bool,
    ) {
        let upstream = dialled.upstream;
        self.cluster = Some(dialled.cluster);
        self.attempts = dialled.attempts;
        self.upstream_local = upstream.stream.local_addr();
        self.endpoint = Some(upstream.endpoint);
        if let Some(error) = dialled.broken {
            tracing::debug!(connection = self.connection.id, %error, "upstream broke at once");
            self.flags |= upstream_broke(error.kind());
            upstream.stream.abort();
            downstream.abort();
            return;
        }
        keep_alive(upstream.stream.socket());
        if self.proxy.log_options.on_connected {
            self.log(LogKind::TcpUpstreamConnected);
        }
        let limits = Limits {
            idle: self.idle_timeout(),
            until,
        };
        let relaying = relay(downstream, upstream.stream, limits, |way, length| {
            let length = length as u64;
            match way {
                Way::Up => {
                    self.received.set(self.received.get() + length);
                    self.stats.downstream_cx_rx_bytes_total.increment(length);
                    upstream.guard.count_bytes(0, length);
                    if std::mem::take(&mut awaits_data) {
                        filters::on_data(&self.connection);
                    }
                }
                Way::Down => {
                    self.sent.set(self.sent.get() + length);
                    self.stats.downstream_cx_tx_bytes_total.increment(length);
                    upstream.guard.count_bytes(length, 0);
                }
            }
            match self.proxy.check_drain_close && self.drains() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let end = self.logged_meanwhile(relaying).await;
        tracing::debug!(connection = self.connection.id, ?end, "connection ended");
        match end {
            End::Closed | End::DownstreamBroke(_) => {}
            End::Idle => self.idle(),
            End::Expired => self.expired(),
            End::Told => {
                self.stats.downstream_cx_drain_close.increment(1);
                self.connection.state.close_reason.set("drain_close");
            }
            End::UpstreamBroke(kind) => self.flags |= upstream_broke(kind),
        }
    }

    fn drains(&self) -> bool {
        let direction = self.connection.listener.direction;
        self.connection.drain.is_draining() || self.worker.drain.concerns(direction)
    }

    /// Writes a line in each `access_log_flush_interval` until the relay ends.
    async fn logged_meanwhile(&self, relaying: impl Future<Output = End>) -> End {
        let Some(interval) = self.proxy.log_options.interval else {
            return relaying.await;
        };
        let mut relaying = pin!(relaying);
        let mut timer = Timer::new();
        let mut next = Instant::now() + interval;
        loop {
            tokio::select! {
                biased;
                end = &mut relaying => return end,
                () = timer.until(Some(next)) => {
                    self.log(LogKind::TcpPeriodic);
                    next = Instant::now() + interval;
                }
            }
        }
    }

    pub(super) fn idle(&self) {
        self.stats.idle_timeout.increment(1);
        let reason = &self.connection.state.close_reason;
        reason.set("tcp_session_idle_timeout");
    }

    pub(super) fn expired(&mut self) {
        self.stats.max_downstream_connection_duration.increment(1);
        self.flags |= Flags::DURATION_TIMEOUT;
        let reason = &self.connection.state.close_reason;
        reason.set("max_connection_duration_reached");
    }

    pub(super) fn failed(&mut self, error: &DialError) {
        tracing::debug!(connection = self.connection.id, %error, "no connection upstream");
        if let DialError::NoCluster(_) = error {
            self.stats.downstream_cx_no_route.increment(1);
        }
        self.flags |= error.flags();
        self.failure = error.transport_failure();
        self.attempts = error.attempts();
        self.cluster = error.cluster().cloned();
        let reason = &self.connection.state.close_reason;
        reason.set(error.close_reason());
    }

    /// Writes a line to each access log.
    pub(super) fn log(&self, kind: LogKind) {
        if self.proxy.access_log.is_empty() {
            return;
        }
        let record = Record {
            kind,
            flags: self.flags,
            upstream_failure: &self.failure,
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
            upstream_host: self.endpoint.as_ref().map(|endpoint| &endpoint.address),
            upstream_local: self.upstream_local,
            upstream_cluster: self.cluster.as_ref(),
            attempts: self.attempts,
            ..Record::of_connection(&self.connection)
        };
        self.worker
            .access_log
            .write(&self.proxy.access_log, &record);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.log(LogKind::TcpConnectionEnd);
    }
}

/// A server that resets is told apart from a TLS stream that ended without saying so.
fn upstream_broke(kind: io::ErrorKind) -> Flags {
    match kind {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Flags::UPSTREAM_REMOTE_RESET,
        _ => Flags::UPSTREAM_CONNECTION_TERMINATION,
    }
}
