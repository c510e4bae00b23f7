//! What one connection to a server asks for in place of what its context is configured with (Envoy's
//! filter state `envoy.network.upstream_server_name` and its like).

use outrider_identity::CertificateDetails;

use super::error::TlsError;
use super::names;
use super::stream::Handshake;
use super::witness::Refusal;

/// The wishes of one connection; the default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The SNI.
    pub server_name: Option<Box<str>>,
    /// What ALPN offers; empty for what is configured.
    pub protocols: Vec<Box<[u8]>>,
    /// Names of which the server's certificate must have one, beside what is configured; empty for
    /// no further demand.
    pub subject_alt_names: Vec<Box<str>>,
}

impl Overrides {
    /// No wishes.
    pub const NONE: &Overrides = &Overrides {
        server_name: None,
        protocols: Vec::new(),
        subject_alt_names: Vec::new(),
    };

    /// Whether the server that was found is one of those that are asked for.
    ///
    /// # Errors
    /// Its certificate has none of the names, or it has no certificate that was verified.
    pub fn check(&self, handshake: &Handshake) -> Result<(), TlsError> {
        if self.subject_alt_names.is_empty() {
            return Ok(());
        }
        let leaf = handshake.peer_chain.first();
        let leaf = leaf.ok_or(TlsError::Refused(Refusal::NoCertificate))?;
        let refused = |found: &str| TlsError::Refused(Refusal::Names(found.into()));
        let details = CertificateDetails::parse(leaf).map_err(|_| refused("none that is read"))?;
        if names::has_any(&details, &self.subject_alt_names) {
            return Ok(());
        }
        Err(refused(&names::list(&details)))
    }
}
