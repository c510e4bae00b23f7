//! The certificate authority of a cluster: a Secret, in the layout that cert-manager writes.
//!
//! An empty Secret is filled with a new root by the first replica that sees it; the API server's
//! resource version decides which one is first, and all others read what it wrote. Where the mesh
//! has a root already, the Secret was emptied, and another root would split the mesh: whoever still
//! has the material writes it back. A Secret that changes is taken while we serve; one that is wrong
//! at the start stops us, and one that becomes wrong later changes nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use outrider_identity::authority::{AuthorityMaterial, Lifetimes};
use outrider_identity::{AuthorityError, CertificateAuthority, TrustDomain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::announcement::Published;
use super::describe;
use super::rotation::{Authority, Rotation};
use super::secret_texts::{
    CERTIFICATE, KEY, NEW_ROOT, ROOTS, fill, material, permits_new_root, texts, title, with_texts,
};
use super::trust_bundle;
use crate::metrics::Metrics;

/// How often an API server that does not answer is asked at the start.
const ATTEMPTS: u32 = 30;
/// How long to wait in between.
const RETRY: Duration = Duration::from_secs(2);

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is no such Secret.
    #[error(
        "{secret} does not exist: install the chart, which makes it, or make one with {CERTIFICATE}, \
         {KEY} and {ROOTS} (an empty one gets a new root) and name it with --ca-secret"
    )]
    Missing {
        /// Which.
        secret: String,
    },
    /// It was emptied.
    #[error(
        "{secret} is empty, but {bundle} publishes the root of a mesh, which another root would \
         split: restore the Secret from a backup; or, to begin anew with another root, annotate it \
         with {}={}",
        NEW_ROOT.0,
        NEW_ROOT.1
    )]
    Emptied {
        /// Which.
        secret: String,
        /// Where the root is.
        bundle: String,
    },
    /// Some of it is there, but not all.
    #[error(
        "{secret} has no {key}: add {what} (PEM), or remove all of its data to have a new root made"
    )]
    Key {
        /// Which.
        secret: String,
        /// Which part of it.
        key: &'static str,
        /// What belongs there.
        what: &'static str,
    },
    /// A part of it is no text.
    #[error("{secret}, key {key}: not PEM text")]
    Text {
        /// Which.
        secret: String,
        /// Which part of it.
        key: &'static str,
    },
    /// What is there cannot serve a mesh.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The API server refused or did not answer.
    #[error("{action} {secret}: {}", describe(.error))]
    Api {
        /// What was being done.
        action: &'static str,
        /// With which.
        secret: String,
        /// What it said. Its own text of that is repetitive, so it is no source to be printed too.
        error: kube::Error,
    },
}

/// Which Secret, and what for.
#[derive(Debug, Clone)]
pub struct AuthorityOptions {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// The trust domain to sign for.
    pub trust_domain: TrustDomain,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// How long a new root is announced before anything is signed that only it vouches for.
    pub propagation: Duration,
}

/// The Secret.
pub(super) struct AuthoritySecret {
    secrets: Api<Secret>,
    bundles: Api<ConfigMap>,
    options: AuthorityOptions,
    metrics: Arc<Metrics>,
    /// Whether the Secret was wrong when it was last seen.
    is_refused: bool,
    /// The Secret as somebody emptied it, until it is restored.
    emptied: Option<Secret>,
}

