//! What the authority signs.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateSigningRequestDer, DnsName};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer as _;

use super::{AuthorityError, CLOCK_SKEW, CertificateAuthority, IssuedCertificate};
use crate::{SpiffeId, WorkloadKey};

/// A request for one P-256 key has under 1 KiB; more is not worth parsing.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

impl CertificateAuthority {
    /// Signs a certificate for the key of a request (PKCS #10, PEM), with `id` as its only name.
    /// Everything else that the request asks for is ignored. `lifetime` is cut to the maximum and
    /// to the life of the signing certificate; none means the default.
    ///
    /// # Errors
    /// The request is malformed, its key is not P-256, its signature does not prove possession of
    /// the key; or the signing certificate has expired, or the authority is
    /// [withheld](Self::withheld).
    pub fn issue(
        &self,
        request_pem: &str,
        id: &SpiffeId,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        if self.is_withheld {
            return Err(AuthorityError::Withheld);
        }
        let key = requested_key(request_pem)?;
        let uri = id.to_string().try_into().map_err(AuthorityError::Sign)?;
        self.sign(&key, vec![SanType::URI(uri)], lifetime, now)
    }

    /// Makes a key and signs a certificate for it that names servers by DNS name or IP address,
    /// for the control plane's own port.
    ///
    /// # Errors
    /// A name is neither, or one that the authority must not sign for; or the signing certificate
    /// has expired.
    pub fn issue_serving(
        &self,
        names: &[String],
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<(WorkloadKey, IssuedCertificate), AuthorityError> {
        let wanted = names
            .iter()
            .map(|name| serving_name(name))
            .collect::<Result<_, _>>()?;
        let key = WorkloadKey::generate()?;
        let issued = self.sign(key.pair(), wanted, lifetime, now)?;
        self.verify(&issued.chain, now)
            .map_err(|source| AuthorityError::Serving {
                names: names.join(", "),
                source,
            })?;
        Ok((key, issued))
    }

    pub(super) fn sign(
        &self,
        key: &impl PublicKeyData,
        names: Vec<SanType>,
        lifetime: Option<Duration>,
        now: SystemTime,
    ) -> Result<IssuedCertificate, AuthorityError> {
        if now >= self.signer_not_after {
            return Err(AuthorityError::Expired);
        }
        let lifetime = lifetime
            .filter(|lifetime| !lifetime.is_zero())
            .unwrap_or(self.lifetimes.default);
        let not_after = (now + lifetime.min(self.lifetimes.max)).min(self.signer_not_after);
        let not_before = now - CLOCK_SKEW;
        let mut params = CertificateParams::default();
        // No subject: then the names are critical (RFC 5280 section 4.1.2.6), and nothing but
        // them says who this is.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial()?);
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(AuthorityError::Sign)?;
        let mut chain = Vec::with_capacity(1 + self.intermediates.len());
        chain.push(certificate.der().clone());
        chain.extend(self.intermediates.iter().cloned());
        Ok(IssuedCertificate {
            chain,
            not_before,
            not_after,
        })
    }
}

/// The key of a request that proves that its sender holds the private half.
fn requested_key(pem: &str) -> Result<SubjectPublicKeyInfo, AuthorityError> {
    if pem.len() > MAX_REQUEST_BYTES {
        return Err(AuthorityError::Request("longer than 16 KiB"));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| AuthorityError::Request("no PEM section CERTIFICATE REQUEST"))?;
    let (rest, request) = X509CertificationRequest::from_der(&der)
        .map_err(|_| AuthorityError::Request("not a PKCS #10 certificate request"))?;
    if !rest.is_empty() {
        return Err(AuthorityError::Request(
            "bytes after the end of the request",
        ));
    }
    let info = &request.certification_request_info.subject_pki;
    let curve = info
        .algorithm
        .parameters
        .as_ref()
        .and_then(|curve| curve.as_oid().ok());
    if info.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(AuthorityError::Request("the key must be ECDSA P-256"));
    }
    request.verify_signature().map_err(|_| {
        AuthorityError::Request("its signature does not prove possession of the private key")
    })?;
    SubjectPublicKeyInfo::from_der(info.raw)
        .map_err(|_| AuthorityError::Request("the public key is malformed"))
}

fn serving_name(name: &str) -> Result<SanType, AuthorityError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let invalid = || AuthorityError::ServingName(name.to_owned());
    DnsName::try_from(name).map_err(|_| invalid())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| invalid())?))
}

/// 127 random bits, positive (RFC 5280 section 4.1.2.2).
pub(super) fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| AuthorityError::Sign(rcgen::Error::RingUnspecified))?;
    // Neither negative nor with a leading zero byte, which DER would have to drop.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from(bytes.to_vec()))
}
