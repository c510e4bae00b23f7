//! Takes back what was done to a pod, by what its annotation remembers.

use json_patch::jsonptr::Pointer;
use serde_json::{Map, Value};

use super::annotations::STATUS;
use super::editor::Editor;
use super::status::Status;
use super::{containers, find_sidecar, probes};

/// Why it cannot be taken back.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// The annotation is not what the injector wrote.
    #[error("annotation {STATUS}: {0}")]
    Status(#[source] serde_json::Error),
    /// A pointer in it is none, or names what the injector never touches.
    #[error("annotation {STATUS}: `{0}` is not a label, an annotation or a list of a pod")]
    Pointer(String),
    /// A change does not fit the document.
    #[error("the pod cannot be changed: {0}")]
    Edit(#[from] json_patch::PatchError),
}

/// The pod as it was before [`inject`](super::inject), or none if it was never injected.
///
/// # Errors
/// Its annotation cannot be read.
pub fn uninject(pod: &Value) -> Result<Option<Value>, UndoError> {
    let annotation = ["metadata", "annotations", STATUS];
    let mut editor = Editor::new(pod.clone());
    let Some(Value::String(text)) = editor.at(&annotation) else {
        return Ok(None);
    };
    let status: Status = serde_json::from_str(text).map_err(UndoError::Status)?;
    let told = find_sidecar(pod).map_or_else(Map::new, |(list, index)| {
        containers::told_probes(&pod["spec"][list][index]).0
    });
    probes::restore(&mut editor, &told, &status.probe_ports)?;
    for (list, names) in [
        ("initContainers", &status.init_containers),
        ("containers", &status.containers),
        ("volumes", &status.volumes),
        ("imagePullSecrets", &status.image_pull_secrets),
    ] {
        remove_named(&mut editor, list, names)?;
    }
    editor.remove(&annotation)?;
    for pointer in &status.added {
        let tokens = tokens(pointer, 3)?;
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        if editor.at(&tokens).is_some() {
            editor.remove(&tokens)?;
        }
    }
    for (pointer, value) in &status.replaced {
        let tokens = tokens(pointer, 3)?;
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        editor.set(&tokens, value.clone())?;
    }
    // The inner ones were made last.
    for pointer in status.created.iter().rev() {
        let tokens = tokens(pointer, 1)?;
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let empty = match editor.at(&tokens) {
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(object)) => object.is_empty(),
            _ => false,
        };
        if empty {
            editor.remove(&tokens)?;
        }
    }
    Ok(Some(editor.into_document()))
}

fn remove_named(
    editor: &mut Editor,
    list: &str,
    names: &[String],
) -> Result<(), json_patch::PatchError> {
    for name in names {
        let items = editor.at(&["spec", list]).and_then(Value::as_array);
        let is_it = |item: &Value| item["name"] == *name.as_str();
        if let Some(index) = items.and_then(|items| items.iter().position(is_it)) {
            editor.remove(&["spec", list, &index.to_string()])?;
        }
    }
    Ok(())
}

/// The parts of a pointer into the metadata or the spec, at least so many.
fn tokens(pointer: &str, least: usize) -> Result<Vec<String>, UndoError> {
    let wrong = || UndoError::Pointer(pointer.to_owned());
    let parsed = Pointer::parse(pointer).map_err(|_| wrong())?;
    let tokens: Vec<String> = parsed
        .tokens()
        .map(|token| token.decoded().into_owned())
        .collect();
    let known = match tokens.first().map(String::as_str) {
        Some("metadata") => tokens.len() <= 3,
        Some("spec") => least == 1 && tokens.len() == 2,
        _ => false,
    };
    if !known || tokens.len() < least {
        return Err(wrong());
    }
    Ok(tokens)
}
