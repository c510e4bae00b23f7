//! `RouteAction`, `RedirectAction`, `DirectResponseAction`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::RoutingPriority;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as PartHost;
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::fields::{
    Within as _, duration, each, enumeration, flag, header_name, named, port, refuse, required,
    timeout, uint, uri_text,
};
use super::header_changes::changes;
use super::regex;
use super::{data_source, mirror};
use crate::config::error::{ConfigError, Result};
use crate::config::route::{
    Action, ClusterChoice, Forward, GrpcTimeout, HostRewrite, Mirror, PathRewrite, Redirect,
    WeightedCluster,
};

/// `timeout` of a route that sets none.
const TIMEOUT: Duration = Duration::from_secs(15);

/// `route`, which has the mirrors of its virtual host where it has none of its own.
pub fn forward(proto: &route::RouteAction, mirrors: &Arc<[Mirror]>) -> Result<Forward> {
    let priority: RoutingPriority = enumeration(proto.priority, "priority")?;
    refuse(
        priority != RoutingPriority::Default,
        "priority",
        "only DEFAULT is supported",
    )?;
    let not_found: ClusterNotFoundResponseCode = enumeration(
        proto.cluster_not_found_response_code,
        "cluster_not_found_response_code",
    )?;
    let idle_timeout = match duration(&proto.idle_timeout, "idle_timeout")? {
        None => None,
        Some(Duration::ZERO) => Some(None),
        set => Some(set),
    };
    let (max_stream_duration, grpc_timeout) =
        stream_duration(&proto.max_stream_duration).within("max_stream_duration")?;
    Ok(Forward {
        cluster: cluster(&proto.cluster_specifier)?,
        not_found_status: match not_found {
            ClusterNotFoundResponseCode::ServiceUnavailable => 503,
            ClusterNotFoundResponseCode::NotFound => 404,
            ClusterNotFoundResponseCode::InternalServerError => 500,
        },
        rewrite: rewrite(&proto.prefix_rewrite, &proto.regex_rewrite)?,
        host_rewrite: host_rewrite(&proto.host_rewrite_specifier)?,
        // Envoy's rule: where the newer field is present, the older one is not looked at.
        timeout: timeout(&proto.timeout, Some(TIMEOUT), "timeout")?
            .filter(|_| proto.max_stream_duration.is_none()),
        idle_timeout,
        max_stream_duration,
        grpc_timeout,
        append_x_forwarded_host: proto.append_x_forwarded_host,
        mirrors: mirror::build(&proto.request_mirror_policies, mirrors)?,
        upgrades: each("upgrade_configs", &proto.upgrade_configs, |upgrade| {
            let kind = header_name(&upgrade.upgrade_type, "upgrade_type")?;
            Ok((kind, flag(&upgrade.enabled).unwrap_or(true)))
        })?,
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

fn cluster(proto: &Option<ClusterSpecifier>) -> Result<ClusterChoice> {
    match required(proto, "cluster_specifier")? {
        ClusterSpecifier::Cluster(name) => Ok(ClusterChoice::Named(named(name, "cluster")?.into())),
        ClusterSpecifier::ClusterHeader(name) => {
            header_name(name, "cluster_header").map(ClusterChoice::Header)
        }
        ClusterSpecifier::WeightedClusters(clusters) => {
            weighted(clusters).within("weighted_clusters")
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

fn weighted(proto: &route::WeightedCluster) -> Result<ClusterChoice> {
    let parts = each("clusters", &proto.clusters, |part| {
        Ok(WeightedCluster {
            name: named(&part.name, "name")?.into(),
            weight: uint(&part.weight).unwrap_or(0),
            host: match &part.host_rewrite_specifier {
                None => None,
                Some(PartHost::HostRewriteLiteral(host)) => {
                    let host = named(host, "host_rewrite_literal")?;
                    Some(uri_text(host, "host_rewrite_literal")?.into())
                }
            },
            headers: changes(
                &part.request_headers_to_add,
                &part.request_headers_to_remove,
                &part.response_headers_to_add,
                &part.response_headers_to_remove,
            )?,
        })
    })?;
    let total = total_weight(parts.iter().map(|part| part.weight), "clusters")?;
    Ok(ClusterChoice::Weighted { parts, total })
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

fn rewrite(prefix: &str, regex: &Option<RegexMatchAndSubstitute>) -> Result<Option<PathRewrite>> {
    match (prefix, regex) {
        ("", None) => Ok(None),
        ("", Some(regex)) => regex_rewrite(regex).map(Some).within("regex_rewrite"),
        (prefix, None) => prefix_rewrite(prefix).map(Some),
        (_, Some(_)) => Err(ConfigError::new(
            "regex_rewrite",
            "prefix_rewrite is set too, and only one of the two can be",
        )),
    }
}

fn prefix_rewrite(prefix: &str) -> Result<PathRewrite> {
    refuse(
        prefix.contains(['?', '#']),
        "prefix_rewrite",
        "must not hold ? or #",
    )?;
    let prefix = uri_text(prefix, "prefix_rewrite")?;
    Ok(PathRewrite::Prefix(prefix.into()))
}

fn regex_rewrite(proto: &RegexMatchAndSubstitute) -> Result<PathRewrite> {
    let pattern = required(&proto.pattern, "pattern")?;
    let pattern = named(&pattern.regex, "regex")
        .and_then(|pattern| regex::anywhere(pattern, "regex"))
        .within("pattern")?;
    refuse(
        proto.substitution.contains(['?', '#']),
        "substitution",
        "must not hold ? or #",
    )?;
    Ok(PathRewrite::Regex {
        substitution: regex::substitution(&proto.substitution, &pattern, "substitution")?,
        pattern,
    })
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
        Some(HostRewriteSpecifier::HostRewritePathRegex(_)) => {
            return Err(ConfigError::new(
                "host_rewrite_path_regex",
                "is not supported",
            ));
        }
        Some(HostRewriteSpecifier::HostRewrite(_)) => {
            return Err(ConfigError::new("host_rewrite", "is not supported"));
        }
    })
}

/// `redirect`.
pub fn redirect(proto: &route::RedirectAction) -> Result<Redirect> {
    let code: RedirectResponseCode = enumeration(proto.response_code, "response_code")?;
    let scheme = match &proto.scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(b"https".as_slice().into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if scheme.is_empty() => None,
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            // RFC 3986, section 3.1.
            let valid = |(at, byte): (usize, u8)| {
                byte.is_ascii_alphabetic()
                    || (at > 0 && (byte.is_ascii_digit() || b"+-.".contains(&byte)))
            };
            refuse(
                !scheme.bytes().enumerate().all(valid),
                "scheme_redirect",
                "is not a URI scheme",
            )?;
            Some(scheme.to_ascii_lowercase().into_bytes().into())
        }
    };
    let (path, rewrite) = match &proto.path_rewrite_specifier {
        None => (None, None),
        Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => (None, None),
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            refuse(
                !path.starts_with('/'),
                "path_redirect",
                "must begin with a slash",
            )?;
            (Some(uri_text(path, "path_redirect")?.into()), None)
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) if prefix.is_empty() => (None, None),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => (None, Some(prefix_rewrite(prefix)?)),
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
            (None, Some(regex_rewrite(regex).within("regex_rewrite")?))
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            return Err(ConfigError::new("path_rewrite", "is not supported"));
        }
    };
    let host = uri_text(&proto.host_redirect, "host_redirect")?;
    Ok(Redirect {
        status: match code {
            RedirectResponseCode::MovedPermanently => 301,
            RedirectResponseCode::Found => 302,
            RedirectResponseCode::SeeOther => 303,
            RedirectResponseCode::TemporaryRedirect => 307,
            RedirectResponseCode::PermanentRedirect => 308,
        },
        scheme,
        host: (!host.is_empty()).then(|| host.into()),
        port: match proto.port_redirect {
            0 => None,
            other => Some(port(other, false, "port_redirect")?),
        },
        path,
        rewrite,
        strip_query: proto.strip_query,
    })
}

/// `direct_response`, with a body of at most `limit` bytes.
pub fn direct_response(proto: &route::DirectResponseAction, limit: usize) -> Result<Action> {
    let status = u16::try_from(proto.status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| {
            ConfigError::new(
                "status",
                format_args!("{} is not between 200 and 599", proto.status),
            )
        })?;
    let body: Arc<[u8]> = match &proto.body {
        None => Arc::default(),
        Some(source) => data_source::read_once(source)
            .within("body")?
            .map(|data| data.bytes.into())
            .unwrap_or_default(),
    };
    refuse(
        body.len() > limit,
        "body",
        format_args!(
            "has {} bytes, and max_direct_response_body_size_bytes is {limit}",
            body.len()
        ),
    )?;
    Ok(Action::Direct { status, body })
}
