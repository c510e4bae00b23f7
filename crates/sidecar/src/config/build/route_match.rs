//! `RouteMatch`.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, each, flag, named, one_of, refuse, required, uri_text,
};
use super::{filter_state_matcher, matcher, metadata_matcher, uri_template};
use crate::config::error::Result;
use crate::config::route::{Criteria, PathMatch, RouteMatch};
use crate::runtime_layer;

/// What `path_match_policy` may hold.
const PATH_MATCHERS: &[Extension<Build<PathMatch>>] = &[Extension {
    type_name: "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
    build: |bytes| {
        let proto: UriTemplateMatchConfig = decode(bytes)?;
        uri_template::pattern(&proto.path_template, "path_template").map(PathMatch::Template)
    },
}];

/// `RouteMatch`.
pub fn build(proto: &route::RouteMatch) -> Result<RouteMatch> {
    let fraction = proto
        .runtime_fraction
        .as_ref()
        .map(runtime_layer::fraction)
        .transpose();
    let (path, headers, query, cookies, fraction, filter_state, metadata) = (
        path(proto),
        each("headers", &proto.headers, matcher::header),
        each("query_parameters", &proto.query_parameters, matcher::query),
        each("cookies", &proto.cookies, matcher::cookie),
        fraction.within("runtime_fraction"),
        each(
            "filter_state",
            &proto.filter_state,
            filter_state_matcher::build,
        ),
        each(
            "dynamic_metadata",
            &proto.dynamic_metadata,
            metadata_matcher::build,
        ),
    )
        .together()?;
    let certificate = proto.tls_context.as_ref();
    let criteria = Criteria {
        headers,
        query,
        cookies,
        grpc: proto.grpc.is_some(),
        fraction,
        certificate_presented: certificate.and_then(|tls| flag(&tls.presented)),
        certificate_validated: certificate.and_then(|tls| flag(&tls.validated)),
        filter_state,
        metadata,
    };
    Ok(RouteMatch {
        path,
        case_sensitive: flag(&proto.case_sensitive).unwrap_or(true),
        criteria: (!criteria.is_empty()).then(|| Box::new(criteria)),
    })
}

fn path(proto: &route::RouteMatch) -> Result<PathMatch> {
    Ok(
        match one_of::<route::RouteMatch, _>(&proto.path_specifier, "prefix")? {
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
            PathSpecifier::PathMatchPolicy(policy) => {
                path_policy(policy).within("path_match_policy")?
            }
        },
    )
}

fn path_policy(policy: &core::TypedExtensionConfig) -> Result<PathMatch> {
    let any = required(&policy.typed_config, "typed_config")?;
    let row = resolve(PATH_MATCHERS, "path matcher", any)?;
    (row.build)(&any.value).within("typed_config")
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
