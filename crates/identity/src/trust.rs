//! The roots that a peer's certificate must lead to.

use std::collections::BTreeMap;

use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::certificate::{certificate_to_pem, certificates_from_pem};
use crate::{CertificateDetails, CertificateError, TrustDomain};

/// Why a bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The text or a certificate in it cannot be read.
    #[error("trust bundle: {0}")]
    Certificate(#[from] CertificateError),
    /// A certificate cannot be a root.
    #[error("trust bundle: certificate {index} ({subject:?}) cannot be a trust anchor: {reason}")]
    Anchor {
        /// Its place in the bundle, from 0.
        index: usize,
        /// Its subject.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bundle of a trust domain has no certificate.
    #[error("trust bundle: no certificate")]
    Empty,
}

/// The roots of one trust domain, ready for verification.
#[derive(Debug, Clone)]
pub struct TrustBundle {
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    self_issued: Vec<TrustAnchor<'static>>,
    below_others: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// Reads every certificate of a PEM text as a root.
    ///
    /// # Errors
    /// No certificate in it, or one that cannot be a root.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TrustError> {
        Self::from_der(certificates_from_pem(pem)?)
    }

    /// Takes certificates as roots; repeated ones count once.
    ///
    /// # Errors
    /// None is given, or one of them cannot be a root.
    pub fn from_der(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut bundle = Self {
            roots: Vec::new(),
            anchors: Vec::new(),
            self_issued: Vec::new(),
            below_others: Vec::new(),
        };
        for (index, certificate) in certificates.into_iter().enumerate() {
            if bundle.roots.contains(&certificate) {
                continue;
            }
            let CertificateDetails {
                subject, issuer, ..
            } = CertificateDetails::parse(&certificate)?;
            let is_self_issued = subject == issuer;
            let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|error| {
                TrustError::Anchor {
                    index,
                    subject,
                    reason: error.to_string(),
                }
            })?;
            let anchor = anchor.to_owned();
            if is_self_issued {
                bundle.self_issued.push(anchor.clone());
            } else {
                bundle.below_others.push(certificate.clone());
            }
            bundle.anchors.push(anchor);
            bundle.roots.push(certificate);
        }
        if bundle.roots.is_empty() {
            return Err(TrustError::Empty);
        }
        Ok(bundle)
    }

    /// The roots as webpki takes them.
    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Those of the roots that no other authority issued: only they need no revocation list.
    pub fn self_issued(&self) -> &[TrustAnchor<'static>] {
        &self.self_issued
    }

    /// The other roots, which their issuers can revoke.
    pub fn below_others(&self) -> &[CertificateDer<'static>] {
        &self.below_others
    }

    /// The roots as certificates.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// The roots as one PEM text.
    pub fn to_pem(&self) -> String {
        self.roots
            .iter()
            .map(|root| certificate_to_pem(root))
            .collect()
    }

    /// The roots as rustls takes them.
    pub fn root_store(&self) -> rustls::RootCertStore {
        rustls::RootCertStore {
            roots: self.anchors.clone(),
        }
    }
}

/// Bundles by trust domain, for a mesh that trusts others.
#[derive(Debug, Clone, Default)]
pub struct TrustBundles {
    bundles: BTreeMap<TrustDomain, TrustBundle>,
}

impl TrustBundles {
    /// Sets the bundle of a domain, and gives back the one that it replaces.
    pub fn insert(&mut self, domain: TrustDomain, bundle: TrustBundle) -> Option<TrustBundle> {
        self.bundles.insert(domain, bundle)
    }

    /// The bundle of a domain. A peer is verified against the bundle of the domain that it claims
    /// and never against another's, so one mesh cannot vouch for another's workloads.
    pub fn bundle(&self, domain: &TrustDomain) -> Option<&TrustBundle> {
        self.bundles.get(domain)
    }

    /// Every domain with its bundle, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &TrustBundle)> {
        self.bundles.iter()
    }
}
