//! Redirects of HTTPRoutes.

use envoy_types::pb::envoy::config::route::v3::RedirectAction;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};

use crate::registry::kinds::{PathModifier, PathModifierKind, RequestRedirect};

/// A redirect of requests to a service's port of this number.
pub(super) fn redirect_action(
    redirect: &RequestRedirect,
    prefix_rewrite: String,
    service_port: u16,
) -> RedirectAction {
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
        PathModifierKind::Unknown => None,
    };
    RedirectAction {
        host_redirect: redirect.hostname.clone().unwrap_or_default(),
        port_redirect: port(redirect, service_port).into(),
        response_code: code.into(),
        scheme_rewrite_specifier: redirect
            .scheme
            .clone()
            .map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: redirect.path.as_ref().and_then(path),
        ..RedirectAction::default()
    }
}

/// The port to write into the location, by the rules of HTTPRequestRedirectFilter.port (of which
/// the listener's port is the service's); 0 to write none. The proxy keeps a port that the request's
/// own host has, unless the host or the port is replaced.
fn port(redirect: &RequestRedirect, service_port: u16) -> u16 {
    // What clients of a service speak to their sidecar.
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    let well_known = if scheme == "https" { 443 } else { 80 };
    let wanted = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => port.get(),
        (None, Some(_)) => well_known,
        (None, None) => service_port,
    };
    // Clients of port 80 write none; those of another port write it, and it would be kept.
    let implied = wanted == well_known && (redirect.hostname.is_some() || service_port == 80);
    if implied { 0 } else { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_written_only_where_the_scheme_does_not_imply_it() {
        for (redirect, service_port, expected) in [
            ("{}", 80, 0),
            ("{}", 8080, 8080),
            ("{hostname: h.example}", 80, 0),
            ("{hostname: h.example}", 8080, 8080),
            ("{scheme: https}", 80, 0),
            // The request's host has :8080, which must not be kept.
            ("{scheme: https}", 8080, 443),
            ("{scheme: https, hostname: h.example}", 8080, 0),
            ("{scheme: http}", 8080, 80),
            ("{port: 80}", 80, 0),
            ("{port: 443}", 80, 443),
            ("{port: 443, scheme: https}", 80, 0),
            ("{port: 8443, scheme: https}", 80, 8443),
            ("{port: 80, hostname: h.example}", 8080, 0),
        ] {
            let parsed: RequestRedirect = serde_norway::from_str(redirect).unwrap();
            assert_eq!(
                port(&parsed, service_port),
                expected,
                "{redirect} at {service_port}"
            );
        }
    }
}
