//! The mesh that the documents describe, as one immutable value with the indexes that the
//! translation needs. Nothing here knows where the documents came from, nor xDS.

mod build;
mod builder;
mod judge;
mod policy;
mod protocol;
mod route;
mod service;
mod verdict;
mod workload;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use outrider_identity::TrustDomain;

use crate::registry::kinds::MutualTlsMode;
use crate::registry::{FieldError, NamespacedName, Object, ObjectRef, Source};

pub use builder::MeshBuilder;
pub use policy::PeerPolicies;
pub use protocol::AppProtocol;
pub use route::{JudgedRoute, MeshRoute, RouteKind};
pub use service::{MeshEndpoint, MeshPort, MeshService};
pub use verdict::{BackendFault, Finding, Findings, ParentFindings, Verdict};
pub use workload::Workload;

/// What holds for the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// The DNS suffix of services, such as `cluster.local`.
    pub cluster_domain: String,
    /// The namespace whose policies concern all.
    pub root_namespace: String,
    /// What ports accept where no PeerAuthentication says it.
    pub mutual_tls: MutualTlsMode,
    /// Whether proxies write an access log to their standard output.
    pub access_log: bool,
}

/// Something that is taken as it is but will not do what its author wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The object at fault.
    pub object: ObjectRef,
    /// Where it was declared.
    pub source: Source,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} ({}): {}",
            self.source, self.object, self.message
        )
    }
}

/// The mesh at one moment.
#[derive(Debug, Clone)]
pub struct MeshState {
    /// What holds for the whole mesh.
    pub settings: Arc<MeshSettings>,
    /// Services by name.
    pub services: Arc<BTreeMap<NamespacedName, Arc<MeshService>>>,
    /// Who must speak mutual TLS.
    pub policies: Arc<PeerPolicies>,
    /// What is wrong with objects that only their neighbours show.
    pub warnings: Arc<BTreeSet<Warning>>,
    /// What is wrong with the latest versions of objects whose last good versions are in force.
    pub faults: Arc<BTreeMap<ObjectRef, Fault>>,
    workloads: Arc<HashMap<IpAddr, Arc<Workload>>>,
    /// Names of the services that an address stands behind.
    services_at: Arc<HashMap<IpAddr, Arc<BTreeSet<NamespacedName>>>>,
    routes: Arc<BTreeMap<NamespacedName, Vec<MeshRoute>>>,
    /// Grows whenever a route, or what routes may lead to, becomes another.
    routing: u64,
    verdicts: Arc<BTreeMap<ObjectRef, Verdict>>,
    /// Of the objects that files declare.
    sources: Arc<BTreeMap<ObjectRef, Source>>,
}

/// What is wrong with the latest version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The generation of that version; 0 outside of a cluster.
    pub generation: i64,
    /// What is wrong.
    pub error: FieldError,
}

impl MeshState {
    /// Puts documents together.
    pub fn build<'a>(
        settings: Arc<MeshSettings>,
        documents: impl Iterator<Item = &'a (Source, Arc<Object>)>,
    ) -> Self {
        let mut builder = MeshBuilder::new(settings);
        builder.replace(documents);
        builder.build()
    }

    fn empty(settings: Arc<MeshSettings>) -> Self {
        Self {
            policies: Arc::new(PeerPolicies::new(settings.mutual_tls)),
            settings,
            services: Arc::default(),
            warnings: Arc::default(),
            faults: Arc::default(),
            workloads: Arc::default(),
            services_at: Arc::default(),
            routes: Arc::default(),
            routing: 0,
            verdicts: Arc::default(),
            sources: Arc::default(),
        }
    }

    /// The workload that has an address.
    pub fn workload(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.get(&address)
    }

    /// The services that one of these addresses stands behind.
    pub fn services_behind<'a>(
        &'a self,
        addresses: &[IpAddr],
    ) -> impl Iterator<Item = &'a MeshService> + use<'a> {
        let names: BTreeSet<_> = addresses
            .iter()
            .filter_map(|address| self.services_at.get(address))
            .flat_map(|names| names.iter())
            .collect();
        let services = names.into_iter().filter_map(|name| self.services.get(name));
        services.map(Arc::as_ref)
    }

    /// Whether routes are the same as in another state of the same mesh, and what they lead to.
    pub fn routes_like(&self, other: &Self) -> bool {
        self.routing == other.routing
    }

    /// Whether routes are attached to a service.
    pub fn has_routes(&self, service: &MeshService) -> bool {
        self.routes.contains_key(&service.name)
    }

    /// What is said of each route that has a Service for a parent, and of each object of our own
    /// kinds.
    pub fn verdicts(&self) -> &Arc<BTreeMap<ObjectRef, Verdict>> {
        &self.verdicts
    }

    /// Where an object was declared.
    pub fn source(&self, object: &ObjectRef) -> Option<&Source> {
        self.sources.get(object)
    }
}
