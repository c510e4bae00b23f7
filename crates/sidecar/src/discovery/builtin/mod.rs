//! The built-in source of secrets: this workload's certificate, got from the certificate authority,
//! and the roots that it trusts.
//!
//! It answers for the SDS cluster [`CLUSTER`] where the bootstrap has none of that name, with the
//! secrets [`CERTIFICATE`] and [`ROOTS`]. The key is made here and leaves the process only over the
//! SDS socket, if one is asked for, and into the state folder, if there is one: it never leaves the
//! pod. [`Renewal`](renewal::Renewal) decides when to ask; what is here asks and hands on.

mod issued;
mod renewal;
mod request;
mod roots;
mod saved;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::ResourceSet;
use tokio::sync::watch;

use super::disk::StateFolder;
use super::files::FileWatcher;
use super::local::{self, Events};
use issued::Issued;
use renewal::{Moment, Renewal};
use roots::Roots;

pub use settings::{Settings, SettingsError};

/// The SDS cluster that it answers for.
pub const CLUSTER: &str = "sds-grpc";
/// The secret with the certificate chain and its key.
pub const CERTIFICATE: &str = "default";
/// The secret with the roots that peers are verified against.
pub const ROOTS: &str = "ROOTCA";

/// The source, at work on the runtime that it was started on.
#[derive(Debug)]
pub struct Builtin {
    secrets: watch::Receiver<Arc<ResourceSet>>,
}

impl Builtin {
    /// Starts to get a certificate and keeps it valid. What fails is logged and tried again. The one
    /// in `state` is good until it expires.
    pub fn start(settings: Settings, watcher: &FileWatcher, state: Option<StateFolder>) -> Self {
        let (sender, secrets) = watch::channel(Arc::new(ResourceSet::new("")));
        let roots = Roots::new(settings.root_file.clone(), watcher);
        let driver = Driver {
            settings,
            roots,
            renewal: Renewal::new(),
            issued: None,
            state,
            secrets: sender,
        };
        tokio::spawn(driver.run());
        Builtin { secrets }
    }

    /// Gives the secrets that the handle asks for to `events`, under the key `origin`.
    pub fn attach(&self, origin: usize, events: Events) -> local::Handle {
        let (handle, feed) = local::feed(origin, events, &[CERTIFICATE, ROOTS]);
        tokio::spawn(feed.run(self.secrets.clone()));
        handle
    }

    /// The secrets as they change; none yet where there is no certificate yet.
    pub fn secrets(&self) -> watch::Receiver<Arc<ResourceSet>> {
        self.secrets.clone()
    }
}

struct Driver {
    settings: Settings,
    roots: Roots,
    renewal: Renewal,
    issued: Option<Issued>,
    state: Option<StateFolder>,
    secrets: watch::Sender<Arc<ResourceSet>>,
}

impl Driver {
    /// Runs until nobody is interested in the secrets.
    async fn run(mut self) {
        self.restore();
        loop {
            if self.roots.refresh() {
                self.publish();
                self.renewal.try_now();
            }
            let wait = self.renewal.due_in(now());
            if wait.is_zero() {
                self.attempt().await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.roots.changed() => {}
                () = self.secrets.closed() => return,
            }
        }
    }

    /// Goes on with what is on disk, if it is still good.
    fn restore(&mut self) {
        let (Some(folder), Ok(bundle)) = (&self.state, self.roots.bundle()) else {
            return;
        };
        match saved::restore(folder, bundle, SystemTime::now()) {
            Ok(Some(issued)) => {
                self.renewal.issued(now(), &issued.validity, rand::random());
                tracing::info!(
                    identity = %issued.id,
                    expires = %issued.expires_in(SystemTime::now()),
                    "going on with the certificate on disk"
                );
                self.issued = Some(issued);
                self.publish();
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the certificate on disk is not used"),
        }
    }

    /// Puts it on disk.
    fn save(&self, issued: &Issued) {
        if let Some(folder) = &self.state
            && let Err(error) = saved::save(folder, issued)
        {
            tracing::error!(
                folder = %folder.path().display(),
                %error,
                "cannot write the certificate; a restart needs the authority"
            );
        }
    }

    async fn attempt(&mut self) {
        let outcome = match self.roots.bundle() {
            Ok(bundle) => request::certificate(&self.settings, bundle).await,
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(issued) => {
                self.renewal.issued(now(), &issued.validity, rand::random());
                tracing::info!(
                    identity = %issued.id,
                    expires = %issued.expires_in(SystemTime::now()),
                    "got a certificate"
                );
                self.save(&issued);
                self.issued = Some(issued);
                self.publish();
            }
            Err(error) => {
                let moment = now();
                let retry_in = self.renewal.failed(moment, rand::random());
                let in_use = match &self.issued {
                    None => "there is none yet".to_owned(),
                    Some(issued) if self.renewal.is_expired(moment) => {
                        format!("the one of {} has expired", issued.id)
                    }
                    Some(issued) => {
                        let left = issued.expires_in(moment.wall);
                        format!("the one in use expires {left}")
                    }
                };
                tracing::error!(
                    "no new certificate: {error}; {in_use}; trying again in {retry_in:.1?}"
                );
            }
        }
    }

    fn publish(&mut self) {
        let (Some(issued), Ok(bundle)) = (&self.issued, self.roots.bundle()) else {
            return;
        };
        let secrets = issued.secrets(bundle);
        let set = ResourceSet::new(issued.serial.as_str());
        let set = set.with(ResourceType::Secret, Arc::new(secrets));
        self.secrets.send_replace(Arc::new(set));
    }
}

fn now() -> Moment {
    Moment {
        wall: SystemTime::now(),
        steady: Instant::now(),
    }
}
