//! A service with what stands behind it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use outrider_identity::SpiffeId;

use crate::registry::kinds::IpFamily;
use crate::registry::{NamespacedName, ObjectRef};

use super::{AppProtocol, Workload};

/// A service.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshService {
    /// Its namespace and name.
    pub name: NamespacedName,
    /// Its full DNS name.
    pub host: String,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it has none on purpose: clients dial the workloads' addresses.
    pub headless: bool,
    /// Its families, the preferred one first.
    pub families: Vec<IpFamily>,
    /// Its TCP ports.
    pub ports: Vec<MeshPort>,
    /// What names it.
    pub reference: ObjectRef,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshPort {
    /// Its name.
    pub name: String,
    /// The number that clients dial.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// What stands behind it, by address.
    pub endpoints: Vec<MeshEndpoint>,
}

/// A workload's port behind a service's.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshEndpoint {
    /// Where it is dialled.
    pub address: SocketAddr,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Its share.
    pub weight: u32,
    /// Region, zone and subzone.
    pub locality: Option<String>,
    /// The workload, where it is known.
    pub workload: Option<Arc<Workload>>,
    /// Whether it speaks mutual TLS.
    pub mutual_tls: bool,
}

impl MeshService {
    /// What routes see of it: not who stands behind it at the moment.
    pub(super) fn shape(&self) -> impl PartialEq + use<> {
        let port = |port: &MeshPort| (port.name.clone(), port.number, port.protocol);
        let ports: Vec<_> = self.ports.iter().map(port).collect();
        (self.headless, ports)
    }
}

impl MeshPort {
    /// The identities that may answer on this port.
    pub fn identities(&self) -> BTreeSet<&SpiffeId> {
        self.endpoints
            .iter()
            .filter(|endpoint| endpoint.mutual_tls)
            .filter_map(|endpoint| endpoint.workload.as_ref()?.identity.as_ref())
            .collect()
    }

    /// The endpoints that take traffic, of one family: workloads with an address of each would
    /// otherwise count twice. `families` are those of the caller; the service's preference among
    /// them decides, if anything of that family takes traffic.
    pub fn endpoints_for(
        &self,
        service: &MeshService,
        families: &[IpFamily],
    ) -> Vec<&MeshEndpoint> {
        let of = |family: IpFamily| -> Vec<&MeshEndpoint> {
            let of_family =
                |endpoint: &&MeshEndpoint| IpFamily::of(endpoint.address.ip()) == family;
            self.endpoints
                .iter()
                .filter(|endpoint| endpoint.ready)
                .filter(of_family)
                .collect()
        };
        service
            .families
            .iter()
            .chain(&[IpFamily::IPv4, IpFamily::IPv6])
            .filter(|family| families.contains(family))
            .map(|family| of(*family))
            .find(|endpoints| !endpoints.is_empty())
            .unwrap_or_default()
    }
}
