//! Whether a peer's certificate is accepted: chain, names, hashes.

use std::net::IpAddr;
use std::sync::Arc;

use outrider_identity::certificate::sha256;
use outrider_identity::{CertificateDetails, PeerRole, TrustBundle, verify_chain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::error::TlsError;
use crate::config::secret::{SanKind, SanMatcher, ValidationContext};

/// A validation context ready for use, for either role of the peer.
#[derive(Debug)]
pub struct PeerPolicy {
    /// `None`: no chain is verified, as Envoy does where no CA is configured.
    roots: Option<TrustBundle>,
    names: Vec<SanMatcher>,
    hashes: Vec<[u8; 32]>,
    accept_untrusted: bool,
    /// Downstream: a client without a certificate is refused.
    require_certificate: bool,
    provider: Arc<CryptoProvider>,
}

impl PeerPolicy {
    /// A policy from the merged contexts: lists add up, and a later `trusted_ca` replaces an
    /// earlier one, as protobuf merges them.
    ///
    /// # Errors
    /// A root that cannot be one, or names demanded of chains that nobody verifies.
    pub fn new(
        contexts: &[&ValidationContext],
        require_certificate: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut policy = PeerPolicy {
            roots: None,
            names: Vec::new(),
            hashes: Vec::new(),
            accept_untrusted: false,
            require_certificate,
            provider,
        };
        for context in contexts {
            if !context.trusted_ca.is_empty() {
                policy.roots = Some(TrustBundle::from_der(context.trusted_ca.clone())?);
            }
            policy.names.extend_from_slice(&context.subject_alt_names);
            policy.hashes.extend_from_slice(&context.certificate_hashes);
            policy.accept_untrusted |= context.accept_untrusted;
        }
        if !policy.names.is_empty() && policy.roots.is_none() && !policy.accept_untrusted {
            return Err(TlsError::NamesWithoutRoots);
        }
        Ok(policy)
    }

    /// Whether clients are asked for a certificate at all.
    fn asks_for_certificate(&self) -> bool {
        self.require_certificate || self.roots.is_some() || !self.hashes.is_empty()
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: PeerRole,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.accept_untrusted {
            return Ok(());
        }
        if let Some(roots) = &self.roots {
            verify_chain(roots.anchors(), leaf, intermediates, role, now)
                .map_err(CertificateError::from)?;
        }
        if !self.names.is_empty() {
            let details =
                CertificateDetails::parse(leaf).map_err(|_| CertificateError::BadEncoding)?;
            if !self.names.iter().any(|name| name_matches(name, &details)) {
                return Err(
                    CertificateError::Other(rustls::OtherError(Arc::new(WrongName(names(
                        &details,
                    )))))
                    .into(),
                );
            }
        }
        if !self.hashes.is_empty() && !self.hashes.contains(&sha256(leaf)) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(())
    }
}

/// None of the peer's names is one that the configuration demands.
#[derive(Debug, thiserror::Error)]
#[error("no name of the peer's certificate is accepted; it has {0}")]
struct WrongName(String);

fn names(details: &CertificateDetails) -> String {
    let mut names: Vec<&str> = Vec::new();
    names.extend(details.uris.iter().map(String::as_str));
    names.extend(details.dns_names.iter().map(String::as_str));
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

fn name_matches(name: &SanMatcher, details: &CertificateDetails) -> bool {
    let matches = |text: &str| name.matcher.matches(text.as_bytes());
    match name.kind {
        SanKind::Uri => details.uris.iter().any(|uri| matches(uri)),
        // A wildcard in the certificate is compared as text, as Envoy does for all but exact
        // matches; for those RFC 6125's wildcard is honoured.
        SanKind::Dns => details
            .dns_names
            .iter()
            .any(|dns| matches(dns) || wildcard_matches(dns, name)),
        SanKind::Email => details.emails.iter().any(|mail| matches(mail)),
        SanKind::Ip => details
            .ip_addresses
            .iter()
            .any(|address: &IpAddr| matches(&address.to_string())),
    }
}

/// `*.example.com` in the certificate stands for one label.
fn wildcard_matches(pattern: &str, name: &SanMatcher) -> bool {
    use crate::config::matcher::StringMatcher;
    let (Some(suffix), StringMatcher::Exact(wanted, _)) =
        (pattern.strip_prefix("*."), &name.matcher)
    else {
        return false;
    };
    let Some(dot) = memchr::memchr(b'.', wanted) else {
        return false;
    };
    dot > 0 && wanted[dot + 1..].eq_ignore_ascii_case(suffix.as_bytes())
}

impl ServerCertVerifier for PeerPolicy {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, PeerRole::Server, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl ClientCertVerifier for PeerPolicy {
    fn offer_client_auth(&self) -> bool {
        self.asks_for_certificate()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.require_certificate
    }

    /// None: clients send the certificate that they have, and the mesh's have one.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, PeerRole::Client, now)?;
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
