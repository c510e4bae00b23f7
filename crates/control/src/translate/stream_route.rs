//! TLSRoutes and TCPRoutes: connections go by the server name that they ask for, or all alike.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};

use crate::mesh::{JudgedRoute, MeshState, RouteKind};
use crate::registry::Object;
use crate::registry::kinds::StreamRule;

use super::backend::BackendCluster;
use super::filter;

/// The chains of all TLSRoutes of one port; of two that name the same host the senior has it. A
/// connection that asks for no name of theirs is closed.
pub(super) fn tls_chains(
    mesh: &MeshState,
    stat: &str,
    attached: &[&JudgedRoute],
) -> Vec<FilterChain> {
    let mut taken = BTreeSet::new();
    let mut chains = Vec::new();
    for judged in attached {
        let Object::TlsRoute(route) = judged.object() else {
            continue;
        };
        let names = route
            .spec
            .hostnames
            .iter()
            .map(|name| name.to_ascii_lowercase());
        let names: Vec<String> = names.filter(|name| taken.insert(name.clone())).collect();
        if names.is_empty() {
            continue;
        }
        let matches = FilterChainMatch {
            server_names: names,
            transport_protocol: "tls".to_owned(),
            ..FilterChainMatch::default()
        };
        let filter = forward(mesh, stat, judged, RouteKind::Tls, &route.spec.rules);
        let name = format!("tls|{}", judged.reference().name);
        chains.push(filter::chain(&name, Some(matches), filter, None));
    }
    chains
}

/// The chain of a TCPRoute.
pub(super) fn tcp_chain(mesh: &MeshState, stat: &str, judged: &JudgedRoute) -> Option<FilterChain> {
    let Object::TcpRoute(route) = judged.object() else {
        return None;
    };
    let filter = forward(mesh, stat, judged, RouteKind::Tcp, &route.spec.rules);
    Some(filter::chain("tcp", None, filter, None))
}

/// Passes connections to the backends by their weights. The share of one that leads nowhere, and
/// all where none is left, is refused: its cluster does not exist.
fn forward(
    mesh: &MeshState,
    stat: &str,
    judged: &JudgedRoute,
    kind: RouteKind,
    rules: &[StreamRule],
) -> Filter {
    let namespace = judged.object().metadata().namespace();
    let rules = rules.iter().enumerate();
    let sound = rules.filter(|(index, _)| judged.problem(*index).is_none());
    let backends = sound.take(1).flat_map(|(_, rule)| &rule.backend_refs);
    let clusters: Vec<(String, u32)> = backends
        .filter(|backend| backend.weight() > 0)
        .map(|backend| BackendCluster::of(mesh, namespace, kind, backend))
        .map(|cluster| (cluster.name, cluster.weight))
        .collect();
    filter::weighted_tcp_proxy(mesh, stat, clusters)
}
