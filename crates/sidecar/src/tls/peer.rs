//! Whether a peer's certificate is accepted: chain, names, hashes.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use outrider_identity::certificate::{may_sign_handshakes, sha256};
use outrider_identity::{
    CertificateDetails, PeerRole, TrustBundle, TrustBundles, TrustDomain, VerifyError,
    verify_listed, verify_path,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{CertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder};

use super::error::TlsError;
use super::names;
use super::witness::{self, Refusal};
use crate::config::secret::{SanMatcher, ValidationContext};

/// Times that are tried where validity does not matter: each is another search for a path.
const MAX_TIMES: usize = 8;

/// How a policy is used, beside what its validation contexts say.
pub struct Use {
    /// Downstream: a client without a certificate is refused.
    pub require_certificate: bool,
    /// Upstream: the server must have the name that was sent.
    pub match_server_name: bool,
    /// Downstream: sessions end with the certificate that they began with.
    pub bounds_sessions: bool,
    /// `signature_algorithms`; empty: all of the provider's.
    pub schemes: Vec<SignatureScheme>,
    /// The cryptography.
    pub provider: Arc<CryptoProvider>,
}

/// A validation context ready for use, for either role of the peer.
#[derive(Debug)]
pub struct PeerPolicy {
    roots: Roots,
    names: Vec<SanMatcher>,
    certificate_hashes: Vec<[u8; 32]>,
    public_key_hashes: Vec<[u8; 32]>,
    revocation_lists: Vec<Arc<CertRevocationList<'static>>>,
    only_leaf_revocation: bool,
    allow_expired: bool,
    max_depth: Option<u32>,
    accept_untrusted: bool,
    require_certificate: bool,
    match_server_name: bool,
    bounds_sessions: bool,
    schemes: Vec<SignatureScheme>,
    /// What clients are told of the authorities that we trust.
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
enum Roots {
    /// No chain is verified, as Envoy does where no CA is configured.
    None,
    Bundle(TrustBundle),
    /// The bundle is that of the domain that the peer claims.
    ByTrustDomain(Arc<TrustBundles>),
}

impl PeerPolicy {
    /// A policy from the merged contexts: lists add up, and later values replace earlier ones, as
    /// protobuf merges them.
    ///
    /// # Errors
    /// A root that cannot be one, or names demanded of chains that nobody verifies.
    pub fn new(contexts: &[&ValidationContext], used: Use) -> Result<Self, TlsError> {
        let mut policy = PeerPolicy {
            roots: Roots::None,
            names: Vec::new(),
            certificate_hashes: Vec::new(),
            public_key_hashes: Vec::new(),
            revocation_lists: Vec::new(),
            only_leaf_revocation: false,
            allow_expired: false,
            max_depth: None,
            accept_untrusted: false,
            require_certificate: used.require_certificate,
            match_server_name: used.match_server_name,
            bounds_sessions: used.bounds_sessions,
            schemes: used.schemes,
            hints: Vec::new(),
            provider: used.provider,
        };
        let mut suppress_hints = false;
        for context in contexts {
            if let Some(bundles) = &context.spiffe {
                policy.roots = Roots::ByTrustDomain(Arc::clone(bundles));
            } else if !context.trusted_ca.is_empty() && !policy.is_by_trust_domain() {
                policy.roots = Roots::Bundle(TrustBundle::from_der(context.trusted_ca.clone())?);
            }
            policy.names.extend_from_slice(&context.subject_alt_names);
            let hashes = &context.certificate_hashes;
            policy.certificate_hashes.extend_from_slice(hashes);
            let hashes = &context.public_key_hashes;
            policy.public_key_hashes.extend_from_slice(hashes);
            if !context.revocation_lists.is_empty() {
                policy.revocation_lists = context.revocation_lists.clone();
            }
            policy.only_leaf_revocation |= context.only_leaf_revocation;
            policy.allow_expired |= context.allow_expired;
            policy.max_depth = context.max_depth.or(policy.max_depth);
            policy.accept_untrusted |= context.accept_untrusted;
            suppress_hints |= context.suppress_authorities;
        }
        let demands_names = !policy.names.is_empty() || policy.match_server_name;
        if demands_names && matches!(policy.roots, Roots::None) && !policy.accept_untrusted {
            return Err(TlsError::NamesWithoutRoots);
        }
        if let Roots::Bundle(bundle) = &policy.roots
            && !suppress_hints
        {
            let subject = |anchor: &rustls_pki_types::TrustAnchor<'_>| {
                DistinguishedName::in_sequence(&anchor.subject)
            };
            policy.hints = bundle.anchors().iter().map(subject).collect();
        }
        Ok(policy)
    }

    fn is_by_trust_domain(&self) -> bool {
        matches!(self.roots, Roots::ByTrustDomain(_))
    }

    fn demands_hashes(&self) -> bool {
        !self.certificate_hashes.is_empty() || !self.public_key_hashes.is_empty()
    }

    /// Whether clients are asked for a certificate at all.
    fn asks_for_certificate(&self) -> bool {
        self.require_certificate
            || self.accept_untrusted
            || !matches!(self.roots, Roots::None)
            || self.demands_hashes()
    }

    /// Whether a client that comes back with a ticket would still be let in: rustls takes its chain
    /// from the ticket as it was. `at` is when the ticket was taken.
    ///
    /// # Errors
    /// Why it would not; else whether its certificate is valid.
    pub fn verify_again(
        &self,
        chain: &[CertificateDer<'_>],
        at: UnixTime,
    ) -> Result<bool, Refusal> {
        match chain {
            [] if self.require_certificate => Err(Refusal::NoCertificate),
            [] => Ok(false),
            [leaf, intermediates @ ..] => self
                .judge(leaf, intermediates, PeerRole::Client, at, None)
                .map_err(|(refusal, _)| refusal),
        }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
        server_name: Option<&str>,
    ) -> Result<(), rustls::Error> {
        match self.judge(leaf, intermediates, role, now, server_name) {
            Ok(valid) => {
                let bounds = self.bounds_sessions && valid && !self.allow_expired;
                let expires = bounds.then(|| expiry(leaf)).flatten();
                witness::note(|witness| {
                    witness.peer_validated = valid;
                    witness.peer_expires = expires;
                });
                Ok(())
            }
            Err((refusal, error)) => {
                witness::note(|witness| witness.refusal = Some(refusal));
                Err(error.into())
            }
        }
    }

    /// Whether the peer's certificate is valid; one that is not can be let in all the same.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
        server_name: Option<&str>,
    ) -> Result<bool, (Refusal, CertificateError)> {
        if !may_sign_handshakes(leaf).map_err(unreadable)? {
            return Err((Refusal::KeyUsage, CertificateError::InvalidPurpose));
        }
        match self.validate(leaf, intermediates, role, now, server_name) {
            Ok(()) => Ok(true),
            // Let in, but nothing that it says is believed.
            Err(_) if self.accept_untrusted => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    fn validate(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
        server_name: Option<&str>,
    ) -> Result<(), (Refusal, CertificateError)> {
        self.verify_chain(leaf, intermediates, role, now)?;
        if !self.names.is_empty() || self.match_server_name {
            let details = CertificateDetails::parse(leaf).map_err(unreadable)?;
            let accepted = match server_name.filter(|_| self.match_server_name) {
                Some(name) => names::covers(&details, name.as_bytes()),
                None => {
                    self.names.is_empty()
                        || self.names.iter().any(|name| names::matches(name, &details))
                }
            };
            if !accepted {
                let refusal = Refusal::Names(Arc::from(names::list(&details)));
                let error = unknown(&refusal);
                return Err((refusal, error));
            }
        }
        if self.demands_hashes() && !self.is_pinned(leaf) {
            return Err((Refusal::Hashes, unknown(&Refusal::Hashes)));
        }
        Ok(())
    }

    fn is_pinned(&self, leaf: &CertificateDer<'_>) -> bool {
        self.certificate_hashes.contains(&sha256(leaf))
            || webpki::EndEntityCert::try_from(leaf).is_ok_and(|certificate| {
                let key = certificate.subject_public_key_info();
                self.public_key_hashes.contains(&sha256(&key))
            })
    }

    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
    ) -> Result<(), (Refusal, CertificateError)> {
        let refused = |error: VerifyError| {
            let refusal = Refusal::Chain(Arc::from(error.to_string()));
            let error = match self.roots {
                // Whichever authority it is, it may not speak for this domain.
                Roots::ByTrustDomain(_) => unknown(&refusal),
                _ => CertificateError::from(error),
            };
            (refusal, error)
        };
        let bundle = match &self.roots {
            Roots::Bundle(bundle) => bundle,
            Roots::ByTrustDomain(bundles) => claimed(leaf, bundles).map_err(refused)?,
            // A client's certificate that nothing is known about is worth nothing.
            Roots::None if role == PeerRole::Client && !self.demands_hashes() => {
                return Err(refused(VerifyError::UnknownIssuer));
            }
            Roots::None => return Ok(()),
        };
        if !self.allow_expired {
            return self
                .verify_at(bundle, leaf, intermediates, role, now)
                .map_err(refused);
        }
        // Any time at which the whole path is valid will do; the begins and ends are the times at
        // which that changes.
        let mut error = VerifyError::UnknownIssuer;
        for time in times(leaf, intermediates, now) {
            match self.verify_at(bundle, leaf, intermediates, role, time) {
                Ok(()) => return Ok(()),
                Err(other) => error = other,
            }
        }
        Err(refused(error))
    }

    fn verify_at(
        &self,
        bundle: &TrustBundle,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        // A certificate that is trusted by itself, as self-signed ones are, needs no issuer, unless
        // there are revocation lists: whether it is revoked is for its issuer to say.
        if self.revocation_lists.is_empty() && bundle.roots().iter().any(|root| root == leaf) {
            return verify_listed(leaf, role, now);
        }
        let lists: Vec<&CertRevocationList<'_>> =
            self.revocation_lists.iter().map(AsRef::as_ref).collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            let depth = if self.only_leaf_revocation {
                RevocationCheckDepth::EndEntity
            } else {
                RevocationCheckDepth::Chain
            };
            options
                .with_depth(depth)
                .with_status_policy(webpki::UnknownStatusPolicy::Deny)
                .with_expiration_policy(webpki::ExpirationPolicy::Enforce)
                .build()
        });
        let depth = if revocation.is_some() && !self.only_leaf_revocation {
            // Every authority is looked for in its issuer's list, those that are trusted too: so
            // the path does not end before it comes to one that has no issuer.
            let intermediates = [intermediates, bundle.below_others()].concat();
            let anchors = bundle.self_issued();
            verify_path(anchors, leaf, &intermediates, role, now, revocation)?
        } else {
            verify_path(bundle.anchors(), leaf, intermediates, role, now, revocation)?
        };
        // The root is always allowed: Envoy takes 0 for 1.
        match self.max_depth.map(|allowed| allowed.max(1) as usize) {
            Some(allowed) if depth > allowed => Err(VerifyError::TooLong {
                found: depth,
                allowed,
            }),
            _ => Ok(()),
        }
    }
}

