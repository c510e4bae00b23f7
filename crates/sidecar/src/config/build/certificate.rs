//! `TlsCertificate`: a certificate chain, its key, and what is stapled to it.

use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use outrider_identity::certificate::certificates_from_pem;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::fields::{Together as _, refuse};
use super::secret::Reader;
use crate::config::error::{ConfigError, Result};
use crate::config::secret::TlsCertificate;
use crate::tls::ocsp;

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
    let key = reader
        .read(&proto.private_key, "private_key")?
        .ok_or_else(|| ConfigError::new("private_key", "must be set"))?;
    // The parser's own error quotes the line, which may be part of the key.
    PrivateKeyDer::from_pem_slice(&key).map_err(|_| {
        ConfigError::new(
            "private_key",
            "holds no private key that is PEM, not encrypted, and in PKCS#8, PKCS#1 or SEC1",
        )
    })
}

/// The certificates of a PEM text.
///
/// # Errors
///
/// The field, where there is none.
pub fn certificates(pem: &[u8], field: &str) -> Result<Vec<CertificateDer<'static>>> {
    certificates_from_pem(pem).map_err(|error| ConfigError::new(field, error))
}
