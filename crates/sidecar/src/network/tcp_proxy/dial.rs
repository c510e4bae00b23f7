//! Choosing a cluster and connecting to it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;

use crate::config::tcp_proxy::TcpProxy;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::upstream::{Cluster, ConnectRequest, TcpUpstream, UpstreamError};

/// A connection to an endpoint of a tcp_proxy's cluster.
pub struct Dialled {
    pub(super) upstream: TcpUpstream,
    pub(super) cluster: Arc<str>,
    pub(super) attempts: u32,
    /// What broke it before anybody read. The system tells that once only.
    pub(super) broken: Option<io::Error>,
}

impl Dialled {
    /// Resolves when the server has said something, or has ended. May be dropped and called again.
    pub async fn first_byte(&mut self) {
        let mut bytes = [0; 1024];
        match self.upstream.stream.read(&mut bytes).await {
            Ok(length) => self.upstream.stream.unread(&bytes[..length]),
            Err(error) => self.broken = Some(error),
        }
    }
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The cluster is not configured (any more).
    #[error("no cluster {0:?}")]
    NoCluster(Arc<str>),
    /// No endpoint could be connected to.
    #[error("{error}")]
    Upstream {
        /// The cluster.
        cluster: Arc<str>,
        /// How often it was tried.
        attempts: u32,
        /// The last failure.
        error: UpstreamError,
    },
}

impl DialError {
    pub(super) fn flags(&self) -> Flags {
        match self {
            DialError::NoCluster(_) => Flags::NO_CLUSTER_FOUND,
            DialError::Upstream { error, .. } => error.flags(),
        }
    }

    pub(super) fn cluster(&self) -> &Arc<str> {
        match self {
            DialError::NoCluster(cluster) | DialError::Upstream { cluster, .. } => cluster,
        }
    }

    pub(super) fn attempts(&self) -> u32 {
        match self {
            DialError::NoCluster(_) => 0,
            DialError::Upstream { attempts, .. } => *attempts,
        }
    }

    pub(super) fn transport_failure(&self) -> String {
        match self {
            DialError::NoCluster(_) => String::new(),
            DialError::Upstream { error, .. } => error.transport_failure().into_owned(),
        }
    }
}

/// Connects to the proxy's cluster, `max_connect_attempts` times at most.
///
/// # Errors
/// [`DialError`]
pub async fn dial(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    original_destination: Option<SocketAddr>,
) -> Result<Dialled, DialError> {
    let name = choose(proxy, worker.random());
    let cluster = worker
        .clusters
        .cluster(name)
        .ok_or_else(|| DialError::NoCluster(Arc::clone(name)))?;
    let want = ConnectRequest {
        original_destination,
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        match Cluster::connect(&cluster, want).await {
            Ok(upstream) => {
                return Ok(Dialled {
                    upstream,
                    cluster: Arc::clone(name),
                    attempts,
                    broken: None,
                });
            }
            Err(error) if attempts >= proxy.max_connect_attempts => {
                return Err(DialError::Upstream {
                    cluster: Arc::clone(name),
                    attempts,
                    error,
                });
            }
            Err(error) => tracing::debug!(cluster = %name, attempts, %error, "trying again"),
        }
    }
}

/// The cluster that a random number falls on, by weight.
fn choose(proxy: &TcpProxy, random: u64) -> &Arc<str> {
    let mut at = (random % u64::from(proxy.total_weight)) as u32;
    let last = proxy.clusters.len() - 1;
    let chosen = proxy.clusters[..last].iter().find(|(_, weight)| {
        let here = at < *weight;
        at = at.saturating_sub(*weight);
        here
    });
    &chosen.unwrap_or(&proxy.clusters[last]).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_chosen_by_weight() {
        let proxy = TcpProxy {
            stat_prefix: "t".into(),
            clusters: vec![("a".into(), 1), ("b".into(), 0), ("c".into(), 3)],
            total_weight: 4,
            idle_timeout: None,
            max_connect_attempts: 1,
            access_log: Vec::new(),
        };
        let chosen: Vec<&str> = (0..8).map(|random| &**choose(&proxy, random)).collect();
        assert_eq!(chosen, ["a", "c", "c", "c", "a", "c", "c", "c"]);
    }
}
