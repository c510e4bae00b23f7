//! `cluster_specifier`: which cluster a route sends requests to.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::RandomValueSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as PartHost;

use super::fields::{
    Together as _, Within as _, each, header_name, named, one_of, refuse, uint, uri_text,
};
use super::header_changes::changes;
use super::route_scope::Scope;
use super::{cluster_specifier, per_filter};
use crate::config::error::{ConfigError, Result};
use crate::config::route::{
    ClusterChoice, RandomSource, ShareCluster, WeightedCluster, WeightedClusters,
};
use crate::runtime_layer;

/// Which cluster a route sends requests to; `None`: one that only a plugin could tell that was
/// optional and is left out.
pub fn cluster(
    proto: &Option<ClusterSpecifier>,
    scope: &Scope<'_>,
) -> Result<Option<ClusterChoice>> {
    let choice = match one_of::<route::RouteAction, _>(proto, "cluster")? {
        ClusterSpecifier::Cluster(name) => {
            scope.clusters.check(named(name, "cluster")?, "cluster")?;
            Ok(ClusterChoice::Named(name.as_str().into()))
        }
        ClusterSpecifier::ClusterHeader(name) => {
            header_name(name, "cluster_header").map(ClusterChoice::Header)
        }
        ClusterSpecifier::WeightedClusters(clusters) => {
            weighted(clusters, scope).within("weighted_clusters")
        }
        ClusterSpecifier::ClusterSpecifierPlugin(name) => {
            return scope.plugins.find(name, "cluster_specifier_plugin");
        }
        ClusterSpecifier::InlineClusterSpecifierPlugin(plugin) => {
            return cluster_specifier::build(plugin, scope.clusters)
                .map(|plugin| plugin.map(ClusterChoice::Matched))
                .within("inline_cluster_specifier_plugin");
        }
    };
    choice.map(Some)
}

fn weighted(proto: &route::WeightedCluster, scope: &Scope<'_>) -> Result<ClusterChoice> {
    refuse(proto.clusters.is_empty(), "clusters", "must not be empty")?;
    let prefix = &proto.runtime_key_prefix;
    let parts = each("clusters", &proto.clusters, |part| {
        share(part, prefix, scope)
    })?;
    let weights = proto.clusters.iter();
    let weights = weights.map(|part| uint(&part.weight).unwrap_or(0));
    total_weight(weights, "clusters")?;
    let random = match &proto.random_value_specifier {
        None => RandomSource::Own,
        Some(RandomValueSpecifier::HeaderName(name)) => {
            RandomSource::Header(header_name(name, "header_name")?)
        }
        Some(RandomValueSpecifier::UseHashPolicy(on)) if on.value => RandomSource::Hash,
        Some(RandomValueSpecifier::UseHashPolicy(_)) => RandomSource::Own,
    };
    Ok(ClusterChoice::Weighted(Box::new(WeightedClusters {
        parts,
        random,
    })))
}

fn share(
    part: &route::weighted_cluster::ClusterWeight,
    runtime_prefix: &str,
    scope: &Scope<'_>,
) -> Result<WeightedCluster> {
    let cluster = match (part.name.as_str(), part.cluster_header.as_str()) {
        ("", "") => Err(ConfigError::new("name", "must not be empty")),
        (name, "") => scope
            .clusters
            .check(name, "name")
            .map(|()| ShareCluster::Named(name.into())),
        ("", header) => header_name(header, "cluster_header").map(ShareCluster::Header),
        _ => Err(ConfigError::new(
            "cluster_header",
            "name is set too, and only one of the two can be",
        )),
    };
    let host = match &part.host_rewrite_specifier {
        None => Ok(None),
        Some(PartHost::HostRewriteLiteral(host)) => named(host, "host_rewrite_literal")
            .and_then(|host| uri_text(host, "host_rewrite_literal"))
            .map(|host| Some(host.into())),
    };
    let headers = changes(
        &part.request_headers_to_add,
        &part.request_headers_to_remove,
        &part.response_headers_to_add,
        &part.response_headers_to_remove,
    );
    let filters = per_filter::build(&part.typed_per_filter_config);
    let (cluster, host, headers, filters) = (cluster, host, headers, filters).together()?;
    let key = if runtime_prefix.is_empty() {
        String::new()
    } else {
        format!("{runtime_prefix}.{}", part.name)
    };
    Ok(WeightedCluster {
        cluster,
        weight: runtime_layer::number_at(&key, uint(&part.weight).unwrap_or(0)),
        headers,
        host,
        filters,
    })
}

/// The sum of weights, which must be positive and fit 32 bits.
pub fn total_weight(weights: impl Iterator<Item = u32>, field: &str) -> Result<u32> {
    let total = weights.map(u64::from).sum::<u64>();
    match u32::try_from(total) {
        Ok(0) => Err(ConfigError::new(field, "the weights add up to nothing")),
        Ok(total) => Ok(total),
        Err(_) => Err(ConfigError::new(
            field,
            format_args!("the weights add up to {total}, which is more than 32 bits hold"),
        )),
    }
}
