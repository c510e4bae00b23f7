//! `Secret`: certificates with their keys, and what peers are validated against.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use outrider_identity::certificate::certificates_from_pem;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::data_source;
use super::fields::{Within as _, each, enumeration, refuse, required};
use super::matcher;
use crate::config::error::{ConfigError, Result};
use crate::config::secret::{SanKind, SanMatcher, Secret, TlsCertificate, ValidationContext};

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
struct Reader {
    watched: Vec<PathBuf>,
}

impl Reader {
    /// The bytes of a source; `None` where it is not set.
    fn read(&mut self, source: &Option<core::DataSource>, field: &str) -> Result<Option<Vec<u8>>> {
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

    fn watch(&mut self, directory: &Option<core::WatchedDirectory>) {
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
    let secret = match required(&proto.r#type, "type")? {
        Type::TlsCertificate(certificate) => tls_certificate(certificate, &mut reader)
            .map(Secret::Certificate)
            .within("tls_certificate")?,
        Type::ValidationContext(context) => {
            let built = validation_context(context, &mut reader).within("validation_context")?;
            refuse(
                built.trusted_ca.is_empty() && !built.subject_alt_names.is_empty(),
                "validation_context.trusted_ca",
                "must be set: names prove nothing in a certificate that anybody can make",
            )?;
            Secret::Validation(built)
        }
        Type::SessionTicketKeys(_) => {
            return Err(ConfigError::new(
                "session_ticket_keys",
                "ticket keys are made in the process and never leave it",
            ));
        }
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
    let context = validation_context(proto, &mut reader)?;
    refuse(
        !reader.watched.is_empty(),
        "trusted_ca",
        "must be inline here, or come with the secret",
    )?;
    Ok(context)
}

fn tls_certificate(proto: &tls::TlsCertificate, reader: &mut Reader) -> Result<TlsCertificate> {
    reader.watch(&proto.watched_directory);
    let chain = reader
        .read(&proto.certificate_chain, "certificate_chain")?
        .ok_or_else(|| ConfigError::new("certificate_chain", "must be set"))?;
    let chain = certificates(&chain, "certificate_chain")?;
    let key = reader
        .read(&proto.private_key, "private_key")?
        .ok_or_else(|| ConfigError::new("private_key", "must be set"))?;
    // The parser's own error quotes the line, which may be part of the key.
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        ConfigError::new(
            "private_key",
            "holds no private key that is PEM, not encrypted, and in PKCS#8, PKCS#1 or SEC1",
        )
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => ConfigError::new(
            "private_key",
            "does not belong to the first certificate of certificate_chain",
        ),
        other => ConfigError::new("private_key", format_args!("cannot be used: {other}")),
    })?;
    Ok(TlsCertificate {
        certified: Arc::new(certified),
    })
}

fn certificates(pem: &[u8], field: &str) -> Result<Vec<CertificateDer<'static>>> {
    certificates_from_pem(pem).map_err(|error| ConfigError::new(field, error))
}

fn validation_context(
    proto: &tls::CertificateValidationContext,
    reader: &mut Reader,
) -> Result<ValidationContext> {
    reader.watch(&proto.watched_directory);
    let trusted_ca = match reader.read(&proto.trusted_ca, "trusted_ca")? {
        Some(pem) => certificates(&pem, "trusted_ca")?,
        None => Vec::new(),
    };
    for (index, root) in trusted_ca.iter().enumerate() {
        webpki::anchor_from_trusted_cert(root).map_err(|error| {
            ConfigError::new(
                "trusted_ca",
                format_args!("certificate {index} cannot be a root: {error}"),
            )
        })?;
    }
    let mut subject_alt_names = each(
        "match_typed_subject_alt_names",
        &proto.match_typed_subject_alt_names,
        subject_alt_name,
    )?;
    let untyped = each(
        "match_subject_alt_names",
        &proto.match_subject_alt_names,
        matcher::string,
    )?;
    for matcher in untyped {
        let kinds = [SanKind::Uri, SanKind::Dns, SanKind::Email, SanKind::Ip];
        subject_alt_names.extend(kinds.map(|kind| SanMatcher {
            kind,
            matcher: matcher.clone(),
        }));
    }
    let trust: TrustChainVerification =
        enumeration(proto.trust_chain_verification, "trust_chain_verification")?;
    Ok(ValidationContext {
        trusted_ca,
        subject_alt_names,
        certificate_hashes: each(
            "verify_certificate_hash",
            &proto.verify_certificate_hash,
            |hash| sha256(hash),
        )?,
        accept_untrusted: trust == TrustChainVerification::AcceptUntrusted,
    })
}

fn subject_alt_name(proto: &tls::SubjectAltNameMatcher) -> Result<SanMatcher> {
    let kind: SanType = enumeration(proto.san_type, "san_type")?;
    Ok(SanMatcher {
        kind: match kind {
            SanType::Uri => SanKind::Uri,
            SanType::Dns => SanKind::Dns,
            SanType::Email => SanKind::Email,
            SanType::IpAddress => SanKind::Ip,
            SanType::Unspecified | SanType::OtherName => {
                return Err(ConfigError::new(
                    "san_type",
                    "must be URI, DNS, EMAIL or IP_ADDRESS",
                ));
            }
        },
        matcher: matcher::string(required(&proto.matcher, "matcher")?).within("matcher")?,
    })
}

/// A SHA-256 in hexadecimal, with colons between the bytes or without.
fn sha256(text: &str) -> Result<[u8; 32]> {
    // The item itself is the field.
    let error = || ConfigError::new("", "must be a SHA-256 in hexadecimal");
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return Err(error());
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| error())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
    }
    Ok(hash)
}
