//! What resources refer to each other by name: the slots that wait to be filled, who is asked for
//! them, and for how long warming waits.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use outrider_xds::ads::ResourceType;
use tokio::time::Instant;

use super::dump::Dump;
use super::slot::Slot;
use super::sources::Check;
use crate::config::build::context::{Context, LocalNode};
use crate::config::build::secret::{Built, SecretFiles};
use crate::config::cluster::BindConfig;
use crate::config::dns::LookupSettings;
use crate::config::dynamic_forward_proxy::CacheSettings;
use crate::config::endpoint::LoadAssignment;
use crate::config::error::{ConfigError, Result};
use crate::config::route::RouteTable;
use crate::config::secret::Secret;
use crate::config::source::{Origin, ResourceSource};
use crate::runtime_layer::store::Values;

/// An [`Origin`] by its place in the list of those that were ever named.
pub type OriginKey = usize;

/// Names that are wanted, by who is asked and of which kind.
pub type Wanted = BTreeMap<(OriginKey, ResourceType), BTreeSet<Arc<str>>>;

/// All references to routes, endpoints and secrets. Slots are held weakly: what no listener or
/// cluster refers to any more is no longer wanted.
pub struct References {
    origins: RefCell<Vec<Origin>>,
    routes: Table<RouteTable>,
    endpoints: Table<LoadAssignment>,
    secrets: Table<Secret>,
    layers: Table<Values>,
    static_secrets: RefCell<BTreeMap<Arc<str>, Arc<Slot<Secret>>>>,
    file_secrets: RefCell<Vec<FileSecret>>,
    default_bind: RefCell<Option<BindConfig>>,
    default_lookup: RefCell<LookupSettings>,
    dns_caches: RefCell<BTreeMap<Box<str>, Weak<CacheSettings>>>,
    node: RefCell<LocalNode>,
    /// Names of clusters, for route tables that may name no others.
    clusters: RefCell<BTreeSet<Arc<str>>>,
    /// `None` while the bootstrap's own resources are taken, which say what can be asked.
    check: RefCell<Option<Check>>,
    dump: Arc<Dump>,
}

/// A name that was waited for in vain, by who was asked and its kind.
pub type Missed = (OriginKey, ResourceType, Arc<str>);

/// A slot that is filled from files, and how to fill it again.
pub type FileSecret = (Weak<Slot<Secret>>, SecretFiles);

impl Context for References {
    fn route_slot(&self, name: &str, source: &ResourceSource) -> Result<Arc<Slot<RouteTable>>> {
        Ok(self.routes.slot(self.asked(source)?, name, source).0)
    }

    fn secret_slot(
        &self,
        name: &str,
        source: Option<&ResourceSource>,
    ) -> Result<Arc<Slot<Secret>>> {
        let Some(source) = source else {
            return self
                .static_secrets
                .borrow()
                .get(name)
                .cloned()
                .ok_or_else(|| {
                    ConfigError::new(
                        "",
                        format_args!("static_resources.secrets has no secret `{name}`"),
                    )
                });
        };
        let (slot, new) = self.secrets.slot(self.asked(source)?, name, source);
        if new {
            self.dump.watch_secret(&slot);
        }
        Ok(slot)
    }

    fn endpoint_slot(
        &self,
        name: &str,
        source: &ResourceSource,
    ) -> Result<Arc<Slot<LoadAssignment>>> {
        Ok(self.endpoints.slot(self.asked(source)?, name, source).0)
    }

    fn file_secret(&self, files: SecretFiles, secret: Secret) -> Arc<Slot<Secret>> {
        let slot = Slot::filled("", Arc::new(secret));
        self.dump.watch_secret(&slot);
        self.file_secrets
            .borrow_mut()
            .push((Arc::downgrade(&slot), files));
        slot
    }

    fn inline_secret(&self, secret: Secret) -> Arc<Slot<Secret>> {
        let slot = Slot::filled("", Arc::new(secret));
        self.dump.watch_secret(&slot);
        slot
    }

    fn has_cluster(&self, name: &str) -> bool {
        self.clusters.borrow().contains(name)
    }

