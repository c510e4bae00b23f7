//! `outrider.dev/v1alpha1` WorkloadEntry: a workload that no Kubernetes runs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::ObjectMeta;
use crate::registry::FieldError;

/// A process, or a pod made by hand, with addresses of its own. It stands behind every service of
/// its namespace whose selector matches its labels, as a pod does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadEntry {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name, namespace and labels.
    pub metadata: ObjectMeta,
    /// What it is.
    pub spec: WorkloadEntrySpec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The body of a [`WorkloadEntry`].
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(description = "Where the workload is, and who it is.")]
pub struct WorkloadEntrySpec {
    /// Its addresses, one or more, of either family.
    #[schemars(
        length(min = 1, max = 64),
        inner(regex(pattern = "^[0-9a-fA-F:.]{2,45}$"))
    )]
    pub addresses: Vec<IpAddr>,
    /// The account whose identity its sidecar bears. A workload without one (and without the label
    /// `outrider.dev/inject: enabled`) has no sidecar and is spoken to in plaintext.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub service_account: Option<String>,
    /// Numbers of the port names that services refer to in `targetPort`.
    #[serde(default)]
    pub ports: BTreeMap<String, NonZeroU16>,
    /// Its share of the traffic among the workloads of a service; 1 unless written.
    #[serde(default)]
    pub weight: Option<NonZeroU32>,
    /// Where it runs: `region`, `region/zone` or `region/zone/subzone`.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = "^[^/]*(/[^/]*){0,2}$"))]
    pub locality: Option<String>,
}

impl WorkloadEntry {
    pub(crate) fn validate(&self) -> Result<(), FieldError> {
        if self.spec.addresses.is_empty() {
            return Err(FieldError::new("spec.addresses", "must hold an address"));
        }
        for (index, address) in self.spec.addresses.iter().enumerate() {
            if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
                let reason = format!("{address} is not an address that others can dial");
                return Err(FieldError::new(format!("spec.addresses[{index}]"), reason));
            }
        }
        if let Some(account) = &self.spec.service_account {
            outrider_identity::spiffe::check_service_account(account)
                .map_err(|error| FieldError::new("spec.serviceAccount", error.to_string()))?;
        }
        if self
            .spec
            .locality
            .as_ref()
            .is_some_and(|place| place.split('/').count() > 3)
        {
            return Err(FieldError::new(
                "spec.locality",
                "has more than region/zone/subzone",
            ));
        }
        Ok(())
    }
}
