//! `v1` Pod: what the mesh needs to know of it.

use std::net::IpAddr;

use serde::Deserialize;

use super::ObjectMeta;
use crate::registry::FieldError;

/// The label that the injector puts on a pod with a sidecar. Its value is `enabled`.
pub const MUTUAL_TLS_LABEL: &str = "outrider.dev/mutual-tls";

/// A pod. It has far more fields; clusters have far more pods than anything else, so only these are
/// kept.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Name, namespace and labels.
    pub metadata: ObjectMeta,
    /// What it is.
    pub spec: PodSpec,
    /// What has become of it.
    #[serde(default)]
    pub status: PodStatus,
}

/// The body of a [`Pod`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The account that it runs as; the API server fills in `default`.
    #[serde(default)]
    pub service_account_name: Option<String>,
    /// Whether its address is its node's, which tells nothing about it.
    #[serde(default)]
    pub host_network: bool,
}

/// The state of a [`Pod`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    #[serde(default)]
    phase: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct PodIp {
    ip: IpAddr,
}

impl Pod {
    /// Its addresses, for as long as they are its own: an ended pod's are given to others.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ended = matches!(self.status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if ended || self.spec.host_network {
            return Vec::new();
        }
        self.status.pod_ips.iter().map(|each| each.ip).collect()
    }

    /// Whether it has a sidecar.
    pub fn has_sidecar(&self) -> bool {
        self.metadata
            .labels
            .get(MUTUAL_TLS_LABEL)
            .is_some_and(|value| value == "enabled")
    }

    pub(crate) fn validate(&self) -> Result<(), FieldError> {
        let Some(account) = &self.spec.service_account_name else {
            return Ok(());
        };
        outrider_identity::spiffe::check_service_account(account)
            .map_err(|error| FieldError::new("spec.serviceAccountName", error.to_string()))
    }
}
