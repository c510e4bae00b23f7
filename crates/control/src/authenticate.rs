//! Who calls: told by a token, or by the certificate that the connection was made with.

use std::time::SystemTime;

use outrider_identity::{
    CertificateDetails, ServiceAccount, TokenError, TokenVerifier, TrustDomain,
};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status};

use crate::kubernetes::token_review::{ReviewError, TokenReviewer};
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
    /// The token is refused, or cannot be judged at the moment, by the cluster.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// The certificate, which the mesh did sign, does not name a workload.
    #[error("the client certificate does not name a workload of trust domain {0}")]
    Certificate(TrustDomain),
}

impl AuthenticateError {
    /// Whether the same credentials may be found good a little later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Review(ReviewError::Unavailable(_)))
    }
}

impl From<AuthenticateError> for Status {
    fn from(error: AuthenticateError) -> Self {
        if error.is_passing() {
            Self::unavailable(error.to_string())
        } else {
            Self::unauthenticated(error.to_string())
        }
    }
}

/// A pod that a token is bound to: the token is void as soon as the pod is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BoundPod {
    /// Its name, in the namespace of the account.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Whom credentials vouch for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The account.
    pub account: ServiceAccount,
    /// The pod; none where the credentials do not tell: a certificate, or a token that no cluster
    /// made.
    pub pod: Option<BoundPod>,
}

impl From<ServiceAccount> for Caller {
    fn from(account: ServiceAccount) -> Self {
        Self { account, pod: None }
    }
}

/// Who knows whether a token is good.
#[derive(Debug, Clone)]
pub enum Tokens {
    /// Our own key, which signed it.
    Signed(TokenVerifier),
    /// The cluster's API server.
    Reviewed(TokenReviewer),
}

/// Knows which credentials to accept.
#[derive(Debug, Clone)]
pub struct Authenticator {
    tokens: Tokens,
    trust_domain: TrustDomain,
}

impl Authenticator {
    /// Accepts the tokens of `tokens` and the certificates of a trust domain.
    pub fn new(tokens: Tokens, trust_domain: TrustDomain) -> Self {
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
    /// connection has verified the certificate's chain already.) A token that cannot be judged at
    /// the moment counts as none.
    ///
    /// # Errors
    /// Neither is there, or the one that is there is not good: a bad token is not made good by a
    /// certificate.
    pub async fn caller(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
        now: SystemTime,
    ) -> Result<Caller, AuthenticateError> {
        let without = match self.token_caller(metadata, extensions, now).await {
            Err(error @ AuthenticateError::Nothing) => error,
            Err(error) if error.is_passing() => error,
            other => return other,
        };
        let peer = extensions.get::<Peer>();
        let Some((peer, certificate)) = peer.and_then(|peer| Some((peer, peer.certificate()?)))
        else {
            return Err(without);
        };
        let foreign = || AuthenticateError::Certificate(self.trust_domain.clone());
        let details = CertificateDetails::parse(certificate.der()).map_err(|_| foreign())?;
        let id = details.spiffe_id().ok_or_else(foreign)?;
        if *id.trust_domain() != self.trust_domain {
            return Err(foreign());
        }
        let account = ServiceAccount::new(id.namespace(), id.service_account());
        let caller = Caller::from(account.map_err(|_| foreign())?);
        peer.authenticated();
        Ok(caller)
    }

    /// Whom the token vouches for.
    ///
    /// # Errors
    /// There is none, it is not good, or nobody can tell at the moment.
    pub async fn token_caller(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
        now: SystemTime,
    ) -> Result<Caller, AuthenticateError> {
        let header = metadata
            .get("authorization")
            .ok_or(AuthenticateError::Nothing)?;
        let header = header.to_str().map_err(|_| AuthenticateError::Header)?;
        // The scheme's name has no case (RFC 9110 section 11.1).
        let (scheme, token) = header.split_once(' ').ok_or(AuthenticateError::Header)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthenticateError::Header);
        }
        let token = token.trim();
        let peer = extensions.get::<Peer>();
        let caller = match &self.tokens {
            Tokens::Signed(verifier) => Caller::from(verifier.verify(token, now)?),
            Tokens::Reviewed(reviewer) => {
                reviewer.review(token, peer.map(Peer::address), now).await?
            }
        };
        if let Some(peer) = peer {
            peer.authenticated();
        }
        Ok(caller)
    }
}
