//! Takes what comes in a storm as one.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// What comes is acted on once nothing more has come for this long: an editor's several steps, a
/// checkout's many files and a rollout's many pods are one change.
const QUIET: Duration = Duration::from_millis(100);
/// But at the latest after this long.
const LATEST: Duration = Duration::from_millis(500);

/// Takes events until they are quiet or it is time. The first one has come already.
pub(super) async fn gather<T>(events: &mut mpsc::Receiver<T>, mut take: impl FnMut(T)) {
    let latest = Instant::now() + LATEST;
    loop {
        let quiet = (Instant::now() + QUIET).min(latest);
        match timeout_at(quiet, events.recv()).await {
            Ok(Some(event)) if Instant::now() < latest => take(event),
            Ok(Some(event)) => return take(event),
            Ok(None) | Err(_) => return,
        }
    }
}
