//! Circuit breakers: how much of a cluster may be in use at once, counted over all workers.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::config::cluster::Thresholds;

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

/// The breakers of one cluster. They outlive its configuration, so that what is in use stays
/// counted when the cluster is updated.
#[derive(Debug)]
pub struct CircuitBreakers([Breaker; 4]);

#[derive(Debug)]
struct Breaker {
    used: AtomicU32,
    limit: AtomicU32,
}

impl CircuitBreakers {
    /// Breakers with nothing in use.
    pub fn new(thresholds: &Thresholds) -> Self {
        let limits = limits(thresholds);
        CircuitBreakers(limits.map(|limit| Breaker {
            used: AtomicU32::new(0),
            limit: AtomicU32::new(limit),
        }))
    }

    /// Changes the limits. What is in use beyond them stays.
    pub fn set_limits(&self, thresholds: &Thresholds) {
        for (breaker, limit) in self.0.iter().zip(limits(thresholds)) {
            breaker.limit.store(limit, Relaxed);
        }
    }

    fn breaker(&self, resource: Resource) -> &Breaker {
        &self.0[resource as usize]
    }

    /// How many are in use.
    pub fn used(&self, resource: Resource) -> u32 {
        self.breaker(resource).used.load(Relaxed)
    }

    /// How many may be.
    pub fn limit(&self, resource: Resource) -> u32 {
        self.breaker(resource).limit.load(Relaxed)
    }

    /// Whether no more may be used now.
    pub fn is_open(&self, resource: Resource) -> bool {
        self.used(resource) >= self.limit(resource)
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
pub struct LocalBreakers(Rc<Arc<CircuitBreakers>>);

impl LocalBreakers {
    /// For one worker.
    pub fn new(breakers: Arc<CircuitBreakers>) -> Self {
        LocalBreakers(Rc::new(breakers))
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
        let breaker = self.0.breaker(resource);
        let limit = breaker.limit.load(Relaxed);
        breaker
            .used
            .fetch_update(Relaxed, Relaxed, |used| (used < limit).then_some(used + 1))
            .is_ok()
    }

    /// Takes one like [`take`](Self::take), whether or not the breaker is open.
    pub fn take_beyond(&self, resource: Resource) {
        self.0.breaker(resource).used.fetch_add(1, Relaxed);
    }

    /// Gives back what was taken without a permit.
    pub fn give_back(&self, resource: Resource) {
        self.0.breaker(resource).used.fetch_sub(1, Relaxed);
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

    fn thresholds(max: u32) -> Thresholds {
        Thresholds {
            max_connections: max,
            max_pending_requests: max,
            max_requests: max,
            max_retries: max,
        }
    }

    #[test]
    fn permits_are_bounded_returned_and_survive_new_limits() {
        let shared = Arc::new(CircuitBreakers::new(&thresholds(2)));
        let (one, other) = (
            LocalBreakers::new(shared.clone()),
            LocalBreakers::new(shared.clone()),
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
        assert!(shared.is_open(Resource::Requests));
        assert!(one.acquire(Resource::Requests).is_none());
        let beyond = one.acquire_beyond(Resource::Requests);
        assert_eq!(shared.used(Resource::Requests), 2);
        drop((beyond, second));
        assert_eq!(shared.used(Resource::Requests), 0);
    }

    #[test]
    fn the_limit_holds_over_threads() {
        let shared = Arc::new(CircuitBreakers::new(&thresholds(10)));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || {
                    let local = LocalBreakers::new(shared.clone());
                    for _ in 0..2000 {
                        let held: Vec<_> = (0..5)
                            .filter_map(|_| local.acquire(Resource::Connections))
                            .collect();
                        assert!(shared.used(Resource::Connections) <= 10);
                        drop(held);
                    }
                })
            })
            .collect();
        for thread in threads {
            assert!(thread.join().is_ok());
        }
        assert_eq!(shared.used(Resource::Connections), 0);
    }
}
