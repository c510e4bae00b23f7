//! Certificates and contexts for tests.

use std::sync::Arc;

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::client::ClientContext;
use super::error::TlsError;
use super::server::ServerContext;
use crate::config::matcher::{Case, StringMatcher};
use crate::config::secret::{SanKind, SanMatcher, Secret, TlsCertificate, ValidationContext};
use crate::config::tls::{
    DownstreamTls, ServerResumption, StaplePolicy, TlsSettings, TlsVersion, UpstreamTls, Validation,
};
use crate::discovery::slot::Slot;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Authority {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    /// A certificate for a SPIFFE id and a DNS name, with its key.
    pub fn issue(&self, uri: &str, dns: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::URI(uri.try_into().unwrap()),
            SanType::DnsName(dns.try_into().unwrap()),
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        (certificate.der().clone(), key)
    }

    /// The same as a secret.
    pub fn secret(&self, uri: &str) -> Arc<Secret> {
        let (certificate, key) = self.issue(uri, "workload.test");
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Arc::new(Secret::Certificate(TlsCertificate::new(Arc::new(
            rustls::sign::CertifiedKey::new(vec![certificate], key),
        ))))
    }

    /// Trust in this authority and, unless empty, in this one URI only.
    pub fn trust(&self, uri: &str) -> Arc<Secret> {
        Arc::new(Secret::Validation(self.validation(uri)))
    }

    pub fn validation(&self, uri: &str) -> ValidationContext {
        let names = (!uri.is_empty()).then(|| SanMatcher {
            kind: SanKind::Uri,
            matcher: StringMatcher::Exact(uri.as_bytes().into(), Case::Sensitive),
        });
        ValidationContext {
            trusted_ca: vec![self.root.clone()],
            subject_alt_names: names.into_iter().collect(),
            ..ValidationContext::default()
        }
    }
}

pub const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
pub const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

/// Settings of one side of mutual TLS.
pub struct Side {
    pub settings: TlsSettings,
}

impl Side {
    /// A workload named `own` that accepts `peer`.
    pub fn new(authority: &Authority, own: &str, peer: &str) -> Self {
        let certificate = Slot::filled("default", authority.secret(own));
        let trust = Slot::filled("ROOTCA", authority.trust(peer));
        Side {
            settings: TlsSettings {
                min_version: TlsVersion::V1_2,
                max_version: TlsVersion::V1_3,
                cipher_suites: Vec::new(),
                groups: Vec::new(),
                alpn: Vec::new(),
                certificates: vec![Arc::clone(&certificate)],
                signature_schemes: Vec::new(),
                validation: Validation::Context(Arc::clone(&trust)),
                ticket_keys: None,
                key_log: None,
            },
        }
    }

    pub fn version(mut self, version: TlsVersion) -> Self {
        self.settings.min_version = version;
        self.settings.max_version = version;
        self
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.settings.alpn = protocols
            .iter()
            .map(|name| Arc::from(name.as_bytes()))
            .collect();
        self
    }

    pub fn server(&self) -> Result<Arc<ServerContext>, TlsError> {
        ServerContext::new(DownstreamTls {
            require_client_certificate: true,
            ..downstream(self.settings.clone())
        })
    }

    pub fn client(&self) -> Result<Arc<ClientContext>, TlsError> {
        ClientContext::new(upstream(self.settings.clone()))
    }
}

/// A context that lets anybody in, and nobody resume.
pub fn downstream(settings: TlsSettings) -> DownstreamTls {
    DownstreamTls {
        settings,
        require_client_certificate: false,
        resumption: ServerResumption::None,
        session_timeout: None,
        staple_policy: StaplePolicy::default(),
        full_scan: false,
        prefer_client_ciphers: false,
    }
}

/// A context with a server name as the mesh has them.
pub fn upstream(settings: TlsSettings) -> UpstreamTls {
    UpstreamTls {
        settings,
        sni: "outbound_.8080_._.reviews.shop.svc.cluster.local".into(),
        auto_host_sni: false,
        auto_sni_san_validation: false,
        max_session_keys: 1,
    }
}

/// Both sides of mutual TLS.
pub fn mutual() -> (Arc<ServerContext>, Arc<ClientContext>) {
    let authority = Authority::new();
    (
        Side::new(&authority, SERVER, CLIENT).server().unwrap(),
        Side::new(&authority, CLIENT, SERVER).client().unwrap(),
    )
}
