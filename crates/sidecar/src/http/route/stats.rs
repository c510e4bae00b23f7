//! `vhost.<virtual host>.vcluster.<name>.*` and `vhost.<virtual host>.route.<stat_prefix>.*`.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use metrics::{Counter, Histogram};

use crate::telemetry::metrics::{Family, Scope, Stats};
use crate::upstream::code_name;

/// What is counted together, found by number on the data path.
#[derive(Debug)]
pub struct StatName {
    number: u64,
    family: Family,
    subject: Box<str>,
}

impl StatName {
    /// A virtual cluster.
    pub fn virtual_cluster(host: &str, name: &str) -> Arc<Self> {
        Self::of(Family::VirtualCluster, format!("{host}.vcluster.{name}"))
    }

    /// The routes of one `stat_prefix`.
    pub fn route(host: &str, prefix: &str) -> Arc<Self> {
        Self::of(Family::Route, format!("{host}.route.{prefix}"))
    }

    /// The same value for the same name for as long as somebody has it, so that a new version of a
    /// route table counts on.
    fn of(family: Family, subject: String) -> Arc<Self> {
        static NAMES: LazyLock<Mutex<HashMap<String, Weak<StatName>>>> =
            LazyLock::new(Mutex::default);
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(&subject).and_then(Weak::upgrade) {
            return name;
        }
        if names.len() >= 1024 && names.len().is_power_of_two() {
            names.retain(|_, name| name.strong_count() > 0);
        }
        let name = Arc::new(StatName {
            number: NEXT.fetch_add(1, Relaxed),
            family,
            subject: subject.as_str().into(),
        });
        names.insert(subject, Arc::downgrade(&name));
        name
    }
}

const CLASSES: [&str; 5] = [
    "upstream_rq_1xx",
    "upstream_rq_2xx",
    "upstream_rq_3xx",
    "upstream_rq_4xx",
    "upstream_rq_5xx",
];

/// The counters of one name on one worker.
pub struct RouteStats {
    /// `upstream_rq_total`: requests that reached a connection.
    pub total: Counter,
    /// `upstream_rq_timeout`: requests that timed out.
    pub timeout: Counter,
    /// `upstream_rq_time`: milliseconds until the response had ended.
    pub time: Histogram,
    completed: Counter,
    /// By class, then by code: made when they first occur.
    classes: [OnceCell<Counter>; 5],
    codes: RefCell<HashMap<u16, Counter>>,
    /// Envoy shows them from the start; no policy retries yet.
    _retries: [Counter; 4],
    scope: Scope,
}

impl RouteStats {
    fn new(stats: &Stats, name: &StatName) -> Self {
        let scope = stats.scope(name.family, &name.subject);
        RouteStats {
            total: scope.counter("upstream_rq_total"),
            timeout: scope.counter("upstream_rq_timeout"),
            time: scope.histogram("upstream_rq_time"),
            completed: scope.counter("upstream_rq_completed"),
            classes: Default::default(),
            codes: RefCell::default(),
            _retries: [
                scope.counter("upstream_rq_retry"),
                scope.counter("upstream_rq_retry_limit_exceeded"),
                scope.counter("upstream_rq_retry_overflow"),
                scope.counter("upstream_rq_retry_success"),
            ],
            scope,
        }
    }

    /// Counts the status of a response.
    pub fn response(&self, status: u16) {
        self.completed.increment(1);
        let class = usize::from(status / 100).wrapping_sub(1);
        if let Some(counter) = self.classes.get(class) {
            let counter = counter.get_or_init(|| self.scope.counter(CLASSES[class]));
            counter.increment(1);
        }
        if let Some(name) = code_name(status) {
            let mut codes = self.codes.borrow_mut();
            let code = codes.entry(status);
            code.or_insert_with(|| self.scope.counter(name))
                .increment(1);
        }
    }
}

/// The route stats of one worker.
#[derive(Default)]
pub struct RouteStatsOfWorker(RefCell<HashMap<u64, Known>>);

/// The counters of a name, for as long as a route table has it.
type Known = (Weak<StatName>, Rc<RouteStats>);

impl RouteStatsOfWorker {
    /// The counters of a name.
    pub fn of(&self, stats: &Stats, name: &Arc<StatName>) -> Rc<RouteStats> {
        let mut all = self.0.borrow_mut();
        let entry = all.entry(name.number).or_insert_with(|| {
            let counters = Rc::new(RouteStats::new(stats, name));
            (Arc::downgrade(name), counters)
        });
        entry.1.clone()
    }

    /// Forgets those that no route table has any more.
    pub fn forget_gone(&self) {
        self.0
            .borrow_mut()
            .retain(|_, (name, _)| name.strong_count() > 0);
    }
}

/// The counters that concern one request: of its virtual cluster and of its route.
#[derive(Clone, Default)]
pub struct Counted([Option<Rc<RouteStats>>; 2]);

impl Counted {
    /// With those of these names.
    pub fn new(virtual_cluster: Option<Rc<RouteStats>>, route: Option<Rc<RouteStats>>) -> Self {
        Counted([virtual_cluster, route])
    }

    /// Those there are, usually none.
    pub fn iter(&self) -> impl Iterator<Item = &RouteStats> {
        self.0.iter().flatten().map(|stats| &**stats)
    }
}
