//! How one authority follows another. Pure: time is an argument.
//!
//! Whoever trusts only the old root refuses what is signed under a new one, and it takes a while
//! until everybody has read a new bundle. So where the new bundle still has the old root, the old
//! signer goes on, with the new bundle, until that time is over.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrider_identity::authority::{AuthorityMaterial, Lifetimes, Text};
use outrider_identity::{AuthorityError, CertificateAuthority, TrustDomain};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

/// An authority with what it was made of.
#[derive(Debug, Clone)]
pub(super) struct Authority {
    pub(super) material: AuthorityMaterial,
    pub(super) signer: Arc<CertificateAuthority>,
    lifetimes: Lifetimes,
}

impl Authority {
    /// # Errors
    /// See [`CertificateAuthority::new`].
    pub(super) fn new(
        material: AuthorityMaterial,
        trust_domain: &TrustDomain,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let signer = CertificateAuthority::new(&material, trust_domain, now)?;
        Ok(Self {
            material,
            signer: Arc::new(signer.with_lifetimes(lifetimes)),
            lifetimes,
        })
    }

    /// A certificate as a workload gets it.
    fn sample(&self, now: SystemTime) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        self.signer.sample(now)
    }
}

/// The authority that signs, and the one that will.
#[derive(Debug)]
pub(super) struct Rotation {
    current: Authority,
    next: Option<(Authority, Instant)>,
    trust_domain: TrustDomain,
    propagation: Duration,
}

impl Rotation {
    pub(super) fn new(first: Authority, trust_domain: TrustDomain, propagation: Duration) -> Self {
        Self {
            current: first,
            next: None,
            trust_domain,
            propagation,
        }
    }

    /// Whether this is what was offered last.
    pub(super) fn is_known(&self, material: &AuthorityMaterial) -> bool {
        let next = self.next.as_ref().map(|(next, _)| next);
        next.unwrap_or(&self.current).material == *material
    }

    /// When the next one begins to sign; none if there is none.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next.as_ref().map(|(_, due)| *due)
    }

    /// Takes another authority, and gives what signs from now on.
    ///
    /// # Errors
    /// The cryptographic library failed.
    pub(super) fn offer(
        &mut self,
        next: Authority,
        now: Instant,
        wall: SystemTime,
    ) -> Result<Arc<CertificateAuthority>, AuthorityError> {
        let sample = next.sample(wall)?;
        let welcome = self.current.signer.verify(&sample, wall).is_ok();
        if !welcome && let Some(bridge) = self.bridge(&next, wall) {
            self.current = bridge;
            self.next = Some((next, now + self.propagation));
        } else {
            self.current = next;
            self.next = None;
        }
        Ok(Arc::clone(&self.current.signer))
    }

    /// The time of the old signer is over: what signs from now on.
    pub(super) fn complete(&mut self) -> Option<Arc<CertificateAuthority>> {
        let (next, _) = self.next.take()?;
        self.current = next;
        Some(Arc::clone(&self.current.signer))
    }

    /// The old signer with the new roots; none when they do not vouch for it any more.
    fn bridge(&self, next: &Authority, wall: SystemTime) -> Option<Authority> {
        let material = AuthorityMaterial {
            roots: Some(Text {
                origin: "the new roots".to_owned(),
                pem: next.signer.trust_bundle().to_pem(),
            }),
            ..self.current.material.clone()
        };
        Authority::new(material, &self.trust_domain, next.lifetimes, wall).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::new("cluster.local").unwrap()
    }

    fn root() -> AuthorityMaterial {
        AuthorityMaterial::self_signed(&domain(), SystemTime::now()).unwrap()
    }

    fn authority(material: &AuthorityMaterial, roots: &[&AuthorityMaterial]) -> Authority {
        let roots: String = roots
            .iter()
            .map(|root| root.certificate.pem.as_str())
            .collect();
        let material = AuthorityMaterial {
            roots: Some(Text {
                origin: "ca.crt".to_owned(),
                pem: roots,
            }),
            ..material.clone()
        };
        Authority::new(material, &domain(), Lifetimes::default(), SystemTime::now()).unwrap()
    }

    #[test]
    fn a_new_root_is_announced_before_it_signs() {
        let (old, new) = (root(), root());
        let (start, wall) = (Instant::now(), SystemTime::now());
        let minute = Duration::from_secs(60);
        let before = authority(&old, &[&old]);
        let after = authority(&new, &[&new, &old]);
        let old_sample = before.sample(wall).unwrap();
        let new_sample = after.sample(wall).unwrap();
        let mut rotation = Rotation::new(before, domain(), minute);

        let signer = rotation.offer(after.clone(), start, wall).unwrap();
        assert_eq!(rotation.due(), Some(start + minute));
        assert!(rotation.is_known(&after.material));
        assert_eq!(signer.trust_bundle().roots().len(), 2, "both are announced");
        assert!(signer.signed(&old_sample[0], wall) && !signer.signed(&new_sample[0], wall));

        let signer = rotation.complete().unwrap();
        assert!(signer.signed(&new_sample[0], wall));
        assert!(rotation.due().is_none() && rotation.complete().is_none());
        assert!(rotation.is_known(&after.material));

        // The old root goes: nothing new to announce.
        let alone = authority(&new, &[&new]);
        let signer = rotation.offer(alone, start, wall).unwrap();
        assert!(rotation.due().is_none());
        assert!(signer.verify(&old_sample, wall).is_err());
    }

    #[test]
    fn what_everybody_trusts_or_nobody_can_wait_for_signs_at_once() {
        let (old, new) = (root(), root());
        let (start, wall) = (Instant::now(), SystemTime::now());
        let minute = Duration::from_secs(60);
        let both = authority(&old, &[&old, &new]);
        // The roots were announced before by their owner.
        let mut rotation = Rotation::new(both, domain(), minute);
        let signer = rotation.offer(authority(&new, &[&old, &new]), start, wall);
        let sample = authority(&new, &[&new]).sample(wall).unwrap();
        assert!(signer.unwrap().signed(&sample[0], wall) && rotation.due().is_none());
        // The old root is gone, so the old signer would be refused by whoever has the bundle.
        let mut rotation = Rotation::new(authority(&old, &[&old]), domain(), minute);
        let signer = rotation.offer(authority(&new, &[&new]), start, wall);
        assert!(signer.unwrap().signed(&sample[0], wall) && rotation.due().is_none());
    }

    #[test]
    fn a_change_of_mind_counts_from_what_signs() {
        let (old, new, other) = (root(), root(), root());
        let (start, wall) = (Instant::now(), SystemTime::now());
        let minute = Duration::from_secs(60);
        let before = authority(&old, &[&old]);
        let mut rotation = Rotation::new(before.clone(), domain(), minute);
        let announced = authority(&new, &[&old, &new]);
        rotation.offer(announced, start, wall).unwrap();
        let later = start + minute / 2;
        let another = authority(&other, &[&old, &other]);
        let signer = rotation.offer(another, later, wall).unwrap();
        assert_eq!(rotation.due(), Some(later + minute));
        let sample = before.sample(wall).unwrap();
        assert!(signer.signed(&sample[0], wall));
        // Back to where it was.
        rotation.offer(before, later, wall).unwrap();
        assert!(rotation.due().is_none());
    }
}
