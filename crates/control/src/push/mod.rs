//! Serves each proxy its translation of the mesh, and sends what a change changes.

mod client;
mod node;
pub mod report;
mod translations;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{Answer, ResourceSet, Source};
use outrider_xds::pb::envoy::config::core::v3::Node;
use tokio::sync::{Semaphore, watch};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};
use tracing::{error, info, warn};

use crate::authenticate::{Authenticator, Caller};
use crate::mesh::MeshState;
use crate::metrics::Metrics;
use crate::registry::ObjectRef;
use crate::signing::IssuedCertificates;
use crate::translate::Proxy;

use report::ProxyReport;
use translations::Translations;

pub use client::Client;
pub use node::{NodeDescription, NodeError, confirm_addresses, proxy_of};

/// How long a stream lasts before the proxy has to prove who it is again: 30 min, less up to a
/// tenth, so that not all come at once.
const STREAM_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// The longest text of a refusal that is logged.
const MAX_REFUSAL: usize = 4096;

/// A caller that has proved who it is.
#[derive(Debug)]
pub struct Authenticated {
    caller: Caller,
    /// Its address, for logs.
    peer: String,
}

/// Holds the mesh and the connected proxies.
#[derive(Debug)]
pub struct Publisher {
    authenticator: Authenticator,
    translations: Arc<Translations>,
    /// To translate for a proxy that comes: no more at a time than there are processors.
    turns: Arc<Semaphore>,
    clients: Mutex<Vec<Weak<Client>>>,
    /// Told when the mesh changed, or what proxies refuse of it.
    changed: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// Starts with a mesh.
    pub fn new(authenticator: Authenticator, mesh: MeshState, metrics: Arc<Metrics>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            authenticator,
            translations: Arc::new(Translations::new(mesh)),
            turns: Arc::new(Semaphore::new(processors)),
            clients: Mutex::default(),
            changed: watch::Sender::new(()),
            metrics,
        }
    }

    /// Puts another state of the mesh in place and sends every proxy what it changes for it.
    /// Translates on the calling thread.
    pub fn publish(&self, mesh: MeshState) {
        let number = self.translations.replace(mesh);
        // A proxy that is admitted from here on begins with the new state.
        let clients = self.clients();
        for client in &clients {
            self.translations.refresh(client);
        }
        self.translations.forget_before(number);
        self.changed.send_replace(());
        self.metrics.pushes.increment();
        info!(
            generation = number,
            proxies = clients.len(),
            "pushed the mesh"
        );
    }

    /// The mesh that is in place.
    pub fn mesh(&self) -> Arc<MeshState> {
        self.translations.mesh()
    }

    /// Ends the streams that have lasted long enough at `now`; their proxies come back at once and
    /// prove again who they are.
    pub fn end_old_streams(&self, now: Instant) {
        for client in self.clients().iter().filter(|client| client.ends() <= now) {
            client.end();
        }
    }

    /// Ends every stream: the server is about to go.
    pub fn end_all_streams(&self) {
        for client in self.clients() {
            client.end();
        }
    }

    fn enlist(&self, client: &Arc<Client>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push(Arc::downgrade(client));
    }

    /// The connected proxies.
    fn clients(&self) -> Vec<Arc<Client>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| client.strong_count() > 0);
        let clients: Vec<_> = clients.iter().filter_map(Weak::upgrade).collect();
        self.metrics.proxies.set(clients.len());
        clients
    }

    /// How many connected proxies refuse what became of an object, for each of which there are any.
    pub fn refusals(&self) -> BTreeMap<ObjectRef, usize> {
        let mut counts = BTreeMap::new();
        for object in self.clients().iter().flat_map(|client| client.refuses()) {
            *counts.entry(object).or_default() += 1;
        }
        counts
    }

    /// Tells when [`Publisher::mesh`] or [`Publisher::refusals`] changed.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What is to be told of every connected proxy, by namespace and name.
    pub fn report(&self, issued: &IssuedCertificates) -> Vec<ProxyReport> {
        let report = |client: &Arc<Client>| {
            let proxy = client.proxy();
            let suffix = format!(".{}", proxy.account.namespace());
            let pod = proxy.name.strip_suffix(&suffix).unwrap_or(&proxy.name);
            client.report(issued.not_after(&proxy.account, pod))
        };
        let mut reports: Vec<_> = self.clients().iter().map(report).collect();
        reports.sort_by(|one, other| {
            (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
        });
        reports
    }

    /// The proxy that a node says it is, if the caller may be that one.
    fn identify(&self, node: &Node, caller: &Caller) -> Result<Proxy, Status> {
        let refused = |error: NodeError| Status::permission_denied(error.to_string());
        let proxy = proxy_of(node, caller).map_err(refused)?;
        confirm_addresses(&proxy, caller, &self.mesh()).map_err(refused)?;
        Ok(proxy)
    }

    /// Gives a proxy the present state, on a thread that may take its time: a first translation
    /// must not hold up the streams of the others.
    async fn begin(&self, client: &Arc<Client>) -> Result<(), Status> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let (translations, client) = (Arc::clone(&self.translations), Arc::clone(client));
        let translated = tokio::task::spawn_blocking(move || {
            translations.refresh(&client);
            drop(turn);
        });
        translated.await.map_err(|error| {
            error!("translating for a proxy failed: {error}");
            Status::internal("the translation failed")
        })
    }
}

