//! Tokens by which a workload proves who it is where no Kubernetes does it: a JWT (RFC 7519)
//! signed with ES256, for the audience `outrider`.
//!
//! No error and no `Debug` output ever holds a token or a part of one.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use crate::owner_only::{self, StoreError};
use crate::spiffe::{check_namespace, check_service_account};
use crate::{KeyError, SpiffeError, SpiffeId, TrustDomain, WorkloadKey};

/// The audience of the tokens of this mesh.
pub const AUDIENCE: &str = "outrider";

/// The file in the authority's directory that holds the key that signs tokens.
pub const TOKEN_KEY_FILE: &str = "token-key.pem";

const SUBJECT_PREFIX: &str = "system:serviceaccount:";
/// A token of ours has about 300 bytes; a longer text is not worth its base64.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token is refused or cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is not a JWT of the form that we sign.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// It is signed by another key, or was changed.
    #[error("the token's signature does not verify: it was signed by another key or changed")]
    Signature,
    /// It is for somebody else.
    #[error("the token is for another audience than {expected:?}")]
    Audience {
        /// The audience that is required.
        expected: String,
    },
    /// Its time is over.
    #[error("the token expired {} s ago: mount or sign a new one", .ago.as_secs())]
    Expired {
        /// How long ago, by our clock.
        ago: Duration,
    },
    /// Its time has not come.
    #[error("the token becomes valid in {} s: is a clock wrong?", .early.as_secs())]
    NotYetValid {
        /// In how long, by our clock.
        early: Duration,
    },
    /// The subject does not name a service account.
    #[error("the token's subject is not system:serviceaccount:<namespace>:<account>")]
    Subject,
    /// The namespace or account to sign for is not one.
    #[error(transparent)]
    Account(#[from] SpiffeError),
    /// The lifetime to sign for is out of range.
    #[error("a token's lifetime must be at least 1 s")]
    Lifetime,
    /// The key cannot be used.
    #[error("the token key {0}")]
    Key(#[from] KeyError),
    /// The key's file cannot be used.
    #[error("the token key: {0}")]
    Store(#[from] StoreError),
    /// Signing failed.
    #[error("signing a token failed")]
    Sign,
}

/// A namespace and a service account in it: what a token vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
}

impl ServiceAccount {
    /// Names an account.
    ///
    /// # Errors
    /// One of the names is not a Kubernetes name.
    pub fn new(namespace: &str, name: &str) -> Result<Self, SpiffeError> {
        check_namespace(namespace)?;
        check_service_account(name)?;
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity in a trust domain.
    ///
    /// # Errors
    /// Never for an account that [`ServiceAccount::new`] made.
    pub fn spiffe_id(&self, trust_domain: &TrustDomain) -> Result<SpiffeId, SpiffeError> {
        SpiffeId::new(trust_domain.clone(), &self.namespace, &self.name)
    }

    fn from_subject(subject: &str) -> Option<Self> {
        let (namespace, name) = subject.strip_prefix(SUBJECT_PREFIX)?.split_once(':')?;
        Self::new(namespace, name).ok()
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    aud: Audience,
    sub: String,
    exp: u64,
    iat: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
}

/// RFC 7519 section 4.1.3: one string, or an array of them.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn contains(&self, wanted: &str) -> bool {
        match self {
            Self::One(audience) => audience == wanted,
            Self::Many(audiences) => audiences.iter().any(|audience| audience == wanted),
        }
    }
}

/// Signs tokens.
pub struct TokenSigner {
    encoding: EncodingKey,
    public_key: Vec<u8>,
}

impl TokenSigner {
    /// Opens the key in the authority's directory, and makes it there at the first use, readable
    /// by its owner only.
    ///
    /// # Errors
    /// The directory or the file cannot be used, or others can read it.
    pub fn open_or_create(directory: &Path) -> Result<Self, TokenError> {
        owner_only::ensure_directory(directory)?;
        let pem = owner_only::read_or_create(&directory.join(TOKEN_KEY_FILE), || {
            Ok::<_, TokenError>(WorkloadKey::generate()?.private_pem().expose().to_owned())
        })?;
        Self::from_pem(&pem)
    }

    /// Takes a P-256 key (PKCS #8, PEM).
    ///
    /// # Errors
    /// It is not such a key.
    pub fn from_pem(pem: &str) -> Result<Self, TokenError> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Parse)?;
        let der = der.secret_pkcs8_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_| KeyError::Parse)?;
        Ok(Self {
            encoding: EncodingKey::from_ec_der(der),
            public_key: pair.public_key().as_ref().to_vec(),
        })
    }

    /// Signs a token that vouches for `account` from `now` for `lifetime`.
    ///
    /// # Errors
    /// The lifetime is under a second, or signing failed.
    pub fn sign(
        &self,
        account: &ServiceAccount,
        audience: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, TokenError> {
        if lifetime.as_secs() == 0 {
            return Err(TokenError::Lifetime);
        }
        let issued = seconds(now);
        let claims = Claims {
            aud: Audience::Many(vec![audience.to_owned()]),
            sub: format!("{SUBJECT_PREFIX}{}:{}", account.namespace, account.name),
            exp: issued
                .checked_add(lifetime.as_secs())
                .ok_or(TokenError::Lifetime)?,
            iat: issued,
            nbf: None,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.encoding)
            .map_err(|_| TokenError::Sign)
    }

    /// What verifies the tokens that this signs.
    pub fn verifier(&self) -> TokenVerifier {
        TokenVerifier {
            decoding: DecodingKey::from_ec_der(&self.public_key),
            audience: AUDIENCE.to_owned(),
            leeway: Duration::ZERO,
        }
    }
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenSigner(redacted)")
    }
}

