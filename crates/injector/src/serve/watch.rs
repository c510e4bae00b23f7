//! Tells when files may have changed.

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// A mounted ConfigMap, or an editor, changes a file in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// Without any event the files are looked at this often, for file systems that report nothing.
const POLL: Duration = Duration::from_secs(10);

/// Watches the folders of some files. A mounted ConfigMap is changed by a link beside it, so that
/// the file alone would not do.
pub(crate) struct FileWatch {
    events: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl FileWatch {
    pub(crate) fn new(files: &[&Path]) -> notify::Result<Self> {
        // One pending event says all: what changed is found by looking.
        let (sender, events) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Our own reading is no change. An error (a lost event) is a reason to look.
                if !event.is_ok_and(|event| event.kind.is_access()) {
                    // Full: it is known already. Closed: the watch is being dropped.
                    let _ = sender.try_send(());
                }
            })?;
        for file in files {
            let folder = match file.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(Self {
            events,
            _watcher: watcher,
        })
    }

    /// Waits until a file may have changed, or it is time to look.
    pub(crate) async fn changed(&mut self) {
        match timeout(POLL, self.events.recv()).await {
            Err(_elapsed) => {}
            // The watcher is gone, which dropping alone does; looking at times is what is left.
            Ok(None) => sleep(POLL).await,
            Ok(Some(())) => sleep(QUIET).await,
        }
    }
}
