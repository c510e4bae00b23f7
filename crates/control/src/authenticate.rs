//! Who calls: told by a token, or by the certificate that the connection was made with.

use std::time::SystemTime;

use outrider_identity::{
    CertificateDetails, ServiceAccount, TokenError, TokenVerifier, TrustDomain,
};
use tonic::Extensions;
use tonic::metadata::MetadataMap;

use crate::serve::Peer;

/// Why a caller is refused. Never holds a token.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// Neither of the two is there.
    #[error("no credentials: send `authorization: Bearer <token>`")]
    Nothing,
    /// The header is there but is not a bearer token.
    #[error("the authorization header is not `Bearer <token>`")]
    Header,
    /// The token is refused.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The certificate, which the mesh did sign, does not name a workload.
    #[error("the client certificate does not name a workload of trust domain {0}")]
    Certificate(TrustDomain),
}

/// Knows which credentials to accept.
#[derive(Debug, Clone)]
pub struct Authenticator {
    tokens: TokenVerifier,
    trust_domain: TrustDomain,
}

impl Authenticator {
    /// Accepts the tokens of `tokens` and the certificates of a trust domain.
    pub fn new(tokens: TokenVerifier, trust_domain: TrustDomain) -> Self {
        Self {
            tokens,
            trust_domain,
        }
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whom the token or, if there is none, the connection's certificate vouches for. (The
    /// connection has verified the certificate's chain already.)
    ///
    /// # Errors
    /// Neither is there, or the one that is there is not good: a bad token is not made good by a
    /// certificate.
    pub fn account(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
        now: SystemTime,
    ) -> Result<ServiceAccount, AuthenticateError> {
        match self.token_account(metadata, now) {
            Err(AuthenticateError::Nothing) => {}
            other => return other,
        }
        let certificate = extensions.get::<Peer>().and_then(Peer::certificate);
        let certificate = certificate.ok_or(AuthenticateError::Nothing)?;
        let foreign = || AuthenticateError::Certificate(self.trust_domain.clone());
        let details = CertificateDetails::parse(certificate.der()).map_err(|_| foreign())?;
        let id = details.spiffe_id().ok_or_else(foreign)?;
        if *id.trust_domain() != self.trust_domain {
            return Err(foreign());
        }
        ServiceAccount::new(id.namespace(), id.service_account()).map_err(|_| foreign())
    }

    /// Whom the token vouches for.
    ///
    /// # Errors
    /// There is none, or it is not good.
    pub fn token_account(
        &self,
        metadata: &MetadataMap,
        now: SystemTime,
    ) -> Result<ServiceAccount, AuthenticateError> {
        let header = metadata
            .get("authorization")
            .ok_or(AuthenticateError::Nothing)?;
        let header = header.to_str().map_err(|_| AuthenticateError::Header)?;
        // The scheme's name has no case (RFC 9110 section 11.1).
        let (scheme, token) = header.split_once(' ').ok_or(AuthenticateError::Header)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthenticateError::Header);
        }
        Ok(self.tokens.verify(token.trim(), now)?)
    }
}
