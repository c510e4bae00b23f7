//! HTTPRoutes.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteAction, WeightedCluster,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::mesh::{MeshRoute, MeshState};
use crate::registry::NamespacedName;
use crate::registry::kinds::{
    BackendRef, HeaderModifier, HttpFilter, HttpMatch, HttpRouteRule, PathModifier,
    PathModifierKind, RequestRedirect, RuleTimeouts, UrlRewrite,
};

use super::http_match::{Precedence, precedence, route_matches};
use super::names::outbound_cluster;

/// The routes of all HTTPRoutes that are attached to one port, the most specific first. A request
/// that none matches is answered with 404.
pub(super) fn routes(mesh: &MeshState, attached: &[&MeshRoute]) -> Vec<Route> {
    let mut routes: Vec<(Precedence, NamespacedName, Route)> = Vec::new();
    for attachment in attached {
        let Some(route) = attachment.route() else {
            continue;
        };
        let object = attachment.reference().name;
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let name = format!("{object}/{index}");
            let every = [HttpMatch::default()];
            let matches = if rule.matches.is_empty() {
                &every[..]
            } else {
                &rule.matches[..]
            };
            for part in matches {
                for compiled in compile(mesh, &name, &object.namespace, rule, part) {
                    routes.push((precedence(part), object.clone(), compiled));
                }
            }
        }
    }
    // Stable: rules that are equally specific keep their order.
    routes.sort_by(|(one, first, _), (other, second, _)| (one, first).cmp(&(other, second)));
    routes.into_iter().map(|(_, _, route)| route).collect()
}

fn compile(
    mesh: &MeshState,
    name: &str,
    namespace: &str,
    rule: &HttpRouteRule,
    part: &HttpMatch,
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
            Some(redirect) => Action::Redirect(redirect_action(redirect, prefix_rewrite)),
            None => forward(mesh, namespace, rule, prefix_rewrite),
        };
        let mut route = Route {
            name: name.to_owned(),
            r#match: Some(matches),
            action: Some(action),
            ..Route::default()
        };
        for filter in &rule.filters {
            if let Some(modifier) = &filter.request_header_modifier {
                route.request_headers_to_add = additions(modifier);
                route.request_headers_to_remove.clone_from(&modifier.remove);
            }
            if let Some(modifier) = &filter.response_header_modifier {
                route.response_headers_to_add = additions(modifier);
                route
                    .response_headers_to_remove
                    .clone_from(&modifier.remove);
            }
        }
        routes.push(route);
    }
    routes
}

fn forward(
    mesh: &MeshState,
    namespace: &str,
    rule: &HttpRouteRule,
    prefix_rewrite: String,
) -> Action {
    let backends: Vec<&BackendRef> = rule
        .backend_refs
        .iter()
        .filter(|backend| backend.weight > 0)
        .collect();
    let exists = |backend: &&&BackendRef| backend_name(mesh, namespace, backend).1;
    if backends.iter().filter(exists).count() == 0 {
        // HTTPRouteRule.backendRefs: no backend, or none that exists.
        return Action::DirectResponse(DirectResponseAction {
            status: 500,
            ..DirectResponseAction::default()
        });
    }
    let cluster_specifier = match backends.as_slice() {
        [single] if single.filters.is_empty() => {
            ClusterSpecifier::Cluster(backend_name(mesh, namespace, single).0)
        }
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|backend| weight(mesh, namespace, backend))
                .collect(),
            ..WeightedCluster::default()
        }),
    };
    let mut action = RouteAction {
        cluster_specifier: Some(cluster_specifier),
        timeout: Some(timeout(rule.timeouts)),
        prefix_rewrite,
        // The share of a backend that does not exist is answered as if all did not.
        cluster_not_found_response_code: ClusterNotFoundResponseCode::InternalServerError.into(),
        ..RouteAction::default()
    };
    if let Some(rewrite) = rule
        .filters
        .iter()
        .find_map(|filter| filter.url_rewrite.as_ref())
    {
        apply_rewrite(&mut action, rewrite);
    }
    Action::Route(action)
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

/// One attempt is all there is, so the shorter of the two bounds it.
fn timeout(timeouts: RuleTimeouts) -> envoy_types::pb::google::protobuf::Duration {
    let bounds = [timeouts.request, timeouts.backend_request];
    let shortest = bounds
        .into_iter()
        .flatten()
        .map(|bound| bound.0)
        .filter(|bound| !bound.is_zero())
        .min();
    let shortest = shortest.unwrap_or(Duration::ZERO);
    envoy_types::pb::google::protobuf::Duration {
        seconds: i64::try_from(shortest.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(shortest.subsec_nanos()).unwrap_or(0),
    }
}

/// The cluster of a backend, and whether there is one.
fn backend_name(mesh: &MeshState, namespace: &str, backend: &BackendRef) -> (String, bool) {
    let namespace = backend.namespace.as_deref().unwrap_or(namespace);
    let name = NamespacedName::new(namespace, &backend.name);
    let port = backend.port.get();
    if let Some((service, port)) = mesh.backend(&name, port) {
        return (outbound_cluster(&service.host, port.number), true);
    }
    let host = format!(
        "{}.{namespace}.svc.{}",
        backend.name, mesh.settings.cluster_domain
    );
    (outbound_cluster(&host, port), false)
}

fn weight(mesh: &MeshState, namespace: &str, backend: &BackendRef) -> ClusterWeight {
    let mut weight = ClusterWeight {
        name: backend_name(mesh, namespace, backend).0,
        weight: Some(UInt32Value {
            value: backend.weight,
        }),
        ..ClusterWeight::default()
    };
    for filter in &backend.filters {
        if let Some(modifier) = &filter.request_header_modifier {
            weight.request_headers_to_add = additions(modifier);
            weight
                .request_headers_to_remove
                .clone_from(&modifier.remove);
        }
        if let Some(modifier) = &filter.response_header_modifier {
            weight.response_headers_to_add = additions(modifier);
            weight
                .response_headers_to_remove
                .clone_from(&modifier.remove);
        }
    }
    weight
}

fn additions(modifier: &HeaderModifier) -> Vec<HeaderValueOption> {
    let option = |header: &crate::registry::kinds::HeaderValue, action: HeaderAppendAction| {
        HeaderValueOption {
            header: Some(HeaderValue {
                key: header.name.clone(),
                // Envoy reads %...% as a variable; a document means the character.
                value: header.value.replace('%', "%%"),
                ..HeaderValue::default()
            }),
            append_action: action.into(),
            ..HeaderValueOption::default()
        }
    };
    let set = modifier.set.iter();
    let set = set.map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = modifier.add.iter();
    set.chain(add.map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd)))
        .collect()
}

fn redirect_action(redirect: &RequestRedirect, prefix_rewrite: String) -> RedirectAction {
    let code = match redirect.status_code {
        301 => RedirectResponseCode::MovedPermanently,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    };
    let path = |path: &PathModifier| match path.kind {
        PathModifierKind::ReplaceFullPath => path
            .replace_full_path
            .clone()
            .map(PathRewriteSpecifier::PathRedirect),
        PathModifierKind::ReplacePrefixMatch => {
            Some(PathRewriteSpecifier::PrefixRewrite(prefix_rewrite.clone()))
        }
    };
    RedirectAction {
        host_redirect: redirect.hostname.clone().unwrap_or_default(),
        port_redirect: redirect.port.map_or(0, |port| port.get().into()),
        response_code: code.into(),
        scheme_rewrite_specifier: redirect
            .scheme
            .clone()
            .map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: redirect.path.as_ref().and_then(path),
        ..RedirectAction::default()
    }
}
