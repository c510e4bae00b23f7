//! `CertificateValidationContext`: what a peer's certificate is held to.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use outrider_identity::{CertificateDetails, TrustBundles};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::certificate::certificates;
use super::extension::{Extension, resolve};
use super::fields::{Together as _, Within as _, each, enumeration, named, refuse, required, uint};
use super::secret::Reader;
use super::{matcher, spiffe_validator};
use crate::config::error::{ConfigError, Result};
use crate::config::secret::{SanKind, SanMatcher, ValidationContext};

/// Builds a validator of `custom_validator_config`, which reads what it is configured with.
type BuildValidator = fn(&[u8], &mut Reader) -> Result<TrustBundles>;

const VALIDATORS: &[Extension<BuildValidator>] = &[Extension {
    type_name: "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
    build: spiffe_validator::build,
}];

/// Reads a validation context. [`check`] is for one that stands alone.
///
/// # Errors
///
/// Every field that is wrong.
pub fn build(
    proto: &tls::CertificateValidationContext,
    reader: &mut Reader,
) -> Result<ValidationContext> {
    reader.watch(&proto.watched_directory);
    let (roots, lists, names, certificate_hashes, public_key_hashes, trust, spiffe) = (
        trusted_ca(proto, reader),
        revocation_lists(proto, reader),
        subject_alt_names(proto),
        each(
            "verify_certificate_hash",
            &proto.verify_certificate_hash,
            |hash| sha256(hash),
        ),
        each(
            "verify_certificate_spki",
            &proto.verify_certificate_spki,
            |hash| pin(hash),
        ),
        enumeration::<TrustChainVerification>(
            proto.trust_chain_verification,
            "trust_chain_verification",
        ),
        custom_validator(proto, reader),
    )
        .together()?;
    let first = roots.first();
    let first = first.and_then(|root| CertificateDetails::parse(root).ok());
    Ok(ValidationContext {
        expires: first.map(|root| root.not_after),
        trusted_ca: roots,
        spiffe,
        subject_alt_names: names,
        certificate_hashes,
        public_key_hashes,
        revocation_lists: lists,
        only_leaf_revocation: proto.only_verify_leaf_cert_crl,
        allow_expired: proto.allow_expired_certificate,
        max_depth: uint(&proto.max_verify_depth),
        accept_untrusted: trust == TrustChainVerification::AcceptUntrusted,
        suppress_authorities: proto.suppress_client_ca_list,
    })
}

/// Refuses what means nothing without roots, as Envoy does.
///
/// # Errors
///
/// The fields that need `trusted_ca`.
pub fn check(context: &ValidationContext) -> Result<()> {
    if context.spiffe.is_some() || !context.trusted_ca.is_empty() {
        return Ok(());
    }
    (
        refuse(
            !context.subject_alt_names.is_empty(),
            "trusted_ca",
            "must be set: names prove nothing in a certificate that anybody can make",
        ),
        refuse(
            !context.revocation_lists.is_empty(),
            "crl",
            "needs trusted_ca: without it no issuer is known",
        ),
        refuse(
            context.allow_expired,
            "allow_expired_certificate",
            "needs trusted_ca: without it validity is not looked at",
        ),
    )
        .together()?;
    if context.certificate_hashes.is_empty() && context.public_key_hashes.is_empty() {
        tracing::warn!(
            "a validation context has neither trusted_ca nor pins, so it verifies nobody: set trusted_ca"
        );
    }
    Ok(())
}

fn trusted_ca(
    proto: &tls::CertificateValidationContext,
    reader: &mut Reader,
) -> Result<Vec<CertificateDer<'static>>> {
    let roots = match reader.read(&proto.trusted_ca, "trusted_ca")? {
        Some(pem) => certificates(&pem, "trusted_ca")?,
        None => Vec::new(),
    };
    for (index, root) in roots.iter().enumerate() {
        webpki::anchor_from_trusted_cert(root).map_err(|error| {
            ConfigError::new(
                "trusted_ca",
                format_args!("certificate {index} cannot be a root: {error}"),
            )
        })?;
    }
    Ok(roots)
}