impl AuthoritySecret {
    pub(super) fn new(
        client: kube::Client,
        options: AuthorityOptions,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), &options.namespace),
            bundles: Api::namespaced(client, &options.namespace),
            options,
            metrics,
            is_refused: false,
            emptied: None,
        }
    }

    /// Reads the Secret, and fills it if it is empty and the mesh has no root yet.
    ///
    /// # Errors
    /// It is missing or wrong, or the API server refuses; or it does not answer, or the Secret of a
    /// mesh stays empty, for a minute.
    pub(super) async fn open(&self) -> Result<Rotation, SecretError> {
        let mut attempt = 1;
        loop {
            match self.read_or_fill().await {
                Err(SecretError::Api { error, .. }) if matches!(&error, kube::Error::Api(status) if status.is_conflict()) =>
                {
                    info!("another replica has made the root; reading it");
                }
                Err(error) if attempt < ATTEMPTS && is_passing(&error) => {
                    attempt += 1;
                    warn!("{error}; trying again");
                    sleep(RETRY).await;
                }
                other => return other,
            }
        }
    }

    async fn read_or_fill(&self) -> Result<Rotation, SecretError> {
        let now = SystemTime::now();
        let published = self.published().await?;
        let secret = self
            .secrets
            .get_opt(&self.options.name)
            .await
            .map_err(|error| self.api("reading", error))?
            .ok_or_else(|| SecretError::Missing {
                secret: self.title(),
            })?;
        if let Some(material) = material(&secret, &self.title())? {
            return self.begin(material, published.as_ref(), now);
        }
        if published.is_some() && !permits_new_root(&secret) {
            return Err(SecretError::Emptied {
                secret: self.title(),
                bundle: self.bundle_title(),
            });
        }
        let new = AuthorityMaterial::self_signed(&self.options.trust_domain, now)?;
        let filled = self
            .secrets
            .replace(
                &self.options.name,
                &PostParams::default(),
                &fill(secret, &new),
            )
            .await
            .map_err(|error| self.api("filling", error))?;
        info!("made the root of the mesh and put it into {}", self.title());
        let material = material(&filled, &self.title())?.ok_or_else(|| SecretError::Key {
            secret: self.title(),
            key: CERTIFICATE,
            what: "the signer's certificate",
        })?;
        self.begin(material, published.as_ref(), now)
    }

    /// What the mesh is told to trust so far.
    async fn published(&self) -> Result<Option<Published>, SecretError> {
        let bundle = self.bundles.get_opt(trust_bundle::NAME).await;
        let bundle = bundle.map_err(|error| SecretError::Api {
            action: "reading",
            secret: self.bundle_title(),
            error,
        })?;
        Ok(Published::of(bundle.as_ref()))
    }

    /// Signs at once where the mesh has the root, or has none yet.
    fn begin(
        &self,
        material: AuthorityMaterial,
        published: Option<&Published>,
        now: SystemTime,
    ) -> Result<Rotation, SecretError> {
        let first = self.authority(material, now)?;
        let propagation = self.options.propagation;
        let is_withheld = !is_announced(published, &first, propagation, now)?;
        if is_withheld {
            warn!(
                seconds = propagation.as_secs(),
                "the root in {} is new to the mesh: it is announced, and nothing is signed before \
                 it has had time to reach everybody",
                self.title()
            );
        }
        let domain = self.options.trust_domain.clone();
        Ok(Rotation::new(first, is_withheld, domain, propagation))
    }

    fn authority(
        &self,
        material: AuthorityMaterial,
        now: SystemTime,
    ) -> Result<Authority, SecretError> {
        let options = &self.options;
        Ok(Authority::new(
            material,
            &options.trust_domain,
            options.lifetimes,
            now,
        )?)
    }

    /// Takes what the Secret becomes, for ever.
    pub(super) async fn follow(
        mut self,
        mut rotation: Rotation,
        current: watch::Sender<Arc<CertificateAuthority>>,
    ) {
        self.observe(&rotation.latest().signer);
        let name = self.options.name.clone();
        let mut secrets = watch_object(self.secrets.clone(), &name)
            .default_backoff()
            .boxed();
        loop {
            let due = rotation.due();
            tokio::select! {
                // A watch with backoff never ends.
                Some(event) = secrets.next() => match event {
                    Ok(secret) => {
                        self.take(secret.as_ref(), &mut rotation, &current);
                        self.restore(rotation.latest()).await;
                    }
                    Err(error) => warn!("watching {}: {error}", self.title()),
                },
                () = until(due) => {
                    if let Some(signer) = rotation.complete() {
                        info!("the new root has had time to reach everybody: signing by it");
                        self.observe(&signer);
                        current.send_replace(signer);
                    }
                }
                () = sleep(RETRY), if rotation.is_withheld() || self.emptied.is_some() => {
                    self.restore(rotation.latest()).await;
                    if rotation.is_withheld() && self.may_sign(rotation.latest()).await {
                        info!("the new root has had time to reach everybody: signing by it");
                        current.send_replace(rotation.release());
                    }
                }
            }
        }
    }

    /// Whether everybody has the root by now, as the ConfigMap tells.
    async fn may_sign(&self, authority: &Authority) -> bool {
        let now = SystemTime::now();
        let announced = self.published().await.and_then(|published| {
            let propagation = self.options.propagation;
            Ok(is_announced(
                published.as_ref(),
                authority,
                propagation,
                now,
            )?)
        });
        announced.unwrap_or_else(|error| {
            warn!("{error}; still signing nothing");
            false
        })
    }

    /// Writes the material back into the Secret if that was emptied, unless it has changed since:
    /// then the watch tells.
    async fn restore(&mut self, authority: &Authority) {
        let Some(emptied) = self.emptied.take() else {
            return;
        };
        let restored = with_texts(emptied.clone(), texts(&authority.material));
        let (name, title) = (&self.options.name, self.title());
        let parameters = PostParams::default();
        match self.secrets.replace(name, &parameters, &restored).await {
            Ok(_) => warn!("wrote the authority back into {title}, which somebody had emptied"),
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            Err(error) => {
                let error = self.api("restoring", error);
                if is_passing(&error) {
                    warn!("{error}; trying again");
                    self.emptied = Some(emptied);
                } else {
                    error!("{error}: restore it from a backup");
                }
            }
        }
    }

    fn take(
        &mut self,
        secret: Option<&Secret>,
        rotation: &mut Rotation,
        current: &watch::Sender<Arc<CertificateAuthority>>,
    ) {
        let now = SystemTime::now();
        let title = self.title();
        self.emptied = None;
        let next = match secret.map(|secret| material(secret, &title)) {
            Some(Ok(Some(material))) if rotation.is_known(&material) => {
                if self.is_refused {
                    info!("{title} is in order again");
                }
                return self.accept();
            }
            Some(Ok(Some(material))) => self.authority(material, now),
            Some(Ok(None)) => {
                let (advice, emptied) = match secret {
                    Some(secret) if permits_new_root(secret) => {
                        ("restart the control plane to have the new root made", None)
                    }
                    secret => ("it is written back", secret.cloned()),
                };
                self.emptied = emptied;
                return self.refuse(&format!("{title} was emptied: {advice}"));
            }
            Some(Err(error)) => Err(error),
            None => Err(SecretError::Missing { secret: title }),
        };
        match next.and_then(|next| Ok(rotation.offer(next, Instant::now(), now)?)) {
            Ok(signer) => {
                self.accept();
                match rotation.due() {
                    Some(_) => info!(
                        seconds = self.options.propagation.as_secs(),
                        "took a new root; before anything is signed by it, it is announced for a while"
                    ),
                    None => info!("took a new signer"),
                }
                self.observe(&signer);
                current.send_replace(signer);
            }
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    fn accept(&mut self) {
        self.is_refused = false;
        self.metrics.authority_refused.set(0);
    }

    fn refuse(&mut self, reason: &str) {
        self.is_refused = true;
        self.metrics.authority_refused.set(1);
        error!("{reason}; the last good authority stays in force");
    }

    fn observe(&self, signer: &CertificateAuthority) {
        let end = signer
            .signer_not_after()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = usize::try_from(end.as_secs()).unwrap_or(usize::MAX);
        self.metrics.authority_not_after.set(seconds);
    }

    fn title(&self) -> String {
        title(&self.options.namespace, &self.options.name)
    }

    fn bundle_title(&self) -> String {
        format!(
            "ConfigMap {}/{}",
            self.options.namespace,
            trust_bundle::NAME
        )
    }

    fn api(&self, action: &'static str, error: kube::Error) -> SecretError {
        SecretError::Api {
            action,
            secret: self.title(),
            error,
        }
    }
}

/// Waits until then; for ever if there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Whether everybody in the mesh has what vouches for the authority. Where nothing is published
/// there is no mesh yet.
fn is_announced(
    published: Option<&Published>,
    authority: &Authority,
    propagation: Duration,
    now: SystemTime,
) -> Result<bool, AuthorityError> {
    let Some(published) = published else {
        return Ok(true);
    };
    Ok(published.vouches(&authority.sample(now)?, propagation, now))
}

/// Whether it may be otherwise a little later.
fn is_passing(error: &SecretError) -> bool {
    match error {
        SecretError::Api { error, .. } => match error {
            kube::Error::Api(status) => status.code >= 500 || status.code == 429,
            _ => true,
        },
        // A replica that runs writes it back; and the bundle of a mesh that was uninstalled just now
        // goes.
        SecretError::Emptied { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
