//! `TlsParameters`: versions, cipher suites, curves and signature algorithms.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use rustls::{CipherSuite, NamedGroup, SignatureScheme};

use super::fields::{Together as _, enumeration, refuse};
use crate::config::error::{ConfigError, Result};
use crate::config::tls::TlsVersion;

/// What the parameters come to.
pub struct Parameters {
    /// Oldest and newest version.
    pub versions: (TlsVersion, TlsVersion),
    /// `cipher_suites`
    pub cipher_suites: Vec<CipherSuite>,
    /// `ecdh_curves`
    pub groups: Vec<NamedGroup>,
    /// `signature_algorithms`
    pub signature_schemes: Vec<SignatureScheme>,
}

/// Reads the parameters.
///
/// # Errors
///
/// Every field with a name that nothing has, or with nothing in it that is on offer here.
pub fn build(proto: &tls::TlsParameters) -> Result<Parameters> {
    let (versions, cipher_suites, groups, signature_schemes) = (
        versions(proto),
        known(&proto.cipher_suites, cipher_suite, "cipher_suites", SUITES),
        known(&proto.ecdh_curves, group, "ecdh_curves", GROUPS),
        known(
            &proto.signature_algorithms,
            signature_scheme,
            "signature_algorithms",
            SCHEMES,
        ),
    )
        .together()?;
    Ok(Parameters {
        versions,
        cipher_suites,
        groups,
        signature_schemes,
    })
}

/// The versions to offer. Both directions offer 1.2 and 1.3 unless told otherwise; Envoy's clients
/// stop at 1.2, which no server needs.
fn versions(proto: &tls::TlsParameters) -> Result<(TlsVersion, TlsVersion)> {
    let version = |value: i32, unset: TlsVersion, field: &str| {
        let version: TlsProtocol = enumeration(value, field)?;
        match version {
            TlsProtocol::TlsAuto => Ok(unset),
            TlsProtocol::TlSv12 => Ok(TlsVersion::V1_2),
            TlsProtocol::TlSv13 => Ok(TlsVersion::V1_3),
            TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => Err(ConfigError::new(
                field,
                "TLS 1.0 and 1.1 are broken and not supported (RFC 8996): use TLSv1_2 or TLSv1_3",
            )),
        }
    };
    let (min, max) = (
        version(
            proto.tls_minimum_protocol_version,
            TlsVersion::V1_2,
            "tls_minimum_protocol_version",
        ),
        version(
            proto.tls_maximum_protocol_version,
            TlsVersion::V1_3,
            "tls_maximum_protocol_version",
        ),
    )
        .together()?;
    refuse(
        min > max,
        "tls_minimum_protocol_version",
        "is above tls_maximum_protocol_version",
    )?;
    Ok((min, max))
}

