//! What can be wrong with the documents.

use std::path::PathBuf;

use super::{ObjectRef, Source};

/// A field whose value is well-formed but not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct FieldError {
    /// The path from the object's top, such as `spec.rules[0].filters[1].type`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl FieldError {
    /// Names the field and what is wrong with it.
    pub fn new(path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            reason: reason.into(),
        }
    }

    /// The same error seen from the object that holds the part at `prefix`.
    pub fn under(mut self, prefix: &str) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{prefix}{separator}{}", self.path);
        self
    }
}

/// Why a file, or the whole directory, is not taken.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The directory or a file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The watcher cannot be set up.
    #[error("watching {path}: {source}")]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: notify::Error,
    },
    /// Not YAML, or not the shape of its kind. The detail names the field and the line.
    #[error("{at}: {detail}")]
    Shape {
        /// Where.
        at: Source,
        /// What is wrong.
        detail: String,
    },
    /// A kind that the registry does not know.
    #[error("{at}: unknown kind {kind:?} of {api_version:?}; known are {known}")]
    UnknownKind {
        /// Where.
        at: Source,
        /// As written.
        api_version: String,
        /// As written.
        kind: String,
        /// What could be meant.
        known: String,
    },
    /// A field has a value that is not acceptable.
    #[error("{at} ({object}): {error}")]
    Field {
        /// Where.
        at: Source,
        /// In which object.
        object: Box<ObjectRef>,
        /// Which field, and what is wrong.
        error: FieldError,
    },
    /// Two documents declare the same object.
    #[error("{at}: {object} is declared already in {other}; remove one of the two")]
    Duplicate {
        /// The one that is not taken.
        at: Source,
        /// Which object.
        object: ObjectRef,
        /// The one that stays.
        other: Source,
    },
}
