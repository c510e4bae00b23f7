//! udp_proxy on one worker: which session a datagram belongs to.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use super::datagram::{Listening, Received};
use super::session::{Session, Way};
use super::stats::UdpStats;
use crate::config::address::Address;
use crate::config::endpoint::HealthStatus;
use crate::config::listener::{FilterChain, Listener};
use crate::config::udp::UdpListener;
use crate::listener::connection::Connection;
use crate::network::state::ConnectionState;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::record::Record;
use crate::upstream::{Cluster, DatagramStats, Target};

/// What tells sessions apart: the client's address, where it sends to, and the endpoint where each
/// datagram may go to another.
pub type Key = (SocketAddr, SocketAddr, Option<Address>);

/// A cluster that datagrams go to.
pub struct Attached {
    /// It.
    pub cluster: Rc<Cluster>,
    /// What is counted of it.
    pub stats: DatagramStats,
}

/// What the sessions of a filter share.
pub struct Shared {
    pub worker: Rc<Worker>,
    pub listener: Arc<Listener>,
    pub listening: Rc<Listening>,
    pub stats: UdpStats,
    /// Where datagrams of endpoints are received.
    pub from_endpoints: RefCell<Vec<u8>>,
    /// Where those of clients are.
    from_clients: RefCell<Vec<u8>>,
}

impl Shared {
    /// What is configured. A listener without it has no [`Proxy`].
    pub fn udp(&self) -> Option<&UdpListener> {
        self.listener.udp.as_deref()
    }

    /// What an access log needs to know, where there is one.
    pub fn connection(&self, peer: SocketAddr, local: SocketAddr) -> Connection {
        let accepted = std::time::Instant::now();
        Connection {
            id: 0,
            peer: Address::Socket(peer),
            direct_peer: Address::Socket(peer),
            local: Address::Socket(local),
            direct_local: Address::Socket(local),
            restored: false,
            listener: self.listener.clone(),
            chain: FilterChain::none(),
            server_name: None,
            tls: None,
            accepted,
            accepted_at: SystemTime::now(),
            drain: Rc::default(),
            state: ConnectionState::default(),
        }
    }
}

/// The filter of one listener on one worker.
pub struct Proxy {
    shared: Rc<Shared>,
    sessions: RefCell<HashMap<Key, Rc<Session>>>,
    clusters: RefCell<HashMap<Arc<str>, Rc<Attached>>>,
    me: Weak<Proxy>,
}

impl Proxy {
    /// A filter without sessions; `None` for a listener of connections.
    pub fn new(
        worker: &Rc<Worker>,
        listener: Arc<Listener>,
        listening: &Rc<Listening>,
    ) -> Option<Rc<Self>> {
        let prefix = &listener.udp.as_ref()?.proxy.stat_prefix;
        let shared = Shared {
            stats: UdpStats::new(&worker.stats, prefix, &listener.stat_prefix),
            worker: worker.clone(),
            listener: listener.clone(),
            listening: listening.clone(),
            from_endpoints: RefCell::default(),
            from_clients: RefCell::default(),
        };
        Some(Rc::new_cyclic(|me| Proxy {
            shared: Rc::new(shared),
            sessions: RefCell::default(),
            clusters: RefCell::default(),
            me: me.clone(),
        }))
    }

    /// The configuration that it acts on.
    pub fn config(&self) -> &Arc<Listener> {
        &self.shared.listener
    }

