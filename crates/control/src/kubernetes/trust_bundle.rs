//! The roots of the mesh in every namespace, where each sidecar mounts them: ConfigMap
//! `outrider-root`, key `root.pem`. The leader keeps them right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{PartialObjectMeta, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::announcement;
use super::describe;
use super::owner::Owner;
use super::publication::Publication;
use crate::metrics::Metrics;
use crate::signing::CurrentAuthority;

/// The ConfigMap's name.
pub const NAME: &str = "outrider-root";
/// The key in it.
pub const KEY: &str = "root.pem";
/// The longest that one write may take.
const EXCHANGE: Duration = Duration::from_secs(10);

/// Writes the ConfigMaps.
#[derive(Clone)]
pub(super) struct TrustBundles {
    pub(super) client: Client,
    pub(super) authority: CurrentAuthority,
    pub(super) owner: Owner,
    /// Where the control plane is, and keeps since when each root has been announced.
    pub(super) namespace: String,
    /// Under which name the API server remembers what we wrote.
    pub(super) manager: String,
    pub(super) metrics: Arc<Metrics>,
}

/// The end of a write to a namespace.
type Written = (String, Result<(), kube::Error>);

impl TrustBundles {
    /// Keeps the bundle in every namespace right, until it is dropped.
    pub(super) async fn keep(mut self) {
        let namespaces = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let mut namespaces = watcher(namespaces, watcher::Config::default())
            .default_backoff()
            .boxed();
        let ours = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let mut bundles = watcher(Api::<ConfigMap>::all(self.client.clone()), ours)
            .default_backoff()
            .boxed();
        let mut publication = Publication::default();
        let mut writes: JoinSet<Written> = JoinSet::new();
        let mut pem: Arc<str> = self
            .authority
            .borrow_and_update()
            .trust_bundle()
            .to_pem()
            .into();
        loop {
            let now = Instant::now();
            for namespace in publication.due(now) {
                let (writer, pem) = (self.clone(), Arc::clone(&pem));
                writes.spawn(async move {
                    let written = writer.write(&namespace, &pem).await;
                    (namespace, written)
                });
            }
            self.metrics.trust_bundles.set(publication.right());
            let wake = publication.wake();
            tokio::select! {
                // Watches with backoff never end.
                Some(event) = namespaces.next() => match event {
                    Ok(event) => see_namespace(&mut publication, &event),
                    Err(error) => warn!("watching namespaces: {error}"),
                },
                Some(event) = bundles.next() => match event {
                    Ok(event) => {
                        let owner = self.owner.references().await;
                        see_bundle(&mut publication, &event, |bundle| match &owner {
                            Ok(owner) => is_right(bundle, &pem, owner.as_deref()),
                            // It may lack its owner. The write asks for that again, and is tried
                            // again until there is an answer.
                            Err(_) => false,
                        });
                    }
                    Err(error) => warn!("watching the ConfigMaps {NAME}: {error}"),
                },
                Ok(()) = self.authority.changed() => {
                    let next = self.authority.borrow_and_update().trust_bundle().to_pem();
                    if *pem != *next {
                        info!("the trust bundle has changed: writing it to every namespace");
                        pem = next.into();
                        publication.outdate();
                    }
                }
                Some(Ok((namespace, written))) = writes.join_next() => {
                    self.wrote(&mut publication, &namespace, written);
                }
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
    }

    async fn write(&self, namespace: &str, pem: &str) -> Result<(), kube::Error> {
        match timeout(EXCHANGE, self.apply(namespace, pem)).await {
            Ok(written) => written,
            Err(elapsed) => Err(kube::Error::Service(elapsed.into())),
        }
    }

    async fn apply(&self, namespace: &str, pem: &str) -> Result<(), kube::Error> {
        let bundles = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let annotations = if namespace == self.namespace {
            let present = bundles.get_opt(NAME).await?;
            announcement::annotations(present.as_ref(), pem, SystemTime::now())
        } else {
            None
        };
        let bundle = ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                annotations,
                owner_references: self.owner.references().await?,
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), pem.to_owned())])),
            ..ConfigMap::default()
        };
        let parameters = PatchParams::apply(&self.manager).force();
        let patch = Patch::Apply(&bundle);
        bundles.patch(NAME, &parameters, &patch).await.map(|_| ())
    }

    fn wrote(
        &self,
        publication: &mut Publication,
        namespace: &str,
        written: Result<(), kube::Error>,
    ) {
        match written {
            Ok(()) => {
                self.metrics.trust_bundle_writes.increment();
                debug!(namespace, "wrote the trust bundle");
                publication.wrote(namespace);
            }
            Err(kube::Error::Api(status)) if is_going(&status) => {
                debug!(
                    namespace,
                    "the namespace goes away: it gets no trust bundle"
                );
                publication.namespace(namespace, false);
                publication.failed(namespace, Instant::now());
            }
            Err(error) => {
                self.metrics.trust_bundle_failures.increment();
                let reason = describe(&error);
                warn!(
                    namespace,
                    "writing ConfigMap {NAME}: {reason}; trying again"
                );
                publication.failed(namespace, Instant::now());
            }
        }
    }
}

