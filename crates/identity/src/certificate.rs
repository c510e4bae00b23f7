//! What a certificate says: its names, its validity, and the forms of it that
//! `x-forwarded-client-cert` and the admin pages show.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Name;

use crate::SpiffeId;

/// Why a certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The PEM text is broken.
    #[error("not PEM text: {0}")]
    Pem(String),
    /// There is no `CERTIFICATE` section.
    #[error("no CERTIFICATE section in the PEM text")]
    Empty,
    /// The DER is not an X.509 certificate.
    #[error("not an X.509 certificate: {0}")]
    Parse(String),
    /// A subject alternative name is not encoded as RFC 5280 says.
    #[error("malformed subject alternative name: {0}")]
    AlternativeName(String),
}

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateDetails {
    /// The subject in RFC 2253 form, most specific part first; empty for most workloads.
    pub subject: String,
    /// The issuer in the same form.
    pub issuer: String,
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// The first moment of validity.
    pub not_before: SystemTime,
    /// The last moment of validity.
    pub not_after: SystemTime,
    /// URI names, in the certificate's order.
    pub uris: Vec<String>,
    /// DNS names, in the certificate's order.
    pub dns_names: Vec<String>,
    /// IP addresses, in the certificate's order.
    pub ip_addresses: Vec<IpAddr>,
    /// Mail addresses, in the certificate's order.
    pub emails: Vec<String>,
    /// Names of other kinds by their object identifiers, those of them whose value is text.
    pub other_names: Vec<(String, String)>,
    /// Common names of the subject.
    pub common_names: Vec<String>,
    /// Whether the key may sign handshakes (RFC 5280, section 4.2.1.3: `digitalSignature`); so may
    /// one whose usage is not limited.
    pub may_sign_handshakes: bool,
    /// Whether the key's usage names the signing of certificates or revocation lists.
    pub may_sign_certificates: bool,
    /// Whether a server must staple an OCSP response (RFC 7633).
    pub must_staple: bool,
    /// SHA-256 of the whole DER: `Hash` of `x-forwarded-client-cert`.
    pub sha256: [u8; 32],
    /// Whether it may sign other certificates.
    pub is_authority: bool,
}

impl CertificateDetails {
    /// Reads a certificate.
    ///
    /// # Errors
    /// It is not X.509 version 3 DER without trailing bytes, or a name in it is malformed.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| CertificateError::Parse(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CertificateError::Parse("bytes after its end".to_owned()));
        }
        let usage = certificate
            .key_usage()
            .map_err(|error| CertificateError::Parse(error.to_string()))?
            .map(|extension| extension.value);
        let mut details = Self {
            subject: rfc2253(certificate.subject()),
            issuer: rfc2253(certificate.issuer()),
            serial: hex(certificate.raw_serial()),
            not_before: system_time(certificate.validity().not_before),
            not_after: system_time(certificate.validity().not_after),
            uris: Vec::new(),
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            emails: Vec::new(),
            other_names: Vec::new(),
            common_names: certificate
                .subject()
                .iter_common_name()
                .filter_map(|name| Some(name.as_str().ok()?.to_owned()))
                .collect(),
            may_sign_handshakes: usage.is_none_or(|usage| usage.digital_signature()),
            may_sign_certificates: usage
                .is_some_and(|usage| usage.key_cert_sign() || usage.crl_sign()),
            must_staple: certificate
                .extensions()
                .iter()
                .any(|extension| must_staple(&extension.oid, extension.value)),
            sha256: sha256(der),
            is_authority: certificate.is_ca(),
        };
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| CertificateError::AlternativeName(error.to_string()))?;
        for name in names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            match name {
                GeneralName::URI(uri) => details.uris.push(plain(uri)?),
                GeneralName::DNSName(name) => details.dns_names.push(plain(name)?),
                GeneralName::RFC822Name(mail) => details.emails.push(plain(mail)?),
                GeneralName::IPAddress(octets) => details.ip_addresses.push(address(octets)?),
                GeneralName::Invalid(tag, _) => {
                    return Err(CertificateError::AlternativeName(format!("kind {}", tag.0)));
                }
                GeneralName::OtherName(kind, value) => details
                    .other_names
                    .extend(text(value).map(|text| (kind.to_id_string(), text))),
                // Kinds that no configuration can match.
                _ => {}
            }
        }
        Ok(details)
    }

    /// The workload identity, if the certificate has exactly one URI name and that is one
    /// (X.509-SVID section 2: exactly one URI).
    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        match self.uris.as_slice() {
            [uri] => uri.parse().ok(),
            _ => None,
        }
    }

    /// SHA-256 in lower-case hexadecimal.
    pub fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }
}

/// Whether the key of a certificate may sign handshakes. Unlike [`CertificateDetails::parse`] it
/// looks at nothing else.
///
/// # Errors
/// It is not X.509, or its key usage is malformed.
pub fn may_sign_handshakes(der: &[u8]) -> Result<bool, CertificateError> {
    let parse = |error: String| CertificateError::Parse(error);
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| parse(error.to_string()))?;
    let usage = certificate
        .key_usage()
        .map_err(|error| parse(error.to_string()))?;
    Ok(usage.is_none_or(|extension| extension.value.digital_signature()))
}

/// RFC 7633: the TLS features that a server must have, of which `status_request` is number 5.
fn must_staple(oid: &Oid<'_>, value: &[u8]) -> bool {
    const STATUS_REQUEST: [u8; 3] = [2, 1, 5];
    oid.to_id_string() == "1.3.6.1.5.5.7.1.24"
        && value
            .get(2..)
            .is_some_and(|features| features.chunks(3).any(|one| one == STATUS_REQUEST))
}

