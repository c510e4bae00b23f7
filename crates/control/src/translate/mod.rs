//! From the mesh to what one proxy is to do: pure, so that the same mesh and the same proxy always
//! give the same bytes, and a resource that did not change is not sent again.
//!
//! How mutual TLS is told from anything else on a port that also takes plaintext: by the server
//! name. Callers in the mesh send `outbound_.<port>_._.<host>`, which no host name can be, so an
//! application's own TLS is never taken for ours. ALPN is left to its standard names: proxies offer
//! `h2` or `http/1.1` by the protocol that they are about to speak, and nothing for bytes.

mod bind;
mod cluster;
mod endpoint;
mod filter;
mod http_match;
mod http_route;
mod inbound;
mod names;
mod outbound;
mod proxy;
mod resource;
mod route;
mod tls;

use crate::mesh::MeshState;

pub use names::{INBOUND_PORT, OUTBOUND_PORT, SDS_CLUSTER};
pub use proxy::Proxy;
pub use resource::{Resource, ResourceSet};

/// All resources of a sidecar.
pub fn translate(mesh: &MeshState, proxy: &Proxy) -> ResourceSet {
    let mut resources = ResourceSet::default();
    outbound::translate(mesh, proxy, &mut resources);
    inbound::translate(mesh, proxy, &mut resources);
    resources
}
