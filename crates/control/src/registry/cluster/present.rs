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

impl Present {
    /// The answer to a write may come before or after what the watch tells, so an older version does
    /// not replace a newer (they are numbers: KEP-5504).
    fn gives_way_to(&self, other: &Self) -> bool {
        let number = |present: &Self| present.resource_version.parse::<u128>().ok();
        self != other && number(self) <= number(other)
    }
}

/// All of them, as they were last seen.
#[derive(Debug)]
pub struct Presents {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectRef, Present>,
    revision: u64,
}

impl Default for Presents {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Presents {
    /// Notes what the watch saw.
    pub fn see(&self, object: ObjectRef, present: Present) {
        let mut state = self.state();
        if let Some(before) = state.objects.get(&object)
            && !before.gives_way_to(&present)
        {
            return;
        }
        state.objects.insert(object, present);
        self.count(state);
    }

    /// Notes what a write was answered with. The object may be gone by then, and stays so: only the
    /// watch tells of new ones.
    pub fn wrote(&self, object: &ObjectRef, present: Present) {
        let mut state = self.state();
        if let Some(before) = state.objects.get_mut(object)
            && before.gives_way_to(&present)
        {
            *before = present;
            self.count(state);
        }
    }

    /// Notes that an object is gone.
    pub fn forget(&self, object: &ObjectRef) {
        let mut state = self.state();
        if state.objects.remove(object).is_some() {
            state.revision += 1;
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<(ObjectRef, Present)> {
        let state = self.state();
        let pairs = state.objects.iter();
        pairs
            .map(|(object, present)| (object.clone(), present.clone()))
            .collect()
    }

    /// Counts the changes of [`Presents::all`].
    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    /// Tells when something was seen that was not known.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn count(&self, mut state: MutexGuard<'_, State>) {
        state.revision += 1;
        drop(state);
        self.changed.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic can leave at most a change that is not counted.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::NamespacedName;

    #[test]
    fn the_answer_to_a_write_brings_nothing_back() {
        let object = ObjectRef {
            kind: "HTTPRoute",
            name: NamespacedName::new("shop", "r"),
        };
        let present = |version: &str| Present {
            resource: Arc::new(ApiResource {
                group: "gateway.networking.k8s.io".to_owned(),
                version: "v1".to_owned(),
                api_version: "gateway.networking.k8s.io/v1".to_owned(),
                kind: "HTTPRoute".to_owned(),
                plural: "httproutes".to_owned(),
            }),
            generation: 1,
            resource_version: version.to_owned(),
            status: Value::Null,
        };
        let presents = Presents::default();
        let version = || {
            let all = presents.all().into_iter();
            let mut versions = all.map(|(_, present)| present.resource_version);
            (versions.next(), presents.revision())
        };
        let some = |version: &str| Some(version.to_owned());
        presents.see(object.clone(), present("9"));
        presents.wrote(&object, present("10"));
        assert_eq!(version(), (some("10"), 2));
        presents.see(object.clone(), present("9"));
        presents.see(object.clone(), present("10"));
        presents.wrote(&object, present("8"));
        assert_eq!(version(), (some("10"), 2), "nothing new");
        presents.forget(&object);
        presents.wrote(&object, present("11"));
        assert_eq!(version(), (None, 3), "what is gone stays gone");
        presents.see(object.clone(), present("12"));
        assert_eq!(version(), (some("12"), 4), "until the watch tells of it");
    }
}
