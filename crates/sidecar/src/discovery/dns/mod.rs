//! Names of endpoints to their addresses, again and again, for as long as a cluster needs them.
//!
//! Each cluster of type STRICT_DNS or LOGICAL_DNS has one task on the control thread. It fills the
//! cluster's slot, from which the workers take their endpoints like those of EDS, and ends when
//! nobody holds the slot any more. What the answers mean is decided in [`hosts`] and [`refresh`],
//! which do no I/O; [`resolve`](super::resolve) asks.

mod hosts;
mod refresh;

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use metrics::Counter;
use tokio::sync::{Notify, watch};

use self::hosts::{Answer, Change, Hosts};
use super::resolve::{self, Found};
use super::slot::Slot;
use crate::config::cluster::{AssignmentSource, Cluster, ClusterDiscovery};
use crate::config::dns::{Dns, Name};
use crate::config::endpoint::LoadAssignment;
use crate::telemetry::metrics::{Family, Scope, Stats};

/// The lookups of all clusters.
pub struct Lookups {
    stats: Stats,
    running: Vec<Running>,
    answered: Arc<Notify>,
}

struct Running {
    slot: Weak<Slot<LoadAssignment>>,
    /// Keeps its counters alive.
    _scope: Scope,
}

/// `cluster.<name>.update_*`
struct Counters {
    attempt: Counter,
    success: Counter,
    failure: Counter,
    no_rebuild: Counter,
}

impl Lookups {
    /// None yet.
    pub fn new(stats: Stats) -> Self {
        Lookups {
            stats,
            running: Vec::new(),
            answered: Arc::default(),
        }
    }

    /// Is told whenever a cluster has its first answer, so that it may be warm now.
    pub fn answered(&self) -> Arc<Notify> {
        self.answered.clone()
    }

    /// Starts to look up the names of a cluster, if it has any and that was not done before.
    pub fn start(&mut self, cluster: &Cluster) {
        let ClusterDiscovery::Assignment {
            slot,
            source: AssignmentSource::Dns(dns),
        } = &cluster.discovery
        else {
            return;
        };
        self.running
            .retain(|running| running.slot.strong_count() > 0);
        let known = |running: &Running| std::ptr::eq(running.slot.as_ptr(), Arc::as_ptr(slot));
        if self.running.iter().any(known) {
            return;
        }
        let scope = self.stats.scope(Family::Cluster, &cluster.stat_name);
        let counters = Counters {
            attempt: scope.counter("update_attempt"),
            success: scope.counter("update_success"),
            failure: scope.counter("update_failure"),
            no_rebuild: scope.counter("update_no_rebuild"),
        };
        let weak = Arc::downgrade(slot);
        tokio::spawn(keep(
            cluster.name.clone(),
            dns.clone(),
            weak.clone(),
            slot.changes(),
            counters,
            self.answered.clone(),
        ));
        self.running.push(Running {
            slot: weak,
            _scope: scope,
        });
    }
}

/// Keeps the endpoints of one cluster, until its slot has gone.
async fn keep(
    cluster: Arc<str>,
    dns: Arc<Dns>,
    slot: Weak<Slot<LoadAssignment>>,
    mut changes: watch::Receiver<u64>,
    counters: Counters,
    answered: Arc<Notify>,
) {
    let mut hosts = Hosts::new(dns.clone());
    let ask = |index: usize, name: Name, wait: Duration| {
        let (settings, attempt) = (&dns.lookup, &counters.attempt);
        async move {
            tokio::time::sleep(wait).await;
            attempt.increment(1);
            (index, resolve::resolve(&name.host, settings).await, name)
        }
    };
    let mut lookups = FuturesUnordered::new();
    let names: Vec<Name> = hosts.names().cloned().collect();
    for (index, name) in names.into_iter().enumerate() {
        lookups.push(ask(index, name, Duration::ZERO));
    }
    loop {
        let (index, outcome, name) = tokio::select! {
            answer = lookups.next() => match answer {
                Some(answer) => answer,
                // Nothing but addresses: they do not change.
                None => return,
            },
            changed = changes.changed() => match changed {
                Ok(()) => continue,
                // The cluster has gone.
                Err(_) => return,
            },
        };
        let Some(slot) = slot.upgrade() else { return };
        let answer = match outcome {
            Ok(Found { addresses, ttl }) => Answer::Addresses(addresses, ttl),
            Err(error) if error.says_no() => Answer::Addresses(Vec::new(), None),
            Err(error) => {
                tracing::warn!(%cluster, %error, "the endpoints stay as they are");
                Answer::Unknown
            }
        };
        let (change, wait) = hosts.answered(index, answer, rand::random());
        match change {
            Change::Failed => counters.failure.increment(1),
            Change::Same => {
                counters.success.increment(1);
                counters.no_rebuild.increment(1);
            }
            Change::Updated => counters.success.increment(1),
        }
        if change == Change::Updated || !slot.is_filled() {
            let first = !slot.is_filled();
            slot.set(Some(Arc::new(hosts.assignment())));
            if first {
                answered.notify_one();
            }
        }
        if name.host.parse::<IpAddr>().is_err() {
            lookups.push(ask(index, name, wait));
        }
    }
}
