//! A workload of the mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;

use outrider_identity::SpiffeId;

use crate::registry::NamespacedName;
use crate::registry::kinds::{Pod, PortName, WorkloadEntry};

use super::MeshSettings;

/// The account of a workload that names none, as in Kubernetes.
const DEFAULT_ACCOUNT: &str = "default";

/// Something with addresses that stands behind services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace and name.
    pub name: NamespacedName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whom its sidecar speaks for; none when it has no sidecar.
    pub identity: Option<SpiffeId>,
    /// Its share of the traffic.
    pub weight: u32,
    /// Region, zone and subzone.
    pub locality: Option<String>,
    ports: BTreeMap<String, u16>,
}

impl Workload {
    /// A workload has a sidecar if its own label says so, else if its namespace's label says so,
    /// else if it names an account. It is not enough that a label is missing: callers that took it
    /// for plain would send plaintext.
    pub(super) fn of_entry(
        entry: &WorkloadEntry,
        namespace_inject: Option<bool>,
        settings: &MeshSettings,
    ) -> Self {
        let account = entry.spec.service_account.as_deref();
        let inject = entry
            .metadata
            .inject()
            .or(namespace_inject)
            .unwrap_or(account.is_some());
        let namespace = entry.metadata.namespace();
        let identity = inject.then(|| {
            let account = account.unwrap_or(DEFAULT_ACCOUNT);
            SpiffeId::new(settings.trust_domain.clone(), namespace, account)
        });
        Self {
            name: NamespacedName::new(namespace, &entry.metadata.name),
            addresses: entry.spec.addresses.clone(),
            labels: entry.metadata.labels.clone(),
            // Both names were checked when the document was read.
            identity: identity.and_then(Result::ok),
            weight: entry.spec.weight.map_or(1, std::num::NonZeroU32::get),
            locality: entry.spec.locality.clone(),
            ports: entry
                .spec
                .ports
                .iter()
                .map(|(name, port)| (name.clone(), port.get()))
                .collect(),
        }
    }

    /// A pod has a sidecar if the injector has put the label of one on it.
    pub(super) fn of_pod(pod: &Pod, settings: &MeshSettings) -> Self {
        let namespace = pod.metadata.namespace();
        let account = pod.spec.service_account_name.as_deref();
        let account = account.unwrap_or(DEFAULT_ACCOUNT);
        let identity = pod
            .has_sidecar()
            .then(|| SpiffeId::new(settings.trust_domain.clone(), namespace, account));
        Self {
            name: NamespacedName::new(namespace, &pod.metadata.name),
            addresses: pod.addresses(),
            labels: pod.metadata.labels.clone(),
            // Both names were checked when the pod was read.
            identity: identity.and_then(Result::ok),
            weight: 1,
            locality: None,
            ports: BTreeMap::new(),
        }
    }

    /// The number of a port that a service refers to.
    pub(super) fn port(&self, wanted: &PortName) -> Option<u16> {
        match wanted {
            PortName::Number(number) => Some(number.get()),
            PortName::Name(name) => self.ports.get(name).copied(),
        }
    }

    /// Whether it has all these labels.
    pub(super) fn has_labels(&self, selector: &BTreeMap<String, String>) -> bool {
        matches(selector, &self.labels)
    }
}

/// Whether `labels` has all that `selector` asks for.
pub(super) fn matches(
    selector: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
