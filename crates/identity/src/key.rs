//! The key of a workload and the request for its certificate.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::SpiffeId;

/// Why a key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library could not make a key.
    #[error("making a P-256 key failed: {0}")]
    Generate(rcgen::Error),
    /// The text is not a private key that can be used. Nothing of the text is repeated.
    #[error(
        "not a usable private key: a PEM section PRIVATE KEY (PKCS #8), EC PRIVATE KEY or \
         RSA PRIVATE KEY without a password is needed"
    )]
    Parse,
    /// The certificate request could not be encoded or signed.
    #[error("making the certificate request failed: {0}")]
    Request(rcgen::Error),
}

/// PEM text that holds a private key: `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SecretPem(String);

impl SecretPem {
    /// Takes PEM text in.
    pub fn new(pem: String) -> Self {
        Self(pem)
    }

    /// The text itself, for the one place that must write or send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretPem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretPem(redacted)")
    }
}

/// A P-256 key that never leaves the process that made it, unless it is asked for by name.
pub struct WorkloadKey {
    pair: KeyPair,
}

impl WorkloadKey {
    /// Makes a new P-256 key.
    ///
    /// # Errors
    /// The system's source of randomness failed.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError::Generate)?;
        Ok(Self { pair })
    }

    /// The request (PKCS #10, PEM) for a certificate of this key. The authority takes the identity
    /// from the token and never from the request; `id` is only for authorities that insist on
    /// seeing it there.
    ///
    /// # Errors
    /// Encoding or signing failed.
    pub fn signing_request(&self, id: Option<&SpiffeId>) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(id) = id {
            let uri = id.to_string().try_into().map_err(KeyError::Request)?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let request = params
            .serialize_request(&self.pair)
            .map_err(KeyError::Request)?;
        request.pem().map_err(KeyError::Request)
    }

    /// The key as rustls takes it.
    pub fn private_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialize_der()))
    }

    /// The key as SDS carries it (PKCS #8, PEM).
    pub fn private_pem(&self) -> SecretPem {
        SecretPem(self.pair.serialize_pem())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl fmt::Debug for WorkloadKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WorkloadKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_key() {
        let key = WorkloadKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "WorkloadKey(redacted)");
        assert_eq!(format!("{:?}", key.private_pem()), "SecretPem(redacted)");
        assert!(key.private_pem().expose().contains("PRIVATE KEY"));
    }
}
