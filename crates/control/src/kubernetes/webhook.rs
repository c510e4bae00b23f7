//! What the API server needs to reach the injector: a serving certificate, which the injector takes
//! from its Secret, and in each webhook the roots that vouch for it. The leader keeps both right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use outrider_identity::CertificateAuthority;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::{error, info, warn};

use super::describe;
use super::injector_certificate::{Verdict, judge};
use super::secret_texts::{CERTIFICATE, KEY, ROOTS, title, with_texts};
use crate::metrics::Metrics;
use crate::signing::CurrentAuthority;

/// The longest that one write may take.
const EXCHANGE: Duration = Duration::from_secs(10);
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Which injector.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// The MutatingWebhookConfiguration.
    pub configuration: String,
    /// The Secret that the injector reads, in `namespace`.
    pub secret: String,
    /// The injector's namespace.
    pub namespace: String,
    /// The DNS names by which the API server may call it.
    pub names: Vec<String>,
}

/// Keeps the Secret and the configuration right.
#[derive(Clone)]
pub(super) struct WebhookUpkeep {
    pub(super) client: Client,
    pub(super) authority: CurrentAuthority,
    pub(super) options: WebhookOptions,
    pub(super) metrics: Arc<Metrics>,
}

/// What was seen last; none before the first look, then none inside if it does not exist.
#[derive(Default)]
struct Seen {
    configuration: Option<Option<MutatingWebhookConfiguration>>,
    secret: Option<Option<Secret>>,
}

impl WebhookUpkeep {
    /// Keeps both right, until it is dropped.
    pub(super) async fn keep(mut self) {
        let mut configurations = watch_object(self.configurations(), &self.options.configuration)
            .default_backoff()
            .boxed();
        let mut secrets = watch_object(self.secrets(), &self.options.secret)
            .default_backoff()
            .boxed();
        let mut seen = Seen::default();
        let mut failures = 0_u32;
        let mut wake: Option<Instant> = None;
        loop {
            tokio::select! {
                // Watches with backoff never end.
                Some(event) = configurations.next() => match event {
                    Ok(configuration) => seen.configuration = Some(configuration),
                    Err(error) => {
                        let name = &self.options.configuration;
                        warn!("watching MutatingWebhookConfiguration {name}: {error}");
                        continue;
                    }
                },
                Some(event) = secrets.next() => match event {
                    Ok(secret) => seen.secret = Some(secret),
                    Err(error) => {
                        warn!("watching {}: {error}", self.title());
                        continue;
                    }
                },
                Ok(()) = self.authority.changed() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
            let authority = Arc::clone(&self.authority.borrow_and_update());
            // The roots first: they vouch for the old certificate as well as for the new one.
            let outcome = match self.keep_bundle(&mut seen, &authority).await {
                Ok(()) => self.keep_certificate(&mut seen, &authority).await,
                Err(error) => Err(error),
            };
            wake = match outcome {
                Ok(renew_at) => {
                    failures = 0;
                    renew_at.map(|at| Instant::now() + until(at))
                }
                Err(error) => {
                    self.metrics.webhook_failures.increment();
                    let reason = describe(&error);
                    warn!("keeping the webhook right: {reason}; trying again");
                    let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10));
                    failures = failures.saturating_add(1);
                    Some(Instant::now() + pause.min(LONGEST_PAUSE))
                }
            };
        }
    }

    /// Puts the trust bundle into every webhook that has another.
    async fn keep_bundle(
        &self,
        seen: &mut Seen,
        authority: &CertificateAuthority,
    ) -> Result<(), kube::Error> {
        let name = &self.options.configuration;
        let Some(Some(configuration)) = &seen.configuration else {
            if matches!(seen.configuration, Some(None)) {
                error!(
                    "there is no MutatingWebhookConfiguration {name}: no pod gets a sidecar; \
                     upgrade the chart to restore it, or correct --webhook"
                );
                // Said once.
                seen.configuration = None;
            }
            return Ok(());
        };
        let pem = authority.trust_bundle().to_pem();
        let Some(patch) = bundle_patch(configuration, pem.as_bytes()) else {
            return Ok(());
        };
        let patch = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
        let patch: Patch<()> = Patch::Json(patch);
        let parameters = PatchParams::default();
        let api = self.configurations();
        let patched = within(api.patch(name, &parameters, &patch)).await?;
        self.metrics.webhook_bundles.increment();
        info!("put the trust bundle into MutatingWebhookConfiguration {name}");
        seen.configuration = Some(Some(patched));
        Ok(())
    }

    /// Issues a certificate unless the present one will do; when to look at it again.
    async fn keep_certificate(
        &self,
        seen: &mut Seen,
        authority: &CertificateAuthority,
    ) -> Result<Option<SystemTime>, kube::Error> {
        let Some(Some(secret)) = &seen.secret else {
            if matches!(seen.secret, Some(None)) {
                error!(
                    "{} does not exist: the injector has no certificate; upgrade the chart to \
                     restore it",
                    self.title()
                );
                seen.secret = None;
            }
            return Ok(None);
        };
        let (names, now) = (&self.options.names, SystemTime::now());
        let reason = match judge(secret, &self.title(), authority, names, now) {
            Verdict::Keep { renew_at } => return Ok(Some(renew_at)),
            Verdict::Issue { reason } => reason,
        };
        let (key, issued) = match authority.issue_serving(names, None, now) {
            Ok(both) => both,
            Err(error) => {
                // Only another authority helps, and that wakes us.
                self.metrics.webhook_failures.increment();
                error!("the injector's certificate: {error}");
                return Ok(None);
            }
        };
        let (chain, roots) = (issued.chain_pem(), authority.trust_bundle().to_pem());
        let key = key.private_pem().expose().to_owned();
        let texts = BTreeMap::from([(CERTIFICATE, &chain), (KEY, &key), (ROOTS, &roots)]);
        // With the resource version that was seen: a change meanwhile is a conflict, and is seen.
        let secret = with_texts(secret.clone(), texts);
        let (api, parameters) = (self.secrets(), PostParams::default());
        let written = within(api.replace(&self.options.secret, &parameters, &secret)).await?;
        self.metrics.webhook_certificates.increment();
        info!(reason, "issued the injector's certificate");
        let verdict = judge(&written, &self.title(), authority, names, now);
        seen.secret = Some(Some(written));
        Ok(match verdict {
            Verdict::Keep { renew_at } => Some(renew_at),
            Verdict::Issue { .. } => None,
        })
    }

    fn configurations(&self) -> Api<MutatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.options.namespace)
    }

    fn title(&self) -> String {
        title(&self.options.namespace, &self.options.secret)
    }
}

