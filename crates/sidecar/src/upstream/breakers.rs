//! Circuit breakers: how much of a cluster may be in use at once, counted over all workers.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::config::cluster::{Priority, RetryBudget, Thresholds};

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Connections to all endpoints.
    Connections,
    /// Requests and TCP connections that wait for a connection.
    Pending,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

impl Resource {
    /// All of them, in order.
    pub const ALL: [Resource; 4] = [
        Resource::Connections,
        Resource::Pending,
        Resource::Requests,
        Resource::Retries,
    ];
}

/// The breakers of one cluster. They outlive its configuration, so that what is in use stays
/// counted when the cluster is updated.
#[derive(Debug)]
pub struct CircuitBreakers([[Breaker; 4]; 2]);

#[derive(Debug)]
struct Breaker {
    used: AtomicU32,
    limit: AtomicU32,
}

impl CircuitBreakers {
    /// Breakers with nothing in use.
    pub fn new(thresholds: &[Thresholds; 2]) -> Self {
        let breaker = |limit| Breaker {
            used: AtomicU32::new(0),
            limit: AtomicU32::new(limit),
        };
        CircuitBreakers(thresholds.map(|thresholds| limits(&thresholds).map(breaker)))
    }

    /// Changes the limits. What is in use beyond them stays.
    pub fn set_limits(&self, thresholds: &[Thresholds; 2]) {
        for (breakers, thresholds) in self.0.iter().zip(thresholds) {
            for (breaker, limit) in breakers.iter().zip(limits(thresholds)) {
                breaker.limit.store(limit, Relaxed);
            }
        }
    }

    fn breaker(&self, priority: Priority, resource: Resource) -> &Breaker {
        &self.0[priority as usize][resource as usize]
    }

    /// How many are in use.
    pub fn used(&self, priority: Priority, resource: Resource) -> u32 {
        self.breaker(priority, resource).used.load(Relaxed)
    }

    /// How many may be.
    pub fn limit(&self, priority: Priority, resource: Resource) -> u32 {
        self.breaker(priority, resource).limit.load(Relaxed)
    }

    /// Whether no more may be used now.
    pub fn is_open(&self, priority: Priority, resource: Resource) -> bool {
        self.used(priority, resource) >= self.limit(priority, resource)
    }
}

fn limits(thresholds: &Thresholds) -> [u32; 4] {
    [
        thresholds.max_connections,
        thresholds.max_pending_requests,
        thresholds.max_requests,
        thresholds.max_retries,
    ]
}

/// One worker's way to the breakers. The outer count is the worker's own, so that taking a permit
/// touches one shared word only.
#[derive(Clone, Debug)]
#[allow(clippy::redundant_allocation)] // The outer count is what clones touch.
pub struct LocalBreakers(Rc<Arc<CircuitBreakers>>, Priority);

impl LocalBreakers {
    /// For one worker and priority.
    pub fn new(breakers: Arc<CircuitBreakers>, priority: Priority) -> Self {
        LocalBreakers(Rc::new(breakers), priority)
    }

    fn breaker(&self, resource: Resource) -> &Breaker {
        self.0.breaker(self.1, resource)
    }

    /// Takes one of the retries that a budget allows.
    pub fn acquire_within(&self, budget: &RetryBudget) -> Option<Permit> {
        let used = |resource| u64::from(self.breaker(resource).used.load(Relaxed));
        let in_flight = used(Resource::Requests) + used(Resource::Pending);
        let share = u64::from(budget.share) * in_flight / 10_000;
        if used(Resource::Retries) >= share.max(u64::from(budget.least)) {
            return None;
        }
        Some(self.acquire_beyond(Resource::Retries))
    }

    /// Takes one, unless the breaker is open.
    pub fn acquire(&self, resource: Resource) -> Option<Permit> {
        self.take(resource).then(|| self.permit(resource))
    }

    /// Takes one whether or not the breaker is open.
    pub fn acquire_beyond(&self, resource: Resource) -> Permit {
        self.take_beyond(resource);
        self.permit(resource)
    }

    fn permit(&self, resource: Resource) -> Permit {
        Permit {
            breakers: self.clone(),
            resource,
        }
    }

