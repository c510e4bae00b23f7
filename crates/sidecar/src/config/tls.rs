//! `DownstreamTlsContext` and `UpstreamTlsContext`, as plain values. `crate::tls` makes them work.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::secret::{Secret, ValidationContext};
use crate::discovery::slot::Slot;

/// `CommonTlsContext`.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Oldest version offered.
    pub min_version: TlsVersion,
    /// Newest version offered.
    pub max_version: TlsVersion,
    /// `cipher_suites` of TLS 1.2, in order, as far as they are on offer; empty: all.
    pub cipher_suites: Vec<rustls::CipherSuite>,
    /// `ecdh_curves`, as far as they are on offer; empty: all.
    pub groups: Vec<rustls::NamedGroup>,
    /// `signature_algorithms`, in order; empty: all.
    pub signature_schemes: Vec<rustls::SignatureScheme>,
    /// `alpn_protocols`, in order of preference.
    pub alpn: Vec<Arc<[u8]>>,
    /// Certificates: inline ones are filled slots. Empty upstream: no client certificate.
    pub certificates: Vec<Arc<Slot<Secret>>>,
    /// What peers are validated against.
    pub validation: Validation,
    /// Downstream: `session_ticket_keys`, of either kind.
    pub ticket_keys: Option<Arc<Slot<Secret>>>,
    /// `key_log`
    pub key_log: Option<KeyLogSettings>,
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

/// `TlsKeyLog`: whose session keys are written down, and where.
#[derive(Clone, Debug)]
pub struct KeyLogSettings {
    /// `path`
    pub path: PathBuf,
    /// `local_address_range`; empty: any.
    pub local: Vec<IpNet>,
    /// `remote_address_range`; empty: any.
    pub remote: Vec<IpNet>,
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
    /// Which sessions may be resumed.
    pub resumption: ServerResumption,
    /// `session_timeout`: how long a session may be resumed.
    pub session_timeout: Option<Duration>,
    /// `ocsp_staple_policy`
    pub staple_policy: StaplePolicy,
    /// `full_scan_certs_on_sni_mismatch`
    pub full_scan: bool,
    /// `prefer_client_ciphers`
    pub prefer_client_ciphers: bool,
}

/// How a server lets clients resume sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerResumption {
    /// Not at all.
    None,
    /// By tickets, with `ticket_keys` or keys of our own. Where clients are verified only if the
    /// configuration asks for it, by keys or by a timeout: see the design, "mTLS".
    Tickets,
    /// By sessions that the server remembers: TLS 1.2, where tickets are disabled.
    Remembered,
}

/// `OcspStaplePolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaplePolicy {
    /// `LENIENT_STAPLING`: a staple that is missing or expired is left out.
    #[default]
    Lenient,
    /// `STRICT_STAPLING`: a certificate whose staple expired is not shown.
    Strict,
    /// `MUST_STAPLE`: a certificate without a valid staple is not shown.
    Must,
}

/// `UpstreamTlsContext`.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Common settings.
    pub settings: TlsSettings,
    /// `sni`, or empty: none is sent.
    pub sni: Arc<str>,
    /// `auto_host_sni`: the endpoint's host name goes before `sni`, where it has one.
    pub auto_host_sni: bool,
    /// `auto_sni_san_validation`: the server's DNS names must have the name that was sent, in place
    /// of the validation context's matchers.
    pub auto_sni_san_validation: bool,
    /// `max_session_keys`: 0 turns resumption off.
    pub max_session_keys: u32,
}
