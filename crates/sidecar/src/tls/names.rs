//! Whether a certificate has a name that the configuration demands.

use outrider_identity::CertificateDetails;

use crate::config::matcher::StringMatcher;
use crate::config::secret::{SanKind, SanMatcher};

/// Whether one of the certificate's names of that kind matches.
pub fn matches(name: &SanMatcher, details: &CertificateDetails) -> bool {
    let text = |text: &str| name.matcher.matches(text.as_bytes());
    match &name.kind {
        SanKind::Uri => details.uris.iter().any(|uri| text(uri)),
        // A wildcard in the certificate is compared as text, as Envoy does for all but exact
        // matches; for those it stands for a label (RFC 6125), and case does not matter.
        SanKind::Dns => match &name.matcher {
            StringMatcher::Exact(wanted, _) => covers(details, wanted),
            _ => details.dns_names.iter().any(|dns| text(dns)),
        },
        SanKind::Email => details.emails.iter().any(|mail| text(mail)),
        SanKind::Ip => details
            .ip_addresses
            .iter()
            .any(|address| text(&address.to_string())),
        SanKind::Other(oid) => details
            .other_names
            .iter()
            .any(|(kind, value)| **kind == **oid && text(value)),
    }
}

/// Whether the certificate is for a host of this name.
pub fn covers(details: &CertificateDetails, host: &[u8]) -> bool {
    let covers = |pattern: &String| {
        pattern.as_bytes().eq_ignore_ascii_case(host) || wildcard_covers(pattern, host)
    };
    details.dns_names.iter().any(covers)
}

/// `*.example.com` stands for one label.
fn wildcard_covers(pattern: &str, host: &[u8]) -> bool {
    let Some(suffix) = pattern.strip_prefix("*.") else {
        return false;
    };
    let Some(dot) = memchr::memchr(b'.', host) else {
        return false;
    };
    dot > 0 && host[dot + 1..].eq_ignore_ascii_case(suffix.as_bytes())
}

/// Whether the certificate has one of these names, of whichever kind.
pub fn has_any(details: &CertificateDetails, wanted: &[Box<str>]) -> bool {
    wanted.iter().any(|wanted| {
        covers(details, wanted.as_bytes())
            || details.uris.iter().any(|uri| **uri == **wanted)
            || details.emails.iter().any(|mail| **mail == **wanted)
            || details
                .ip_addresses
                .iter()
                .any(|address| address.to_string() == **wanted)
    })
}

/// The names for an error's text.
pub fn list(details: &CertificateDetails) -> String {
    let mut names: Vec<&str> = Vec::new();
    names.extend(details.uris.iter().map(String::as_str));
    names.extend(details.dns_names.iter().map(String::as_str));
    names.extend(details.emails.iter().map(String::as_str));
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label() {
        for (pattern, name, expected) in [
            ("*.example", "a.example", true),
            ("*.EXAMPLE", "a.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", ".example", false),
            ("*.example", "example", false),
            ("a.example", "a.example", false),
        ] {
            let covers = wildcard_covers(pattern, name.as_bytes());
            assert_eq!(covers, expected, "{pattern} {name}");
        }
    }
}
