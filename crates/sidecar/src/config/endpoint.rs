//! `ClusterLoadAssignment`: the endpoints of a cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address::Address;

/// `overprovisioning_factor` unless set, percent.
pub const OVERPROVISIONING_FACTOR: u32 = 140;

/// All endpoints of one cluster: where they are, or by which name they are found.
#[derive(Clone, Debug)]
pub struct LoadAssignment<Place = Address> {
    /// Groups of endpoints in the order given.
    pub localities: Vec<Locality<Place>>,
    /// `policy.overprovisioning_factor`, percent.
    pub overprovisioning_factor: u32,
    /// `policy.weighted_priority_health`: how healthy a priority is counts by weights, not heads.
    pub weighted_priority_health: bool,
    /// `policy.drop_overloads`: which part of the requests is turned away; of 1, and above 0.
    pub drop: Option<f64>,
    /// `policy.endpoint_stale_after`
    pub stale_after: Option<Duration>,
}

impl<Place> Default for LoadAssignment<Place> {
    fn default() -> Self {
        LoadAssignment {
            localities: Vec::new(),
            overprovisioning_factor: OVERPROVISIONING_FACTOR,
            weighted_priority_health: false,
            drop: None,
            stale_after: None,
        }
    }
}

impl<Place> LoadAssignment<Place> {
    /// Its endpoints in the order given.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint<Place>>> {
        self.localities
            .iter()
            .flat_map(|locality| &locality.endpoints)
    }
}

/// `LocalityLbEndpoints`.
#[derive(Clone, Debug)]
pub struct Locality<Place = Address> {
    /// 0 is used first; the next only where no healthier one is left.
    pub priority: u32,
    /// `load_balancing_weight`; without one it gets no traffic where localities are weighted.
    pub weight: u32,
    /// `region/zone/sub_zone` for display.
    pub name: Arc<str>,
    /// The endpoints.
    pub endpoints: Vec<Arc<Endpoint<Place>>>,
}

/// `LbEndpoint`.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint<Place = Address> {
    /// Where it is.
    pub address: Place,
    /// Where else it is, to be tried where `address` does not answer at once (RFC 8305).
    pub additional_addresses: Vec<SocketAddr>,
    /// `load_balancing_weight`, at least 1.
    pub weight: u32,
    /// What discovery says of its health.
    pub health: HealthStatus,
    /// `hostname`, or empty.
    pub hostname: Arc<str>,
    /// `metadata.filter_metadata["envoy.transport_socket_match"]`, keys to values as JSON.
    pub transport_socket_match: BTreeMap<String, serde_json::Value>,
}

impl<Place> Endpoint<Place> {
    /// The same endpoint at another place.
    pub fn moved<To>(&self, address: To, additional_addresses: Vec<SocketAddr>) -> Endpoint<To> {
        Endpoint {
            address,
            additional_addresses,
            weight: self.weight,
            health: self.health,
            hostname: self.hostname.clone(),
            transport_socket_match: self.transport_socket_match.clone(),
        }
    }
}

/// `core.v3.HealthStatus`, as far as load balancing distinguishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// UNKNOWN or HEALTHY
    Healthy,
    /// DEGRADED
    Degraded,
    /// UNHEALTHY or TIMEOUT
    Unhealthy,
    /// DRAINING
    Draining,
}
