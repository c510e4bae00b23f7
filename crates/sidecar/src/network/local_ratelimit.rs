//! local_ratelimit: at most so many new connections in a time.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::filters::Refusal;
use super::token_bucket::{Refill, TokenBucket};
use crate::config::network::LocalRateLimit;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;

type Shared = HashMap<(Box<str>, Refill), Weak<TokenBucket>>;

/// The bucket of a `share_key`: one for all filters of this process that name the key and fill
/// alike, in whichever listener. An empty key is shared with none.
pub fn bucket(share_key: &str, refill: Refill) -> Arc<TokenBucket> {
    static SHARED: LazyLock<Mutex<Shared>> = LazyLock::new(Mutex::default);
    if share_key.is_empty() {
        return Arc::new(TokenBucket::new(refill, Instant::now()));
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.retain(|_, bucket| bucket.strong_count() > 0);
    let entry = shared.entry((share_key.into(), refill)).or_default();
    entry.upgrade().unwrap_or_else(|| {
        let bucket = Arc::new(TokenBucket::new(refill, Instant::now()));
        *entry = Arc::downgrade(&bucket);
        bucket
    })
}

/// Draws a token for a connection.
pub fn admit(worker: &Rc<Worker>, filter: &LocalRateLimit) -> Result<(), Refusal> {
    let disabled = filter
        .enabled
        .as_ref()
        .is_some_and(|enabled| !enabled.get());
    if disabled || filter.bucket.draw(Instant::now()) {
        return Ok(());
    }
    let stats = worker.local_rate_limit_stats(&filter.stat_prefix);
    stats.rate_limited.increment(1);
    Err(Refusal {
        reason: "local_ratelimit_close_over_limit",
        flags: Flags::UPSTREAM_RETRY_LIMIT_EXCEEDED,
        delay: None,
        lingers: false,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn filters_with_one_key_and_alike_buckets_share_them() {
        let refill = |max_tokens| Refill {
            max_tokens,
            tokens_per_fill: 1,
            fill_interval: Duration::from_secs(60),
        };
        let one = bucket("a key", refill(1));
        assert!(Arc::ptr_eq(&one, &bucket("a key", refill(1))));
        assert!(!Arc::ptr_eq(&one, &bucket("a key", refill(2))));
        assert!(!Arc::ptr_eq(&one, &bucket("other key", refill(1))));
        assert!(!Arc::ptr_eq(&bucket("", refill(1)), &bucket("", refill(1))));
    }
}
