//! connection_limit: at most so many connections of a filter chain at once.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::filters::Refusal;
use super::stats::ConnectionLimitStats;
use crate::config::network::ConnectionLimit;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;

/// The connections of one filter, over all workers.
#[derive(Debug, Default)]
pub struct OpenConnections(AtomicU64);

/// One of them, counted as long as this lives.
pub struct Permit {
    open: Arc<OpenConnections>,
    stats: Rc<ConnectionLimitStats>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.0.fetch_sub(1, Relaxed);
        self.stats.active_connections.decrement(1.0);
    }
}

/// Counts a connection, unless there are too many; `None` where the filter is switched off.
pub fn admit(worker: &Rc<Worker>, filter: &ConnectionLimit) -> Result<Option<Permit>, Refusal> {
    if filter
        .enabled
        .as_ref()
        .is_some_and(|enabled| !enabled.get())
    {
        return Ok(None);
    }
    let stats = worker.connection_limit_stats(&filter.stat_prefix);
    let more = |open: u64| (open < filter.max_connections).then_some(open + 1);
    if filter.open.0.fetch_update(Relaxed, Relaxed, more).is_err() {
        stats.limited_connections.increment(1);
        return Err(Refusal {
            reason: "over_connection_limit",
            flags: Flags::NONE,
            delay: filter.delay,
            lingers: false,
        });
    }
    stats.active_connections.increment(1.0);
    Ok(Some(Permit {
        open: filter.open.clone(),
        stats,
    }))
}
