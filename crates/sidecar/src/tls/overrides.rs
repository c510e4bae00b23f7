//! What one connection to a server asks for in place of what its context is configured with (Envoy's
//! filter state `envoy.network.upstream_server_name` and its like).

use outrider_identity::CertificateDetails;

use super::error::TlsError;
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
        let wanted = |name: &str| self.subject_alt_names.iter().any(|want| **want == *name);
        let wanted_host = |pattern: &String| {
            let mut names = self.subject_alt_names.iter();
            names.any(|name| is_host_of(pattern, name))
        };
        let found = details.uris.iter().any(|name| wanted(name))
            || details.dns_names.iter().any(wanted_host)
            || details.emails.iter().any(|name| wanted(name))
            || details
                .ip_addresses
                .iter()
                .any(|address| wanted(&address.to_string()));
        if found {
            return Ok(());
        }
        let names: Vec<_> = details.uris.into_iter().chain(details.dns_names).collect();
        Err(refused(&names.join(", ")))
    }
}

/// Whether a certificate's DNS name stands for `name`: itself, or with a star for its first label
/// (RFC 9525, section 6.3).
fn is_host_of(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(parent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label() {
        for (pattern, name, expected) in [
            ("a.example", "A.example", true),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", ".example", false),
            ("*.example", "example", false),
        ] {
            assert_eq!(is_host_of(pattern, name), expected, "{pattern} {name}");
        }
    }
}
