//! Listeners and clusters on their way into force: built, warmed, published.
//!
//! No I/O happens here: updates, removals and the time come in, snapshots and wanted names go out.
//! The rules are those of the xDS protocol: a bad resource is refused by name and the last good one
//! stays; the old one serves until the new one is warm; an equal one is a no-op.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outrider_xds::ads::ResourceType;
use tokio::sync::watch;
use tokio::time::Instant;

use super::dns::Lookups;
use super::dump::{Dump, Kind, State};
use super::references::{OriginKey, References};
use super::slot::Slot;
use super::stats::ManagerStats;
use super::validity::Validity;
use super::warming::{self, Subjects, Warm, awaits_cluster, awaits_listener};
use crate::config::build::Within as _;
use crate::config::build::resource as build;
use crate::config::cluster::{Cluster, ClusterDiscovery, LocalZone};
use crate::config::endpoint::LoadAssignment;
use crate::config::error::ConfigError;
use crate::config::listener::Listener;
use crate::listener::binding::ActiveListener;
use crate::runtime::snapshot::Snapshot;
use crate::runtime_layer::layers::{LayerKind, LayerSource};
use crate::runtime_layer::of_process;
use crate::runtime_layer::store::Values;
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
    /// Layers of the runtime that servers have, by their names in the bootstrap.
    layers: Vec<(String, Arc<Slot<Values>>)>,
    /// Of clusters whose endpoints hold for some time only.
    validity: Validity,
    workers: usize,
    dump: Arc<Dump>,
    stats: ManagerStats,
    published: watch::Sender<Arc<Snapshot>>,
}

