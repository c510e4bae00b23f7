//! Puts one service together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::registry::kinds::{
    EndpointSlice, IpFamily, MutualTlsMode, PortName, Service, ServicePort, SliceEndpoint,
    TransportProtocol,
};
use crate::registry::{NamespacedName, ObjectRef};

use super::{AppProtocol, MeshEndpoint, MeshPort, MeshService, MeshState, Workload};

/// What a service is made of beside itself.
pub(super) struct Parts<'a> {
    /// Whose workloads and policies count.
    pub(super) state: &'a MeshState,
    /// The slices that name the service.
    pub(super) slices: Vec<&'a EndpointSlice>,
    /// The workloads of its namespace that its selector may match.
    pub(super) entries: Vec<&'a Arc<Workload>>,
    /// The services that say that an address is theirs.
    pub(super) claims: &'a HashMap<IpAddr, BTreeSet<NamespacedName>>,
}

impl Parts<'_> {
    /// The service, and what is wrong with it.
    pub(super) fn service(
        &self,
        reference: &ObjectRef,
        service: &Service,
    ) -> (MeshService, Vec<String>) {
        let name = &reference.name;
        let mut findings = Vec::new();
        let mut addresses = service.addresses();
        addresses.retain(|address| {
            // The first by name has it.
            let owner = self.claims.get(address).and_then(BTreeSet::first);
            let other = owner.filter(|owner| *owner != name);
            if let Some(other) = other {
                findings.push(format!("{address} is service {other}'s already"));
            }
            other.is_none()
        });
        let tcp = |port: &&ServicePort| port.protocol == TransportProtocol::Tcp;
        let ports = service.spec.ports.iter().filter(tcp);
        let ports = ports.map(|port| self.port(service, port, &mut findings));
        let ports = ports.collect();
        let mut families = service.spec.ip_families.clone();
        families.extend(addresses.iter().map(|address| IpFamily::of(*address)));
        let domain = &self.state.settings.cluster_domain;
        let built = MeshService {
            name: name.clone(),
            host: format!("{}.{}.svc.{domain}", name.name, name.namespace),
            addresses,
            headless: service.is_headless(),
            families,
            ports,
            reference: reference.clone(),
        };
        (built, findings)
    }

    fn port(&self, service: &Service, port: &ServicePort, findings: &mut Vec<String>) -> MeshPort {
        // By address, so that a workload which a slice names and the selector matches counts once.
        let mut endpoints = BTreeMap::new();
        let always_ready = service.spec.publish_not_ready_addresses;
        let last_resort = !self
            .slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .any(SliceEndpoint::is_ready);
        for slice in &self.slices {
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
                    let workload = self.state.workload(address.ip()).cloned();
                    let zone = endpoint.zone.as_ref().map(|zone| format!("/{zone}"));
                    let endpoint = self.endpoint(address, ready, workload, zone);
                    // An address may be in two slices while it moves from one to the other.
                    let known: &mut MeshEndpoint =
                        endpoints.entry(address).or_insert_with(|| endpoint.clone());
                    if endpoint.ready {
                        *known = endpoint;
                    }
                }
            }
        }
        let selector = &service.spec.selector;
        let target = port
            .target_port
            .clone()
            .unwrap_or(PortName::Number(port.port));
        let selected = self.entries.iter();
        let selected = selected.filter(|workload| workload.has_labels(selector));
        for workload in selected.filter(|_| !selector.is_empty()) {
            let Some(number) = workload.port(&target) else {
                findings.push(format!(
                    "targetPort {target} of port {} is not among the ports of workload {}",
                    port.port, workload.name
                ));
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
            let policies = &self.state.policies;
            let mode = policies.mode(namespace, &workload.labels, address.port());
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
}
