//! From the documents to the mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::registry::kinds::{
    EndpointSlice, IpFamily, MutualTlsMode, PortName, Service, ServicePort, SliceEndpoint,
    TransportProtocol,
};
use crate::registry::{FieldError, NamespacedName, Object, ObjectRef, Source};

use super::{
    AppProtocol, JudgedRoute, MeshEndpoint, MeshPort, MeshRoute, MeshService, MeshSettings,
    MeshState, PeerPolicies, RouteKind, Verdict, Warning, Workload,
};

type Documents<'a> = Vec<&'a (Source, Arc<Object>)>;

/// Holds the objects and puts them together anew when they change.
#[derive(Debug)]
pub struct MeshBuilder {
    settings: Arc<MeshSettings>,
    objects: BTreeMap<ObjectRef, (Source, Arc<Object>)>,
    faults: BTreeMap<ObjectRef, FieldError>,
    changed: bool,
}

impl MeshBuilder {
    /// Without any object.
    pub fn new(settings: Arc<MeshSettings>) -> Self {
        Self {
            settings,
            objects: BTreeMap::new(),
            faults: BTreeMap::new(),
            changed: true,
        }
    }

    /// Puts an object in place of its last version.
    pub fn set(&mut self, source: Source, object: Arc<Object>) {
        let reference = object.reference();
        self.changed |= self.faults.remove(&reference).is_some();
        let present = self.objects.get(&reference);
        if present.is_some_and(|(at, present)| *at == source && *present == object) {
            return;
        }
        self.objects.insert(reference, (source, object));
        self.changed = true;
    }

    /// Takes an object away.
    pub fn remove(&mut self, reference: &ObjectRef) {
        self.changed |= self.faults.remove(reference).is_some();
        self.changed |= self.objects.remove(reference).is_some();
    }

    /// Notes that an object's new version is wrong. Its last good one stays.
    pub fn refuse(&mut self, reference: ObjectRef, error: FieldError) {
        let before = self.faults.insert(reference, error.clone());
        self.changed |= before != Some(error);
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
        self.changed
    }

    /// The mesh as it is now.
    pub fn build(&mut self) -> MeshState {
        self.changed = false;
        let mut mesh = MeshState::build(Arc::clone(&self.settings), self.objects.values());
        mesh.faults = Arc::new(self.faults.clone());
        mesh
    }
}

