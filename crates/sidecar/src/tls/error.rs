//! Why a TLS context or a handshake fails.

use std::io;
use std::sync::Arc;

use super::record::RecordError;
use super::witness::Refusal;

/// A context that cannot be built or used, or a handshake that failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A secret has not come yet, so the handshake is refused.
    #[error("secret {0:?} has not been received yet")]
    SecretMissing(Arc<str>),
    /// The secret of that name is of the other kind.
    #[error("secret {name:?} is no {expected}")]
    SecretKind {
        /// The secret's name.
        name: Arc<str>,
        /// `TLS certificate` or `validation context`
        expected: &'static str,
    },
    /// A certificate of `trusted_ca` cannot be a root.
    #[error("trusted_ca: {0}")]
    TrustedCa(#[from] outrider_identity::TrustError),
    /// Names are demanded, but no chain is verified: anybody could claim them.
    #[error(
        "match_typed_subject_alt_names and auto_sni_san_validation verify nothing without trusted_ca; set trusted_ca"
    )]
    NamesWithoutRoots,
    /// `MUST_STAPLE`, and a certificate without a staple.
    #[error("ocsp_staple_policy is MUST_STAPLE, and a certificate has no ocsp_staple")]
    StapleMissing,
    /// No certificate may be shown without a staple, and none has a valid one.
    #[error("no certificate has a valid OCSP response, which ocsp_staple_policy demands")]
    NoStaple,
    /// The key log cannot be opened.
    #[error("key_log: cannot open {path}: {source}")]
    KeyLog {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The peer's certificate was refused; the peer has been told by an alert.
    #[error("verify cert failed: {0}")]
    Refused(Refusal),
    /// A downstream context without a certificate.
    #[error("a downstream TLS context needs at least one certificate")]
    NoCertificate,
    /// A name that cannot be sent.
    #[error("sni {0:?} is not a DNS name")]
    ServerName(Arc<str>),
    /// `max_version` is before `min_version`.
    #[error("tls_minimum_protocol_version is above tls_maximum_protocol_version")]
    Versions,
    /// rustls refuses the settings.
    #[error("TLS settings: {0}")]
    Settings(#[source] rustls::Error),
    /// The handshake failed; the peer has been told by an alert.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] rustls::Error),
    /// The peer went away in the middle of the handshake.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The connection failed during the handshake.
    #[error("TLS handshake: {0}")]
    Io(#[from] io::Error),
    /// The keys that the handshake agreed on cannot be used.
    #[error("TLS keys: {0}")]
    Record(#[from] RecordError),
}

impl TlsError {
    /// The reason as Envoy writes it in response details and `%..._TRANSPORT_FAILURE_REASON%`, to
    /// come behind `TLS_error:`. For refused peers it is BoringSSL's text, which people search for.
    pub fn reason(&self) -> String {
        match self {
            TlsError::Refused(Refusal::NoCertificate) => {
                "|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:TLS_error_end"
                    .to_owned()
            }
            TlsError::Refused(refusal) => format!(
                "|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: {refusal}:TLS_error_end"
            ),
            other => format!("|{other}:TLS_error_end"),
        }
    }
}