/// When a certificate expires, in seconds since 1970.
fn expiry(certificate: &CertificateDer<'_>) -> Option<u64> {
    let details = CertificateDetails::parse(certificate).ok()?;
    let since = details.not_after.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

fn unreadable(error: outrider_identity::CertificateError) -> (Refusal, CertificateError) {
    let text = Arc::from(error.to_string());
    (Refusal::Chain(text), CertificateError::BadEncoding)
}

/// An error of which the peer is told `certificate_unknown`, as Envoy tells it.
fn unknown(refusal: &Refusal) -> CertificateError {
    CertificateError::Other(rustls::OtherError(Arc::new(refusal.clone())))
}

/// The bundle of the trust domain that a peer claims (X.509-SVID, section 5: a leaf that signs
/// nothing, with a SPIFFE id).
fn claimed<'b>(
    leaf: &CertificateDer<'_>,
    bundles: &'b TrustBundles,
) -> Result<&'b TrustBundle, VerifyError> {
    let invalid = |text: String| VerifyError::Invalid(text);
    let details = CertificateDetails::parse(leaf).map_err(|error| invalid(error.to_string()))?;
    if details.is_authority || details.may_sign_certificates {
        return Err(invalid("an authority is no workload".to_owned()));
    }
    let domain = details
        .uris
        .iter()
        .find_map(|uri| uri.strip_prefix("spiffe://"))
        .and_then(|rest| rest.split('/').next())
        .ok_or_else(|| invalid("it has no SPIFFE id".to_owned()))?;
    TrustDomain::new(domain)
        .ok()
        .and_then(|domain| bundles.bundle(&domain))
        .ok_or_else(|| invalid(format!("no bundle is configured for trust domain {domain}")))
}

