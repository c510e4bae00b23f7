//! Metadata, and the kinds that are little more than it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::registry::FieldError;

/// The label that puts a namespace or a workload into the mesh or keeps it out.
pub const INJECT_LABEL: &str = "outrider.dev/inject";

/// Name, namespace and labels. What else Kubernetes keeps here (annotations, uid, resource version,
/// managed fields, ...) is tolerated, for documents are often copied out of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ObjectMeta {
    /// The object's name.
    pub name: String,
    namespace: Option<String>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Counts the changes of what the object says; 0 outside of a cluster.
    #[serde(default)]
    pub generation: i64,
    /// When it was made, in RFC 3339 and UTC, so that texts sort as times do; none outside of a
    /// cluster.
    #[serde(default, rename = "creationTimestamp")]
    pub creation_timestamp: Option<String>,
}

impl ObjectMeta {
    /// The namespace; `default` when none is written.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }

    /// What the label that includes or excludes says, if it is there.
    pub fn inject(&self) -> Option<bool> {
        self.labels
            .get(INJECT_LABEL)
            .map(|value| value == "enabled")
    }

    /// Checks the names.
    pub(crate) fn validate(&self) -> Result<(), FieldError> {
        if outrider_identity::spiffe::check_service_account(&self.name).is_err() {
            return Err(FieldError::new(
                "metadata.name",
                format!(
                    "{:?} is not a name of lower-case letters, digits, '-' and '.'",
                    self.name
                ),
            ));
        }
        outrider_identity::spiffe::check_namespace(self.namespace())
            .map_err(|error| FieldError::new("metadata.namespace", error.to_string()))
    }

    /// A value of our own label that means nothing.
    pub(crate) fn limits(&self) -> Option<FieldError> {
        match self.labels.get(INJECT_LABEL).map(String::as_str) {
            None | Some("enabled" | "disabled") => None,
            Some(other) => Some(FieldError::new(
                format!("metadata.labels[{INJECT_LABEL}]"),
                format!("{other:?} is neither enabled nor disabled"),
            )),
        }
    }
}

/// `v1` Namespace: its labels say whether its workloads are in the mesh.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Namespace {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name and labels.
    pub metadata: ObjectMeta,
    #[serde(default, rename = "spec")]
    _spec: IgnoredAny,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// `v1` ServiceAccount: read so that one directory can hold all that a cluster holds. An account
/// exists by being named in a token or a WorkloadEntry.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    /// Name and labels.
    pub metadata: ObjectMeta,
    #[serde(default, rename = "secrets")]
    _secrets: IgnoredAny,
    #[serde(default, rename = "imagePullSecrets")]
    _image_pull_secrets: IgnoredAny,
    #[serde(default, rename = "automountServiceAccountToken")]
    _automount_service_account_token: IgnoredAny,
}
