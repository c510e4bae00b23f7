//! What proxies of one key share, kept up to date service by service: a service that is as it was,
//! with the routes that are attached to it, is not translated again, and a kind of which nothing
//! changed keeps its allocation, which tells streams that there is nothing to look at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::Resources;

use crate::mesh::{MeshService, MeshState};
use crate::registry::NamespacedName;

use super::resource::Origins;
use super::{OutboundKey, Translation, outbound};

/// See the module.
#[derive(Debug)]
pub struct Outbound {
    key: OutboundKey,
    /// What the present resources were made from.
    mesh: Arc<MeshState>,
    parts: HashMap<NamespacedName, Arc<Translation>>,
    /// The services that have a listener of a name: two headless ones over the same workload. The
    /// first has it.
    claims: HashMap<String, BTreeSet<NamespacedName>>,
    resources: [Arc<Resources>; ResourceType::ALL.len()],
    origins: Arc<Origins>,
    translated: usize,
}

impl Outbound {
    /// Translates all of a mesh.
    pub fn new(mesh: &Arc<MeshState>, key: OutboundKey) -> Self {
        let mut outbound = Self {
            mesh: Arc::clone(mesh),
            parts: HashMap::new(),
            claims: HashMap::new(),
            resources: Default::default(),
            origins: Arc::default(),
            translated: 0,
            key,
        };
        let fixed = outbound::fixed(mesh, &outbound.key);
        for kind in ResourceType::ALL {
            if let Some(resources) = fixed.kind(kind) {
                outbound.resources[kind.index()] = Arc::new(resources.clone());
            }
        }
        outbound.apply(mesh.services.keys().cloned().collect());
        outbound
    }

    /// Brings it up to a later state of the same mesh.
    pub fn update(&mut self, mesh: &Arc<MeshState>) {
        let changed = changed(&self.mesh, mesh);
        self.mesh = Arc::clone(mesh);
        self.apply(changed);
    }

    /// The resources of a kind.
    pub fn kind(&self, kind: ResourceType) -> &Arc<Resources> {
        &self.resources[kind.index()]
    }

    /// The object that each resource comes from.
    pub fn origins(&self) -> &Arc<Origins> {
        &self.origins
    }

    /// How many services the last [`Outbound::update`] translated.
    pub fn translated(&self) -> usize {
        self.translated
    }

    /// The same as one translation.
    pub(super) fn to_translation(&self) -> Translation {
        let mut whole = Translation {
            origins: self.origins.as_ref().clone(),
            ..Translation::default()
        };
        for kind in ResourceType::ALL {
            if let Some(resources) = whole.kind_mut(kind) {
                resources.clone_from(self.kind(kind).as_ref());
            }
        }
        whole
    }

    fn apply(&mut self, names: Vec<NamespacedName>) {
        self.translated = names.len();
        let mesh = Arc::clone(&self.mesh);
        for name in names {
            let service = mesh.services.get(&name);
            let new = service.map(|service| outbound::service(&mesh, &self.key, service));
            let new = new.map(Arc::new);
            let old = match &new {
                Some(new) => self.parts.insert(name.clone(), Arc::clone(new)),
                None => self.parts.remove(&name),
            };
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            for kind in ResourceType::ALL {
                let (Some(old), Some(new)) = (old.kind(kind), new.kind(kind)) else {
                    continue;
                };
                for resource in old.keys().filter(|resource| !new.contains_key(*resource)) {
                    let owner = self.yield_claim(kind, resource, &name);
                    self.place(kind, resource, owner.as_ref());
                }
                for resource in new.keys() {
                    if self.claim(kind, resource, &name) {
                        self.place(kind, resource, Some(&name));
                    }
                }
            }
        }
    }

    /// Notes that a service has a resource. Returns whether the service's is the one to be had.
    fn claim(&mut self, kind: ResourceType, resource: &str, name: &NamespacedName) -> bool {
        if kind != ResourceType::Listener {
            return true;
        }
        let claims = self.claims.entry(resource.to_owned()).or_default();
        claims.insert(name.clone());
        claims.first() == Some(name)
    }

    /// Notes that a service has a resource no more. Returns whose is to be had now.
    fn yield_claim(
        &mut self,
        kind: ResourceType,
        resource: &str,
        name: &NamespacedName,
    ) -> Option<NamespacedName> {
        if kind != ResourceType::Listener {
            return None;
        }
        let claims = self.claims.get_mut(resource)?;
        claims.remove(name);
        let next = claims.first().cloned();
        if next.is_none() {
            self.claims.remove(resource);
        }
        next
    }

    /// Puts a service's version of a resource in place, or nobody's.
    fn place(&mut self, kind: ResourceType, resource: &str, owner: Option<&NamespacedName>) {
        let part = owner.and_then(|owner| self.parts.get(owner)).cloned();
        let resources = part.as_ref().and_then(|part| part.kind(kind));
        let version = resources.and_then(|resources| resources.get(resource));
        if self.resources[kind.index()].get(resource) != version {
            let resources = Arc::make_mut(&mut self.resources[kind.index()]);
            match version {
                Some(version) => resources.insert(resource.to_owned(), version.clone()),
                None => resources.remove(resource),
            };
        }
        let key = (kind, resource.to_owned());
        let origin = part.as_ref().and_then(|part| part.origins.get(&key));
        if self.origins.get(&key) != origin {
            let origins = Arc::make_mut(&mut self.origins);
            match origin {
                Some(origin) => origins.insert(key, origin.clone()),
                None => origins.remove(&key),
            };
        }
    }
}

/// The services that are to be translated again: those that are not the same, and, where routes or
/// what they may lead to changed, those that have routes.
fn changed(old: &MeshState, new: &MeshState) -> Vec<NamespacedName> {
    let routed = !new.routes_like(old);
    let has_routes =
        |service: &MeshService| routed && (old.has_routes(service) || new.has_routes(service));
    if Arc::ptr_eq(&old.services, &new.services) && !routed {
        return Vec::new();
    }
    let mut before: BTreeMap<_, _> = old.services.iter().collect();
    let mut changed = Vec::new();
    for (name, service) in new.services.iter() {
        let same = before
            .remove(name)
            .is_some_and(|old| Arc::ptr_eq(old, service));
        if !same || has_routes(service) {
            changed.push(name.clone());
        }
    }
    changed.extend(before.into_keys().cloned());
    changed
}
