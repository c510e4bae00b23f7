//! One worker: what its connections share. Nothing here is touched by another thread.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::budget::Budget;
use super::date::DateCache;
use super::drain::DrainSignal;
use super::random::Random;
use super::snapshot::Snapshot;
use crate::config::listener::NetworkFilter;
use crate::config::network::ConnectionFilter;
use crate::http::connection_manager::stream_tasks::StreamTasks;
use crate::http::route::stats::{RouteStats, RouteStatsOfWorker, StatName};
use crate::http::stats::HttpStats;
use crate::listener::Listeners;
use crate::network::stats::{
    ConnectionLimitStats, LocalRateLimitStats, RbacStats, ShadowRbacStats,
};
use crate::network::tcp_proxy::stats::TcpStats;
use crate::runtime_layer::{self, Number};
use crate::telemetry::access_log::writer::Writer;
use crate::telemetry::metrics::Stats;
use crate::upstream::Clusters;

/// The most that the copies of requests of one worker hold: 16 MiB.
const MIRROR_BYTES: usize = 16 * 1024 * 1024;

/// The runtime's key for the most connections of clients.
const CONNECTION_LIMIT: &str = "overload.global_downstream_max_connections";

/// The state of one worker thread.
pub struct Worker {
    /// 0 to concurrency - 1.
    pub index: usize,
    /// The clusters with this worker's connection pools.
    pub clusters: Clusters,
    /// The listeners with this worker's accept loops.
    pub listeners: Listeners,
    /// This thread's way to its stats.
    pub stats: Stats,
    /// What is being told to end.
    pub drain: DrainSignal,
    /// Access log buffers.
    pub access_log: Writer,
    /// The `date` header.
    pub date: DateCache,
    /// The tasks that serve HTTP/2 streams.
    pub stream_tasks: Rc<StreamTasks>,
    /// Copies of requests that are under way.
    pub mirrored: Cell<usize>,
    /// The memory that they may hold.
    pub mirror_budget: Rc<Budget>,
    /// The runtime's `overload.global_downstream_max_connections`: so many connections of clients
    /// at a time, over all workers.
    pub connection_limit: Number,
    random: Random,
    route_stats: RouteStatsOfWorker,
    http_stats: RefCell<HashMap<Arc<str>, Rc<HttpStats>>>,
    tcp_stats: RefCell<HashMap<Arc<str>, Rc<TcpStats>>>,
    connection_limit_stats: RefCell<HashMap<Arc<str>, Rc<ConnectionLimitStats>>>,
    local_rate_limit_stats: RefCell<HashMap<Arc<str>, Rc<LocalRateLimitStats>>>,
    rbac_stats: RefCell<HashMap<Arc<str>, Rc<RbacStats>>>,
    shadow_rbac_stats: RefCell<HashMap<Arc<str>, Rc<ShadowRbacStats>>>,
}

impl Worker {
    /// A worker that has nothing to do yet.
    pub fn new(index: usize, stats: Stats, drain: DrainSignal, access_log: Writer) -> Rc<Self> {
        Rc::new(Worker {
            index,
            clusters: Clusters::new(stats.clone()),
            listeners: Listeners::default(),
            stats,
            drain,
            access_log,
            date: DateCache::default(),
            stream_tasks: Rc::default(),
            mirrored: Cell::new(0),
            mirror_budget: Budget::new(MIRROR_BYTES),
            connection_limit: runtime_layer::number_at(CONNECTION_LIMIT, u32::MAX),
            random: Random::new(),
            route_stats: RouteStatsOfWorker::default(),
            http_stats: RefCell::default(),
            tcp_stats: RefCell::default(),
            connection_limit_stats: RefCell::default(),
            local_rate_limit_stats: RefCell::default(),
            rbac_stats: RefCell::default(),
            shadow_rbac_stats: RefCell::default(),
        })
    }

    /// A random number that need not be secret.
    pub fn random(&self) -> u64 {
        self.random.next()
    }

    /// Where they come from.
    pub fn generator(&self) -> &Random {
        &self.random
    }

    /// Twice as much of it.
    pub fn random_128(&self) -> u128 {
        u128::from(self.random()) << 64 | u128::from(self.random())
    }

    /// Takes over a snapshot: clusters before the listeners that route to them, and the stats of
    /// what has gone.
    pub fn apply(self: &Rc<Self>, snapshot: &Snapshot) {
        self.clusters.apply(&snapshot.clusters);
        if !self.drain.is_complete() {
            self.listeners.apply(self, &snapshot.listeners);
        }
        self.keep_stats(&StatPrefixes::of(snapshot));
    }

    /// Makes the stats of all filters that there are, and drops those of filters that have gone.
    fn keep_stats(&self, prefixes: &StatPrefixes) {
        keep(&self.http_stats, &prefixes.http);
        keep(&self.tcp_stats, &prefixes.tcp);
        keep(&self.connection_limit_stats, &prefixes.connection_limit);
        keep(&self.local_rate_limit_stats, &prefixes.local_rate_limit);
        keep(&self.rbac_stats, &prefixes.rbac);
        keep(&self.shadow_rbac_stats, &prefixes.shadow_rbac);
        self.route_stats.forget_gone();
        for prefix in &prefixes.http {
            self.http_stats(prefix);
        }
        for prefix in &prefixes.tcp {
            self.tcp_stats(prefix);
        }
        for prefix in &prefixes.connection_limit {
            self.connection_limit_stats(prefix);
        }
        for prefix in &prefixes.local_rate_limit {
            self.local_rate_limit_stats(prefix);
        }
        for prefix in &prefixes.rbac {
            self.rbac_stats(prefix);
        }
        for prefix in &prefixes.shadow_rbac {
            self.shadow_rbac_stats(prefix);
        }
    }

