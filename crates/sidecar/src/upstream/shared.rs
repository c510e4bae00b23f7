//! What all workers and the control thread share of a cluster.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::breakers::CircuitBreakers;
use crate::config::address::Address;
use crate::config::cluster::{Cluster, ClusterDiscovery, LocalZone};
use crate::config::endpoint::{Endpoint, HealthStatus};

/// The clusters of one snapshot, by name.
pub type ClusterSet = BTreeMap<Arc<str>, Arc<ClusterShared>>;

/// One cluster: its configuration and what is counted over all workers.
#[derive(Debug)]
pub struct ClusterShared {
    /// The configuration in force.
    pub config: Arc<Cluster>,
    /// Shared with the clusters of the same name before and after this one.
    pub breakers: Arc<CircuitBreakers>,
    /// Where this proxy is among its kind, where that has a say in which endpoint is used.
    pub zone: Option<Arc<LocalZone>>,
    hosts: HostTable,
    /// When healthy endpoints were first seen, where new ones start slowly.
    began: Mutex<HashMap<Address, Instant>>,
    /// Connections to each endpoint, where they are limited.
    connections: Mutex<HashMap<Address, Weak<AtomicU32>>>,
    reported: AtomicBool,
}

impl ClusterShared {
    /// A cluster that was not there before.
    #[cfg(test)]
    pub fn new(config: Arc<Cluster>) -> Arc<Self> {
        Self::zoned(config, None)
    }

    /// A cluster that was not there before, of a proxy that is in `zone`.
    pub fn zoned(config: Arc<Cluster>, zone: Option<Arc<LocalZone>>) -> Arc<Self> {
        let breakers = Arc::new(CircuitBreakers::new(&config.circuit_breakers));
        // The proxies of our own kind are not chosen by zone.
        let zone = zone
            .filter(|zone| zone.cluster != config.name && !config.load_balancing.locality_weighted);
        Self::with(config, breakers, zone)
    }

    /// The same cluster with a new configuration: what is in use stays counted, under the new
    /// limits from now on.
    pub fn updated(&self, config: Arc<Cluster>) -> Arc<Self> {
        self.breakers.set_limits(&config.circuit_breakers);
        Self::with(config, self.breakers.clone(), self.zone.clone())
    }

    fn with(
        config: Arc<Cluster>,
        breakers: Arc<CircuitBreakers>,
        zone: Option<Arc<LocalZone>>,
    ) -> Arc<Self> {
        Arc::new(ClusterShared {
            config,
            breakers,
            zone,
            hosts: HostTable::default(),
            began: Mutex::default(),
            connections: Mutex::default(),
            reported: AtomicBool::new(false),
        })
    }

    /// When each of these endpoints, which are all that are healthy, was first seen so by any
    /// worker, in their order.
    pub(super) fn began(&self, healthy: &[&Address], now: Instant) -> Vec<Instant> {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if began.len() > 2 * healthy.len() {
            let present: HashSet<&Address> = healthy.iter().copied().collect();
            began.retain(|address, _| present.contains(address));
        }
        let since = |address: &&Address| *began.entry(Address::clone(address)).or_insert(now);
        healthy.iter().map(since).collect()
    }

    /// The count of connections to an endpoint over all workers.
    pub(super) fn connections_to(&self, address: &Address) -> Arc<AtomicU32> {
        let connections = self.connections.lock();
        let mut connections = connections.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = connections.get(address).and_then(Weak::upgrade) {
            return count;
        }
        connections.retain(|_, count| count.strong_count() > 0);
        let count = Arc::<AtomicU32>::default();
        connections.insert(address.clone(), Arc::downgrade(&count));
        count
    }

    /// True for one worker only: the one that reports the gauges which are the same on all.
    pub(super) fn claim_reporting(&self) -> bool {
        !self.reported.swap(true, Relaxed)
    }

    /// Counters for one endpoint on one worker, which the admin thread can read.
    pub(super) fn host_counters(&self, address: &Address) -> Arc<HostCounters> {
        let counters = Arc::<HostCounters>::default();
        let mut hosts = self.hosts.lock();
        let cells = hosts.entry(address.clone()).or_default();
        cells.retain(|cell| cell.strong_count() > 0);
        cells.push(Arc::downgrade(&counters));
        counters
    }

