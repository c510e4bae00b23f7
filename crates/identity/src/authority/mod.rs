//! The certificate authority of a mesh.
//!
//! It signs with a root of its own, made at the first start, or with a key and certificate that it
//! is given (a root, or an intermediate with its chain). What it puts into a certificate comes from
//! the caller, who took it from a verified token; of a request only the public key is used, after
//! the request has proved that its sender holds the private key.

mod issue;
mod material;
mod open;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;

use crate::certificate::certificate_to_pem;
use crate::owner_only::StoreError;
use crate::verify::unix_time;
use crate::{
    CertificateError, KeyError, PeerRole, TrustBundle, TrustDomain, TrustError, VerifyError,
};

pub use material::{AuthorityFiles, AuthorityMaterial, Text};
pub use open::AUTHORITY_FILE;

/// How long a certificate lives unless its requester asks for less: 24 h.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long the root that the authority makes itself lives: ten years.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);
/// How far before now a certificate begins, so that a peer whose clock is behind accepts it: 2 min.
pub const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// Why the authority cannot be opened, or refuses to sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key store cannot be used.
    #[error("certificate authority: {0}")]
    Store(#[from] StoreError),
    /// A file that the user gave cannot be read.
    #[error("certificate authority: reading {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no key that can be used.
    #[error("certificate authority: {origin}: {source}")]
    Key {
        /// Where the text is from.
        origin: String,
        /// What is wrong.
        source: KeyError,
    },
    /// There is no certificate that can be used.
    #[error("certificate authority: {origin}: {source}")]
    Certificate {
        /// Where the text is from.
        origin: String,
        /// What is wrong.
        source: CertificateError,
    },
    /// The certificate cannot sign others.
    #[error("certificate authority: {origin}: the certificate {subject:?} {reason}")]
    Unsuitable {
        /// Where the certificate is from.
        origin: String,
        /// The certificate's subject.
        subject: String,
        /// Why not.
        reason: String,
    },
    /// The roots cannot be used.
    #[error("certificate authority: {0}")]
    Trust(#[from] TrustError),
    /// The request is not one, or does not prove possession of the key.
    #[error("certificate request refused: {0}")]
    Request(&'static str),
    /// A name that a serving certificate shall have is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServingName(String),
    /// A serving certificate would be refused, for example for a name constraint.
    #[error("certificate authority: a certificate for {names} would be refused: {source}")]
    Serving {
        /// Its names.
        names: String,
        /// What a client would say.
        source: VerifyError,
    },
    /// The signing certificate ends too soon to sign anything.
    #[error("the certificate authority's own certificate has expired: renew it")]
    Expired,
    /// Not everybody has the root yet.
    #[error(
        "the root is new: nothing is signed before it has had time to reach everybody; try again"
    )]
    Withheld,
    /// The cryptographic library failed.
    #[error("certificate authority: {0}")]
    Sign(rcgen::Error),
    /// A new key could not be made.
    #[error("certificate authority: {0}")]
    NewKey(#[from] KeyError),
}

/// Bounds on the life of issued certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// For a request that names none.
    pub default: Duration,
    /// For a request that asks for more: it gets this much.
    pub max: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            default: DEFAULT_LIFETIME,
            max: DEFAULT_LIFETIME,
        }
    }
}

/// A certificate with what leads to its root.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// The certificate first, then the intermediates in order; the root is not in it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The first moment of validity.
    pub not_before: SystemTime,
    /// The last moment of validity.
    pub not_after: SystemTime,
}

impl IssuedCertificate {
    /// The chain as one PEM text.
    pub fn chain_pem(&self) -> String {
        self.chain
            .iter()
            .map(|certificate| certificate_to_pem(certificate))
            .collect()
    }
}

/// Signs the certificates of the mesh.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    signer: CertificateDer<'static>,
    trust_domain: TrustDomain,
    /// The signing certificate and the intermediates above it; empty when the root signs.
    intermediates: Vec<CertificateDer<'static>>,
    signer_not_after: SystemTime,
    bundle: TrustBundle,
    lifetimes: Lifetimes,
    is_withheld: bool,
}

impl CertificateAuthority {
    /// The roots that everybody in the mesh trusts.
    pub fn trust_bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Sets how long issued certificates live.
    pub fn with_lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Signs no workload's certificate: peers that do not have the root yet would refuse it.
    pub fn withheld(mut self) -> Self {
        self.is_withheld = true;
        self
    }

    /// Whether a certificate is signed by the very certificate that signs now, and valid at `now`.
    pub fn signed(&self, certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
        let Ok(anchor) = webpki::anchor_from_trusted_cert(&self.signer) else {
            return false;
        };
        let (role, now) = (PeerRole::Server, unix_time(now));
        crate::verify_chain(&[anchor], certificate, &[], role, now).is_ok()
    }

    /// When the certificate that signs ends: nothing issued outlives it.
    pub fn signer_not_after(&self) -> SystemTime {
        self.signer_not_after
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CertificateAuthority")
            .field("signer_not_after", &self.signer_not_after)
            .field("lifetimes", &self.lifetimes)
            .finish_non_exhaustive()
    }
}
