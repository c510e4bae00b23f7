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
use super::idle_timeout;
use super::relay::{End, Limits, Way, relay};
use super::stats::TcpStats;
use super::tunnel::{self, Opened, Server};
use crate::config::access_log::AccessLog;
use crate::config::endpoint::Endpoint;
use crate::config::tcp_proxy::{TcpProxy, Tunnel};
use crate::listener::connection::Connection;
use crate::network::filter_state::TCP_DISABLE_TUNNELING;
use crate::network::filters;
use crate::runtime::timer::Timer;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::{LogKind, Record};
use crate::tls::stream::{Handshake, Stream};
use crate::upstream::Client;
use crate::upstream::exchange::Event;

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
    upstream_tls: Option<Rc<Handshake>>,
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
            upstream_tls: None,
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

    /// The tunnel that this connection is to go through.
    pub(super) fn wants_tunnel(&self) -> Option<&Tunnel> {
        let state = self.connection.state.filter_state.borrow();
        let tunnel = self.proxy.tunnel.as_ref();
        tunnel.filter(|_| !state.flag(TCP_DISABLE_TUNNELING))
    }

    pub(super) async fn dial(&self, cluster: &Arc<str>) -> Result<Dialled, DialError> {
        let wishes = {
            let state = self.connection.state.filter_state.borrow();
            let client = Client::from(&*self.connection);
            let destination = self.connection.original_destination();
            Wishes::new(&state, destination, client)
        };
        dial::dial(&self.worker, &self.proxy, cluster, &wishes).await
    }

    /// Relays until the connection ends. `awaits_data`: filters want to hear of the first bytes.
    pub(super) async fn relay(
        &mut self,
        downstream: Stream,
        dialled: Dialled,
        until: Option<Instant>,
        awaits_data: bool,
    ) {
        let upstream = dialled.upstream;
        let local = upstream.stream.local_addr();
        self.upstream_tls = upstream.stream.handshake().cloned();
        self.connected(dialled.cluster, upstream.endpoint, local, dialled.attempts);
        if let Some(error) = dialled.broken {
            tracing::debug!(connection = self.connection.id, %error, "upstream broke at once");
            self.flags |= upstream_broke(error.kind());
            upstream.stream.abort();
            downstream.abort();
            return;
        }
        let limits = self.limits(until);
        let awaits_data = Cell::new(awaits_data);
        let relaying = relay(
            downstream,
            upstream.stream,
            limits,
            |way, length| match way {
                Way::Up => {
                    upstream.guard.count_bytes(0, length as u64);
                    self.count(length, 0, &awaits_data)
                }
                Way::Down => {
                    upstream.guard.count_bytes(length as u64, 0);
                    self.count(0, length, &awaits_data)
                }
            },
        );
        let end = self.logged_meanwhile(relaying).await;
        self.end_is_data(end, &awaits_data);
        self.ended(end);
    }

    /// Carries the bytes through an HTTP request until the connection ends.
    pub(super) async fn tunnel(
        &mut self,
        downstream: Stream,
        opened: Opened,
        until: Option<Instant>,
        awaits_data: bool,
    ) {
        let Opened {
            server,
            endpoint,
            local,
            cluster,
            attempts,
        } = opened;
        self.connected(cluster, endpoint, local, attempts);
        let limits = self.limits(until);
        let awaits_data = Cell::new(awaits_data);
        let end = match server {
            Server::Stream {
                stream,
                lease,
                guard,
            } => {
                let relaying = relay(downstream, stream, limits, |way, length| {
                    let (up, down) = match way {
                        Way::Up => (length, 0),
                        Way::Down => (0, length),
                    };
                    lease.note(Event::Transferred {
                        received: down as u64,
                        sent: up as u64,
                    });
                    self.count(up, down, &awaits_data)
                });
                let end = self.logged_meanwhile(relaying).await;
                drop(guard);
                end
            }
            Server::Exchange(mut exchange) => {
                let count = |up, down| self.count(up, down, &awaits_data);
                let carrying = tunnel::carry(downstream, &mut exchange, limits, count);
                let end = self.logged_meanwhile(carrying).await;
                if let Some(tunnel) = &self.proxy.tunnel {
                    tunnel::keep_trailers(tunnel, &mut exchange, &self.connection);
                }
                end
            }
        };
        self.end_is_data(end, &awaits_data);
        self.ended(end);
    }

    /// The end of a client that said nothing is data, too.
    fn end_is_data(&self, end: End, awaits_data: &Cell<bool>) {
        if end == End::Closed && awaits_data.get() {
            filters::on_data(&self.connection);
        }
    }

    fn connected(
        &mut self,
        cluster: Arc<str>,
        endpoint: Arc<Endpoint>,
        local: Option<SocketAddr>,
        attempts: u32,
    ) {
        self.cluster = Some(cluster);
        self.endpoint = Some(endpoint);
        self.upstream_local = local;
        self.attempts = attempts;
        if self.proxy.log_options.on_connected {
            self.log(LogKind::TcpUpstreamConnected);
        }
    }

    fn limits(&self, until: Option<Instant>) -> Limits {
        Limits {
            idle: self.idle_timeout(),
            until,
            buffer: self
                .connection
                .listener
                .buffer_limit
                .map(|limit| limit as usize),
        }
    }

    /// Counts bytes up and down; breaks where they are to be the last.
    fn count(&self, up: usize, down: usize, awaits_data: &Cell<bool>) -> ControlFlow<()> {
        if up > 0 {
            self.received.set(self.received.get() + up as u64);
            self.stats.downstream_cx_rx_bytes_total.increment(up as u64);
            if awaits_data.replace(false) {
                filters::on_data(&self.connection);
            }
        }
        if down > 0 {
            self.sent.set(self.sent.get() + down as u64);
            self.stats
                .downstream_cx_tx_bytes_total
                .increment(down as u64);
        }
        match self.proxy.check_drain_close && self.drains() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn ended(&mut self, end: End) {
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
        let worker = &self.worker;
        self.connection.drain.is_draining() || worker.drain.concerns(direction, || worker.random())
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
        self.endpoint = error.endpoint().cloned();
        let reason = &self.connection.state.close_reason;
        reason.set(error.close_reason());
    }

    /// Writes a line to each access log.
    pub(super) fn log(&self, kind: LogKind) {
        self.log_to(&self.proxy.access_log, kind);
    }

    fn log_to(&self, logs: &[AccessLog], kind: LogKind) {
        if logs.is_empty() {
            return;
        }
        let cluster = self.cluster.as_ref();
        let told = cluster.and_then(|name| self.worker.clusters.cluster(name));
        let record = Record {
            kind,
            flags: self.flags,
            upstream_failure: &self.failure,
            bytes_received: self.received.get(),
            bytes_sent: self.sent.get(),
            upstream_host: self.endpoint.as_ref().map(|endpoint| &endpoint.address),
            upstream_local: self.upstream_local,
            upstream_tls: self.upstream_tls.as_deref(),
            upstream_cluster: cluster,
            upstream_cluster_told: match &told {
                Some(cluster) => Some(&cluster.config().stat_name),
                None => cluster,
            },
            attempts: self.attempts,
            ..Record::of_connection(&self.connection)
        };
        self.worker.access_log.write(logs, &record);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.log(LogKind::TcpConnectionEnd);
        // That of the listener tells of the same.
        self.log_to(&self.connection.listener.access_log, LogKind::NotSet);
        self.connection.state.is_logged.set(true);
    }
}

/// A server that resets is told apart from a TLS stream that ended without saying so.
fn upstream_broke(kind: io::ErrorKind) -> Flags {
    match kind {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Flags::UPSTREAM_REMOTE_RESET,
        _ => Flags::UPSTREAM_CONNECTION_TERMINATION,
    }
}