async fn within<T>(
    exchange: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    timeout(EXCHANGE, exchange)
        .await
        .unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into())))
}

/// How long until a moment of the wall clock; at least a second, so that a clock that is off does
/// not keep us busy.
fn until(at: SystemTime) -> Duration {
    let left = at.duration_since(SystemTime::now()).unwrap_or_default();
    left.max(Duration::from_secs(1))
}

/// A JSON patch (RFC 6902) that gives every webhook the bundle; none if all have it. It fails if the
/// webhooks have changed their places meanwhile.
fn bundle_patch(
    configuration: &MutatingWebhookConfiguration,
    pem: &[u8],
) -> Option<serde_json::Value> {
    let mut operations = Vec::new();
    for (index, webhook) in configuration.webhooks.iter().flatten().enumerate() {
        let present = webhook.client_config.ca_bundle.as_ref();
        if present.is_some_and(|present| present.0 == pem) {
            continue;
        }
        let webhook_path = format!("/webhooks/{index}");
        operations.push(json!({
            "op": "test", "path": format!("{webhook_path}/name"), "value": webhook.name,
        }));
        operations.push(json!({
            "op": "add",
            "path": format!("{webhook_path}/clientConfig/caBundle"),
            "value": k8s_openapi::ByteString(pem.to_vec()),
        }));
    }
    (!operations.is_empty()).then(|| operations.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_with_another_bundle_are_patched() {
        let configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": {"name": "outrider-injector"},
            "webhooks": [
                {"name": "empty", "clientConfig": {}},
                {"name": "right", "clientConfig": {"caBundle": "cGVt"}},
                {"name": "wrong", "clientConfig": {"caBundle": "bWVw"}},
            ],
        }))
        .unwrap();
        let patch = bundle_patch(&configuration, b"pem").unwrap();
        assert_eq!(
            patch,
            json!([
                {"op": "test", "path": "/webhooks/0/name", "value": "empty"},
                {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "cGVt"},
                {"op": "test", "path": "/webhooks/2/name", "value": "wrong"},
                {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "cGVt"},
            ])
        );
        let none = MutatingWebhookConfiguration::default();
        assert_eq!(bundle_patch(&none, b"pem"), None);
    }
}
