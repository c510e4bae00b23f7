//! One endpoint as a worker uses it, and the guards that count what is in use of it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use tokio::sync::Notify;

use super::breakers::{LocalBreakers, Permit, Resource};
use super::error::UpstreamError;
use super::exchange::Event;
use super::pool::Pool;
use super::shared::{ClusterShared, HostCounters};
use super::stats::{ClusterStats, milliseconds};
use crate::config::cluster::{self, Priority, UpstreamTransport};
use crate::config::endpoint::Endpoint;

/// What every pool and guard of a cluster needs, on one worker. It knows no endpoint, so that it can
/// be held by all that belongs to one.
pub struct ClusterContext {
    /// The configuration.
    pub config: Arc<cluster::Cluster>,
    /// Counters, also those of the clusters of this name before.
    pub stats: Rc<ClusterStats>,
    /// Over all workers, by priority.
    breakers: [LocalBreakers; 2],
    /// What the control thread sees.
    pub shared: Arc<ClusterShared>,
    /// Connections of this worker, from the attempt to the end.
    pub connections: Cell<usize>,
    /// Wakes who sweeps idle connections, once there is a connection.
    pub connected: Notify,
}

impl ClusterContext {
    /// The context of a cluster on this worker.
    pub fn new(shared: Arc<ClusterShared>, stats: Rc<ClusterStats>) -> Rc<Self> {
        Rc::new(ClusterContext {
            config: shared.config.clone(),
            stats,
            breakers: Priority::ALL
                .map(|priority| LocalBreakers::new(shared.breakers.clone(), priority)),
            shared,
            connections: Cell::new(0),
            connected: Notify::new(),
        })
    }

    /// The breakers of a priority.
    pub fn breakers(&self, priority: Priority) -> &LocalBreakers {
        &self.breakers[priority as usize]
    }
}

/// Somebody waits for a connection.
pub struct Waiting {
    target: Rc<Target>,
    done: bool,
    _permit: Permit,
}

impl Waiting {
    /// The wait is over, with or without success. Dropped without, it was given up.
    pub fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let stats = &self.target.context.stats;
        stats.rq_pending_active.decrement(1.0);
        self.target.counters.rq_pending_active.subtract();
        if !self.done {
            stats.rq_cancelled.increment(1);
        }
    }
}

/// An endpoint, apart from its weight and its health, which only the balancer looks at.
pub struct Target {
    /// Of its cluster.
    pub context: Rc<ClusterContext>,
    /// What discovery said when it was first seen.
    pub endpoint: Arc<Endpoint>,
    /// The transport socket that its metadata chooses.
    pub transport: UpstreamTransport,
    /// For `/clusters`.
    pub counters: Arc<HostCounters>,
    /// Its connections over all workers, where they are limited.
    connections: Option<Arc<AtomicU32>>,
    active: Cell<u32>,
}

impl Target {
    /// A target that nobody uses yet.
    pub fn new(context: &Rc<ClusterContext>, endpoint: &Endpoint) -> Rc<Self> {
        Rc::new(Target {
            transport: transport_of(&context.config, &endpoint.transport_socket_match).clone(),
            counters: context.shared.host_counters(&endpoint.address),
            connections: context
                .config
                .max_connections_per_host
                .map(|_| context.shared.connections_to(&endpoint.address)),
            context: context.clone(),
            // A value of this worker's own: each exchange holds it, and its count is not to be shared
            // with other workers.
            endpoint: Arc::new(Endpoint::clone(endpoint)),
            active: Cell::new(0),
        })
    }

    /// Whether connections to this target serve for `endpoint` as well.
    pub fn serves(&self, endpoint: &Endpoint) -> bool {
        let ours = &self.endpoint;
        ours.address == endpoint.address
            // Else those of before would be dialled for ever.
            && ours.additional_addresses == endpoint.additional_addresses
            && ours.hostname == endpoint.hostname
            && ours.transport_socket_match == endpoint.transport_socket_match
    }

    /// Requests (and TCP connections) that it is busy with, of this worker.
    pub fn active(&self) -> u32 {
        self.active.get()
    }

    /// Counts one who waits for a connection, unless too many do.
    pub fn wait(self: &Rc<Self>, priority: Priority) -> Result<Waiting, UpstreamError> {
        let stats = &self.context.stats;
        let Some(permit) = self.context.breakers(priority).acquire(Resource::Pending) else {
            stats.rq_pending_overflow.increment(1);
            return Err(UpstreamError::Overflow);
        };
        stats.rq_pending_total.increment(1);
        stats.rq_pending_active.increment(1.0);
        self.counters.rq_pending_active.add();
        Ok(Waiting {
            target: self.clone(),
            done: false,
            _permit: permit,
        })
    }

    /// Counts a request that reaches a connection, unless there are too many. [`end`](Self::end)
    /// must follow.
    pub fn begin(&self, priority: Priority) -> Result<(), UpstreamError> {
        if !self.context.breakers(priority).take(Resource::Requests) {
            self.context.stats.rq_active_overflow.increment(1);
            return Err(UpstreamError::Overflow);
        }
        self.count_begun();
        Ok(())
    }

    fn count_begun(&self) {
        let stats = &self.context.stats;
        self.active.set(self.active.get() + 1);
        stats.rq_total.increment(1);
        stats.rq_active.increment(1.0);
        self.counters.rq_total.add();
        self.counters.rq_active.add();
    }

