//! A downstream or upstream connection's bytes, plain or encrypted.

use std::sync::Arc;

use crate::config::tls::TlsVersion;

/// What a finished TLS handshake agreed on.
#[derive(Debug)]
pub struct Handshake {
    /// TLS 1.2 or 1.3.
    pub version: TlsVersion,
    /// IANA's name of the cipher suite.
    pub cipher: &'static str,
    /// The protocol agreed by ALPN; empty if none.
    pub alpn: Vec<u8>,
    /// The peer's verified certificates, leaf first; empty if it gave none.
    pub peer_chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// The peer's URI names, the first of which is its SPIFFE id.
    pub peer_uris: Vec<Arc<str>>,
}