/// Whether the namespace is gone or about to go.
fn is_going(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.is_not_found()
        || causes
            .into_iter()
            .any(|cause| cause.reason == "NamespaceTerminating")
}

fn see_namespace(publication: &mut Publication, event: &Event<PartialObjectMeta<Namespace>>) {
    match event {
        Event::Init => publication.begin_namespaces(),
        Event::InitDone => publication.end_namespaces(),
        Event::Apply(namespace) | Event::InitApply(namespace) => {
            if let Some(name) = &namespace.metadata.name {
                publication.namespace(name, namespace.metadata.deletion_timestamp.is_none());
            }
        }
        Event::Delete(namespace) => {
            if let Some(name) = &namespace.metadata.name {
                publication.namespace(name, false);
            }
        }
    }
}

fn see_bundle(
    publication: &mut Publication,
    event: &Event<ConfigMap>,
    is_right: impl Fn(&ConfigMap) -> bool,
) {
    match event {
        Event::Init => publication.begin_bundles(),
        Event::InitDone => publication.end_bundles(),
        Event::Apply(bundle) | Event::InitApply(bundle) => {
            if let Some(namespace) = &bundle.metadata.namespace {
                publication.bundle(namespace, is_right(bundle));
            }
        }
        Event::Delete(bundle) => {
            if let Some(namespace) = &bundle.metadata.namespace {
                publication.bundle(namespace, false);
            }
        }
    }
}

fn is_right(bundle: &ConfigMap, pem: &str, owner: Option<&[OwnerReference]>) -> bool {
    let present = bundle.data.as_ref().and_then(|data| data.get(KEY));
    let owners = bundle
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    let owned = |wanted: &OwnerReference| owners.iter().any(|owner| owner.uid == wanted.uid);
    present.is_some_and(|present| present == pem) && owner.unwrap_or_default().iter().all(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_right_by_its_text_and_its_owner() {
        let bundle = |text: &str, uids: &[&str]| ConfigMap {
            metadata: ObjectMeta {
                owner_references: Some(uids.iter().map(|uid| owner(uid)).collect()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), text.to_owned())])),
            ..ConfigMap::default()
        };
        fn owner(uid: &str) -> OwnerReference {
            OwnerReference {
                uid: uid.to_owned(),
                ..OwnerReference::default()
            }
        }
        let wanted = [owner("1")];
        for (bundle, right) in [
            (bundle("pem", &["1"]), true),
            (bundle("pem", &["2", "1"]), true),
            (bundle("pem", &["2"]), false),
            (bundle("mep", &["1"]), false),
            (ConfigMap::default(), false),
        ] {
            assert_eq!(is_right(&bundle, "pem", Some(&wanted)), right, "{bundle:?}");
        }
        assert!(is_right(&bundle("pem", &[]), "pem", None));
    }
}
