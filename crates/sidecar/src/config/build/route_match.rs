//! `RouteMatch`.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;

use super::fields::{Within as _, each, flag, named, refuse, required, uri_text};
use super::matcher;
use crate::config::error::{ConfigError, Result};
use crate::config::route::{PathMatch, RouteMatch};
use crate::runtime_layer;

/// `RouteMatch`.
pub fn build(proto: &route::RouteMatch) -> Result<RouteMatch> {
    let path = match required(&proto.path_specifier, "path_specifier")? {
        PathSpecifier::Prefix(prefix) => PathMatch::Prefix(path_text(prefix, "prefix")?),
        PathSpecifier::Path(path) => PathMatch::Exact(path_text(named(path, "path")?, "path")?),
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            let valid = prefix.starts_with('/') && prefix.len() > 1 && !prefix.ends_with('/');
            refuse(
                !valid,
                "path_separated_prefix",
                "must begin with a slash, go on, and not end with one",
            )?;
            PathMatch::SeparatedPrefix(path_text(prefix, "path_separated_prefix")?)
        }
        PathSpecifier::SafeRegex(regex) => {
            PathMatch::Regex(matcher::safe_regex(regex).within("safe_regex")?)
        }
        PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
        PathSpecifier::PathMatchPolicy(_) => {
            return Err(ConfigError::new(
                "path_match_policy",
                "matchers that come from extensions are not supported",
            ));
        }
    };
    Ok(RouteMatch {
        path,
        case_sensitive: flag(&proto.case_sensitive).unwrap_or(true),
        headers: each("headers", &proto.headers, matcher::header)?,
        query: each("query_parameters", &proto.query_parameters, matcher::query)?,
        grpc: proto.grpc.is_some(),
        fraction: proto
            .runtime_fraction
            .as_ref()
            .map(runtime_layer::fraction)
            .transpose()
            .within("runtime_fraction")?,
    })
}

/// Text that a path is compared with: without query or fragment, which are not part of it.
fn path_text(text: &str, field: &str) -> Result<Box<[u8]>> {
    refuse(
        text.contains(['?', '#']),
        field,
        "must not hold ? or #: the query is not part of what is matched; use query_parameters",
    )?;
    Ok(uri_text(text, field)?.into())
}
