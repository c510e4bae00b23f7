//! `DownstreamTlsContext` and `UpstreamTlsContext`, as plain values. `crate::tls` makes them work.

use std::sync::Arc;

use super::secret::{Secret, ValidationContext};
use crate::discovery::slot::Slot;

/// `CommonTlsContext`.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Oldest version offered.
    pub min_version: TlsVersion,
    /// Newest version offered.
    pub max_version: TlsVersion,
    /// `cipher_suites` of TLS 1.2, as far as they are on offer; empty: all.
    pub cipher_suites: Vec<rustls::CipherSuite>,
    /// `ecdh_curves`, as far as they are on offer; empty: all.
    pub groups: Vec<rustls::NamedGroup>,
    /// `alpn_protocols`, in order of preference.
    pub alpn: Vec<Arc<[u8]>>,
    /// Certificates: inline ones are filled slots. Empty upstream: no client certificate.
    pub certificates: Vec<Arc<Slot<Secret>>>,
    /// What peers are validated against.
    pub validation: Validation,
}

/// `validation_context_type`.
#[derive(Clone, Debug)]
pub enum Validation {
    /// None: the peer is not verified (upstream), or asked for no certificate (downstream).
    None,
    /// Inline or from SDS, alone.
    Context(Arc<Slot<Secret>>),
    /// `combined_validation_context`: the default's lists are merged into the secret's.
    Combined {
        /// `default_validation_context`
        defaults: Arc<ValidationContext>,
        /// `validation_context_sds_secret_config`
        slot: Arc<Slot<Secret>>,
    },
}

/// TLS versions that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    V1_2,
    /// TLS 1.3
    V1_3,
}

/// `DownstreamTlsContext`.
#[derive(Clone, Debug)]
pub struct DownstreamTls {
    /// Common settings.
    pub settings: TlsSettings,
    /// `require_client_certificate`
    pub require_client_certificate: bool,
}

/// `UpstreamTlsContext`.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Common settings.
    pub settings: TlsSettings,
    /// `sni`, or empty: none is sent.
    pub sni: Arc<str>,
    /// `max_session_keys`: 0 turns resumption off.
    pub max_session_keys: u32,
}
