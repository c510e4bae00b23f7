//! Choosing a cluster and connecting to it.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use crate::config::dynamic_forward_proxy::DynamicHost;
use crate::config::endpoint::Endpoint;
use crate::config::tcp_proxy::{Backoff, TcpProxy};
use crate::network::filter_state::{
    FilterState, ORIGINAL_DST_ADDRESS, TCP_CLUSTER, UPSTREAM_PROTOCOLS, UPSTREAM_SERVER_NAME,
    UPSTREAM_SUBJECT_ALT_NAMES,
};
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::tls::overrides::Overrides;
use crate::upstream::{Client, Cluster, ConnectRequest, TcpUpstream, UpstreamError};

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
        /// The endpoint of the last attempt.
        endpoint: Option<Arc<Endpoint>>,
        /// The last failure.
        error: UpstreamError,
    },
}

impl DialError {
    /// Attempts that were made and failed count as used up, even where there was to be but one.
    pub(super) fn flags(&self) -> Flags {
        match self {
            DialError::NoCluster(_) => Flags::NO_CLUSTER_FOUND,
            DialError::Upstream {
                attempts, error, ..
            } => {
                let mut flags = match error {
                    // To tcp_proxy, a host without an address is no endpoint.
                    UpstreamError::Unresolved { .. }
                    | UpstreamError::TooManyNames
                    | UpstreamError::NamesPending => Flags::NO_HEALTHY_UPSTREAM,
                    error => error.flags(),
                };
                if *attempts > 0 {
                    flags |= Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
                }
                flags
            }
        }
    }

    /// The cluster, if there is one.
    pub(super) fn cluster(&self) -> Option<&Arc<str>> {
        match self {
            DialError::NoCluster(_) => None,
            DialError::Upstream { cluster, .. } => Some(cluster),
        }
    }

    /// The endpoint of the last attempt.
    pub(super) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match self {
            DialError::NoCluster(_) => None,
            DialError::Upstream { endpoint, .. } => endpoint.as_ref(),
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

    /// Envoy's word for it (its spelling, too), with its number of the reason.
    pub(super) fn close_reason(&self) -> &'static str {
        match self {
            DialError::NoCluster(_) => "tcp_initializion_failure:3",
            DialError::Upstream { error, .. } => match error {
                UpstreamError::NoHealthyUpstream
                | UpstreamError::Unresolved { .. }
                | UpstreamError::TooManyNames
                | UpstreamError::NamesPending => "tcp_initializion_failure:1",
                UpstreamError::Overflow => "tcp_initializion_failure:2",
                _ => "tcp_initializion_failure:0",
            },
        }
    }
}

/// The cluster of a connection: as filter state says, else by weight.
pub fn route(worker: &Worker, proxy: &TcpProxy, state: &FilterState) -> Arc<str> {
    match state.text(TCP_CLUSTER) {
        Some(name) => name.into(),
        None => Arc::clone(choose(proxy, worker.random())),
    }
}

/// What a connection asks for beside its cluster.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Where an ORIGINAL_DST cluster connects to.
    pub destination: Option<SocketAddr>,
    /// The host that a dynamic forward proxy connects to.
    pub name: Option<DynamicHost>,
    /// What TLS is to do otherwise than it is configured.
    pub tls: Overrides,
    /// The client's connection.
    pub client: Client,
}

impl Wishes {
    /// As filter state says, else what the client asked for.
    pub fn new(state: &FilterState, destination: Option<SocketAddr>, client: Client) -> Self {
        Wishes {
            destination: state.address(ORIGINAL_DST_ADDRESS).or(destination),
            name: DynamicHost::of_filter_state(state),
            tls: Overrides {
                server_name: state.text(UPSTREAM_SERVER_NAME).map(Into::into),
                protocols: state
                    .list(UPSTREAM_PROTOCOLS)
                    .map(|list| list.map(|name| name.as_bytes().into()).collect())
                    .unwrap_or_default(),
                subject_alt_names: state
                    .list(UPSTREAM_SUBJECT_ALT_NAMES)
                    .map(|list| list.map(Into::into).collect())
                    .unwrap_or_default(),
            },
            client,
        }
    }
}

/// Connects to the cluster, `max_connect_attempts` times at most.
///
/// # Errors
/// [`DialError`]
pub async fn dial(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    name: &Arc<str>,
    wishes: &Wishes,
) -> Result<Dialled, DialError> {
    let want = ConnectRequest {
        original_destination: wishes.destination,
        name: wishes.name.as_ref(),
        overrides: &wishes.tls,
        client: &wishes.client,
    };
    let (upstream, attempts) = attempt(worker, proxy, name, async |cluster, chosen| {
        Cluster::connect(cluster, want, chosen).await
    })
    .await?;
    Ok(Dialled {
        upstream,
        cluster: Arc::clone(name),
        attempts,
        broken: None,
    })
}

/// Tries to reach an endpoint of the cluster, `max_connect_attempts` times at most. Answers how
/// often it did.
///
/// # Errors
/// [`DialError`]
pub async fn attempt<T>(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    name: &Arc<str>,
    reach: impl AsyncFn(&Rc<Cluster>, &mut Option<Arc<Endpoint>>) -> Result<T, UpstreamError>,
) -> Result<(T, u32), DialError> {
    let cluster = worker
        .clusters
        .cluster(name)
        .ok_or_else(|| DialError::NoCluster(Arc::clone(name)))?;
    let mut attempts = 0;
    loop {
        let mut endpoint = None;
        let error = match reach(&cluster, &mut endpoint).await {
            Ok(reached) => return Ok((reached, attempts + 1)),
            Err(error) => error,
        };
        // Otherwise nothing was tried, and trying again at once would end alike.
        let tried = error.tried();
        attempts += u32::from(tried);
        if !tried || attempts >= proxy.max_connect_attempts {
            if tried {
                cluster.stats().cx_connect_attempts_exceeded.increment(1);
            }
            return Err(DialError::Upstream {
                cluster: Arc::clone(name),
                attempts,
                endpoint,
                error,
            });
        }
        tracing::debug!(cluster = %name, attempts, %error, "trying again");
        if let Some(backoff) = &proxy.backoff {
            tokio::time::sleep(backoff.pause(attempts, worker.random())).await;
        }
    }
}

impl Backoff {
    /// How long to wait after so many failed attempts: a random part of an interval that doubles.
    fn pause(&self, attempts: u32, random: u64) -> Duration {
        let doubled = 1u32
            .checked_shl(attempts.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let interval = self.base.saturating_mul(doubled).min(self.most);
        let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random % nanos.max(1))
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
            clusters: vec![("a".into(), 1), ("b".into(), 0), ("c".into(), 3)],
            total_weight: 4,
            ..TcpProxy::to("a")
        };
        let chosen: Vec<&str> = (0..8).map(|random| &**choose(&proxy, random)).collect();
        assert_eq!(chosen, ["a", "c", "c", "c", "a", "c", "c", "c"]);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let millis = Duration::from_millis;
        let backoff = Backoff {
            base: millis(100),
            most: millis(350),
        };
        for (attempts, below) in [(1, 100), (2, 200), (3, 350), (4, 350), (99, 350)] {
            let longest = u64::try_from(millis(below).as_nanos()).unwrap() - 1;
            let pause = backoff.pause(attempts, longest);
            assert_eq!(pause, millis(below) - Duration::from_nanos(1), "{attempts}");
            assert_eq!(backoff.pause(attempts, longest + 1), Duration::ZERO);
        }
    }
}
