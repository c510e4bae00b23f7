//! What the server has of the objects that get a status from us.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::core::ApiResource;
use serde_json::Value;
use tokio::sync::watch;

use crate::registry::ObjectRef;

/// An object beside what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Present {
    /// How requests name its kind.
    pub resource: Arc<ApiResource>,
    /// Counts the changes of what it says.
    pub generation: i64,
    /// Changes with every write to it.
    pub resource_version: String,
    /// Its status; null when it has none.
    pub status: Value,
}

/// All of them, as they were last seen.
#[derive(Debug)]
pub struct Presents {
    objects: Mutex<BTreeMap<ObjectRef, Present>>,
    changed: watch::Sender<()>,
}

impl Default for Presents {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Presents {
    /// Notes what was seen. The answer to a write may come after what the watch tells of a later
    /// one, so an older version does not replace a newer (they are numbers: KEP-5504).
    pub fn see(&self, object: ObjectRef, present: Present) {
        let mut objects = self.objects();
        let number = |present: &Present| present.resource_version.parse::<u128>().ok();
        if let Some(before) = objects.get(&object)
            && (*before == present || number(before) > number(&present))
        {
            return;
        }
        objects.insert(object, present);
        drop(objects);
        self.changed.send_replace(());
    }

    /// Notes that an object is gone.
    pub fn forget(&self, object: &ObjectRef) {
        self.objects().remove(object);
    }

    /// All of them.
    pub fn all(&self) -> Vec<(ObjectRef, Present)> {
        let objects = self.objects();
        let pairs = objects.iter();
        pairs
            .map(|(object, present)| (object.clone(), present.clone()))
            .collect()
    }

    /// Tells when something was seen that was not known.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectRef, Present>> {
        // Every change is one insertion or removal.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
