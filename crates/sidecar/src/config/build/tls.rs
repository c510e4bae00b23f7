//! `DownstreamTlsContext` and `UpstreamTlsContext`.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::SessionTicketKeysType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use rustls::{CipherSuite, NamedGroup};

use super::context::Context;
use super::fields::{Within as _, each, enumeration, flag, named, refuse, required, uint};
use super::{secret, source};
use crate::config::error::{ConfigError, Result};
use crate::config::secret::Secret;
use crate::config::tls::{DownstreamTls, TlsSettings, TlsVersion, UpstreamTls, Validation};
use crate::discovery::slot::Slot;

/// `max_session_keys` unless set.
const SESSION_KEYS: u32 = 1;

/// `DownstreamTlsContext`.
pub fn downstream(
    proto: &tls::DownstreamTlsContext,
    context: &dyn Context,
) -> Result<DownstreamTls> {
    refuse(
        flag(&proto.require_sni) == Some(true),
        "require_sni",
        "is not supported: match on server_names instead",
    )?;
    let common = required(&proto.common_tls_context, "common_tls_context")?;
    let settings = settings(common, context).within("common_tls_context")?;
    refuse(
        settings.certificates.is_empty(),
        "common_tls_context",
        "needs a certificate: tls_certificates or tls_certificate_sds_secret_configs",
    )?;
    let require_client_certificate = flag(&proto.require_client_certificate).unwrap_or(false);
    refuse(
        require_client_certificate && matches!(settings.validation, Validation::None),
        "require_client_certificate",
        "needs a validation context: without one any certificate would do",
    )?;
    if matches!(settings.validation, Validation::None) {
        // Where clients are verified no session is ever resumed, which is what these ask for.
        let stateless = matches!(
            proto.session_ticket_keys_type,
            Some(SessionTicketKeysType::DisableStatelessSessionResumption(
                true
            ))
        );
        refuse(
            stateless,
            "disable_stateless_session_resumption",
            "is not supported where clients are not verified",
        )?;
        refuse(
            proto.session_timeout.is_some(),
            "session_timeout",
            "is not supported where clients are not verified",
        )?;
    }
    Ok(DownstreamTls {
        settings,
        require_client_certificate,
    })
}

/// `UpstreamTlsContext`.
pub fn upstream(proto: &tls::UpstreamTlsContext, context: &dyn Context) -> Result<UpstreamTls> {
    refuse(
        proto.auto_host_sni,
        "auto_host_sni",
        "is not supported: set sni",
    )?;
    refuse(
        proto.auto_sni_san_validation,
        "auto_sni_san_validation",
        "is not supported: use match_typed_subject_alt_names",
    )?;
    let common = required(&proto.common_tls_context, "common_tls_context")?;
    refuse(proto.sni.len() > 255, "sni", "is longer than 255 bytes")?;
    Ok(UpstreamTls {
        settings: settings(common, context).within("common_tls_context")?,
        sni: proto.sni.as_str().into(),
        max_session_keys: uint(&proto.max_session_keys).unwrap_or(SESSION_KEYS),
    })
}

fn settings(proto: &tls::CommonTlsContext, context: &dyn Context) -> Result<TlsSettings> {
    let parameters = proto.tls_params.clone().unwrap_or_default();
    let (min_version, max_version) = versions(&parameters).within("tls_params")?;
    let mut certificates = each("tls_certificates", &proto.tls_certificates, |certificate| {
        let secret = tls::secret::Type::TlsCertificate(certificate.clone());
        inline(secret, context).map_err(|error| error.at(|path| strip(path, "tls_certificate")))
    })?;
    certificates.extend(each(
        "tls_certificate_sds_secret_configs",
        &proto.tls_certificate_sds_secret_configs,
        |config| sds(config, context),
    )?);
    Ok(TlsSettings {
        min_version,
        max_version,
        cipher_suites: known(
            &parameters.cipher_suites,
            cipher_suite,
            "tls_params.cipher_suites",
        )?,
        groups: known(&parameters.ecdh_curves, group, "tls_params.ecdh_curves")?,
        alpn: each("alpn_protocols", &proto.alpn_protocols, |protocol| {
            let valid = (1..=255).contains(&protocol.len());
            refuse(!valid, "", "must have between 1 and 255 bytes")?;
            Ok(Arc::from(protocol.as_bytes()))
        })?,
        certificates,
        validation: validation(&proto.validation_context_type, context)?,
    })
}