/// Verifies tokens.
#[derive(Clone)]
pub struct TokenVerifier {
    decoding: DecodingKey,
    audience: String,
    leeway: Duration,
}

impl TokenVerifier {
    /// Allows for clocks that differ by this much.
    pub fn with_leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Verifies a token's signature, audience and time, and tells whom it vouches for.
    ///
    /// # Errors
    /// [`TokenError`], by what is wrong, without the token.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<ServiceAccount, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed("longer than 16 KiB"));
        }
        let mut validation = Validation::new(Algorithm::ES256);
        // Audience and times are checked below, against the time that we are given and with
        // errors that say more.
        validation.validate_aud = false;
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        if !claims.aud.contains(&self.audience) {
            return Err(TokenError::Audience {
                expected: self.audience.clone(),
            });
        }
        let (now, leeway) = (seconds(now), self.leeway.as_secs());
        if now >= claims.exp.saturating_add(leeway) {
            return Err(TokenError::Expired {
                ago: Duration::from_secs(now - claims.exp),
            });
        }
        if let Some(start) = claims
            .nbf
            .filter(|start| now.saturating_add(leeway) < *start)
        {
            return Err(TokenError::NotYetValid {
                early: Duration::from_secs(start - now),
            });
        }
        ServiceAccount::from_subject(&claims.sub).ok_or(TokenError::Subject)
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TokenVerifier")
            .field("audience", &self.audience)
            .finish()
    }
}

/// The library's errors can quote the token; ours cannot.
fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            TokenError::Malformed("not signed with ES256")
        }
        ErrorKind::Base64(_) => TokenError::Malformed("not base64url"),
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
            TokenError::Malformed("header or claims (aud, sub, exp, iat) are missing or wrong")
        }
        _ => TokenError::Malformed("not a JWT"),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const HOUR: Duration = Duration::from_secs(3600);

    fn signer() -> TokenSigner {
        TokenSigner::from_pem(WorkloadKey::generate().unwrap().private_pem().expose()).unwrap()
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_good_token_tells_the_account() {
        let (signer, account) = (signer(), ServiceAccount::new("shop", "cart").unwrap());
        let token = signer.sign(&account, AUDIENCE, HOUR, now()).unwrap();
        assert_eq!(signer.verifier().verify(&token, now()).unwrap(), account);
        let last = now() + HOUR - Duration::from_secs(1);
        assert_eq!(signer.verifier().verify(&token, last).unwrap(), account);
    }

    #[test]
    fn a_bad_token_is_refused_by_its_fault_and_never_quoted() {
        let (signer, account) = (signer(), ServiceAccount::new("shop", "cart").unwrap());
        let good = signer.sign(&account, AUDIENCE, HOUR, now()).unwrap();
        let other_key = super::tests::signer()
            .sign(&account, AUDIENCE, HOUR, now())
            .unwrap();
        let other_audience = signer.sign(&account, "vault", HOUR, now()).unwrap();
        let (head, signature) = good.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let forged = other_key.split('.').nth(1).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIn0.{forged}.");
        let swapped = format!(
            "{header}.{}.{signature}",
            other_audience.split('.').nth(1).unwrap()
        );
        let late = now() + HOUR;
        let check = |token: &str, at: SystemTime| {
            let error = signer.verifier().verify(token, at).unwrap_err();
            let shown = format!("{error} {error:?}");
            let part = token.split('.').nth(1).unwrap_or("");
            assert!(part.len() < 8 || !shown.contains(part), "{shown}");
            error
        };
        assert!(matches!(check(&other_key, now()), TokenError::Signature));
        assert!(matches!(check(&swapped, now()), TokenError::Signature));
        assert!(matches!(
            check(&other_audience, now()),
            TokenError::Audience { .. }
        ));
        assert!(matches!(check(&good, late), TokenError::Expired { ago } if ago.is_zero()));
        assert!(matches!(check(&unsigned, now()), TokenError::Malformed(_)));
        for garbage in ["", "a", "a.b", "a.b.c", "....", &"x".repeat(20_000)] {
            assert!(
                matches!(check(garbage, now()), TokenError::Malformed(_)),
                "{garbage:.20}"
            );
        }
        let lenient = signer.verifier().with_leeway(Duration::from_secs(30));
        assert!(
            lenient
                .verify(&good, late + Duration::from_secs(29))
                .is_ok()
        );
        assert!(
            lenient
                .verify(&good, late + Duration::from_secs(30))
                .is_err()
        );
    }

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("keys");
        let account = ServiceAccount::new("shop", "cart").unwrap();
        let first = TokenSigner::open_or_create(&store).unwrap();
        let token = first.sign(&account, AUDIENCE, HOUR, now()).unwrap();
        let second = TokenSigner::open_or_create(&store).unwrap();
        assert_eq!(second.verifier().verify(&token, now()).unwrap(), account);

        let file = store.join(TOKEN_KEY_FILE);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&store), mode(&file)), (0o700, 0o600));
        assert_eq!(
            std::fs::read_dir(&store).unwrap().count(),
            1,
            "no copy is left"
        );

        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = TokenSigner::open_or_create(&store).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}
