//! What the injector asks of the API server: its version, the Secret of the serving certificate,
//! the Pod Security levels of namespaces, and to keep events. Reviews are answered without asking
//! it anything.
//!
//! Rights it needs: `get`, `list` and `watch` of the one Secret; `list` and `watch` of namespaces;
//! `create` and `patch` of events of `events.k8s.io`.

mod limiter;
mod reports;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use tracing::{info, warn};

use crate::config::ServerVersion;
use crate::serve::metrics::Metrics;
use crate::serve::tls::Certificate;

pub(crate) use reports::Reports;

/// The label of the level that a namespace enforces.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce";
/// How often the API server is asked for its version before we give up.
const ATTEMPTS: usize = 30;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// Why the API server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no configuration of a cluster, or it cannot be used.
    #[error("the API server: {0}")]
    Client(#[from] kube::Error),
    /// Its version is not one.
    #[error("the API server says that it is of version {major}.{minor}")]
    Version {
        /// As it was said.
        major: String,
        /// As it was said.
        minor: String,
    },
}

/// The API server.
pub struct Cluster {
    client: Client,
    /// Who we are, in events.
    instance: Option<String>,
    /// Its version when we started.
    pub version: ServerVersion,
}

impl Cluster {
    /// Finds the API server (as a pod, else by kubeconfig) and asks for its version. `instance` is
    /// the name of our pod.
    ///
    /// # Errors
    /// There is no configuration, or no answer within a minute.
    pub async fn connect(instance: Option<String>) -> Result<Self, ClusterError> {
        let client = Client::try_default().await?;
        let mut attempt = 1;
        let info = loop {
            match client.apiserver_version().await {
                Ok(info) => break info,
                Err(error) if attempt >= ATTEMPTS => return Err(error.into()),
                Err(error) => warn!("asking the API server for its version: {error}"),
            }
            attempt += 1;
            tokio::time::sleep(PAUSE).await;
        };
        let version = ServerVersion::parse(&info.major, &info.minor);
        let version = version.ok_or(ClusterError::Version {
            major: info.major,
            minor: info.minor,
        })?;
        info!(
            "the API server is of version {}.{}",
            version.major, version.minor
        );
        Ok(Self {
            client,
            instance,
            version,
        })
    }

    /// Keeps the serving certificate as the Secret has it, for ever.
    pub(crate) async fn certificate(
        &self,
        namespace: &str,
        name: &str,
        certificate: &Certificate,
        metrics: &Metrics,
    ) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let origin = format!("Secret {namespace}/{name}");
        let changes = watcher::watch_object(secrets, name).default_backoff();
        let mut changes = std::pin::pin!(changes);
        let mut last = None;
        while let Some(change) = changes.next().await {
            let secret = match change {
                Ok(Some(secret)) => secret,
                Ok(None) => {
                    warn!("{origin} is not there; the control plane fills it once it is made");
                    continue;
                }
                Err(error) => {
                    warn!("watching {origin}: {error}");
                    continue;
                }
            };
            let data = secret.data.unwrap_or_default();
            let part = |key: &str| data.get(key).map(|part| part.0.clone()).unwrap_or_default();
            let pair = (part("tls.crt"), part("tls.key"));
            if pair.0.is_empty() && pair.1.is_empty() {
                info!("{origin} is empty: waiting for the control plane to fill it");
            } else if last.as_ref() != Some(&pair) {
                certificate.take(&pair.0, &pair.1, &origin, metrics);
                last = Some(pair);
            }
        }
    }

    /// The levels of Pod Security of all namespaces, and what keeps them current.
    pub(crate) fn pod_security(&self) -> (PodSecurity, impl Future<Output = ()> + Send + use<>) {
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(self.client.clone());
        let (store, writer) = reflector::store();
        // Those without the label are not held.
        let labelled = watcher::Config::default().labels(ENFORCED);
        let changes = watcher(namespaces, labelled)
            .default_backoff()
            .modify(|namespace| {
                namespace.metadata.managed_fields = None;
                namespace.metadata.annotations = None;
            })
            .reflect(writer);
        let follow = async move {
            let mut changes = std::pin::pin!(changes);
            loop {
                match changes.try_next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return,
                    Err(error) => warn!("watching namespaces: {error}"),
                }
            }
        };
        (PodSecurity(store), follow)
    }

    /// Where events go, and what sends them.
    pub(crate) fn reports(
        &self,
        metrics: Arc<Metrics>,
    ) -> (Reports, impl Future<Output = ()> + Send + use<>) {
        reports::channel(self.client.clone(), self.instance.clone(), metrics)
    }
}

/// What namespaces enforce.
pub(crate) struct PodSecurity(Store<PartialObjectMeta<Namespace>>);

impl PodSecurity {
    /// The level that a namespace enforces, if it does.
    pub(crate) fn enforced(&self, namespace: &str) -> Option<String> {
        let namespace = self.0.get(&ObjectRef::new(namespace))?;
        let labels = namespace.metadata.labels.as_ref()?;
        labels.get(ENFORCED).cloned()
    }
}
