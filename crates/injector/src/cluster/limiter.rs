//! How many events are too many: pure, with the time as an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How many may be sent at once.
const BURST: f64 = 20.0;
/// How many a second, after that.
const RATE: f64 = 1.0;
/// The same is not sent again for this long.
const SAME: Duration = Duration::from_secs(60);
/// How many are remembered.
const REMEMBERED: usize = 1000;

/// A bucket of tokens, and a memory of what was sent lately.
#[derive(Debug)]
pub(super) struct Limiter<K> {
    tokens: f64,
    filled: Instant,
    sent: HashMap<K, Instant>,
}

impl<K: Eq + Hash> Limiter<K> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            filled: now,
            sent: HashMap::new(),
        }
    }

    /// Whether `key` may be sent now; if so, it counts as sent.
    pub(super) fn allows(&mut self, key: K, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled);
        self.tokens = (self.tokens + passed.as_secs_f64() * RATE).min(BURST);
        self.filled = now;
        let is_recent = |sent: &Instant| now.saturating_duration_since(*sent) < SAME;
        if self.sent.get(&key).is_some_and(is_recent) || self.tokens < 1.0 {
            return false;
        }
        if self.sent.len() >= REMEMBERED {
            self.sent.retain(|_, sent| is_recent(sent));
        }
        if self.sent.len() < REMEMBERED {
            self.sent.insert(key, now);
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_cut_and_the_same_is_said_once_a_minute() {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(limiter.allows(0, start));
        assert!(!limiter.allows(0, at(1)));
        let storm = (1..1000).filter(|key| limiter.allows(*key, at(1))).count();
        assert_eq!(storm, 20);
        assert!(limiter.allows(2000, at(2)));
        assert!(!limiter.allows(2001, at(2)));
        assert!(limiter.allows(0, at(61)));
        let calm = (3000..13_000).filter(|key| limiter.allows(*key, at(key * 2)));
        assert_eq!(calm.count(), 10_000);
        assert!(limiter.sent.len() <= REMEMBERED);
    }
}
