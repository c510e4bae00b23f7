//! GRPCRoutes: gRPC's own names are the path `/service/method` of HTTP/2 requests.

use std::cmp::Reverse;

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_match::{
    GrpcRouteMatchOptions, PathSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::{Route, RouteMatch};

use crate::mesh::{JudgedRoute, MeshState, RouteKind};
use crate::registry::Object;
use crate::registry::kinds::{GrpcMatch, MatchKind, MethodMatch};

use super::http_match::{header_matchers, regular};
use super::rule::{self, Origin};

/// Sorts the most specific match first, by the Gateway API's rules (GRPCRouteRule.matches): longest
/// service, longest method, most headers.
type Precedence = (Reverse<usize>, Reverse<usize>, Reverse<usize>);

/// The routes of all GRPCRoutes that are attached to one port, the most specific first. A call that
/// none matches, and a request that is no gRPC, is answered with 404, which gRPC clients see as
/// UNIMPLEMENTED.
pub(super) fn routes(mesh: &MeshState, attached: &[&JudgedRoute]) -> Vec<Route> {
    let mut routes: Vec<(Precedence, Route)> = Vec::new();
    // The senior route first, and its rules in order: a stable sort keeps that among equals.
    for judged in attached {
        let Object::GrpcRoute(route) = judged.object() else {
            continue;
        };
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let Some(origin) = Origin::new(judged, index, rule.name.as_deref()) else {
                continue;
            };
            let forwarded = rule::forward(
                mesh,
                &origin,
                RouteKind::Grpc,
                &rule.backend_refs,
                &rule.filters,
            );
            let forwarded = forwarded.filter(|_| !origin.fails_requests);
            let action = forwarded.map_or_else(|| rule::refusal(RouteKind::Grpc), Action::Route);
            let every = [GrpcMatch::default()];
            let matches = if rule.matches.is_empty() {
                &every[..]
            } else {
                &rule.matches[..]
            };
            for part in matches {
                let compiled =
                    rule::route(&origin, route_match(part), action.clone(), &rule.filters);
                routes.push((precedence(part), compiled));
            }
        }
    }
    routes.sort_by_key(|(precedence, _)| *precedence);
    routes.into_iter().map(|(_, route)| route).collect()
}

fn precedence(part: &GrpcMatch) -> Precedence {
    let length = |name: fn(&MethodMatch) -> Option<&str>| {
        Reverse(part.method.as_ref().and_then(name).map_or(0, str::len))
    };
    let headers = header_matchers(&part.headers).len();
    (
        length(MethodMatch::service),
        length(MethodMatch::method),
        Reverse(headers),
    )
}

fn route_match(part: &GrpcMatch) -> RouteMatch {
    let path = part.method.as_ref().map_or_else(
        || PathSpecifier::Prefix("/".to_owned()),
        |wanted| path(wanted.kind, wanted.service(), wanted.method()),
    );
    RouteMatch {
        path_specifier: Some(path),
        headers: header_matchers(&part.headers),
        grpc: Some(GrpcRouteMatchOptions {}),
        ..RouteMatch::default()
    }
}

fn path(kind: MatchKind, service: Option<&str>, method: Option<&str>) -> PathSpecifier {
    match (kind, service, method) {
        (MatchKind::Exact, Some(service), Some(method)) => {
            PathSpecifier::Path(format!("/{service}/{method}"))
        }
        (MatchKind::Exact, Some(service), None) => PathSpecifier::Prefix(format!("/{service}/")),
        (MatchKind::Exact, None, Some(method)) => {
            PathSpecifier::SafeRegex(regular(&format!("/[^/]+/{}", regex::escape(method))))
        }
        (_, service, method) => {
            let group = |name: Option<&str>| {
                name.map_or_else(|| "[^/]+".to_owned(), |name| format!("(?:{name})"))
            };
            PathSpecifier::SafeRegex(regular(&format!("/{}/{}", group(service), group(method))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths() {
        use MatchKind::{Exact, RegularExpression};
        let regex = |text: &str| PathSpecifier::SafeRegex(regular(text));
        for (kind, service, method, expected) in [
            (
                Exact,
                Some("a.B"),
                Some("C"),
                PathSpecifier::Path("/a.B/C".to_owned()),
            ),
            (
                Exact,
                Some("a.B"),
                None,
                PathSpecifier::Prefix("/a.B/".to_owned()),
            ),
            (Exact, None, Some("C"), regex("/[^/]+/C")),
            (
                RegularExpression,
                Some("a|b"),
                Some("C.*"),
                regex("/(?:a|b)/(?:C.*)"),
            ),
            (RegularExpression, None, Some("C"), regex("/[^/]+/(?:C)")),
        ] {
            assert_eq!(path(kind, service, method), expected);
        }
    }
}