impl Manager {
    /// Nothing in force yet. Each listener gets a socket for each of `workers`.
    pub fn new(dump: Arc<Dump>, stats: Stats, workers: usize) -> Self {
        Manager {
            references: References::new(dump.clone()),
            listeners: BTreeMap::new(),
            clusters: BTreeMap::new(),
            stats: ManagerStats::new(&stats),
            lookups: Lookups::new(stats.clone()),
            zone: None,
            layers: Vec::new(),
            validity: Validity::new(stats),
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
            ResourceType::Runtime => self.accept_layer(origin, incoming),
        };
        if let (Err(error), Some(kind)) = (&outcome, dump_kind(kind)) {
            self.dump
                .refused(kind, &incoming.name, &incoming.version, error.to_string());
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
        self.stats.clusters.accepted(entry.is_new());
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
        let is_new = latest.is_none();
        // The bootstrap's own get their sockets when all of it has been found good.
        let workers = if incoming.fixed { 0 } else { self.workers };
        let bound = ActiveListener::bind(Arc::new(listener), latest, workers, false);
        let bound = bound.map_err(|error| {
            self.stats.listener_create_failure.increment(1);
            ConfigError::new("address", error)
        })?;
        entry.warming = Some(bound);
        self.stats.listeners.accepted(is_new);
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
            let shares =
                |taken: &&Arc<ActiveListener>| taken.config.udp.is_some() == listener.udp.is_some();
            for taken in entry
                .warming
                .iter()
                .chain(&entry.active)
                .filter(shares)
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
        if assignment.stale_after.is_some()
            && let Some(slot) = self.references.endpoints(origin, &incoming.name)
        {
            let having = self.having(&slot);
            self.validity.limited(having);
        }
        if self
            .references
            .fill_endpoints(origin, &incoming.name, Some(Arc::new(assignment)))
        {
            self.note(Kind::Endpoints, incoming);
        }
        Ok(())
    }

    /// The clusters that have these endpoints.
    fn having(&self, endpoints: &Arc<Slot<LoadAssignment>>) -> Vec<Arc<Cluster>> {
        let latest = self.clusters.values().filter_map(|entry| {
            let active = entry.active.as_ref().map(|active| &active.config);
            entry.warming.as_ref().or(active)
        });
        let having = latest.filter(|cluster| match &cluster.discovery {
            ClusterDiscovery::Assignment { slot, .. } => Arc::ptr_eq(slot, endpoints),
            ClusterDiscovery::OriginalDestination
            | ClusterDiscovery::Aggregate(_)
            | ClusterDiscovery::Names(_) => false,
        });
        having.cloned().collect()
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

    fn accept_layer(&mut self, origin: OriginKey, incoming: &Incoming) -> Result<(), ConfigError> {
        let values = build::runtime_layer(&incoming.bytes)?;
        self.references
            .fill_layer(origin, &incoming.name, Some(Arc::new(values)));
        self.apply_layers(&incoming.name);
        Ok(())
    }

    /// Has the runtime take over what a server says of its layers.
    fn apply_layers(&self, resource: &str) {
        for (layer, slot) in &self.layers {
            let values = slot.load().map(|values| (*values).clone());
            if &**slot.name() == resource
                && let Err(error) = of_process().replace(layer, values.unwrap_or_default())
            {
                tracing::warn!(%error, "a layer of the runtime cannot be replaced");
            }
        }
    }

    /// Asks for the layers of the runtime that servers have.
    ///
    /// # Errors
    /// A server that cannot be asked.
    pub fn subscribe_layers(&mut self, layers: &[LayerSource]) -> Result<(), ConfigError> {
        for (index, LayerSource { name, kind }) in layers.iter().enumerate() {
            if let LayerKind::Discovered { resource, source } = kind {
                let slot = self.references.layer_slot(resource, source);
                let path = format_args!("layered_runtime.layers[{index}].rtds_layer.rtds_config");
                self.layers.push((name.clone(), slot.within(path)?));
            }
        }
        Ok(())
    }

    /// Whether a layer of the runtime is still waited for: until it is there, routes would be taken
    /// by other values than those of their operator.
    pub fn awaits_layers(&self, now: Instant) -> bool {
        let mut slots = self.layers.iter().map(|(_, slot)| slot);
        slots.any(|slot| self.references.awaits_layer(slot, now))
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
                self.validity.remove(name);
                self.references.remove_cluster(name);
                self.stats.clusters.removed.increment(1);
            }
            ResourceType::Listener
                if self.listeners.get(name).is_some_and(|entry| !entry.fixed) =>
            {
                self.listeners.remove(name);
                self.stats.listeners.removed.increment(1);
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
            ResourceType::Runtime => {
                self.references.fill_layer(origin, name, None);
                self.apply_layers(name);
            }
        }
        if let Some(kind) = dump_kind(kind) {
            self.dump.removed(kind, name);
        }
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
        for slot in self.references.expire_endpoints(now) {
            let having = self.having(&slot);
            self.validity.ended(having);
        }
        let references = &self.references;
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
        let held = self.awaits_layers(now);
        for (name, entry) in &mut self.listeners {
            if let Some(listener) = entry
                .warming
                .take_if(|l| !held && !awaits_listener(references, &l.config, now))
            {
                if let Err(error) = listener.listen() {
                    self.stats.listener_create_failure.increment(1);
                    tracing::error!(listener = %name, %error, "stays as it was");
                    let error = ConfigError::new("address", error).to_string();
                    self.dump.refused(Kind::Listener, name, &"".into(), error);
                    continue;
                }
                match &entry.active {
                    Some(_) => self.stats.listener_in_place_updated.increment(1),
                    // As in Envoy it is counted for each worker that takes it.
                    None => self
                        .stats
                        .listener_create_success
                        .increment(self.workers as u64),
                }
                entry.active = Some(listener);
                self.dump.warmed(Kind::Listener, name);
            }
        }
        self.stats.clusters.there(self.clusters.values());
        self.stats.listeners.there(self.listeners.values());
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

    /// Whose statistics tell of the resources of a kind, by the names of these.
    pub fn subjects(&self, kind: ResourceType, names: &BTreeSet<Arc<str>>) -> Subjects {
        let clusters = self.clusters.values().flat_map(|entry| {
            let active = entry.active.as_ref().map(|active| &active.config);
            entry.warming.iter().chain(active).map(Arc::as_ref)
        });
        let listeners = self.listeners.values();
        let listeners = listeners.flat_map(|entry| entry.warming.iter().chain(&entry.active));
        let listeners = listeners.map(|listener| &*listener.config);
        warming::subjects(kind, names, clusters, listeners)
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

/// Runtime layers are shown by `/runtime`.
fn dump_kind(kind: ResourceType) -> Option<Kind> {
    match kind {
        ResourceType::Cluster => Some(Kind::Cluster),
        ResourceType::Endpoint => Some(Kind::Endpoints),
        ResourceType::Listener => Some(Kind::Listener),
        ResourceType::Route => Some(Kind::Routes),
        ResourceType::Secret => Some(Kind::Secret),
        ResourceType::Runtime => None,
    }
}
