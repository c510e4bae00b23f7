//! Tells when the directory may have changed.

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::RegistryError;
use super::quiet::gather;

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
            Ok(None) => return sleep(POLL).await,
            Ok(Some(())) => {}
        }
        gather(&mut self.events, |()| {}).await;
    }
}
