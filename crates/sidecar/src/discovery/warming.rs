//! What is on its way into force: what it waits for, and whose statistics tell of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrider_xds::ads::ResourceType;
use tokio::time::Instant;

use super::references::References;
use super::stats::{Counts, Subject};
use crate::config::cluster::{AssignmentSource, Cluster, ClusterDiscovery, UpstreamTransport};
use crate::config::listener::{DownstreamTransport, Listener, NetworkFilter};
use crate::telemetry::metrics::Family;

/// Whose statistics tell of a resource, by its name.
pub type Subjects = BTreeMap<Arc<str>, BTreeSet<Subject>>;

/// One resource by name: in force, warming, or both.
pub struct Warm<W, A> {
    /// In force.
    pub active: Option<Arc<A>>,
    /// On its way there.
    pub warming: Option<Arc<W>>,
    /// From the bootstrap file.
    pub fixed: bool,
}

impl<W, A> Default for Warm<W, A> {
    fn default() -> Self {
        Warm {
            active: None,
            warming: None,
            fixed: false,
        }
    }
}

impl<W, A> Warm<W, A> {
    /// Whether nothing was taken under this name yet.
    pub fn is_new(&self) -> bool {
        self.active.is_none() && self.warming.is_none()
    }
}

impl Counts {
    /// One was taken, under a name that was there before or not.
    pub fn accepted(&self, is_new: bool) {
        if is_new {
            self.added.increment(1);
        } else {
            self.modified.increment(1);
        }
    }

    /// These are all.
    pub fn there<'a, W: 'a, A: 'a>(&self, entries: impl Iterator<Item = &'a Warm<W, A>> + Clone) {
        let active = entries.clone().filter(|entry| entry.active.is_some());
        let warming = entries.filter(|entry| entry.warming.is_some());
        self.active.set(active.count() as f64);
        self.warming.set(warming.count() as f64);
    }
}

/// A cluster is warm with its endpoints and its secrets.
pub fn awaits_cluster(references: &References, cluster: &Cluster, now: Instant) -> bool {
    let endpoints = match &cluster.discovery {
        ClusterDiscovery::Assignment {
            slot,
            source: AssignmentSource::Dns(dns),
        } => dns.wait && !slot.is_filled(),
        ClusterDiscovery::Assignment { slot, .. } => references.awaits_endpoints(slot, now),
        ClusterDiscovery::OriginalDestination
        | ClusterDiscovery::Aggregate(_)
        | ClusterDiscovery::Names(_) => false,
    };
    let transports = cluster
        .transport_socket_matches
        .iter()
        .map(|socket| &socket.transport);
    let secrets = transports
        .chain([&cluster.transport_socket])
        .filter_map(UpstreamTransport::tls)
        .any(|context| {
            let mut slots = context.slots();
            slots.any(|slot| references.awaits_secret(slot, now))
        });
    endpoints || secrets
}

/// A listener is warm with its route tables and its secrets.
pub fn awaits_listener(references: &References, listener: &Listener, now: Instant) -> bool {
    listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain)
        .any(|chain| {
            let routes = match &chain.filter {
                NetworkFilter::Http(manager) => {
                    manager.rds && references.awaits_route(&manager.routes, now)
                }
                NetworkFilter::TcpProxy(_)
                | NetworkFilter::DirectResponse(_)
                | NetworkFilter::Echo => false,
            };
            let secrets = match &chain.transport {
                DownstreamTransport::Tls(context) => context
                    .slots()
                    .any(|slot| references.awaits_secret(slot, now)),
                DownstreamTransport::Plain => false,
            };
            routes || secrets
        })
}

/// Whose statistics tell of the resources of a kind, by the names of these.
pub fn subjects<'a>(
    kind: ResourceType,
    names: &BTreeSet<Arc<str>>,
    clusters: impl Iterator<Item = &'a Cluster>,
    listeners: impl Iterator<Item = &'a Listener>,
) -> Subjects {
    let mut subjects = Subjects::new();
    let mut add = |name: &Arc<str>, family, subject: Arc<str>| {
        let of_name = subjects.entry(name.clone()).or_default();
        of_name.insert((family, subject));
    };
    match kind {
        ResourceType::Cluster | ResourceType::Listener => {}
        ResourceType::Runtime => {
            names
                .iter()
                .for_each(|name| add(name, Family::Runtime, "".into()));
        }
        ResourceType::Secret => {
            names
                .iter()
                .for_each(|name| add(name, Family::Sds, name.clone()));
        }
        ResourceType::Endpoint => {
            for cluster in clusters {
                if let ClusterDiscovery::Assignment {
                    slot,
                    source: AssignmentSource::Eds,
                } = &cluster.discovery
                {
                    add(slot.name(), Family::Cluster, cluster.stat_name.clone());
                }
            }
        }
        ResourceType::Route => {
            let chains = listeners.flat_map(|listener| {
                let chains = listener.filter_chains.iter();
                chains.chain(&listener.default_filter_chain)
            });
            for chain in chains {
                if let NetworkFilter::Http(manager) = &chain.filter
                    && manager.rds
                {
                    let name = manager.routes.name();
                    let subject = format!("{}.rds.{name}", manager.stat_prefix);
                    add(name, Family::HttpRoutes, subject.into());
                }
            }
        }
    }
    subjects
}
