//! The certificate signing service.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use outrider_identity::certificate::certificate_to_pem;
use outrider_identity::{AuthorityError, CertificateAuthority, CertificateDetails, ServiceAccount};
use outrider_xds::certificate::{Authority, CertificateRequest, CertificateResponse};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Status, async_trait};
use tracing::{info, warn};

use crate::authenticate::{Authenticator, Caller};
use crate::metrics::Metrics;
use crate::serve::peer_of;

/// How many accounts' last certificates are remembered at most.
const MAX_REMEMBERED: usize = 100_000;

/// The authority that signs at the moment: in a cluster it changes with its Secret.
pub type CurrentAuthority = watch::Receiver<Arc<CertificateAuthority>>;

/// Until when the certificates last that this process signed.
#[derive(Debug, Default)]
pub struct IssuedCertificates {
    /// The pod's name is empty where the token did not tell.
    ends: Mutex<HashMap<(ServiceAccount, String), SystemTime>>,
}

impl IssuedCertificates {
    /// The end of the last certificate for a pod of an account; none if this process signed none:
    /// then another replica has.
    pub fn not_after(&self, account: &ServiceAccount, pod: &str) -> Option<SystemTime> {
        let ends = self.ends();
        let end = ends.get(&(account.clone(), pod.to_owned()));
        end.or_else(|| ends.get(&(account.clone(), String::new())))
            .copied()
    }

    fn record(&self, caller: &Caller, not_after: SystemTime, now: SystemTime) {
        let pod = caller.pod.as_ref().map(|pod| pod.name.clone());
        let key = (caller.account.clone(), pod.unwrap_or_default());
        let mut ends = self.ends();
        if ends.len() >= MAX_REMEMBERED {
            ends.retain(|_, end| *end > now);
        }
        if ends.len() < MAX_REMEMBERED || ends.contains_key(&key) {
            ends.insert(key, not_after);
        }
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<(ServiceAccount, String), SystemTime>> {
        // Every change is whole before the lock is let go.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signs for whoever has a good token, under the name in the token.
#[derive(Debug)]
pub struct SigningService {
    authenticator: Authenticator,
    authority: CurrentAuthority,
    issued: Arc<IssuedCertificates>,
    metrics: Arc<Metrics>,
}

impl SigningService {
    /// Puts the two together.
    pub fn new(
        authenticator: Authenticator,
        authority: CurrentAuthority,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            authenticator,
            authority,
            issued: Arc::default(),
            metrics,
        }
    }

    /// What was signed.
    pub fn issued(&self) -> &Arc<IssuedCertificates> {
        &self.issued
    }

    fn sign(
        &self,
        request: &CertificateRequest,
        caller: &Caller,
        now: SystemTime,
    ) -> Result<CertificateResponse, Status> {
        let id = caller
            .account
            .spiffe_id(self.authenticator.trust_domain())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let lifetime = u64::try_from(request.validity_duration)
            .ok()
            .map(Duration::from_secs);
        let authority = Arc::clone(&self.authority.borrow());
        let issued = authority
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
        let pod = caller.pod.as_ref().map(|pod| pod.name.as_str());
        info!(%id, pod, serial, lifetime, "signed a certificate");
        self.issued.record(caller, issued.not_after, now);
        let mut cert_chain: Vec<String> = issued
            .chain
            .iter()
            .map(|certificate| certificate_to_pem(certificate))
            .collect();
        // All roots in the last element, which is where callers look for what to trust.
        cert_chain.push(authority.trust_bundle().to_pem());
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
        let signed = match self
            .authenticator
            .token_caller(metadata, extensions, now)
            .await
        {
            Ok(caller) => self.sign(&request, &caller, now),
            Err(error) => Err(error.into()),
        };
        match signed {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authenticate::BoundPod;

    #[test]
    fn the_last_certificate_of_a_pod_is_known() {
        let (issued, now) = (IssuedCertificates::default(), SystemTime::now());
        let cart = ServiceAccount::new("shop", "cart").unwrap();
        let of = |pod: &str| Caller {
            account: cart.clone(),
            pod: Some(BoundPod {
                name: pod.to_owned(),
                uid: "1".to_owned(),
            }),
        };
        assert_eq!(issued.not_after(&cart, "cart-1"), None);
        issued.record(&of("cart-1"), now, now);
        issued.record(&of("cart-1"), now + Duration::from_secs(1), now);
        assert_eq!(
            issued.not_after(&cart, "cart-1"),
            Some(now + Duration::from_secs(1))
        );
        assert_eq!(issued.not_after(&cart, "cart-2"), None);
        issued.record(&Caller::from(cart.clone()), now, now);
        assert_eq!(issued.not_after(&cart, "cart-2"), Some(now));
    }
}
