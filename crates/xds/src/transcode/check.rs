//! Which set fields of a message we do not act on, told from its wire bytes.

use std::collections::HashSet;

use super::error::because;
use super::path::Path;
use super::wire::{Raw, Reader, any};
use super::{MAX_DEPTH, Problem, scalar};
use crate::schema::{Field, Kind, Message, Support, WellKnown};

/// How many violations are told; a hostile message could have millions.
const MAX_TOLD: usize = 100;

/// A set field that is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The path of its first occurrence.
    pub path: String,
    /// Why that is safe.
    pub reason: &'static str,
}

/// Of what sort a [`Violation`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The field is one that is not supported.
    Unsupported,
    /// The field is not in the tables at all.
    Unknown,
    /// Its value cannot be one of this field.
    Invalid,
}

/// A reason to refuse the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of what sort it is.
    pub fault: Fault,
    /// The path of the field; empty for the message itself.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            return out.write_str(&self.reason);
        }
        write!(out, "{}: {}", self.path, self.reason)
    }
}

/// An `Any` of a type that the tables do not know: whether it is refused is for those to say who
/// know what the `Any` is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opaque {
    /// The path of the `Any`.
    pub path: String,
    /// Its type URL.
    pub type_url: String,
}

/// All that there is to tell of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Set fields that are left alone, each field of a message type once.
    pub ignored: Vec<Ignored>,
    /// Set fields that are not supported, unknown fields, bytes that are malformed; at most 100.
    pub violations: Vec<Violation>,
    /// What only the caller can judge.
    pub opaque: Vec<Opaque>,
}

/// Reads a message of type `type_name` and tells which of its set fields are ignored.
///
/// # Errors
/// The set fields that are not supported, unknown field numbers, values of an unknown enum number,
/// and malformed bytes, each with its path.
pub fn check(type_name: &str, bytes: &[u8]) -> Result<Vec<Ignored>, Vec<Violation>> {
    let report = inspect(type_name, bytes);
    if report.violations.is_empty() {
        Ok(report.ignored)
    } else {
        Err(report.violations)
    }
}

/// As [`check`], with all there is to tell in any case.
#[must_use]
pub fn inspect(type_name: &str, bytes: &[u8]) -> Report {
    let mut walker = Walker {
        report: Report::default(),
        seen: HashSet::new(),
    };
    match Message::named(type_name) {
        Some(message) => walker.message(message, bytes, &Path::Root, 0),
        None => walker.violation(&Path::Root, format!("there is no message type {type_name}")),
    }
    walker.report
}

struct Walker {
    report: Report,
    /// The ignored fields that were told.
    seen: HashSet<Field>,
}

impl Walker {
    fn violation(&mut self, path: &Path<'_>, reason: String) {
        self.fault(Fault::Invalid, path, reason);
    }

    fn fault(&mut self, fault: Fault, path: &Path<'_>, reason: String) {
        if self.report.violations.len() < MAX_TOLD {
            self.report.violations.push(Violation {
                fault,
                path: path.to_string(),
                reason,
            });
        }
    }

    /// Whether there is nothing more to tell.
    fn is_done(&self) -> bool {
        self.report.violations.len() >= MAX_TOLD
    }

    fn message(&mut self, message: Message, bytes: &[u8], path: &Path<'_>, depth: usize) {
        if depth > MAX_DEPTH {
            return self.violation(path, Problem::TooDeep.to_string());
        }
        if message.well_known() == Some(WellKnown::Any) {
            return self.any(bytes, path, depth);
        }
        let mut reader = Reader::new(bytes);
        let mut counts = Counts::default();
        while !self.is_done() {
            match reader.record() {
                Ok(None) => return,
                Ok(Some((number, raw))) => match message.field(number) {
                    Some(field) => {
                        let at = if field.is_repeated() || field.is_map() {
                            counts.next(field)
                        } else {
                            0
                        };
                        self.field(field, raw, at, path, depth);
                    }
                    None => {
                        let name = message.name();
                        let reason = format!("{name} has no field of number {number} that we know");
                        self.fault(Fault::Unknown, path, reason);
                    }
                },
                Err(problem) => return self.violation(path, problem.to_string()),
            }
        }
    }

