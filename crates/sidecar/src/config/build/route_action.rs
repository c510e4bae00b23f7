//! `RouteAction`.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
    UpgradeConfig,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::RandomValueSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as PartHost;

use super::fields::{
    Together as _, Within as _, duration, each, enumeration, flag, header_name, named, one_of,
    refuse, timeout, uint, uri_text,
};
use super::header_changes::changes;
use super::route_scope::Scope;
use super::{connection_options, matcher, mirror, path_rewrite, per_filter};
use crate::config::cluster::Priority;
use crate::config::error::{ConfigError, Result};
use crate::config::route::{
    ClusterChoice, Forward, GrpcTimeout, HashInput, HashPolicy, HostRewrite, PathMatch,
    RandomSource, RawTunnel, ShareCluster, WeightedCluster, WeightedClusters,
};
use crate::runtime_layer;
use crate::telemetry::access_log::format::Missing;

/// `timeout` of a route that sets none.
const TIMEOUT: Duration = Duration::from_secs(15);

/// `route`, which has of `scope` what it has not of its own, of a route that matches so (`None`: what
/// it matches is invalid).
pub fn forward(
    proto: &route::RouteAction,
    scope: &Scope<'_>,
    matched: Option<&PathMatch>,
) -> Result<Forward> {
    let rewrite = path_rewrite::of_route(
        &proto.prefix_rewrite,
        &proto.regex_rewrite,
        &proto.path_rewrite,
        &proto.path_rewrite_policy,
        matched,
    );
    let priority: Result<RoutingPriority> = enumeration(proto.priority, "priority");
    let (cluster, not_found_status, rewrite, host_rewrite, times, mirrors, upgrades, hash, high) =
        (
            cluster(&proto.cluster_specifier, scope),
            not_found_status(proto.cluster_not_found_response_code),
            rewrite,
            host_rewrite(&proto.host_rewrite_specifier),
            times(proto),
            mirror::build(
                &proto.request_mirror_policies,
                &scope.mirrors,
                scope.clusters,
            ),
            each("upgrade_configs", &proto.upgrade_configs, upgrade),
            each("hash_policy", &proto.hash_policy, hash_policy),
            priority.map(|priority| priority == RoutingPriority::High),
        )
            .together()?;
    let mut raw = None;
    let upgrades = upgrades.into_iter().map(|(kind, enabled, ends_here)| {
        raw = raw.take().or(ends_here);
        (kind, enabled)
    });
    let upgrades = upgrades.collect();
    Ok(Forward {
        cluster,
        not_found_status,
        rewrite: rewrite.map(Box::new),
        host_rewrite,
        timeout: times.timeout,
        idle_timeout: times.idle,
        max_stream_duration: times.stream,
        grpc_timeout: times.grpc,
        older_grpc_timeout: times.older_grpc,
        append_x_forwarded_host: proto.append_x_forwarded_host,
        mirrors,
        upgrades,
        raw: raw.map(Box::new),
        hash,
        priority: if high {
            Priority::High
        } else {
            Priority::Default
        },
    })
}

fn not_found_status(code: i32) -> Result<u16> {
    let code = enumeration(code, "cluster_not_found_response_code")?;
    Ok(match code {
        ClusterNotFoundResponseCode::ServiceUnavailable => 503,
        ClusterNotFoundResponseCode::NotFound => 404,
        ClusterNotFoundResponseCode::InternalServerError => 500,
    })
}

fn upgrade(proto: &UpgradeConfig) -> Result<(Box<[u8]>, bool, Option<RawTunnel>)> {
    let kind = header_name(&proto.upgrade_type, "upgrade_type")?;
    let raw = match &proto.connect_config {
        None => None,
        Some(config) => {
            refuse(
                &*kind == b"connect-udp",
                "connect_config",
                "datagrams are not taken out of CONNECT-UDP: leave the field out, and it is relayed \
                 to the endpoint as a request",
            )?;
            refuse(
                &*kind != b"connect",
                "connect_config",
                "is for the upgrade_type CONNECT only",
            )?;
            let header = config.proxy_protocol_config.as_ref();
            let header = header.map(connection_options::proxy_header).transpose();
            Some(RawTunnel {
                proxy_protocol: header
                    .within("proxy_protocol_config")
                    .within("connect_config")?,
                allow_post: config.allow_post,
            })
        }
    };
    Ok((kind, flag(&proto.enabled).unwrap_or(true), raw))
}

/// How long things may take.
struct Times {
    timeout: Option<Duration>,
    idle: Option<Option<Duration>>,
    stream: Option<Duration>,
    grpc: Option<GrpcTimeout>,
    older_grpc: Option<GrpcTimeout>,
}

