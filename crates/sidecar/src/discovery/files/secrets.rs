//! Secrets whose certificate, key or roots are files.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::watch::{FileWatcher, WatchedFiles};
use crate::config::build::secret::SecretFiles;
use crate::config::secret::Secret;
use crate::discovery::slot::Slot;

/// How soon after its last user is gone a secret is no longer kept fresh.
const IDLE_CHECK: Duration = Duration::from_secs(60);

/// Reads the secret in `slot`, which was made of `files` just now, again whenever they change: for
/// as long as something uses the slot, and nobody else has filled it. Where the files cannot be
/// used, a warning says which and why, and the secret in use stays. To be called on a runtime.
pub fn keep_fresh(watcher: &FileWatcher, slot: &Arc<Slot<Secret>>, files: SecretFiles) {
    let watched = watcher.files(files.watched().iter().cloned());
    let mut task = Task {
        slot: Arc::downgrade(slot),
        present: slot.load(),
        files,
    };
    // They may have changed between when they were read first and when they were watched.
    if task.refresh(false) {
        tokio::spawn(task.run(watched));
    }
}

struct Task {
    slot: Weak<Slot<Secret>>,
    /// What we know to be in the slot.
    present: Option<Arc<Secret>>,
    files: SecretFiles,
}

impl Task {
    async fn run(mut self, mut watched: WatchedFiles) {
        loop {
            // Nothing tells that the slot's last user has gone: that is looked at now and then.
            let changed = tokio::time::timeout(IDLE_CHECK, watched.changed()).await;
            let is_used = match changed {
                Ok(()) => self.refresh(true),
                Err(_) => self.slot().is_some(),
            };
            if !is_used {
                return;
            }
        }
    }

    /// The slot, if it is still used and still ours.
    fn slot(&self) -> Option<Arc<Slot<Secret>>> {
        let is_present = |slot: &Arc<Slot<Secret>>| match (&slot.load(), &self.present) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (None, None) => true,
            _ => false,
        };
        self.slot.upgrade().filter(is_present)
    }

    /// Reads the files. False: there is nothing to do any more.
    fn refresh(&mut self, changed: bool) -> bool {
        let Some(slot) = self.slot() else {
            return false;
        };
        let (name, watched) = (slot.name(), self.files.watched());
        match self.files.load() {
            Ok(secret) => {
                self.present = Some(Arc::new(secret));
                if changed {
                    slot.set(self.present.clone());
                    tracing::info!(secret = %name, files = ?watched, "secret read again: its files have changed");
                } else {
                    slot.set_first(self.present.clone());
                }
            }
            Err(error) => tracing::warn!(
                secret = %name, files = ?watched,
                "the files of a secret cannot be used: {error}; the secret in use stays"
            ),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use envoy_types::pb::envoy::config::core::v3::DataSource;
    use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
    use outrider_testkit::certs::{Authority, Leaf};

    use super::*;
    use crate::config::build::secret;

    const SOON: Duration = Duration::from_secs(20);

    fn leaf(secret: &Arc<Secret>) -> Vec<u8> {
        match &**secret {
            Secret::Certificate(certificate) => certificate.certified.cert[0].to_vec(),
            _ => panic!("a certificate"),
        }
    }

    #[tokio::test]
    async fn a_key_that_does_not_fit_leaves_the_old_secret_and_the_next_pair_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let authority = Authority::new("test").unwrap();
        let leaf_of = || authority.issue("spiffe://a/ns/b/sa/c", SOON).unwrap();
        let write = |Leaf { certificate, key }: &Leaf| {
            fs::write(at("cert.new"), certificate).unwrap();
            fs::write(at("key.new"), key).unwrap();
            fs::rename(at("cert.new"), at("cert")).unwrap();
            fs::rename(at("key.new"), at("key")).unwrap();
        };
        let file = |name: &str| DataSource {
            specifier: Some(Specifier::Filename(at(name).to_str().unwrap().to_owned())),
            ..Default::default()
        };
        write(&leaf_of());
        let definition = tls::Secret {
            name: "files".to_owned(),
            r#type: Some(tls::secret::Type::TlsCertificate(tls::TlsCertificate {
                certificate_chain: Some(file("cert")),
                private_key: Some(file("key")),
                ..Default::default()
            })),
        };
        let built = secret::build(&definition).unwrap();
        let slot = Slot::filled("files", Arc::new(built.secret));
        keep_fresh(&FileWatcher::new(), &slot, built.files.unwrap());
        let first = leaf(&slot.load().unwrap());

        let mut changes = slot.changes();
        fs::write(at("key"), leaf_of().key).unwrap();
        assert!(secret::build(&definition).is_err());
        fs::remove_file(at("key")).unwrap();
        assert_eq!(leaf(&slot.load().unwrap()), first);
        write(&leaf_of());
        tokio::time::timeout(SOON, changes.changed())
            .await
            .unwrap()
            .unwrap();
        let second = slot.load().unwrap();
        assert_ne!(leaf(&second), first);

        // Whoever else fills the slot is not overwritten by the files.
        let other = Arc::new(secret::build(&definition).unwrap().secret);
        slot.set(Some(other.clone()));
        let mut changes = slot.changes();
        write(&leaf_of());
        let changed = tokio::time::timeout(Duration::from_secs(1), changes.changed()).await;
        assert!(changed.is_err() && Arc::ptr_eq(&slot.load().unwrap(), &other));
    }
}
