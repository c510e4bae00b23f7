//! One stream of one proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{Answer, ResourceSet};
use tokio::sync::watch;

use crate::mesh::MeshState;
use crate::registry::ObjectRef;
use crate::translate::{Origins, Outbound, Proxy, inbound};

use super::node::NodeDescription;
use super::report::{KindReport, ProxyReport, Refusal, kind_name, timestamp};

/// A proxy with what it was given.
#[derive(Debug)]
pub struct Client {
    proxy: Proxy,
    node: NodeDescription,
    since: SystemTime,
    ends: Instant,
    /// Told when what it refuses becomes another.
    refusals: watch::Sender<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    generation: u64,
    /// Of the resources that others share, and of its own.
    shared_origins: Arc<Origins>,
    own_origins: Origins,
    progress: [Progress; ResourceType::ALL.len()],
    /// Dropped to end the stream.
    sender: Option<watch::Sender<Arc<ResourceSet>>>,
    receiver: watch::Receiver<Arc<ResourceSet>>,
}

/// How the resources of a kind fared.
#[derive(Debug, Default)]
struct Progress {
    sent: Option<String>,
    accepted: Option<String>,
    refused: Option<Refused>,
}

/// What a proxy refused and has not taken a later version of: that it takes other resources of the
/// kind says nothing of these.
#[derive(Debug)]
struct Refused {
    version: String,
    reason: String,
    /// The resources, each with the objects that it comes from.
    resources: BTreeMap<String, Arc<[ObjectRef]>>,
}

impl Refused {
    fn objects(&self) -> BTreeSet<ObjectRef> {
        let objects = self.resources.values();
        objects
            .flat_map(|objects| objects.iter())
            .cloned()
            .collect()
    }
}

impl Client {
    pub(super) fn new(
        proxy: Proxy,
        node: NodeDescription,
        since: SystemTime,
        ends: Instant,
        refusals: watch::Sender<()>,
    ) -> Self {
        let (sender, receiver) = watch::channel(Arc::new(ResourceSet::default()));
        let state = State {
            generation: 0,
            shared_origins: Arc::default(),
            own_origins: Origins::default(),
            progress: Default::default(),
            sender: Some(sender),
            receiver,
        };
        Self {
            proxy,
            node,
            since,
            ends,
            refusals,
            state: Mutex::new(state),
        }
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.proxy.name
    }

