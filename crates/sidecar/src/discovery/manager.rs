//! Listeners and clusters on their way into force: built, warmed, published.
//!
//! No I/O happens here: updates, removals and the time come in, snapshots and wanted names go out.
//! The rules are those of the xDS protocol: a bad resource is refused by name and the last good one
//! stays; the old one serves until the new one is warm; an equal one is a no-op.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrider_xds::ads::ResourceType;
use tokio::sync::watch;
use tokio::time::Instant;

use super::dns::Lookups;
use super::dump::{Dump, Kind, State};
use super::references::{OriginKey, References};
use crate::config::build::resource as build;
use crate::config::cluster::{
    AssignmentSource, Cluster, ClusterDiscovery, LocalZone, UpstreamTransport,
};
use crate::config::error::ConfigError;
use crate::config::listener::{DownstreamTransport, Listener, NetworkFilter};
use crate::listener::binding::ActiveListener;
use crate::runtime::snapshot::Snapshot;
use crate::telemetry::metrics::Stats;
use crate::upstream::shared::ClusterShared;

/// A resource as it came.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its name.
    pub name: Arc<str>,
    /// Its version, for display.
    pub version: Arc<str>,
    /// The message, encoded.
    pub bytes: Arc<[u8]>,
    /// From the bootstrap file: it is never removed.
    pub fixed: bool,
}

/// One resource by name: in force, warming, or both.
struct Warm<W, A> {
    active: Option<Arc<A>>,
    warming: Option<Arc<W>>,
    fixed: bool,
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

/// All listeners and clusters, in force or warming.
pub struct Manager {
    /// Routes, endpoints and secrets that are referred to.
    pub references: References,
    listeners: BTreeMap<Arc<str>, Warm<ActiveListener, ActiveListener>>,
    clusters: BTreeMap<Arc<str>, Warm<Cluster, ClusterShared>>,
    /// Of names of endpoints.
    pub lookups: Lookups,
    /// Where this proxy is among its kind.
    zone: Option<Arc<LocalZone>>,
    workers: usize,
    dump: Arc<Dump>,
    published: watch::Sender<Arc<Snapshot>>,
}

impl Manager {
    /// Nothing in force yet. Each listener gets a socket for each of `workers`.
    pub fn new(dump: Arc<Dump>, stats: Stats, workers: usize) -> Self {
        Manager {
            references: References::new(dump.clone()),
            listeners: BTreeMap::new(),
            clusters: BTreeMap::new(),
            lookups: Lookups::new(stats),
            zone: None,
            workers,
            dump,
            published: watch::Sender::new(Arc::default()),
        }
    }

    /// Where snapshots appear.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.published.subscribe()
    }

    /// Routes by zone from now on: `local` is the cluster of the bootstrap (which has been taken)
    /// whose endpoints are the proxies of our kind, `locality` ours.
    ///
    /// # Errors
    /// There is no such cluster, or it has no endpoints that are listed.
    pub fn set_local_zone(&mut self, local: &str, locality: Arc<str>) -> Result<(), ConfigError> {
        let field = "cluster_manager.local_cluster_name";
        let entry = self.clusters.get(local).filter(|entry| entry.fixed);
        let cluster = entry.and_then(|entry| entry.warming.as_ref());
        let Some(cluster) = cluster else {
            let reason = format!("static_resources.clusters has no cluster `{local}`");
            return Err(ConfigError::new(field, reason));
        };
        let ClusterDiscovery::Assignment { slot, .. } = &cluster.discovery else {
            let reason = format!("the endpoints of the cluster `{local}` are not listed");
            return Err(ConfigError::new(field, reason));
        };
        self.zone = Some(Arc::new(LocalZone {
            cluster: cluster.name.clone(),
            locality,
            proxies: slot.clone(),
        }));
        Ok(())
    }

    /// Takes a new or changed resource. What refers to it may have to be warmed next: call
    /// [`Manager::advance`] after a whole response.
    ///
    /// # Errors
    /// Why it is refused; the one before it stays in force.
    pub fn accept(
        &mut self,
        kind: ResourceType,
        origin: OriginKey,
        incoming: &Incoming,
    ) -> Result<(), ConfigError> {
        let outcome = match kind {
            ResourceType::Cluster => self.accept_cluster(incoming),
            ResourceType::Listener => self.accept_listener(incoming),
            ResourceType::Route => self.accept_route(origin, incoming),
            ResourceType::Endpoint => self.accept_endpoints(origin, incoming),
            ResourceType::Secret => self.accept_secret(origin, incoming),
        };
        if let Err(error) = &outcome {
            self.dump.refused(
                dump_kind(kind),
                &incoming.name,
                &incoming.version,
                error.to_string(),
            );
        }
        outcome
    }

