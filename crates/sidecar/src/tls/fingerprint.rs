//! Fingerprints of TLS clients by their first message: JA3 (Salesforce, "TLS Fingerprinting with JA3
//! and JA3S") and JA4 (FoxIO, "JA4: TLS Client Fingerprinting"), as Envoy computes them.
//!
//! They are computed only where a listener asks for them.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use md5::{Digest as _, Md5};

use super::client_hello::{ALPN, Malformed, Reader, SERVER_NAME, SUPPORTED_VERSIONS};

const SUPPORTED_GROUPS: u16 = 10;
const POINT_FORMATS: u16 = 11;
const SIGNATURE_ALGORITHMS: u16 = 13;

/// So many hexadecimal digits of a hash are part of a JA4.
const HASH_DIGITS: usize = 12;

/// What a client showed of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprints {
    /// Where it was asked for.
    pub ja3: Option<Box<str>>,
    /// Where it was asked for.
    pub ja4: Option<Box<str>>,
}

/// The parts of a ClientHello that fingerprints are made of.
struct Shown<'a> {
    legacy_version: u16,
    ciphers: Vec<u16>,
    extensions: Vec<(u16, &'a [u8])>,
}

/// Computes what is asked for of a ClientHello (without the header of the message).
pub fn fingerprints(hello: &[u8], ja3: bool, ja4: bool) -> Fingerprints {
    let Ok(shown) = Shown::read(hello) else {
        return Fingerprints::default();
    };
    Fingerprints {
        ja3: ja3.then(|| shown.ja3().into()),
        ja4: ja4.then(|| shown.ja4().into()),
    }
}

/// Values that clients make up, so that servers stay tolerant (RFC 8701).
fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(|pair| u16::from_be_bytes(*pair))
}

fn joined(numbers: impl Iterator<Item = impl std::fmt::Display>, between: char) -> String {
    let mut text = String::new();
    for number in numbers {
        if !text.is_empty() {
            text.push(between);
        }
        // A text takes everything.
        let _ = write!(text, "{number}");
    }
    text
}

impl<'a> Shown<'a> {
    fn read(hello: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(hello);
        let legacy_version = reader.u16()?;
        reader.take(32)?; // random
        reader.vector8()?; // legacy_session_id
        let ciphers = numbers(reader.vector16()?).filter(|cipher| !is_grease(*cipher));
        let ciphers = ciphers.collect();
        reader.vector8()?; // legacy_compression_methods
        let mut shown = Shown {
            legacy_version,
            ciphers,
            extensions: Vec::new(),
        };
        if reader.0.is_empty() {
            return Ok(shown);
        }
        let mut extensions = Reader(reader.vector16()?);
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let body = extensions.vector16()?;
            if !is_grease(kind) {
                shown.extensions.push((kind, body));
            }
        }
        Ok(shown)
    }

    fn extension(&self, kind: u16) -> Option<&'a [u8]> {
        let found = self.extensions.iter().find(|(found, _)| *found == kind);
        found.map(|(_, body)| *body)
    }

    fn ja3(&self) -> String {
        let ciphers = joined(self.ciphers.iter(), '-');
        let extensions = joined(self.extensions.iter().map(|(kind, _)| kind), '-');
        // As in Envoy, made-up groups count.
        let groups = self.extension(SUPPORTED_GROUPS).unwrap_or_default();
        let groups = joined(numbers(groups).skip(1), '-');
        let formats = self.extension(POINT_FORMATS).unwrap_or_default();
        let formats = joined(formats.iter().skip(1), '-');
        let version = self.legacy_version;
        let text = format!("{version},{ciphers},{extensions},{groups},{formats}");
        hexadecimal(&Md5::digest(text))
    }

    fn ja4(&self) -> String {
        let name = match self.extension(SERVER_NAME) {
            Some(_) => 'd',
            None => 'i',
        };
        format!(
            "t{}{name}{:02}{:02}{}_{}_{}",
            self.version(),
            self.ciphers.len().min(99),
            self.extensions.len().min(99),
            self.alpn(),
            self.hash_of_ciphers(),
            self.hash_of_extensions(),
        )
    }

    fn version(&self) -> &'static str {
        let newest = match self.extension(SUPPORTED_VERSIONS) {
            None => None,
            Some(body) => match Reader(body).vector8() {
                Err(Malformed) => return "00",
                Ok(versions) => numbers(versions)
                    .filter(|version| !is_grease(*version))
                    .max(),
            },
        };
        match newest.unwrap_or(self.legacy_version) {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            _ => "00",
        }
    }

    /// The first and the last character of the first protocol.
    fn alpn(&self) -> String {
        let first = self.extension(ALPN).and_then(|body| {
            let list = body.get(2..)?;
            let protocol = Reader(list).vector8().ok()?;
            protocol.first().copied().zip(protocol.last().copied())
        });
        match first {
            None => "00".to_owned(),
            Some((first, last))
                if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() =>
            {
                [char::from(first), char::from(last)].into_iter().collect()
            }
            Some((first, last)) => format!("{:x}{:x}", first >> 4, last & 0xf),
        }
    }

    fn hash_of_ciphers(&self) -> String {
        let mut ciphers = self.ciphers.clone();
        ciphers.sort_unstable();
        hash(&four_digits(&ciphers))
    }

    fn hash_of_extensions(&self) -> String {
        let kinds = self.extensions.iter().map(|(kind, _)| *kind);
        let mut kinds: Vec<u16> = kinds
            .filter(|kind| ![SERVER_NAME, ALPN].contains(kind))
            .collect();
        kinds.sort_unstable();
        let mut text = four_digits(&kinds);
        let algorithms = self.extension(SIGNATURE_ALGORITHMS).unwrap_or_default();
        let algorithms: Vec<u16> = numbers(algorithms).skip(1).collect();
        if !algorithms.is_empty() {
            text.push('_');
            text.push_str(&four_digits(&algorithms));
        }
        hash(&text)
    }
}

fn four_digits(numbers: &[u16]) -> String {
    joined(numbers.iter().map(|number| format!("{number:04x}")), ',')
}

fn hash(text: &str) -> String {
    if text.is_empty() {
        return "0".repeat(HASH_DIGITS);
    }
    hexadecimal(&digest(&SHA256, text.as_bytes()).as_ref()[..HASH_DIGITS / 2])
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A text takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_make_up_is_left_out() {
        for value in [0x0a0a, 0x1a1a, 0xfafa] {
            assert!(is_grease(value), "{value:x}");
        }
        for value in [0x0a1a, 0x1301, 0x0b0b, 0xaaab] {
            assert!(!is_grease(value), "{value:x}");
        }
    }

    #[test]
    fn a_hello_without_extensions_has_fingerprints() {
        let mut hello = vec![3, 3];
        hello.extend([0; 32]);
        hello.extend([0, 0, 4, 0x13, 0x01, 0x0a, 0x0a, 1, 0]);
        let found = fingerprints(&hello, true, true);
        // MD5 of "771,4865,,,", and the first half of SHA-256 of "1301".
        assert_eq!(
            found.ja3.as_deref(),
            Some(&*hexadecimal(&Md5::digest("771,4865,,,")))
        );
        assert_eq!(
            found.ja4.as_deref(),
            Some(&*format!("t12i010000_{}_000000000000", hash("1301")))
        );
        assert_eq!(fingerprints(&hello, false, false), Fingerprints::default());
        assert_eq!(
            fingerprints(&hello[..20], true, true),
            Fingerprints::default()
        );
    }
}
