//! Which roots the mesh knows already, as ConfigMap `outrider-root` in the control plane's own
//! namespace tells.
//!
//! Whoever has not yet read a new root refuses what is signed under it. A control plane that runs
//! knows when it took a root; one that has just started does not, so the leader notes in an
//! annotation since when each later root has been in the bundle, and all replicas go by that.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::ConfigMap;
use outrider_identity::certificate::{certificates_from_pem, sha256};
use outrider_identity::{PeerRole, TrustBundle, verify_chain};
use rustls_pki_types::{CertificateDer, UnixTime};
use tracing::warn;

use super::trust_bundle::KEY;

/// Since when roots have been announced: a JSON map from the SHA-256 of a root (hexadecimal) to
/// seconds since 1970. A root that is not in it was there from the beginning.
pub(super) const SINCE: &str = "outrider.dev/announced-since";

/// What the ConfigMap says.
#[derive(Debug)]
pub(super) struct Published {
    roots: Vec<CertificateDer<'static>>,
    since: BTreeMap<String, u64>,
}

impl Published {
    /// Reads it; none where there is no root in it.
    pub(super) fn of(bundle: Option<&ConfigMap>) -> Option<Self> {
        let bundle = bundle?;
        let pem = bundle.data.as_ref()?.get(KEY)?;
        let roots = certificates_from_pem(pem.as_bytes()).ok()?;
        if roots.is_empty() {
            return None;
        }
        let annotations = bundle.metadata.annotations.as_ref();
        let since = annotations.and_then(|annotations| annotations.get(SINCE));
        let since = since.map(|text| serde_json::from_str(text)).transpose();
        let since = since.unwrap_or_else(|error| {
            warn!("annotation {SINCE} of the trust bundle: {error}; its roots count as known");
            None
        });
        Some(Self {
            roots,
            since: since.unwrap_or_default(),
        })
    }

    /// Whether everybody has a root, after `propagation`, that vouches for a certificate chain.
    pub(super) fn vouches(
        &self,
        chain: &[CertificateDer<'_>],
        propagation: Duration,
        now: SystemTime,
    ) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return false;
        };
        let oldest = seconds(now).saturating_sub(propagation.as_secs());
        self.roots.iter().any(|root| {
            let since = self.since.get(&fingerprint(root));
            since.is_none_or(|since| *since <= oldest)
                && TrustBundle::from_der(vec![root.clone()]).is_ok_and(|bundle| {
                    let role = PeerRole::Server;
                    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds(now)));
                    verify_chain(bundle.anchors(), leaf, intermediates, role, now).is_ok()
                })
        })
    }
}

/// The annotations of the ConfigMap when these roots are written over what is there; none are
/// needed for the first ones.
pub(super) fn annotations(
    present: Option<&ConfigMap>,
    pem: &str,
    now: SystemTime,
) -> Option<BTreeMap<String, String>> {
    let present = Published::of(present)?;
    let roots = certificates_from_pem(pem.as_bytes()).unwrap_or_default();
    let since: BTreeMap<String, u64> = roots
        .iter()
        .filter_map(|root| {
            let fingerprint = fingerprint(root);
            let known = present.since.get(&fingerprint).copied();
            let since = match known {
                // A clock that was ahead must hold nobody up.
                Some(since) => Some(since.min(seconds(now))),
                None => (!present.roots.contains(root)).then(|| seconds(now)),
            };
            since.map(|since| (fingerprint, since))
        })
        .collect();
    if since.is_empty() {
        return None;
    }
    let text = serde_json::json!(since).to_string();
    Some(BTreeMap::from([(SINCE.to_owned(), text)]))
}

fn fingerprint(root: &CertificateDer<'_>) -> String {
    sha256(root)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrider_identity::authority::AuthorityMaterial;
    use outrider_identity::{CertificateAuthority, TrustDomain};

    fn root(now: SystemTime) -> (String, CertificateAuthority) {
        let domain = TrustDomain::new("cluster.local").unwrap();
        let material = AuthorityMaterial::self_signed(&domain, now).unwrap();
        let authority = CertificateAuthority::new(&material, &domain, now).unwrap();
        (material.certificate.pem, authority)
    }

    fn written(present: Option<&ConfigMap>, pem: &str, now: SystemTime) -> ConfigMap {
        let mut bundle = ConfigMap::default();
        bundle.metadata.annotations = annotations(present, pem, now);
        bundle.data = Some(BTreeMap::from([(KEY.to_owned(), pem.to_owned())]));
        bundle
    }

    #[test]
    fn a_root_counts_once_it_has_been_announced_long_enough() {
        let start = SystemTime::now();
        let ((old, before), (new, after)) = (root(start), root(start));
        let propagation = Duration::from_secs(120);
        let vouches = |bundle: &ConfigMap, authority: &CertificateAuthority, seconds| {
            let chain = authority.sample(start).unwrap();
            let now = start + Duration::from_secs(seconds);
            let published = Published::of(Some(bundle)).unwrap();
            published.vouches(&chain, propagation, now)
        };
        assert!(Published::of(None).is_none());
        assert!(Published::of(Some(&ConfigMap::default())).is_none());

        // The first root of a mesh has nobody to wait for.
        let first = written(None, &old, start);
        assert!(first.metadata.annotations.is_none());
        assert!(vouches(&first, &before, 0) && !vouches(&first, &after, 1000));

        let both = format!("{new}{old}");
        let announced = written(Some(&first), &both, start);
        assert!(vouches(&announced, &before, 0), "the old one goes on");
        assert!(!vouches(&announced, &after, 118) && vouches(&announced, &after, 121));

        // Another leader writes it again: the time goes on.
        let later = start + Duration::from_secs(60);
        let again = written(Some(&announced), &both, later);
        assert_eq!(again, announced);
        // The old root goes.
        let alone = written(Some(&again), &new, later);
        assert!(!vouches(&alone, &before, 1000) && vouches(&alone, &after, 121));
        // A note in the future is set right by the next write.
        let ahead = written(Some(&first), &both, start + Duration::from_secs(9999));
        assert!(!vouches(&ahead, &after, 500));
        assert!(vouches(&written(Some(&ahead), &both, start), &after, 121));
    }
}
