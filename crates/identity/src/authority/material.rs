//! The texts that an authority is made of, wherever they come from: files, or a Secret of a cluster.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::issue::random_serial;
use super::{AuthorityError, CLOCK_SKEW, ROOT_LIFETIME};
use crate::certificate::certificates_from_pem;
use crate::{KeyError, TrustDomain, WorkloadKey};

/// Files that the user gives.
#[derive(Debug, Clone)]
pub struct AuthorityFiles {
    /// The private key (PKCS #8, SEC 1 or PKCS #1; PEM).
    pub key: PathBuf,
    /// The certificate of that key, then the chain towards the root (PEM).
    pub certificate: PathBuf,
    /// The root, where it is not the last certificate of the chain (PEM; several may be given).
    pub root: Option<PathBuf>,
}

/// PEM text, with the name by which errors call it. `Debug` shows nothing of the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// Such as a path, or a Secret and a key in it.
    pub origin: String,
    /// The PEM text.
    pub pem: String,
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Text({}, redacted)", self.origin)
    }
}

/// What an authority is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityMaterial {
    /// The private key (PKCS #8, SEC 1 or PKCS #1).
    pub key: Text,
    /// The certificate of that key, then the chain towards the root.
    pub certificate: Text,
    /// The roots, where the root does not end the chain, or where there are several.
    pub roots: Option<Text>,
}

impl AuthorityMaterial {
    /// Reads files.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn read(files: &AuthorityFiles) -> Result<Self, AuthorityError> {
        Ok(Self {
            key: read(&files.key)?,
            certificate: read(&files.certificate)?,
            roots: files.root.as_deref().map(read).transpose()?,
        })
    }

    /// Makes a P-256 key and a root certificate for it.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub fn self_signed(
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let key = WorkloadKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, trust_domain.as_str());
        params
            .distinguished_name
            .push(DnType::CommonName, "Outrider root CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial()?);
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + ROOT_LIFETIME).into();
        let certificate = params
            .self_signed(key.pair())
            .map_err(AuthorityError::Sign)?;
        let text = |pem: &str| Text {
            origin: "the new root".to_owned(),
            pem: pem.to_owned(),
        };
        Ok(Self {
            key: text(key.private_pem().expose()),
            certificate: text(&certificate.pem()),
            roots: None,
        })
    }
}

impl Text {
    pub(super) fn key(&self) -> Result<KeyPair, AuthorityError> {
        let unusable = || AuthorityError::Key {
            origin: self.origin.clone(),
            source: KeyError::Parse,
        };
        let der = PrivateKeyDer::from_pem_slice(self.pem.as_bytes()).map_err(|_| unusable())?;
        KeyPair::try_from(&der).map_err(|_| unusable())
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        certificates_from_pem(self.pem.as_bytes()).map_err(|source| AuthorityError::Certificate {
            origin: self.origin.clone(),
            source,
        })
    }
}

fn read(path: impl AsRef<Path>) -> Result<Text, AuthorityError> {
    let path = path.as_ref();
    let pem = fs::read_to_string(path).map_err(|source| AuthorityError::Read {
        path: path.to_owned(),
        source,
    })?;
    let origin = path.display().to_string();
    Ok(Text { origin, pem })
}
