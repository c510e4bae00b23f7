//! Where routes send traffic.

use crate::mesh::{MeshState, RouteKind};
use crate::registry::kinds::BackendRef;

use super::names::{outbound_cluster, unresolved_cluster};

/// The cluster of a backend. The share of a backend that leads nowhere goes to a cluster that does
/// not exist, which the proxy answers as the route says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendCluster {
    pub(super) name: String,
    pub(super) weight: u32,
    pub(super) exists: bool,
}

impl BackendCluster {
    pub(super) fn of(
        mesh: &MeshState,
        namespace: &str,
        kind: RouteKind,
        backend: &BackendRef,
    ) -> Self {
        let (name, exists) = match mesh.resolve(namespace, backend, kind) {
            Ok((service, port)) => (outbound_cluster(&service.host, port.number), true),
            Err(_) => {
                let namespace = backend.namespace.as_deref().unwrap_or(namespace);
                let port = backend.port.map_or(0, std::num::NonZeroU16::get);
                let host = format!("{}.{namespace}", backend.name);
                (unresolved_cluster(&host, port), false)
            }
        };
        Self {
            name,
            weight: backend.weight(),
            exists,
        }
    }
}
