//! How many connections there are, and of whom.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many connections a port has at most.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// In all.
    pub total: usize,
    /// From one address of another machine, so that nobody keeps the others out. This machine may
    /// have all: on one without a cluster, it has all the sidecars.
    pub per_address: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 20_000,
            per_address: 64,
        }
    }
}

/// The places of a port's connections.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: ConnectionLimits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Places {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let taken = Mutex::default();
        Self(Arc::new(Shared { limits, taken }))
    }

    /// A place for a connection from an address; none when there are enough, of it or in all.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let (limits, address) = (self.0.limits, address.to_canonical());
        let mut taken = self.taken();
        let of_address = taken.by_address.get(&address).copied().unwrap_or_default();
        let enough = of_address >= limits.per_address && !address.is_loopback();
        if enough || taken.total >= limits.total {
            return None;
        }
        taken.total += 1;
        taken.by_address.insert(address, of_address + 1);
        drop(taken);
        Some(Place {
            places: self.clone(),
            address,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Every change is whole before the lock is let go.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.total -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_by_address_and_in_all_and_come_back() {
        let places = Places::new(ConnectionLimits {
            total: 5,
            per_address: 2,
        });
        let take = |address: &str| places.take(address.parse().unwrap());
        let mut held: Vec<_> = ["10.0.0.1", "::ffff:10.0.0.1"].map(take).into();
        assert!(held.iter().all(Option::is_some));
        assert!(take("10.0.0.1").is_none(), "it has enough");
        held.extend(["127.0.0.1", "127.0.0.1", "127.0.0.1"].map(take));
        assert!(
            held.iter().all(Option::is_some),
            "this machine may have more"
        );
        assert!(
            take("fd00::1").is_none() && take("127.0.0.1").is_none(),
            "all are taken"
        );
        held.remove(0);
        assert!(take("fd00::1").is_some());
        assert!(take("10.0.0.1").is_some());
        drop(held);
        let taken = places.taken();
        assert!(taken.total == 0 && taken.by_address.is_empty(), "{taken:?}");
    }
}
