//! The certificate signing service.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrider_identity::certificate::certificate_to_pem;
use outrider_identity::{AuthorityError, CertificateAuthority, CertificateDetails, ServiceAccount};
use outrider_xds::certificate::{Authority, CertificateRequest, CertificateResponse};
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};
use tracing::{info, warn};

use crate::authenticate::Authenticator;
use crate::metrics::Metrics;
use crate::serve::peer_of;

/// Signs for whoever has a good token, under the name in the token.
#[derive(Debug)]
pub struct SigningService {
    authenticator: Authenticator,
    authority: Arc<CertificateAuthority>,
    metrics: Arc<Metrics>,
}

impl SigningService {
    /// Puts the two together.
    pub fn new(
        authenticator: Authenticator,
        authority: Arc<CertificateAuthority>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            authenticator,
            authority,
            metrics,
        }
    }

    fn sign(
        &self,
        request: &CertificateRequest,
        account: &ServiceAccount,
        now: SystemTime,
    ) -> Result<CertificateResponse, Status> {
        let id = account
            .spiffe_id(self.authenticator.trust_domain())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let lifetime = u64::try_from(request.validity_duration)
            .ok()
            .map(Duration::from_secs);
        let issued = self
            .authority
            .issue(&request.csr, &id, lifetime, now)
            .map_err(|error| {
                let text = error.to_string();
                match error {
                    AuthorityError::Request(_) => Status::invalid_argument(text),
                    _ => Status::unavailable(text),
                }
            })?;
        let details = CertificateDetails::parse(&issued.chain[0]);
        let serial = details.map(|details| details.serial).unwrap_or_default();
        let lifetime = issued
            .not_after
            .duration_since(now)
            .unwrap_or_default()
            .as_secs();
        info!(%id, serial, lifetime, "signed a certificate");
        let mut cert_chain: Vec<String> = issued
            .chain
            .iter()
            .map(|certificate| certificate_to_pem(certificate))
            .collect();
        // All roots in the last element, which is where callers look for what to trust.
        cert_chain.push(self.authority.trust_bundle().to_pem());
        Ok(CertificateResponse { cert_chain })
    }
}

#[async_trait]
impl Authority for SigningService {
    async fn create_certificate(
        &self,
        request: CertificateRequest,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<CertificateResponse, Status> {
        let now = SystemTime::now();
        // A certificate alone does not do: who stole one could renew it for ever.
        let account = self
            .authenticator
            .token_account(metadata, now)
            .map_err(|error| Status::unauthenticated(error.to_string()));
        match account.and_then(|account| self.sign(&request, &account, now)) {
            Ok(response) => {
                self.metrics.certificates.increment();
                Ok(response)
            }
            Err(status) => {
                self.metrics.refused_callers.increment();
                let peer = peer_of(extensions);
                warn!(
                    peer,
                    reason = status.message(),
                    "refused to sign a certificate"
                );
                Err(status)
            }
        }
    }
}
