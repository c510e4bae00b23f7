//! The first message of a TLS connection (RFC 8446 section 4.1.2), as far as it decides where the
//! connection goes: server name, application protocols, versions.
//!
//! The bytes are a stranger's and may be anything. Nothing is allocated but the result, except
//! where a client spreads its hello over several records.

use std::borrow::Cow;

use super::record::{ContentType, HEADER, MAX_PLAINTEXT};
use crate::config::tls::TlsVersion;

/// The longest hello that is looked at; rustls takes no longer one.
pub const MAX_HELLO: usize = 1 << 16;

const CLIENT_HELLO: u8 = 1;
pub(super) const SERVER_NAME: u16 = 0;
const STATUS_REQUEST: u16 = 5;
pub(super) const ALPN: u16 = 16;
pub(super) const SUPPORTED_VERSIONS: u16 = 43;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name in lower case; `None` if there is none, or one that no host can have.
    pub server_name: Option<Box<str>>,
    /// Application protocols in the client's order.
    pub alpn: Vec<Box<[u8]>>,
    /// The newest version that the client speaks, of those that we know.
    pub newest_version: Option<TlsVersion>,
    /// Whether it asks for an OCSP response (RFC 6066, section 8).
    pub asks_for_staple: bool,
}

/// What the bytes received so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a hello, as far as can be told.
    NeedMore,
    /// Something else, or a hello that is broken.
    NotTls,
    /// A whole hello.
    Hello(ClientHello),
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Parsed {
    match parse_records(bytes) {
        Ok(Some(hello)) => Parsed::Hello(hello),
        Ok(None) => Parsed::NeedMore,
        Err(Malformed) => Parsed::NotTls,
    }
}

/// The hello's message without its header, where all of it is there.
pub fn message(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    joined_records(bytes).ok().flatten()
}

/// It is no ClientHello.
pub struct Malformed;

fn parse_records(bytes: &[u8]) -> Result<Option<ClientHello>, Malformed> {
    match joined_records(bytes)? {
        None => Ok(None),
        Some(message) => hello(&message).map(Some),
    }
}

fn joined_records(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Malformed> {
    let Some((first, mut rest, complete)) = record(bytes)? else {
        return Ok(None);
    };
    let Some(needed) = message_length(first)? else {
        // Not even the header of the message: no client cuts it there.
        return if complete { Err(Malformed) } else { Ok(None) };
    };
    if let Some(message) = first.get(4..needed) {
        return Ok(Some(Cow::Borrowed(message)));
    }
    if !complete {
        return Ok(None);
    }
    let mut joined = first.to_vec();
    while joined.len() < needed {
        let Some((fragment, after, complete)) = record(rest)? else {
            return Ok(None);
        };
        joined.extend_from_slice(fragment);
        rest = after;
        if !complete {
            break;
        }
    }
    if joined.len() < needed {
        return Ok(None);
    }
    joined.truncate(needed);
    joined.drain(..4);
    Ok(Some(Cow::Owned(joined)))
}

/// The payload of the first record as far as it is there, what follows, and whether it is whole.
type Record<'a> = (&'a [u8], &'a [u8], bool);

fn record(bytes: &[u8]) -> Result<Option<Record<'_>>, Malformed> {
    if bytes
        .first()
        .is_some_and(|kind| *kind != ContentType::HANDSHAKE.0)
        || bytes.get(1).is_some_and(|major| *major != 3)
    {
        return Err(Malformed);
    }
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length == 0 || length > MAX_PLAINTEXT {
        return Err(Malformed);
    }
    let payload = &bytes[HEADER..];
    Ok(Some(match payload.split_at_checked(length) {
        Some((payload, rest)) => (payload, rest, true),
        None => (payload, &[], false),
    }))
}

/// The length of the message that begins here, with its header; `None` if that is not there yet.
fn message_length(payload: &[u8]) -> Result<Option<usize>, Malformed> {
    if payload.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Malformed);
    }
    let Some(header) = payload.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = 4 + u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
    if length > MAX_HELLO {
        return Err(Malformed);
    }
    Ok(Some(length))
}