    pub(super) fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    pub(super) fn end(&self) {
        self.state().sender = None;
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<ResourceSet>> {
        self.state().receiver.clone()
    }

    /// Gives it the resources of a generation, unless it has those of a later one.
    pub(super) fn refresh(&self, generation: u64, mesh: &MeshState, outbound: &Outbound) {
        let mut state = self.state();
        if state.generation >= generation {
            return;
        }
        let own = inbound(mesh, &self.proxy);
        let present = Arc::clone(&state.receiver.borrow());
        let mut set = ResourceSet::new(generation.to_string());
        for kind in ResourceType::ALL {
            let Some(added) = own.kind(kind) else {
                continue;
            };
            // The same allocation tells the stream that there is nothing to look at.
            let own = Some(present.kind(kind).own()).filter(|own| own.as_ref() == added);
            let own = own.map_or_else(|| Arc::new(added.clone()), Arc::clone);
            set = set.with_own(kind, Arc::clone(outbound.kind(kind)), own);
            let resources = set.kind(kind);
            let progress = &mut state.progress[kind.index()];
            if let Some(refused) = &mut progress.refused {
                // What is to be no more is refused no more.
                refused
                    .resources
                    .retain(|name, _| resources.contains_key(name));
                if refused.resources.is_empty() {
                    progress.refused = None;
                }
            }
        }
        state.generation = generation;
        state.shared_origins = Arc::clone(outbound.origins());
        state.own_origins = own.origins;
        if let Some(sender) = &state.sender {
            sender.send_replace(Arc::new(set));
        }
    }

    pub(super) fn sent(&self, kind: ResourceType, version: &str) {
        self.state().progress[kind.index()].sent = Some(version.to_owned());
    }

    pub(super) fn accepted(&self, answer: &Answer) {
        let progress = &mut self.state().progress[answer.resource_type.index()];
        progress.accepted = Some(answer.version.clone());
        let Some(refused) = &mut progress.refused else {
            return;
        };
        refused
            .resources
            .retain(|name, _| !answer.names.contains(name));
        if refused.resources.is_empty() {
            progress.refused = None;
        }
        self.refusals.send_replace(());
    }

    /// Notes a refusal. Returns the objects behind it: of the resources that its text names, or of
    /// all in the response if it names none.
    pub(super) fn refused(&self, answer: &Answer, reason: String) -> BTreeSet<ObjectRef> {
        let text = answer.refusal.as_deref().unwrap_or_default();
        let named = |name: &&String| text.contains(name.as_str());
        let mut names: Vec<&String> = answer.names.iter().filter(named).collect();
        if names.is_empty() {
            names = answer.names.iter().collect();
        }
        let mut state = self.state();
        let origin = |name: &String| {
            let key = (answer.resource_type, name.clone());
            let origins = [&state.own_origins, state.shared_origins.as_ref()];
            origins
                .iter()
                .find_map(|origins| origins.get(&key))
                .cloned()
                .unwrap_or_default()
        };
        let refused: BTreeMap<_, _> = names
            .into_iter()
            .map(|name| (name.clone(), origin(name)))
            .collect();
        let objects = refused.values().flat_map(|objects| objects.iter());
        let objects = objects.cloned().collect();
        let progress = &mut state.progress[answer.resource_type.index()];
        let before = progress.refused.take();
        let mut resources = before.map(|before| before.resources).unwrap_or_default();
        resources.retain(|name, _| !answer.names.contains(name));
        resources.extend(refused);
        progress.refused = Some(Refused {
            version: answer.version.clone(),
            reason,
            resources,
        });
        self.refusals.send_replace(());
        objects
    }

    /// The objects that it refuses now.
    pub(super) fn refuses(&self) -> BTreeSet<ObjectRef> {
        let state = self.state();
        let refused = state
            .progress
            .iter()
            .filter_map(|each| each.refused.as_ref());
        refused.flat_map(Refused::objects).collect()
    }

    /// What is to be told of it.
    pub(super) fn report(&self, certificate_ends: Option<SystemTime>) -> ProxyReport {
        let state = self.state();
        let set = state.receiver.borrow();
        let kind = |kind: ResourceType| {
            let progress = &state.progress[kind.index()];
            let sent = progress.sent.clone()?;
            Some(KindReport {
                kind: kind_name(kind).to_owned(),
                resources: set.kind(kind).len(),
                sent: Some(sent),
                accepted: progress.accepted.clone(),
                refusal: progress.refused.as_ref().map(|refused| Refusal {
                    version: refused.version.clone(),
                    reason: refused.reason.clone(),
                    objects: refused.objects().iter().map(ToString::to_string).collect(),
                }),
            })
        };
        let namespace = self.proxy.account.namespace();
        let name = self.proxy.name.as_str();
        let name = name.strip_suffix(&format!(".{namespace}")).unwrap_or(name);
        ProxyReport {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            service_account: self.proxy.account.name().to_owned(),
            addresses: self.proxy.addresses.clone(),
            version: self.node.version.clone(),
            revision: self.node.revision.clone(),
            node: self.node.node.clone(),
            connected_since: timestamp(self.since),
            certificate_expires: certificate_ends.map(timestamp),
            kinds: ResourceType::ALL.into_iter().filter_map(kind).collect(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change is whole before the lock is let go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.refuses().is_empty() {
            self.refusals.send_replace(());
        }
    }
}
