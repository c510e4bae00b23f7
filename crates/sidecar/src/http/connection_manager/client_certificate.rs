//! `x-forwarded-client-cert`: what the next hop is told about the client's certificate.

use std::fmt::Write;

use outrider_identity::certificate::{CertificateDetails, certificate_to_pem};

use crate::config::http_connection_manager::{
    ClientCertDetails, ForwardClientCert, HttpConnectionManager,
};
use crate::http::headers::Name;
use crate::http::message::RequestHead;
use crate::tls::stream::Handshake;

/// The element that describes one connection's client, made once per connection: its text depends
/// on nothing else.
pub fn element(
    handshake: &Handshake,
    own_uri: Option<&str>,
    details: ClientCertDetails,
) -> Option<Vec<u8>> {
    let leaf = handshake.peer_chain.first()?;
    let names = CertificateDetails::parse(leaf).ok()?;
    let mut text = String::new();
    if let Some(own) = own_uri {
        let _ = write!(text, "By={own};");
    }
    text.push_str("Hash=");
    for byte in names.sha256 {
        let _ = write!(text, "{byte:02x}");
    }
    if details.cert {
        text.push_str(";Cert=\"");
        push_pem(&mut text, std::slice::from_ref(leaf));
        text.push('"');
    }
    if details.chain {
        text.push_str(";Chain=\"");
        push_pem(&mut text, &handshake.peer_chain);
        text.push('"');
    }
    if details.subject {
        let _ = write!(
            text,
            ";Subject=\"{}\"",
            names.subject.replace('\\', "\\\\").replace('"', "\\\"")
        );
    }
    if details.uri {
        // As with Envoy, the key is there even where the certificate has no URI.
        if names.uris.is_empty() {
            text.push_str(";URI=");
        }
        for uri in &names.uris {
            text.push_str(";URI=");
            push_value(&mut text, uri);
        }
    }
    if details.dns {
        for dns in &names.dns_names {
            text.push_str(";DNS=");
            push_value(&mut text, dns);
        }
    }
    Some(text.into_bytes())
}

/// A value is quoted where it could be taken for another key or another element.
fn push_value(text: &mut String, value: &str) {
    if !value.contains([',', ';', '"']) {
        return text.push_str(value);
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    let _ = write!(text, "\"{value}\"");
}

/// Percent-encoded PEM, as Envoy writes it.
fn push_pem(text: &mut String, chain: &[rustls_pki_types::CertificateDer<'_>]) {
    for certificate in chain {
        for byte in certificate_to_pem(certificate).bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
                text.push(byte as char);
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
}

/// Applies `forward_client_cert_details` to a request. `element` is this connection's, if its
/// client gave a certificate.
pub fn apply(manager: &HttpConnectionManager, element: Option<&[u8]>, request: &mut RequestHead) {
    let name = Name::XForwardedClientCert;
    match (manager.forward_client_cert, element) {
        (ForwardClientCert::AlwaysForwardOnly, _) | (ForwardClientCert::ForwardOnly, Some(_)) => {}
        (ForwardClientCert::AppendForward, Some(element)) => {
            request.headers.append_to_list(name, element)
        }
        (ForwardClientCert::SanitizeSet, Some(element)) => request.headers.set(name, element),
        // Without mutual TLS there is nobody to vouch for what the client says of itself.
        (ForwardClientCert::Sanitize, _) | (_, None) => {
            request.headers.remove(name);
        }
    }
}
