//! The proxy that resources are for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use outrider_identity::ServiceAccount;

use crate::mesh::{AppProtocol, MeshService, MeshState};
use crate::registry::kinds::IpFamily;

/// A sidecar, as it names itself and as its credentials confirm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    /// The name of its workload, for logs.
    pub name: String,
    /// Whom it speaks for.
    pub account: ServiceAccount,
    /// The addresses of its workload.
    pub addresses: Vec<IpAddr>,
    /// The labels of its workload, where the registry does not know it.
    pub labels: BTreeMap<String, String>,
}

/// A port on which services reach the proxy's workload.
#[derive(Debug, Clone, Default)]
pub(super) struct InboundPort<'a> {
    /// What is spoken on it; services that disagree leave it to the bytes.
    pub(super) protocol: Option<AppProtocol>,
    /// The services, each with the port that callers dial.
    pub(super) services: BTreeSet<(&'a str, u16)>,
    pub(super) origin: Option<&'a MeshService>,
}

impl Proxy {
    /// Its addresses: what it says, and what the registry knows of the same workload.
    pub(super) fn all_addresses(&self, mesh: &MeshState) -> Vec<IpAddr> {
        let known = self
            .addresses
            .iter()
            .filter_map(|address| mesh.workload(*address));
        let known = known.filter(|workload| self.is(workload));
        let addresses: BTreeSet<IpAddr> = known
            .flat_map(|workload| workload.addresses.iter().copied())
            .chain(self.addresses.iter().copied())
            .collect();
        addresses.into_iter().collect()
    }

    /// Whether a workload bears the proxy's identity. An address that belongs to another's
    /// workload gives a proxy nothing of that workload.
    fn is(&self, workload: &crate::mesh::Workload) -> bool {
        workload.identity.as_ref().is_some_and(|identity| {
            identity.namespace() == self.account.namespace()
                && identity.service_account() == self.account.name()
        })
    }

    /// The families that it can dial.
    pub(super) fn families(&self, mesh: &MeshState) -> Vec<IpFamily> {
        let addresses = self.all_addresses(mesh);
        [IpFamily::IPv4, IpFamily::IPv6]
            .into_iter()
            .filter(|family| {
                addresses
                    .iter()
                    .any(|address| IpFamily::of(*address) == *family)
            })
            .collect()
    }

    /// The labels by which policies select it.
    pub(super) fn labels<'a>(&'a self, mesh: &'a MeshState) -> &'a BTreeMap<String, String> {
        let known = self
            .addresses
            .iter()
            .filter_map(|address| mesh.workload(*address));
        known
            .filter(|workload| self.is(workload))
            .map(|workload| &workload.labels)
            .next()
            .unwrap_or(&self.labels)
    }

    /// The ports on which services reach it.
    pub(super) fn inbound_ports<'a>(&self, mesh: &'a MeshState) -> BTreeMap<u16, InboundPort<'a>> {
        let mut ports: BTreeMap<u16, InboundPort<'a>> = BTreeMap::new();
        let addresses = self.all_addresses(mesh);
        let anothers = |endpoint: &crate::mesh::MeshEndpoint| {
            endpoint
                .workload
                .as_ref()
                .is_some_and(|workload| workload.identity.is_some() && !self.is(workload))
        };
        for service in mesh.services_behind(&addresses) {
            for port in &service.ports {
                for endpoint in &port.endpoints {
                    if !addresses.contains(&endpoint.address.ip()) || anothers(endpoint) {
                        continue;
                    }
                    let inbound = ports.entry(endpoint.address.port()).or_default();
                    inbound.services.insert((&service.host, port.number));
                    inbound.origin.get_or_insert(service);
                    let agreed = inbound.protocol.is_none_or(|other| other == port.protocol);
                    inbound.protocol = Some(if agreed {
                        port.protocol
                    } else {
                        AppProtocol::Auto
                    });
                }
            }
        }
        ports
    }
}
