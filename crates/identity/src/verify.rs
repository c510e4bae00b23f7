//! Verifies a peer's chain by webpki, without looking at DNS names: in the mesh the name that
//! counts is the SPIFFE id, which the configuration matches separately.

use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage};

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
    /// Anything else that webpki finds.
    #[error("the certificate is invalid: {0}")]
    Invalid(String),
}

impl From<VerifyError> for rustls::CertificateError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Expired => Self::Expired,
            VerifyError::NotYetValid => Self::NotValidYet,
            VerifyError::UnknownIssuer => Self::UnknownIssuer,
            VerifyError::WrongUse(_) => Self::InvalidPurpose,
            VerifyError::Invalid(_) => Self::Other(rustls::OtherError(std::sync::Arc::new(error))),
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
        other => VerifyError::Invalid(other.to_string()),
    };
    EndEntityCert::try_from(end_entity)
        .map_err(failure)?
        .verify_for_usage(
            ALL_VERIFICATION_ALGS,
            anchors,
            intermediates,
            now,
            usage,
            None,
            None,
        )
        .map_err(failure)?;
    Ok(())
}

/// A system time as webpki takes it; before 1970 counts as 1970.
pub fn unix_time(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(
        now.duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO),
    )
}