    fn accept_cluster(&mut self, incoming: &Incoming) -> Result<(), ConfigError> {
        let cluster = Arc::new(build::cluster(&incoming.bytes, &self.references)?);
        let entry = self.clusters.entry(incoming.name.clone()).or_default();
        if entry.fixed && !incoming.fixed {
            return Err(ConfigError::new(
                "name",
                "the bootstrap file has a static cluster of this name",
            ));
        }
        entry.fixed = incoming.fixed;
        self.references.add_cluster(&incoming.name);
        let same = |present: &Cluster| present.fingerprint == cluster.fingerprint;
        if entry.warming.as_deref().map_or_else(
            || {
                entry
                    .active
                    .as_ref()
                    .is_some_and(|active| same(&active.config))
            },
            same,
        ) {
            return Ok(());
        }
        entry.warming = Some(cluster);
        self.note(Kind::Cluster, incoming);
        Ok(())
    }

    fn accept_listener(&mut self, incoming: &Incoming) -> Result<(), ConfigError> {
        let mut listener = build::listener(&incoming.bytes, &self.references)?;
        self.check_addresses(&incoming.name, &listener)?;
        let entry = self.listeners.entry(incoming.name.clone()).or_default();
        if entry.fixed && !incoming.fixed {
            return Err(ConfigError::new(
                "name",
                "the bootstrap file has a static listener of this name",
            ));
        }
        entry.fixed = incoming.fixed;
        let latest = entry.warming.as_deref().or(entry.active.as_deref());
        if latest.is_some_and(|latest| latest.config.fingerprint == listener.fingerprint) {
            return Ok(());
        }
        if let Some(latest) = latest {
            listener.keep_chains(&latest.config);
        }
        // The bootstrap's own get their sockets when all of it has been found good.
        let workers = if incoming.fixed { 0 } else { self.workers };
        let bound = ActiveListener::bind(Arc::new(listener), latest, workers, false);
        entry.warming = Some(bound.map_err(|error| ConfigError::new("address", error))?);
        self.note(Kind::Listener, incoming);
        Ok(())
    }

    /// Gives the bootstrap's own listeners their sockets.
    ///
    /// # Errors
    /// The listener, and the address that cannot be had.
    pub fn bind_fixed(&mut self) -> Result<(), ConfigError> {
        for (name, entry) in self.listeners.iter_mut().filter(|(_, entry)| entry.fixed) {
            if let Some(listener) = entry.warming.take() {
                let bound = ActiveListener::bind(listener.config.clone(), None, self.workers, true);
                let bound = bound.map_err(|error| {
                    ConfigError::new(format_args!("listeners[{name}].address"), error)
                })?;
                entry.warming = Some(bound);
            }
        }
        Ok(())
    }

    /// Sockets of two listeners would share an address without a word (SO_REUSEPORT).
    fn check_addresses(&self, name: &Arc<str>, listener: &Listener) -> Result<(), ConfigError> {
        for (other, entry) in self.listeners.iter().filter(|(other, _)| *other != name) {
            for taken in entry
                .warming
                .iter()
                .chain(&entry.active)
                .flat_map(|taken| taken.addresses())
            {
                let wants = listener.addresses.iter().any(|a| a.address == taken);
                if listener.bind_to_port && taken.port() != Some(0) && wants {
                    let reason = format!("{taken} belongs to the listener `{other}` already");
                    return Err(ConfigError::new("address", reason));
                }
            }
        }
        Ok(())
    }

    fn accept_route(&mut self, origin: OriginKey, incoming: &Incoming) -> Result<(), ConfigError> {
        let table = build::route_table(&incoming.bytes, &self.references)?;
        let present = self.references.present_route(origin, &incoming.name);
        if present.is_none_or(|present| present.fingerprint != table.fingerprint)
            && self
                .references
                .fill_route(origin, &incoming.name, Some(Arc::new(table)))
        {
            self.note(Kind::Routes, incoming);
        }
        Ok(())
    }

    fn accept_endpoints(
        &mut self,
        origin: OriginKey,
        incoming: &Incoming,
    ) -> Result<(), ConfigError> {
        let assignment = build::load_assignment(&incoming.bytes)?;
        if self
            .references
            .fill_endpoints(origin, &incoming.name, Some(Arc::new(assignment)))
        {
            self.note(Kind::Endpoints, incoming);
        }
        Ok(())
    }

    fn accept_secret(&mut self, origin: OriginKey, incoming: &Incoming) -> Result<(), ConfigError> {
        let built = build::secret(&incoming.bytes)?;
        if incoming.fixed {
            self.references.add_static_secret(&incoming.name, built);
            self.note(Kind::Secret, incoming);
            return Ok(());
        }
        if self
            .references
            .fill_secret(origin, &incoming.name, Some(Arc::new(built.secret)))
        {
            if let Some(files) = built.files {
                self.references.watch_files(origin, &incoming.name, files);
            }
            self.note(Kind::Secret, incoming);
        }
        Ok(())
    }

    fn note(&self, kind: Kind, incoming: &Incoming) {
        let state = match kind {
            _ if incoming.fixed => State::Static,
            Kind::Cluster | Kind::Listener => State::Warming,
            _ => State::Active,
        };
        self.dump.accepted(
            kind,
            &incoming.name,
            &incoming.version,
            &incoming.bytes,
            state,
        );
    }