/// The value of an `otherName`: `[0] EXPLICIT`, of one of the types that hold text.
fn text(value: &[u8]) -> Option<String> {
    use x509_parser::asn1_rs::{Any, FromDer as _};
    let (_, wrapper) = Any::from_der(value).ok()?;
    let (_, inner) = Any::from_der(wrapper.data).ok()?;
    const OCTETS_UTF8_PRINTABLE_T61_IA5_VISIBLE: [u32; 6] = [4, 12, 19, 20, 22, 26];
    if !OCTETS_UTF8_PRINTABLE_T61_IA5_VISIBLE.contains(&inner.tag().0) {
        return None;
    }
    let text = std::str::from_utf8(inner.data).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// Reads every `CERTIFICATE` section of a PEM text, in order.
///
/// # Errors
/// The text is broken, or has no such section.
pub fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateError::Pem(error.to_string()))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty);
    }
    Ok(chain)
}

/// Writes a certificate as PEM (RFC 7468), with a newline at the end.
pub fn certificate_to_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut pem = String::with_capacity(body.len() + body.len() / 64 + 60);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn system_time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        return SystemTime::UNIX_EPOCH
            .checked_sub(distance)
            .unwrap_or(SystemTime::UNIX_EPOCH);
    }
    SystemTime::UNIX_EPOCH + distance
}

/// A name as it may go into a header or a log line. RFC 5280 makes all three kinds IA5String, which
/// has line ends too: a certificate that nobody verified could end a header with them.
fn plain(name: &str) -> Result<String, CertificateError> {
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(name.to_owned());
    }
    Err(CertificateError::AlternativeName(format!(
        "a space, a control character or a byte above 127 in {:?}",
        name.chars().take(256).collect::<String>()
    )))
}

fn address(octets: &[u8]) -> Result<IpAddr, CertificateError> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::from(octets));
    }
    if let Ok(octets) = <[u8; 16]>::try_from(octets) {
        return Ok(IpAddr::from(octets));
    }
    let length = octets.len();
    Err(CertificateError::AlternativeName(format!(
        "an IP address of {length} bytes"
    )))
}

/// RFC 2253: the most specific part first, special characters escaped.
fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts = Vec::new();
    for group in name.iter_rdn() {
        let attributes: Vec<String> = group
            .iter()
            .map(
                |attribute| match (abbreviation(attribute.attr_type()), attribute.as_str()) {
                    (Some(key), Ok(value)) => format!("{key}={}", escape(value)),
                    (key, _) => {
                        let key = key.map_or_else(
                            || attribute.attr_type().to_id_string(),
                            |key| key.to_owned(),
                        );
                        format!("{key}=#{}", hex(attribute.as_slice()))
                    }
                },
            )
            .collect();
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    parts.join(",")
}

fn abbreviation(kind: &Oid<'_>) -> Option<&'static str> {
    Some(match kind.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(value.len());
    for (position, character) in value.chars().enumerate() {
        if character.is_control() {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                escaped.push('\\');
                escaped.push_str(&hex(&[byte]));
            }
            continue;
        }
        let special = matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (position == 0 && matches!(character, '#' | ' '))
            || (position == last && character == ' ');
        if special {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn every_kind_of_name_is_read() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Some, Ltd.");
        params.distinguished_name.push(DnType::CommonName, " a+b");
        params.subject_alt_names = vec![
            SanType::URI("spiffe://d/ns/n/sa/a".try_into().unwrap()),
            SanType::DnsName("a.example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("fd00::1".parse().unwrap()),
            SanType::Rfc822Name("x@y.example".try_into().unwrap()),
        ];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let details = CertificateDetails::parse(certificate.der()).unwrap();
        assert_eq!(details.subject, "CN=\\ a\\+b,O=Some\\, Ltd.");
        assert_eq!(details.dns_names, ["a.example"]);
        assert_eq!(details.emails, ["x@y.example"]);
        assert_eq!(
            details.ip_addresses,
            [
                "10.0.0.1".parse::<IpAddr>().unwrap(),
                "fd00::1".parse().unwrap()
            ]
        );
        assert_eq!(
            details.spiffe_id().unwrap().to_string(),
            "spiffe://d/ns/n/sa/a"
        );
        assert_eq!(details.sha256_hex().len(), 64);

        let pem = certificate_to_pem(certificate.der());
        assert_eq!(
            certificates_from_pem(pem.as_bytes()).unwrap(),
            [certificate.der().clone()]
        );
        assert_eq!(pem, certificate.pem());
    }

    #[test]
    fn names_that_would_end_a_header_line_are_refused_or_escaped() {
        let text = "spiffe://d/ns/n/sa/a\r\nx-injected: yes";
        for name in [
            SanType::URI(text.try_into().unwrap()),
            SanType::DnsName(text.try_into().unwrap()),
            SanType::Rfc822Name(text.try_into().unwrap()),
        ] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![name.clone()];
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let error = CertificateDetails::parse(certificate.der()).unwrap_err();
            assert!(
                matches!(error, CertificateError::AlternativeName(_)),
                "{name:?}: {error}"
            );
        }
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "a\r\nx-injected: yes");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let details = CertificateDetails::parse(certificate.der()).unwrap();
        assert!(
            !details.subject.contains(char::is_control),
            "{:?}",
            details.subject
        );
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(matches!(
            CertificateDetails::parse(b"0"),
            Err(CertificateError::Parse(_))
        ));
        assert_eq!(certificates_from_pem(b"text"), Err(CertificateError::Empty));
        let broken = b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            certificates_from_pem(broken),
            Err(CertificateError::Pem(_))
        ));
    }
}
