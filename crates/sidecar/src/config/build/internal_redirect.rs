//! `InternalRedirectPolicy`, and the older fields for it.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::route::v3::route_action::InternalRedirectAction;
use envoy_types::pb::envoy::config::route::v3::{InternalRedirectPolicy, RouteAction};
use envoy_types::pb::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, each, enumeration, header_name, refuse, required, uint,
};
use crate::config::error::Result;
use crate::config::route::{InternalRedirects, RedirectPredicate};

/// The statuses that can be followed.
const STATUSES: &[u16] = &[301, 302, 303, 307, 308];
/// `redirect_response_codes` unless set.
const STATUS: u16 = 302;

const PREDICATES: &[Extension<Build<RedirectPredicate>>] = &[
    Extension {
        type_name: "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig",
        build: |bytes| {
            let proto: AllowListedRoutesConfig = decode(bytes)?;
            let names = proto.allowed_route_names.into_iter().map(Into::into);
            Ok(RedirectPredicate::AllowListed(names.collect()))
        },
    },
    Extension {
        type_name: "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig",
        build: |_| Ok(RedirectPredicate::NotBefore),
    },
    Extension {
        type_name: "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig",
        build: |_| Ok(RedirectPredicate::SafeCrossScheme),
    },
];

/// Which redirects a route follows by itself; `None`: none.
pub fn build(proto: &RouteAction) -> Result<Option<Box<InternalRedirects>>> {
    if let Some(policy) = &proto.internal_redirect_policy {
        let redirects = of_policy(policy).within("internal_redirect_policy")?;
        return Ok(Some(Box::new(redirects)));
    }
    match enumeration(proto.internal_redirect_action, "internal_redirect_action")? {
        InternalRedirectAction::PassThroughInternalRedirect => Ok(None),
        InternalRedirectAction::HandleInternalRedirect => {
            let policy = InternalRedirectPolicy {
                max_internal_redirects: proto.max_internal_redirects,
                ..InternalRedirectPolicy::default()
            };
            of_policy(&policy).map(|redirects| Some(Box::new(redirects)))
        }
    }
}

fn of_policy(proto: &InternalRedirectPolicy) -> Result<InternalRedirects> {
    let statuses = proto.redirect_response_codes.iter();
    let mut statuses: Vec<u16> = statuses
        .filter_map(|code| u16::try_from(*code).ok())
        // Envoy leaves out all others without a word, too.
        .filter(|code| STATUSES.contains(code))
        .collect();
    if proto.redirect_response_codes.is_empty() {
        statuses.push(STATUS);
    }
    let copies = each(
        "response_headers_to_copy",
        &proto.response_headers_to_copy,
        |name| {
            let is_target = name.starts_with(':') || name.eq_ignore_ascii_case("host");
            refuse(
                is_target,
                "",
                "the redirect's location says it: not a header to copy",
            )?;
            header_name(name, "")
        },
    );
    let (predicates, copies) =
        (each("predicates", &proto.predicates, predicate), copies).together()?;
    Ok(InternalRedirects {
        max: uint(&proto.max_internal_redirects).unwrap_or(1),
        statuses,
        predicates,
        cross_scheme: proto.allow_cross_scheme_redirect,
        copies,
    })
}

fn predicate(proto: &TypedExtensionConfig) -> Result<RedirectPredicate> {
    let any = required(&proto.typed_config, "typed_config")?;
    let row = resolve(PREDICATES, "predicate of internal redirects", any)?;
    (row.build)(&any.value).within("typed_config")
}
