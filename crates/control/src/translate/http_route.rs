//! HTTPRoutes.

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HostRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier as ShareHost;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};

use crate::mesh::{JudgedRoute, MeshState, RouteKind};
use crate::registry::Object;
use crate::registry::kinds::{HttpFilter, HttpMatch, HttpRouteRule, UrlRewrite};

use super::http_match::{Precedence, precedence, route_matches};
use super::redirect::redirect_action;
use super::rule::{self, Origin};

/// The routes of all HTTPRoutes that are attached to a service's port of this number, the most
/// specific first. A request that none matches is answered with 404.
pub(super) fn routes(mesh: &MeshState, attached: &[&JudgedRoute], port: u16) -> Vec<Route> {
    let mut routes: Vec<(Precedence, Route)> = Vec::new();
    // The senior route first, and its rules in order: a stable sort keeps that among equals.
    for judged in attached {
        let Object::HttpRoute(route) = judged.object() else {
            continue;
        };
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let Some(origin) = Origin::new(judged, index, rule.name.as_deref()) else {
                continue;
            };
            let every = [HttpMatch::default()];
            let matches = if rule.matches.is_empty() {
                &every[..]
            } else {
                &rule.matches[..]
            };
            for part in matches {
                let compiled = compile(mesh, &origin, rule, part, port);
                routes.extend(compiled.into_iter().map(|route| (precedence(part), route)));
            }
        }
    }
    routes.sort_by_key(|(precedence, _)| *precedence);
    routes.into_iter().map(|(_, route)| route).collect()
}

fn compile(
    mesh: &MeshState,
    origin: &Origin<'_>,
    rule: &HttpRouteRule,
    part: &HttpMatch,
    port: u16,
) -> Vec<Route> {
    let path = rule.filters.iter().find_map(HttpFilter::path_modifier);
    let replacement = path.and_then(|path| path.replace_prefix_match.as_deref());
    let redirect = rule
        .filters
        .iter()
        .find_map(|filter| filter.request_redirect.as_ref());
    let matches = route_matches(part, replacement);
    let mut routes = Vec::with_capacity(matches.len());
    for (matches, prefix_rewrite) in matches {
        let action = match redirect {
            _ if origin.fails_requests => rule::refusal(RouteKind::Http),
            Some(redirect) => Action::Redirect(redirect_action(redirect, prefix_rewrite, port)),
            None => forward(mesh, origin, rule, prefix_rewrite),
        };
        routes.push(rule::route(origin, matches, action, &rule.filters));
    }
    routes
}

fn forward(
    mesh: &MeshState,
    origin: &Origin<'_>,
    rule: &HttpRouteRule,
    prefix_rewrite: String,
) -> Action {
    let forwarded = rule::forward(
        mesh,
        origin,
        RouteKind::Http,
        &rule.backend_refs,
        &rule.filters,
    );
    let Some(mut action) = forwarded else {
        return rule::refusal(RouteKind::Http);
    };
    action.timeout = Some(rule::timeout(rule.timeouts));
    action.prefix_rewrite = prefix_rewrite;
    let rewrite = |filter: &'_ HttpFilter| filter.url_rewrite.clone();
    if let Some(rewrite) = rule.filters.iter().find_map(rewrite) {
        apply_rewrite(&mut action, &rewrite);
    }
    prefer_backend_hosts(&mut action);
    Action::Route(action)
}

/// A proxy applies the host of a share before that of its route, but the filters of a backend come
/// after those of its rule: where a share has a host, the others get the rule's.
fn prefer_backend_hosts(action: &mut RouteAction) {
    let (Some(HostRewriteSpecifier::HostRewriteLiteral(host)), Some(clusters)) = (
        &action.host_rewrite_specifier,
        &mut action.cluster_specifier,
    ) else {
        return;
    };
    let ClusterSpecifier::WeightedClusters(weighted) = clusters else {
        return;
    };
    let has_host = |share: &ClusterWeight| share.host_rewrite_specifier.is_some();
    if !weighted.clusters.iter().any(has_host) {
        return;
    }
    for share in &mut weighted.clusters {
        share
            .host_rewrite_specifier
            .get_or_insert_with(|| ShareHost::HostRewriteLiteral(host.clone()));
    }
    action.host_rewrite_specifier = None;
}

fn apply_rewrite(action: &mut RouteAction, rewrite: &UrlRewrite) {
    action.host_rewrite_specifier = rewrite
        .hostname
        .clone()
        .map(HostRewriteSpecifier::HostRewriteLiteral);
    if let Some(full) = rewrite
        .path
        .as_ref()
        .and_then(|path| path.replace_full_path.as_ref())
    {
        action.regex_rewrite = Some(RegexMatchAndSubstitute {
            pattern: Some(RegexMatcher {
                regex: "^/.*$".to_owned(),
                ..RegexMatcher::default()
            }),
            // A backslash begins a reference to a group.
            substitution: full.replace('\\', "\\\\"),
        });
    }
}
