//! The root file: what verifies the authority, and the mesh's trust root.

use std::path::{Path, PathBuf};

use outrider_identity::{TrustBundle, TrustError};

use super::settings::ROOT_FILE;
use crate::discovery::files::{FileWatcher, WatchedFiles};

/// Why there are no roots.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RootFileError {
    /// The file cannot be read.
    #[error("cannot read the root file {path} ({ROOT_FILE}): {reason}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// What is in it are no roots.
    #[error("the root file {path} ({ROOT_FILE}) cannot be used: {source}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: TrustError,
    },
}

/// The roots of a file that may change.
pub struct Roots {
    path: PathBuf,
    text: Option<Vec<u8>>,
    bundle: Result<TrustBundle, RootFileError>,
    files: WatchedFiles,
}

impl Roots {
    /// The roots of the file as it is, and as it will be.
    pub fn new(path: PathBuf, watcher: &FileWatcher) -> Self {
        let files = watcher.files([path.clone()]);
        let text = std::fs::read(&path);
        Roots {
            bundle: parse(&path, &text),
            text: text.ok(),
            path,
            files,
        }
    }

    /// The present roots.
    ///
    /// # Errors
    /// The file never had any.
    pub fn bundle(&self) -> Result<&TrustBundle, RootFileError> {
        self.bundle.as_ref().map_err(Clone::clone)
    }

    /// Resolves when the file has changed. Cancel safe.
    pub async fn changed(&mut self) {
        self.files.changed().await;
    }

    /// Looks at the file and says whether there are new roots. Roots in use stay where the file has
    /// become unusable, which is logged.
    pub fn refresh(&mut self) -> bool {
        let text = std::fs::read(&self.path);
        if text.as_ref().ok() == self.text.as_ref() {
            return false;
        }
        let parsed = parse(&self.path, &text);
        self.text = text.ok();
        match (parsed, &self.bundle) {
            (Ok(bundle), _) => {
                tracing::info!(path = %self.path.display(), roots = bundle.roots().len(), "the root file has changed");
                self.bundle = Ok(bundle);
                true
            }
            (Err(error), Ok(_)) => {
                tracing::error!("{error}; the roots in use stay");
                false
            }
            (Err(error), Err(_)) => {
                self.bundle = Err(error);
                false
            }
        }
    }
}

fn parse(path: &Path, text: &std::io::Result<Vec<u8>>) -> Result<TrustBundle, RootFileError> {
    let text = text.as_ref().map_err(|error| RootFileError::Read {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    TrustBundle::from_pem(text).map_err(|source| RootFileError::Unusable {
        path: path.to_owned(),
        source,
    })
}
