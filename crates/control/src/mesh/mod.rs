//! The mesh that the documents describe, as one immutable value with the indexes that the
//! translation needs. Nothing here knows where the documents came from, nor xDS.

mod build;
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

use crate::registry::{FieldError, NamespacedName, ObjectRef, Source};

pub use build::MeshBuilder;
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
    pub services: BTreeMap<NamespacedName, MeshService>,
    /// Who must speak mutual TLS.
    pub policies: PeerPolicies,
    /// What is wrong with objects that only their neighbours show.
    pub warnings: BTreeSet<Warning>,
    /// What is wrong with the latest versions of objects whose last good versions are in force.
    pub faults: Arc<BTreeMap<ObjectRef, FieldError>>,
    workloads: HashMap<IpAddr, Arc<Workload>>,
    /// Names of the services that an address stands behind.
    services_at: HashMap<IpAddr, BTreeSet<NamespacedName>>,
    routes: BTreeMap<NamespacedName, Vec<MeshRoute>>,
    verdicts: BTreeMap<ObjectRef, Verdict>,
    sources: BTreeMap<ObjectRef, Source>,
}

impl MeshState {
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
            .flatten()
            .collect();
        names.into_iter().filter_map(|name| self.services.get(name))
    }

    /// What is said of each route that has a Service for a parent.
    pub fn verdicts(&self) -> &BTreeMap<ObjectRef, Verdict> {
        &self.verdicts
    }

    /// Where an object was declared.
    pub fn source(&self, object: &ObjectRef) -> Option<&Source> {
        self.sources.get(object)
    }
}
