//! A named place for one discovered resource: who needs it holds the slot, discovery fills it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

/// One resource, by name, that arrives later and changes while it is in use.
///
/// Readers on workers take [`Slot::load`], which is wait-free. Discovery holds slots weakly and
/// unsubscribes from what nothing refers to any more.
#[derive(Debug)]
pub struct Slot<T> {
    name: Arc<str>,
    value: ArcSwapOption<T>,
    changes: watch::Sender<u64>,
}

impl<T> Slot<T> {
    /// An empty slot: its resource has not come yet.
    pub fn empty(name: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Slot {
            name: name.into(),
            value: ArcSwapOption::empty(),
            changes: watch::Sender::new(0),
        })
    }

    /// A slot whose resource is part of the configuration that made it.
    pub fn filled(name: impl Into<Arc<str>>, value: Arc<T>) -> Arc<Self> {
        let slot = Self::empty(name);
        slot.value.store(Some(value));
        slot
    }

    /// The resource's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The present value.
    pub fn load(&self) -> Option<Arc<T>> {
        self.value.load_full()
    }

    /// The underlying cell, for readers that cache (`arc_swap::Cache`) or take a guard.
    pub fn cell(&self) -> &ArcSwapOption<T> {
        &self.value
    }

    /// Whether it has a value.
    pub fn is_filled(&self) -> bool {
        self.value.load().is_some()
    }

    /// Replaces the value and wakes who waits for changes.
    pub fn set(&self, value: Option<Arc<T>>) {
        self.value.store(value);
        self.changes.send_modify(|version| *version += 1);
    }

    /// As [`Slot::set`], for what is still the slot's first value: it does not count as another.
    pub fn set_first(&self, value: Option<Arc<T>>) {
        self.value.store(value);
        self.changes.send_modify(|_| {});
    }

    /// How many values came after the slot was made.
    pub fn replaced(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Resolves whenever the value was replaced since the receiver last looked.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
