//! Makes an authority of its key and certificates, and refuses those that could not serve a mesh.

use std::path::Path;
use std::time::SystemTime;

use rcgen::{Issuer, KeyPair, PublicKeyData as _, SanType};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{AuthorityError, AuthorityMaterial, CertificateAuthority, Lifetimes, Text};
use crate::verify::unix_time;
use crate::{
    CertificateDetails, PeerRole, TrustBundle, TrustDomain, VerifyError, WorkloadKey, owner_only,
};

/// The file in the authority's directory that holds the root's key and certificate. One file, so
/// that there is never the one without the other.
pub const AUTHORITY_FILE: &str = "authority.pem";

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
        let pem = owner_only::read_or_create(&path, || {
            let new = AuthorityMaterial::self_signed(trust_domain, now)?;
            Ok::<_, AuthorityError>(format!("{}{}", new.key.pem, new.certificate.pem))
        })?;
        let origin = path.display().to_string();
        let text = Text { origin, pem };
        let material = AuthorityMaterial {
            key: text.clone(),
            certificate: text,
            roots: None,
        };
        Self::new(&material, trust_domain, now)
    }

    /// Takes a key and a certificate: a root, or an intermediate with its chain.
    ///
    /// # Errors
    /// A text cannot be read; the key is not the certificate's; the certificate cannot sign for
    /// the trust domain, is not valid at `now`, or does not lead to the roots.
    pub fn new(
        material: &AuthorityMaterial,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let key = material.key.key()?;
        let origin = &material.certificate.origin;
        let mut chain = material.certificate.certificates()?;
        let signer = chain[0].clone();
        let mut details = Vec::with_capacity(chain.len());
        for certificate in &chain {
            details.push(CertificateDetails::parse(certificate).map_err(|source| {
                AuthorityError::Certificate {
                    origin: origin.clone(),
                    source,
                }
            })?);
        }
        let unsuitable = |reason: String| AuthorityError::Unsuitable {
            origin: origin.clone(),
            subject: details[0].subject.clone(),
            reason,
        };
        check_signer(&signer, &key, &material.key.origin).map_err(unsuitable)?;
        for (certificate, details) in chain.iter().zip(&details) {
            check_names(certificate, trust_domain).map_err(|reason| {
                AuthorityError::Unsuitable {
                    origin: origin.clone(),
                    subject: details.subject.clone(),
                    reason,
                }
            })?;
        }
        if now < details[0].not_before || now > details[0].not_after {
            return Err(unsuitable(
                "is not valid now: renew it, or set the clock".to_owned(),
            ));
        }
        let last_is_root = details
            .last()
            .is_some_and(|last| last.subject == last.issuer);
        let roots = match (&material.roots, last_is_root) {
            (Some(roots), false) => roots.certificates()?,
            // The root needs no sending: whoever trusts it has it.
            (Some(roots), true) => {
                chain.pop();
                roots.certificates()?
            }
            (None, true) => chain.split_off(chain.len() - 1),
            (None, false) => {
                return Err(unsuitable(
                    "does not come with its root: append the root to it or give it apart"
                        .to_owned(),
                ));
            }
        };
        let bundle = TrustBundle::from_der(roots)?;
        check_depth(&chain, bundle.roots()).map_err(|(subject, reason)| {
            AuthorityError::Unsuitable {
                origin: origin.clone(),
                subject,
                reason,
            }
        })?;
        let authority = Self {
            issuer: Issuer::from_ca_cert_der(&signer, key).map_err(AuthorityError::Sign)?,
            signer,
            trust_domain: trust_domain.clone(),
            intermediates: chain,
            signer_not_after: details[0].not_after,
            bundle,
            lifetimes: Lifetimes::default(),
            is_withheld: false,
        };
        // As a peer would, so that a chain that does not fit is found here and not by every
        // workload.
        let sample = authority.sample(now)?;
        authority.verify(&sample, now).map_err(|error| {
            unsuitable(match &material.roots {
                Some(roots) => format!("does not lead to the root in {}: {error}", roots.origin),
                None => format!("does not lead to the root: {error}"),
            })
        })?;
        Ok(authority)
    }

    /// Signs a workload's certificate for a key that is thrown away, to see what peers say of it.
    ///
    /// # Errors
    /// The signing certificate has expired, or the cryptographic library failed.
    pub fn sample(&self, now: SystemTime) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let key = WorkloadKey::generate()?;
        let name = format!("spiffe://{}/ns/default/sa/default", self.trust_domain);
        let name = SanType::URI(name.try_into().map_err(AuthorityError::Sign)?);
        Ok(self.sign(key.pair(), vec![name], None, now)?.chain)
    }

    /// Verifies a chain, its end first, as a peer does who has the trust bundle.
    ///
    /// # Errors
    /// [`VerifyError`], by what is wrong.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), VerifyError> {
        let (end, intermediates) = chain.split_first().ok_or(VerifyError::UnknownIssuer)?;
        crate::verify_chain(
            self.bundle.anchors(),
            end,
            intermediates,
            PeerRole::Server,
            unix_time(now),
        )
    }
}

