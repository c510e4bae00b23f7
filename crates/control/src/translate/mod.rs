//! From the mesh to what one proxy is to do: pure, so that the same mesh and the same proxy always
//! give the same bytes, and a resource that did not change is not sent again.
//!
//! How mutual TLS is told from anything else on a port that also takes plaintext: by the server
//! name. Callers in the mesh send `outbound_.<port>_._.<host>`, which no host name can be, so an
//! application's own TLS is never taken for ours. ALPN is left to its standard names: proxies offer
//! `h2` or `http/1.1` by the protocol that they are about to speak, and nothing for bytes.

mod backend;
mod bind;
mod cluster;
mod endpoint;
mod filter;
mod grpc_route;
mod http_match;
mod http_route;
mod inbound;
mod names;
mod outbound;
mod proxy;
mod redirect;
mod resource;
mod route;
mod rule;
mod shared;
mod stream_route;
mod tls;

use std::sync::Arc;

use crate::mesh::MeshState;
use crate::registry::kinds::IpFamily;

pub use names::{INBOUND_PORT, OUTBOUND_PORT, SDS_CLUSTER};
pub use proxy::Proxy;
pub use resource::{Origins, Translation};
pub use shared::Outbound;

/// All that the outbound side depends on beside the mesh: proxies that agree on it share its
/// resources.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutboundKey {
    namespace: String,
    families: Vec<IpFamily>,
}

impl OutboundKey {
    /// The key of a proxy.
    pub fn of(mesh: &MeshState, proxy: &Proxy) -> Self {
        Self {
            namespace: proxy.account.namespace().to_owned(),
            families: proxy.families(mesh),
        }
    }
}

/// What a sidecar has beside what it shares with others.
pub fn inbound(mesh: &MeshState, proxy: &Proxy) -> Translation {
    inbound::translate(mesh, proxy)
}

/// All resources of a sidecar.
pub fn translate(mesh: &MeshState, proxy: &Proxy) -> Translation {
    let shared = Outbound::new(&Arc::new(mesh.clone()), OutboundKey::of(mesh, proxy));
    let mut all = shared.to_translation();
    all.extend(inbound(mesh, proxy));
    all
}