    /// Takes one, unless the breaker is open, for a holder that itself calls
    /// [`give_back`](Self::give_back) in the end.
    pub fn take(&self, resource: Resource) -> bool {
        let breaker = self.breaker(resource);
        let limit = breaker.limit.load(Relaxed);
        breaker
            .used
            .fetch_update(Relaxed, Relaxed, |used| (used < limit).then_some(used + 1))
            .is_ok()
    }

    /// Takes one like [`take`](Self::take), whether or not the breaker is open.
    pub fn take_beyond(&self, resource: Resource) {
        self.breaker(resource).used.fetch_add(1, Relaxed);
    }

    /// Gives back what was taken without a permit.
    pub fn give_back(&self, resource: Resource) {
        self.breaker(resource).used.fetch_sub(1, Relaxed);
    }
}

/// One in use; dropping it gives it back.
#[derive(Debug)]
pub struct Permit {
    breakers: LocalBreakers,
    resource: Resource,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breakers.give_back(self.resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds(max: u32) -> [Thresholds; 2] {
        let default = Thresholds {
            max_connections: max,
            max_pending_requests: max,
            max_requests: max,
            max_retries: max,
            ..Thresholds::default()
        };
        [default, default]
    }

    const DEFAULT: Priority = Priority::Default;

    #[test]
    fn permits_are_bounded_returned_and_survive_new_limits() {
        let shared = Arc::new(CircuitBreakers::new(&thresholds(2)));
        let (one, other) = (
            LocalBreakers::new(shared.clone(), DEFAULT),
            LocalBreakers::new(shared.clone(), DEFAULT),
        );
        let first = one.acquire(Resource::Requests);
        let second = other.acquire(Resource::Requests);
        assert!(first.is_some() && second.is_some());
        assert!(one.acquire(Resource::Requests).is_none());
        assert!(
            one.acquire(Resource::Pending).is_some(),
            "each its own count"
        );
        drop(first);
        assert!(one.acquire(Resource::Requests).is_some());

        shared.set_limits(&thresholds(1));
        assert!(shared.is_open(DEFAULT, Resource::Requests));
        assert!(one.acquire(Resource::Requests).is_none());
        let beyond = one.acquire_beyond(Resource::Requests);
        assert_eq!(shared.used(DEFAULT, Resource::Requests), 2);
        drop((beyond, second));
        assert_eq!(shared.used(DEFAULT, Resource::Requests), 0);
    }

    #[test]
    fn priorities_do_not_use_up_each_other() {
        let shared = Arc::new(CircuitBreakers::new(&thresholds(1)));
        let [low, high] =
            Priority::ALL.map(|priority| LocalBreakers::new(shared.clone(), priority));
        let held = low.acquire(Resource::Connections);
        assert!(held.is_some() && low.acquire(Resource::Connections).is_none());
        assert!(high.acquire(Resource::Connections).is_some());
    }

    #[test]
    fn a_budget_is_a_share_of_what_is_in_flight() {
        let shared = Arc::new(CircuitBreakers::new(&thresholds(1000)));
        let local = LocalBreakers::new(shared, DEFAULT);
        let budget = RetryBudget {
            share: 2000,
            least: 2,
        };
        let retries =
            || -> Vec<_> { std::iter::from_fn(|| local.acquire_within(&budget)).collect() };
        assert_eq!(retries().len(), 2);
        let _busy: Vec<_> = (0..50)
            .filter_map(|_| local.acquire(Resource::Requests))
            .collect();
        assert_eq!(retries().len(), 10);
    }

    #[test]
    fn the_limit_holds_over_threads() {
        let shared = Arc::new(CircuitBreakers::new(&thresholds(10)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let local = LocalBreakers::new(shared.clone(), DEFAULT);
                    for _ in 0..2000 {
                        let held: Vec<_> = (0..5)
                            .filter_map(|_| local.acquire(Resource::Connections))
                            .collect();
                        assert!(shared.used(DEFAULT, Resource::Connections) <= 10);
                        drop(held);
                    }
                })
            })
            .collect();
        for thread in threads {
            assert!(thread.join().is_ok());
        }
        assert_eq!(shared.used(DEFAULT, Resource::Connections), 0);
    }
}