fn times(proto: &route::RouteAction) -> Result<Times> {
    let (all, idle, (stream, grpc), older_max, older_offset) = (
        timeout(&proto.timeout, Some(TIMEOUT), "timeout"),
        duration(&proto.idle_timeout, "idle_timeout"),
        stream_duration(&proto.max_stream_duration).within("max_stream_duration"),
        duration(&proto.max_grpc_timeout, "max_grpc_timeout"),
        duration(&proto.grpc_timeout_offset, "grpc_timeout_offset"),
    )
        .together()?;
    // Envoy's rule: where the newer field is present, the older ones are not looked at.
    let older = proto.max_stream_duration.is_none();
    Ok(Times {
        timeout: all.filter(|_| older),
        idle: idle.map(|idle| (idle > Duration::ZERO).then_some(idle)),
        stream,
        grpc,
        older_grpc: older_max.filter(|_| older).map(|max| GrpcTimeout {
            max: (max > Duration::ZERO).then_some(max),
            offset: older_offset.unwrap_or_default(),
        }),
    })
}

fn stream_duration(
    proto: &Option<MaxStreamDuration>,
) -> Result<(Option<Duration>, Option<GrpcTimeout>)> {
    let Some(proto) = proto else {
        return Ok((None, None));
    };
    let max = duration(&proto.grpc_timeout_header_max, "grpc_timeout_header_max")?;
    let offset = duration(
        &proto.grpc_timeout_header_offset,
        "grpc_timeout_header_offset",
    )?;
    Ok((
        timeout(&proto.max_stream_duration, None, "max_stream_duration")?,
        max.map(|max| GrpcTimeout {
            max: (max > Duration::ZERO).then_some(max),
            offset: offset.unwrap_or_default(),
        }),
    ))
}

fn cluster(proto: &Option<ClusterSpecifier>, scope: &Scope<'_>) -> Result<ClusterChoice> {
    match one_of::<route::RouteAction, _>(proto, "cluster")? {
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
        ClusterSpecifier::ClusterSpecifierPlugin(_) => Err(ConfigError::new(
            "cluster_specifier_plugin",
            "plugins that choose a cluster are not supported",
        )),
        ClusterSpecifier::InlineClusterSpecifierPlugin(_) => Err(ConfigError::new(
            "inline_cluster_specifier_plugin",
            "plugins that choose a cluster are not supported",
        )),
    }
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
    let filters = per_filter::none(&part.typed_per_filter_config);
    let (cluster, host, headers, ()) = (cluster, host, headers, filters).together()?;
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

fn host_rewrite(proto: &Option<HostRewriteSpecifier>) -> Result<HostRewrite> {
    Ok(match proto {
        None => HostRewrite::No,
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            let host = named(host, "host_rewrite_literal")?;
            HostRewrite::Literal(uri_text(host, "host_rewrite_literal")?.into())
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) if auto.value => HostRewrite::Auto,
        Some(HostRewriteSpecifier::AutoHostRewrite(_)) => HostRewrite::No,
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            HostRewrite::Header(header_name(name, "host_rewrite_header")?)
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(regex)) => {
            let (pattern, substitution) =
                path_rewrite::substitute(regex).within("host_rewrite_path_regex")?;
            HostRewrite::PathRegex {
                pattern: Box::new(pattern),
                substitution,
            }
        }
        Some(HostRewriteSpecifier::HostRewrite(text)) => {
            let text = named(text, "host_rewrite")?;
            let format = path_rewrite::operators(text, Missing::Dash, "host_rewrite")?;
            HostRewrite::Format(Box::new(format))
        }
    })
}

fn hash_policy(proto: &route::route_action::HashPolicy) -> Result<HashPolicy> {
    let input =
        match one_of::<route::route_action::HashPolicy, _>(&proto.policy_specifier, "header")? {
            PolicySpecifier::Header(header) => {
                let rewrite = header.regex_rewrite.as_ref();
                let rewrite = rewrite.map(path_rewrite::substitute).transpose();
                let (name, rewrite) = (
                    matcher::header_or_pseudo(&header.header_name, "header_name"),
                    rewrite.within("regex_rewrite"),
                )
                    .together()
                    .within("header")?;
                HashInput::Header {
                    name,
                    rewrite: rewrite.map(|(pattern, by)| (Box::new(pattern), by)),
                }
            }
            PolicySpecifier::Cookie(cookie) => {
                let name = named(&cookie.name, "name").within("cookie")?;
                HashInput::Cookie(name.as_bytes().into())
            }
            PolicySpecifier::ConnectionProperties(properties) => {
                refuse(
                    !properties.source_ip,
                    "connection_properties.source_ip",
                    "must be true: there is no other property",
                )?;
                HashInput::SourceIp
            }
            PolicySpecifier::QueryParameter(parameter) => {
                let name = named(&parameter.name, "name").within("query_parameter")?;
                HashInput::QueryParameter(name.as_bytes().into())
            }
            PolicySpecifier::FilterState(_) => {
                return Err(ConfigError::new(
                    "filter_state",
                    "is not supported: nothing that runs here stores an object that has a hash",
                ));
            }
        };
    Ok(HashPolicy {
        input,
        terminal: proto.terminal,
    })
}
