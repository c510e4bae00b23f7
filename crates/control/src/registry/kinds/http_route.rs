//! `gateway.networking.k8s.io/v1` HTTPRoute, attached to a Service.

use std::num::NonZeroU16;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{
    FilterKind, GatewayDuration, HttpFilter, HttpMatch, ObjectMeta, PathMatchKind, PathModifierKind,
};
use crate::registry::FieldError;

/// Routes the requests to a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRoute {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What it does.
    pub spec: HttpRouteSpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The body of an [`HttpRoute`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteSpec {
    /// The services whose requests it routes.
    pub parent_refs: Vec<ParentRef>,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<HttpRouteRule>,
}

/// A service that a route is attached to. From another namespace a route concerns only the
/// requests of its own namespace.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    /// The service's name.
    pub name: String,
    /// Its namespace; the route's when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The service's port; all of its HTTP ports when absent.
    #[serde(default)]
    pub port: Option<NonZeroU16>,
    /// The name of the service's port.
    #[serde(default)]
    pub section_name: Option<String>,
}

/// Matches, what to do with what matches, and where to send it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteRule {
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
    /// Any of these; every request when empty.
    #[serde(default)]
    pub matches: Vec<HttpMatch>,
    /// What changes.
    #[serde(default)]
    pub filters: Vec<HttpFilter>,
    /// Where it goes, by weight.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
    /// How long it may take.
    #[serde(default)]
    pub timeouts: RuleTimeouts,
}

/// A service that requests are sent to.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    kind: Option<String>,
    /// The service's name.
    pub name: String,
    /// Its namespace; the route's when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The service's port.
    pub port: NonZeroU16,
    /// Its share of the rule's requests.
    #[serde(default = "one")]
    pub weight: u32,
    /// What changes for this backend only.
    #[serde(default)]
    pub filters: Vec<HttpFilter>,
}

fn one() -> u32 {
    1
}

/// How long a rule's requests may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleTimeouts {
    /// From the whole request's arrival to the whole response.
    #[serde(default)]
    pub request: Option<GatewayDuration>,
    /// One attempt at a backend.
    #[serde(default)]
    pub backend_request: Option<GatewayDuration>,
}

fn check_kind(
    group: Option<&str>,
    kind: Option<&str>,
    default_kind: &str,
    path: &str,
) -> Result<(), FieldError> {
    let kind = kind.unwrap_or(default_kind);
    if kind != "Service" {
        let reason = format!("{kind:?} is not supported: write kind: Service");
        return Err(FieldError::new(format!("{path}.kind"), reason));
    }
    match group.unwrap_or("") {
        "" => Ok(()),
        // The default group is the Gateway API's own, so a Service's must be written.
        other => Err(FieldError::new(
            format!("{path}.group"),
            format!("{other:?} has no Service: write group: \"\""),
        )),
    }
}

impl HttpRoute {
    pub(crate) fn validate(&self) -> Result<(), FieldError> {
        if self.spec.parent_refs.is_empty() {
            return Err(FieldError::new("spec.parentRefs", "must name a Service"));
        }
        for (index, parent) in self.spec.parent_refs.iter().enumerate() {
            let path = format!("spec.parentRefs[{index}]");
            check_kind(
                parent.group.as_deref(),
                parent.kind.as_deref(),
                "Gateway",
                &path,
            )?;
        }
        for (index, rule) in self.spec.rules.iter().enumerate() {
            rule.validate()
                .map_err(|error| error.under(&format!("spec.rules[{index}]")))?;
        }
        Ok(())
    }
}

impl HttpRouteRule {
    fn validate(&self) -> Result<(), FieldError> {
        for (index, part) in self.matches.iter().enumerate() {
            part.validate()
                .map_err(|error| error.under(&format!("matches[{index}]")))?;
        }
        for (index, filter) in self.filters.iter().enumerate() {
            let path = format!("filters[{index}]");
            filter.validate().map_err(|error| error.under(&path))?;
            if self.filters[..index]
                .iter()
                .any(|earlier| earlier.kind == filter.kind)
            {
                return Err(FieldError::new(format!("{path}.type"), "is there twice"));
            }
        }
        let redirects = self
            .filters
            .iter()
            .any(|filter| filter.kind == FilterKind::RequestRedirect);
        if redirects && !self.backend_refs.is_empty() {
            let reason = "must be empty where a filter redirects";
            return Err(FieldError::new("backendRefs", reason));
        }
        if redirects
            && self
                .filters
                .iter()
                .any(|filter| filter.kind == FilterKind::UrlRewrite)
        {
            return Err(FieldError::new(
                "filters",
                "cannot both redirect and rewrite",
            ));
        }
        let replaces_prefix = self.filters.iter().filter_map(HttpFilter::path_modifier);
        if replaces_prefix
            .into_iter()
            .any(|path| path.kind == PathModifierKind::ReplacePrefixMatch)
            && self
                .matches
                .iter()
                .any(|part| part.path.kind != PathMatchKind::PathPrefix)
        {
            let reason = "ReplacePrefixMatch needs every match of the rule to be a PathPrefix";
            return Err(FieldError::new("filters", reason));
        }
        for (index, backend) in self.backend_refs.iter().enumerate() {
            let path = format!("backendRefs[{index}]");
            check_kind(
                backend.group.as_deref(),
                backend.kind.as_deref(),
                "Service",
                &path,
            )?;
            if backend.weight > 1_000_000 {
                return Err(FieldError::new(format!("{path}.weight"), "is over 1000000"));
            }
            for (position, filter) in backend.filters.iter().enumerate() {
                let path = format!("{path}.filters[{position}]");
                filter.validate().map_err(|error| error.under(&path))?;
                if !matches!(
                    filter.kind,
                    FilterKind::RequestHeaderModifier | FilterKind::ResponseHeaderModifier
                ) {
                    let reason = "only header modifiers are supported for one backend";
                    return Err(FieldError::new(format!("{path}.type"), reason));
                }
            }
        }
        let RuleTimeouts {
            request: Some(request),
            backend_request: Some(backend),
        } = self.timeouts
        else {
            return Ok(());
        };
        if !request.0.is_zero() && backend > request {
            let reason = "must not be longer than timeouts.request";
            return Err(FieldError::new("timeouts.backendRequest", reason));
        }
        Ok(())
    }
}
