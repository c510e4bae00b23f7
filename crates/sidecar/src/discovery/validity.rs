//! What is counted of endpoints that hold for some time only (`endpoint_stale_after`).

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::Counter;

use crate::config::cluster::Cluster;
use crate::telemetry::metrics::{Family, Scope, Stats};

/// The counters of the clusters that have such endpoints, by name.
pub struct Validity {
    stats: Stats,
    clusters: BTreeMap<Arc<str>, Counters>,
}

struct Counters {
    limited: Counter,
    ended: Counter,
    _scope: Scope,
}

impl Validity {
    /// No counters yet.
    pub fn new(stats: Stats) -> Self {
        Validity {
            stats,
            clusters: BTreeMap::new(),
        }
    }

    /// These clusters got endpoints that hold for some time only.
    pub fn limited(&mut self, clusters: Vec<Arc<Cluster>>) {
        for cluster in clusters {
            self.of(&cluster).limited.increment(1);
        }
    }

    /// That time was over.
    pub fn ended(&mut self, clusters: Vec<Arc<Cluster>>) {
        for cluster in clusters {
            self.of(&cluster).ended.increment(1);
        }
    }

    /// The cluster has gone.
    pub fn remove(&mut self, name: &str) {
        self.clusters.remove(name);
    }

    fn of(&mut self, cluster: &Cluster) -> &Counters {
        let counters = self.clusters.entry(cluster.name.clone());
        counters.or_insert_with(|| {
            let scope = self.stats.scope(Family::Cluster, &cluster.stat_name);
            Counters {
                limited: scope.counter("assignment_timeout_received"),
                ended: scope.counter("assignment_stale"),
                _scope: scope,
            }
        })
    }
}
