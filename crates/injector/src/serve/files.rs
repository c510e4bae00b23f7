//! What is read from files, and again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{error, info};

use super::Shared;
use super::metrics::Metrics;
use super::tls::Certificate;
use super::watch::FileWatch;
use crate::config::Config;

/// Puts every good version of the configuration in force. A bad one is reported, and the last good
/// one stays.
pub(super) async fn follow_config(path: &Path, mut watch: FileWatch, shared: &Shared) {
    // So that a bad version is reported once, not at every look.
    let mut reported = String::new();
    loop {
        watch.changed().await;
        match Config::load(path) {
            Ok(config) => {
                reported.clear();
                if config != **shared.config.load() {
                    shared.metrics.config_loads.increment();
                    info!("{}: a new version is in force", path.display());
                    shared.config.store(Arc::new(config));
                }
            }
            Err(error) => {
                let error = error.to_string();
                if error != reported {
                    shared.metrics.config_errors.increment();
                    error!("{error}; the last good version stays in force");
                    reported = error;
                }
            }
        }
    }
}

/// A certificate and its key in files.
pub(super) struct CertificateFiles {
    chain: PathBuf,
    key: PathBuf,
    /// What was read last, so that the same is not taken, or complained of, twice.
    last: Option<(Vec<u8>, Vec<u8>)>,
    complaint: String,
}

impl CertificateFiles {
    pub(super) fn new(chain: PathBuf, key: PathBuf) -> Self {
        Self {
            chain,
            key,
            last: None,
            complaint: String::new(),
        }
    }

    /// Takes what the files hold now.
    pub(super) fn look(&mut self, certificate: &Certificate, metrics: &Metrics) {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        match read(&self.chain).and_then(|chain| Ok((chain, read(&self.key)?))) {
            Ok(pair) => {
                self.complaint.clear();
                if self.last.as_ref() != Some(&pair) {
                    let origin = self.chain.display().to_string();
                    certificate.take(&pair.0, &pair.1, &origin, metrics);
                    self.last = Some(pair);
                }
            }
            Err(complaint) => {
                if complaint != self.complaint {
                    metrics.certificate_errors.increment();
                    error!("{complaint}");
                    self.complaint = complaint;
                }
            }
        }
    }

    /// Looks whenever they may have changed, for ever.
    pub(super) async fn follow(
        &mut self,
        mut watch: FileWatch,
        certificate: &Certificate,
        metrics: &Metrics,
    ) {
        loop {
            watch.changed().await;
            self.look(certificate, metrics);
        }
    }
}
