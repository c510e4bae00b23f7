//! `ClusterLoadAssignment`: the endpoints of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::address::Address;

/// All endpoints of one cluster.
#[derive(Clone, Debug, Default)]
pub struct LoadAssignment {
    /// Groups of endpoints in the order given.
    pub localities: Vec<Locality>,
}

/// `LocalityLbEndpoints`.
#[derive(Clone, Debug)]
pub struct Locality {
    /// 0 is used first; the next only where no healthier one is left.
    pub priority: u32,
    /// `region/zone/sub_zone` for display.
    pub name: Arc<str>,
    /// The endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// `LbEndpoint`.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// `load_balancing_weight`, at least 1.
    pub weight: u32,
    /// What discovery says of its health.
    pub health: HealthStatus,
    /// `hostname`, or empty.
    pub hostname: Arc<str>,
    /// `metadata.filter_metadata["envoy.transport_socket_match"]`, keys to values as JSON.
    pub transport_socket_match: BTreeMap<String, serde_json::Value>,
}

/// An endpoint that is given by its name, of a cluster whose type is STRICT_DNS or LOGICAL_DNS.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedEndpoint {
    /// The name, or an address.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// As [`Endpoint::transport_socket_match`].
    pub transport_socket_match: BTreeMap<String, serde_json::Value>,
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
