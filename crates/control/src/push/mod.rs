//! Serves each proxy its translation of the mesh, and sends what a change changes.

mod client;
mod node;
pub mod report;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use outrider_identity::ServiceAccount;
use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{Answer, ResourceSet, Source};
use outrider_xds::pb::envoy::config::core::v3::Node;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};
use tracing::{info, warn};

use crate::authenticate::Authenticator;
use crate::mesh::MeshState;
use crate::metrics::Metrics;
use crate::registry::ObjectRef;
use crate::signing::IssuedCertificates;
use crate::translate::{Outbound, OutboundKey};

use report::ProxyReport;

pub use client::Client;
pub use node::{NodeDescription, NodeError, confirm_addresses, proxy_of};

/// How long a stream lasts before the proxy has to prove who it is again: 30 min, less up to a
/// tenth, so that not all come at once.
const STREAM_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// The longest text of a refusal that is logged.
const MAX_REFUSAL: usize = 4096;

/// One state of the mesh.
#[derive(Debug)]
struct Generation {
    number: u64,
    mesh: Arc<MeshState>,
}

/// What proxies of one key share, as of a generation.
#[derive(Debug)]
struct Shared {
    generation: u64,
    outbound: Outbound,
}

/// Holds the mesh and the connected proxies.
#[derive(Debug)]
pub struct Publisher {
    authenticator: Authenticator,
    generation: ArcSwap<Generation>,
    shared: Mutex<HashMap<OutboundKey, Shared>>,
    clients: Mutex<Vec<Weak<Client>>>,
    /// Told when the mesh changed, or what proxies refuse of it.
    changed: watch::Sender<()>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// Starts with a mesh.
    pub fn new(authenticator: Authenticator, mesh: MeshState, metrics: Arc<Metrics>) -> Self {
        let generation = Generation {
            number: 1,
            mesh: Arc::new(mesh),
        };
        Self {
            authenticator,
            generation: ArcSwap::from_pointee(generation),
            shared: Mutex::default(),
            clients: Mutex::default(),
            changed: watch::Sender::new(()),
            metrics,
        }
    }

    /// Puts another state of the mesh in place and sends every proxy what it changes for it.
    /// Translates on the calling thread.
    pub fn publish(&self, mesh: MeshState) {
        let number = self.generation.load().number + 1;
        let mesh = Arc::new(mesh);
        self.generation.store(Arc::new(Generation { number, mesh }));
        // A proxy that is admitted from here on begins with the new state.
        let clients = self.clients();
        for client in &clients {
            self.refresh(client);
        }
        // What no proxy uses any more was not brought up to date.
        self.shared()
            .retain(|_, shared| shared.generation >= number);
        self.changed.send_replace(());
        self.metrics.pushes.increment();
        info!(
            generation = number,
            proxies = clients.len(),
            "pushed the mesh"
        );
    }

    /// Gives a proxy the present state.
    fn refresh(&self, client: &Client) {
        let mut shared = self.shared();
        // Loaded under the lock, so that what is shared never goes back to an older one.
        let Generation { number, mesh } = &**self.generation.load();
        let key = OutboundKey::of(mesh, client.proxy());
        let shared = shared.entry(key).or_insert_with_key(|key| Shared {
            generation: *number,
            outbound: Outbound::new(mesh, key.clone()),
        });
        if shared.generation < *number {
            shared.generation = *number;
            shared.outbound.update(mesh);
        }
        client.refresh(*number, mesh, &shared.outbound);
    }

    fn shared(&self) -> MutexGuard<'_, HashMap<OutboundKey, Shared>> {
        // What a panic left half up to date must not be used: it is made anew.
        self.shared.lock().unwrap_or_else(|poisoned| {
            let mut shared = poisoned.into_inner();
            shared.clear();
            self.shared.clear_poison();
            shared
        })
    }

    /// The mesh that is in place.
    pub fn mesh(&self) -> Arc<MeshState> {
        Arc::clone(&self.generation.load().mesh)
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

    async fn identify(
        &self,
        node: &Node,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<(ServiceAccount, crate::translate::Proxy), Status> {
        let caller = self
            .authenticator
            .caller(metadata, extensions, SystemTime::now())
            .await?;
        let refused = |error: NodeError| Status::permission_denied(error.to_string());
        let proxy = proxy_of(node, &caller).map_err(refused)?;
        confirm_addresses(&proxy, &caller, &self.mesh()).map_err(refused)?;
        Ok((caller.account, proxy))
    }
}

#[async_trait]
impl Source for Publisher {
    type Client = Arc<Client>;

    async fn admit(
        &self,
        node: Node,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Arc<Client>, Status> {
        let (account, proxy) = match self.identify(&node, metadata, extensions).await {
            Ok(identified) => identified,
            Err(status) => {
                self.metrics.refused_callers.increment();
                let peer = crate::serve::peer_of(extensions);
                warn!(peer, node = ?node.id, reason = status.message(), "refused a proxy");
                return Err(status);
            }
        };
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
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push(Arc::downgrade(&client));
        drop(clients);
        // After it is listed: a state that is published meanwhile reaches it either way, and an
        // older one does not replace a newer.
        self.refresh(&client);
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
