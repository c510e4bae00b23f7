//! Where the authority's own key and certificate come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::issue::random_serial;
use super::{AuthorityError, CLOCK_SKEW, CertificateAuthority, Lifetimes, ROOT_LIFETIME};
use crate::certificate::certificates_from_pem;
use crate::verify::unix_time;
use crate::{CertificateDetails, KeyError, TrustBundle, TrustDomain, WorkloadKey, owner_only};

/// The file in the authority's directory that holds the root's key and certificate. One file, so
/// that there is never the one without the other.
pub const AUTHORITY_FILE: &str = "authority.pem";

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

impl CertificateAuthority {
    /// Opens the authority in `directory`; at the first start makes a self-signed P-256 root
    /// there. The directory (mode 0700) and the file (0600) are their owner's only.
    ///
    /// # Errors
    /// The directory cannot be used, others can read it, or its content is not an authority's.
    pub fn open_or_create(
        directory: &Path,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        owner_only::ensure_directory(directory)?;
        let path = directory.join(AUTHORITY_FILE);
        let pem = owner_only::read_or_create(&path, || self_signed(trust_domain, now))?;
        let key = read_key(&pem, &path)?;
        let chain = read_certificates(&pem, &path)?;
        Self::assemble(key, chain, None, &path, now)
    }

    /// Takes the user's own key and certificate.
    ///
    /// # Errors
    /// A file cannot be read; the key is not the certificate's; the certificate cannot sign, is not
    /// valid at `now`, or does not lead to the root.
    pub fn from_files(files: &AuthorityFiles, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = read_key(&read_file(&files.key)?, &files.key)?;
        let chain = read_certificates(&read_file(&files.certificate)?, &files.certificate)?;
        let roots = match &files.root {
            Some(path) => Some(read_certificates(&read_file(path)?, path)?),
            None => None,
        };
        Self::assemble(key, chain, roots, &files.certificate, now)
    }

    fn assemble(
        key: KeyPair,
        mut chain: Vec<CertificateDer<'static>>,
        roots: Option<Vec<CertificateDer<'static>>>,
        path: &Path,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let fault = |source| AuthorityError::Certificate {
            path: path.to_owned(),
            source,
        };
        let mut details = Vec::with_capacity(chain.len());
        for certificate in &chain {
            details.push(CertificateDetails::parse(certificate).map_err(fault)?);
        }
        let signer = details[0].clone();
        let unsuitable = |reason: &str| AuthorityError::Unsuitable {
            path: path.to_owned(),
            subject: signer.subject.clone(),
            reason: reason.to_owned(),
        };
        check_signer(&chain[0], &key).map_err(unsuitable)?;
        if now < signer.not_before || now > signer.not_after {
            return Err(unsuitable("is not valid now: renew it, or set the clock"));
        }
        let self_signed = |details: &CertificateDetails| details.subject == details.issuer;
        let last_is_root = details.last().is_some_and(self_signed);
        let roots = match (roots, last_is_root) {
            (Some(roots), false) => roots,
            // The root needs no sending: whoever trusts it has it.
            (Some(roots), true) => {
                chain.pop();
                roots
            }
            (None, true) => chain.split_off(chain.len() - 1),
            (None, false) => {
                return Err(unsuitable(
                    "does not come with its root: append the root to the file or give it apart",
                ));
            }
        };
        let bundle = TrustBundle::from_der(roots)?;
        let signer_der = chain.first().unwrap_or(&bundle.roots()[0]).clone();
        let issuer = Issuer::from_ca_cert_der(&signer_der, key).map_err(AuthorityError::Sign)?;
        let authority = Self {
            issuer,
            intermediates: chain,
            signer_not_after: signer.not_after,
            bundle,
            lifetimes: Lifetimes::default(),
        };
        authority.prove(now).map_err(|reason| unsuitable(&reason))?;
        Ok(authority)
    }

    /// Signs a certificate and verifies it as a peer would, so that a chain that does not fit is
    /// found at the start and not by every workload.
    fn prove(&self, now: SystemTime) -> Result<(), String> {
        let trial = self.issue_serving(&["localhost".to_owned()], None, now);
        let (_key, trial) = trial.map_err(|error| error.to_string())?;
        crate::verify_chain(
            self.bundle.anchors(),
            &trial.chain[0],
            &trial.chain[1..],
            crate::PeerRole::Server,
            unix_time(now),
        )
        .map_err(|error| format!("does not lead to the root: {error}"))
    }
}

fn check_signer(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), &'static str> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "cannot be read")?;
    if !parsed.is_ca() {
        return Err("is no CA certificate (basic constraints)");
    }
    let usage = parsed
        .key_usage()
        .map_err(|_| "has a malformed key usage")?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("must not sign certificates (key usage lacks keyCertSign)");
    }
    if key.subject_public_key_info() != parsed.public_key().raw {
        return Err("belongs to another key than the one given");
    }
    Ok(())
}

fn self_signed(trust_domain: &TrustDomain, now: SystemTime) -> Result<String, AuthorityError> {
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
    Ok(format!(
        "{}{}",
        key.private_pem().expose(),
        certificate.pem()
    ))
}

fn read_file(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::Read {
        path: path.to_owned(),
        source,
    })
}

fn read_key(pem: &str, path: &Path) -> Result<KeyPair, AuthorityError> {
    let unusable = || AuthorityError::Key {
        path: path.to_owned(),
        source: KeyError::Parse,
    };
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
    KeyPair::try_from(&der).map_err(|_| unusable())
}

fn read_certificates(
    pem: &str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    certificates_from_pem(pem.as_bytes()).map_err(|source| AuthorityError::Certificate {
        path: path.to_owned(),
        source,
    })
}
