//! `Secret`: a certificate with its key, what peers are validated against, or keys of tickets.

use std::sync::Arc;
use std::time::SystemTime;

use outrider_identity::{CertificateDetails, TrustBundles};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::matcher::StringMatcher;

/// One secret, checked: keys fit their certificates, roots parse.
#[derive(Debug)]
pub enum Secret {
    /// `tls_certificate`
    Certificate(TlsCertificate),
    /// `validation_context`
    Validation(ValidationContext),
    /// `session_ticket_keys`
    TicketKeys(Vec<TicketKey>),
}

/// A certificate chain and its key.
pub struct TlsCertificate {
    /// Ready for handshakes, its `ocsp_staple` within. Its key is never shown.
    pub certified: Arc<CertifiedKey>,
    /// The names that clients ask for it by, in lower case: its DNS names, or the common name of a
    /// certificate without alternative names.
    pub server_names: Vec<Box<str>>,
    /// When the first of the chain expires.
    pub expires: Option<SystemTime>,
    /// RFC 7633: it must not be shown without a staple.
    pub must_staple: bool,
    /// The end of validity of the staple, if there is one.
    pub staple_expires: Option<SystemTime>,
}

impl TlsCertificate {
    /// A certificate without a staple. What of it cannot be read names no server.
    pub fn new(certified: Arc<CertifiedKey>) -> Self {
        let details = certified
            .cert
            .first()
            .and_then(|leaf| CertificateDetails::parse(leaf).ok());
        let mut certificate = TlsCertificate {
            certified,
            server_names: Vec::new(),
            expires: None,
            must_staple: false,
            staple_expires: None,
        };
        if let Some(details) = details {
            let has_alternatives = !details.dns_names.is_empty()
                || !details.uris.is_empty()
                || !details.ip_addresses.is_empty()
                || !details.emails.is_empty();
            // RFC 6125, section 6.4.4: the common name counts only where no alternative is.
            let names = if has_alternatives {
                &details.dns_names[..]
            } else {
                &details.common_names[..details.common_names.len().min(1)]
            };
            certificate.server_names = names
                .iter()
                .map(|name| name.to_ascii_lowercase().into())
                .collect();
            certificate.must_staple = details.must_staple;
            certificate.expires = Some(details.not_after);
        }
        certificate
    }
}

impl std::fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("chain", &self.certified.cert.len())
            .field("server_names", &self.server_names)
            .finish_non_exhaustive()
    }
}

/// `CertificateValidationContext`.
#[derive(Clone, Debug, Default)]
pub struct ValidationContext {
    /// `trusted_ca` as DER, in order; empty: no chain is verified (only as Envoy does, where no CA is configured).
    pub trusted_ca: Vec<CertificateDer<'static>>,
    /// When the first of `trusted_ca` expires, as Envoy has it.
    pub expires: Option<SystemTime>,
    /// The SPIFFE validator's bundles: a peer is held to that of the trust domain that it claims.
    pub spiffe: Option<Arc<TrustBundles>>,
    /// `match_typed_subject_alt_names`: any of them suffices; empty demands nothing.
    pub subject_alt_names: Vec<SanMatcher>,
    /// `verify_certificate_hash`: SHA-256 of the DER. Any of these or of the next suffices.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// `verify_certificate_spki`: SHA-256 of the public key's DER.
    pub public_key_hashes: Vec<[u8; 32]>,
    /// `crl`: where there are any, every certificate of a chain must be of an issuer with a list.
    pub revocation_lists: Vec<Arc<webpki::CertRevocationList<'static>>>,
    /// `only_verify_leaf_cert_crl`
    pub only_leaf_revocation: bool,
    /// `allow_expired_certificate`
    pub allow_expired: bool,
    /// `max_verify_depth`: authorities above the peer's certificate, the root among them.
    pub max_depth: Option<u32>,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`
    pub accept_untrusted: bool,
    /// `suppress_client_ca_list`
    pub suppress_authorities: bool,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// URI, as SPIFFE ids are
    Uri,
    /// DNS
    Dns,
    /// EMAIL
    Email,
    /// IP_ADDRESS
    Ip,
    /// OTHER_NAME of that object identifier
    Other(Box<str>),
}

/// One key of `TlsSessionTicketKeys`, in the parts that Envoy's format has.
#[derive(Clone)]
pub struct TicketKey {
    /// What tickets name it by.
    pub name: [u8; 16],
    /// For HMAC-SHA-256.
    pub hmac: [u8; 32],
    /// For AES-256-CBC.
    pub aes: [u8; 32],
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}
