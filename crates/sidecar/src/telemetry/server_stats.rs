//! `server.*`: the process as a whole.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use metrics::{Counter, Gauge, Histogram};

use crate::runtime::lifecycle::{Lifecycle, Stage};
use crate::runtime::memory::Memory;
use crate::runtime::snapshot::Snapshot;
use crate::runtime_layer;
use crate::telemetry::certificate_stats::CertificateStats;
use crate::telemetry::metrics::{Family, Scope, Stats};

/// Gauges of the control thread, under Envoy's names.
pub struct ServerStats {
    live: Gauge,
    state: Gauge,
    uptime: Gauge,
    started: Instant,
    memory_allocated: Gauge,
    memory_heap_size: Gauge,
    memory_physical_size: Gauge,
    total_connections: Gauge,
    initialization: Histogram,
    /// Whether how long the start took was recorded.
    initialized: AtomicBool,
    runtime: RuntimeStats,
    certificates: CertificateStats,
    _scope: Scope,
}

/// Envoy's number of a version is that of its commit; ours has two digits each for minor and patch.
fn number_of(version: &str) -> u64 {
    let parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    parts.fold(0, |number, part: u64| number * 100 + part)
}

/// `runtime.*`
struct RuntimeStats {
    overrides: Gauge,
    keys: Gauge,
    layers: Gauge,
    loads: Counter,
    failures: Counter,
    _scope: Scope,
}

impl RuntimeStats {
    fn new(stats: &Stats) -> Self {
        let scope = stats.scope(Family::Runtime, "");
        RuntimeStats {
            overrides: scope.gauge("admin_overrides_active"),
            keys: scope.gauge("num_keys"),
            layers: scope.gauge("num_layers"),
            loads: scope.counter("load_success"),
            failures: scope.counter("load_error"),
            _scope: scope,
        }
    }

    fn update(&self, runtime: &runtime_layer::Runtime) {
        let layers = runtime.layers();
        let keys: BTreeSet<&String> = layers.iter().flat_map(|l| l.values.keys()).collect();
        let overridden = layers.iter().any(|l| l.is_admin && !l.values.is_empty());
        self.overrides.set(if overridden { 1.0 } else { 0.0 });
        self.keys.set(keys.len() as f64);
        self.layers.set(layers.len() as f64);
        let (loads, failures) = runtime.loads();
        self.loads.absolute(loads);
        self.failures.absolute(failures);
    }
}

impl ServerStats {
    /// Resolves the handles. `version` is `stats_server_version_override`.
    pub fn new(stats: &Stats, workers: usize, version: Option<u64>, epoch: u32) -> Self {
        let scope = stats.scope(Family::Server, "");
        scope.gauge("hot_restart_epoch").set(f64::from(epoch));
        scope.gauge("concurrency").set(workers as f64);
        let version = version.unwrap_or_else(|| number_of(env!("CARGO_PKG_VERSION")));
        scope.gauge("version").set(version as f64);
        ServerStats {
            live: scope.gauge("live"),
            state: scope.gauge("state"),
            uptime: scope.gauge("uptime"),
            started: Instant::now(),
            runtime: RuntimeStats::new(stats),
            certificates: CertificateStats::new(stats, &scope),
            memory_allocated: scope.gauge("memory_allocated"),
            memory_heap_size: scope.gauge("memory_heap_size"),
            memory_physical_size: scope.gauge("memory_physical_size"),
            total_connections: scope.gauge("total_connections"),
            initialization: scope.histogram("initialization_time_ms"),
            initialized: AtomicBool::new(false),
            _scope: scope,
        }
    }

    /// Brings them up to date. `open` is how many connections of clients are open.
    pub fn update(&self, lifecycle: &Lifecycle, open: usize, snapshot: &Snapshot) {
        self.certificates.update(snapshot, SystemTime::now());
        self.total_connections.set(open as f64);
        if let Some(took) = lifecycle.took()
            && !self.initialized.swap(true, Relaxed)
        {
            self.initialization.record(took.as_millis() as f64);
        }
        let stage = lifecycle.stage();
        self.live.set(if stage == Stage::Live { 1.0 } else { 0.0 });
        // ServerInfo.State: LIVE 0, DRAINING 1, PRE_INITIALIZING 2, INITIALIZING 3
        self.state.set(match stage {
            Stage::Live => 0.0,
            Stage::Draining => 1.0,
            Stage::PreInitializing => 2.0,
            Stage::Initializing => 3.0,
        });
        self.uptime.set(self.started.elapsed().as_secs_f64());
        let memory = Memory::now();
        self.memory_allocated.set(memory.data as f64);
        self.memory_heap_size.set(memory.data as f64);
        self.memory_physical_size.set(memory.resident as f64);
        self.runtime.update(runtime_layer::of_process());
    }
}
