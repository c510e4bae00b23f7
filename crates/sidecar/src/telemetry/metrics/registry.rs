//! Which stats there are, by family and subject.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{Counter, Gauge, Histogram};

use super::cells::{BUCKETS, CounterCell, GaugeCell, HistogramCell};
use super::rules::StatsRules;

/// The first part of Envoy's stat names, and what its second part names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `cluster.<name>.`
    Cluster,
    /// `http.<stat_prefix>.`
    Http,
    /// `tcp.<stat_prefix>.`
    Tcp,
    /// `listener.<address>.`
    Listener,
    /// `server.`, without a subject
    Server,
    /// `runtime.`, without a subject
    Runtime,
    /// `overload.<monitor or action>.`
    Overload,
    /// `listener_manager.`, without a subject
    ListenerManager,
    /// `cluster_manager.`, without a subject
    ClusterManager,
    /// `control_plane.`, without a subject
    ControlPlane,
    /// `sds.<secret>.`
    Sds,
    /// `access_log.`, without a subject
    AccessLog,
    /// `connection_limit.<stat_prefix>.`
    ConnectionLimit,
    /// `local_rate_limit.<stat_prefix>.`, of network filters
    LocalRateLimit,
    /// `<stat_prefix>.rbac.`: the subject is all of it.
    Rbac,
    /// `vhost.<virtual host>.vcluster.<name>.`
    VirtualCluster,
    /// `vhost.<virtual host>.route.<stat_prefix>.`
    Route,
    /// `listener.<address>.worker_<index>.`
    ListenerWorker,
    /// `proxy_proto.<stat_prefix>.`
    ProxyProtocol,
    /// `listener_local_ratelimit.<stat_prefix>.`
    ListenerRateLimit,
    /// `tls_inspector.`, without a subject
    TlsInspector,
    /// `http_inspector.`, without a subject
    HttpInspector,
    /// `http.<stat_prefix>.rds.<route configuration>.`
    HttpRoutes,
    /// `filesystem.`, without a subject
    Filesystem,
    /// `udp.<stat_prefix>.`
    Udp,
}

type Key = (Family, Arc<str>);

#[derive(Default)]
struct Subject {
    /// How many scopes, over all threads, still count here.
    scopes: usize,
    counters: BTreeMap<&'static str, Counters>,
    gauges: BTreeMap<&'static str, Vec<Arc<GaugeCell>>>,
    histograms: BTreeMap<&'static str, Vec<Arc<HistogramCell>>>,
    facts: BTreeMap<&'static str, Fact>,
}

/// What one thread tells and no other adds to.
#[derive(Clone)]
enum Fact {
    Number(Arc<AtomicU64>),
    Text(Arc<Mutex<Arc<str>>>),
}

/// A gauge of all 64 bits, such as a hash or a time, which the handles of `metrics` would round.
pub struct Number(Arc<AtomicU64>);

impl Number {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// Envoy's "text readout".
pub struct Text(Arc<Mutex<Arc<str>>>);

impl Text {
    /// Sets it.
    pub fn set(&self, text: &Arc<str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = text.clone();
    }
}

/// The cells of one counter.
#[derive(Default)]
struct Counters {
    cells: Vec<Arc<CounterCell>>,
    /// What cells had counted whose handles are gone: a counter never goes back.
    retired: u64,
}

impl Counters {
    fn sum(&self) -> u64 {
        self.retired + self.cells.iter().map(|cell| cell.value()).sum::<u64>()
    }

    fn add(&mut self, cell: Arc<CounterCell>) {
        let retired = &mut self.retired;
        self.cells.retain(|cell| {
            let used = Arc::strong_count(cell) > 1;
            if !used {
                *retired += cell.value();
            }
            used
        });
        self.cells.push(cell);
    }
}

/// All stats of the process. Cloning it is cheap.
#[derive(Clone, Default)]
pub struct Registry {
    subjects: Arc<Mutex<BTreeMap<Key, Subject>>>,
    rules: Arc<OnceLock<StatsRules>>,
}

/// One value that was read: the sum over all threads.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A counter.
    Counter(u64),
    /// A gauge.
    Gauge(i64),
    /// A gauge that may need all 64 bits.
    Number(u64),
    /// A text readout.
    Text(Arc<str>),
    /// A histogram: per bucket (the last is above all bounds), and the sum.
    Histogram(Box<[u64; BUCKETS.len() + 1]>, f64),
}

impl Registry {
    /// A view for one thread.
    pub fn thread(&self) -> Stats {
        Stats {
            registry: self.clone(),
        }
    }

