//! `TcpProxy`.

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;

use super::access_log;
use super::fields::{Within as _, bounded, each, named, refuse, required, timeout};
use super::route_action::total_weight;
use crate::config::error::Result;
use crate::config::tcp_proxy::TcpProxy;

/// Builds a TCP proxy.
pub fn build(proto: &tcp::TcpProxy) -> Result<TcpProxy> {
    let clusters = match required(&proto.cluster_specifier, "cluster_specifier")? {
        ClusterSpecifier::Cluster(name) => vec![(named(name, "cluster")?.into(), 1)],
        ClusterSpecifier::WeightedClusters(weighted) => {
            each("clusters", &weighted.clusters, |part| {
                refuse(part.weight == 0, "weight", "must be above zero")?;
                Ok((named(&part.name, "name")?.into(), part.weight))
            })
            .within("weighted_clusters")?
        }
    };
    let weights = clusters.iter().map(|(_, weight)| *weight);
    Ok(TcpProxy {
        stat_prefix: named(&proto.stat_prefix, "stat_prefix")?.into(),
        total_weight: total_weight(weights, "weighted_clusters.clusters")?,
        clusters,
        idle_timeout: timeout(&proto.idle_timeout, None, "idle_timeout")?,
        max_connect_attempts: bounded(
            &proto.max_connect_attempts,
            1..=u32::MAX,
            "max_connect_attempts",
        )?
        .unwrap_or(1),
        access_log: access_log::build(&proto.access_log)?,
    })
}
