//! What discovery counts, under Envoy's names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge};
use outrider_xds::ads::ResourceType;
use twox_hash::XxHash64;

use super::references::OriginKey;
use crate::telemetry::metrics::{Family, Number, Scope, Stats, Text};

/// Whose statistics a subscription's are: a family, and its subject.
pub type Subject = (Family, Arc<str>);

/// One resource that is asked for by its name.
type Key = (OriginKey, ResourceType, Arc<str>);

/// Handles of the control thread.
pub struct DiscoveryStats {
    stats: Stats,
    connected: Gauge,
    /// Of all there is of a kind, where a source is asked for that.
    clusters: Option<Updates>,
    listeners: Option<Updates>,
    /// Of what is asked for by name, each with those that refer to it.
    named: BTreeMap<Key, Vec<(Subject, Updates)>>,
    _scope: Scope,
}

/// The names of a subscription's statistics, which those of whole kinds have behind `cds.`, `lds.`.
struct Names {
    attempt: &'static str,
    success: &'static str,
    failure: &'static str,
    rejected: &'static str,
    timeout: &'static str,
    time: &'static str,
    version: &'static str,
    text: &'static str,
    /// Where taking a resource over may change something, and is counted: how often, and when.
    reload: Option<(&'static str, &'static str)>,
}

macro_rules! names {
    ($prefix:literal, $reload:expr) => {
        Names {
            attempt: concat!($prefix, "update_attempt"),
            success: concat!($prefix, "update_success"),
            failure: concat!($prefix, "update_failure"),
            rejected: concat!($prefix, "update_rejected"),
            timeout: concat!($prefix, "init_fetch_timeout"),
            time: concat!($prefix, "update_time"),
            version: concat!($prefix, "version"),
            text: concat!($prefix, "version_text"),
            reload: $reload,
        }
    };
}

const CDS: Names = names!(
    "cds.",
    Some(("cds.config_reload", "cds.config_reload_time_ms"))
);
const LDS: Names = names!("lds.", None);
const NAMED: Names = names!("", None);
const RDS: Names = names!("", Some(("config_reload", "config_reload_time_ms")));

/// What is counted of one subscription.
struct Updates {
    attempt: Counter,
    success: Counter,
    failure: Counter,
    rejected: Counter,
    timeout: Counter,
    time: Number,
    version: Number,
    text: Text,
    reload: Option<(Counter, Number)>,
    _scope: Scope,
}

impl Updates {
    fn new(scope: Scope, names: &Names) -> Self {
        let reload = names
            .reload
            .map(|(count, time)| (scope.counter(count), scope.number(time)));
        Updates {
            attempt: scope.counter(names.attempt),
            success: scope.counter(names.success),
            failure: scope.counter(names.failure),
            rejected: scope.counter(names.rejected),
            timeout: scope.counter(names.timeout),
            time: scope.number(names.time),
            version: scope.number(names.version),
            text: scope.text(names.text),
            reload,
            _scope: scope,
        }
    }

    fn took(&self, outcome: &Outcome<'_>) {
        // The first attempt of a stream was counted when it was asked; this is the next.
        self.attempt.increment(1);
        if !outcome.accepted {
            self.rejected.increment(1);
            return;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = u64::try_from(now.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX);
        self.success.increment(1);
        self.time.set(now);
        // By this number operators see which proxies are at the same version: it is Envoy's.
        self.version
            .set(XxHash64::oneshot(0, outcome.version.as_bytes()));
        self.text.set(&Arc::from(outcome.version));
        if let Some((count, time)) = self.reload.as_ref().filter(|_| outcome.changed) {
            count.increment(1);
            time.set(now);
        }
    }
}

/// How a response fared.
pub struct Outcome<'a> {
    /// Its version.
    pub version: &'a str,
    /// All that it has was taken.
    pub accepted: bool,
    /// It has another content than what was there before.
    pub changed: bool,
}

impl DiscoveryStats {
    /// Resolves the handles; `clusters` and `listeners` say whether all of them are asked for.
    pub fn new(stats: &Stats, clusters: bool, listeners: bool) -> Self {
        let control_plane = stats.scope(Family::ControlPlane, "");
        let of = |asked: bool, family, names| {
            asked.then(|| Updates::new(stats.scope(family, ""), names))
        };
        DiscoveryStats {
            connected: control_plane.gauge("connected_state"),
            clusters: of(clusters, Family::ClusterManager, &CDS),
            listeners: of(listeners, Family::ListenerManager, &LDS),
            named: BTreeMap::new(),
            stats: stats.clone(),
            _scope: control_plane,
        }
    }

    /// The stream of the aggregated server opened or closed.
    pub fn connected(&self, connected: bool) {
        self.connected.set(if connected { 1.0 } else { 0.0 });
    }

    /// These names of a kind are wanted of an origin from now on: what is counted of others goes.
    /// `subjects` says whose statistics those of a name are.
    pub fn follow(
        &mut self,
        origin: OriginKey,
        kind: ResourceType,
        names: &BTreeSet<Arc<str>>,
        subjects: &BTreeMap<Arc<str>, BTreeSet<Subject>>,
    ) {
        let none = BTreeSet::new();
        self.named
            .retain(|(of, each, name), _| (*of, *each) != (origin, kind) || names.contains(name));
        let layout = if kind == ResourceType::Route {
            &RDS
        } else {
            &NAMED
        };
        for name in names {
            let wanted = subjects.get(name).unwrap_or(&none);
            let key = (origin, kind, name.clone());
            let present = self.named.entry(key).or_default();
            present.retain(|(subject, _)| wanted.contains(subject));
            for subject in wanted {
                if present.iter().all(|(known, _)| known != subject) {
                    let scope = self.stats.scope(subject.0, &subject.1);
                    present.push((subject.clone(), Updates::new(scope, layout)));
                }
            }
        }
    }

