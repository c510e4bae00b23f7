//! What both kinds of context share: the secrets that they wait for, and what was built of them.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;

use super::error::TlsError;
use super::peer::PeerPolicy;
use crate::config::secret::{Secret, ValidationContext};
use crate::config::tls::{TlsSettings, TlsVersion, Validation};
use crate::discovery::slot::Slot;

/// The cryptography of the process.
pub fn default_provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

impl TlsSettings {
    /// The secrets that these settings need before a handshake can be made.
    pub fn slots(&self) -> impl Iterator<Item = &Arc<Slot<Secret>>> {
        let validation = match &self.validation {
            Validation::None => None,
            Validation::Context(slot) | Validation::Combined { slot, .. } => Some(slot),
        };
        self.certificates.iter().chain(validation)
    }

    /// The process's cryptography, as far as these settings allow it. Cipher suites can be chosen
    /// for TLS 1.2 only: those of 1.3 are all good, and Envoy always offers them, too.
    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let provider = default_provider();
        if self.cipher_suites.is_empty() && self.groups.is_empty() {
            return provider;
        }
        let mut provider = CryptoProvider::clone(&provider);
        if !self.cipher_suites.is_empty() {
            provider.cipher_suites.retain(|suite| {
                suite.tls13().is_some() || self.cipher_suites.contains(&suite.suite())
            });
        }
        if !self.groups.is_empty() {
            let place = |group: rustls::NamedGroup| self.groups.iter().position(|g| *g == group);
            provider
                .kx_groups
                .retain(|group| place(group.name()).is_some());
            provider.kx_groups.sort_by_key(|group| place(group.name()));
        }
        Arc::new(provider)
    }

    /// The versions that rustls may agree on.
    pub(super) fn versions(
        &self,
    ) -> Result<&'static [&'static SupportedProtocolVersion], TlsError> {
        use rustls::version::{TLS12, TLS13};
        const ONLY_1_2: &[&SupportedProtocolVersion] = &[&TLS12];
        const ONLY_1_3: &[&SupportedProtocolVersion] = &[&TLS13];
        const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        match (self.min_version, self.max_version) {
            (TlsVersion::V1_2, TlsVersion::V1_2) => Ok(ONLY_1_2),
            (TlsVersion::V1_3, TlsVersion::V1_3) => Ok(ONLY_1_3),
            (TlsVersion::V1_2, TlsVersion::V1_3) => Ok(BOTH),
            (TlsVersion::V1_3, TlsVersion::V1_2) => Err(TlsError::Versions),
        }
    }
}

/// The secrets of one moment.
pub struct Secrets {
    /// In the order of [`TlsSettings::slots`].
    values: Vec<Arc<Secret>>,
}

impl Secrets {
    fn load(settings: &TlsSettings) -> Result<Self, TlsError> {
        let values = settings
            .slots()
            .map(|slot| {
                slot.load()
                    .ok_or_else(|| TlsError::SecretMissing(Arc::clone(slot.name())))
            })
            .collect::<Result<_, _>>()?;
        Ok(Secrets { values })
    }

    /// Whether the slots still hold these very values. No lock, no allocation.
    fn are_current(&self, settings: &TlsSettings) -> bool {
        settings
            .slots()
            .zip(&self.values)
            .all(|(slot, value)| match &*slot.cell().load() {
                Some(present) => Arc::ptr_eq(present, value),
                None => false,
            })
    }

    /// The certificates with their keys.
    pub fn certificates(&self, settings: &TlsSettings) -> Result<Vec<Arc<CertifiedKey>>, TlsError> {
        settings
            .certificates
            .iter()
            .zip(&self.values)
            .map(|(slot, secret)| match &**secret {
                Secret::Certificate(certificate) => Ok(Arc::clone(&certificate.certified)),
                Secret::Validation(_) => Err(TlsError::SecretKind {
                    name: Arc::clone(slot.name()),
                    expected: "TLS certificate",
                }),
            })
            .collect()
    }

    /// What peers are held to.
    pub fn peer_policy(
        &self,
        settings: &TlsSettings,
        require_certificate: bool,
    ) -> Result<PeerPolicy, TlsError> {
        let mut contexts: Vec<&ValidationContext> = Vec::new();
        if let Validation::Combined { defaults, .. } = &settings.validation {
            contexts.push(defaults);
        }
        if let Validation::Context(slot) | Validation::Combined { slot, .. } = &settings.validation
        {
            match self.values.last().map(|secret| &**secret) {
                Some(Secret::Validation(context)) => contexts.push(context),
                _ => {
                    return Err(TlsError::SecretKind {
                        name: Arc::clone(slot.name()),
                        expected: "validation context",
                    });
                }
            }
        }
        PeerPolicy::new(&contexts, require_certificate, settings.provider())
    }
}

/// What was built of the secrets, and of which.
struct Built<T> {
    secrets: Secrets,
    value: Arc<T>,
}

/// Builds something of a context's secrets again whenever they change, at the next handshake.
pub struct Cached<T> {
    built: ArcSwapOption<Built<T>>,
}

impl<T> Cached<T> {
    /// Nothing is built yet.
    pub fn new() -> Self {
        Cached {
            built: ArcSwapOption::empty(),
        }
    }

    /// The value for the present secrets. Where they cannot be used the last good value stays in
    /// use, and that is logged once.
    ///
    /// # Errors
    /// A secret is missing, or nothing usable was ever built.
    pub fn current(
        &self,
        settings: &TlsSettings,
        build: impl FnOnce(&Secrets) -> Result<T, TlsError>,
    ) -> Result<Arc<T>, TlsError> {
        let last = self.built.load();
        if let Some(built) = &*last
            && built.secrets.are_current(settings)
        {
            return Ok(Arc::clone(&built.value));
        }
        let secrets = Secrets::load(settings)?;
        let value = match (build(&secrets), &*last) {
            (Ok(value), _) => Arc::new(value),
            (Err(error), Some(built)) => {
                let names: Vec<&str> = settings.slots().map(|slot| &**slot.name()).collect();
                tracing::warn!(
                    secrets = ?names, %error,
                    "cannot use the new TLS secrets; the old ones stay in use"
                );
                Arc::clone(&built.value)
            }
            (Err(error), None) => return Err(error),
        };
        self.built.store(Some(Arc::new(Built {
            secrets,
            value: Arc::clone(&value),
        })));
        Ok(value)
    }
}
