//! What discovery counts, under Envoy's names.

use metrics::{Counter, Gauge};
use outrider_xds::ads::ResourceType;

use crate::telemetry::metrics::{Family, Scope, Stats};

/// Handles of the control thread.
pub struct DiscoveryStats {
    connected: Gauge,
    clusters: Outcomes,
    listeners: Outcomes,
    secrets: Outcomes,
    _scopes: [Scope; 4],
}

struct Outcomes {
    success: Counter,
    rejected: Counter,
}

impl DiscoveryStats {
    /// Resolves the handles.
    pub fn new(stats: &Stats) -> Self {
        let control_plane = stats.scope(Family::ControlPlane, "");
        let clusters = stats.scope(Family::ClusterManager, "");
        let listeners = stats.scope(Family::ListenerManager, "");
        let secrets = stats.scope(Family::Sds, "");
        DiscoveryStats {
            connected: control_plane.gauge("connected_state"),
            clusters: Outcomes {
                success: clusters.counter("cds.update_success"),
                rejected: clusters.counter("cds.update_rejected"),
            },
            listeners: Outcomes {
                success: listeners.counter("lds.update_success"),
                rejected: listeners.counter("lds.update_rejected"),
            },
            secrets: Outcomes {
                success: secrets.counter("update_success"),
                rejected: secrets.counter("update_rejected"),
            },
            _scopes: [control_plane, clusters, listeners, secrets],
        }
    }

    /// A stream opened or closed.
    pub fn connected(&self, connected: bool) {
        self.connected.set(if connected { 1.0 } else { 0.0 });
    }

    /// A response was applied.
    pub fn update(&self, kind: ResourceType, accepted: bool) {
        let outcomes = match kind {
            ResourceType::Cluster | ResourceType::Endpoint => &self.clusters,
            ResourceType::Listener | ResourceType::Route => &self.listeners,
            ResourceType::Secret => &self.secrets,
        };
        if accepted {
            &outcomes.success
        } else {
            &outcomes.rejected
        }
        .increment(1);
    }
}