    fn field(&mut self, field: Field, raw: Raw<'_>, at: usize, parent: &Path<'_>, depth: usize) {
        let path = parent.field(field.name());
        match field.support() {
            Support::Supported => {}
            Support::Ignored(reason) => {
                if self.seen.insert(field) {
                    self.report.ignored.push(Ignored {
                        path: path.to_string(),
                        reason,
                    });
                }
                return;
            }
            Support::Rejected(reason) => {
                if at == 0 {
                    let reason = format!("not supported{}", because(reason));
                    self.fault(Fault::Unsupported, &path, reason);
                }
                return;
            }
        }
        if field.is_map() {
            self.entry(field, raw, &path, depth);
        } else if field.is_repeated() {
            self.value(field, raw, &path.index(at), depth);
        } else {
            self.value(field, raw, &path, depth);
        }
    }

    fn value(&mut self, field: Field, raw: Raw<'_>, path: &Path<'_>, depth: usize) {
        match (field.kind(), raw) {
            (Kind::Message(Some(message)), Raw::Bytes(bytes)) => {
                self.message(message, bytes, path, depth + 1);
            }
            (kind, Raw::Bytes(packed)) if field.is_repeated() && scalar::is_packed(kind) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() && !self.is_done() {
                    match scalar::unpack(kind, &mut reader) {
                        Ok(raw) => self.scalar(kind, raw, path),
                        Err(problem) => return self.violation(path, problem.to_string()),
                    }
                }
            }
            (kind, raw) => self.scalar(kind, raw, path),
        }
    }

    fn scalar(&mut self, kind: Kind, raw: Raw<'_>, path: &Path<'_>) {
        let problem = match (kind, raw) {
            (Kind::Enum(Some(values)), Raw::Varint(value)) => {
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "protobuf keeps the low 32 bits"
                )]
                let number = value as i32;
                values
                    .value_name(number)
                    .is_none()
                    .then(|| Problem::no_such_value(values, &number.to_string()))
            }
            (Kind::String, Raw::Bytes(bytes)) => std::str::from_utf8(bytes)
                .err()
                .map(|_| Problem::Malformed("not UTF-8")),
            (
                Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64,
                Raw::Varint(_),
            )
            | (Kind::Double, Raw::Fixed64(_))
            | (Kind::Float, Raw::Fixed32(_))
            | (Kind::Bytes, Raw::Bytes(_)) => None,
            _ => Some(Problem::WrongWireType),
        };
        if let Some(problem) = problem {
            self.violation(path, problem.to_string());
        }
    }

    fn entry(&mut self, field: Field, raw: Raw<'_>, path: &Path<'_>, depth: usize) {
        let (Kind::Message(Some(entry)), Raw::Bytes(bytes)) = (field.kind(), raw) else {
            return self.violation(path, Problem::WrongWireType.to_string());
        };
        let mut key = String::new();
        let mut reader = Reader::new(bytes);
        while let Ok(Some((number, raw))) = reader.record() {
            if let (1, Some(field)) = (number, entry.field(1)) {
                key = match scalar::to_json(field.kind(), raw) {
                    Ok(serde_json::Value::String(text)) => text,
                    Ok(other) => other.to_string(),
                    Err(problem) => return self.violation(path, problem.to_string()),
                };
            }
        }
        let here = path.key(&key);
        let mut reader = Reader::new(bytes);
        loop {
            match reader.record() {
                Ok(None) => return,
                Ok(Some((2, raw))) => {
                    if let Some(value) = entry.field(2) {
                        self.value(value, raw, &here, depth);
                    }
                }
                Ok(Some((1, _))) => {}
                Ok(Some((number, _))) => {
                    self.violation(&here, format!("a map's entry has no field {number}"));
                }
                Err(problem) => return self.violation(&here, problem.to_string()),
            }
        }
    }

    fn any(&mut self, bytes: &[u8], path: &Path<'_>, depth: usize) {
        let (url, value) = match any(bytes) {
            Ok(parts) => parts,
            Err(problem) => return self.violation(path, problem.to_string()),
        };
        let Ok(url) = std::str::from_utf8(url) else {
            return self.violation(path, Problem::Malformed("not UTF-8").to_string());
        };
        match Message::for_type_url(url) {
            Some(message) => self.message(message, value, path, depth + 1),
            None if url.is_empty() && value.is_empty() => {}
            None if url.is_empty() => self.violation(path, Problem::NoType.to_string()),
            None => {
                self.report.opaque.push(Opaque {
                    path: path.to_string(),
                    type_url: url.to_owned(),
                });
            }
        }
    }
}

/// How many elements of each list of one message went by.
#[derive(Default)]
struct Counts(Vec<(Field, usize)>);

impl Counts {
    fn next(&mut self, field: Field) -> usize {
        if let Some((_, count)) = self.0.iter_mut().find(|(each, _)| *each == field) {
            *count += 1;
            return *count - 1;
        }
        self.0.push((field, 1));
        0
    }
}
