//! tcp_proxy: a connection of bytes, relayed to an endpoint of a cluster.
//!
//! What TCP says beside bytes is passed on: half-close, reset, refusal (as a reset, for the kernel
//! has accepted already). An idle connection is never cut unless `idle_timeout` is configured, as
//! databases keep theirs for days; keep-alive finds peers that are gone. Neither does a change of
//! configuration cut one: it applies to the next.

mod dial;
mod relay;
#[cfg(test)]
mod relay_tests;
pub mod stats;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

pub use dial::{DialError, Dialled, dial};
use relay::{End, Way, relay};
use stats::TcpStats;

use crate::config::endpoint::Endpoint;
use crate::config::tcp_proxy::TcpProxy;
use crate::listener::connection::Connection;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::Record;
use crate::tls::stream::{Socket, Stream};

/// A connection that says nothing is asked whether it is alive after so long, and so often then.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(30));

/// Relays a client's connection until it ends. `dialled` is the server, where it was connected to
/// while the client was silent.
pub async fn serve(
    worker: &Rc<Worker>,
    connection: Rc<Connection>,
    proxy: Arc<TcpProxy>,
    stream: Stream,
    dialled: Option<Dialled>,
) {
    let mut session = Session::begin(worker, connection, proxy);
    keep_alive(stream.socket());
    let dialled = match dialled {
        Some(dialled) => Ok(dialled),
        None => dial(worker, &session.proxy, session.connection.local.socket()).await,
    };
    match dialled {
        Ok(dialled) => session.relay(stream, dialled).await,
        Err(error) => {
            // The client was told that it is connected: a reset tells it that it is not.
            stream.abort();
            session.failed(&error);
        }
    }
}

fn keep_alive(socket: &Socket) {
    if let Socket::Tcp(tcp) = socket {
        let (time, interval) = KEEP_ALIVE;
        let options = TcpKeepalive::new().with_time(time).with_interval(interval);
        if let Err(error) = SockRef::from(tcp).set_tcp_keepalive(&options) {
            tracing::debug!(%error, "no keep-alive");
        }
    }
}

/// Counts and logs one connection, however it ends.
struct Session {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    proxy: Arc<TcpProxy>,
    stats: Rc<TcpStats>,
    received: u64,
    sent: u64,
    flags: Flags,
    failure: String,
    cluster: Option<Arc<str>>,
    endpoint: Option<Arc<Endpoint>>,
    upstream_local: Option<SocketAddr>,
    attempts: u32,
}

impl Session {
    fn begin(worker: &Rc<Worker>, connection: Rc<Connection>, proxy: Arc<TcpProxy>) -> Self {
        let stats = worker.tcp_stats(&proxy.stat_prefix);
        stats.downstream_cx_total.increment(1);
        Session {
            worker: Rc::clone(worker),
            connection,
            proxy,
            stats,
            received: 0,
            sent: 0,
            flags: Flags::NONE,
            failure: String::new(),
            cluster: None,
            endpoint: None,
            upstream_local: None,
            attempts: 0,
        }
    }

    async fn relay(&mut self, downstream: Stream, dialled: Dialled) {
        let upstream = dialled.upstream;
        self.cluster = Some(dialled.cluster);
        self.attempts = dialled.attempts;
        self.upstream_local = upstream.stream.local_addr();
        self.endpoint = Some(upstream.endpoint);
        if let Some(error) = dialled.broken {
            tracing::debug!(connection = self.connection.id, %error, "upstream broke at once");
            self.flags |= Flags::UPSTREAM_CONNECTION_TERMINATION;
            upstream.stream.abort();
            downstream.abort();
            return;
        }
        keep_alive(upstream.stream.socket());
        let idle = self.proxy.idle_timeout;
        let end = relay(downstream, upstream.stream, idle, |way, length| {
            let length = length as u64;
            match way {
                Way::Up => {
                    self.received += length;
                    self.stats.downstream_cx_rx_bytes_total.increment(length);
                    upstream.guard.count_bytes(0, length);
                }
                Way::Down => {
                    self.sent += length;
                    self.stats.downstream_cx_tx_bytes_total.increment(length);
                    upstream.guard.count_bytes(length, 0);
                }
            }
        })
        .await;
        tracing::debug!(connection = self.connection.id, ?end, "connection ended");
        match end {
            End::Closed => {}
            End::Idle => self.stats.idle_timeout.increment(1),
            End::DownstreamBroke(_) => {
                self.flags |= Flags::DOWNSTREAM_CONNECTION_TERMINATION;
            }
            End::UpstreamBroke(_) => self.flags |= Flags::UPSTREAM_CONNECTION_TERMINATION,
        }
    }

    fn failed(&mut self, error: &DialError) {
        tracing::debug!(connection = self.connection.id, %error, "no connection upstream");
        if let DialError::NoCluster(_) = error {
            self.stats.downstream_cx_no_route.increment(1);
        }
        self.flags |= error.flags();
        self.failure = error.transport_failure();
        self.attempts = error.attempts();
        self.cluster = Some(Arc::clone(error.cluster()));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.proxy.access_log.is_empty() {
            return;
        }
        let record = Record {
            connection: &self.connection,
            client: None,
            started: self.connection.accepted_at,
            request: None,
            response: None,
            trailers: None,
            status: 0,
            flags: self.flags,
            details: "",
            upstream_failure: &self.failure,
            bytes_received: self.received,
            bytes_sent: self.sent,
            duration: self.connection.accepted.elapsed(),
            response_duration: None,
            upstream_host: self.endpoint.as_ref().map(|endpoint| &endpoint.address),
            upstream_local: self.upstream_local,
            upstream_cluster: self.cluster.as_ref(),
            route_name: "",
            attempts: self.attempts,
        };
        self.worker
            .access_log
            .write(&self.proxy.access_log, &record);
    }
}