    /// Counts its end.
    pub fn end(&self, priority: Priority) {
        let breakers = self.context.breakers(priority);
        breakers.give_back(Resource::Requests);
        self.active.set(self.active.get() - 1);
        self.context.stats.rq_active.decrement(1.0);
        self.counters.rq_active.subtract();
    }

    /// Counts what became of a request.
    pub fn note(&self, event: Event) {
        let stats = &self.context.stats;
        match event {
            Event::Responded { status } | Event::RespondedForAnother { status } => {
                if let Event::Responded { .. } = event {
                    stats.response(status);
                }
                if status < 500 {
                    self.counters.rq_success.add();
                } else {
                    self.counters.rq_error.add();
                }
            }
            Event::Failed => self.counters.rq_error.add(),
            Event::TimedOut => self.counters.rq_timeout.add(),
            Event::Transferred { received, sent } => {
                stats.cx_rx_bytes_total.increment(received);
                stats.cx_tx_bytes_total.increment(sent);
            }
        }
    }

    /// Counts a connection from its attempt on. `None` if too many are open: `only` says that the
    /// target has no other, in which case one is allowed all the same, for else who waits for it
    /// would wait for ever.
    pub fn open(
        self: &Rc<Self>,
        pool: Weak<Pool>,
        priority: Priority,
        only: bool,
    ) -> Option<ConnectionGuard> {
        let context = &self.context;
        let breakers = context.breakers(priority);
        let permit = match self.has_room(priority) {
            true => breakers.acquire(Resource::Connections),
            false => None,
        };
        if permit.is_none() {
            context.stats.cx_overflow.increment(1);
        }
        let permit = match permit {
            None if only => breakers.acquire_beyond(Resource::Connections),
            permit => permit?,
        };
        if let Some(connections) = &self.connections {
            connections.fetch_add(1, Relaxed);
        }
        context.stats.cx_total.increment(1);
        context.stats.cx_active.increment(1.0);
        self.counters.cx_total.add();
        self.counters.cx_active.add();
        if context.connections.replace(context.connections.get() + 1) == 0 {
            context.connected.notify_one();
        }
        Some(ConnectionGuard {
            target: self.clone(),
            pool,
            priority,
            created: Instant::now(),
            _permit: permit,
        })
    }

    /// Whether `per_host_thresholds` allow another connection.
    fn has_room(&self, priority: Priority) -> bool {
        let limits = self.context.config.max_connections_per_host.as_ref();
        let (Some(limits), Some(connections)) = (limits, &self.connections) else {
            return true;
        };
        connections.load(Relaxed) < limits[priority as usize]
    }

    /// Counts the failure of an attempt.
    pub fn failed(&self, error: &UpstreamError) {
        self.context.stats.cx_connect_fail.increment(1);
        self.counters.cx_connect_fail.add();
        if matches!(error, UpstreamError::Timeout) {
            self.context.stats.cx_connect_timeout.increment(1);
        }
    }
}

/// The transport socket of the first match whose criteria an endpoint's `transport_socket_match` has.
pub fn transport_of<'a>(
    config: &'a cluster::Cluster,
    metadata: &BTreeMap<String, serde_json::Value>,
) -> &'a UpstreamTransport {
    let matching = config.transport_socket_matches.iter().find(|candidate| {
        candidate
            .criteria
            .iter()
            .all(|(key, value)| metadata.get(key) == Some(value))
    });
    matching.map_or(&config.transport_socket, |found| &found.transport)
}

/// Counts one connection as long as it lives.
pub struct ConnectionGuard {
    target: Rc<Target>,
    /// Is told when the connection is gone; empty for connections that no pool holds.
    pool: Weak<Pool>,
    priority: Priority,
    created: Instant,
    _permit: Permit,
}

impl ConnectionGuard {
    /// When the attempt began.
    pub fn created(&self) -> Instant {
        self.created
    }

    /// Counts the time until the connection could be used.
    pub fn connected(&self) {
        let stats = &self.target.context.stats;
        stats
            .cx_connect_ms
            .record(milliseconds(self.created.elapsed()));
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let context = &self.target.context;
        context.connections.set(context.connections.get() - 1);
        context.stats.cx_active.decrement(1.0);
        context.stats.cx_destroy.increment(1);
        context
            .stats
            .cx_length_ms
            .record(milliseconds(self.created.elapsed()));
        self.target.counters.cx_active.subtract();
        if let Some(connections) = &self.target.connections {
            connections.fetch_sub(1, Relaxed);
        }
        if let Some(pool) = self.pool.upgrade() {
            pool.connection_gone();
        }
    }
}

/// A TCP connection in use: counted as a connection and as a request, as Envoy does.
pub struct TcpGuard {
    connection: ConnectionGuard,
}

impl TcpGuard {
    /// Counts the use of a connection, whatever the breaker of the requests says: it limits HTTP.
    pub fn new(connection: ConnectionGuard) -> Self {
        let target = &connection.target;
        let breakers = target.context.breakers(connection.priority);
        breakers.take_beyond(Resource::Requests);
        target.count_begun();
        TcpGuard { connection }
    }

    /// Counts bytes that were received from the endpoint and sent to it.
    pub fn count_bytes(&self, received: u64, sent: u64) {
        let stats = &self.connection.target.context.stats;
        stats.cx_rx_bytes_total.increment(received);
        stats.cx_tx_bytes_total.increment(sent);
    }
}

impl Drop for TcpGuard {
    fn drop(&mut self) {
        self.connection.target.end(self.connection.priority);
    }
}