fn revocation_lists(
    proto: &tls::CertificateValidationContext,
    reader: &mut Reader,
) -> Result<Vec<Arc<webpki::CertRevocationList<'static>>>> {
    let Some(pem) = reader.read(&proto.crl, "crl")? else {
        return Ok(Vec::new());
    };
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem)
        .map(|list| {
            let list = list.map_err(|_| ConfigError::new("crl", "is not PEM text"))?;
            webpki::OwnedCertRevocationList::from_der(&list)
                .map(|list| Arc::new(list.into()))
                .map_err(|error| {
                    ConfigError::new(
                        "crl",
                        format_args!("is no revocation list that can be used: {error}"),
                    )
                })
        })
        .collect::<Result<_>>()?;
    refuse(lists.is_empty(), "crl", "has no X509 CRL section")?;
    Ok(lists)
}

fn custom_validator(
    proto: &tls::CertificateValidationContext,
    reader: &mut Reader,
) -> Result<Option<Arc<TrustBundles>>> {
    const FIELD: &str = "custom_validator_config";
    let Some(extension) = &proto.custom_validator_config else {
        return Ok(None);
    };
    let any = required(&extension.typed_config, "typed_config").within(FIELD)?;
    let build = resolve(VALIDATORS, "certificate validator", any)
        .within(FIELD)?
        .build;
    build(&any.value, reader)
        .map(|bundles| Some(Arc::new(bundles)))
        .within("typed_config")
        .within(FIELD)
}

fn subject_alt_names(proto: &tls::CertificateValidationContext) -> Result<Vec<SanMatcher>> {
    let (mut names, untyped) = (
        each(
            "match_typed_subject_alt_names",
            &proto.match_typed_subject_alt_names,
            subject_alt_name,
        ),
        each(
            "match_subject_alt_names",
            &proto.match_subject_alt_names,
            matcher::string,
        ),
    )
        .together()?;
    for matcher in untyped {
        let kinds = [SanKind::Uri, SanKind::Dns, SanKind::Email, SanKind::Ip];
        names.extend(kinds.map(|kind| SanMatcher {
            kind,
            matcher: matcher.clone(),
        }));
    }
    Ok(names)
}

/// `SubjectAltNameMatcher`.
pub fn subject_alt_name(proto: &tls::SubjectAltNameMatcher) -> Result<SanMatcher> {
    let matcher = required(&proto.matcher, "matcher")
        .and_then(|matcher| matcher::string(matcher).within("matcher"));
    let (kind, matcher) = (san_kind(proto), matcher).together()?;
    Ok(SanMatcher { kind, matcher })
}

fn san_kind(proto: &tls::SubjectAltNameMatcher) -> Result<SanKind> {
    let kind: SanType = enumeration(proto.san_type, "san_type")?;
    refuse(
        kind != SanType::OtherName && !proto.oid.is_empty(),
        "oid",
        "is only for OTHER_NAME",
    )?;
    Ok(match kind {
        SanType::Uri => SanKind::Uri,
        SanType::Dns => SanKind::Dns,
        SanType::Email => SanKind::Email,
        SanType::IpAddress => SanKind::Ip,
        SanType::OtherName => {
            let oid = named(&proto.oid, "oid")?;
            let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            refuse(
                !oid.contains('.') || !oid.split('.').all(number),
                "oid",
                "must be an object identifier such as 1.3.6.1.4.1.311.20.2.3",
            )?;
            SanKind::Other(oid.into())
        }
        SanType::Unspecified => {
            return Err(ConfigError::new(
                "san_type",
                "must be URI, DNS, EMAIL, IP_ADDRESS or OTHER_NAME",
            ));
        }
    })
}

/// A SHA-256 in hexadecimal, with colons between the bytes or without.
fn sha256(text: &str) -> Result<[u8; 32]> {
    // The item itself is the field.
    let error = || ConfigError::new("", "must be a SHA-256 in hexadecimal");
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return Err(error());
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| error())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| error())?;
    }
    Ok(hash)
}

/// A SHA-256 in Base64.
fn pin(text: &str) -> Result<[u8; 32]> {
    let bytes = STANDARD.decode(text).ok();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| {
            ConfigError::new(
                "",
                "must be the SHA-256 of a public key (its SubjectPublicKeyInfo) in Base64",
            )
        })
}
