//! Changes a JSON document and records each change as a JSON Patch operation (RFC 6902), so that
//! what the API server applies is what was seen here. What is not named by a change stays as it
//! is: fields that this program has never heard of above all.

use json_patch::jsonptr::PointerBuf;
use json_patch::{
    AddOperation, PatchError, PatchOperation, RemoveOperation, ReplaceOperation, patch,
};
use serde_json::{Value, json};

/// Where in a list something is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Last,
}

/// A document on its way to another.
#[derive(Debug)]
pub(super) struct Editor {
    document: Value,
    operations: Vec<PatchOperation>,
    created: Vec<String>,
}

impl Editor {
    pub(super) fn new(document: Value) -> Self {
        Self {
            document,
            operations: Vec::new(),
            created: Vec::new(),
        }
    }

    /// What is at a place now; JSON's null is nothing, as it is to Kubernetes.
    pub(super) fn at(&self, tokens: &[&str]) -> Option<&Value> {
        find(&self.document, tokens)
    }

    /// The lists and objects that had to be made to hold what was put into them, as pointers.
    pub(super) fn created(&self) -> &[String] {
        &self.created
    }

    /// Everything that was done.
    pub(super) fn into_operations(self) -> Vec<PatchOperation> {
        self.operations
    }

    /// What has become of the document.
    pub(super) fn into_document(self) -> Value {
        self.document
    }

    /// Makes `value` what is at a place; the objects around it are made where they are missing.
    pub(super) fn set(&mut self, tokens: &[&str], value: Value) -> Result<(), PatchError> {
        for depth in 1..tokens.len() {
            self.ensure(&tokens[..depth], json!({}))?;
        }
        // A null is there to be replaced.
        let present = exists(&self.document, tokens);
        let path = pointer(tokens);
        self.apply(if present {
            PatchOperation::Replace(ReplaceOperation { path, value })
        } else {
            PatchOperation::Add(AddOperation { path, value })
        })
    }

    /// Puts `value` into the list at a place, which is made where it is missing.
    pub(super) fn insert(
        &mut self,
        list: &[&str],
        place: Place,
        value: Value,
    ) -> Result<(), PatchError> {
        self.ensure(list, json!([]))?;
        let mut path = pointer(list);
        path.push_back(match place {
            Place::First => "0",
            Place::Last => "-",
        });
        self.apply(PatchOperation::Add(AddOperation { path, value }))
    }

    /// Takes away what is at a place.
    pub(super) fn remove(&mut self, tokens: &[&str]) -> Result<(), PatchError> {
        let path = pointer(tokens);
        self.apply(PatchOperation::Remove(RemoveOperation { path }))
    }

    /// Makes `empty` what is at a place where there is nothing. What holds it must be there.
    pub(super) fn ensure(&mut self, tokens: &[&str], empty: Value) -> Result<(), PatchError> {
        if self.at(tokens).is_some() {
            return Ok(());
        }
        self.created.push(pointer(tokens).to_string());
        let path = pointer(tokens);
        let value = empty;
        self.apply(if exists(&self.document, tokens) {
            PatchOperation::Replace(ReplaceOperation { path, value })
        } else {
            PatchOperation::Add(AddOperation { path, value })
        })
    }

    fn apply(&mut self, operation: PatchOperation) -> Result<(), PatchError> {
        patch(&mut self.document, std::slice::from_ref(&operation))?;
        self.operations.push(operation);
        Ok(())
    }
}

/// The pointer (RFC 6901) to a place, escaped.
pub(super) fn pointer(tokens: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(tokens.iter().copied())
}

/// What is at a place of a document, unless it is null.
pub(super) fn find<'a>(document: &'a Value, tokens: &[&str]) -> Option<&'a Value> {
    let value = tokens
        .iter()
        .try_fold(document, |value, token| match value {
            Value::Array(list) => list.get(token.parse::<usize>().ok()?),
            value => value.get(token),
        })?;
    (!value.is_null()).then_some(value)
}

fn exists(document: &Value, tokens: &[&str]) -> bool {
    let Some((last, parent)) = tokens.split_last() else {
        return true;
    };
    match find(document, parent) {
        Some(Value::Object(object)) => object.contains_key(*last),
        Some(Value::Array(list)) => last.parse().is_ok_and(|index: usize| index < list.len()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_does_to_the_original_what_was_done_here() {
        let original =
            json!({"metadata": {"labels": null}, "spec": {"list": [1], "future": {"a": 1}}});
        let mut editor = Editor::new(original.clone());
        editor
            .set(&["metadata", "labels", "a/b~c"], json!("x"))
            .unwrap();
        editor
            .set(&["metadata", "annotations", "k"], json!("y"))
            .unwrap();
        editor
            .insert(&["spec", "list"], Place::First, json!(0))
            .unwrap();
        editor
            .insert(&["spec", "more"], Place::Last, json!(2))
            .unwrap();
        editor.remove(&["spec", "list", "1"]).unwrap();
        assert_eq!(
            editor.created(),
            ["/metadata/labels", "/metadata/annotations", "/spec/more"]
        );
        let document = editor.document.clone();
        let mut applied = original;
        patch(&mut applied, &editor.into_operations()).unwrap();
        assert_eq!(applied, document);
        assert_eq!(
            document,
            json!({
                "metadata": {"labels": {"a/b~c": "x"}, "annotations": {"k": "y"}},
                "spec": {"list": [0], "future": {"a": 1}, "more": [2]},
            })
        );
    }
}
