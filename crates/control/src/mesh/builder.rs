//! Holds the objects, and keeps the mesh up to date with them: a change costs what it touches. One
//! endpoint that comes and goes rebuilds its service, not the mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::registry::kinds::{EndpointSlice, Service};
use crate::registry::{FieldError, NamespacedName, Object, ObjectRef, Source};

use super::build::Parts;
use super::{
    Fault, JudgedRoute, MeshRoute, MeshService, MeshSettings, MeshState, PeerPolicies, RouteKind,
    Verdict, Warning, Workload,
};

/// See the module.
#[derive(Debug)]
pub struct MeshBuilder {
    objects: BTreeMap<ObjectRef, (Source, Arc<Object>)>,
    /// The mesh as it was built last.
    state: MeshState,
    /// The slices of each service.
    slices: HashMap<NamespacedName, BTreeSet<ObjectRef>>,
    workloads: HashMap<ObjectRef, Arc<Workload>>,
    /// The workloads that say that an address is theirs, and the services.
    holders: HashMap<IpAddr, BTreeSet<ObjectRef>>,
    claims: HashMap<IpAddr, BTreeSet<NamespacedName>>,
    /// What the neighbours of an object show to be wrong with it.
    findings: BTreeMap<ObjectRef, Vec<String>>,
    dirty: Dirty,
    rebuilt: usize,
}

/// What changed since the last build.
#[derive(Debug, Default)]
struct Dirty {
    services: BTreeSet<NamespacedName>,
    workloads: BTreeSet<ObjectRef>,
    policies: bool,
    /// Routes, what they lead to, or objects that a verdict is due on.
    verdicts: bool,
    warnings: bool,
    any: bool,
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

    /// Notes that an object's new version is wrong. Its last good one stays.
    pub fn refuse(&mut self, reference: ObjectRef, generation: i64, error: FieldError) {
        let fault = Fault { generation, error };
        if self.state.faults.get(&reference) != Some(&fault) {
            Arc::make_mut(&mut self.state.faults).insert(reference, fault);
            self.dirty.verdicts = true;
            self.dirty.any = true;
        }
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

    /// Whether anything changed since the last [`MeshBuilder::build`].
    pub fn is_changed(&self) -> bool {
        self.dirty.any
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
        if std::mem::take(&mut self.dirty.verdicts) {
            self.judge();
        }
        if std::mem::take(&mut self.dirty.warnings) {
            self.state.warnings = Arc::new(self.warnings());
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
            Some(object) => self.dirty.verdicts |= RouteKind::of(object).is_some(),
            None => {}
        }
    }

    fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = (&ObjectRef, &Arc<Object>)> {
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
        let mut policies = PeerPolicies::default();
        for (_, object) in self.of_kind("PeerAuthentication") {
            if let Object::PeerAuthentication(policy) = object.as_ref() {
                policies.add(policy, &self.state.settings.root_namespace);
            }
        }
        if *self.state.policies != policies {
            self.state.policies = Arc::new(policies);
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
        self.dirty.verdicts |= old.map(|old| old.shape()) != new.as_ref().map(MeshService::shape);
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

    fn find(&mut self, reference: ObjectRef, findings: Vec<String>) {
        let before = self.findings.get(&reference).map_or(&[][..], Vec::as_slice);
        if before == findings {
            return;
        }
        self.dirty.warnings = true;
        self.dirty.verdicts |= reference.kind == "WorkloadEntry";
        if findings.is_empty() {
            self.findings.remove(&reference);
        } else {
            self.findings.insert(reference, findings);
        }
    }

    /// Attaches the routes, and says of every object with a status what became of it.
    fn judge(&mut self) {
        let kinds = [
            RouteKind::Grpc,
            RouteKind::Http,
            RouteKind::Tls,
            RouteKind::Tcp,
        ];
        let routes = kinds.iter().flat_map(|kind| self.of_kind(kind.as_str()));
        let routes: Vec<Arc<JudgedRoute>> = routes
            .filter_map(|(_, object)| JudgedRoute::new(object).map(Arc::new))
            .collect();
        let mut attached: BTreeMap<NamespacedName, Vec<MeshRoute>> = BTreeMap::new();
        for route in &routes {
            for (service, attachment) in MeshRoute::attachments(route) {
                attached.entry(service).or_default().push(attachment);
            }
        }
        self.state.routes = Arc::new(attached);
        self.state.routing += 1;
        let mut verdicts = BTreeMap::new();
        for route in &routes {
            let mut verdict = Verdict::of_route(&self.state, route);
            let complaints = verdict
                .complaints()
                .into_iter()
                .map(str::to_owned)
                .collect();
            self.find(route.reference(), complaints);
            if let Some(fault) = self.state.faults.get(&route.reference()) {
                verdict.refuse(fault);
            }
            verdicts.insert(route.reference(), verdict);
        }
        for kind in ["PeerAuthentication", "WorkloadEntry"] {
            for (reference, object) in self.of_kind(kind) {
                let findings = self.findings.get(reference);
                let findings = findings.map_or(&[][..], Vec::as_slice);
                verdicts.insert(reference.clone(), Verdict::accepted(object, findings));
            }
            let faults = self.state.faults.iter();
            for (reference, fault) in faults.filter(|(reference, _)| reference.kind == kind) {
                verdicts.insert(reference.clone(), Verdict::refused(fault));
            }
        }
        self.state.verdicts = Arc::new(verdicts);
    }

    fn warnings(&self) -> BTreeSet<Warning> {
        let warning = |reference: &ObjectRef, message: String| {
            let (source, _) = self.objects.get(reference)?;
            Some(Warning {
                object: reference.clone(),
                source: source.clone(),
                message,
            })
        };
        let found = self.findings.iter().flat_map(|(reference, findings)| {
            findings
                .iter()
                .filter_map(|text| warning(reference, text.clone()))
        });
        // In a directory these are errors, and such an object is not here. Of a route the verdict
        // tells.
        let limited = self.objects.iter().filter(|(_, (source, object))| {
            *source == Source::Cluster && RouteKind::of(object).is_none()
        });
        let limits = limited.flat_map(|(reference, (_, object))| {
            let limits = object.limits().into_iter();
            limits.filter_map(|limit| warning(reference, limit.to_string()))
        });
        found.chain(limits).collect()
    }
}