    /// The stats of a virtual cluster or of routes; looked up once per request, by number.
    pub fn route_stats(&self, name: &Arc<StatName>) -> Rc<RouteStats> {
        self.route_stats.of(&self.stats, name)
    }

    /// The stats of connection managers with this prefix; looked up once per connection.
    pub fn http_stats(&self, prefix: &Arc<str>) -> Rc<HttpStats> {
        shared(&self.http_stats, prefix, |prefix| {
            HttpStats::new(&self.stats, prefix)
        })
    }

    /// The stats of tcp_proxies with this prefix; looked up once per connection.
    pub fn tcp_stats(&self, prefix: &Arc<str>) -> Rc<TcpStats> {
        shared(&self.tcp_stats, prefix, |prefix| {
            TcpStats::new(&self.stats, prefix)
        })
    }

    /// The stats of connection limits with this prefix; looked up once per connection.
    pub fn connection_limit_stats(&self, prefix: &Arc<str>) -> Rc<ConnectionLimitStats> {
        shared(&self.connection_limit_stats, prefix, |prefix| {
            ConnectionLimitStats::new(&self.stats, prefix)
        })
    }

    /// The stats of rate limits with this prefix; looked up where one refuses a connection.
    pub fn local_rate_limit_stats(&self, prefix: &Arc<str>) -> Rc<LocalRateLimitStats> {
        shared(&self.local_rate_limit_stats, prefix, |prefix| {
            LocalRateLimitStats::new(&self.stats, prefix)
        })
    }

    /// The stats of policies with this prefix; looked up once per connection.
    pub fn rbac_stats(&self, prefix: &Arc<str>) -> Rc<RbacStats> {
        shared(&self.rbac_stats, prefix, |prefix| {
            RbacStats::new(&self.stats, prefix)
        })
    }

    /// The same of shadow rules.
    pub fn shadow_rbac_stats(&self, prefix: &Arc<str>) -> Rc<ShadowRbacStats> {
        shared(&self.shadow_rbac_stats, prefix, |prefix| {
            ShadowRbacStats::new(&self.stats, prefix)
        })
    }
}

/// The stat prefixes of all network filters.
#[derive(Default)]
struct StatPrefixes {
    http: HashSet<Arc<str>>,
    tcp: HashSet<Arc<str>>,
    connection_limit: HashSet<Arc<str>>,
    local_rate_limit: HashSet<Arc<str>>,
    rbac: HashSet<Arc<str>>,
    shadow_rbac: HashSet<Arc<str>>,
}

impl StatPrefixes {
    fn of(snapshot: &Snapshot) -> Self {
        let mut prefixes = StatPrefixes::default();
        let listeners = snapshot.listeners.values().map(|listener| &listener.config);
        for chain in listeners.flat_map(|l| l.filter_chains.iter().chain(&l.default_filter_chain)) {
            for filter in &chain.filters {
                match filter {
                    ConnectionFilter::ConnectionLimit(limit) => {
                        prefixes.connection_limit.insert(limit.stat_prefix.clone());
                    }
                    ConnectionFilter::LocalRateLimit(limit) => {
                        prefixes.local_rate_limit.insert(limit.stat_prefix.clone());
                    }
                    ConnectionFilter::Rbac(filter) => {
                        prefixes.rbac.insert(filter.stat_prefix.clone());
                        let shadow = filter.shadow_stat_prefix.clone();
                        prefixes.shadow_rbac.insert(shadow);
                    }
                    ConnectionFilter::SetFilterState(_)
                    | ConnectionFilter::SniCluster
                    | ConnectionFilter::SniDynamicForwardProxy { .. } => {}
                }
            }
            match &chain.filter {
                NetworkFilter::Http(manager) => {
                    prefixes.http.insert(manager.stat_prefix.clone());
                }
                NetworkFilter::TcpProxy(proxy) => {
                    prefixes.tcp.insert(proxy.stat_prefix.clone());
                }
                NetworkFilter::DirectResponse(_) | NetworkFilter::Echo => {}
            }
        }
        prefixes
    }
}

fn keep<T>(all: &RefCell<HashMap<Arc<str>, Rc<T>>>, prefixes: &HashSet<Arc<str>>) {
    all.borrow_mut()
        .retain(|prefix, stats| prefixes.contains(prefix) || Rc::strong_count(stats) > 1);
}

fn shared<T>(
    all: &RefCell<HashMap<Arc<str>, Rc<T>>>,
    prefix: &Arc<str>,
    make: impl FnOnce(&str) -> T,
) -> Rc<T> {
    let mut all = all.borrow_mut();
    all.entry(prefix.clone())
        .or_insert_with(|| Rc::new(make(prefix)))
        .clone()
}
