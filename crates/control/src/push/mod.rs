//! Serves each proxy its translation of the mesh, and sends what a change changes.

mod client;
mod node;
pub mod report;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use outrider_identity::ServiceAccount;
use outrider_xds::ads::server::{Answer, ResourceSet, Source};
use outrider_xds::pb::envoy::config::core::v3::Node;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};
use tracing::{info, warn};

use crate::authenticate::Authenticator;
use crate::mesh::MeshState;
use crate::metrics::Metrics;
use crate::translate::{OutboundKey, Translation, outbound};

pub use client::Client;
pub use node::{NodeError, confirm_addresses, proxy_of};

/// How long a stream lasts before the proxy has to prove who it is again: 30 min, less up to a
/// tenth, so that not all come at once.
const STREAM_LIFETIME: Duration = Duration::from_secs(30 * 60);
/// The longest text of a refusal that is logged.
const MAX_REFUSAL: usize = 4096;

/// One state of the mesh, with the translations that proxies share.
#[derive(Debug)]
struct Generation {
    number: u64,
    mesh: Arc<MeshState>,
    shared: Mutex<HashMap<OutboundKey, Arc<Translation>>>,
}

impl Generation {
    fn outbound(&self, key: OutboundKey) -> Arc<Translation> {
        // A poisoned map is still a map of finished translations.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let translation = shared
            .entry(key)
            .or_insert_with_key(|key| Arc::new(outbound(&self.mesh, key)));
        Arc::clone(translation)
    }
}

/// Holds the mesh and the connected proxies.
#[derive(Debug)]
pub struct Publisher {
    authenticator: Authenticator,
    generation: ArcSwap<Generation>,
    clients: Mutex<Vec<Weak<Client>>>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// Starts with a mesh.
    pub fn new(authenticator: Authenticator, mesh: MeshState, metrics: Arc<Metrics>) -> Self {
        let generation = Generation {
            number: 1,
            mesh: Arc::new(mesh),
            shared: Mutex::default(),
        };
        Self {
            authenticator,
            generation: ArcSwap::from_pointee(generation),
            clients: Mutex::default(),
            metrics,
        }
    }

    /// Puts another state of the mesh in place and sends every proxy what it changes for it.
    /// Translates on the calling thread.
    pub fn publish(&self, mesh: MeshState) {
        let generation = Arc::new(Generation {
            number: self.generation.load().number + 1,
            mesh: Arc::new(mesh),
            shared: Mutex::default(),
        });
        self.generation.store(Arc::clone(&generation));
        // A proxy that is admitted from here on begins with the new state.
        let clients = self.clients();
        for client in &clients {
            client.refresh(&generation);
        }
        self.metrics.pushes.increment();
        info!(
            generation = generation.number,
            proxies = clients.len(),
            "pushed the mesh"
        );
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
        let client = Arc::new(Client::new(proxy, Instant::now() + lifetime));
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.push(Arc::downgrade(&client));
        drop(clients);
        // After it is listed: a state that is published meanwhile reaches it either way, and an
        // older one does not replace a newer.
        client.refresh(&self.generation.load_full());
        self.metrics.proxies.set(self.clients().len());
        Ok(client)
    }

    fn watch(&self, client: &Arc<Client>) -> watch::Receiver<Arc<ResourceSet>> {
        client.watch()
    }

    fn answered(&self, client: &Arc<Client>, answer: Answer) {
        let Some(refusal) = &answer.refusal else {
            return;
        };
        self.metrics.refused_resources.increment();
        let text: String = refusal.chars().take(MAX_REFUSAL).collect();
        let objects = client.origins(&answer, &self.mesh());
        warn!(
            proxy = client.name(),
            kind = %answer.resource_type,
            objects = objects.join("; "),
            refusal = ?text,
            "a proxy refused resources and keeps its last good ones"
        );
    }
}
