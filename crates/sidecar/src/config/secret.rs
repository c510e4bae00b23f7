//! `Secret`: a certificate with its key, or what peers are validated against.

use std::sync::Arc;

use super::matcher::StringMatcher;

/// One secret, checked: keys fit their certificates, roots parse.
#[derive(Debug)]
pub enum Secret {
    /// `tls_certificate`
    Certificate(TlsCertificate),
    /// `validation_context`
    Validation(ValidationContext),
}

/// A certificate chain and its key.
pub struct TlsCertificate {
    /// Ready for handshakes. Its key is never shown.
    pub certified: Arc<rustls::sign::CertifiedKey>,
}

impl std::fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("chain", &self.certified.cert.len())
            .finish_non_exhaustive()
    }
}

/// `CertificateValidationContext`.
#[derive(Clone, Debug, Default)]
pub struct ValidationContext {
    /// `trusted_ca` as DER, in order; empty: no chain is verified (only as Envoy does, where no CA is configured).
    pub trusted_ca: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// `match_typed_subject_alt_names`: any of them suffices; empty demands nothing.
    pub subject_alt_names: Vec<SanMatcher>,
    /// `verify_certificate_hash`: SHA-256 of the DER, any suffices.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`
    pub accept_untrusted: bool,
}

/// `SubjectAltNameMatcher`.
#[derive(Clone, Debug)]
pub struct SanMatcher {
    /// Which kind of name.
    pub kind: SanKind,
    /// What it must be.
    pub matcher: StringMatcher,
}

/// Kinds of subject alternative names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// URI, as SPIFFE ids are
    Uri,
    /// DNS
    Dns,
    /// EMAIL
    Email,
    /// IP_ADDRESS
    Ip,
}
