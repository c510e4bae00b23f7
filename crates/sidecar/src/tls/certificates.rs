//! Which of our certificates a peer is shown.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use outrider_identity::CertificateDetails;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::error::TlsError;
use super::witness::{self, Staple};
use crate::config::secret::TlsCertificate;
use crate::config::tls::StaplePolicy;

/// A certificate of ours.
#[derive(Debug)]
pub struct Own {
    /// With its chain and key.
    pub certified: Arc<CertifiedKey>,
    /// Its first URI name: our SPIFFE id.
    pub uri: Option<Arc<str>>,
}

impl Own {
    /// A certificate whose key signs by `schemes` only, unless they are empty.
    fn new(certified: &CertifiedKey, schemes: &[SignatureScheme]) -> Arc<Self> {
        let uri = certified.cert.first().and_then(|leaf| {
            let details = CertificateDetails::parse(leaf).ok()?;
            details.uris.into_iter().next().map(Arc::from)
        });
        let mut certified = certified.clone();
        if !schemes.is_empty() {
            certified.key = Arc::new(Restricted {
                key: certified.key,
                schemes: schemes.into(),
            });
        }
        Arc::new(Own {
            certified: Arc::new(certified),
            uri,
        })
    }
}

/// A key that signs in some ways only (`signature_algorithms`).
#[derive(Debug)]
struct Restricted {
    key: Arc<dyn SigningKey>,
    schemes: Box<[SignatureScheme]>,
}

impl SigningKey for Restricted {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let both: Vec<_> = offered
            .iter()
            .copied()
            .filter(|scheme| self.schemes.contains(scheme))
            .collect();
        self.key.choose_scheme(&both)
    }

    fn public_key(&self) -> Option<rustls_pki_types::SubjectPublicKeyInfoDer<'_>> {
        self.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

/// The server's certificates, chosen as Envoy does: by the name that the client asks for, and among
/// those of one name by what the client can verify, RSA last.
#[derive(Debug)]
pub struct ServerCertificates {
    all: Vec<Candidate>,
    /// By server name, or by `.example.com` for `*.example.com`: the first of each kind of key.
    by_name: HashMap<Box<str>, Vec<usize>>,
    policy: StaplePolicy,
    full_scan: bool,
}

#[derive(Debug)]
struct Candidate {
    own: Arc<Own>,
    /// The same without its staple.
    bare: Arc<Own>,
    must_staple: bool,
    /// The end of validity of the staple, if there is one.
    staple_expires: Option<SystemTime>,
}

impl Candidate {
    fn is_rsa(&self) -> bool {
        self.own.certified.key.algorithm() == SignatureAlgorithm::RSA
    }

    fn staple(&self, policy: StaplePolicy) -> Staple {
        let valid = self
            .staple_expires
            .is_some_and(|expires| expires > SystemTime::now());
        let policy = if self.must_staple {
            StaplePolicy::Must
        } else {
            policy
        };
        match (policy, valid) {
            (_, true) => Staple::Sent,
            (StaplePolicy::Lenient, false) => Staple::Omitted,
            (StaplePolicy::Strict, false) if self.staple_expires.is_none() => Staple::Omitted,
            (StaplePolicy::Strict | StaplePolicy::Must, false) => Staple::Failed,
        }
    }
}

impl ServerCertificates {
    /// Certificates in the configuration's order, of which there is at least one.
    ///
    /// # Errors
    /// The policy demands a staple that one of them lacks.
    pub fn new(
        certificates: &[&TlsCertificate],
        schemes: &[SignatureScheme],
        policy: StaplePolicy,
        full_scan: bool,
    ) -> Result<Self, TlsError> {
        let mut chosen = ServerCertificates {
            all: Vec::new(),
            by_name: HashMap::new(),
            policy,
            full_scan,
        };
        for certificate in certificates {
            if policy == StaplePolicy::Must && certificate.certified.ocsp.is_none() {
                return Err(TlsError::StapleMissing);
            }
            let mut bare = CertifiedKey::clone(&certificate.certified);
            bare.ocsp = None;
            let candidate = Candidate {
                own: Own::new(&certificate.certified, schemes),
                bare: Own::new(&bare, schemes),
                must_staple: certificate.must_staple,
                staple_expires: certificate.staple_expires,
            };
            let index = chosen.all.len();
            for name in &certificate.server_names {
                let pattern = name.strip_prefix('*').filter(|rest| rest.starts_with('.'));
                let same = chosen
                    .by_name
                    .entry(pattern.unwrap_or(name).into())
                    .or_default();
                let algorithm = candidate.own.certified.key.algorithm();
                let has_kind =
                    |other: &usize| chosen.all[*other].own.certified.key.algorithm() == algorithm;
                if !same.iter().any(has_kind) {
                    same.push(index);
                }
            }
            chosen.all.push(candidate);
        }
        Ok(chosen)
    }

    fn choose(
        &self,
        server_name: Option<&str>,
        schemes: &[SignatureScheme],
        asks_for_staple: bool,
    ) -> Option<&Candidate> {
        let best = |indices: &mut dyn Iterator<Item = usize>| {
            let mut rsa = None;
            for candidate in indices.map(|index| &self.all[index]) {
                let fails = asks_for_staple && candidate.staple(self.policy) == Staple::Failed;
                if fails || candidate.own.certified.key.choose_scheme(schemes).is_none() {
                    continue;
                }
                if !candidate.is_rsa() {
                    return Some(candidate);
                }
                rsa = rsa.or(Some(candidate));
            }
            rsa
        };
        let named = |name: &str| {
            let indices = self.by_name.get(name)?;
            best(&mut indices.iter().copied())
        };
        if let Some(name) = server_name {
            let name = name.to_ascii_lowercase();
            let wildcard = || {
                let dot = name.get(1..)?.find('.')? + 1;
                (dot + 1 < name.len()).then(|| named(&name[dot..]))?
            };
            if let Some(found) = named(&name).or_else(wildcard) {
                return Some(found);
            }
            if !self.full_scan {
                return self.all.first();
            }
        }
        best(&mut (0..self.all.len())).or(self.all.first())
    }
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks = witness::note(|witness| witness.asks_for_staple);
        let chosen = self.choose(hello.server_name(), hello.signature_schemes(), asks)?;
        let staple = asks.then(|| chosen.staple(self.policy));
        let own = match staple {
            Some(Staple::Sent) => Some(&chosen.own),
            Some(Staple::Failed) => None,
            Some(Staple::Omitted) | None => Some(&chosen.bare),
        };
        witness::note(|witness| {
            witness.staple = staple;
            witness.own = own.cloned();
        });
        own.map(|own| Arc::clone(&own.certified))
    }
}

/// The client's certificates, in the configuration's order.
#[derive(Debug)]
pub struct ClientCertificates(Vec<Arc<Own>>);

impl ClientCertificates {
    /// All of them.
    pub fn new(certificates: &[&TlsCertificate], schemes: &[SignatureScheme]) -> Self {
        let own = |certificate: &&TlsCertificate| Own::new(&certificate.certified, schemes);
        ClientCertificates(certificates.iter().map(own).collect())
    }
}

impl ResolvesClientCert for ClientCertificates {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable = |own: &&Arc<Own>| own.certified.key.choose_scheme(schemes).is_some();
        let own = self.0.iter().find(usable)?;
        witness::note(|witness| witness.own = Some(Arc::clone(own)));
        Some(Arc::clone(&own.certified))
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