    fn node(&self) -> LocalNode {
        self.node.borrow().clone()
    }

    fn default_bind(&self) -> Option<BindConfig> {
        self.default_bind.borrow().clone()
    }

    fn dns_cache(&self, settings: CacheSettings) -> Result<Arc<CacheSettings>> {
        let mut caches = self.dns_caches.borrow_mut();
        caches.retain(|_, held| held.strong_count() > 0);
        match caches.get(&settings.name).and_then(Weak::upgrade) {
            Some(held) if *held == settings => Ok(held),
            Some(_) => Err(ConfigError::new(
                "",
                format_args!(
                    "the cache `{}` is in use with other settings: give the same in each cluster \
                     and filter that name it, or rename it in all of them",
                    settings.name
                ),
            )),
            None => {
                let new = Arc::new(settings);
                caches.insert(new.name.clone(), Arc::downgrade(&new));
                Ok(new)
            }
        }
    }

    fn default_lookup(&self) -> LookupSettings {
        self.default_lookup.borrow().clone()
    }
}

impl References {
    /// No references yet.
    pub fn new(dump: Arc<Dump>) -> Self {
        References {
            origins: RefCell::default(),
            routes: Table::default(),
            endpoints: Table::default(),
            secrets: Table::default(),
            layers: Table::default(),
            static_secrets: RefCell::default(),
            file_secrets: RefCell::default(),
            default_bind: RefCell::default(),
            default_lookup: RefCell::default(),
            dns_caches: RefCell::default(),
            node: RefCell::default(),
            clusters: RefCell::default(),
            check: RefCell::default(),
            dump,
        }
    }

    /// Refuses from now on what names an origin that cannot be asked.
    ///
    /// # Errors
    /// Such an origin is named already.
    pub fn set_check(&self, check: Check) -> Result<()> {
        for (key, _) in self.wanted().keys() {
            if let Some(origin) = self.origin(*key) {
                check(&origin).map_err(|error| ConfigError::new("config_source", error))?;
            }
        }
        self.check.replace(Some(check));
        Ok(())
    }

    /// The key of the origin of a reference.
    fn asked(&self, source: &ResourceSource) -> Result<OriginKey> {
        if let Some(check) = &*self.check.borrow() {
            check(&source.origin).map_err(|error| ConfigError::new("", error))?;
        }
        Ok(self.key(&source.origin))
    }

    /// The key of an origin.
    pub fn key(&self, origin: &Origin) -> OriginKey {
        let mut origins = self.origins.borrow_mut();
        origins
            .iter()
            .position(|known| known == origin)
            .unwrap_or_else(|| {
                origins.push(origin.clone());
                origins.len() - 1
            })
    }

    /// The origin of a key.
    pub fn origin(&self, key: OriginKey) -> Option<Origin> {
        self.origins.borrow().get(key).cloned()
    }

    /// A discovered secret is made of files: they are to be watched.
    pub fn watch_files(&self, origin: OriginKey, name: &str, files: SecretFiles) {
        if let Some(slot) = self.secrets.find(origin, name) {
            self.file_secrets
                .borrow_mut()
                .push((Arc::downgrade(&slot), files));
        }
    }

    /// Takes the secrets that come from files and are not watched yet.
    pub fn take_file_secrets(&self) -> Vec<FileSecret> {
        self.file_secrets.take()
    }

    /// Says who this proxy is, before the first resource is taken.
    pub fn set_node(&self, node: LocalNode) {
        self.node.replace(node);
    }

    /// Notes that there is a cluster.
    pub fn add_cluster(&self, name: &Arc<str>) {
        self.clusters.borrow_mut().insert(Arc::clone(name));
    }

    /// Notes that there is no such cluster any more.
    pub fn remove_cluster(&self, name: &str) {
        self.clusters.borrow_mut().remove(name);
    }

    /// `cluster_manager.upstream_bind_config`
    pub fn set_default_bind(&self, bind: Option<BindConfig>) {
        self.default_bind.replace(bind);
    }