    /// Room for the longest datagram of a client, and a byte.
    pub fn room(&self) -> RefMut<'_, Vec<u8>> {
        let mut room = self.shared.from_clients.borrow_mut();
        if room.is_empty() {
            let largest = self.shared.udp().map_or(0, |udp| udp.largest);
            room.resize(largest + 1, 0);
        }
        room
    }

    /// Counts a datagram that was too long.
    pub fn too_long(&self) {
        self.shared.stats.dropped.increment(1);
    }

    /// Counts a failure to receive.
    pub fn failed(&self) {
        self.shared.stats.rx_errors.add(1);
    }

    /// Passes on a datagram of a client.
    pub fn receive(&self, bytes: &[u8], received: &Received) {
        let Some(udp) = self.shared.udp() else { return };
        let Received { peer, local, .. } = *received;
        let name = udp.proxy.route.cluster(local, peer);
        let Some(attached) = name.and_then(|name| self.attached(name)) else {
            return self.shared.stats.no_route.add(1);
        };
        let session = match udp.proxy.per_packet {
            true => self.of_packet(&attached, peer, local),
            false => self.of_client(&attached, peer, local),
        };
        if let Some(session) = session {
            session.to_endpoint(bytes);
        }
    }

    /// The cluster of that name. The sessions of a cluster that has gone, or was replaced, end.
    fn attached(&self, name: &Arc<str>) -> Option<Rc<Attached>> {
        let cluster = self.shared.worker.clusters.cluster(name);
        let known = self.clusters.borrow().get(name).cloned();
        match (cluster, known) {
            (Some(cluster), Some(known)) if Rc::ptr_eq(&known.cluster, &cluster) => Some(known),
            (cluster, known) => {
                if let Some(known) = known {
                    self.clusters.borrow_mut().remove(name);
                    self.end_sessions(|session| Rc::ptr_eq(session.attached(), &known));
                }
                let cluster = cluster?;
                let attached = Rc::new(Attached {
                    stats: cluster.datagram_stats(),
                    cluster,
                });
                let mut clusters = self.clusters.borrow_mut();
                clusters.insert(name.clone(), attached.clone());
                Some(attached)
            }
        }
    }

    /// A client's session, whose endpoint stays the same as long as it can be used.
    fn of_client(
        &self,
        attached: &Rc<Attached>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Option<Rc<Session>> {
        let key = (peer, local, None);
        let known = self.sessions.borrow().get(&key).cloned();
        let Some(session) = known else {
            return self.begin(key, attached, None);
        };
        let cluster = &attached.cluster;
        let generation = cluster.generation();
        if session.seen.get() == Some(generation) {
            return Some(session);
        }
        match cluster.health(session.target()) {
            None => {
                self.end(&key);
                self.begin(key, attached, None)
            }
            Some(HealthStatus::Unhealthy | HealthStatus::Draining) => {
                // Asked again with the next datagram.
                let better = cluster.choose_for_datagrams(local);
                let better = better.filter(|better| {
                    let health = cluster.health(better);
                    !Rc::ptr_eq(better, session.target()) && health != Some(HealthStatus::Unhealthy)
                });
                match better {
                    None => Some(session),
                    Some(better) => {
                        self.end(&key);
                        self.begin(key, attached, Some(better))
                    }
                }
            }
            Some(HealthStatus::Healthy | HealthStatus::Degraded) => {
                session.seen.set(Some(generation));
                Some(session)
            }
        }
    }

    /// A client's session with the endpoint that this datagram goes to.
    fn of_packet(
        &self,
        attached: &Rc<Attached>,
        peer: SocketAddr,
        local: SocketAddr,
    ) -> Option<Rc<Session>> {
        let target = attached.cluster.choose_for_datagrams(local)?;
        let key = (peer, local, Some(target.endpoint.address.clone()));
        let known = self.sessions.borrow().get(&key).cloned();
        match known {
            Some(session) => Some(session),
            None => self.begin(key, attached, Some(target)),
        }
    }

    fn begin(
        &self,
        key: Key,
        attached: &Rc<Attached>,
        target: Option<Rc<Target>>,
    ) -> Option<Rc<Session>> {
        let Some(permit) = attached.cluster.admit_session() else {
            // As in Envoy, where it begins and ends at once.
            self.shared.stats.total.add(1);
            return None;
        };
        let target = match target {
            Some(target) => target,
            None => attached.cluster.choose_for_datagrams(key.1)?,
        };
        let way = Way {
            key: key.clone(),
            attached: attached.clone(),
            target,
            _permit: permit,
        };
        match Session::begin(&self.shared, way) {
            Ok(session) => {
                self.sessions.borrow_mut().insert(key, session.clone());
                let (running, me) = (session.clone(), self.me.clone());
                tokio::task::spawn_local(async move {
                    running.run().await;
                    if let Some(proxy) = me.upgrade() {
                        proxy.forget(&running);
                    }
                });
                Some(session)
            }
            Err(error) => {
                tracing::debug!(%error, "no socket for a session of datagrams");
                attached.stats.tx_errors.increment(1);
                None
            }
        }
    }

    /// A session has ended by itself.
    fn forget(&self, session: &Rc<Session>) {
        let mut sessions = self.sessions.borrow_mut();
        if sessions
            .get(session.key())
            .is_some_and(|known| Rc::ptr_eq(known, session))
        {
            sessions.remove(session.key());
        }
    }

    fn end(&self, key: &Key) {
        let ended = self.sessions.borrow_mut().remove(key);
        if let Some(session) = ended {
            session.end();
        }
    }

    fn end_sessions(&self, which: impl Fn(&Session) -> bool) {
        let mut sessions = self.sessions.borrow_mut();
        for (_, session) in sessions.extract_if(|_, session| which(session)) {
            session.end();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end_sessions(|_| true);
        let Some(udp) = self.shared.udp() else { return };
        let logs = &udp.proxy.proxy_access_log;
        if logs.is_empty() {
            return;
        }
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let connection = self.shared.connection(nobody, nobody);
        let stats = &self.shared.stats;
        for (key, count) in [
            ("bytes_received", &stats.rx_bytes),
            ("bytes_sent", &stats.tx_bytes),
            ("datagrams_received", &stats.rx_datagrams),
            ("datagrams_sent", &stats.tx_datagrams),
            ("errors_received", &stats.rx_errors),
            ("errors_sent", &stats.tx_errors),
            ("idle_timeout", &stats.idle_timeout),
            ("no_route", &stats.no_route),
            ("session_total", &stats.total),
        ] {
            let state = &connection.state;
            state.set_metadata("udp.proxy.proxy", key, json!(count.here()));
        }
        let record = Record::of_connection(&connection);
        self.shared.worker.access_log.write(logs, &record);
    }
}
