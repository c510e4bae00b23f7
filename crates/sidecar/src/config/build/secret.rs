//! `Secret`: certificates with their keys, what peers are validated against, keys of tickets.

use std::path::{Path, PathBuf};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;

use super::data_source;
use super::fields::{Within as _, each, one_of, refuse};
use super::{certificate, validation_context};
use crate::config::error::{ConfigError, Result};
use crate::config::secret::{Secret, TicketKey, ValidationContext};

/// A secret, and the files that it came from.
#[derive(Debug)]
pub struct Built {
    /// The secret.
    pub secret: Secret,
    /// Set where a file is part of it: it must be loaded again when that changes.
    pub files: Option<SecretFiles>,
}

/// The definition of a secret that comes from files.
pub struct SecretFiles {
    definition: tls::Secret,
    watched: Vec<PathBuf>,
}

impl SecretFiles {
    /// Reads the files again.
    ///
    /// # Errors
    ///
    /// As [`build`]. The caller keeps the old secret.
    pub fn load(&self) -> Result<Secret> {
        build(&self.definition).map(|built| built.secret)
    }

    /// The files and directories in which a change means that [`SecretFiles::load`] has something
    /// new. Programs that replace a file by moving another over it, or a symbolic link of its path,
    /// change the directory and not the file: watch its directory.
    pub fn watched(&self) -> &[PathBuf] {
        &self.watched
    }
}

/// The definition may hold a key beside the file.
impl std::fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFiles")
            .field("name", &self.definition.name)
            .field("watched", &self.watched)
            .finish_non_exhaustive()
    }
}

/// What is read from the sources of one secret.
#[derive(Default)]
pub(super) struct Reader {
    watched: Vec<PathBuf>,
}

impl Reader {
    /// The bytes of a source; `None` where it is not set.
    pub(super) fn read(
        &mut self,
        source: &Option<core::DataSource>,
        field: &str,
    ) -> Result<Option<Vec<u8>>> {
        let Some(source) = source else {
            return Ok(None);
        };
        self.watch(&source.watched_directory);
        let data = data_source::read(source).within(field)?;
        Ok(data.map(|data| {
            self.watched.extend(data.file);
            data.bytes
        }))
    }

    pub(super) fn watch(&mut self, directory: &Option<core::WatchedDirectory>) {
        self.watched
            .extend(directory.iter().map(|d| Path::new(&d.path).to_owned()));
    }
}

/// Builds a secret: reads its files, and checks that the key fits the certificate and that roots
/// are certificates.
///
/// # Errors
///
/// The field by its path. No error shows any part of a key.
pub fn build(proto: &tls::Secret) -> Result<Built> {
    let mut reader = Reader::default();
    let secret = match one_of::<tls::Secret, _>(&proto.r#type, "tls_certificate")? {
        Type::TlsCertificate(certificate) => certificate::build(certificate, &mut reader)
            .map(Secret::Certificate)
            .within("tls_certificate")?,
        Type::ValidationContext(context) => {
            let built = validation_context::build(context, &mut reader)
                .and_then(|built| validation_context::check(&built).map(|()| built));
            Secret::Validation(built.within("validation_context")?)
        }
        Type::SessionTicketKeys(keys) => ticket_keys(keys, &mut reader)
            .map(Secret::TicketKeys)
            .within("session_ticket_keys")?,
        Type::GenericSecret(_) => {
            return Err(ConfigError::new("generic_secret", "is not supported"));
        }
    };
    let from_files = reader
        .watched
        .iter()
        .any(|path| !path.as_os_str().is_empty());
    Ok(Built {
        secret,
        files: from_files.then(|| SecretFiles {
            definition: proto.clone(),
            watched: reader.watched,
        }),
    })
}

/// The context that a combined one starts from, whose names may lack roots of their own.
///
/// # Errors
///
/// As [`build`]; also a root that comes from a file, which would not be loaded again.
pub fn default_context(proto: &tls::CertificateValidationContext) -> Result<ValidationContext> {
    let mut reader = Reader::default();
    let context = validation_context::build(proto, &mut reader)?;
    refuse(
        !reader.watched.is_empty(),
        "",
        "names a file or watched_directory: give the data inline here, or with the secret",
    )?;
    Ok(context)
}

/// `TlsSessionTicketKeys`: 80 random bytes a key. New tickets are made with the first; the others
/// still open old ones.
fn ticket_keys(proto: &tls::TlsSessionTicketKeys, reader: &mut Reader) -> Result<Vec<TicketKey>> {
    refuse(
        proto.keys.is_empty(),
        "keys",
        "must hold at least one key of 80 bytes",
    )?;
    each("keys", &proto.keys, |source| {
        let bytes = reader
            .read(&Some(source.clone()), "")?
            .ok_or_else(|| ConfigError::new("", "must hold a key of 80 bytes"))?;
        let parts = (bytes.len() == 80).then(|| bytes.split_at(16));
        let parts = parts.and_then(|(name, rest)| {
            let (hmac, aes) = rest.split_at_checked(32)?;
            Some(TicketKey {
                name: name.try_into().ok()?,
                hmac: hmac.try_into().ok()?,
                aes: aes.try_into().ok()?,
            })
        });
        parts.ok_or_else(|| {
            ConfigError::new(
                "",
                format_args!(
                    "has {} bytes, and a key has 80: make one with `openssl rand 80`",
                    bytes.len()
                ),
            )
        })
    })
}
