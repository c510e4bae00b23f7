//! Tells when the directory may have changed.

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::RegistryError;

/// A change is reported once nothing more happened for this long: an editor's several steps and a
/// checkout's many files are one change.
const QUIET: Duration = Duration::from_millis(100);
/// But at the latest after this long.
const LATEST: Duration = Duration::from_millis(500);
/// Without any event the directory is looked at this often, for file systems (network ones, say)
/// that report nothing.
const POLL: Duration = Duration::from_secs(10);

/// Watches a directory and what lies in it.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Starts watching.
    ///
    /// # Errors
    /// The system refuses, for example because there are no inotify watches left.
    pub fn new(directory: &Path) -> Result<Self, RegistryError> {
        // One pending event says all: what changed is found by looking.
        let (sender, events) = mpsc::channel(1);
        let failed = |source| RegistryError::Watch {
            path: directory.to_owned(),
            source,
        };
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Our own reading is no change. An error (a lost event) is a reason to look.
                if event.is_ok_and(|event| event.kind.is_access()) {
                    return;
                }
                match sender.try_send(()) {
                    Ok(()) | Err(mpsc::error::TrySendError::Full(())) => {}
                    // The watch is being dropped.
                    Err(mpsc::error::TrySendError::Closed(())) => {}
                }
            })
            .map_err(failed)?;
        watcher
            .watch(directory, RecursiveMode::Recursive)
            .map_err(failed)?;
        Ok(Self {
            events,
            _watcher: watcher,
        })
    }

    /// Waits until the directory may have changed and is quiet again, or it is time to look.
    pub async fn changed(&mut self) {
        match timeout(POLL, self.events.recv()).await {
            Err(_elapsed) => return,
            // The watcher is gone, which dropping alone does; looking at times is what is left.
            Ok(None) => return sleep_until(Instant::now() + POLL).await,
            Ok(Some(())) => {}
        }
        let latest = Instant::now() + LATEST;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if timeout_at(quiet, self.events.recv()).await.is_err() || Instant::now() >= latest {
                return;
            }
        }
    }
}