    /// `typed_dns_resolver_config` of the bootstrap.
    pub fn set_default_lookup(&self, lookup: LookupSettings) {
        self.default_lookup.replace(lookup);
    }

    /// Adds a secret of the bootstrap.
    pub fn add_static_secret(&self, name: &Arc<str>, built: Built) {
        let slot = Slot::filled(name.clone(), Arc::new(built.secret));
        self.dump.watch_secret(&slot);
        if let Some(files) = built.files {
            self.file_secrets
                .borrow_mut()
                .push((Arc::downgrade(&slot), files));
        }
        self.static_secrets.borrow_mut().insert(name.clone(), slot);
    }

    /// Fills the route table of that name; says whether anybody refers to it.
    pub fn fill_route(
        &self,
        origin: OriginKey,
        name: &str,
        value: Option<Arc<RouteTable>>,
    ) -> bool {
        self.routes.fill(origin, name, value)
    }

    /// Fills the endpoints of that name.
    pub fn fill_endpoints(
        &self,
        origin: OriginKey,
        name: &str,
        value: Option<Arc<LoadAssignment>>,
    ) -> bool {
        let expiry = value.as_ref().and_then(|value| value.stale_after);
        let expiry = expiry.map(|after| Instant::now() + after);
        self.endpoints.fill(origin, name, value) && self.endpoints.expires(origin, name, expiry)
    }

    /// Takes the endpoints away whose time is over (`endpoint_stale_after`), and says whose.
    pub fn expire_endpoints(&self, now: Instant) -> Vec<Arc<Slot<LoadAssignment>>> {
        let expired = self.endpoints.take_expired(now);
        for slot in &expired {
            slot.set(Some(Arc::default()));
        }
        expired
    }

    /// The slot of the endpoints of that name.
    pub fn endpoints(&self, origin: OriginKey, name: &str) -> Option<Arc<Slot<LoadAssignment>>> {
        self.endpoints.find(origin, name)
    }

    /// Fills the secret of that name.
    pub fn fill_secret(&self, origin: OriginKey, name: &str, value: Option<Arc<Secret>>) -> bool {
        self.secrets.fill(origin, name, value)
    }

    /// The slot of a layer of the runtime (RTDS).
    ///
    /// # Errors
    /// The source cannot be asked.
    pub fn layer_slot(&self, name: &str, source: &ResourceSource) -> Result<Arc<Slot<Values>>> {
        Ok(self.layers.slot(self.asked(source)?, name, source).0)
    }

    /// Fills the runtime layer of that name.
    pub fn fill_layer(&self, origin: OriginKey, name: &str, value: Option<Arc<Values>>) -> bool {
        self.layers.fill(origin, name, value)
    }

    /// Whether a layer is still waited for at `now`.
    pub fn awaits_layer(&self, slot: &Arc<Slot<Values>>, now: Instant) -> bool {
        self.layers.awaits(slot, now)
    }

    /// There is no secret of that name: who has none waits no longer, who has one keeps it.
    pub fn secret_is_missing(&self, origin: OriginKey, name: &str) {
        self.secrets.miss(origin, name);
    }

    /// The present value of a route table, to tell an equal one.
    pub fn present_route(&self, origin: OriginKey, name: &str) -> Option<Arc<RouteTable>> {
        self.routes.find(origin, name)?.load()
    }

    /// Whether warming still waits for this slot at `now`.
    pub fn awaits_route(&self, slot: &Arc<Slot<RouteTable>>, now: Instant) -> bool {
        self.routes.awaits(slot, now)
    }

    /// Whether warming still waits for this slot at `now`.
    pub fn awaits_endpoints(&self, slot: &Arc<Slot<LoadAssignment>>, now: Instant) -> bool {
        self.endpoints.awaits(slot, now)
    }

    /// Whether warming still waits for this slot at `now`.
    pub fn awaits_secret(&self, slot: &Arc<Slot<Secret>>, now: Instant) -> bool {
        self.secrets.awaits(slot, now)
    }

