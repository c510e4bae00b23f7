//! One stream of one proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{Answer, ResourceSet};
use tokio::sync::watch;

use crate::mesh::MeshState;
use crate::registry::ObjectRef;
use crate::translate::{OutboundKey, Proxy, complete};

use super::Generation;

/// A proxy with what it was given.
#[derive(Debug)]
pub struct Client {
    proxy: Proxy,
    ends: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    generation: u64,
    origins: BTreeMap<(ResourceType, String), ObjectRef>,
    /// Dropped to end the stream.
    sender: Option<watch::Sender<Arc<ResourceSet>>>,
    receiver: watch::Receiver<Arc<ResourceSet>>,
}

impl Client {
    pub(super) fn new(proxy: Proxy, ends: Instant) -> Self {
        let (sender, receiver) = watch::channel(Arc::new(ResourceSet::default()));
        let state = State {
            generation: 0,
            origins: BTreeMap::new(),
            sender: Some(sender),
            receiver,
        };
        Self {
            proxy,
            ends,
            state: Mutex::new(state),
        }
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.proxy.name
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
    pub(super) fn refresh(&self, generation: &Generation) {
        let mut state = self.state();
        if state.generation >= generation.number {
            return;
        }
        let outbound = generation.outbound(OutboundKey::of(&generation.mesh, &self.proxy));
        let translation = complete(&generation.mesh, &self.proxy, &outbound);
        let present = Arc::clone(&state.receiver.borrow());
        let mut set = ResourceSet::new(generation.number.to_string());
        for kind in ResourceType::ALL {
            let Some(resources) = translation.kind(kind) else {
                continue;
            };
            // The same allocation tells the stream that there is nothing to look at.
            let shared = Some(present.kind(kind)).filter(|present| present.as_ref() == resources);
            let resources = shared.map_or_else(|| Arc::new(resources.clone()), Arc::clone);
            set = set.with(kind, resources);
        }
        state.generation = generation.number;
        state.origins = translation.origins;
        if let Some(sender) = &state.sender {
            sender.send_replace(Arc::new(set));
        }
    }

    /// The objects behind what a client refused: of the resources that its text names, or of all
    /// in the response if it names none.
    pub(super) fn origins(&self, answer: &Answer, mesh: &MeshState) -> Vec<String> {
        let text = answer.refusal.as_deref().unwrap_or_default();
        let named: Vec<&String> = answer
            .names
            .iter()
            .filter(|name| text.contains(name.as_str()))
            .collect();
        let names = if named.is_empty() {
            answer.names.iter().collect()
        } else {
            named
        };
        let state = self.state();
        let mut objects: Vec<&ObjectRef> = names
            .into_iter()
            .filter_map(|name| state.origins.get(&(answer.resource_type, name.clone())))
            .collect();
        objects.sort();
        objects.dedup();
        let describe = |object: &ObjectRef| match mesh.source(object) {
            Some(source) => format!("{object} ({source})"),
            None => object.to_string(),
        };
        objects.into_iter().map(describe).collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Every change is whole before the lock is let go.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