fn check_signer(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    key_origin: &str,
) -> Result<(), String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| "cannot be read".to_owned())?;
    if !parsed.is_ca() {
        return Err("is no CA certificate (basic constraints)".to_owned());
    }
    let usage = parsed
        .key_usage()
        .map_err(|_| "has a malformed key usage".to_owned())?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err("must not sign certificates (key usage lacks keyCertSign)".to_owned());
    }
    if key.subject_public_key_info() != parsed.public_key().raw {
        return Err(format!(
            "belongs to another key than the one in {key_origin}"
        ));
    }
    Ok(())
}

/// The path lengths that the certificates allow (RFC 5280 section 4.2.1.9). webpki does not look at
/// that of a root, but other verifiers do. The error has the subject of the one at fault.
fn check_depth(
    intermediates: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
) -> Result<(), (String, String)> {
    let parse = |certificate| X509Certificate::from_der(certificate).ok();
    let last = intermediates.last().and_then(|last| parse(last));
    let root = last.and_then(|(_, last)| {
        roots.iter().find(|root| {
            parse(root).is_some_and(|(_, root)| root.subject().as_raw() == last.issuer().as_raw())
        })
    });
    for (below, certificate) in intermediates.iter().chain(root).enumerate() {
        let Some((_, parsed)) = parse(certificate) else {
            continue;
        };
        let Ok(Some(constraints)) = parsed.basic_constraints() else {
            continue;
        };
        if let Some(allowed) = constraints.value.path_len_constraint
            && usize::try_from(allowed).is_ok_and(|allowed| below > allowed)
        {
            let subject = parsed.subject().to_string();
            let reason = format!(
                "allows {allowed} authorities below itself (path length) but has {below}: issue \
                 the signer from one that allows more"
            );
            return Err((subject, reason));
        }
    }
    Ok(())
}

/// What webpki does with constraints on URI names is to refuse every certificate below them, so
/// peers would refuse every workload (RFC 5280 section 4.2.1.10).
fn check_names(certificate: &CertificateDer<'_>, trust_domain: &TrustDomain) -> Result<(), String> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| "cannot be read".to_owned())?;
    let constraints = parsed
        .name_constraints()
        .map_err(|_| "has malformed name constraints".to_owned())?;
    let Some(constraints) = constraints else {
        return Ok(());
    };
    let subtrees = [
        &constraints.value.permitted_subtrees,
        &constraints.value.excluded_subtrees,
    ];
    let mut subtrees = subtrees.into_iter().flatten().flatten();
    match subtrees.find(|subtree| matches!(subtree.base, GeneralName::URI(_))) {
        Some(subtree) => Err(format!(
            "has name constraints on URIs ({}), which verifiers of TLS refuse to judge, so no \
             identity of trust domain {trust_domain} below it would be accepted: issue it without",
            subtree.base
        )),
        None => Ok(()),
    }
}
