//! `server.*`: the process as a whole.

use std::time::Instant;

use metrics::Gauge;

use crate::runtime::lifecycle::{Lifecycle, Stage};
use crate::telemetry::metrics::{Family, Scope, Stats};

/// Gauges of the control thread, under Envoy's names.
pub struct ServerStats {
    live: Gauge,
    state: Gauge,
    uptime: Gauge,
    started: Instant,
    _scope: Scope,
}

impl ServerStats {
    /// Resolves the handles.
    pub fn new(stats: &Stats, workers: usize) -> Self {
        let scope = stats.scope(Family::Server, "");
        scope.gauge("concurrency").set(workers as f64);
        ServerStats {
            live: scope.gauge("live"),
            state: scope.gauge("state"),
            uptime: scope.gauge("uptime"),
            started: Instant::now(),
            _scope: scope,
        }
    }

    /// Brings them up to date.
    pub fn update(&self, lifecycle: &Lifecycle) {
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
    }
}