#[async_trait]
impl Source for Publisher {
    type Caller = Authenticated;
    type Client = Arc<Client>;

    async fn authenticate(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Authenticated, Status> {
        let peer = crate::serve::peer_of(extensions);
        let now = SystemTime::now();
        match self.authenticator.caller(metadata, extensions, now).await {
            Ok(caller) => Ok(Authenticated { caller, peer }),
            Err(error) => {
                self.metrics.refused_callers.increment();
                warn!(peer, reason = %error, "refused a caller");
                Err(error.into())
            }
        }
    }

    async fn admit(&self, node: Node, caller: Authenticated) -> Result<Arc<Client>, Status> {
        let Authenticated { caller, peer } = caller;
        let proxy = self.identify(&node, &caller).inspect_err(|status| {
            self.metrics.refused_callers.increment();
            warn!(peer, node = ?node.id, reason = status.message(), "refused a proxy");
        })?;
        let account = caller.account;
        info!(proxy = proxy.name, %account, addresses = ?proxy.addresses, "a proxy connected");
        let lifetime = STREAM_LIFETIME.mul_f64(1.0 - rand::random::<f64>() / 10.0);
        let description = NodeDescription::of(&node);
        let (since, ends) = (SystemTime::now(), Instant::now() + lifetime);
        let client = Arc::new(Client::new(
            proxy,
            description,
            since,
            ends,
            self.changed.clone(),
        ));
        self.enlist(&client);
        // After it is listed: a state that is published meanwhile reaches it either way, and an
        // older one does not replace a newer.
        self.begin(&client).await?;
        self.metrics.proxies.set(self.clients().len());
        Ok(client)
    }

    fn watch(&self, client: &Arc<Client>) -> watch::Receiver<Arc<ResourceSet>> {
        client.watch()
    }

    fn sent(&self, client: &Arc<Client>, kind: ResourceType, version: &str) {
        client.sent(kind, version);
    }

    fn answered(&self, client: &Arc<Client>, answer: Answer) {
        let Some(refusal) = &answer.refusal else {
            return client.accepted(&answer);
        };
        self.metrics.refused_resources.increment();
        let text: String = refusal.chars().take(MAX_REFUSAL).collect();
        let objects = client.refused(&answer, text.clone());
        let mesh = self.mesh();
        let describe = |object: &ObjectRef| match mesh.source(object) {
            Some(source) => format!("{object} ({source})"),
            None => object.to_string(),
        };
        let objects: Vec<String> = objects.iter().map(describe).collect();
        warn!(
            proxy = client.name(),
            kind = %answer.resource_type,
            objects = objects.join("; "),
            refusal = ?text,
            "a proxy refused resources and keeps its last good ones"
        );
    }
}
