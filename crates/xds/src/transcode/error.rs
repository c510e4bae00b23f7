//! What is wrong with a document or with bytes.

use std::fmt;

use super::path::Path;
use crate::schema::{Enum, Field, Message};

/// A problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The path of the field, such as `listeners[0].address`; empty for the document itself.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return write!(out, "{}", self.problem);
        }
        write!(out, "{}: {}", self.path, self.problem)
    }
}

impl std::error::Error for Error {}

/// What is wrong with a field or a document. No text shows the value of a field that takes strings
/// or bytes, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The document has a key that the message has no field for.
    #[error("no such field{}", did_you_mean(.suggestion))]
    NoSuchField {
        /// A field with a similar name.
        suggestion: Option<&'static str>,
    },
    /// The field exists, but we do not act on it.
    #[error("not supported{}", because(.reason))]
    Unsupported {
        /// Why, or what to use; may be empty.
        reason: &'static str,
    },
    /// The JSON value is of another type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What the field takes.
        expected: &'static str,
        /// What the document has.
        found: &'static str,
    },
    /// The text or number is not one that the field's type can hold.
    #[error("`{value}` {reason}")]
    BadValue {
        /// What was given, or the beginning of it.
        value: String,
        /// Why it is none.
        reason: &'static str,
    },
    /// The text is not base64.
    #[error("is not base64")]
    NotBase64,
    /// The enum has no such value.
    #[error("`{value}` is not a value of {name}; {all}")]
    NoSuchValue {
        /// What was given.
        value: String,
        /// The enum.
        name: &'static str,
        /// The values that there are.
        all: String,
    },
    /// Two members of a oneof are set.
    #[error("{other} is set too, and only one of the two can be")]
    OneofConflict {
        /// The member that was set before.
        other: &'static str,
    },
    /// The same field is given twice, by its two names.
    #[error("given twice")]
    GivenTwice,
    /// An `Any` without `@type`.
    #[error("has no \"@type\" to say what it is")]
    NoType,
    /// An `Any` of a type that is not in the tables.
    #[error("the type {0} is not supported")]
    UnknownType(String),
    /// The root message is not in the tables.
    #[error("there is no message type {0}")]
    UnknownRoot(String),
    /// Nested too deeply.
    #[error("nested more than {} deep", super::MAX_DEPTH)]
    TooDeep,
    /// The bytes are not protobuf.
    #[error("malformed bytes: {0}")]
    Malformed(&'static str),
    /// The field's value is encoded as another type.
    #[error("encoded as another type of field")]
    WrongWireType,
}

pub(super) fn because(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

fn did_you_mean(name: &Option<&'static str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

impl Problem {
    /// The error for this problem at `path`.
    pub(super) fn at(self, path: &Path<'_>) -> Error {
        Error {
            path: path.to_string(),
            problem: self,
        }
    }

    pub(super) fn no_such_field(message: Message, key: &str) -> Self {
        Self::NoSuchField {
            suggestion: nearest(key, message.fields().map(Field::name)),
        }
    }

    pub(super) fn bad_value(given: impl fmt::Display, reason: &'static str) -> Self {
        let value = beginning(&given.to_string());
        Self::BadValue { value, reason }
    }

    pub(super) fn no_such_value(values: Enum, given: &str) -> Self {
        let names: Vec<&str> = values.values().map(|(_, name)| name).collect();
        let value = beginning(given);
        let meant = nearest(given, names.iter().copied())
            .map_or_else(String::new, |name| format!("did you mean {name}? "));
        let all = format!("{meant}it is one of {}", names.join(", "));
        Self::NoSuchValue {
            value,
            name: values.name(),
            all,
        }
    }
}

/// As much of a text as suits a message.
fn beginning(given: &str) -> String {
    given.chars().take(64).collect()
}

/// The name that is nearest to `key`, if one is near.
fn nearest(key: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    // A longer key is no typing mistake, and the comparison takes the product of both lengths.
    if key.len() > 80 {
        return None;
    }
    let key = key.to_ascii_lowercase().replace('_', "");
    names
        .map(|name| {
            let plain = name.to_ascii_lowercase().replace('_', "");
            (distance(&key, &plain), name)
        })
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 5)
        .map(|(_, name)| name)
}

/// The number of letters to insert, delete or replace (Levenshtein's distance).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (to, against) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter != against);
            diagonal = row[to + 1];
            row[to + 1] = replaced.min(row[to] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}
