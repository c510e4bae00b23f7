//! The same for YAML files: `outrider inject -f` and `outrider uninject -f`. Documents of other
//! kinds are passed on byte for byte.

use serde::Deserialize as _;
use serde_json::Value;

use crate::config::{Config, ServerVersion};
use crate::patch::{self, HookSecret, Outcome, Refusal, Surroundings, UndoError};

/// Why a text is not taken. Nothing of it is then returned.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// A document is not YAML, or not one that JSON can hold.
    #[error("document {document}: {source}")]
    Parse {
        /// Counted from 1.
        document: usize,
        /// What is wrong, and where in the document.
        source: serde_norway::Error,
    },
    /// A document is not an object of Kubernetes.
    #[error("document {document}: it has no kind: is it an object of Kubernetes?")]
    NoKind {
        /// Counted from 1.
        document: usize,
    },
    /// A workload has no template of a pod.
    #[error("{object}: it has no {field}")]
    NoTemplate {
        /// Which.
        object: String,
        /// Where it should be.
        field: String,
    },
    /// A pod may not run as it is.
    #[error("{object}: {refusal}")]
    Refused {
        /// Which.
        object: String,
        /// Why, and what to do.
        refusal: Refusal,
    },
    /// The patch does not fit the document.
    #[error("{object}: {source}")]
    Edit {
        /// Which.
        object: String,
        /// What does not fit.
        source: json_patch::PatchError,
    },
    /// What was injected cannot be taken back.
    #[error("{object}: {source}")]
    Undo {
        /// Which.
        object: String,
        /// Why.
        source: UndoError,
    },
}

/// A text after the change, and what there is to say of it.
#[derive(Debug, Default)]
pub struct Edited {
    /// YAML.
    pub text: String,
    /// In the order of the documents; one for each object with a pod at least.
    pub notes: Vec<Note>,
}

/// What was done with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `Deployment shop/web`
    pub object: String,
    /// What kind of note it is.
    pub kind: NoteKind,
    /// In words.
    pub message: String,
}

/// What a [`Note`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// The object was changed.
    Changed,
    /// The object stays as it was, for a reason.
    Left,
    /// Something that its author should know.
    Warning,
}

/// Adds the sidecar to every pod, and every template of a pod, of a YAML text with any number of
/// documents. `namespace` is that of objects that name none.
///
/// # Errors
/// A document cannot be read, or a pod is refused; the object is named.
pub fn inject_document(
    yaml: &str,
    namespace: &str,
    server: Option<ServerVersion>,
    config: &Config,
) -> Result<Edited, DocumentError> {
    edit(yaml, namespace, &|object, pod, notes| {
        let surroundings = Surroundings {
            server,
            pod_security: None,
            hook_secret: HookSecret::random(),
        };
        let mut note = |kind, message: String| {
            notes.push(Note {
                object: object.to_owned(),
                kind,
                message,
            });
        };
        match patch::inject(pod, surroundings, config) {
            Outcome::Refused(refusal) => Err(DocumentError::Refused {
                object: object.to_owned(),
                refusal,
            }),
            Outcome::Left(left) => {
                note(NoteKind::Left, left.to_string());
                Ok(false)
            }
            Outcome::Patch {
                operations,
                warnings,
            } => {
                json_patch::patch(pod, &operations).map_err(|source| DocumentError::Edit {
                    object: object.to_owned(),
                    source,
                })?;
                note(NoteKind::Changed, "injected".to_owned());
                for warning in warnings {
                    note(NoteKind::Warning, warning);
                }
                Ok(true)
            }
        }
    })
}

/// Takes back what [`inject_document`] or the webhook did.
///
/// # Errors
/// A document cannot be read, or what it says of its injection cannot.
pub fn uninject_document(yaml: &str, namespace: &str) -> Result<Edited, DocumentError> {
    edit(yaml, namespace, &|object, pod, notes| {
        let before = patch::uninject(pod).map_err(|source| DocumentError::Undo {
            object: object.to_owned(),
            source,
        })?;
        let (kind, message, changed) = match before {
            Some(before) => {
                *pod = before;
                (NoteKind::Changed, "uninjected", true)
            }
            None => (NoteKind::Left, "it was not injected", false),
        };
        notes.push(Note {
            object: object.to_owned(),
            kind,
            message: message.to_owned(),
        });
        Ok(changed)
    })
}

