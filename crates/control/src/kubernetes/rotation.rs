//! How one authority follows another. Pure: time is an argument.
//!
//! Whoever trusts only the old root refuses what is signed under a new one, and it takes a while
//! until everybody has read a new bundle. So where the new bundle still has the old root, the old
//! signer goes on, with the new bundle, until that time is over. A process that starts with a root
//! that is new to the mesh does not have the old signer: it signs for no workload until then. Its
//! own serving certificate it cannot have from anybody else; clients that do not know the root yet
//! go to another replica, or try again.

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
    pub(super) fn sample(
        &self,
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        self.signer.sample(now)
    }
}

/// The authority that signs, and the one that will.
#[derive(Debug)]
pub(super) struct Rotation {
    current: Authority,
    next: Option<(Authority, Instant)>,
    /// The root was new to the mesh at the start and is still being announced.
    is_withheld: bool,
    trust_domain: TrustDomain,
    propagation: Duration,
}

impl Rotation {
    /// Begins with an authority whose root everybody has, or, with `is_withheld`, not.
    pub(super) fn new(
        first: Authority,
        is_withheld: bool,
        trust_domain: TrustDomain,
        propagation: Duration,
    ) -> Self {
        Self {
            current: first,
            next: None,
            is_withheld,
            trust_domain,
            propagation,
        }
    }

    /// Whether this is what was offered last.
    pub(super) fn is_known(&self, material: &AuthorityMaterial) -> bool {
        self.latest().material == *material
    }

    /// What was offered last.
    pub(super) fn latest(&self) -> &Authority {
        let next = self.next.as_ref().map(|(next, _)| next);
        next.unwrap_or(&self.current)
    }

    /// Whether nothing is signed until [`Self::release`].
    pub(super) fn is_withheld(&self) -> bool {
        self.is_withheld
    }

    /// Everybody has the root: what signs from now on.
    pub(super) fn release(&mut self) -> Arc<CertificateAuthority> {
        self.is_withheld = false;
        Arc::clone(&self.current.signer)
    }

    /// What signs now.
    ///
    /// # Errors
    /// The signing certificate has ended meanwhile.
    pub(super) fn in_force(
        &self,
        wall: SystemTime,
    ) -> Result<Arc<CertificateAuthority>, AuthorityError> {
        if !self.is_withheld {
            return Ok(Arc::clone(&self.current.signer));
        }
        let Authority {
            material,
            lifetimes,
            ..
        } = &self.current;
        let signer = CertificateAuthority::new(material, &self.trust_domain, wall)?;
        Ok(Arc::new(signer.with_lifetimes(*lifetimes).withheld()))
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
        // What is withheld has signed nothing that could go on.
        let at_once = self.is_withheld || self.current.signer.verify(&sample, wall).is_ok();
        if !at_once && let Some(bridge) = self.bridge(&next, wall) {
            self.current = bridge;
            self.next = Some((next, now + self.propagation));
        } else {
            self.current = next;
            self.next = None;
        }
        self.in_force(wall)
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
        let mut rotation = Rotation::new(before, false, domain(), minute);

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
        let mut rotation = Rotation::new(both, false, domain(), minute);
        let signer = rotation.offer(authority(&new, &[&old, &new]), start, wall);
        let sample = authority(&new, &[&new]).sample(wall).unwrap();
        assert!(signer.unwrap().signed(&sample[0], wall) && rotation.due().is_none());
        // The old root is gone, so the old signer would be refused by whoever has the bundle.
        let mut rotation = Rotation::new(authority(&old, &[&old]), false, domain(), minute);
        let signer = rotation.offer(authority(&new, &[&new]), start, wall);
        assert!(signer.unwrap().signed(&sample[0], wall) && rotation.due().is_none());
    }

    #[test]
    fn a_start_amid_a_rotation_signs_nothing_until_it_is_released() {
        let (old, new) = (root(), root());
        let (start, wall) = (Instant::now(), SystemTime::now());
        let id = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let key = outrider_identity::WorkloadKey::generate().unwrap();
        let request = key.signing_request(None).unwrap();
        let issue = |signer: &CertificateAuthority| signer.issue(&request, &id, None, wall);
        let first = authority(&new, &[&new, &old]);
        let mut rotation = Rotation::new(first, true, domain(), Duration::from_secs(60));
        let signer = rotation.in_force(wall).unwrap();
        assert!(matches!(issue(&signer), Err(AuthorityError::Withheld)));
        assert_eq!(signer.trust_bundle().roots().len(), 2, "both are announced");
        // It can serve meanwhile.
        assert!(
            signer
                .issue_serving(&["control".to_owned()], None, wall)
                .is_ok()
        );

        // Another change meanwhile, even back, waits for the release too.
        let back = authority(&old, &[&new, &old]);
        let signer = rotation.offer(back.clone(), start, wall).unwrap();
        assert!(matches!(issue(&signer), Err(AuthorityError::Withheld)));
        assert!(rotation.due().is_none() && rotation.is_known(&back.material));
        let signer = rotation.release();
        let issued = issue(&signer).unwrap();
        let old = authority(&old, &[&old]);
        assert!(old.signer.verify(&issued.chain, wall).is_ok() && !rotation.is_withheld());
    }

    #[test]
    fn a_change_of_mind_counts_from_what_signs() {
        let (old, new, other) = (root(), root(), root());
        let (start, wall) = (Instant::now(), SystemTime::now());
        let minute = Duration::from_secs(60);
        let before = authority(&old, &[&old]);
        let mut rotation = Rotation::new(before.clone(), false, domain(), minute);
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
