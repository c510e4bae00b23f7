//! Certificates for tests, made apart from the mesh's own authority, so that neither hides the
//! other's mistakes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A root that signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub struct Leaf {
    /// The chain: the leaf alone.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: String,
}

impl Authority {
    /// A new root of that common name, with a P-256 key.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("make the root's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).context("sign the root")?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// A root that exists already, as PEM.
    ///
    /// # Errors
    /// When one of the two cannot be read.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("read the root's key")?;
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(certificate, key).context("read the root")?,
            certificate: certificate.to_owned(),
        })
    }

    /// An intermediate authority of that common name below this one.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn subordinate(&self, name: &str) -> Result<Leaf> {
        let key = KeyPair::generate().context("make the intermediate's key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let signed = params.signed_by(&key, &self.issuer);
        Ok(Leaf {
            certificate: signed.context("sign the intermediate")?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The root's key, as PEM (PKCS#8).
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The root's certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a SPIFFE id, good for server and client, valid from a minute ago for
    /// `validity` from now.
    ///
    /// # Errors
    /// When the id is not ASCII, or the certificate cannot be made.
    pub fn issue(&self, spiffe_id: &str, validity: Duration) -> Result<Leaf> {
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::default();
        let id = Ia5String::try_from(spiffe_id).context("the SPIFFE id")?;
        params.subject_alt_names = vec![SanType::URI(id)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - Duration::from_secs(60);
        params.not_after = now + validity;
        let certificate = params.signed_by(&key, &self.issuer).context("sign")?.pem();
        Ok(Leaf {
            certificate,
            key: key.serialize_pem(),
        })
    }
}
