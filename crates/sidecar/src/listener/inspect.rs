//! What a connection's first bytes are: TLS (tls_inspector), HTTP (http_inspector), or neither.
//!
//! No I/O happens here; the bytes are read once and handed on with the connection.

use crate::config::listener_filter::TlsInspector;
use crate::tls::client_hello::{self, ClientHello, Parsed};

/// More than this without an end of the first line is no HTTP request.
const LONGEST_LINE: usize = 64 * 1024;
/// No registered method is longer than 17 bytes (IANA, "HTTP Method Registry").
const LONGEST_METHOD: usize = 32;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The client's hello, if it speaks TLS.
    pub hello: Option<ClientHello>,
    /// `http/1.0`, `http/1.1` or `h2c`, if it speaks plaintext HTTP.
    pub http: Option<&'static str>,
}

impl Found {
    /// What filter chains match as the transport protocol: where nobody looked, it is as if there
    /// were no TLS.
    pub fn transport_protocol(&self) -> &'static str {
        match &self.hello {
            Some(_) => "tls",
            None => "raw_buffer",
        }
    }
}

/// What the bytes that have come so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// More are needed to tell.
    NeedMore,
    /// A ClientHello.
    Is(ClientHello),
    /// Something else.
    Not,
    /// A ClientHello of more bytes than are looked at.
    TooLarge,
}

/// Looks for a ClientHello.
pub fn tls(bytes: &[u8], config: &TlsInspector) -> Inspected {
    match client_hello::parse(bytes) {
        Parsed::Hello(hello) => Inspected::Is(hello),
        Parsed::NotTls => Inspected::Not,
        Parsed::NeedMore if bytes.len() >= config.max_hello => Inspected::TooLarge,
        Parsed::NeedMore => Inspected::NeedMore,
    }
}

/// The version of an HTTP request that begins so; `None` where more bytes are needed.
pub fn http_version(bytes: &[u8]) -> Option<Option<&'static str>> {
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return (common == PREFACE.len()).then_some(Some("h2c"));
    }
    let method = bytes
        .iter()
        .take(LONGEST_METHOD + 1)
        .take_while(|b| is_token(**b))
        .count();
    match bytes.get(method) {
        None if method <= LONGEST_METHOD => return None,
        Some(b' ') if method > 0 => {}
        _ => return Some(None),
    }
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return (bytes.len() > LONGEST_LINE).then_some(None);
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    Some(if line.ends_with(b" HTTP/1.1") {
        Some("http/1.1")
    } else if line.ends_with(b" HTTP/1.0") {
        Some("http/1.0")
    } else {
        None
    })
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        let cases: &[(&[u8], Option<Option<&str>>)] = &[
            (b"", None),
            (b"G", None),
            (b"GET / HT", None),
            (b"GET / HTTP/1.1\r\n", Some(Some("http/1.1"))),
            (b"GET / HTTP/1.0\r\nHost", Some(Some("http/1.0"))),
            (b"PRI * HTTP/2.0\r", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM", Some(Some("h2c"))),
            (b"PRINT x HTTP/1.1\r\n", Some(Some("http/1.1"))),
            (b"EHLO example\r\n", Some(None)),
            (b"\x00\x01", Some(None)),
            (b" GET / HTTP/1.1\r\n", Some(None)),
            (b"*1\r\n$4\r\nPING\r\n", Some(None)),
            (b"GET / HTTP/3.0\r\n", Some(None)),
            (&[b'A'; 33], Some(None)),
        ];
        for (bytes, expected) in cases {
            let found = http_version(bytes);
            assert_eq!(found, *expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_hello_is_waited_for_as_long_as_it_may_be() {
        let config = TlsInspector {
            max_hello: 256,
            close_on_error: false,
            ja3: false,
            ja4: false,
        };
        let mut hello = b"\x16\x03\x01\x01\x80\x01\0\x01\x70\x03\x03".to_vec();
        assert_eq!(tls(&hello, &config), Inspected::NeedMore);
        hello.resize(256, 0);
        assert_eq!(tls(&hello, &config), Inspected::TooLarge);
        assert_eq!(tls(b"SSH-2.0", &config), Inspected::Not);
    }
}
