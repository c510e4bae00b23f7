//! `DataSource`: bytes that are given in place, or in a file or environment variable.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;

use super::fields::{named, refuse};
use crate::config::error::{ConfigError, Result};

/// The longest file that is read: bundles and revocation lists have some megabytes at most.
const LIMIT: u64 = 64 << 20;

/// What a source held.
pub struct Data {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The file they come from, if it is one.
    pub file: Option<PathBuf>,
}

/// Reads a source that is not read again: it must not ask to be watched.
///
/// # Errors
///
/// As [`read`], and where a `watched_directory` is set.
pub fn read_once(source: &core::DataSource) -> Result<Option<Data>> {
    refuse(
        source.watched_directory.is_some(),
        "watched_directory",
        "is only supported for certificates, keys and roots",
    )?;
    read(source)
}

/// Reads a source; `None` where it names nothing.
///
/// # Errors
///
/// A file or variable that cannot be read, by its name. No error shows what was read.
pub fn read(source: &core::DataSource) -> Result<Option<Data>> {
    let data = match &source.specifier {
        None => return Ok(None),
        Some(Specifier::InlineBytes(bytes)) => Data {
            bytes: bytes.clone(),
            file: None,
        },
        Some(Specifier::InlineString(text)) => Data {
            bytes: text.clone().into_bytes(),
            file: None,
        },
        Some(Specifier::Filename(name)) => {
            let path = Path::new(named(name, "filename")?);
            let bytes = read_file(path).map_err(|error| {
                ConfigError::new(
                    "filename",
                    format_args!("cannot read {}: {error}", path.display()),
                )
            })?;
            Data {
                bytes,
                file: Some(path.to_owned()),
            }
        }
        Some(Specifier::EnvironmentVariable(name)) => {
            let name = named(name, "environment_variable")?;
            let value = std::env::var_os(name).ok_or_else(|| {
                ConfigError::new("environment_variable", format_args!("${name} is not set"))
            })?;
            Data {
                bytes: value.into_encoded_bytes(),
                file: None,
            }
        }
    };
    Ok(Some(data))
}

/// Reads a file of at most [`LIMIT`] bytes: `/dev/zero` has no end, and a pipe would keep us waiting
/// for its writer.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("it is a pipe, not a file"));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("it is longer than {LIMIT} bytes")));
    }
    Ok(bytes)
}
