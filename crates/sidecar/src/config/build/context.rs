//! What a build needs from its surroundings: slots for what arrives later.

use std::sync::Arc;

use super::secret::SecretFiles;
use crate::config::cluster::BindConfig;
use crate::config::dns::LookupSettings;
use crate::config::dynamic_forward_proxy::CacheSettings;
use crate::config::endpoint::LoadAssignment;
#[cfg(any(test, feature = "fuzzing"))]
use crate::config::error::ConfigError;
use crate::config::error::Result;
use crate::config::route::RouteTable;
use crate::config::secret::Secret;
use crate::config::source::ResourceSource;
use crate::discovery::slot::Slot;

/// Hands out slots. Discovery implements it; `Detached` is for tests.
///
/// What an implementation owes, beyond the slot:
///
/// - The same name from the same source is the same slot for as long as anybody holds it, so a new
///   version of a listener finds the routes and secrets of the old one filled.
/// - A call subscribes (if nobody had), and does not wait: an empty slot is normal. Whoever
///   publishes the resource that was built waits until its slots are filled, or until
///   `initial_fetch_timeout` of the source has passed.
/// - Slots are held weakly. A resource that was built and thrown away (because a later field was
///   invalid, or because it was the same as before) leaves no subscription behind once its slots
///   are dropped; unsubscribing is put off a little, so that an update does not flap.
/// - It is called on the control thread only, and must not block.
///
/// Errors are for sources that cannot work at all, such as a cluster of that name that does not
/// exist; their path is empty, for the caller adds it.
pub trait Context {
    /// The slot of a route table (RDS). Only ADS and a gRPC source come in question here.
    ///
    /// # Errors
    ///
    /// The source cannot be asked for route tables.
    fn route_slot(&self, name: &str, source: &ResourceSource) -> Result<Arc<Slot<RouteTable>>>;

    /// The slot of a secret (SDS).
    ///
    /// - `None`: a static secret of the bootstrap, which must exist.
    /// - ADS: over the aggregated stream.
    /// - A gRPC source: a stream of its own to that cluster, shared by all secrets that name the
    ///   same source. The cluster `sds-grpc`, where no cluster of that name is configured, is the
    ///   built-in source: `default` is the workload's certificate, `ROOTCA` the trust bundle.
    /// - A file: a `DiscoveryResponse` with secrets, read now and again when it changes
    ///   (or when something is moved in its `watched_directory`). A bad new version is logged and
    ///   the old one stays.
    ///
    /// # Errors
    ///
    /// There is no such static secret, or the source cannot be asked for secrets.
    fn secret_slot(&self, name: &str, source: Option<&ResourceSource>)
    -> Result<Arc<Slot<Secret>>>;

    /// The slot of a cluster's endpoints (EDS). An assignment that is cached is kept, for a control
    /// plane need not send it again when the cluster changes.
    ///
    /// # Errors
    ///
    /// The source cannot be asked for endpoints.
    fn endpoint_slot(
        &self,
        service_name: &str,
        source: &ResourceSource,
    ) -> Result<Arc<Slot<LoadAssignment>>>;

    /// The slot of a secret that is defined in place by files: filled with `secret`, and again with
    /// [`SecretFiles::load`] whenever one of [`SecretFiles::watched`] changes, for as long as the
    /// slot is held. What cannot be loaded is logged and the old secret stays.
    fn file_secret(&self, files: SecretFiles, secret: Secret) -> Arc<Slot<Secret>>;

    /// The slot of a secret that is defined in place, by its bytes.
    fn inline_secret(&self, secret: Secret) -> Arc<Slot<Secret>> {
        Slot::filled("", Arc::new(secret))
    }

    /// Whether there is a cluster of this name, in force or warming.
    fn has_cluster(&self, _name: &str) -> bool {
        true
    }

    /// The bootstrap's `node`: its id and its cluster.
    fn node(&self) -> LocalNode {
        LocalNode::default()
    }

    /// The bootstrap's `cluster_manager.upstream_bind_config`.
    fn default_bind(&self) -> Option<BindConfig> {
        None
    }

    /// The settings of the DNS cache of a dynamic forward proxy, held by all who name it.
    ///
    /// # Errors
    /// Others name a cache of this name with other settings: which of them hold would be chance, and
    /// one that says what must not be connected to would protect nothing.
    fn dns_cache(&self, settings: CacheSettings) -> Result<Arc<CacheSettings>>;

    /// The bootstrap's resolver, for clusters that name none.
    fn default_lookup(&self) -> LookupSettings {
        LookupSettings::default()
    }
}

/// Who this proxy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalNode {
    /// `node.id`
    pub id: Arc<str>,
    /// `node.cluster`
    pub cluster: Arc<str>,
}

/// A context without discovery: slots stay empty, and files are read once.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Debug, Default)]
pub struct Detached;

#[cfg(any(test, feature = "fuzzing"))]
impl Context for Detached {
    fn route_slot(&self, name: &str, _: &ResourceSource) -> Result<Arc<Slot<RouteTable>>> {
        Ok(Slot::empty(name))
    }

    fn secret_slot(
        &self,
        name: &str,
        source: Option<&ResourceSource>,
    ) -> Result<Arc<Slot<Secret>>> {
        match source {
            Some(_) => Ok(Slot::empty(name)),
            None => Err(ConfigError::new(
                "",
                format_args!("there is no static secret `{name}`"),
            )),
        }
    }

    fn endpoint_slot(
        &self,
        service_name: &str,
        _: &ResourceSource,
    ) -> Result<Arc<Slot<LoadAssignment>>> {
        Ok(Slot::empty(service_name))
    }

    fn dns_cache(&self, settings: CacheSettings) -> Result<Arc<CacheSettings>> {
        Ok(Arc::new(settings))
    }

    fn file_secret(&self, _: SecretFiles, secret: Secret) -> Arc<Slot<Secret>> {
        Slot::filled("", Arc::new(secret))
    }
}
