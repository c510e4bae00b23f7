//! `x-forwarded-client-cert`: what the next hop is told about the client's certificate.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

use outrider_identity::certificate::{CertificateDetails, certificate_to_pem};
use rustls_pki_types::CertificateDer;

use super::context::Context;
use crate::config::http_connection_manager::{
    ClientCertDetails, ClientCertRule, ForwardClientCert, HttpConnectionManager,
};
use crate::http::headers::Name;
use crate::http::message::RequestHead;
use crate::listener::connection::Connection;
use crate::matching::RequestInputs;
use crate::tls::stream::Handshake;

/// An element in either form of the header: a client may have sent the other one, and what it sent
/// goes on in its form.
type Element = (ClientCertDetails, Rc<[u8]>);

/// What one connection's client is told of, made once: the text depends on nothing else.
pub struct Elements {
    /// For the rule of all requests, if the client gave a certificate.
    common: Option<Element>,
    /// Those that were made for other rules and forms.
    others: RefCell<Vec<Element>>,
}

impl Elements {
    /// What the manager's own rule needs.
    pub fn new(connection: &Connection, manager: &HttpConnectionManager) -> Self {
        let rule = manager.client_cert;
        let tls = connection.tls.as_ref();
        let tls = tls.filter(|_| rule.asks_for_certificate());
        let common = tls.and_then(|tls| Some((rule.details, element(tls, rule.details)?)));
        Elements {
            common,
            others: RefCell::default(),
        }
    }

    /// The element with these details; none where the client gave no certificate.
    fn of(&self, connection: &Connection, details: ClientCertDetails) -> Option<Rc<[u8]>> {
        let with_these = |(made, _): &&Element| *made == details;
        if let Some((_, text)) = self.common.as_ref().filter(with_these) {
            return Some(text.clone());
        }
        let mut others = self.others.borrow_mut();
        if let Some((_, text)) = others.iter().find(with_these) {
            return Some(text.clone());
        }
        let text = element(connection.tls.as_deref()?, details)?;
        others.push((details, text.clone()));
        Some(text)
    }
}

fn element(handshake: &Handshake, details: ClientCertDetails) -> Option<Rc<[u8]>> {
    let leaf = handshake.peer_chain.first()?;
    let names = CertificateDetails::parse(leaf).ok()?;
    // Few have another name than the first, and fewer none.
    let own = handshake.own_certificate.as_ref();
    let own = own.filter(|_| handshake.own_uri.is_some());
    let own = own.and_then(|own| CertificateDetails::parse(own).ok());
    let by = own.map_or_else(Vec::new, |own| own.uris);
    let text = if details.json {
        in_json(handshake, &names, &by, details)
    } else {
        in_text(handshake, &names, &by, details)
    };
    Some(text.into_bytes().into())
}

fn in_text(
    handshake: &Handshake,
    names: &CertificateDetails,
    by: &[String],
    details: ClientCertDetails,
) -> String {
    let mut text = String::new();
    for own in by {
        let _ = write!(text, "By={own};");
    }
    text.push_str("Hash=");
    text.push_str(&names.sha256_hex());
    if details.cert {
        text.push_str(";Cert=\"");
        push_pem(&mut text, &handshake.peer_chain[..1]);
        text.push('"');
    }
    if details.chain {
        text.push_str(";Chain=\"");
        push_pem(&mut text, &handshake.peer_chain);
        text.push('"');
    }
    if details.subject {
        // Its form escapes quotes already.
        let _ = write!(text, ";Subject=\"{}\"", names.subject);
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
    if details.issuer {
        let _ = write!(text, ";Issuer=\"{}\"", names.issuer);
    }
    text
}

fn in_json(
    handshake: &Handshake,
    names: &CertificateDetails,
    by: &[String],
    details: ClientCertDetails,
) -> String {
    let mut text = String::from("{");
    let mut push = |key: &str, value: serde_json::Value| {
        let comma = if text.len() > 1 { "," } else { "" };
        let _ = write!(text, "{comma}\"{key}\":{value}");
    };
    if !by.is_empty() {
        push("by", by.into());
    }
    push("hash", names.sha256_hex().into());
    let pem = |certificate: &CertificateDer<'_>| certificate_to_pem(certificate);
    if details.cert {
        push("cert", pem(&handshake.peer_chain[0]).into());
    }
    if details.chain {
        let chain: Vec<_> = handshake.peer_chain.iter().map(pem).collect();
        push("chain", chain.into());
    }
    if details.subject {
        push("subject", names.subject.as_str().into());
    }
    if details.uri && !names.uris.is_empty() {
        push("uri", names.uris.as_slice().into());
    }
    if details.dns && !names.dns_names.is_empty() {
        push("dns", names.dns_names.as_slice().into());
    }
    if details.issuer {
        push("issuer", names.issuer.as_str().into());
    }
    text.push('}');
    text
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
fn push_pem(text: &mut String, chain: &[CertificateDer<'_>]) {
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

/// Applies the rule for this request to it.
pub fn apply(context: &Context, request: &mut RequestHead) {
    let manager = &context.manager;
    let tree = manager.client_cert_matcher.as_ref();
    let special = tree.and_then(|tree| tree.find(&RequestInputs(request)));
    let ClientCertRule { forward, details } = *special.unwrap_or(&manager.client_cert);
    let name = Name::XForwardedClientCert;
    request.headers.join(name, b",");
    if forward == ForwardClientCert::AlwaysForwardOnly {
        return;
    }
    // Without mutual TLS there is nobody to vouch for what the client says of itself.
    if !context.certificate.presented || forward == ForwardClientCert::Sanitize {
        request.headers.remove(name);
        return;
    }
    let element = |details| {
        let elements = &context.client_certificate;
        elements
            .of(&context.connection, details)
            .unwrap_or_default()
    };
    match forward {
        ForwardClientCert::AppendForward if request.headers.contains(name) => {
            let sent = request.headers.first(name).unwrap_or_default();
            let list = list_in_json(sent).map(<[u8]>::to_vec);
            let json = list.is_some();
            let element = element(ClientCertDetails { json, ..details });
            match list {
                Some(list) => {
                    let comma: &[u8] = if list.trim_ascii().is_empty() {
                        b""
                    } else {
                        b","
                    };
                    let all = [b"[", &list[..], comma, &element, b"]"].concat();
                    request.headers.set(name, &all);
                }
                None => request.headers.append_to_list(name, &element),
            }
        }
        ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet => {
            let element = element(details);
            if details.json {
                let all = [b"[", &element[..], b"]"].concat();
                request.headers.set(name, &all);
            } else {
                request.headers.set(name, &element);
            }
        }
        ForwardClientCert::ForwardOnly
        | ForwardClientCert::AlwaysForwardOnly
        | ForwardClientCert::Sanitize => {}
    }
}

/// What stands between the brackets of a header in JSON.
fn list_in_json(sent: &[u8]) -> Option<&[u8]> {
    sent.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]")
}
