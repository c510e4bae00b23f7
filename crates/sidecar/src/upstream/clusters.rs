//! The clusters of one worker.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use rand::rngs::SmallRng;

use super::cluster::Cluster;
use super::shared::{ClusterSet, ClusterShared};
use super::stats::ClusterStats;
use crate::telemetry::metrics::Stats;

/// All clusters by name. One is made on this worker when it is first asked for: a mesh has many
/// clusters of which a pod uses few.
pub struct Clusters(Rc<Directory>);

/// What is behind [`Clusters`]: clusters of clusters look into it as well.
pub struct Directory {
    stats: Stats,
    random: Rc<RefCell<SmallRng>>,
    entries: RefCell<HashMap<Arc<str>, Entry>>,
}

struct Entry {
    shared: Arc<ClusterShared>,
    cluster: OnceCell<Rc<Cluster>>,
    /// Of this cluster and of those of its name before.
    stats: OnceCell<Rc<ClusterStats>>,
}

impl Clusters {
    /// No clusters yet.
    pub fn new(stats: Stats) -> Self {
        Clusters(Rc::new(Directory {
            stats,
            random: Rc::new(RefCell::new(rand::make_rng())),
            entries: RefCell::default(),
        }))
    }

    /// Takes over a new set. A cluster whose `Arc` is the same is left alone. One that changed or
    /// left is drained: its idle connections are closed, and what is under way finishes.
    pub fn apply(&self, set: &ClusterSet) {
        let mut old = self.0.entries.take();
        let entries = set
            .iter()
            .map(|(name, shared)| {
                let before = old.remove(name);
                let entry = match before {
                    Some(entry) if Arc::ptr_eq(&entry.shared, shared) => entry,
                    Some(entry) => {
                        let successor = entry.successor(shared);
                        entry.drain();
                        successor
                    }
                    None => Entry {
                        shared: shared.clone(),
                        cluster: OnceCell::new(),
                        stats: OnceCell::new(),
                    },
                };
                (name.clone(), entry)
            })
            .collect();
        self.0.entries.replace(entries);
        old.values().for_each(Entry::drain);
    }

    /// The cluster of that name.
    pub fn cluster(&self, name: &str) -> Option<Rc<Cluster>> {
        self.0.cluster(name)
    }
}

impl Directory {
    /// The cluster of that name.
    pub(super) fn cluster(self: &Rc<Self>, name: &str) -> Option<Rc<Cluster>> {
        let entries = self.entries.borrow();
        let entry = entries.get(name)?;
        let cluster = entry.cluster.get_or_init(|| {
            let stats = entry.stats.get_or_init(|| {
                let name = &entry.shared.config.stat_name;
                Rc::new(ClusterStats::new(&self.stats, name))
            });
            let (shared, random) = (entry.shared.clone(), self.random.clone());
            Cluster::new(shared, stats.clone(), random, Rc::downgrade(self))
        });
        Some(cluster.clone())
    }
}

impl Entry {
    /// The entry of a cluster with another configuration, which counts on.
    fn successor(&self, shared: &Arc<ClusterShared>) -> Entry {
        let same_stats = self.shared.config.stat_name == shared.config.stat_name;
        let stats = match self.stats.get() {
            Some(stats) if same_stats => OnceCell::from(stats.clone()),
            _ => OnceCell::new(),
        };
        Entry {
            shared: shared.clone(),
            cluster: OnceCell::new(),
            stats,
        }
    }

    fn drain(&self) {
        if let Some(cluster) = self.cluster.get() {
            cluster.drain();
        }
    }
}