/// What a name of a list is to us.
enum Known<T> {
    /// On offer.
    Offered(T),
    /// In use elsewhere; why not here.
    Lacking(&'static str),
}

use Known::{Lacking, Offered};

const CBC: &str = "suites in CBC mode are not secure";
const STATIC_RSA: &str = "key exchange by RSA has no forward secrecy";
const NO_CURVE: &str = "the TLS library has no such group";

/// What of a list is on offer here. Names that are in use elsewhere and not here are left out with a
/// warning, for that only narrows the choice; a list of which nothing is left is an error, and so
/// is a name that nothing has.
fn known<T>(
    names: &[String],
    find: impl Fn(&str) -> Option<Known<T>>,
    field: &str,
    allowed: &str,
) -> Result<Vec<T>> {
    let mut offered = Vec::new();
    let mut lacking = Vec::new();
    // `[A|B]` is BoringSSL's way to say that two are equally good; a name may hold a list.
    for name in names
        .iter()
        .flat_map(|name| name.split(['[', ']', '|', ':', ' ']))
        .filter(|name| !name.is_empty())
    {
        match find(name) {
            Some(Offered(one)) => offered.push(one),
            Some(Lacking(reason)) => lacking.push(format!("{name} ({reason})")),
            None => {
                return Err(ConfigError::new(
                    field,
                    format_args!("`{name}` is not known here; supported: {allowed}"),
                ));
            }
        }
    }
    refuse(
        offered.is_empty() && !names.is_empty(),
        field,
        format_args!(
            "none of these is supported: {}; supported: {allowed}",
            lacking.join(", ")
        ),
    )?;
    if !lacking.is_empty() {
        tracing::warn!(
            "{field}: never offered: {}; the others of the list are",
            lacking.join(", ")
        );
    }
    Ok(offered)
}

/// What errors name: those of [`cipher_suite`], [`group`] and [`signature_scheme`] that are on offer.
const SUITES: &str = "ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-ECDSA-AES256-GCM-SHA384, \
                      ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-AES128-GCM-SHA256, \
                      ECDHE-RSA-AES256-GCM-SHA384, ECDHE-RSA-CHACHA20-POLY1305";
const GROUPS: &str = "X25519, P-256, P-384, X25519MLKEM768";
const SCHEMES: &str = "ecdsa_secp256r1_sha256, ecdsa_secp384r1_sha384, ecdsa_secp521r1_sha512, \
                       rsa_pss_rsae_sha256, rsa_pss_rsae_sha384, rsa_pss_rsae_sha512, \
                       rsa_pkcs1_sha256, rsa_pkcs1_sha384, rsa_pkcs1_sha512, ed25519";

/// By BoringSSL's name or by IANA's.
fn cipher_suite(name: &str) -> Option<Known<CipherSuite>> {
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" | "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            Offered(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
        }
        "ECDHE-ECDSA-AES256-GCM-SHA384" | "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            Offered(CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384)
        }
        "ECDHE-ECDSA-CHACHA20-POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            Offered(CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)
        }
        "ECDHE-RSA-AES128-GCM-SHA256" | "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            Offered(CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)
        }
        "ECDHE-RSA-AES256-GCM-SHA384" | "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            Offered(CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384)
        }
        "ECDHE-RSA-CHACHA20-POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            Offered(CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)
        }
        "ECDHE-ECDSA-AES128-SHA"
        | "ECDHE-ECDSA-AES256-SHA"
        | "ECDHE-ECDSA-AES128-SHA256"
        | "ECDHE-ECDSA-AES256-SHA384"
        | "ECDHE-RSA-AES128-SHA"
        | "ECDHE-RSA-AES256-SHA"
        | "ECDHE-RSA-AES128-SHA256"
        | "ECDHE-RSA-AES256-SHA384"
        | "ECDHE-PSK-AES128-CBC-SHA"
        | "ECDHE-PSK-AES256-CBC-SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"
        | "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"
        | "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA" => Lacking(CBC),
        "AES128-GCM-SHA256"
        | "AES256-GCM-SHA384"
        | "AES128-SHA"
        | "AES256-SHA"
        | "AES128-SHA256"
        | "AES256-SHA256"
        | "DES-CBC3-SHA"
        | "TLS_RSA_WITH_AES_128_GCM_SHA256"
        | "TLS_RSA_WITH_AES_256_GCM_SHA384"
        | "TLS_RSA_WITH_AES_128_CBC_SHA"
        | "TLS_RSA_WITH_AES_256_CBC_SHA" => Lacking(STATIC_RSA),
        "TLS_AES_128_GCM_SHA256" | "TLS_AES_256_GCM_SHA384" | "TLS_CHACHA20_POLY1305_SHA256" => {
            Lacking("suites of TLS 1.3 are always on offer and cannot be chosen")
        }
        _ => return None,
    })
}

/// By BoringSSL's name.
fn group(name: &str) -> Option<Known<NamedGroup>> {
    Some(match name {
        "X25519" | "x25519" => Offered(NamedGroup::X25519),
        "P-256" | "prime256v1" => Offered(NamedGroup::secp256r1),
        "P-384" | "secp384r1" => Offered(NamedGroup::secp384r1),
        "X25519MLKEM768" => Offered(NamedGroup::X25519MLKEM768),
        "P-521" | "secp521r1" | "P-224" | "X25519Kyber768Draft00" | "MLKEM1024" => {
            Lacking(NO_CURVE)
        }
        _ => return None,
    })
}

/// By the name of RFC 8446, section 4.2.3.
fn signature_scheme(name: &str) -> Option<Known<SignatureScheme>> {
    Some(match name {
        "ecdsa_secp256r1_sha256" => Offered(SignatureScheme::ECDSA_NISTP256_SHA256),
        "ecdsa_secp384r1_sha384" => Offered(SignatureScheme::ECDSA_NISTP384_SHA384),
        "ecdsa_secp521r1_sha512" => Offered(SignatureScheme::ECDSA_NISTP521_SHA512),
        "rsa_pss_rsae_sha256" => Offered(SignatureScheme::RSA_PSS_SHA256),
        "rsa_pss_rsae_sha384" => Offered(SignatureScheme::RSA_PSS_SHA384),
        "rsa_pss_rsae_sha512" => Offered(SignatureScheme::RSA_PSS_SHA512),
        "rsa_pkcs1_sha256" => Offered(SignatureScheme::RSA_PKCS1_SHA256),
        "rsa_pkcs1_sha384" => Offered(SignatureScheme::RSA_PKCS1_SHA384),
        "rsa_pkcs1_sha512" => Offered(SignatureScheme::RSA_PKCS1_SHA512),
        "ed25519" => Offered(SignatureScheme::ED25519),
        "rsa_pkcs1_sha1" | "ecdsa_sha1" => Lacking("SHA-1 is broken"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_errors_name_is_on_offer() {
        let names = |list: &str| list.split(", ").map(str::to_owned).collect::<Vec<_>>();
        let (suites, groups, schemes) = (names(SUITES), names(GROUPS), names(SCHEMES));
        assert_eq!(known(&suites, cipher_suite, "", "").unwrap().len(), 6);
        assert_eq!(known(&groups, group, "", "").unwrap().len(), 4);
        assert_eq!(known(&schemes, signature_scheme, "", "").unwrap().len(), 10);
        let error = known(&["x".to_owned()], group, "ecdh_curves", GROUPS).unwrap_err();
        assert!(error.to_string().ends_with(GROUPS), "{error}");
    }
}
