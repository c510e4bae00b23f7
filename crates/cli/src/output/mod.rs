//! How results are printed.

mod table;
mod time;

use std::io::Write as _;

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use table::Table;
pub(crate) use time::{lifetime, now, parse_rfc3339, rfc3339, span};

/// `-o`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs, easier on the eye.
    Yaml,
}

/// Why a result could not be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// Standard output is closed or full.
    #[error("writing to standard output: {0}")]
    Write(#[from] std::io::Error),
    /// The result has no JSON form.
    #[error("writing JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The result has no YAML form.
    #[error("writing YAML: {0}")]
    Yaml(#[from] serde_norway::Error),
}

/// Prints a result: the value itself for programs, or what `table` makes of it for people.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), OutputError> {
    let text = match format {
        Format::Table => table(value),
        Format::Json => serde_json::to_string_pretty(value)? + "\n",
        Format::Yaml => serde_norway::to_string(value)?,
    };
    write(&text)
}

/// Writes to standard output. A reader that has gone (`| head`) wants no more, which is no failure.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn write(text: &str) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
