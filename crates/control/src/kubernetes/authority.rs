//! The certificate authority of a cluster: a Secret, in the layout that cert-manager writes.
//!
//! An empty Secret is filled with a new root by the first replica that sees it; the API server's
//! resource version decides which one is first, and all others read what it wrote. A Secret that
//! changes is taken while we serve; one that is wrong at the start stops us, and one that becomes
//! wrong later changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use outrider_identity::authority::{AuthorityMaterial, Lifetimes, Text};
use outrider_identity::{AuthorityError, CertificateAuthority, TrustDomain};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::describe;
use super::rotation::{Authority, Rotation};
use crate::metrics::Metrics;

/// The signer's certificate, then its chain.
pub(super) const CERTIFICATE: &str = "tls.crt";
/// The signer's private key.
pub(super) const KEY: &str = "tls.key";
/// The roots.
pub(super) const ROOTS: &str = "ca.crt";

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
    options: AuthorityOptions,
    metrics: Arc<Metrics>,
    /// Whether the Secret was wrong when it was last seen.
    is_refused: bool,
}

impl AuthoritySecret {
    pub(super) fn new(
        client: kube::Client,
        options: AuthorityOptions,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            secrets: Api::namespaced(client, &options.namespace),
            options,
            metrics,
            is_refused: false,
        }
    }

    /// Reads the Secret, and fills it if it is empty.
    ///
    /// # Errors
    /// It is missing or wrong, or the API server refuses, or does not answer for a minute.
    pub(super) async fn open(&self) -> Result<Authority, SecretError> {
        let mut attempt = 1;
        loop {
            match self.read_or_fill().await {
                Err(SecretError::Api { error, .. }) if matches!(&error, kube::Error::Api(status) if status.is_conflict()) =>
                {
                    info!("another replica has made the root; reading it");
                }
                Err(error @ SecretError::Api { .. })
                    if attempt < ATTEMPTS && is_passing(&error) =>
                {
                    attempt += 1;
                    warn!("{error}; trying again");
                    sleep(RETRY).await;
                }
                other => return other,
            }
        }
    }

    async fn read_or_fill(&self) -> Result<Authority, SecretError> {
        let now = SystemTime::now();
        let secret = self
            .secrets
            .get_opt(&self.options.name)
            .await
            .map_err(|error| self.api("reading", error))?
            .ok_or_else(|| SecretError::Missing {
                secret: self.title(),
            })?;
        if let Some(material) = material(&secret, &self.title())? {
            return self.authority(material, now);
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
        self.authority(material, now)
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
        first: Authority,
        current: watch::Sender<Arc<CertificateAuthority>>,
    ) {
        self.observe(&first.signer);
        let name = self.options.name.clone();
        let mut secrets = watch_object(self.secrets.clone(), &name)
            .default_backoff()
            .boxed();
        let options = self.options.clone();
        let mut rotation = Rotation::new(first, options.trust_domain, options.propagation);
        loop {
            let due = rotation.due();
            tokio::select! {
                // A watch with backoff never ends.
                Some(event) = secrets.next() => match event {
                    Ok(secret) => self.take(secret.as_ref(), &mut rotation, &current),
                    Err(error) => warn!("watching {}: {error}", self.title()),
                },
                () = until(due) => {
                    if let Some(signer) = rotation.complete() {
                        info!("the new root has had time to reach everybody: signing by it");
                        self.observe(&signer);
                        current.send_replace(signer);
                    }
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
        let next = match secret.map(|secret| material(secret, &title)) {
            Some(Ok(Some(material))) if rotation.is_known(&material) => {
                if self.is_refused {
                    info!("{title} is in order again");
                }
                return self.accept();
            }
            Some(Ok(Some(material))) => self.authority(material, now),
            Some(Ok(None)) => {
                return self.refuse(&format!("{title} was emptied: restore it from a backup"));
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

/// What messages call a Secret.
pub(super) fn title(namespace: &str, name: &str) -> String {
    format!("Secret {namespace}/{name}")
}

/// Whether the API server may answer otherwise a little later.
fn is_passing(error: &SecretError) -> bool {
    match error {
        SecretError::Api { error, .. } => match error {
            kube::Error::Api(status) => status.code >= 500 || status.code == 429,
            _ => true,
        },
        _ => false,
    }
}

/// The texts of a Secret; none if it is empty.
fn material(secret: &Secret, title: &str) -> Result<Option<AuthorityMaterial>, SecretError> {
    let text = |key| part(secret, title, key);
    let (certificate, private, roots) = (text(CERTIFICATE)?, text(KEY)?, text(ROOTS)?);
    let missing = |key, what| SecretError::Key {
        secret: title.to_owned(),
        key,
        what,
    };
    match (certificate, private, roots) {
        (None, None, None) => Ok(None),
        (None, _, _) => Err(missing(
            CERTIFICATE,
            "the signer's certificate and its chain",
        )),
        (_, None, _) => Err(missing(KEY, "the private key of tls.crt")),
        // Without roots the chain has to end in one.
        (Some(certificate), Some(key), roots) => Ok(Some(AuthorityMaterial {
            key,
            certificate,
            roots,
        })),
    }
}

/// One text of a Secret, if it is there and not blank.
pub(super) fn part(
    secret: &Secret,
    title: &str,
    key: &'static str,
) -> Result<Option<Text>, SecretError> {
    let Some(ByteString(bytes)) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Ok(None);
    };
    let pem = std::str::from_utf8(bytes).map_err(|_| SecretError::Text {
        secret: title.to_owned(),
        key,
    })?;
    if pem.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(Text {
        origin: format!("{title}, key {key}"),
        pem: pem.to_owned(),
    }))
}

fn fill(secret: Secret, new: &AuthorityMaterial) -> Secret {
    let texts = BTreeMap::from([
        (CERTIFICATE, &new.certificate.pem),
        (KEY, &new.key.pem),
        (ROOTS, &new.certificate.pem),
    ]);
    with_texts(secret, texts)
}

/// The Secret with these texts; the rest of it stays.
pub(super) fn with_texts(mut secret: Secret, texts: BTreeMap<&str, &String>) -> Secret {
    let data = secret.data.get_or_insert_default();
    for (key, text) in texts {
        data.insert(key.to_owned(), ByteString(text.clone().into_bytes()));
    }
    secret
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;
