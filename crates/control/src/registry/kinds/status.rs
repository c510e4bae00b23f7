//! The status of our own kinds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has become of an object. The control plane writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectStatus {
    /// Accepted: whether the object says what can be done; if not, the message names the field, and
    /// the last accepted version stays in force. Programmed: whether every proxy that it was sent to
    /// has taken it.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How many connected proxies refused what the object became. They keep what they had before.
    #[serde(default)]
    pub rejected_by: u32,
}
