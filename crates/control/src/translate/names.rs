//! Names and numbers that both ends of a connection must agree on.

use crate::mesh::{MeshPort, MeshService};

/// Where outbound connections are redirected to.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where inbound connections are redirected to.
pub const INBOUND_PORT: u16 = 15006;
/// The cluster, defined by the proxy's own bootstrap or built in, that secrets come from.
pub const SDS_CLUSTER: &str = "sds-grpc";
/// The secret with the workload's certificate and key.
pub(super) const IDENTITY_SECRET: &str = "default";
/// The secret with the mesh's trust bundle.
pub(super) const TRUST_SECRET: &str = "ROOTCA";
/// Connections to what is no service go to where they were going.
pub(super) const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// The same for inbound connections to ports that no service names.
pub(super) const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";
/// Connections that must not go anywhere.
pub(super) const BLACKHOLE_CLUSTER: &str = "BlackHoleCluster";
/// The metadata that tells which endpoints speak plaintext.
pub(super) const PLAINTEXT_MODE: (&str, &str) = ("tlsMode", "disabled");

/// The cluster that balances over the endpoints of a service's port.
pub(super) fn outbound_cluster(host: &str, port: u16) -> String {
    format!("outbound|{port}||{host}")
}

/// A cluster that does not exist, for a backend that leads nowhere.
pub(super) fn unresolved_cluster(host: &str, port: u16) -> String {
    format!("outbound|{port}|unresolved|{host}")
}

/// The cluster that dials the very address that the client dialled, for headless services.
pub(super) fn direct_cluster(host: &str, port: u16, mutual_tls: bool) -> String {
    let kind = if mutual_tls {
        "direct"
    } else {
        "direct-plaintext"
    };
    format!("outbound|{port}|{kind}|{host}")
}

/// The cluster that dials the proxy's own workload.
pub(super) fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

/// The server name that says that a connection is the mesh's, and to which service.
pub(super) fn server_name(host: &str, port: u16) -> String {
    format!("outbound_.{port}_._.{host}")
}

/// The route table of a service's port.
pub(super) fn route_table(service: &MeshService, port: &MeshPort) -> String {
    format!("{}:{}", service.host, port.number)
}
