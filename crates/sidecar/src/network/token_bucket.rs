//! A token bucket that all workers draw from without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// `TokenBucket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refill {
    /// `max_tokens`: so many it holds, and begins with.
    pub max_tokens: u32,
    /// `tokens_per_fill`, 1 unless set.
    pub tokens_per_fill: u32,
    /// `fill_interval`
    pub fill_interval: Duration,
}

/// Tokens come evenly: `tokens_per_fill` in each `fill_interval`.
///
/// What is kept is one time: when the bucket would have been empty, had nothing been drawn since.
/// Its age is what the bucket holds.
#[derive(Debug)]
pub struct TokenBucket {
    refill: Refill,
    begun: Instant,
    /// Nanoseconds after `begun`, plus the time that filling takes, which keeps it above zero.
    empty_at: AtomicU64,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(refill: Refill, now: Instant) -> Self {
        TokenBucket {
            refill,
            begun: now,
            empty_at: AtomicU64::new(0),
        }
    }

    /// How long one token takes to come.
    fn token(&self) -> u64 {
        let interval = u64::try_from(self.refill.fill_interval.as_nanos()).unwrap_or(u64::MAX);
        (interval / u64::from(self.refill.tokens_per_fill.max(1))).max(1)
    }

    /// Draws one token; false where there is none.
    pub fn draw(&self, now: Instant) -> bool {
        let token = self.token();
        let full = token.saturating_mul(self.refill.max_tokens.into());
        let passed = now.saturating_duration_since(self.begun).as_nanos();
        let now = u64::try_from(passed)
            .unwrap_or(u64::MAX)
            .saturating_add(full);
        let draw = |empty_at: u64| {
            let since = empty_at.max(now.saturating_sub(full));
            let after = since.saturating_add(token);
            (after <= now).then_some(after)
        };
        self.empty_at.fetch_update(Relaxed, Relaxed, draw).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_evenly_up_to_the_maximum() {
        let start = Instant::now();
        let refill = Refill {
            max_tokens: 3,
            tokens_per_fill: 2,
            fill_interval: Duration::from_secs(1),
        };
        let bucket = TokenBucket::new(refill, start);
        let drawn = |millis| {
            let now = start + Duration::from_millis(millis);
            (0..10).filter(|_| bucket.draw(now)).count()
        };
        assert_eq!(drawn(0), 3);
        assert_eq!(drawn(499), 0);
        assert_eq!(drawn(500), 1);
        assert_eq!(drawn(999), 0);
        assert_eq!(drawn(1_750), 2);
        assert_eq!(drawn(60_000), 3);
        let max_tokens = 0;
        let none = TokenBucket::new(
            Refill {
                max_tokens,
                ..refill
            },
            start,
        );
        assert!(!none.draw(start + Duration::from_secs(9)));
    }
}