    /// When the next wait or validity ends.
    pub fn next_patience(&self, now: Instant) -> Option<Instant> {
        [
            self.layers.next_patience(now),
            self.routes.next_patience(now),
            self.endpoints.next_patience(now),
            self.secrets.next_patience(now),
            self.endpoints.next_expiry(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What was waited for in vain until `now`, each told once.
    pub fn give_up(&self, now: Instant) -> Vec<Missed> {
        let mut missed = Vec::new();
        let mut add = |kind, names: Vec<(OriginKey, Arc<str>)>| {
            let each = names.into_iter();
            missed.extend(each.map(|(origin, name)| (origin, kind, name)));
        };
        add(ResourceType::Runtime, self.layers.given_up(now));
        add(ResourceType::Route, self.routes.given_up(now));
        add(ResourceType::Endpoint, self.endpoints.given_up(now));
        add(ResourceType::Secret, self.secrets.given_up(now));
        missed
    }

    /// Everything that something refers to, and forgets the rest.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new();
        self.layers.collect(ResourceType::Runtime, &mut wanted);
        self.routes.collect(ResourceType::Route, &mut wanted);
        self.endpoints.collect(ResourceType::Endpoint, &mut wanted);
        self.secrets.collect(ResourceType::Secret, &mut wanted);
        wanted
    }
}

struct Reference<T> {
    slot: Weak<Slot<T>>,
    /// When warming gives up waiting; `None` never.
    patience: Option<Instant>,
    /// The server said that there is no such resource.
    missing: bool,
    /// When its value stops to hold unless it comes again; `None` never.
    expiry: Option<Instant>,
}

/// The references to one kind.
struct Table<T>(RefCell<ByName<T>>);

/// Who is asked and for what name, to what is known of it.
type ByName<T> = BTreeMap<(OriginKey, Arc<str>), Reference<T>>;

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(RefCell::default())
    }
}

impl<T> Table<T> {
    /// The slot of that name, and whether it is new.
    fn slot(&self, origin: OriginKey, name: &str, source: &ResourceSource) -> (Arc<Slot<T>>, bool) {
        let mut table = self.0.borrow_mut();
        let key = (origin, Arc::from(name));
        if let Some(slot) = table
            .get(&key)
            .and_then(|reference| reference.slot.upgrade())
        {
            return (slot, false);
        }
        let slot = Slot::empty(key.1.clone());
        let patience = source
            .initial_fetch_timeout
            .map(|timeout| Instant::now() + timeout);
        table.insert(
            key,
            Reference {
                slot: Arc::downgrade(&slot),
                patience,
                missing: false,
                expiry: None,
            },
        );
        (slot, true)
    }

    fn fill(&self, origin: OriginKey, name: &str, value: Option<Arc<T>>) -> bool {
        let mut table = self.0.borrow_mut();
        let Some(reference) = table.get_mut(&(origin, Arc::from(name))) else {
            return false;
        };
        let Some(slot) = reference.slot.upgrade() else {
            return false;
        };
        reference.missing = value.is_none();
        slot.set(value);
        true
    }

    /// Says when the value that was just filled in stops to hold.
    fn expires(&self, origin: OriginKey, name: &str, expiry: Option<Instant>) -> bool {
        let mut table = self.0.borrow_mut();
        let reference = table.get_mut(&(origin, Arc::from(name)));
        reference.is_some_and(|reference| {
            reference.expiry = expiry;
            true
        })
    }

    fn next_expiry(&self) -> Option<Instant> {
        let table = self.0.borrow();
        table.values().filter_map(|r| r.expiry).min()
    }

    /// The slots whose values hold no longer.
    fn take_expired(&self, now: Instant) -> Vec<Arc<Slot<T>>> {
        let mut table = self.0.borrow_mut();
        let over = table
            .values_mut()
            .filter_map(|r| r.expiry.take_if(|at| *at <= now).map(|_| &r.slot));
        over.filter_map(Weak::upgrade).collect()
    }

    fn miss(&self, origin: OriginKey, name: &str) {
        let mut table = self.0.borrow_mut();
        if let Some(reference) = table.get_mut(&(origin, Arc::from(name))) {
            reference.missing = true;
        }
    }

