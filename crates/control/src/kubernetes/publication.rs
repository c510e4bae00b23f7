//! Which namespaces need the trust bundle written, and when. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

/// How many writes are under way at most.
const PARALLEL: usize = 8;
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct State {
    /// The namespace exists and does not go away.
    is_active: bool,
    /// The bundle in it is as it should be, as far as was seen.
    is_right: bool,
    writing: bool,
    /// Something changed while it was being written.
    is_stale: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl State {
    fn needs_write(&self) -> bool {
        self.is_active && !self.is_right && !self.writing
    }
}

/// What is known of every namespace and of the bundle in it.
#[derive(Debug, Default)]
pub(super) struct Publication {
    states: BTreeMap<String, State>,
    namespaces: Listing,
    bundles: Listing,
}

/// A list that is being read anew: what is not in it is gone.
#[derive(Debug, Default)]
struct Listing {
    was_read: bool,
    reading: Option<BTreeSet<String>>,
}

impl Listing {
    fn begin(&mut self) {
        self.reading = Some(BTreeSet::new());
    }

    fn see(&mut self, name: &str) {
        if let Some(reading) = &mut self.reading {
            reading.insert(name.to_owned());
        }
    }

    fn end(&mut self) -> BTreeSet<String> {
        self.was_read = true;
        self.reading.take().unwrap_or_default()
    }
}

impl Publication {
    /// The namespaces are listed anew.
    pub(super) fn begin_namespaces(&mut self) {
        self.namespaces.begin();
    }

    /// All of them were seen.
    pub(super) fn end_namespaces(&mut self) {
        let seen = self.namespaces.end();
        self.states
            .retain(|name, state| seen.contains(name) || state.writing);
        for (_, state) in self
            .states
            .iter_mut()
            .filter(|(name, _)| !seen.contains(*name))
        {
            state.is_active = false;
        }
    }

    /// A namespace exists; it is not active when it goes away or is gone.
    pub(super) fn namespace(&mut self, name: &str, is_active: bool) {
        self.namespaces.see(name);
        if is_active {
            self.states.entry(name.to_owned()).or_default().is_active = true;
        } else if let Some(state) = self.states.get_mut(name) {
            state.is_active = false;
            self.forget(name);
        }
    }

    /// The bundles are listed anew.
    pub(super) fn begin_bundles(&mut self) {
        self.bundles.begin();
    }

    /// All of them were seen.
    pub(super) fn end_bundles(&mut self) {
        let seen = self.bundles.end();
        for (_, state) in self
            .states
            .iter_mut()
            .filter(|(name, _)| !seen.contains(*name))
        {
            state.is_right = false;
            state.is_stale = true;
        }
    }

    /// The bundle of a namespace was seen. One that is gone is not right.
    pub(super) fn bundle(&mut self, namespace: &str, is_right: bool) {
        self.bundles.see(namespace);
        // It may be seen before its namespace.
        let state = self.states.entry(namespace.to_owned()).or_default();
        state.is_right = is_right;
        state.is_stale |= !is_right;
        if is_right {
            state.failures = 0;
            state.not_before = None;
        }
        self.forget(namespace);
    }

    /// All bundles have to be written anew.
    pub(super) fn outdate(&mut self) {
        for state in self.states.values_mut() {
            state.is_right = false;
            state.is_stale = true;
        }
    }

    /// The namespaces to write to now; each write is to be reported. None before both lists were
    /// read: most bundles are right.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        if !self.namespaces.was_read || !self.bundles.was_read {
            return Vec::new();
        }
        let writing = self.states.values().filter(|state| state.writing).count();
        let due = self.states.iter_mut().filter(|(_, state)| {
            state.needs_write() && state.not_before.is_none_or(|instant| instant <= now)
        });
        due.take(PARALLEL.saturating_sub(writing))
            .map(|(name, state)| {
                state.writing = true;
                state.is_stale = false;
                name.clone()
            })
            .collect()
    }

    /// When the next failed write is to be tried again.
    pub(super) fn wake(&self) -> Option<Instant> {
        let waiting = self.states.values().filter(|state| state.needs_write());
        waiting.filter_map(|state| state.not_before).min()
    }

    /// A write succeeded.
    pub(super) fn wrote(&mut self, namespace: &str) {
        if let Some(state) = self.states.get_mut(namespace) {
            state.writing = false;
            state.is_right = !state.is_stale;
            state.failures = 0;
            state.not_before = None;
        }
        self.forget(namespace);
    }

    /// A write failed.
    pub(super) fn failed(&mut self, namespace: &str, now: Instant) {
        if let Some(state) = self.states.get_mut(namespace) {
            state.writing = false;
            let pause = FIRST_PAUSE.saturating_mul(1 << state.failures.min(10));
            state.failures = state.failures.saturating_add(1);
            state.not_before = Some(now + pause.min(LONGEST_PAUSE));
        }
        self.forget(namespace);
    }

    /// How many active namespaces have the right bundle.
    pub(super) fn right(&self) -> usize {
        let states = self.states.values();
        states
            .filter(|state| state.is_active && state.is_right)
            .count()
    }

    /// Forgets a namespace that is gone, and of which nothing is awaited.
    fn forget(&mut self, name: &str) {
        let gone = |state: &State| !state.is_active && !state.writing && !state.is_right;
        // Before the namespaces were listed, a bundle may be all that was seen.
        if self.namespaces.was_read && self.states.get(name).is_some_and(gone) {
            self.states.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With these namespaces, and right bundles in some of them.
    fn read(names: &[&str], right: &[&str]) -> Publication {
        let mut publication = Publication::default();
        publication.begin_bundles();
        publication.begin_namespaces();
        for name in right {
            publication.bundle(name, true);
        }
        for name in names {
            publication.namespace(name, true);
        }
        assert!(publication.due(Instant::now()).is_empty(), "not read yet");
        publication.end_bundles();
        publication.end_namespaces();
        publication
    }

    #[test]
    fn what_is_missing_is_written_and_what_is_right_is_left_alone() {
        let now = Instant::now();
        let mut publication = read(&["a", "b", "c"], &["b"]);
        assert_eq!(publication.due(now), ["a", "c"]);
        assert!(publication.due(now).is_empty(), "they are under way");
        publication.wrote("a");
        publication.wrote("c");
        assert_eq!(publication.right(), 3);
        // Our own writes come back over the watch.
        publication.bundle("a", true);
        publication.namespace("d", true);
        assert_eq!(publication.due(now), ["d"]);
        publication.wrote("d");
        // Somebody spoils one and deletes another.
        publication.bundle("b", false);
        publication.bundle("d", false);
        assert_eq!(publication.due(now), ["b", "d"]);
        publication.wrote("b");
        publication.wrote("d");
        publication.outdate();
        assert_eq!(publication.due(now).len(), 4);
    }

    #[test]
    fn a_change_during_a_write_is_not_lost() {
        let now = Instant::now();
        let mut publication = read(&["a"], &[]);
        assert_eq!(publication.due(now), ["a"]);
        publication.bundle("a", false);
        publication.wrote("a");
        assert_eq!(
            publication.due(now),
            ["a"],
            "it may have come after our write"
        );
        publication.outdate();
        publication.wrote("a");
        assert_eq!(publication.due(now), ["a"], "another bundle is wanted");
        publication.wrote("a");
        assert!(publication.due(now).is_empty());
    }

    #[test]
    fn failures_wait_longer_and_longer_and_hold_up_nobody() {
        let mut now = Instant::now();
        let mut publication = read(&["a", "b"], &[]);
        assert_eq!(publication.due(now).len(), 2);
        publication.wrote("b");
        let mut pauses = Vec::new();
        for _ in 0..9 {
            publication.failed("a", now);
            assert!(publication.due(now).is_empty());
            let wake = publication.wake().unwrap();
            pauses.push((wake - now).as_millis());
            now = wake;
            assert_eq!(publication.due(now), ["a"]);
            assert_eq!(publication.wake(), None);
        }
        assert_eq!(pauses[..3], [500, 1000, 2000]);
        assert_eq!(pauses[7..], [30_000, 30_000]);
    }

    #[test]
    fn namespaces_that_go_are_left_alone_and_forgotten() {
        let now = Instant::now();
        let mut publication = read(&["a", "b", "c"], &["b"]);
        publication.namespace("a", false);
        assert_eq!(publication.due(now), ["c"]);
        publication.namespace("c", false);
        publication.failed("c", now);
        publication.namespace("b", false);
        publication.bundle("b", false);
        assert!(publication.due(now + LONGEST_PAUSE).is_empty());
        assert!(publication.wake().is_none() && publication.states.is_empty());
        // After a break of the watch.
        let mut publication = read(&["a", "b"], &["a", "b"]);
        publication.begin_namespaces();
        publication.namespace("b", true);
        publication.end_namespaces();
        publication.begin_bundles();
        publication.end_bundles();
        assert_eq!(publication.due(now), ["b"]);
    }

    #[test]
    fn a_thousand_namespaces_are_written_a_few_at_a_time() {
        let names: Vec<String> = (0..1000).map(|number| format!("n{number:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut publication = read(&names, &[]);
        let mut rounds = 0;
        loop {
            let due = publication.due(Instant::now());
            if due.is_empty() {
                break;
            }
            assert!(due.len() <= PARALLEL);
            rounds += 1;
            for name in due {
                publication.wrote(&name);
            }
        }
        assert_eq!((rounds, publication.right()), (125, 1000));
    }
}