    /// What is counted of a kind as a whole, or of one name.
    fn each(&self, origin: OriginKey, kind: ResourceType, name: &str, act: impl Fn(&Updates)) {
        match kind {
            ResourceType::Cluster => self.clusters.iter().for_each(act),
            ResourceType::Listener => self.listeners.iter().for_each(act),
            _ => {
                let updates = self.named.get(&(origin, kind, Arc::from(name)));
                updates.into_iter().flatten().for_each(|(_, of)| act(of));
            }
        }
    }

    /// A server is asked.
    pub fn asked(&self, origin: OriginKey, kind: ResourceType, name: &str) {
        self.each(origin, kind, name, |updates| updates.attempt.increment(1));
    }

    /// A response was applied, or refused.
    pub fn update(&self, origin: OriginKey, kind: ResourceType, name: &str, outcome: &Outcome<'_>) {
        self.each(origin, kind, name, |updates| updates.took(outcome));
    }

    /// A server could not be reached, or its stream broke.
    pub fn failed(&self, origin: OriginKey, kind: ResourceType, name: &str) {
        self.each(origin, kind, name, |updates| {
            updates.failure.increment(1);
            updates.attempt.increment(1);
        });
    }

    /// It was waited for as long as is allowed.
    pub fn timed_out(&self, origin: OriginKey, kind: ResourceType, name: &str) {
        self.each(origin, kind, name, |updates| updates.timeout.increment(1));
    }
}

/// `cluster_manager.*` or `listener_manager.*`: what there is, and how it came about.
pub struct ManagerStats {
    pub clusters: Counts,
    pub listeners: Counts,
    pub listener_create_success: Counter,
    pub listener_create_failure: Counter,
    pub listener_in_place_updated: Counter,
    _scopes: [Scope; 2],
}

/// Of one kind.
pub struct Counts {
    pub added: Counter,
    pub modified: Counter,
    pub removed: Counter,
    pub active: Gauge,
    pub warming: Gauge,
}

impl ManagerStats {
    /// Resolves the handles.
    pub fn new(stats: &Stats) -> Self {
        let clusters = stats.scope(Family::ClusterManager, "");
        let listeners = stats.scope(Family::ListenerManager, "");
        // The threads are there before the first listener is in force.
        listeners.gauge("workers_started").set(1.0);
        ManagerStats {
            clusters: Counts {
                added: clusters.counter("cluster_added"),
                modified: clusters.counter("cluster_modified"),
                removed: clusters.counter("cluster_removed"),
                active: clusters.gauge("active_clusters"),
                warming: clusters.gauge("warming_clusters"),
            },
            listeners: Counts {
                added: listeners.counter("listener_added"),
                modified: listeners.counter("listener_modified"),
                removed: listeners.counter("listener_removed"),
                active: listeners.gauge("total_listeners_active"),
                warming: listeners.gauge("total_listeners_warming"),
            },
            listener_create_success: listeners.counter("listener_create_success"),
            listener_create_failure: listeners.counter("listener_create_failure"),
            listener_in_place_updated: listeners.counter("listener_in_place_updated"),
            _scopes: [clusters, listeners],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Registry;
    use crate::telemetry::metrics::pages::{Selection, text};

    #[test]
    fn a_subscription_is_counted_where_it_is_used_and_goes_with_its_name() {
        let registry = Registry::default();
        let mut stats = DiscoveryStats::new(&registry.thread(), true, false);
        let names = BTreeSet::from([Arc::from("local")]);
        let subject: Subject = (Family::HttpRoutes, "in.rds.local".into());
        let subjects = BTreeMap::from([(Arc::from("local"), BTreeSet::from([subject]))]);
        let outcome = |version, accepted| Outcome {
            version,
            accepted,
            changed: accepted,
        };
        let kind = ResourceType::Route;
        stats.follow(0, kind, &names, &subjects);
        stats.asked(0, kind, "local");
        stats.update(0, kind, "local", &outcome("", true));
        stats.update(0, kind, "local", &outcome("b", false));
        stats.update(1, kind, "local", &outcome("c", true));
        let page = text(&registry, &Selection::default());
        for line in [
            "http.in.rds.local.version_text: \"\"\n",
            "http.in.rds.local.update_attempt: 3\n",
            "http.in.rds.local.update_success: 1\n",
            "http.in.rds.local.update_rejected: 1\n",
            "http.in.rds.local.config_reload: 1\n",
            // What Envoy 1.40 shows for no version.
            "http.in.rds.local.version: 17241709254077376921\n",
            "cluster_manager.cds.update_success: 0\n",
        ] {
            assert!(page.contains(line), "{line}{page}");
        }
        stats.follow(0, kind, &BTreeSet::new(), &subjects);
        assert!(!text(&registry, &Selection::default()).contains("rds.local"));
    }
}
