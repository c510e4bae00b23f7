//! Endpoints of datagrams: chosen as for connections, and limited as they are.

use std::net::SocketAddr;
use std::rc::Rc;

use metrics::Counter;

use super::breakers::{Permit, Resource};
use super::cluster::Cluster;
use super::target::Target;
use crate::config::cluster::Priority;
use crate::telemetry::metrics::Scope;

/// `cluster.<name>.udp.*`: what sessions of datagrams count of a cluster, on one worker.
pub struct DatagramStats {
    /// From endpoints.
    pub rx_datagrams: Counter,
    /// Failures to receive, such as the endpoint's refusal of what was sent before.
    pub rx_errors: Counter,
    /// To endpoints.
    pub tx_datagrams: Counter,
    /// Failures to send.
    pub tx_errors: Counter,
    /// From endpoints, but too long.
    pub rx_datagrams_dropped: Counter,
}

impl DatagramStats {
    /// The handles of a cluster.
    pub(super) fn new(scope: &Scope) -> Self {
        DatagramStats {
            rx_datagrams: scope.counter("udp.sess_rx_datagrams"),
            rx_errors: scope.counter("udp.sess_rx_errors"),
            tx_datagrams: scope.counter("udp.sess_tx_datagrams"),
            tx_errors: scope.counter("udp.sess_tx_errors"),
            rx_datagrams_dropped: scope.counter("udp.sess_rx_datagrams_dropped"),
        }
    }
}

impl Cluster {
    /// The handles of what sessions count.
    pub fn datagram_stats(&self) -> DatagramStats {
        self.stats().datagrams()
    }

    /// An endpoint for datagrams of a client that sent them to `destination`. Where there is none,
    /// that is counted.
    pub fn choose_for_datagrams(&self, destination: SocketAddr) -> Option<Rc<Target>> {
        let host = self.choose(Some(destination), None).ok()?;
        Some(host.target().clone())
    }

    /// A place for a session: the breaker of connections limits them. Where there is none, that is
    /// counted.
    pub fn admit_session(&self) -> Option<Permit> {
        let breakers = self.context().breakers(Priority::Default);
        let permit = breakers.acquire(Resource::Connections);
        if permit.is_none() {
            self.stats().cx_overflow.increment(1);
        }
        permit
    }
}
