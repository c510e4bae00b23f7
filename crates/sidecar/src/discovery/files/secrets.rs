//! Secrets whose certificate, key or roots are files.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::watch::{FileWatcher, WatchedFiles};
use crate::config::error::ConfigError;
use crate::config::secret::Secret;
use crate::discovery::slot::Slot;

/// How soon after its last user is gone a secret is no longer kept fresh.
const IDLE_CHECK: Duration = Duration::from_secs(60);

/// Reads a secret's files again and checks what is in them.
pub type Rebuild = Box<dyn Fn() -> Result<Secret, ConfigError> + Send>;

/// Fills `slot` again by `rebuild` whenever one of `files` changes, for as long as something uses
/// the slot. Where the files cannot be used, a warning says which and why, and the secret in use
/// stays. To be called on a runtime, soon after the slot was filled first.
pub fn keep_fresh(
    watcher: &FileWatcher,
    slot: &Arc<Slot<Secret>>,
    files: Vec<PathBuf>,
    rebuild: Rebuild,
) {
    let watched = watcher.files(files.iter().cloned());
    let task = Task {
        slot: Arc::downgrade(slot),
        files,
        rebuild,
    };
    // Files that changed since they were first read, before they were watched.
    task.refresh(false);
    tokio::spawn(task.run(watched));
}

struct Task {
    slot: Weak<Slot<Secret>>,
    files: Vec<PathBuf>,
    rebuild: Rebuild,
}

impl Task {
    async fn run(self, mut watched: WatchedFiles) {
        while self.slot.strong_count() > 0 {
            // Nothing tells that the slot's last user has gone: that is looked at now and then.
            let changed = tokio::time::timeout(IDLE_CHECK, watched.changed()).await;
            if changed.is_ok() {
                self.refresh(true);
            }
        }
    }

    fn refresh(&self, changed: bool) {
        let Some(slot) = self.slot.upgrade() else {
            return;
        };
        match (self.rebuild)() {
            Ok(secret) => {
                slot.set(Some(Arc::new(secret)));
                if changed {
                    tracing::info!(secret = %slot.name(), files = ?self.files, "secret read again: its files have changed");
                }
            }
            Err(error) => tracing::warn!(
                secret = %slot.name(), files = ?self.files,
                "the files of the secret cannot be used: {error}; the secret in use stays"
            ),
        }
    }
}
