//! `TlsCertificate`: a certificate chain, its key, and what is stapled to it.

use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use outrider_identity::certificate::certificates_from_pem;
use pkcs8::der::pem::PemLabel as _;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::{EncryptedPrivateKeyInfoRef, SecretDocument};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::fields::{Together as _, refuse};
use super::secret::Reader;
use crate::config::error::{ConfigError, Result};
use crate::config::secret::TlsCertificate;
use crate::tls::ocsp;

/// Where an encrypted key begins.
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// What opening a key may take: about two seconds.
const MOST_ITERATIONS: u32 = 2_000_000;
/// The same for scrypt, whose work and memory are measured in bytes: 256 MiB.
const MOST_SCRYPT: u64 = 256 << 20;

/// Reads a certificate with its key.
///
/// # Errors
///
/// The field. No error shows any part of a key or password.
pub fn build(proto: &tls::TlsCertificate, reader: &mut Reader) -> Result<TlsCertificate> {
    reader.watch(&proto.watched_directory);
    let (chain, key, staple) = (
        chain(proto, reader),
        private_key(proto, reader),
        reader.read(&proto.ocsp_staple, "ocsp_staple"),
    )
        .together()?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut certified =
        CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => ConfigError::new(
                "private_key",
                "does not belong to the first certificate of certificate_chain",
            ),
            other => ConfigError::new("private_key", format_args!("cannot be used: {other}")),
        })?;
    let expires = match &staple {
        Some(staple) => {
            stapled(&certified, staple).map_err(|error| ConfigError::new("ocsp_staple", error))?
        }
        None => None,
    };
    certified.ocsp = staple;
    let mut certificate = TlsCertificate::new(Arc::new(certified));
    certificate.staple_expires = expires;
    refuse(
        certificate.must_staple && certificate.certified.ocsp.is_none(),
        "ocsp_staple",
        "must be set: the certificate demands a staple (RFC 7633)",
    )?;
    Ok(certificate)
}

/// Until when a staple that fits the certificate is valid.
fn stapled(
    certified: &CertifiedKey,
    staple: &[u8],
) -> std::result::Result<Option<SystemTime>, ocsp::OcspError> {
    let leaf = certified.cert.first().map_or(&[][..], |leaf| leaf);
    let response = ocsp::parse(staple)?;
    response.check(leaf, SystemTime::now())?;
    // Without an end it is as good as expired: newer information is always to be had.
    Ok(Some(response.next_update.unwrap_or(SystemTime::UNIX_EPOCH)))
}

fn chain(proto: &tls::TlsCertificate, reader: &mut Reader) -> Result<Vec<CertificateDer<'static>>> {
    let chain = reader
        .read(&proto.certificate_chain, "certificate_chain")?
        .ok_or_else(|| ConfigError::new("certificate_chain", "must be set"))?;
    certificates(&chain, "certificate_chain")
}

fn private_key(proto: &tls::TlsCertificate, reader: &mut Reader) -> Result<PrivateKeyDer<'static>> {
    let (key, password) = (
        reader.read(&proto.private_key, "private_key"),
        reader.read(&proto.password, "password"),
    )
        .together()?;
    let key = key.ok_or_else(|| ConfigError::new("private_key", "must be set"))?;
    if let Some(der) = encrypted(&key) {
        let password = password
            .ok_or_else(|| ConfigError::new("password", "must be set: private_key is encrypted"))?;
        return decrypted(&der, &password);
    }
    // The parser's own error quotes the line, which may be part of the key. As in Envoy a password
    // for a key that is not encrypted is no fault.
    PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        ConfigError::new(
            "private_key",
            "holds no private key that is PEM, in PKCS#8 (encrypted or not), PKCS#1 or SEC1; one \
             that OpenSSL encrypted in its older form can be turned into the newer one by \
             `openssl pkcs8 -topk8`",
        )
    })
}

/// The DER of a PEM section that holds an encrypted key.
fn encrypted(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let from = text.find(ENCRYPTED)?;
    let (label, der) = SecretDocument::from_pem(&text[from..]).ok()?;
    (label == EncryptedPrivateKeyInfoRef::PEM_LABEL).then(|| der.as_bytes().to_vec())
}

fn decrypted(der: &[u8], password: &[u8]) -> Result<PrivateKeyDer<'static>> {
    let key = EncryptedPrivateKeyInfoRef::try_from(der)
        .map_err(|error| ConfigError::new("private_key", error))?;
    check_work(&key.encryption_algorithm)?;
    // A wrong password and a cipher that is not there look alike from here.
    let key = key.decrypt(password).map_err(|_| {
        ConfigError::new(
            "password",
            "does not decrypt private_key, which must be encrypted by PBES2 with AES, as \
             `openssl pkcs8 -topk8` does",
        )
    })?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// Refuses a key that takes too long to open: whoever sends it would hold up all configuration.
fn check_work(scheme: &EncryptionScheme) -> Result<()> {
    let Some(parameters) = scheme.pbes2() else {
        return Ok(());
    };
    let too_much = match &parameters.kdf {
        Kdf::Pbkdf2(parameters) => parameters.iteration_count > MOST_ITERATIONS,
        Kdf::Scrypt(parameters) => {
            let blocks = u64::from(parameters.block_size) * u64::from(parameters.parallelization);
            let bytes = parameters.cost_parameter.saturating_mul(128 * blocks);
            bytes > MOST_SCRYPT
        }
        // Nothing else can be opened.
        _ => false,
    };
    refuse(
        too_much,
        "private_key",
        format_args!(
            "takes too much work to decrypt: at most {MOST_ITERATIONS} iterations of PBKDF2, or \
             {MOST_SCRYPT} bytes of scrypt (128 N r p)"
        ),
    )
}

/// The certificates of a PEM text.
///
/// # Errors
///
/// The field, where there is none.
pub fn certificates(pem: &[u8], field: &str) -> Result<Vec<CertificateDer<'static>>> {
    certificates_from_pem(pem).map_err(|error| ConfigError::new(field, error))
}
