//! What a connection's first bytes are: TLS (tls_inspector), HTTP (http_inspector), or neither.
//!
//! No I/O happens here; the bytes are read once and handed on with the connection.

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
    /// What filter chains match as the transport protocol; empty without tls_inspector.
    pub fn transport_protocol(&self, inspected: bool) -> &'static str {
        match (&self.hello, inspected) {
            (Some(_), _) => "tls",
            (None, true) => "raw_buffer",
            (None, false) => "",
        }
    }
}

/// Looks at the bytes that have come so far; `None` where more are needed to tell.
pub fn inspect(bytes: &[u8], tls: bool, http: bool) -> Option<Found> {
    if tls && bytes.len() <= client_hello::MAX_HELLO {
        match client_hello::parse(bytes) {
            Parsed::NeedMore => return None,
            Parsed::Hello(hello) => {
                return Some(Found {
                    hello: Some(hello),
                    http: None,
                });
            }
            Parsed::NotTls => {}
        }
    }
    if !http {
        return Some(Found::default());
    }
    http_version(bytes).map(|http| Found { hello: None, http })
}

/// The version of an HTTP request that begins so; `None` where more bytes are needed.
fn http_version(bytes: &[u8]) -> Option<Option<&'static str>> {
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
            let found = inspect(bytes, true, true).map(|found| found.http);
            assert_eq!(found, *expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn without_an_inspector_nothing_is_waited_for() {
        assert_eq!(inspect(b"", false, false), Some(Found::default()));
        assert_eq!(
            inspect(b"\x16\x03\x01", true, false),
            None,
            "the beginning of a hello"
        );
        assert_eq!(inspect(b"SSH-2.0", true, false), Some(Found::default()));
    }
}
