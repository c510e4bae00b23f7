//! `gateway.networking.k8s.io/v1` HTTPRoute, attached to a Service.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::http_filter::FilterUse;
use super::route::validate_parents;
use super::{
    BackendRef, GatewayDuration, HttpFilter, HttpMatch, ObjectMeta, ParentRef, PathMatchKind,
    PathModifierKind, RuleProblem, http_filter,
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
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Without meaning for a Service (GEP-1294, "hostnames field"): its address chooses the route.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<HttpRouteRule>,
    /// Concerns Gateways only.
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

/// Matches, what to do with what matches, and where to send it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRouteRule {
    /// What people and statistics call it; its number when absent.
    #[serde(default)]
    pub name: Option<String>,
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
    #[serde(default)]
    retry: Option<IgnoredAny>,
    #[serde(default)]
    session_persistence: Option<IgnoredAny>,
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

impl HttpRoute {
    pub(crate) fn limits(&self) -> Option<FieldError> {
        self.strict().err()
    }

    /// The stricter rule for documents that nobody but the mesh reads. In a cluster each rule is
    /// judged by itself, and the status tells.
    fn strict(&self) -> Result<(), FieldError> {
        validate_parents(&self.spec.parent_refs)?;
        for (index, rule) in self.spec.rules.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            let checked = rule.check().map_err(|problem| problem.error);
            checked
                .and_then(|()| validate_backends(&rule.backend_refs, &rule.filters))
                .map_err(|error| error.under(&path))?;
        }
        Ok(())
    }
}

/// Checks the references of a rule in a document that nobody but the mesh reads.
pub(super) fn validate_backends(
    backends: &[BackendRef],
    filters: &[HttpFilter],
) -> Result<(), FieldError> {
    for (index, backend) in backends.iter().enumerate() {
        let path = format!("backendRefs[{index}]");
        backend.validate().map_err(|error| error.under(&path))?;
    }
    for (index, filter) in filters.iter().enumerate() {
        if let Some(mirror) = &filter.request_mirror {
            let path = format!("filters[{index}].requestMirror.backendRef");
            let checked = mirror.backend_ref.validate();
            checked.map_err(|error| error.under(&path))?;
        }
    }
    Ok(())
}

impl HttpRouteRule {
    /// What is wrong with it, with paths from the rule on.
    ///
    /// # Errors
    /// The first problem.
    pub fn check(&self) -> Result<(), RuleProblem> {
        for (index, part) in self.matches.iter().enumerate() {
            part.validate()
                .map_err(|error| error.under(&format!("matches[{index}]")))?;
        }
        let experimental = [
            ("retry", self.retry.is_some()),
            ("sessionPersistence", self.session_persistence.is_some()),
        ];
        for (name, set) in experimental {
            if set {
                return Err(FieldError::new(name, "is not supported: remove it").into());
            }
        }
        http_filter::check_all(&self.filters, FilterUse::HttpRule)?;
        for (index, backend) in self.backend_refs.iter().enumerate() {
            let path = format!("backendRefs[{index}]");
            backend.check().map_err(|error| error.under(&path))?;
            http_filter::check_all(&backend.filters, FilterUse::HttpBackend)
                .map_err(|problem| problem.under(&path))?;
        }
        let redirects = |filter: &HttpFilter| filter.request_redirect.is_some();
        if self.filters.iter().any(redirects) && !self.backend_refs.is_empty() {
            let reason = "must be empty where a filter redirects";
            return Err(RuleProblem::incompatible("backendRefs", reason));
        }
        let replaces_prefix = |filter: &HttpFilter| {
            filter
                .path_modifier()
                .is_some_and(|path| path.kind == PathModifierKind::ReplacePrefixMatch)
        };
        let prefix = |part: &HttpMatch| part.path.kind == PathMatchKind::PathPrefix;
        if self.filters.iter().any(replaces_prefix) && !self.matches.iter().all(prefix) {
            let reason = "ReplacePrefixMatch needs every match of the rule to be a PathPrefix";
            return Err(FieldError::new("filters", reason).into());
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
            return Err(FieldError::new("timeouts.backendRequest", reason).into());
        }
        Ok(())
    }
}
