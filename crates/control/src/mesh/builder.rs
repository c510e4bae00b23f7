//! Holds the objects, and keeps the mesh up to date with them: a change costs what it touches. One
//! endpoint that comes and goes rebuilds its service, not the mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::registry::kinds::{EndpointSlice, Service};
use crate::registry::{FieldError, NamespacedName, Object, ObjectRef, Source};

use super::build::Parts;
use super::{Fault, MeshService, MeshSettings, MeshState, PeerPolicies, RouteKind, Workload};

/// See the module.
#[derive(Debug)]
pub struct MeshBuilder {
    pub(super) objects: BTreeMap<ObjectRef, (Source, Arc<Object>)>,
    /// The mesh as it was built last.
    pub(super) state: MeshState,
    /// The slices of each service.
    slices: HashMap<NamespacedName, BTreeSet<ObjectRef>>,
    workloads: HashMap<ObjectRef, Arc<Workload>>,
    /// The workloads that say that an address is theirs, and the services.
    holders: HashMap<IpAddr, BTreeSet<ObjectRef>>,
    claims: HashMap<IpAddr, BTreeSet<NamespacedName>>,
    /// What the neighbours of an object show to be wrong with it.
    pub(super) findings: BTreeMap<ObjectRef, Vec<String>>,
    pub(super) dirty: Dirty,
    /// Grows with every difference in what is built.
    revision: u64,
    rebuilt: usize,
}

/// What changed since the last build.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) services: BTreeSet<NamespacedName>,
    pub(super) workloads: BTreeSet<ObjectRef>,
    pub(super) policies: bool,
    /// Routes, or what they may lead to.
    pub(super) routes: bool,
    /// Objects that a verdict is due on.
    pub(super) verdicts: bool,
    pub(super) warnings: bool,
    pub(super) any: bool,
}

fn as_service(object: &Object) -> Option<&Service> {
    match object {
        Object::Service(service) => Some(service),
        _ => None,
    }
}

fn as_slice(object: &Object) -> Option<&EndpointSlice> {
    match object {
        Object::EndpointSlice(slice) => Some(slice),
        _ => None,
    }
}

/// The old version of an object, then the new one, each with whether it is that.
fn versions<'a, T>(
    old: Option<&'a Object>,
    new: Option<&'a Object>,
    narrow: fn(&'a Object) -> Option<&'a T>,
) -> impl Iterator<Item = (&'a T, bool)> {
    let old = old.and_then(narrow).map(|object| (object, false));
    let new = new.and_then(narrow).map(|object| (object, true));
    old.into_iter().chain(new)
}

/// Puts an element into a set, or takes it out.
fn put<T: Ord + Clone>(set: &mut BTreeSet<T>, element: &T, is_in: bool) {
    if is_in {
        set.insert(element.clone());
    } else {
        set.remove(element);
    }
}

impl MeshBuilder {
    /// Without any object.
    pub fn new(settings: Arc<MeshSettings>) -> Self {
        Self {
            objects: BTreeMap::new(),
            state: MeshState::empty(settings),
            slices: HashMap::new(),
            workloads: HashMap::new(),
            holders: HashMap::new(),
            claims: HashMap::new(),
            findings: BTreeMap::new(),
            dirty: Dirty::default(),
            revision: 0,
            rebuilt: 0,
        }
    }

    /// Puts an object in place of its last version.
    pub fn set(&mut self, source: Source, object: Arc<Object>) {
        let reference = object.reference();
        self.absolve(&reference);
        let present = self.objects.get(&reference);
        if present.is_some_and(|(at, present)| *at == source && *present == object) {
            return;
        }
        if matches!(source, Source::File { .. }) {
            let sources = Arc::make_mut(&mut self.state.sources);
            sources.insert(reference.clone(), source.clone());
            self.revision += 1;
        }
        let entry = (source, Arc::clone(&object));
        let old = self.objects.insert(reference.clone(), entry);
        let old = old.map(|(_, object)| object);
        self.note(&reference, old.as_deref(), Some(&object));
    }

