//! Verifies a peer's chain by webpki, without looking at DNS names: in the mesh the name that
//! counts is the SPIFFE id, which the configuration matches separately.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, RevocationOptions};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Which end of the connection the peer is; its certificate must allow that use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// The peer accepted our connection.
    Server,
    /// The peer connected to us.
    Client,
}

/// Why a peer's chain is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The peer's certificate is past its end.
    #[error("the certificate expired")]
    Expired,
    /// The peer's certificate is not valid yet: one of the two clocks is off.
    #[error("the certificate is not valid yet (is a clock wrong?)")]
    NotYetValid,
    /// No path leads to a root of the bundle.
    #[error("the certificate is not issued by a root of the trust bundle")]
    UnknownIssuer,
    /// The certificate is for another use.
    #[error("the certificate does not allow its use as a {0}")]
    WrongUse(&'static str),
    /// A revocation list names a certificate of the chain.
    #[error("the certificate is revoked")]
    Revoked,
    /// Revocation is to be checked, and no list is of the issuer of a certificate of the chain.
    #[error("there is no revocation list of the certificate's issuer")]
    RevocationUnknown,
    /// The revocation list of an issuer is past its `nextUpdate`.
    #[error("the revocation list of the certificate's issuer expired")]
    RevocationListExpired,
    /// The chain is longer than the configuration allows.
    #[error("{found} authorities stand above the certificate, and {allowed} are allowed")]
    TooLong {
        /// Authorities in the path.
        found: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// Anything else that webpki finds.
    #[error("the certificate is invalid: {0}")]
    Invalid(String),
}

impl From<VerifyError> for rustls::CertificateError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Expired => Self::Expired,
            VerifyError::NotYetValid => Self::NotValidYet,
            VerifyError::UnknownIssuer | VerifyError::TooLong { .. } => Self::UnknownIssuer,
            VerifyError::WrongUse(_) => Self::InvalidPurpose,
            VerifyError::Revoked => Self::Revoked,
            VerifyError::RevocationUnknown => Self::UnknownRevocationStatus,
            VerifyError::RevocationListExpired | VerifyError::Invalid(_) => {
                Self::Other(rustls::OtherError(std::sync::Arc::new(error)))
            }
        }
    }
}

/// Verifies that `end_entity` leads over `intermediates` to one of `anchors`, at `now`, for a peer
/// in `role`. The caller still has to match the peer's names.
///
/// # Errors
/// [`VerifyError`], by what is wrong.
pub fn verify_chain(
    anchors: &[TrustAnchor<'_>],
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    role: PeerRole,
    now: UnixTime,
) -> Result<(), VerifyError> {
    verify_path(anchors, end_entity, intermediates, role, now, None).map(|_| ())
}

/// As [`verify_chain`], with revocation lists where they are given. Answers how many authorities
/// stand above the peer's certificate in the path that was found, its root among them.
///
/// # Errors
/// [`VerifyError`], by what is wrong.
pub fn verify_path(
    anchors: &[TrustAnchor<'_>],
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    role: PeerRole,
    now: UnixTime,
    revocation: Option<RevocationOptions<'_>>,
) -> Result<usize, VerifyError> {
    let (usage, role) = match role {
        PeerRole::Server => (KeyUsage::server_auth(), "server"),
        PeerRole::Client => (KeyUsage::client_auth(), "client"),
    };
    let failure = |error: webpki::Error| match error {
        webpki::Error::CertExpired { .. } => VerifyError::Expired,
        webpki::Error::CertNotValidYet { .. } => VerifyError::NotYetValid,
        // The second is what webpki says when another authority bears the name of one of ours.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            VerifyError::UnknownIssuer
        }
        webpki::Error::RequiredEkuNotFoundContext(_) => VerifyError::WrongUse(role),
        webpki::Error::CertRevoked => VerifyError::Revoked,
        webpki::Error::UnknownRevocationStatus => VerifyError::RevocationUnknown,
        webpki::Error::CrlExpired { .. } => VerifyError::RevocationListExpired,
        other => VerifyError::Invalid(other.to_string()),
    };
    let end_entity = EndEntityCert::try_from(end_entity).map_err(failure)?;
    let path = end_entity
        .verify_for_usage(
            ALL_VERIFICATION_ALGS,
            anchors,
            intermediates,
            now,
            usage,
            revocation,
            None,
        )
        .map_err(failure)?;
    Ok(path.intermediate_certificates().count() + 1)
}

/// Verifies a certificate that is itself in the bundle, so that no issuer has to vouch for it:
/// whether it is valid at `now` and may be used by a peer in `role`.
///
/// # Errors
/// [`VerifyError`], by what is wrong.
pub fn verify_listed(
    certificate: &CertificateDer<'_>,
    role: PeerRole,
    now: UnixTime,
) -> Result<(), VerifyError> {
    let invalid = |text: String| VerifyError::Invalid(text);
    let (_, certificate) =
        X509Certificate::from_der(certificate).map_err(|error| invalid(error.to_string()))?;
    let usage = certificate
        .extended_key_usage()
        .map_err(|error| invalid(error.to_string()))?
        .map(|extension| extension.value);
    let (allowed, role) = match role {
        PeerRole::Server => (
            usage.is_none_or(|usage| usage.any || usage.server_auth),
            "server",
        ),
        PeerRole::Client => (
            usage.is_none_or(|usage| usage.any || usage.client_auth),
            "client",
        ),
    };
    if !allowed {
        return Err(VerifyError::WrongUse(role));
    }
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < certificate.validity().not_before.timestamp() {
        return Err(VerifyError::NotYetValid);
    }
    if now > certificate.validity().not_after.timestamp() {
        return Err(VerifyError::Expired);
    }
    Ok(())
}

/// A system time as webpki takes it; before 1970 counts as 1970.
pub fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(
        now.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    )
}