impl MeshState {
    /// Puts the documents together.
    pub fn build<'a>(
        settings: Arc<MeshSettings>,
        documents: impl Iterator<Item = &'a (Source, Arc<Object>)>,
    ) -> Self {
        let documents: Documents<'a> = documents.collect();
        let mut state = Self {
            settings,
            services: BTreeMap::new(),
            policies: PeerPolicies::default(),
            warnings: BTreeSet::new(),
            workloads: HashMap::new(),
            services_at: HashMap::new(),
            routes: BTreeMap::new(),
            faults: Arc::default(),
            verdicts: BTreeMap::new(),
            sources: documents
                .iter()
                .map(|(source, object)| (object.reference(), source.clone()))
                .collect(),
        };
        // Of a route the verdict tells.
        let others = documents.iter();
        for (source, object) in others.filter(|(_, object)| RouteKind::of(object).is_none()) {
            // In a directory these are errors, and such an object is not here.
            for limit in object.limits() {
                state.warnings.insert(Warning {
                    object: object.reference(),
                    source: source.clone(),
                    message: limit.to_string(),
                });
            }
        }
        state.add_policies(&documents);
        let by_namespace = state.add_workloads(&documents);
        state.add_services(&documents, &by_namespace);
        state.add_routes(&documents);
        state
    }

    fn warn(&mut self, object: ObjectRef, message: String) {
        if let Some(source) = self.sources.get(&object).cloned() {
            self.warnings.insert(Warning {
                object,
                source,
                message,
            });
        }
    }

    fn add_policies(&mut self, documents: &Documents<'_>) {
        for (_, object) in documents {
            if let Object::PeerAuthentication(policy) = object.as_ref() {
                self.policies.add(policy, &self.settings.root_namespace);
            }
        }
    }

    fn add_workloads(&mut self, documents: &Documents<'_>) -> BTreeMap<String, Vec<Arc<Workload>>> {
        let mut inject = BTreeMap::new();
        for (_, object) in documents {
            if let Object::Namespace(namespace) = object.as_ref() {
                inject.insert(
                    namespace.metadata.name.as_str(),
                    namespace.metadata.inject(),
                );
            }
        }
        let mut by_namespace: BTreeMap<String, Vec<Arc<Workload>>> = BTreeMap::new();
        for (_, object) in documents {
            let namespace = object.metadata().namespace();
            let namespace_inject = inject.get(namespace).copied().flatten();
            let workload = match object.as_ref() {
                Object::WorkloadEntry(entry) => {
                    Workload::of_entry(entry, namespace_inject, &self.settings)
                }
                Object::Pod(pod) => Workload::of_pod(pod, &self.settings),
                _ => continue,
            };
            let workload = Arc::new(workload);
            for address in &workload.addresses {
                if let Some(other) = self.workloads.get(address) {
                    let message = format!("{address} is workload {}'s already", other.name);
                    self.warn(object.reference(), message);
                } else {
                    self.workloads.insert(*address, Arc::clone(&workload));
                }
            }
            // A pod stands behind the services whose slices name it.
            if matches!(object.as_ref(), Object::WorkloadEntry(_)) {
                let entries = by_namespace.entry(namespace.to_owned()).or_default();
                entries.push(workload);
            }
        }
        by_namespace
    }

    fn add_services(
        &mut self,
        documents: &Documents<'_>,
        workloads: &BTreeMap<String, Vec<Arc<Workload>>>,
    ) {
        let mut slices: HashMap<NamespacedName, Vec<&EndpointSlice>> = HashMap::new();
        for (_, object) in documents {
            if let Object::EndpointSlice(slice) = object.as_ref() {
                let name = NamespacedName::new(slice.metadata.namespace(), slice.service());
                slices.entry(name).or_default().push(slice);
            }
        }
        let mut taken: HashMap<IpAddr, NamespacedName> = HashMap::new();
        for (_, object) in documents {
            let Object::Service(service) = object.as_ref() else {
                continue;
            };
            if !service.is_served() {
                continue;
            }
            let namespace = service.metadata.namespace();
            let name = NamespacedName::new(namespace, &service.metadata.name);
            let mut addresses = service.addresses();
            addresses.retain(|address| match taken.get(address) {
                Some(other) => {
                    let message = format!("{address} is service {other}'s already");
                    self.warn(object.reference(), message);
                    false
                }
                None => {
                    taken.insert(*address, name.clone());
                    true
                }
            });
            let slices = slices.get(&name).map_or(&[][..], Vec::as_slice);
            let workloads = workloads.get(namespace).map_or(&[][..], Vec::as_slice);
            let tcp = |port: &&ServicePort| port.protocol == TransportProtocol::Tcp;
            let ports = service.spec.ports.iter().filter(tcp);
            let ports: Vec<MeshPort> = ports
                .map(|port| self.port(object.reference(), service, port, slices, workloads))
                .collect();
            for endpoint in ports.iter().flat_map(|port| &port.endpoints) {
                self.services_at
                    .entry(endpoint.address.ip())
                    .or_default()
                    .insert(name.clone());
            }
            let mut families = service.spec.ip_families.clone();
            families.extend(addresses.iter().map(|address| IpFamily::of(*address)));
            let host = format!(
                "{}.{namespace}.svc.{}",
                name.name, self.settings.cluster_domain
            );
            let reference = object.reference();
            let service = MeshService {
                name: name.clone(),
                host,
                addresses,
                headless: service.is_headless(),
                families,
                ports,
                reference,
            };
            self.services.insert(name, service);
        }
    }

    fn port(
        &mut self,
        reference: ObjectRef,
        service: &Service,
        port: &ServicePort,
        slices: &[&EndpointSlice],
        workloads: &[Arc<Workload>],
    ) -> MeshPort {
        // By address, so that a workload which a slice names and the selector matches counts once.
        let mut endpoints = BTreeMap::new();
        let always_ready = service.spec.publish_not_ready_addresses;
        let last_resort = !slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .any(SliceEndpoint::is_ready);
        for slice in slices {
            let serves = |name: Option<&str>| name.unwrap_or("") == port.name;
            let Some(target) = slice
                .ports
                .iter()
                .find(|target| serves(target.name.as_deref()))
            else {
                continue;
            };
            for endpoint in &slice.endpoints {
                for address in &endpoint.addresses {
                    let address = SocketAddr::new(*address, target.port.get());
                    let ready = endpoint.is_ready()
                        || always_ready
                        || (last_resort && endpoint.is_last_resort());
                    let workload = self.workloads.get(&address.ip()).cloned();
                    let zone = endpoint.zone.as_ref().map(|zone| format!("/{zone}"));
                    endpoints.insert(address, self.endpoint(address, ready, workload, zone));
                }
            }
        }
        let selector = &service.spec.selector;
        let target = port
            .target_port
            .clone()
            .unwrap_or(PortName::Number(port.port));
        let selected = workloads
            .iter()
            .filter(|workload| workload.has_labels(selector));
        for workload in selected.filter(|_| !selector.is_empty()) {
            let Some(number) = workload.port(&target) else {
                let message = format!(
                    "targetPort {target} of port {} is not among the ports of workload {}",
                    port.port, workload.name
                );
                self.warn(reference.clone(), message);
                continue;
            };
            for address in &workload.addresses {
                let address = SocketAddr::new(*address, number);
                let workload = Some(Arc::clone(workload));
                // A slice knows better whether it is ready.
                endpoints
                    .entry(address)
                    .or_insert_with(|| self.endpoint(address, true, workload, None));
            }
        }
        MeshPort {
            name: port.name.clone(),
            number: port.port.get(),
            protocol: AppProtocol::of(port),
            endpoints: endpoints.into_values().collect(),
        }
    }

    fn endpoint(
        &self,
        address: SocketAddr,
        ready: bool,
        workload: Option<Arc<Workload>>,
        zone: Option<String>,
    ) -> MeshEndpoint {
        let mutual_tls = workload.as_ref().is_some_and(|workload| {
            let namespace = &workload.name.namespace;
            let mode = self
                .policies
                .mode(namespace, &workload.labels, address.port());
            workload.identity.is_some() && mode != MutualTlsMode::Disabled
        });
        MeshEndpoint {
            address,
            ready,
            weight: workload.as_ref().map_or(1, |workload| workload.weight),
            locality: workload
                .as_ref()
                .and_then(|workload| workload.locality.clone())
                .or(zone),
            workload,
            mutual_tls,
        }
    }

    fn add_routes(&mut self, documents: &Documents<'_>) {
        let routes = documents.iter();
        let routes: Vec<Arc<JudgedRoute>> = routes
            .filter_map(|(_, object)| JudgedRoute::new(object).map(Arc::new))
            .collect();
        for route in &routes {
            for (service, attachment) in MeshRoute::attachments(route) {
                self.routes.entry(service).or_default().push(attachment);
            }
        }
        for route in &routes {
            let verdict = Verdict::of_route(self, route);
            for complaint in verdict.complaints() {
                self.warn(route.reference(), complaint.to_owned());
            }
            self.verdicts.insert(route.reference(), verdict);
        }
    }
}
