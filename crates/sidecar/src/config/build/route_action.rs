//! `RouteAction`.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::route_action::hash_policy::PolicySpecifier;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, HostRewriteSpecifier, MaxStreamDuration, UpgradeConfig,
};

use super::fields::{
    Together as _, Within as _, duration, each, enumeration, flag, header_name, named, one_of,
    refuse, timeout, uri_text,
};
use super::route_scope::Scope;
use super::{connection_options, internal_redirect, matcher, mirror, path_rewrite, route_cluster};
use crate::config::cluster::Priority;
use crate::config::error::Result;
use crate::config::route::{
    Forward, GrpcTimeout, HashInput, HashPolicy, HostRewrite, PathMatch, RawTunnel,
};
use crate::telemetry::access_log::format::Missing;

/// `timeout` of a route that sets none.
const TIMEOUT: Duration = Duration::from_secs(15);

/// `route`, which has of `scope` what it has not of its own, of a route that matches so (`None`: what
/// it matches is invalid).
///
/// `None`: the route cannot be taken, for an optional plugin that would choose its cluster is left
/// out.
pub fn forward(
    proto: &route::RouteAction,
    scope: &Scope<'_>,
    matched: Option<&PathMatch>,
) -> Result<Option<Forward>> {
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
            route_cluster::cluster(&proto.cluster_specifier, scope),
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
    let redirects = internal_redirect::build(proto)?;
    Ok(cluster.map(|cluster| Forward {
        redirects,
        body_limit: scope.buffer_limit,
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
    }))
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
            PolicySpecifier::FilterState(state) => {
                HashInput::FilterState(named(&state.key, "key").within("filter_state")?.into())
            }
        };
    Ok(HashPolicy {
        input,
        terminal: proto.terminal,
    })
}
