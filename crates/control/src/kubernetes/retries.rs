//! When to try again what failed, each object by itself: one that always fails holds up no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::registry::ObjectRef;

/// The pause after a first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What failed last time.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<ObjectRef, Retry>);

#[derive(Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retries {
    /// Whether it is too early to try an object again.
    pub(super) fn is_early(&self, object: &ObjectRef, now: Instant) -> bool {
        self.0.get(object).is_some_and(|retry| now < retry.at)
    }

    /// It failed at `now`.
    pub(super) fn failed(&mut self, object: ObjectRef, now: Instant) {
        let before = self.0.get(&object);
        let pause = before.map_or(FIRST_PAUSE, |retry| (retry.pause * 2).min(LONGEST_PAUSE));
        let at = now + pause;
        self.0.insert(object, Retry { at, pause });
    }

    /// It went well.
    pub(super) fn succeeded(&mut self, object: &ObjectRef) {
        self.0.remove(object);
    }

    /// Forgets what is not to be done any more.
    pub(super) fn retain(&mut self, due: &BTreeSet<&ObjectRef>) {
        self.0.retain(|object, _| due.contains(object));
    }

    /// When the first is to be tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|retry| retry.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::NamespacedName;

    #[test]
    fn each_object_waits_for_itself_and_longer_each_time() {
        let object = |name: &str| ObjectRef {
            kind: "HTTPRoute",
            name: NamespacedName::new("shop", name),
        };
        let (a, b) = (object("a"), object("b"));
        let start = Instant::now();
        let (mut now, mut retries, mut pauses) = (start, Retries::default(), Vec::new());
        for _ in 0..7 {
            retries.failed(a.clone(), now);
            let next = retries.next().unwrap();
            assert!(retries.is_early(&a, now) && !retries.is_early(&a, next));
            assert!(!retries.is_early(&b, now), "the other does not wait");
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        retries.failed(b.clone(), start);
        assert_eq!(
            retries.next(),
            Some(start + FIRST_PAUSE),
            "the first of all"
        );
        retries.succeeded(&b);
        assert_eq!(retries.next(), Some(now));
        retries.retain(&BTreeSet::from([&b]));
        assert_eq!(retries.next(), None);
    }
}