    /// Takes an object away.
    pub fn remove(&mut self, reference: &ObjectRef) {
        self.absolve(reference);
        if let Some((source, old)) = self.objects.remove(reference) {
            if matches!(source, Source::File { .. }) {
                Arc::make_mut(&mut self.state.sources).remove(reference);
            }
            self.dirty.warnings |= self.findings.remove(reference).is_some();
            self.note(reference, Some(&old), None);
        }
    }

    /// Notes that an object's new version is wrong. Its last good one stays. Returns whether that
    /// is news.
    pub fn refuse(&mut self, reference: ObjectRef, generation: i64, error: FieldError) -> bool {
        let fault = Fault { generation, error };
        let is_news = self.state.faults.get(&reference) != Some(&fault);
        if is_news {
            Arc::make_mut(&mut self.state.faults).insert(reference, fault);
            self.dirty.verdicts = true;
            self.dirty.any = true;
        }
        is_news
    }

    fn absolve(&mut self, reference: &ObjectRef) {
        if self.state.faults.contains_key(reference) {
            Arc::make_mut(&mut self.state.faults).remove(reference);
            self.dirty.verdicts = true;
            self.dirty.any = true;
        }
    }

    /// Makes these all the objects that there are.
    pub fn replace<'a>(&mut self, all: impl Iterator<Item = &'a (Source, Arc<Object>)>) {
        let mut gone: BTreeSet<_> = self.objects.keys().cloned().collect();
        for (source, object) in all {
            gone.remove(&object.reference());
            self.set(source.clone(), Arc::clone(object));
        }
        for reference in gone {
            self.remove(&reference);
        }
    }

    /// How many objects are in force.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Whether objects changed since the last [`MeshBuilder::build`].
    pub fn is_changed(&self) -> bool {
        self.dirty.any
    }

    /// Grows whenever [`MeshBuilder::build`] gives another mesh than before.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many services the last [`MeshBuilder::build`] looked at.
    pub fn rebuilt(&self) -> usize {
        self.rebuilt
    }

    /// The mesh as it is now. What did not change is shared with the last one.
    pub fn build(&mut self) -> MeshState {
        if std::mem::take(&mut self.dirty.policies) {
            self.build_policies();
        }
        for reference in std::mem::take(&mut self.dirty.workloads) {
            self.build_workload(&reference);
        }
        let services = std::mem::take(&mut self.dirty.services);
        self.rebuilt = services.len();
        for name in services {
            self.build_service(name);
        }
        let routes = std::mem::take(&mut self.dirty.routes);
        if std::mem::take(&mut self.dirty.verdicts) || routes {
            self.judge(routes);
            self.revision += 1;
        }
        if std::mem::take(&mut self.dirty.warnings) {
            self.state.warnings = Arc::new(self.warnings());
            self.revision += 1;
        }
        self.dirty.any = false;
        self.state.clone()
    }

    /// Marks what a change of an object touches.
    fn note(&mut self, reference: &ObjectRef, old: Option<&Object>, new: Option<&Object>) {
        self.dirty.any = true;
        let both = || old.into_iter().chain(new);
        self.dirty.warnings |= both().any(|object| !object.limits().is_empty());
        match new.or(old) {
            Some(Object::Service(_)) => {
                self.dirty.services.insert(reference.name.clone());
                for (service, is_new) in versions(old, new, as_service) {
                    for address in service.addresses() {
                        let claims = self.claims.entry(address).or_default();
                        self.dirty.services.extend(claims.iter().cloned());
                        put(claims, &reference.name, is_new);
                        if claims.is_empty() {
                            self.claims.remove(&address);
                        }
                    }
                }
            }
            Some(Object::EndpointSlice(_)) => {
                for (slice, is_new) in versions(old, new, as_slice) {
                    let service = NamespacedName::new(slice.metadata.namespace(), slice.service());
                    let slices = self.slices.entry(service.clone()).or_default();
                    put(slices, reference, is_new);
                    if slices.is_empty() {
                        self.slices.remove(&service);
                    }
                    self.dirty.services.insert(service);
                }
            }
            Some(Object::Pod(_) | Object::WorkloadEntry(_)) => {
                self.dirty.workloads.insert(reference.clone());
                self.dirty.verdicts |= reference.kind == "WorkloadEntry";
            }
            Some(Object::Namespace(_)) => {
                let inject = |object: Option<&Object>| object?.metadata().inject();
                if inject(old) != inject(new) {
                    let entries = self.within("WorkloadEntry", &reference.name.name);
                    let entries: Vec<_> = entries.map(|(entry, _)| entry.clone()).collect();
                    self.dirty.workloads.extend(entries);
                }
            }
            Some(Object::PeerAuthentication(_)) => {
                self.dirty.policies = true;
                self.dirty.verdicts = true;
            }
            Some(object) => self.dirty.routes |= RouteKind::of(object).is_some(),
            None => {}
        }
    }

    pub(super) fn of_kind(
        &self,
        kind: &'static str,
    ) -> impl Iterator<Item = (&ObjectRef, &Arc<Object>)> {
        let first = ObjectRef {
            kind,
            name: NamespacedName::new("", ""),
        };
        self.objects
            .range(first..)
            .take_while(move |(reference, _)| reference.kind == kind)
            .map(|(reference, (_, object))| (reference, object))
    }

    fn within(
        &self,
        kind: &'static str,
        namespace: &str,
    ) -> impl Iterator<Item = (&ObjectRef, &Arc<Object>)> {
        let first = ObjectRef {
            kind,
            name: NamespacedName::new(namespace, ""),
        };
        let namespace = first.name.namespace.clone();
        self.objects
            .range(first..)
            .take_while(move |(reference, _)| {
                reference.kind == kind && reference.name.namespace == namespace
            })
            .map(|(reference, (_, object))| (reference, object))
    }

    fn build_policies(&mut self) {
        let mut policies = PeerPolicies::new(self.state.settings.mutual_tls);
        for (_, object) in self.of_kind("PeerAuthentication") {
            if let Object::PeerAuthentication(policy) = object.as_ref() {
                policies.add(policy, &self.state.settings.root_namespace);
            }
        }
        if *self.state.policies != policies {
            self.state.policies = Arc::new(policies);
            self.revision += 1;
            // They tell of every endpoint whether it speaks mutual TLS. What is then as it was is
            // not replaced.
            self.dirty
                .services
                .extend(self.state.services.keys().cloned());
        }
    }

    fn build_workload(&mut self, reference: &ObjectRef) {
        let settings = &self.state.settings;
        let new = match self
            .objects
            .get(reference)
            .map(|(_, object)| object.as_ref())
        {
            Some(Object::Pod(pod)) => Some(Workload::of_pod(pod, settings)),
            Some(Object::WorkloadEntry(entry)) => {
                let namespace = ObjectRef {
                    kind: "Namespace",
                    name: NamespacedName::new("", entry.metadata.namespace()),
                };
                let namespace = self.objects.get(&namespace);
                let inject = namespace.and_then(|(_, object)| object.metadata().inject());
                Some(Workload::of_entry(entry, inject, settings))
            }
            _ => None,
        };
        if self.workloads.get(reference).map(Arc::as_ref) == new.as_ref() {
            return;
        }
        self.revision += 1;
        let new = new.map(Arc::new);
        let old = match &new {
            Some(new) => self.workloads.insert(reference.clone(), Arc::clone(new)),
            None => self.workloads.remove(reference),
        };
        for address in old.iter().flat_map(|old| &old.addresses) {
            if let Some(holders) = self.holders.get_mut(address) {
                holders.remove(reference);
            }
        }
        for address in new.iter().flat_map(|new| &new.addresses) {
            let holders = self.holders.entry(*address).or_default();
            holders.insert(reference.clone());
        }
        let addresses: BTreeSet<_> = [&old, &new]
            .into_iter()
            .flatten()
            .flat_map(|each| each.addresses.iter().copied())
            .collect();
        for address in addresses {
            self.settle(address);
        }
        if reference.kind == "WorkloadEntry" {
            let namespace = &reference.name.namespace;
            let selecting = self.within("Service", namespace).filter(|(_, object)| {
                matches!(object.as_ref(), Object::Service(service)
                    if !service.spec.selector.is_empty())
            });
            let selecting: Vec<_> = selecting.map(|(service, _)| service.name.clone()).collect();
            self.dirty.services.extend(selecting);
        }
    }

    /// Decides whose an address is. Of pods the youngest has it: the address of one that is lost
    /// with its node may be given away before the pod is gone.
    fn settle(&mut self, address: IpAddr) {
        if let Some(names) = self.state.services_at.get(&address) {
            self.dirty.services.extend(names.iter().cloned());
        }
        let holders = self.holders.get(&address).cloned().unwrap_or_default();
        let age = |holder: &&ObjectRef| {
            let object = self.objects.get(holder).map(|(_, object)| object);
            object.and_then(|object| object.metadata().creation_timestamp.clone())
        };
        // The first by name of those of the same age.
        let Some(winner) = holders.iter().rev().max_by_key(age) else {
            self.holders.remove(&address);
            Arc::make_mut(&mut self.state.workloads).remove(&address);
            return;
        };
        if let Some(workload) = self.workloads.get(winner) {
            let workloads = Arc::make_mut(&mut self.state.workloads);
            workloads.insert(address, Arc::clone(workload));
        }
        for holder in &holders {
            let lost = |address: &IpAddr| {
                let holder_of = self.state.workloads.get(address)?;
                let mine = self.workloads.get(holder)?;
                let other = (!Arc::ptr_eq(holder_of, mine)).then_some(&holder_of.name)?;
                Some(format!("{address} is workload {other}'s already"))
            };
            let mine = self.workloads.get(holder);
            let lost = mine
                .into_iter()
                .flat_map(|mine| &mine.addresses)
                .filter_map(lost);
            let lost = lost.collect();
            self.find(holder.clone(), lost);
        }
    }

    fn build_service(&mut self, name: NamespacedName) {
        let reference = ObjectRef {
            kind: "Service",
            name,
        };
        let (new, findings) = self.assemble(&reference);
        self.find(reference.clone(), findings);
        let name = reference.name;
        let old = self.state.services.get(&name);
        if old.map(Arc::as_ref) == new.as_ref() {
            return;
        }
        self.dirty.routes |= old.map(|old| old.shape()) != new.as_ref().map(MeshService::shape);
        self.revision += 1;
        let services = Arc::make_mut(&mut self.state.services);
        let new = new.map(Arc::new);
        let old = match &new {
            Some(new) => services.insert(name.clone(), Arc::clone(new)),
            None => services.remove(&name),
        };
        let addresses = |service: &Option<Arc<MeshService>>| -> BTreeSet<IpAddr> {
            let ports = service.iter().flat_map(|service| &service.ports);
            let endpoints = ports.flat_map(|port| &port.endpoints);
            endpoints.map(|endpoint| endpoint.address.ip()).collect()
        };
        let (old, new) = (addresses(&old), addresses(&new));
        if old == new {
            return;
        }
        let services_at = Arc::make_mut(&mut self.state.services_at);
        for address in old.difference(&new) {
            if let Some(names) = services_at.get_mut(address) {
                let names = Arc::make_mut(names);
                names.remove(&name);
                if names.is_empty() {
                    services_at.remove(address);
                }
            }
        }
        for address in new.difference(&old) {
            let names = services_at.entry(*address).or_default();
            Arc::make_mut(names).insert(name.clone());
        }
    }

    fn assemble(&self, reference: &ObjectRef) -> (Option<MeshService>, Vec<String>) {
        let object = self
            .objects
            .get(reference)
            .map(|(_, object)| object.as_ref());
        let Some(Object::Service(service)) = object else {
            return (None, Vec::new());
        };
        if !service.is_served() {
            return (None, Vec::new());
        }
        let slices = self.slices.get(&reference.name).into_iter().flatten();
        let slices = slices.filter_map(|slice| match self.objects.get(slice)?.1.as_ref() {
            Object::EndpointSlice(slice) => Some(slice),
            _ => None,
        });
        let namespace = &reference.name.namespace;
        // A pod stands behind the services whose slices name it.
        let entries = self.within("WorkloadEntry", namespace);
        let entries = entries.filter_map(|(entry, _)| self.workloads.get(entry));
        let parts = Parts {
            state: &self.state,
            slices: slices.collect(),
            entries: entries.collect(),
            claims: &self.claims,
        };
        let (service, findings) = parts.service(reference, service);
        (Some(service), findings)
    }
}
