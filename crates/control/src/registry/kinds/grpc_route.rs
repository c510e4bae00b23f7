//! `gateway.networking.k8s.io/v1` GRPCRoute, attached to a Service.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::http_filter::FilterUse;
use super::http_match::{check_expression, check_headers};
use super::http_route::validate_backends;
use super::route::validate_parents;
use super::{
    BackendRef, HttpFilter, MatchKind, ObjectMeta, ParentRef, RuleProblem, ValueMatch, http_filter,
};
use crate::registry::FieldError;

/// Routes the calls to a service, each call by itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRoute {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What it does.
    pub spec: GrpcRouteSpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The body of a [`GrpcRoute`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteSpec {
    /// The services whose calls it routes.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Without meaning for a Service (GEP-1294, "hostnames field"): its address chooses the route.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<GrpcRouteRule>,
    /// Concerns Gateways only.
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

/// Matches, what to do with what matches, and where to send it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRouteRule {
    /// What people and statistics call it; its number when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Any of these; every call when empty.
    #[serde(default)]
    pub matches: Vec<GrpcMatch>,
    /// What changes.
    #[serde(default)]
    pub filters: Vec<HttpFilter>,
    /// Where it goes, by weight.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
    #[serde(default)]
    session_persistence: Option<IgnoredAny>,
}

/// All of its parts must match.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// The service and method called; every one when absent.
    #[serde(default)]
    pub method: Option<MethodMatch>,
    /// The headers (gRPC's metadata).
    #[serde(default)]
    pub headers: Vec<ValueMatch>,
}

/// Matches what is called. One of the two names is there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MethodMatch {
    /// How.
    #[serde(default, rename = "type")]
    pub kind: MatchKind,
    /// The service with its package; any when absent or empty.
    #[serde(default)]
    pub service: Option<String>,
    /// The method; any when absent or empty.
    #[serde(default)]
    pub method: Option<String>,
}

impl MethodMatch {
    /// The service that is asked for.
    pub fn service(&self) -> Option<&str> {
        self.service.as_deref().filter(|name| !name.is_empty())
    }

    /// The method that is asked for.
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref().filter(|name| !name.is_empty())
    }

    fn check(&self) -> Result<(), FieldError> {
        if self.service().is_none() && self.method().is_none() {
            return Err(FieldError::new("", "must name a service or a method"));
        }
        for (field, name) in [("service", self.service()), ("method", self.method())] {
            let Some(name) = name else { continue };
            match self.kind {
                MatchKind::Exact => {
                    let valid =
                        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
                    if !name.bytes().all(valid) {
                        let reason = format!("{name:?} is not a name of gRPC");
                        return Err(FieldError::new(field, reason));
                    }
                }
                MatchKind::RegularExpression => {
                    check_expression(name).map_err(|error| error.under(field))?;
                }
                MatchKind::Unknown => return Err(MatchKind::unknown()),
            }
        }
        Ok(())
    }
}

impl GrpcRoute {
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

impl GrpcRouteRule {
    /// What is wrong with it, with paths from the rule on.
    ///
    /// # Errors
    /// The first problem.
    pub fn check(&self) -> Result<(), RuleProblem> {
        for (index, part) in self.matches.iter().enumerate() {
            let path = format!("matches[{index}]");
            if let Some(method) = &part.method {
                let checked = method.check().map_err(|error| error.under("method"));
                checked.map_err(|error| error.under(&path))?;
            }
            check_headers(&part.headers).map_err(|error| error.under(&path))?;
        }
        if self.session_persistence.is_some() {
            let reason = "is not supported: remove it";
            return Err(FieldError::new("sessionPersistence", reason).into());
        }
        http_filter::check_all(&self.filters, FilterUse::GrpcRule)?;
        for (index, backend) in self.backend_refs.iter().enumerate() {
            let path = format!("backendRefs[{index}]");
            backend.check().map_err(|error| error.under(&path))?;
            http_filter::check_all(&backend.filters, FilterUse::GrpcBackend)
                .map_err(|problem| problem.under(&path))?;
        }
        Ok(())
    }
}