    fn subjects(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Subject>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the counters of all traffic add up to: while it stays the same, nothing has happened.
    pub fn activity(&self) -> u64 {
        let is_traffic = |family: &Family| {
            matches!(
                family,
                Family::Cluster | Family::Http | Family::Tcp | Family::Listener
            )
        };
        let subjects = self.subjects();
        let traffic = subjects
            .iter()
            .filter(|((family, _), _)| is_traffic(family));
        let counters = traffic.flat_map(|(_, subject)| subject.counters.values());
        counters.map(Counters::sum).fold(0, u64::wrapping_add)
    }

    /// Which statistics are shown from now on, and with what tags; said once.
    pub fn set_rules(&self, rules: StatsRules) {
        if self.rules.set(rules).is_err() {
            tracing::warn!("rules for statistics were given twice; the first hold");
        }
    }

    /// The rules, if there are any.
    pub fn rules(&self) -> Option<&StatsRules> {
        self.rules.get()
    }

    /// Sets every counter to 0.
    pub fn reset_counters(&self) {
        let mut subjects = self.subjects();
        let counters = subjects.values_mut().flat_map(|s| s.counters.values_mut());
        for counters in counters {
            counters.retired = 0;
            counters.cells.iter().for_each(|cell| cell.reset());
        }
    }

    /// Reads every stat: family, subject, name, value, in order.
    pub fn read(&self, mut each: impl FnMut(Family, &str, &str, Value)) {
        for ((family, name), subject) in self.subjects().iter() {
            for (stat, cells) in &subject.counters {
                each(*family, name, stat, Value::Counter(cells.sum()));
            }
            for (stat, cells) in &subject.gauges {
                let sum = cells.iter().map(|c| c.value()).sum();
                each(*family, name, stat, Value::Gauge(sum));
            }
            for (stat, fact) in &subject.facts {
                let value = match fact {
                    Fact::Number(number) => Value::Number(number.load(Relaxed)),
                    Fact::Text(text) => {
                        Value::Text(text.lock().unwrap_or_else(PoisonError::into_inner).clone())
                    }
                };
                each(*family, name, stat, value);
            }
            for (stat, cells) in &subject.histograms {
                let mut buckets = Box::new([0; BUCKETS.len() + 1]);
                let sum = cells.iter().map(|c| c.add_to(&mut buckets)).sum();
                each(*family, name, stat, Value::Histogram(buckets, sum));
            }
        }
    }
}

/// One thread's way to its stats.
#[derive(Clone)]
pub struct Stats {
    registry: Registry,
}

impl Stats {
    /// The stats of one subject; an empty subject where the family has none.
    pub fn scope(&self, family: Family, subject: &str) -> Scope {
        let key = (family, Arc::from(subject));
        self.registry
            .subjects()
            .entry(Clone::clone(&key))
            .or_default()
            .scopes += 1;
        Scope {
            registry: self.registry.clone(),
            key,
        }
    }
}

/// The stats of one subject on one thread. Keep it as long as its handles.
pub struct Scope {
    registry: Registry,
    key: Key,
}

impl Scope {
    fn with<R>(&self, use_subject: impl FnOnce(&mut Subject) -> R) -> R {
        use_subject(
            self.registry
                .subjects()
                .entry(self.key.clone())
                .or_default(),
        )
    }

    /// A handle for a counter of this subject.
    pub fn counter(&self, name: &'static str) -> Counter {
        let cell = Arc::<CounterCell>::default();
        self.with(|subject| subject.counters.entry(name).or_default().add(cell.clone()));
        Counter::from_arc(cell)
    }

    /// A handle for a gauge of this subject.
    pub fn gauge(&self, name: &'static str) -> Gauge {
        let cell = Arc::<GaugeCell>::default();
        self.with(|subject| {
            let cells = subject.gauges.entry(name).or_default();
            // A gauge counts what is there: with its handle, its share is gone.
            cells.retain(|cell| Arc::strong_count(cell) > 1);
            cells.push(cell.clone());
        });
        Gauge::from_arc(cell)
    }

    /// A number of this subject that one thread tells; who asks again takes it over.
    pub fn number(&self, name: &'static str) -> Number {
        let cell = Arc::<AtomicU64>::default();
        self.tell(name, Fact::Number(cell.clone()));
        Number(cell)
    }

    /// A text of this subject that one thread tells; who asks again takes it over.
    pub fn text(&self, name: &'static str) -> Text {
        let cell = Arc::new(Mutex::new(Arc::from("")));
        self.tell(name, Fact::Text(cell.clone()));
        Text(cell)
    }

    fn tell(&self, name: &'static str, fact: Fact) {
        self.with(|subject| subject.facts.insert(name, fact));
    }

    /// A handle for a histogram of this subject.
    pub fn histogram(&self, name: &'static str) -> Histogram {
        let cell = Arc::<HistogramCell>::default();
        self.with(|subject| {
            subject
                .histograms
                .entry(name)
                .or_default()
                .push(cell.clone())
        });
        Histogram::from_arc(cell)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let mut subjects = self.registry.subjects();
        if let Some(subject) = subjects.get_mut(&self.key) {
            subject.scopes -= 1;
            if subject.scopes == 0 {
                subjects.remove(&self.key);
            }
        }
    }
}
