//! What both kinds of context share: the secrets that they wait for, and what was built of them.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{Context, SHA256};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedProtocolVersion};

use super::error::TlsError;
use super::key_log::KeyLog;
use crate::config::secret::{Secret, TicketKey, TlsCertificate, ValidationContext};
use crate::config::tls::{TlsSettings, TlsVersion, Validation};
use crate::discovery::slot::Slot;

/// Suites of TLS 1.2 in Envoy's order.
const DEFAULT_SUITES: &[CipherSuite] = &[
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
];

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
        self.certificates
            .iter()
            .chain(validation)
            .chain(&self.ticket_keys)
    }

    /// The process's cryptography, as far as these settings allow it. Cipher suites can be chosen
    /// for TLS 1.2 only: those of 1.3 are all good, and Envoy always offers them, too. Those of 1.2
    /// stand in Envoy's order unless the configuration has its own.
    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let suites = if self.cipher_suites.is_empty() {
            DEFAULT_SUITES
        } else {
            &self.cipher_suites
        };
        let place = |suite: CipherSuite| suites.iter().position(|other| *other == suite);
        let mut provider = CryptoProvider::clone(&default_provider());
        provider
            .cipher_suites
            .retain(|suite| suite.tls13().is_some() || place(suite.suite()).is_some());
        // Those of 1.3, which have no place, stay first.
        provider
            .cipher_suites
            .sort_by_key(|suite| place(suite.suite()));
        if !self.groups.is_empty() {
            let place = |group: rustls::NamedGroup| self.groups.iter().position(|g| *g == group);
            provider
                .kx_groups
                .retain(|group| place(group.name()).is_some());
            provider.kx_groups.sort_by_key(|group| place(group.name()));
        }
        Arc::new(provider)
    }

    /// Opens the key log, where one is configured.
    pub(super) fn open_key_log(&self) -> Result<Option<KeyLog>, TlsError> {
        let Some(settings) = &self.key_log else {
            return Ok(None);
        };
        let opened = KeyLog::open(settings.clone()).map_err(|source| TlsError::KeyLog {
            path: settings.path.clone(),
            source,
        });
        opened.map(Some)
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
    pub fn certificates<'s>(
        &'s self,
        settings: &TlsSettings,
    ) -> Result<Vec<&'s TlsCertificate>, TlsError> {
        settings
            .certificates
            .iter()
            .zip(&self.values)
            .map(|(slot, secret)| match &**secret {
                Secret::Certificate(certificate) => Ok(certificate),
                _ => Err(wrong_kind(slot, "TLS certificate")),
            })
            .collect()
    }

    /// The keys of tickets, where they are configured.
    pub fn ticket_keys(&self, settings: &TlsSettings) -> Result<Option<&[TicketKey]>, TlsError> {
        let Some(slot) = &settings.ticket_keys else {
            return Ok(None);
        };
        match self.values.last().map(|secret| &**secret) {
            Some(Secret::TicketKeys(keys)) => Ok(Some(keys)),
            _ => Err(wrong_kind(slot, "session ticket keys")),
        }
    }

    /// The validation contexts to be merged, in order.
    pub fn validation<'s>(
        &'s self,
        settings: &'s TlsSettings,
    ) -> Result<Vec<&'s ValidationContext>, TlsError> {
        let (defaults, slot) = match &settings.validation {
            Validation::None => return Ok(Vec::new()),
            Validation::Context(slot) => (None, slot),
            Validation::Combined { defaults, slot } => (Some(&**defaults), slot),
        };
        match self.values.get(settings.certificates.len()).map(|s| &**s) {
            Some(Secret::Validation(context)) => {
                Ok(defaults.into_iter().chain([context]).collect())
            }
            _ => Err(wrong_kind(slot, "validation context")),
        }
    }

    /// A digest of what a client of these settings is let in by: two contexts with the same one may
    /// take each other's sessions. It holds neither keys nor validity, so that renewed certificates
    /// change nothing.
    pub fn admission(
        &self,
        settings: &TlsSettings,
        require_certificate: bool,
    ) -> Result<[u8; 32], TlsError> {
        let mut digest = Context::new(&SHA256);
        // Each part with its length, so that none can pass for another.
        let mut part = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(&[u8::from(require_certificate)]);
        for certificate in self.certificates(settings)? {
            for name in &certificate.server_names {
                part(name.as_bytes());
            }
        }
        for context in self.validation(settings)? {
            for root in &context.trusted_ca {
                part(root);
            }
            for (domain, bundle) in context.spiffe.iter().flat_map(|bundles| bundles.iter()) {
                part(domain.as_str().as_bytes());
                for root in bundle.roots() {
                    part(root);
                }
            }
            let hashes = context.certificate_hashes.iter();
            for hash in hashes.chain(&context.public_key_hashes) {
                part(hash);
            }
            let rest = (
                &context.subject_alt_names,
                context.revocation_lists.len(),
                context.only_leaf_revocation,
                context.allow_expired,
                context.max_depth,
                context.accept_untrusted,
            );
            part(format!("{rest:?}").as_bytes());
        }
        let mut admission = [0; 32];
        admission.copy_from_slice(digest.finish().as_ref());
        Ok(admission)
    }
}

fn wrong_kind(slot: &Slot<Secret>, expected: &'static str) -> TlsError {
    TlsError::SecretKind {
        name: Arc::clone(slot.name()),
        expected,
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