    /// A resource is gone, or (routes, endpoints, secrets) does not exist: who waits for it waits no
    /// longer. What is in use of those stays, since servers drop them only with what refers to them.
    pub fn remove(&mut self, kind: ResourceType, origin: OriginKey, name: &Arc<str>) {
        match kind {
            ResourceType::Cluster if self.clusters.get(name).is_some_and(|entry| !entry.fixed) => {
                self.clusters.remove(name);
                self.references.remove_cluster(name);
            }
            ResourceType::Listener
                if self.listeners.get(name).is_some_and(|entry| !entry.fixed) =>
            {
                self.listeners.remove(name);
            }
            ResourceType::Cluster | ResourceType::Listener => return,
            ResourceType::Route => {
                self.references.fill_route(origin, name, None);
            }
            ResourceType::Endpoint => {
                self.references.fill_endpoints(origin, name, None);
            }
            // A secret that is withdrawn stays in use: no handshake is better than none at all only
            // once its certificate has expired, and that the peers see for themselves.
            ResourceType::Secret => return self.references.secret_is_missing(origin, name),
        }
        self.dump.removed(dump_kind(kind), name);
    }

    /// The clusters of the bootstrap file, by which servers are reached.
    pub fn fixed_clusters(&self) -> BTreeMap<Arc<str>, Arc<Cluster>> {
        let fixed = self.clusters.iter().filter(|(_, entry)| entry.fixed);
        fixed
            .filter_map(|(name, entry)| {
                let active = entry.active.as_ref().map(|active| &active.config);
                Some((name.clone(), entry.warming.as_ref().or(active)?.clone()))
            })
            .collect()
    }

    /// Puts into force what is warm, clusters first, and publishes if anything changed.
    pub fn advance(&mut self, now: Instant) {
        let references = &self.references;
        references.expire_endpoints(now);
        for (name, entry) in &mut self.clusters {
            if let Some(cluster) = &entry.warming {
                self.lookups.start(cluster);
            }
            if let Some(cluster) = entry
                .warming
                .take_if(|cluster| !awaits_cluster(references, cluster, now))
            {
                entry.active = Some(match &entry.active {
                    Some(before) => before.updated(cluster),
                    None => ClusterShared::zoned(cluster, self.zone.clone()),
                });
                self.dump.warmed(Kind::Cluster, name);
            }
        }
        for (name, entry) in &mut self.listeners {
            if let Some(listener) = entry
                .warming
                .take_if(|l| !awaits_listener(references, &l.config, now))
            {
                if let Err(error) = listener.listen() {
                    tracing::error!(listener = %name, %error, "stays as it was");
                    let error = ConfigError::new("address", error).to_string();
                    self.dump.refused(Kind::Listener, name, &"".into(), error);
                    continue;
                }
                entry.active = Some(listener);
                self.dump.warmed(Kind::Listener, name);
            }
        }
        self.publish();
    }

    fn publish(&self) {
        let clusters: BTreeMap<_, _> = self
            .clusters
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.active.clone()?)))
            .collect();
        let listeners: BTreeMap<_, _> = self
            .listeners
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.active.clone()?)))
            .collect();
        self.published.send_if_modified(|present| {
            let same = same(&present.clusters, &clusters) && same(&present.listeners, &listeners);
            if !same {
                *present = Arc::new(Snapshot {
                    listeners: Arc::new(listeners),
                    clusters: Arc::new(clusters),
                });
            }
            !same
        });
    }

    /// What still warms: names of clusters, names of listeners.
    pub fn warming(&self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let clusters = self
            .clusters
            .iter()
            .filter(|(_, entry)| entry.warming.is_some());
        let listeners = self
            .listeners
            .iter()
            .filter(|(_, entry)| entry.warming.is_some());
        (
            clusters.map(|(name, _)| name.clone()).collect(),
            listeners.map(|(name, _)| name.clone()).collect(),
        )
    }
}

fn same<T>(one: &BTreeMap<Arc<str>, Arc<T>>, two: &BTreeMap<Arc<str>, Arc<T>>) -> bool {
    one.len() == two.len()
        && one
            .iter()
            .zip(two)
            .all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(a.1, b.1))
}

fn dump_kind(kind: ResourceType) -> Kind {
    match kind {
        ResourceType::Cluster => Kind::Cluster,
        ResourceType::Endpoint => Kind::Endpoints,
        ResourceType::Listener => Kind::Listener,
        ResourceType::Route => Kind::Routes,
        ResourceType::Secret => Kind::Secret,
    }
}

/// A cluster is warm with its endpoints and its secrets.
fn awaits_cluster(references: &References, cluster: &Cluster, now: Instant) -> bool {
    let endpoints = match &cluster.discovery {
        ClusterDiscovery::Assignment {
            slot,
            source: AssignmentSource::Dns(dns),
        } => dns.wait && !slot.is_filled(),
        ClusterDiscovery::Assignment { slot, .. } => references.awaits_endpoints(slot, now),
        ClusterDiscovery::OriginalDestination => false,
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
fn awaits_listener(references: &References, listener: &Listener, now: Instant) -> bool {
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
