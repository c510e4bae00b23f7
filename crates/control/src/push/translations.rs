//! The mesh in place, and its translations that proxies share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use arc_swap::ArcSwap;

use crate::mesh::MeshState;
use crate::translate::{Outbound, OutboundKey};

use super::client::Client;

/// One state of the mesh.
#[derive(Debug)]
struct Generation {
    number: u64,
    mesh: Arc<MeshState>,
}

/// What proxies of one key share, as of a generation.
#[derive(Debug)]
struct Shared {
    generation: u64,
    outbound: Outbound,
}

/// Of one key: none before its first proxy. Its lock is held for as long as it is translated, and
/// holds up the proxies of its key only.
type Slot = Arc<Mutex<Option<Shared>>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Translations {
    generation: ArcSwap<Generation>,
    slots: Mutex<HashMap<OutboundKey, Slot>>,
}

impl Translations {
    /// Starts with a mesh.
    pub(super) fn new(mesh: MeshState) -> Self {
        let mesh = Arc::new(mesh);
        Self {
            generation: ArcSwap::from_pointee(Generation { number: 1, mesh }),
            slots: Mutex::default(),
        }
    }

    /// The mesh that is in place.
    pub(super) fn mesh(&self) -> Arc<MeshState> {
        Arc::clone(&self.generation.load().mesh)
    }

    /// Puts another mesh in place; tells its number. One caller at a time.
    pub(super) fn replace(&self, mesh: MeshState) -> u64 {
        let number = self.generation.load().number + 1;
        let mesh = Arc::new(mesh);
        self.generation.store(Arc::new(Generation { number, mesh }));
        number
    }

    /// Gives a proxy the present state. Translates on the calling thread.
    pub(super) fn refresh(&self, client: &Client) {
        loop {
            let generation = self.generation.load_full();
            let Generation { number, mesh } = &*generation;
            let key = OutboundKey::of(mesh, client.proxy());
            let slot = Arc::clone(self.slots().entry(key.clone()).or_default());
            let mut slot = lock(&slot);
            let shared = slot.get_or_insert_with(|| Shared {
                generation: *number,
                outbound: Outbound::new(mesh, key),
            });
            if shared.generation > *number {
                // Another proxy's turn has brought a newer state meanwhile: what is shared never
                // goes back to an older one.
                continue;
            }
            if shared.generation < *number {
                shared.generation = *number;
                shared.outbound.update(mesh);
            }
            client.refresh(*number, mesh, &shared.outbound);
            return;
        }
    }

    /// Forgets what was not brought up to a generation: no proxy uses it any more.
    pub(super) fn forget_before(&self, number: u64) {
        self.slots().retain(|_, slot| match slot.try_lock() {
            Ok(slot) => slot
                .as_ref()
                .is_some_and(|shared| shared.generation >= number),
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Poisoned(_)) => false,
        });
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<OutboundKey, Slot>> {
        // Every change is whole before the lock is let go.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(slot: &Slot) -> MutexGuard<'_, Option<Shared>> {
    // What a panic left half up to date must not be used: it is made anew.
    slot.lock().unwrap_or_else(|poisoned| {
        let mut shared = poisoned.into_inner();
        *shared = None;
        slot.clear_poison();
        shared
    })
}
