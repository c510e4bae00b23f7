//! `%DOWNSTREAM_PEER_...%` and `%DOWNSTREAM_LOCAL_...%`: what the client's certificate and ours say.

use std::io::Write as _;
use std::time::SystemTime;

use outrider_identity::CertificateDetails;
use outrider_identity::certificate::certificate_to_pem;

use super::text::visible;
use super::time::TimeFormat;
use crate::tls::stream::Handshake;

/// One fact of the client's certificate.
#[derive(Debug)]
pub(super) enum PeerFact {
    UriSan,
    DnsSan,
    IpSan,
    EmailSan,
    Subject,
    Issuer,
    Serial,
    /// SHA-256 of the certificate in hexadecimal.
    Fingerprint,
    /// The same of every certificate of the chain, and their serial numbers.
    Fingerprints,
    Serials,
    /// The same of our own certificate.
    Own(Box<PeerFact>),
    /// The certificate as percent-encoded PEM.
    Certificate,
    ValidFrom(TimeFormat),
    ValidUntil(TimeFormat),
}

impl PeerFact {
    /// Appends it; says whether there is one.
    pub(super) fn write(&self, handshake: Option<&Handshake>, out: &mut Vec<u8>) -> bool {
        let Some(handshake) = handshake else {
            return false;
        };
        let each = |fact: fn(CertificateDetails) -> String| {
            let chain = handshake.peer_chain.iter();
            chain.filter_map(move |der| CertificateDetails::parse(der).ok().map(fact))
        };
        match self {
            PeerFact::UriSan => return list(handshake.peer_uris.iter(), out),
            PeerFact::Own(fact) => {
                let own = handshake.own_certificate.as_ref();
                return own.is_some_and(|leaf| fact.write_of(leaf, out));
            }
            PeerFact::Fingerprints => return list(each(|details| details.sha256_hex()), out),
            PeerFact::Serials => return list(each(|details| details.serial), out),
            _ => {}
        }
        let leaf = handshake.peer_chain.first();
        leaf.is_some_and(|leaf| self.write_of(leaf, out))
    }

    /// Appends what one certificate says.
    fn write_of(&self, leaf: &[u8], out: &mut Vec<u8>) -> bool {
        // The chain was verified, so it was parsed before; what cannot be parsed says nothing.
        let Ok(details) = CertificateDetails::parse(leaf) else {
            return false;
        };
        match self {
            // Those of a whole chain, and what is in a fact already.
            PeerFact::Own(_) | PeerFact::Fingerprints | PeerFact::Serials => false,
            PeerFact::UriSan => list(details.uris.iter(), out),
            PeerFact::DnsSan => list(details.dns_names.iter(), out),
            PeerFact::EmailSan => list(details.emails.iter(), out),
            PeerFact::IpSan => list(details.ip_addresses.iter().map(ToString::to_string), out),
            PeerFact::Subject => text(&details.subject, out),
            PeerFact::Issuer => text(&details.issuer, out),
            PeerFact::Serial => text(&details.serial, out),
            PeerFact::Fingerprint => text(&details.sha256_hex(), out),
            PeerFact::Certificate => {
                percent_encoded(&certificate_to_pem(leaf), out);
                true
            }
            PeerFact::ValidFrom(format) => time(format, details.not_before, out),
            PeerFact::ValidUntil(format) => time(format, details.not_after, out),
        }
    }
}

fn text(value: &str, out: &mut Vec<u8>) -> bool {
    visible(value.as_bytes(), out);
    !value.is_empty()
}

fn time(format: &TimeFormat, at: SystemTime, out: &mut Vec<u8>) -> bool {
    format.write(at, out);
    true
}

/// Appends text with everything but RFC 3986's unreserved characters as `%XX`.
fn percent_encoded(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Appends names joined by commas.
fn list(names: impl Iterator<Item = impl AsRef<str>>, out: &mut Vec<u8>) -> bool {
    let mut any = false;
    for name in names {
        if any {
            out.push(b',');
        }
        visible(name.as_ref().as_bytes(), out);
        any = true;
    }
    any
}