/// A secret that is defined in place.
fn inline(secret: tls::secret::Type, context: &dyn Context) -> Result<Arc<Slot<Secret>>> {
    let built = secret::build(&tls::Secret {
        name: String::new(),
        r#type: Some(secret),
    })?;
    Ok(match built.files {
        Some(files) => context.file_secret(files, built.secret),
        None => context.inline_secret(built.secret),
    })
}

/// The path without the name of the field that [`inline`] has wrapped around it.
fn strip(path: &str, wrapper: &str) -> String {
    let rest = path.strip_prefix(wrapper).unwrap_or(path);
    rest.strip_prefix('.').unwrap_or(rest).to_owned()
}

/// A secret that is discovered, or a static one where there is no source.
fn sds(proto: &tls::SdsSecretConfig, context: &dyn Context) -> Result<Arc<Slot<Secret>>> {
    let name = named(&proto.name, "name")?;
    let source = proto.sds_config.as_ref().map(source::build).transpose();
    context.secret_slot(name, source.within("sds_config")?.as_ref())
}

fn validation(proto: &Option<ValidationContextType>, context: &dyn Context) -> Result<Validation> {
    Ok(match proto {
        None => Validation::None,
        Some(ValidationContextType::ValidationContext(validation)) => {
            let secret = tls::secret::Type::ValidationContext(validation.clone());
            Validation::Context(inline(secret, context)?)
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            let slot = sds(config, context).within("validation_context_sds_secret_config")?;
            Validation::Context(slot)
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            self::combined(combined, context).within("combined_validation_context")?
        }
        Some(
            ValidationContextType::ValidationContextCertificateProvider(_)
            | ValidationContextType::ValidationContextCertificateProviderInstance(_),
        ) => {
            return Err(ConfigError::new(
                "validation_context_type",
                "certificate providers are not supported: use SDS",
            ));
        }
    })
}

fn combined(
    proto: &CombinedCertificateValidationContext,
    context: &dyn Context,
) -> Result<Validation> {
    const SECRET: &str = "validation_context_sds_secret_config";
    let defaults = required(
        &proto.default_validation_context,
        "default_validation_context",
    )?;
    let config = required(&proto.validation_context_sds_secret_config, SECRET)?;
    Ok(Validation::Combined {
        defaults: secret::default_context(defaults)
            .map(Arc::new)
            .within("default_validation_context")?,
        slot: sds(config, context).within(SECRET)?,
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
            TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
                Err(ConfigError::new(field, "TLS 1.0 and 1.1 are not supported"))
            }
        }
    };
    let min = version(
        proto.tls_minimum_protocol_version,
        TlsVersion::V1_2,
        "tls_minimum_protocol_version",
    )?;
    let max = version(
        proto.tls_maximum_protocol_version,
        TlsVersion::V1_3,
        "tls_maximum_protocol_version",
    )?;
    refuse(
        min > max,
        "tls_minimum_protocol_version",
        "is above tls_maximum_protocol_version",
    )?;
    Ok((min, max))
}

/// What of a list is on offer here. Names that are in use elsewhere and not here are left out, for
/// that only narrows the choice; a list of which nothing is left is an error.
fn known<T>(names: &[String], find: impl Fn(&str) -> Option<T>, field: &str) -> Result<Vec<T>> {
    // `[A|B]` is BoringSSL's way to say that two are equally good.
    let known: Vec<T> = names
        .iter()
        .flat_map(|name| name.trim_matches(['[', ']']).split('|'))
        .filter_map(find)
        .collect();
    refuse(
        known.is_empty() && !names.is_empty(),
        field,
        format_args!("none of these is supported: {}", names.join(", ")),
    )?;
    Ok(known)
}

/// By BoringSSL's name or by IANA's.
fn cipher_suite(name: &str) -> Option<CipherSuite> {
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" | "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-ECDSA-AES256-GCM-SHA384" | "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-ECDSA-CHACHA20-POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "ECDHE-RSA-AES128-GCM-SHA256" | "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-RSA-AES256-GCM-SHA384" | "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-RSA-CHACHA20-POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return None,
    })
}

fn group(name: &str) -> Option<NamedGroup> {
    Some(match name {
        "X25519" => NamedGroup::X25519,
        "P-256" => NamedGroup::secp256r1,
        "P-384" => NamedGroup::secp384r1,
        "X25519MLKEM768" => NamedGroup::X25519MLKEM768,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
