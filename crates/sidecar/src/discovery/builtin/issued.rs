//! What the authority gave: checked before anything uses it, then made into secrets.

use std::fmt;
use std::time::{Duration, SystemTime};

use outrider_identity::certificate::{certificate_to_pem, certificates_from_pem};
use outrider_identity::verify::{PeerRole, unix_time, verify_chain};
use outrider_identity::{
    CertificateDetails, CertificateError, SecretPem, SpiffeId, TrustBundle, TrustError,
    VerifyError, WorkloadKey,
};
use outrider_xds::ads::ResourceType;
use outrider_xds::ads::server::{Resources, Versioned};
use outrider_xds::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use outrider_xds::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::renewal::Validity;
use super::{CERTIFICATE, ROOTS};

/// Why a chain cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuedError {
    /// There is nothing in the answer.
    #[error("the answer has no certificate")]
    Empty,
    /// An element of the answer is no certificate.
    #[error("element {index} of the chain: {source}")]
    Certificate {
        /// Its place, from 0.
        index: usize,
        /// What is wrong.
        source: CertificateError,
    },
    /// A root of the answer cannot be one.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The certificate is for another key.
    #[error("it is not for the key of the request: {0}")]
    Key(rustls::Error),
    /// The chain leads to no root that we trust, or is not valid now.
    #[error("{0}")]
    Chain(#[from] VerifyError),
    /// It names nobody, or several.
    #[error("it must name exactly one URI, a SPIFFE id; it names {uris:?}")]
    Identity {
        /// What it names.
        uris: Vec<String>,
    },
}

/// A certificate that is good to use.
pub struct Issued {
    /// Whose it is.
    pub id: SpiffeId,
    /// Its term.
    pub validity: Validity,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    chain: Vec<CertificateDer<'static>>,
    key: SecretPem,
    /// Roots that the authority sent along.
    roots: Vec<CertificateDer<'static>>,
}

impl Issued {
    /// Checks an answer: the chain fits the key, leads to a root, is valid `now` both for servers
    /// and for clients, and names exactly one SPIFFE id.
    ///
    /// The last element of the answer is the root, as in Istio. The authority, which was verified
    /// against `roots` when we connected, may vouch for a further one in this way; so the mesh's
    /// root can change.
    ///
    /// # Errors
    /// [`IssuedError`]
    pub fn check(
        answer: &[String],
        key: WorkloadKey,
        roots: &TrustBundle,
        now: SystemTime,
    ) -> Result<Self, IssuedError> {
        Self::check_with(answer, &key.private_der(), key.private_pem(), roots, now)
    }

    /// The same for a key that was made before, in both its forms.
    ///
    /// # Errors
    /// [`IssuedError`]
    pub fn check_with(
        answer: &[String],
        key: &PrivateKeyDer<'_>,
        key_pem: SecretPem,
        roots: &TrustBundle,
        now: SystemTime,
    ) -> Result<Self, IssuedError> {
        let mut elements = answer
            .iter()
            .enumerate()
            .map(|(index, pem)| {
                let certificates = certificates_from_pem(pem.as_bytes());
                certificates.map_err(|source| IssuedError::Certificate { index, source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let details = |der: &CertificateDer<'_>, index| {
            CertificateDetails::parse(der)
                .map_err(|source| IssuedError::Certificate { index, source })
        };
        let (mut chain, mut sent_roots) = (Vec::new(), Vec::new());
        let last = elements.pop().ok_or(IssuedError::Empty)?;
        let index = elements.len();
        chain.extend(elements.into_iter().flatten());
        for certificate in last {
            let details = details(&certificate, index)?;
            let is_root = details.is_authority && details.subject == details.issuer;
            if is_root && !chain.is_empty() {
                sent_roots.push(certificate);
            } else {
                chain.push(certificate);
            }
        }
        let (leaf, intermediates) = chain.split_first().ok_or(IssuedError::Empty)?;
        let leaf_details = details(leaf, 0)?;

        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(key);
        CertifiedKey::new(chain.clone(), signer.map_err(IssuedError::Key)?)
            .keys_match()
            .map_err(IssuedError::Key)?;
        let bundle = with_roots(&sent_roots, roots)?;
        for role in [PeerRole::Server, PeerRole::Client] {
            verify_chain(bundle.anchors(), leaf, intermediates, role, unix_time(now))?;
        }
        let id = leaf_details.spiffe_id().ok_or(IssuedError::Identity {
            uris: leaf_details.uris,
        })?;
        Ok(Issued {
            id,
            validity: Validity {
                not_before: leaf_details.not_before,
                not_after: leaf_details.not_after,
            },
            serial: leaf_details.serial,
            chain,
            key: key_pem,
            roots: sent_roots,
        })
    }

    /// The secrets, by name. `roots` are those of the root file.
    pub fn secrets(&self, roots: &TrustBundle) -> Resources {
        let pem = |chain: &[CertificateDer<'_>]| -> String {
            chain.iter().map(|each| certificate_to_pem(each)).collect()
        };
        // Both were checked to be roots.
        let bundle = with_roots(&self.roots, roots);
        let bundle = bundle.map_or_else(|_| roots.to_pem(), |bundle| bundle.to_pem());
        let certificate = Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(pem(&self.chain))),
            private_key: Some(inline(self.key.expose().to_owned())),
            ..Default::default()
        });
        let validation = Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(bundle)),
            ..Default::default()
        });
        [(CERTIFICATE, certificate), (ROOTS, validation)]
            .into_iter()
            .map(|(name, value)| {
                let secret = Secret {
                    name: name.to_owned(),
                    r#type: Some(value),
                };
                let versioned = Versioned::new(ResourceType::Secret, &secret);
                (name.to_owned(), versioned)
            })
            .collect()
    }

    /// The key, and an answer of the authority that says the same.
    pub fn parts(&self) -> (&SecretPem, Vec<String>) {
        let chain = self.chain.iter().map(|each| certificate_to_pem(each));
        let roots: String = self
            .roots
            .iter()
            .map(|each| certificate_to_pem(each))
            .collect();
        let roots = Some(roots).filter(|roots| !roots.is_empty());
        (&self.key, chain.chain(roots).collect())
    }

    /// When it expires, seen from `now`, for display.
    pub fn expires_in(&self, now: SystemTime) -> String {
        let left = self.validity.not_after.duration_since(now);
        let seconds = |duration: Duration| Duration::from_secs(duration.as_secs());
        match left {
            Ok(left) => format!("in {:?}", seconds(left)),
            Err(past) => format!("{:?} ago", seconds(past.duration())),
        }
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("id", &self.id)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// The roots that the authority sent and those of the file, each once.
fn with_roots(
    sent: &[CertificateDer<'static>],
    file: &TrustBundle,
) -> Result<TrustBundle, TrustError> {
    TrustBundle::from_der([sent, file.roots()].concat())
}

fn inline(text: String) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(text.into_bytes())),
        ..Default::default()
    }
}
