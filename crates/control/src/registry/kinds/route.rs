//! What all kinds of routes share: their parents, their backends, and what may be wrong with them.

use std::num::NonZeroU16;

use serde::Deserialize;

use super::HttpFilter;
use crate::registry::FieldError;

/// What a route is attached to. Only Services are the mesh's; other parents are other controllers'.
/// From another namespace than the Service's a route concerns only the clients of its own namespace
/// (GEP-1294, "Namespace boundaries").
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// The group; the Gateway API's own when absent, so that a Service's must be written: `""`.
    #[serde(default)]
    pub group: Option<String>,
    /// The kind; `Gateway` when absent.
    #[serde(default)]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace; the route's when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The service's port; all of its ports when absent.
    #[serde(default)]
    pub port: Option<NonZeroU16>,
    /// The name of the service's port.
    #[serde(default)]
    pub section_name: Option<String>,
}

impl ParentRef {
    /// Whether it is a Service.
    pub fn is_service(&self) -> bool {
        self.group.as_deref() == Some("") && self.kind.as_deref() == Some("Service")
    }

    /// The stricter rule for documents that nobody but the mesh reads.
    fn validate(&self) -> Result<(), FieldError> {
        let kind = self.kind.as_deref().unwrap_or("Gateway");
        if kind != "Service" {
            let reason = format!("{kind:?} is not supported: write kind: Service");
            return Err(FieldError::new("kind", reason));
        }
        match self.group.as_deref() {
            Some("") => Ok(()),
            other => {
                let other = other.unwrap_or("gateway.networking.k8s.io");
                let reason = format!("{other:?} has no Service: write group: \"\"");
                Err(FieldError::new("group", reason))
            }
        }
    }
}

/// Checks the parents of a document that nobody but the mesh reads.
pub(super) fn validate_parents(parents: &[ParentRef]) -> Result<(), FieldError> {
    if parents.is_empty() {
        return Err(FieldError::new("spec.parentRefs", "must name a Service"));
    }
    for (index, parent) in parents.iter().enumerate() {
        let path = format!("spec.parentRefs[{index}]");
        parent.validate().map_err(|error| error.under(&path))?;
    }
    Ok(())
}

/// Where a rule sends traffic.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// The group; the core group when absent.
    #[serde(default)]
    pub group: Option<String>,
    /// The kind; `Service` when absent.
    #[serde(default)]
    pub kind: Option<String>,
    /// Its name.
    pub name: String,
    /// Its namespace; the route's when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The service's port.
    #[serde(default)]
    pub port: Option<NonZeroU16>,
    #[serde(default)]
    weight: Option<u32>,
    /// What changes for this backend only.
    #[serde(default)]
    pub filters: Vec<HttpFilter>,
}

/// The largest weight that the Gateway API allows.
const MAX_WEIGHT: u32 = 1_000_000;

impl BackendRef {
    /// Its share of the rule's traffic: 1 unless written.
    pub fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }

    /// Whether it is a Service, which is all that traffic can be sent to.
    pub fn is_service(&self) -> bool {
        self.group.as_deref().unwrap_or("").is_empty()
            && self.kind.as_deref().unwrap_or("Service") == "Service"
    }

    /// The stricter rule for documents that nobody but the mesh reads. In a cluster another kind is
    /// taken, and the route's status says that the reference leads nowhere.
    pub(super) fn validate(&self) -> Result<(), FieldError> {
        let kind = self.kind.as_deref().unwrap_or("Service");
        if kind != "Service" {
            let reason = format!("{kind:?} is not supported: write kind: Service");
            return Err(FieldError::new("kind", reason));
        }
        match self.group.as_deref().unwrap_or("") {
            "" => Ok(()),
            other => {
                let reason = format!("{other:?} has no Service: write group: \"\"");
                Err(FieldError::new("group", reason))
            }
        }
    }

    /// Checks what holds for every backend.
    pub(super) fn check(&self) -> Result<(), FieldError> {
        if self.is_service() && self.port.is_none() {
            return Err(FieldError::new("port", "must be set for a Service"));
        }
        if self.weight() > MAX_WEIGHT {
            return Err(FieldError::new("weight", format!("is over {MAX_WEIGHT}")));
        }
        Ok(())
    }

    /// Checks a backend that takes bytes: it has no filters.
    pub(super) fn check_plain(&self) -> Result<(), FieldError> {
        if !self.filters.is_empty() {
            let reason = "belongs to the backends of HTTP and gRPC rules only";
            return Err(FieldError::new("filters", reason));
        }
        self.check()
    }

    /// Checks a backend that copies of requests are sent to: it takes them all.
    pub(super) fn check_mirror(&self) -> Result<(), FieldError> {
        if self.weight.is_some() {
            let reason = "belongs to the backends of a rule: use percent or fraction";
            return Err(FieldError::new("weight", reason));
        }
        self.check_plain()
    }
}

/// Why a rule is not done, in the words of the Gateway API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// A value that is not known or not supported.
    UnsupportedValue,
    /// Filters that exclude each other.
    IncompatibleFilters,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleProblem {
    /// Of which sort.
    pub kind: ProblemKind,
    /// The field, from the object's top.
    pub error: FieldError,
    /// Whether the requests that the rule matches are answered with an error, because a filter that
    /// cannot be applied must not be skipped; else the rule is dropped.
    pub fails_requests: bool,
}

impl RuleProblem {
    /// A value at fault; the rule is dropped.
    pub(super) fn unsupported(error: FieldError) -> Self {
        Self {
            kind: ProblemKind::UnsupportedValue,
            error,
            fails_requests: false,
        }
    }

    /// Filters that exclude each other; the rule is dropped.
    pub(super) fn incompatible(path: &str, reason: &str) -> Self {
        Self {
            kind: ProblemKind::IncompatibleFilters,
            ..Self::unsupported(FieldError::new(path, reason))
        }
    }

    /// A filter that cannot be applied.
    pub(super) fn failing(error: FieldError) -> Self {
        Self {
            fails_requests: true,
            ..Self::unsupported(error)
        }
    }

    /// The same problem seen from what holds the part at `prefix`.
    pub fn under(mut self, prefix: &str) -> Self {
        self.error = self.error.under(prefix);
        self
    }
}

impl From<FieldError> for RuleProblem {
    fn from(error: FieldError) -> Self {
        Self::unsupported(error)
    }
}
