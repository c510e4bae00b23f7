//! Waiting for a condition: polled with a deadline, never a sleep of a guessed length.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Calls `attempt` until it succeeds, for at most `within`.
///
/// # Errors
/// The last failure, once the deadline has passed.
#[track_caller]
pub fn eventually<T>(within: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let caller = std::panic::Location::caller();
    let deadline = Instant::now() + within;
    loop {
        match attempt() {
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("not within {within:?} ({caller})"));
            }
            Err(_) => std::thread::sleep(PAUSE),
            success => return success,
        }
    }
}

/// [`eventually`] for attempts that are futures. An attempt that hangs is cut at the deadline.
///
/// # Errors
/// The last failure, once the deadline has passed.
pub async fn eventually_async<T, F: Future<Output = Result<T>>>(
    within: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        let result = tokio::time::timeout_at(deadline, attempt())
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the attempt hung")));
        match result {
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("not within {within:?}"));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
            success => return success,
        }
    }
}
