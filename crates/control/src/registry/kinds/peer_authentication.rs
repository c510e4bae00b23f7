//! `outrider.dev/v1alpha1` PeerAuthentication: who must speak mutual TLS to whom.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ObjectMeta;
use crate::registry::FieldError;

/// Sets the mode of the whole mesh (in the root namespace, without a selector), of a namespace, or
/// of the workloads that a selector matches. Among policies of the same reach the strictest holds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerAuthentication {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name and namespace.
    pub metadata: ObjectMeta,
    /// What it says.
    pub spec: PeerAuthenticationSpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The body of a [`PeerAuthentication`].
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(
    description = "Which workloads, and what they accept.",
    extend("x-kubernetes-validations" = [
        {
            "rule": "!has(self.portLevelMtls) || size(self.portLevelMtls) == 0 || has(self.selector)",
            "message": "portLevelMtls needs a selector, for ports belong to workloads",
        },
        {
            "rule": "has(self.mtls) || (has(self.portLevelMtls) && size(self.portLevelMtls) > 0)",
            "message": "mtls must be set: the policy says nothing",
        },
    ])
)]
pub struct PeerAuthenticationSpec {
    /// Which workloads of the namespace; all of them when absent.
    #[serde(default)]
    pub selector: Option<Selector>,
    /// The mode of their ports; that of the wider policy when absent.
    #[serde(default)]
    pub mtls: Option<MutualTls>,
    /// The mode of single ports of the workload (not of the service).
    #[serde(default)]
    #[schemars(extend(
        "maxProperties" = 1024,
        "x-kubernetes-validations" = [{
            "rule": "self.all(port, port.matches('^[1-9][0-9]{0,4}$') && int(port) <= 65535)",
            "message": "keys must be port numbers from 1 to 65535",
        }],
    ))]
    pub port_level_mtls: BTreeMap<NonZeroU16, MutualTls>,
}

/// Matches workloads by labels.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// All of these must be equal.
    #[schemars(extend("minProperties" = 1))]
    pub match_labels: BTreeMap<String, String>,
}

/// Wraps the mode, as Kubernetes APIs do.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MutualTls {
    /// The mode.
    pub mode: MutualTlsMode,
}

/// What an inbound port accepts, ordered from lax to strict.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "UPPERCASE")]
#[value(rename_all = "UPPER")]
pub enum MutualTlsMode {
    /// Plaintext; callers do not offer mutual TLS.
    Disabled,
    /// Mutual TLS and plaintext; callers in the mesh use mutual TLS.
    Permissive,
    /// Mutual TLS only.
    Strict,
}

impl PeerAuthentication {
    pub(crate) fn validate(&self) -> Result<(), FieldError> {
        let spec = &self.spec;
        if spec
            .selector
            .as_ref()
            .is_some_and(|selector| selector.match_labels.is_empty())
        {
            let reason = "is empty: leave out the selector to mean the whole namespace";
            return Err(FieldError::new("spec.selector.matchLabels", reason));
        }
        if spec.selector.is_none() && !spec.port_level_mtls.is_empty() {
            let reason = "needs a selector, for ports belong to workloads";
            return Err(FieldError::new("spec.portLevelMtls", reason));
        }
        if spec.mtls.is_none() && spec.port_level_mtls.is_empty() {
            return Err(FieldError::new(
                "spec.mtls",
                "must be set: the policy says nothing",
            ));
        }
        Ok(())
    }
}