    fn find(&self, origin: OriginKey, name: &str) -> Option<Arc<Slot<T>>> {
        self.0
            .borrow()
            .get(&(origin, Arc::from(name)))?
            .slot
            .upgrade()
    }

    fn awaits(&self, slot: &Arc<Slot<T>>, now: Instant) -> bool {
        if slot.is_filled() {
            return false;
        }
        let table = self.0.borrow();
        let reference = table
            .values()
            .find(|reference| std::ptr::eq(reference.slot.as_ptr(), Arc::as_ptr(slot)));
        reference.is_some_and(|r| !r.missing && r.patience.is_none_or(|patience| now < patience))
    }

    fn next_patience(&self, now: Instant) -> Option<Instant> {
        let table = self.0.borrow();
        let waiting = table
            .values()
            .filter(|r| r.slot.upgrade().is_some_and(|slot| !slot.is_filled()));
        waiting
            .filter_map(|r| r.patience)
            .filter(|patience| *patience > now)
            .min()
    }

    /// The names that were waited for in vain; from now on they count as missing.
    fn given_up(&self, now: Instant) -> Vec<(OriginKey, Arc<str>)> {
        let mut table = self.0.borrow_mut();
        let expired = table.iter_mut().filter(|(_, reference)| {
            let in_vain = reference.patience.is_some_and(|patience| patience <= now);
            let slot = reference.slot.upgrade();
            in_vain && !reference.missing && slot.is_some_and(|slot| !slot.is_filled())
        });
        let names = expired.map(|(key, reference)| {
            reference.missing = true;
            key.clone()
        });
        names.collect()
    }

    fn collect(&self, kind: ResourceType, wanted: &mut Wanted) {
        let mut table = self.0.borrow_mut();
        table.retain(|_, reference| reference.slot.strong_count() > 0);
        for (origin, name) in table.keys() {
            wanted
                .entry((*origin, kind))
                .or_default()
                .insert(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn source(seconds: u64) -> ResourceSource {
        ResourceSource {
            origin: Origin::Ads,
            initial_fetch_timeout: Some(Duration::from_secs(seconds)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_refers_to_is_not_wanted() {
        let references = References::new(Arc::default());
        let route = references.route_slot("a", &source(15)).unwrap();
        let again = references.route_slot("a", &source(15)).unwrap();
        assert!(Arc::ptr_eq(&route, &again));
        let wanted = references.wanted();
        assert_eq!(
            wanted.keys().copied().collect::<Vec<_>>(),
            [(0, ResourceType::Route)]
        );
        drop((route, again));
        assert!(references.wanted().is_empty());
        assert!(!references.fill_route(0, "a", None));
    }

    #[test]
    fn caches_of_one_name_have_the_same_settings_for_as_long_as_they_are_held() {
        let references = References::new(Arc::default());
        let settings = |encoded: &str| CacheSettings {
            name: "a".into(),
            encoded: encoded.as_bytes().into(),
        };
        let of_cluster = references.dns_cache(settings("x")).unwrap();
        let of_filter = references.dns_cache(settings("x")).unwrap();
        assert!(Arc::ptr_eq(&of_cluster, &of_filter));
        assert!(references.dns_cache(settings("y")).is_err());
        drop(of_cluster);
        assert!(references.dns_cache(settings("y")).is_err());
        drop(of_filter);
        references.dns_cache(settings("y")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn warming_waits_until_its_patience_ends_or_the_server_says_no() {
        let references = References::new(Arc::default());
        let start = Instant::now();
        let endpoints = references.endpoint_slot("a", &source(15)).unwrap();
        assert!(references.awaits_endpoints(&endpoints, start));
        assert_eq!(
            references.next_patience(start),
            Some(start + Duration::from_secs(15))
        );
        assert!(!references.awaits_endpoints(&endpoints, start + Duration::from_secs(15)));
        let secret = references.secret_slot("b", Some(&source(15))).unwrap();
        assert!(references.awaits_secret(&secret, start));
        references.secret_is_missing(0, "b");
        assert!(!references.awaits_secret(&secret, start));
        assert!(references.secret_slot("b", None).is_err());
    }
}