/// Changes one pod and says whether it did.
type Change<'a> = dyn Fn(&str, &mut Value, &mut Vec<Note>) -> Result<bool, DocumentError> + 'a;

fn edit(yaml: &str, namespace: &str, change: &Change<'_>) -> Result<Edited, DocumentError> {
    let mut edited = Edited::default();
    let mut document = 1;
    for (separator, text) in documents(yaml) {
        edited.text.push_str(separator);
        let parse = move |source| DocumentError::Parse { document, source };
        let mut value =
            serde_norway::Value::deserialize(serde_norway::Deserializer::from_str(text))
                .map_err(parse)?;
        // kubectl knows `<<`, too.
        value.apply_merge().map_err(parse)?;
        let mut value: Value = serde_norway::from_value(value).map_err(parse)?;
        if value.is_null() {
            // Comments alone, or nothing.
            edited.text.push_str(text);
            continue;
        }
        if value.get("kind").and_then(Value::as_str).is_none() {
            return Err(DocumentError::NoKind { document });
        }
        document += 1;
        if edit_object(&mut value, namespace, change, &mut edited.notes)? {
            edited
                .text
                .push_str(&serde_norway::to_string(&value).map_err(parse)?);
        } else {
            edited.text.push_str(text);
        }
    }
    Ok(edited)
}

fn edit_object(
    value: &mut Value,
    namespace: &str,
    change: &Change<'_>,
    notes: &mut Vec<Note>,
) -> Result<bool, DocumentError> {
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    if kind.ends_with("List") {
        let mut changed = false;
        for item in value["items"].as_array_mut().into_iter().flatten() {
            changed |= edit_object(item, namespace, change, notes)?;
        }
        return Ok(changed);
    }
    let Some(path) = template(&kind, value["apiVersion"].as_str().unwrap_or_default()) else {
        return Ok(false);
    };
    let metadata = &value["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or(namespace);
    let name = metadata["name"].as_str();
    let name = name.or(metadata["generateName"].as_str());
    let object = format!("{kind} {namespace}/{}", name.unwrap_or_default());
    match value.pointer_mut(path).filter(|pod| pod.is_object()) {
        Some(pod) => change(&object, pod, notes),
        None => Err(DocumentError::NoTemplate {
            object,
            field: path.trim_start_matches('/').replace('/', "."),
        }),
    }
}

/// Where a kind has its pod. Other groups have kinds of the same names.
fn template(kind: &str, api_version: &str) -> Option<&'static str> {
    match (api_version.split('/').next()?, kind) {
        ("v1", "Pod") => Some(""),
        ("v1", "PodTemplate") => Some("/template"),
        ("v1", "ReplicationController")
        | ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch", "Job") => Some("/spec/template"),
        ("batch", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The documents of a text, each with the mark that parts it from the one before. A line that
/// begins with `---` parts documents wherever it is, in a block of text as well (YAML 1.2, 9.1.2).
fn documents(yaml: &str) -> Vec<(&str, &str)> {
    let mut parts = Vec::new();
    let (mut mark, mut start, mut at) = ("", 0, 0);
    for line in yaml.split_inclusive('\n') {
        if let Some(rest) = line.strip_prefix("---")
            && (rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            parts.push((mark, &yaml[start..at]));
            let rest = rest.trim_start();
            // What else follows on the same line belongs to the document.
            let length = match rest.is_empty() || rest.starts_with('#') {
                true => line.len(),
                false => "---".len(),
            };
            mark = &line[..length];
            start = at + length;
        }
        at += line.len();
    }
    parts.push((mark, &yaml[start..]));
    parts
}
