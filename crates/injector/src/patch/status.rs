//! The annotation by which the injector remembers what it did to a pod: by it a second call knows
//! that there is nothing to do, and `uninject` what to take back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::patch::annotations::STATUS;
use crate::patch::editor::{Editor, pointer};

/// The value of `outrider.dev/status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The injector's version.
    pub version: String,
    /// Its revision; empty for the default one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Init containers that were added, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<String>,
    /// Containers that were added, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
    /// Volumes that were added, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Names that were added to `imagePullSecrets`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// Labels and annotations that were added, as JSON pointers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Labels and annotations that were changed, as JSON pointers, and what they were.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub replaced: BTreeMap<String, Value>,
    /// Lists and objects that were made to hold the rest, as JSON pointers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub created: Vec<String>,
    /// The names of ports in probes that now go through the sidecar, by the probe's new path.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub probe_ports: BTreeMap<String, String>,
}

impl Status {
    /// What the pod's annotation says, if it has one that can be read. One that cannot is none: it
    /// is written anew.
    pub(super) fn read(annotations: &BTreeMap<String, String>) -> Option<Self> {
        serde_json::from_str(annotations.get(STATUS)?).ok()
    }

    /// Sets a label or an annotation (`kind` is labels or annotations) and remembers what was there.
    pub(super) fn set(
        &mut self,
        editor: &mut Editor,
        kind: &str,
        key: &str,
        value: &str,
    ) -> Result<(), json_patch::PatchError> {
        let path = ["metadata", kind, key];
        let value = Value::from(value);
        match editor.at(&path) {
            Some(present) if *present == value => return Ok(()),
            Some(present) => {
                self.replaced
                    .insert(pointer(&path).to_string(), present.clone());
            }
            None => self.added.push(pointer(&path).to_string()),
        }
        editor.set(&path, value)
    }

    /// Writes the annotation.
    pub(super) fn write(&self, editor: &mut Editor) -> Result<(), super::Refusal> {
        let text = serde_json::to_string(self)?;
        Ok(editor.set(&["metadata", "annotations", STATUS], Value::from(text))?)
    }
}