/// The begins and ends of validity of what the peer sent, and now.
fn times(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> impl Iterator<Item = UnixTime> {
    let bounds = std::iter::once(leaf)
        .chain(intermediates)
        .filter_map(|certificate| CertificateDetails::parse(certificate).ok())
        .flat_map(|details| [details.not_before, details.not_after])
        .map(|time: SystemTime| {
            UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
        });
    let times: Vec<_> = std::iter::once(now).chain(bounds).take(MAX_TIMES).collect();
    times.into_iter()
}

impl ServerCertVerifier for PeerPolicy {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let name = match server_name {
            ServerName::DnsName(name) => Some(name.as_ref()),
            // None was sent.
            _ => None,
        };
        self.verify(end_entity, intermediates, PeerRole::Server, now, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        witness::note(|witness| witness.peer_scheme = Some(signed.scheme));
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        witness::note(|witness| witness.peer_scheme = Some(signed.scheme));
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self
            .provider
            .signature_verification_algorithms
            .supported_schemes();
        if !self.schemes.is_empty() {
            let place = |scheme: &SignatureScheme| self.schemes.iter().position(|s| s == scheme);
            schemes.retain(|scheme| place(scheme).is_some());
            schemes.sort_by_key(place);
        }
        schemes
    }
}

impl ClientCertVerifier for PeerPolicy {
    fn offer_client_auth(&self) -> bool {
        self.asks_for_certificate()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.require_certificate
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, PeerRole::Client, now, None)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
