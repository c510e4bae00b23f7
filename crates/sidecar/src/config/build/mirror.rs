//! `RequestMirrorPolicy`.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::route_action::RequestMirrorPolicy;

use super::fields::{Together as _, Within as _, each, header_name, uri_text};
use super::header_changes;
use super::route_scope::Clusters;
use crate::config::error::{ConfigError, Result};
use crate::config::route::{Mirror, MirrorCluster};
use crate::runtime_layer;

/// `request_mirror_policies` of a route, a virtual host or a route table; those of the wider one
/// hold where the narrower has none.
pub fn build(
    policies: &[RequestMirrorPolicy],
    wider: &Arc<[Mirror]>,
    clusters: Clusters<'_>,
) -> Result<Arc<[Mirror]>> {
    if policies.is_empty() {
        return Ok(Arc::clone(wider));
    }
    each("request_mirror_policies", policies, |proto| {
        policy(proto, clusters)
    })
    .map(Into::into)
}

fn policy(proto: &RequestMirrorPolicy, clusters: Clusters<'_>) -> Result<Mirror> {
    let cluster = match (proto.cluster.as_str(), proto.cluster_header.as_str()) {
        ("", "") => Err(ConfigError::new("cluster", "must be set")),
        (name, "") => clusters
            .check(name, "cluster")
            .map(|()| MirrorCluster::Named(name.into())),
        ("", header) => header_name(header, "cluster_header").map(MirrorCluster::Header),
        _ => {
            let reason = "cluster is set too, and only one of the two can be";
            Err(ConfigError::new("cluster_header", reason))
        }
    };
    let fraction = proto
        .runtime_fraction
        .as_ref()
        .map(runtime_layer::fraction)
        .transpose();
    let (cluster, host, headers, fraction) = (
        cluster,
        uri_text(&proto.host_rewrite_literal, "host_rewrite_literal"),
        header_changes::mutations(
            "request_headers_mutations",
            &proto.request_headers_mutations,
        ),
        fraction.within("runtime_fraction"),
    )
        .together()?;
    Ok(Mirror {
        cluster,
        fraction,
        host: (!host.is_empty()).then(|| host.into()),
        marks_host: !proto.disable_shadow_host_suffix_append && host.is_empty(),
        headers,
    })
}
