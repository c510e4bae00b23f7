//! What a route of an HTTPRoute matches, and in which order routes are tried.

use std::cmp::Reverse;

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};

use crate::registry::kinds::{HttpMatch, MatchKind, PathMatchKind, ValueMatch};

/// Sorts the most specific match first, by the Gateway API's rules (HTTPRouteRule.matches): exact
/// path, longest prefix, method, most headers, most query parameters; then the order given.
pub(super) type Precedence = (u8, Reverse<usize>, bool, Reverse<usize>, Reverse<usize>);

pub(super) fn precedence(part: &HttpMatch) -> Precedence {
    let kind = match part.path.kind {
        PathMatchKind::Exact => 0,
        PathMatchKind::RegularExpression => 1,
        PathMatchKind::PathPrefix | PathMatchKind::Unknown => 2,
    };
    (
        kind,
        Reverse(part.path.value.len()),
        part.method.is_none(),
        Reverse(distinct(&part.headers, true).count()),
        Reverse(distinct(&part.query_params, false).count()),
    )
}

/// The matchers for one match, each with what a rewrite of the matched prefix must put in its
/// place. There are two where a prefix is replaced by nothing: `/a` must become `/` and `/a/b` must
/// become `/b`, which one rewrite cannot do without leaving `//b`.
pub(super) fn route_matches(
    part: &HttpMatch,
    replacement: Option<&str>,
) -> Vec<(RouteMatch, String)> {
    let prefix = part.path.value.trim_end_matches('/');
    let replacement = replacement.map(|text| text.trim_end_matches('/'));
    let paths = match (part.path.kind, replacement) {
        (PathMatchKind::Exact, _) => {
            vec![(PathSpecifier::Path(part.path.value.clone()), String::new())]
        }
        (PathMatchKind::RegularExpression, _) => {
            vec![(
                PathSpecifier::SafeRegex(regular(&part.path.value)),
                String::new(),
            )]
        }
        (_, replacement) if prefix.is_empty() => {
            let rewrite = replacement.map_or(String::new(), |text| format!("{text}/"));
            vec![(PathSpecifier::Prefix("/".to_owned()), rewrite)]
        }
        (_, Some("")) => vec![
            (PathSpecifier::Path(prefix.to_owned()), "/".to_owned()),
            (PathSpecifier::Prefix(format!("{prefix}/")), "/".to_owned()),
        ],
        (_, replacement) => vec![(
            PathSpecifier::PathSeparatedPrefix(prefix.to_owned()),
            replacement.unwrap_or_default().to_owned(),
        )],
    };
    let matcher = |path| RouteMatch {
        path_specifier: Some(path),
        headers: method(part)
            .into_iter()
            .chain(header_matchers(&part.headers))
            .collect(),
        query_parameters: distinct(&part.query_params, false)
            .map(query_parameter)
            .collect(),
        ..RouteMatch::default()
    };
    paths
        .into_iter()
        .map(|(path, rewrite)| (matcher(path), rewrite))
        .collect()
}

/// Without those whose name an earlier one has: they "MUST be ignored" (HTTPHeaderMatch.name).
fn distinct(wanted: &[ValueMatch], ignore_case: bool) -> impl Iterator<Item = &ValueMatch> {
    let same = move |one: &ValueMatch, other: &ValueMatch| {
        one.name == other.name || (ignore_case && one.name.eq_ignore_ascii_case(&other.name))
    };
    let first = move |(index, value): &(usize, &ValueMatch)| {
        !wanted[..*index].iter().any(|earlier| same(earlier, value))
    };
    wanted
        .iter()
        .enumerate()
        .filter(first)
        .map(|(_, value)| value)
}

fn method(part: &HttpMatch) -> Option<HeaderMatcher> {
    let method = part.method?;
    let pattern = MatchPattern::Exact(method.as_str().to_owned());
    Some(header_matcher(":method", string(pattern)))
}

/// The matchers of headers, which all must match.
pub(super) fn header_matchers(headers: &[ValueMatch]) -> Vec<HeaderMatcher> {
    let matcher =
        |header: &ValueMatch| header_matcher(&header.name.to_ascii_lowercase(), value(header));
    distinct(headers, true).map(matcher).collect()
}

fn header_matcher(name: &str, value: StringMatcher) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(value)),
        ..HeaderMatcher::default()
    }
}

fn query_parameter(parameter: &ValueMatch) -> QueryParameterMatcher {
    QueryParameterMatcher {
        name: parameter.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(value(
            parameter,
        ))),
    }
}

fn value(wanted: &ValueMatch) -> StringMatcher {
    string(match wanted.kind {
        MatchKind::Exact | MatchKind::Unknown => MatchPattern::Exact(wanted.value.clone()),
        MatchKind::RegularExpression => MatchPattern::SafeRegex(regular(&wanted.value)),
    })
}

fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher {
        match_pattern: Some(pattern),
        ..StringMatcher::default()
    }
}

pub(super) fn regular(expression: &str) -> RegexMatcher {
    RegexMatcher {
        regex: expression.to_owned(),
        ..RegexMatcher::default()
    }
}
