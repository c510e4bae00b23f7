//! A whole mesh on one machine: the real control plane in a pod of its own, and workloads with the
//! real redirects and a sidecar each, ours or a real Envoy.
//!
//! Declare workloads and services first, then start the control plane, then inject the sidecars:
//! so each sidecar's first configuration is the whole one, and nothing has to wait.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use outrider_testkit::mesh::{Mesh, Sidecar};
//! let mut mesh = Mesh::new("shop")?;
//! let mut cart = mesh.workload("shop", "cart")?;
//! let service = mesh.service("shop", "cart", &[("http", 80)])?;
//! mesh.start_control(&[])?;
//! mesh.inject(&mut cart, Sidecar::Outrider)?;
//! # drop(service); Ok(()) }
//! ```

mod agent;
mod bootstrap;
mod control;
mod sidecar;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

pub use agent::Agent;
pub use control::{CONTROL_HOST, ControlPlane};
pub use sidecar::{Sidecar, Workload};

use crate::netns::Network;

/// What every identity begins with.
pub const TRUST_DOMAIN: &str = "spiffe://cluster.local/";

/// The network, the control plane, and the directory of YAML that it reads. Everything that it
/// made is removed on drop.
pub struct Mesh {
    control: ControlPlane,
    services: u8,
    network: Network,
    files: tempfile::TempDir,
}

/// The addresses of a service: of no pod, so that only the redirects make them answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Service {
    /// Both addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

impl Mesh {
    /// Makes the network and the pod of the control plane, which does not run yet.
    ///
    /// # Errors
    /// As [`Network::new`], and when the files cannot be made.
    pub fn new(label: &str) -> Result<Self> {
        let network = Network::new(label)?;
        let files = tempfile::tempdir().context("make a folder for the mesh")?;
        // The proxies' user reads in it.
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755))?;
        let control = ControlPlane::new(&network, files.path())?;
        Ok(Self {
            control,
            services: 0,
            network,
            files,
        })
    }

    /// The network, for pods that are not in the mesh.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The control plane.
    pub fn control(&mut self) -> &mut ControlPlane {
        &mut self.control
    }

    /// Starts the control plane with further flags.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_control(&mut self, flags: &[&str]) -> Result<()> {
        self.control.start(flags)
    }

    /// Writes a file of the mesh's directory in one step, as `NAME.yaml`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, yaml: &str) -> Result<()> {
        let path = self.file(name);
        // No file that the control plane would read.
        let part = path.with_extension("part");
        fs::write(&part, yaml)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    /// The path of a file of the mesh's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.control.directory().join(format!("{name}.yaml"))
    }

    /// A pod with the identity of the account of its own name, behind the services of that name.
    /// It has no sidecar yet.
    ///
    /// # Errors
    /// When the pod cannot be made.
    pub fn workload(&self, namespace: &str, name: &str) -> Result<Workload> {
        self.workload_of(namespace, name, name)
    }

    /// The same for a workload that stands behind the services named `app`.
    ///
    /// # Errors
    /// When the pod cannot be made.
    pub fn workload_of(&self, namespace: &str, name: &str, app: &str) -> Result<Workload> {
        let pod = self.network.pod(name)?;
        let (v4, v6) = (pod.v4(), pod.v6());
        self.write(
            &format!("workload-{namespace}-{name}"),
            &format!(
                "apiVersion: outrider.dev/v1alpha1\n\
                 kind: WorkloadEntry\n\
                 metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}\n\
                 spec: {{serviceAccount: {name}, addresses: [{v4}, \"{v6}\"]}}\n"
            ),
        )?;
        Ok(Workload::new(pod, namespace, name, app, self.files.path()))
    }

    /// A service over the workloads whose app has its name, with an address of each family.
    /// A port's name says its protocol. `NAME.NAMESPACE.svc.cluster.local` and `NAME.NAMESPACE`
    /// resolve to it in every pod.
    ///
    /// # Errors
    /// When a file cannot be written, or there are no addresses left.
    pub fn service(
        &mut self,
        namespace: &str,
        name: &str,
        ports: &[(&str, u16)],
    ) -> Result<Service> {
        self.services = self
            .services
            .checked_add(1)
            .context("255 services at most")?;
        let service = Service {
            v4: Ipv4Addr::new(10, 96, 0, self.services),
            v6: Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, self.services.into()),
        };
        let ports: Vec<String> = ports
            .iter()
            .map(|(name, number)| format!("{{name: {name}, port: {number}}}"))
            .collect();
        let Service { v4, v6 } = service;
        self.write(
            &format!("service-{namespace}-{name}"),
            &format!(
                "apiVersion: v1\n\
                 kind: Service\n\
                 metadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{clusterIPs: [{v4}, \"{v6}\"], selector: {{app: {name}}}, ports: [{}]}}\n",
                ports.join(", ")
            ),
        )?;
        for suffix in ["", ".svc.cluster.local"] {
            let host = format!("{name}.{namespace}{suffix}");
            self.network.add_host(&host, v4)?;
            self.network.add_host(&host, v6)?;
        }
        Ok(service)
    }

    /// Sets what the whole mesh's ports accept: `STRICT`, `PERMISSIVE` or `DISABLED`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn mutual_tls(&self, mode: &str) -> Result<()> {
        self.mutual_tls_of("outrider-system", mode)
    }

    /// Sets what the ports of a namespace accept.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn mutual_tls_of(&self, namespace: &str, mode: &str) -> Result<()> {
        self.write(
            &format!("mutual-tls-{namespace}"),
            &format!(
                "apiVersion: outrider.dev/v1alpha1\n\
                 kind: PeerAuthentication\n\
                 metadata: {{name: default, namespace: {namespace}}}\n\
                 spec: {{mtls: {{mode: {mode}}}}}\n"
            ),
        )
    }

    /// Gives a workload its token, its redirects and its sidecar, and waits until that is ready.
    ///
    /// # Errors
    /// When one of them fails; the error has what the program said.
    pub fn inject(&self, workload: &mut Workload, sidecar: Sidecar) -> Result<()> {
        workload.inject(&self.control, sidecar)
    }

    /// The folder of everything that belongs to the mesh.
    pub fn folder(&self) -> &Path {
        self.files.path()
    }
}
