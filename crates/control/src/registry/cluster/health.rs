//! How the watches are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How one watch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watching {
    /// What the server has is what we have.
    Live,
    /// The server does not know the kind.
    Missing,
    /// We may not read the kind.
    Forbidden,
    /// The server does not answer, or answers with errors: what was last read stays in force.
    Failing,
}

/// How the watches of all kinds are, for metrics; each change is told once.
#[derive(Debug, Default)]
pub struct Health {
    kinds: Mutex<BTreeMap<&'static str, KindHealth>>,
}

#[derive(Debug)]
struct KindHealth {
    watching: Watching,
    since: Instant,
}

impl Health {
    /// Notes how a watch is. Returns how long it was something else, if that is news.
    pub(super) fn note(
        &self,
        kind: &'static str,
        watching: Watching,
        now: Instant,
    ) -> Option<Duration> {
        let mut kinds = self.kinds();
        let present = kinds.get(kind);
        if present.is_some_and(|present| present.watching == watching) {
            return None;
        }
        let before = present.map_or(Duration::ZERO, |present| now - present.since);
        let since = now;
        kinds.insert(kind, KindHealth { watching, since });
        Some(before)
    }

    /// Writes the metrics.
    pub(crate) fn render(&self, text: &mut String, now: Instant) {
        type Row = (&'static str, &'static str, fn(&KindHealth, Instant) -> u64);
        let rows: [Row; 3] = [
            (
                "registry_synced",
                "Whether what the API server has of a kind is what is in force.",
                |kind, _| u64::from(kind.watching == Watching::Live),
            ),
            (
                "registry_available",
                "Whether a kind is installed and may be read.",
                |kind, _| u64::from(matches!(kind.watching, Watching::Live | Watching::Failing)),
            ),
            (
                "registry_stale_seconds",
                "For how long a kind could not be watched.",
                |kind, now| match kind.watching {
                    Watching::Failing => (now - kind.since).as_secs(),
                    _ => 0,
                },
            ),
        ];
        let kinds = self.kinds();
        for (name, help, value) in rows.iter().filter(|_| !kinds.is_empty()) {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "# HELP outrider_control_{name} {help}\n# TYPE outrider_control_{name} gauge\n"
            );
            for (kind, health) in kinds.iter() {
                let value = value(health, now);
                let _ = writeln!(text, "outrider_control_{name}{{kind=\"{kind}\"}} {value}");
            }
        }
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<&'static str, KindHealth>> {
        // Every change is one insertion.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_the_age_counts_from_it() {
        let (health, start) = (Health::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let note = |watching, seconds| health.note("Pod", watching, after(seconds));
        assert_eq!(note(Watching::Live, 0), Some(Duration::ZERO));
        assert_eq!(note(Watching::Live, 1), None);
        assert!(note(Watching::Failing, 2).is_some());
        assert_eq!(note(Watching::Failing, 3), None);
        let mut text = String::new();
        health.render(&mut text, after(9));
        assert!(text.contains("registry_synced{kind=\"Pod\"} 0"), "{text}");
        assert!(
            text.contains("registry_stale_seconds{kind=\"Pod\"} 7"),
            "{text}"
        );
        assert_eq!(note(Watching::Live, 10), Some(Duration::from_secs(8)));
    }
}
