//! Tells when the content of files has changed.
//!
//! What is watched are the folders of the files, so that a file that is replaced by renaming is
//! followed, and so is Kubernetes' way: the file is a link into `..data`, which is a link that is
//! replaced. Events only say when to look: what counts is whether the content differs. Where the
//! system reports no events (network file systems, no inotify instances left), files are looked at
//! every [`POLL`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use outrider_identity::certificate::sha256;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// How often files are looked at without an event.
const POLL: Duration = Duration::from_secs(30);
/// Files are looked at once nothing more happened for this long, so that a certificate and its key
/// that are written one after the other are one change.
const QUIET: Duration = Duration::from_millis(100);
/// But at the latest after this long.
const LATEST: Duration = Duration::from_secs(1);

/// Watches folders. All of a process share one: the system limits them per user.
#[derive(Clone)]
pub struct FileWatcher {
    shared: Arc<Shared>,
}

struct Shared {
    events: watch::Sender<u64>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Made when the first file is watched.
    watcher: Option<RecommendedWatcher>,
    /// Folders (or the watcher itself, as an empty path) of which was said that they are not
    /// watched.
    complained: BTreeSet<PathBuf>,
}

impl FileWatcher {
    /// Watches nothing yet.
    pub fn new() -> Self {
        let shared = Shared {
            events: watch::Sender::new(0),
            inner: Mutex::default(),
        };
        FileWatcher {
            shared: Arc::new(shared),
        }
    }

    /// Watches these files. Their present content is what changes are told against. A folder among
    /// them has no content: it is one more place where a change is a reason to look at the files.
    pub fn files(&self, paths: impl IntoIterator<Item = PathBuf>) -> WatchedFiles {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        // In this order, so that no change falls between the two.
        let events = self.shared.events.subscribe();
        self.watch_folders_of(&paths);
        let seen = paths.iter().map(|path| digest(path)).collect();
        WatchedFiles {
            watcher: self.clone(),
            events,
            paths,
            seen,
        }
    }

    /// Begins (again, where a folder was replaced) to watch the folders that these files are in,
    /// and those where what they link to is.
    fn watch_folders_of(&self, paths: &[PathBuf]) {
        let mut folders = BTreeSet::new();
        for path in paths {
            if path.is_dir() {
                folders.insert(path.clone());
                continue;
            }
            let target = std::fs::canonicalize(path).ok();
            for path in [Some(path.clone()), target].into_iter().flatten() {
                folders.insert(match path.parent() {
                    Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
                    _ => PathBuf::from("."),
                });
            }
        }
        let mut inner = self
            .shared
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if inner.watcher.is_none() {
            let events = self.shared.events.clone();
            let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Our own reading is no change. An error (a lost event) is a reason to look.
                if !event.is_ok_and(|event| event.kind.is_access()) {
                    events.send_modify(|count| *count = count.wrapping_add(1));
                }
            });
            match made {
                Ok(watcher) => inner.watcher = Some(watcher),
                Err(error) if inner.complained.insert(PathBuf::new()) => tracing::warn!(
                    "cannot watch files: {error}; they are looked at every {POLL:?} instead \
                     (the sysctl fs.inotify.max_user_instances may be too low)"
                ),
                Err(_) => {}
            }
        }
        let Inner {
            watcher,
            complained,
        } = &mut *inner;
        let Some(watcher) = watcher else { return };
        for folder in folders {
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    complained.remove(&folder);
                }
                Err(error) if complained.insert(folder.clone()) => tracing::warn!(
                    "cannot watch {}: {error}; what is in it is looked at every {POLL:?}",
                    folder.display()
                ),
                Err(_) => {}
            }
        }
    }
}

/// Some files whose content is of interest.
pub struct WatchedFiles {
    watcher: FileWatcher,
    events: watch::Receiver<u64>,
    paths: Vec<PathBuf>,
    /// The digest of each file; `None` where it could not be read.
    seen: Vec<Option<[u8; 32]>>,
}

impl WatchedFiles {
    /// Resolves when the content of a file differs from when it was looked at last. Cancel safe.
    pub async fn changed(&mut self) {
        loop {
            self.stirred().await;
            if self.differ() {
                return;
            }
        }
    }

    /// Resolves when something may have happened in the folders. Cancel safe.
    pub async fn stirred(&mut self) {
        let first = Instant::now() + POLL;
        if let Ok(Ok(())) = timeout_at(first, self.events.changed()).await {
            let latest = Instant::now() + LATEST;
            // Nobody waits for further events, so that in a folder where much is written they
            // wake nobody either.
            loop {
                sleep(QUIET).await;
                if !self.events.has_changed().unwrap_or(false) || Instant::now() >= latest {
                    break;
                }
                self.events.mark_unchanged();
            }
        }
    }

    fn differ(&mut self) -> bool {
        self.watcher.watch_folders_of(&self.paths);
        let present = self.paths.iter().map(|path| digest(path)).collect();
        let before = std::mem::replace(&mut self.seen, present);
        before != self.seen
    }
}

fn digest(path: &Path) -> Option<[u8; 32]> {
    std::fs::read(path).ok().map(|content| sha256(&content))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// Longer than events take on a busy machine, and shorter than [`POLL`].
    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn all_ways_of_replacing_a_file_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        // As Kubernetes mounts a secret.
        fs::create_dir(at("..1")).unwrap();
        fs::write(at("..1/key"), "one").unwrap();
        symlink("..1", at("..data")).unwrap();
        symlink("..data/key", at("key")).unwrap();
        fs::write(at("plain"), "one").unwrap();

        let watcher = FileWatcher::new();
        let mut files = watcher.files([at("key"), at("plain"), at("missing")]);
        let swap = || {
            fs::create_dir(at("..2")).unwrap();
            fs::write(at("..2/key"), "two").unwrap();
            symlink("..2", at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        let rename = || {
            fs::write(at("new"), "two").unwrap();
            fs::rename(at("new"), at("plain")).unwrap();
        };
        let steps: [(&str, &dyn Fn()); 6] = [
            ("linked folder", &swap),
            ("content behind the link", &|| {
                fs::write(at("..2/key"), "three").unwrap()
            }),
            ("renamed over", &rename),
            ("written in place", &|| {
                fs::write(at("plain"), "three").unwrap()
            }),
            ("created", &|| fs::write(at("missing"), "one").unwrap()),
            ("removed", &|| fs::remove_file(at("missing")).unwrap()),
        ];
        for (name, step) in steps {
            step();
            let changed = tokio::time::timeout(SOON, files.changed()).await;
            assert!(changed.is_ok(), "{name}");
        }
        // What happens around them is nothing, and so is the same content.
        fs::write(at("plain"), "three").unwrap();
        fs::write(at("other"), "x").unwrap();
        assert!(!files.differ());
    }
}