fn hello(message: &[u8]) -> Result<ClientHello, Malformed> {
    let mut reader = Reader(message);
    let legacy_version = reader.u16()?;
    reader.take(32)?; // random
    reader.vector8()?; // legacy_session_id
    reader.vector16()?; // cipher_suites
    reader.vector8()?; // legacy_compression_methods
    let mut hello = ClientHello {
        newest_version: known_version(legacy_version.min(0x0303)),
        ..ClientHello::default()
    };
    if reader.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Reader(reader.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut body = Reader(extensions.vector16()?);
        match kind {
            SERVER_NAME => hello.server_name = server_name(&mut body)?,
            STATUS_REQUEST => hello.asks_for_staple = body.u8()? == 1,
            ALPN => hello.alpn = protocols(&mut body)?,
            SUPPORTED_VERSIONS => hello.newest_version = newest_version(&mut body)?,
            _ => {}
        }
    }
    Ok(hello)
}

/// RFC 6066 section 3. Only `host_name` was ever defined, and one of it may be sent.
fn server_name(body: &mut Reader<'_>) -> Result<Option<Box<str>>, Malformed> {
    let mut names = Reader(body.vector16()?);
    while !names.0.is_empty() {
        let kind = names.u8()?;
        let name = names.vector16()?;
        if kind == 0 {
            let plausible = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
            return Ok(match std::str::from_utf8(name) {
                Ok(name) if plausible => Some(name.to_ascii_lowercase().into()),
                _ => None,
            });
        }
    }
    Ok(None)
}

/// RFC 7301 section 3.1.
fn protocols(body: &mut Reader<'_>) -> Result<Vec<Box<[u8]>>, Malformed> {
    let mut list = Reader(body.vector16()?);
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.vector8()?;
        if protocol.is_empty() {
            return Err(Malformed);
        }
        protocols.push(Box::from(protocol));
    }
    Ok(protocols)
}

fn newest_version(body: &mut Reader<'_>) -> Result<Option<TlsVersion>, Malformed> {
    let mut versions = Reader(body.vector8()?);
    let mut newest = None;
    while !versions.0.is_empty() {
        newest = newest.max(known_version(versions.u16()?));
    }
    Ok(newest)
}

fn known_version(code: u16) -> Option<TlsVersion> {
    match code {
        0x0303 => Some(TlsVersion::V1_2),
        0x0304 => Some(TlsVersion::V1_3),
        _ => None,
    }
}

pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from(self.u8()?) << 8 | u16::from(self.u8()?))
    }

    pub(super) fn vector8(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u8()?;
        self.take(length.into())
    }

    pub(super) fn vector16(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hello as rustls writes it.
    fn real(name: &str, alpn: &[&str]) -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(
            rustls::crypto::aws_lc_rs::default_provider().into(),
        )
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut connection = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn expected() -> ClientHello {
        ClientHello {
            server_name: Some("a.example.com".into()),
            alpn: vec![Box::from(*b"istio"), Box::from(*b"h2")],
            newest_version: Some(TlsVersion::V1_3),
            asks_for_staple: true,
        }
    }

    #[test]
    fn a_hello_is_recognised_as_soon_as_it_is_whole_and_not_before() {
        let bytes = real("A.Example.com", &["istio", "h2"]);
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Parsed::NeedMore, "{cut}");
        }
        assert_eq!(parse(&bytes), Parsed::Hello(expected()));
        let mut longer = bytes;
        longer.extend_from_slice(b"early data");
        assert_eq!(parse(&longer), Parsed::Hello(expected()));
    }

    #[test]
    fn a_hello_may_be_spread_over_records() {
        let bytes = real("a.example.com", &["istio", "h2"]);
        let mut spread = Vec::new();
        for part in bytes[HEADER..].chunks(50) {
            spread.extend_from_slice(&[22, 3, 1, 0, part.len() as u8]);
            spread.extend_from_slice(part);
        }
        for cut in 0..spread.len() {
            assert_eq!(parse(&spread[..cut]), Parsed::NeedMore, "{cut}");
        }
        assert_eq!(parse(&spread), Parsed::Hello(expected()));
    }

    #[test]
    fn other_bytes_are_told_apart_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PRI * HTTP/2.0",
            b"\x15\x03\x01",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\x00\x05\x02",
            b"\x16\x03\x01\x00\x05\x01\xff\xff\xff\x00",
            // A message that says it is shorter than its own fields.
            b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03",
        ] {
            assert_eq!(parse(bytes), Parsed::NotTls, "{bytes:?}");
        }
    }

    #[test]
    fn hostile_bytes_never_panic() {
        let bytes = real("a.example.com", &["h2"]);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = parse(&changed);
                changed.truncate(at);
                let _ = parse(&changed);
            }
        }
    }
}