    /// How the cluster is doing, for `/clusters`: what discovery says, joined with what the workers
    /// count.
    pub fn view(&self) -> ClusterView {
        let mut hosts = self.hosts.lock();
        hosts.retain(|_, cells| cells.iter().any(|cell| cell.strong_count() > 0));
        let totals = |address: &Address| {
            let mut totals = HostTotals::default();
            for cell in hosts.get(address).into_iter().flatten() {
                if let Some(counters) = cell.upgrade() {
                    counters.add_to(&mut totals);
                }
            }
            totals
        };
        let view = |priority, locality: &Arc<str>, endpoint: &Endpoint| HostView {
            address: endpoint.address.clone(),
            hostname: endpoint.hostname.clone(),
            locality: locality.clone(),
            priority,
            weight: endpoint.weight,
            health: endpoint.health,
            totals: totals(&endpoint.address),
        };
        let hosts = match &self.config.discovery {
            ClusterDiscovery::Assignment { slot, .. } => slot
                .load()
                .iter()
                .flat_map(|assignment| &assignment.localities)
                .flat_map(|locality| {
                    let of = |endpoint: &Arc<Endpoint>| {
                        view(locality.priority, &locality.name, endpoint)
                    };
                    locality.endpoints.iter().map(of).collect::<Vec<_>>()
                })
                .collect(),
            ClusterDiscovery::Aggregate(_) => Vec::new(),
            ClusterDiscovery::OriginalDestination | ClusterDiscovery::Names(_) => {
                let nowhere: Arc<str> = "".into();
                let mut addresses: Vec<_> = hosts.keys().cloned().collect();
                addresses.sort_by_key(ToString::to_string);
                addresses
                    .into_iter()
                    .map(|address| view(0, &nowhere, &original_destination(address)))
                    .collect()
            }
        };
        ClusterView { hosts }
    }
}

/// The endpoint that an ORIGINAL_DST cluster makes for an address.
pub(super) fn original_destination(address: Address) -> Endpoint {
    Endpoint {
        address,
        additional_addresses: Vec::new(),
        weight: 1,
        health: HealthStatus::Healthy,
        hostname: "".into(),
        transport_socket_match: BTreeMap::new(),
    }
}

/// The counters of each endpoint, one set for every worker that uses it. Locked when an endpoint
/// comes or is read, never by a request.
#[derive(Debug, Default)]
struct HostTable(Mutex<HashMap<Address, Vec<Weak<HostCounters>>>>);

impl HostTable {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Vec<Weak<HostCounters>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

macro_rules! host_counters {
    ($($name:ident: $doc:literal),+ $(,)?) => {
        /// What one worker counts of one endpoint, under Envoy's names.
        #[derive(Debug, Default)]
        pub struct HostCounters {
            $(#[doc = $doc] pub $name: HostCounter),+
        }

        /// The sums over all workers.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct HostTotals {
            $(#[doc = $doc] pub $name: u64),+
        }

        impl HostCounters {
            fn add_to(&self, totals: &mut HostTotals) {
                $(totals.$name += self.$name.0.load(Relaxed);)+
            }
        }

        impl HostTotals {
            /// Each name with its value.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }
        }
    };
}

host_counters! {
    cx_active: "Connections now.",
    cx_connect_fail: "Connections that failed to come about.",
    cx_total: "Connections made.",
    rq_active: "Requests now.",
    rq_error: "Responses of 5xx, and requests that failed.",
    rq_pending_active: "Requests that wait for a connection.",
    rq_success: "Responses of less than 500.",
    rq_timeout: "Requests that timed out.",
    rq_total: "Requests begun.",
}

/// One count that only one worker changes.
#[derive(Debug, Default)]
pub struct HostCounter(AtomicU64);

impl HostCounter {
    /// One more.
    pub fn add(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// One less.
    pub fn subtract(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

/// A cluster as `/clusters` shows it.
#[derive(Clone, Debug)]
pub struct ClusterView {
    /// Its endpoints in the order of the assignment.
    pub hosts: Vec<HostView>,
}

/// An endpoint as `/clusters` shows it.
#[derive(Clone, Debug)]
pub struct HostView {
    /// Where it is.
    pub address: Address,
    /// Its name, or empty.
    pub hostname: Arc<str>,
    /// `region/zone/sub_zone`
    pub locality: Arc<str>,
    /// 0 is used first.
    pub priority: u32,
    /// `load_balancing_weight`
    pub weight: u32,
    /// What discovery says.
    pub health: HealthStatus,
    /// Counted by the workers.
    pub totals: HostTotals,
}

impl HostView {
    /// `envoy.config.core.v3.HealthStatus`, for `/clusters?format=json`.
    pub fn health_status(&self) -> &'static str {
        match self.health {
            HealthStatus::Healthy => "HEALTHY",
            HealthStatus::Degraded => "DEGRADED",
            HealthStatus::Unhealthy => "UNHEALTHY",
            HealthStatus::Draining => "DRAINING",
        }
    }

    /// `health_flags` of `/clusters`.
    pub fn health_flags(&self) -> &'static str {
        match self.health {
            HealthStatus::Healthy => "healthy",
            HealthStatus::Degraded => "/degraded_eds_health",
            HealthStatus::Unhealthy => "/failed_eds_health",
            HealthStatus::Draining => "/eds_status_draining",
        }
    }
}
