//! `gateway.networking.k8s.io/v1` TCPRoute, attached to a Service.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::route::validate_parents;
use super::{BackendRef, ObjectMeta, ParentRef, RuleProblem};
use crate::registry::FieldError;

/// Routes the connections to a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRoute {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What it does.
    pub spec: TcpRouteSpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The body of a [`TcpRoute`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRouteSpec {
    /// The services whose connections it routes.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Its rule.
    #[serde(default)]
    pub rules: Vec<StreamRule>,
    /// Concerns Gateways only.
    #[serde(default, rename = "useDefaultGateways")]
    _use_default_gateways: IgnoredAny,
}

/// Where connections go.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamRule {
    /// What people call it.
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
    /// Where to, by weight.
    #[serde(default)]
    pub backend_refs: Vec<BackendRef>,
}

impl StreamRule {
    /// What is wrong with it, with paths from the rule on.
    ///
    /// # Errors
    /// The first problem.
    pub fn check(&self) -> Result<(), RuleProblem> {
        for (index, backend) in self.backend_refs.iter().enumerate() {
            let path = format!("backendRefs[{index}]");
            backend.check_plain().map_err(|error| error.under(&path))?;
        }
        Ok(())
    }
}

/// Checks the rules of a document that nobody but the mesh reads.
pub(super) fn validate_rules(rules: &[StreamRule]) -> Result<(), FieldError> {
    if rules.len() != 1 {
        let reason = "must hold one rule: nothing would choose among several";
        return Err(FieldError::new("spec.rules", reason));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        rule.check().map_err(|problem| problem.under(&path).error)?;
        for (position, backend) in rule.backend_refs.iter().enumerate() {
            let path = format!("{path}.backendRefs[{position}]");
            backend.validate().map_err(|error| error.under(&path))?;
        }
    }
    Ok(())
}

impl TcpRoute {
    pub(crate) fn limits(&self) -> Option<FieldError> {
        self.strict().err()
    }

    /// The stricter rule for documents that nobody but the mesh reads. In a cluster each rule is
    /// judged by itself, and the status tells.
    fn strict(&self) -> Result<(), FieldError> {
        validate_parents(&self.spec.parent_refs)?;
        validate_rules(&self.spec.rules)
    }
}
