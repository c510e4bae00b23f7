//! `DownstreamTlsContext` and `UpstreamTlsContext`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::{
    OcspStaplePolicy, SessionTicketKeysType,
};

use super::context::Context;
use super::fields::{
    Together as _, Within as _, cidr, duration, each, enumeration, flag, named, refuse, required,
    uint,
};
use super::{secret, source, tls_parameters};
use crate::config::error::{ConfigError, Result};
use crate::config::secret::Secret;
use crate::config::tls::{
    DownstreamTls, KeyLogSettings, ServerResumption, StaplePolicy, TlsSettings, UpstreamTls,
    Validation,
};
use crate::discovery::slot::Slot;

/// `max_session_keys` unless set.
const SESSION_KEYS: u32 = 1;

/// `DownstreamTlsContext`.
pub fn downstream(
    proto: &tls::DownstreamTlsContext,
    context: &dyn Context,
) -> Result<DownstreamTls> {
    let common = required(&proto.common_tls_context, "common_tls_context")?;
    let (mut settings, ticket_keys, timeout, staple_policy) = (
        settings(common, context).within("common_tls_context"),
        ticket_keys(proto, context),
        duration(&proto.session_timeout, "session_timeout"),
        enumeration(proto.ocsp_staple_policy, "ocsp_staple_policy"),
    )
        .together()?;
    refuse(
        settings.certificates.is_empty(),
        "common_tls_context",
        "needs a certificate: tls_certificates or tls_certificate_sds_secret_configs",
    )?;
    let require_client_certificate = flag(&proto.require_client_certificate).unwrap_or(false);
    let verifies = !matches!(settings.validation, Validation::None);
    refuse(
        require_client_certificate && !verifies,
        "require_client_certificate",
        "needs a validation context: without one any certificate would do",
    )?;
    if verifies && proto.require_client_certificate.is_none() {
        tracing::warn!(
            "a downstream TLS context has a validation context and no require_client_certificate: clients may come without a certificate"
        );
    }
    let stateless = !matches!(
        proto.session_ticket_keys_type,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(
            true
        ))
    );
    let asked_for = ticket_keys.is_some() || timeout.is_some();
    let resumption = match (stateless, verifies) {
        (true, false) => ServerResumption::Tickets,
        (true, true) if asked_for => ServerResumption::Tickets,
        (false, false) if !proto.disable_stateful_session_resumption => {
            ServerResumption::Remembered
        }
        _ => ServerResumption::None,
    };
    settings.ticket_keys = ticket_keys;
    Ok(DownstreamTls {
        settings,
        require_client_certificate,
        resumption,
        // Only whole seconds count.
        session_timeout: timeout.map(|timeout| Duration::from_secs(timeout.as_secs())),
        staple_policy: match staple_policy {
            OcspStaplePolicy::LenientStapling => StaplePolicy::Lenient,
            OcspStaplePolicy::StrictStapling => StaplePolicy::Strict,
            OcspStaplePolicy::MustStaple => StaplePolicy::Must,
        },
        full_scan: flag(&proto.full_scan_certs_on_sni_mismatch).unwrap_or(false),
        prefer_client_ciphers: proto.prefer_client_ciphers,
    })
}

/// `session_ticket_keys_type`, as far as it names keys.
fn ticket_keys(
    proto: &tls::DownstreamTlsContext,
    context: &dyn Context,
) -> Result<Option<Arc<Slot<Secret>>>> {
    match &proto.session_ticket_keys_type {
        Some(SessionTicketKeysType::SessionTicketKeys(keys)) => {
            let secret = tls::secret::Type::SessionTicketKeys(keys.clone());
            inline(secret, context).map(Some)
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(config)) => {
            sds(config, context)
                .map(Some)
                .within("session_ticket_keys_sds_secret_config")
        }
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(_)) | None => Ok(None),
    }
}

/// `UpstreamTlsContext`.
pub fn upstream(proto: &tls::UpstreamTlsContext, context: &dyn Context) -> Result<UpstreamTls> {
    let common = required(&proto.common_tls_context, "common_tls_context")?;
    let (settings, ()) = (
        settings(common, context).within("common_tls_context"),
        refuse(proto.sni.len() > 255, "sni", "is longer than 255 bytes"),
    )
        .together()?;
    refuse(
        proto.auto_sni_san_validation && matches!(settings.validation, Validation::None),
        "auto_sni_san_validation",
        "needs a validation context with trusted_ca: without one nothing is verified",
    )?;
    if matches!(settings.validation, Validation::None) {
        tracing::warn!(
            "an upstream TLS context has no validation context: anybody can pose as the server; set trusted_ca"
        );
    }
    Ok(UpstreamTls {
        settings,
        sni: proto.sni.as_str().into(),
        auto_host_sni: proto.auto_host_sni,
        auto_sni_san_validation: proto.auto_sni_san_validation,
        max_session_keys: uint(&proto.max_session_keys).unwrap_or(SESSION_KEYS),
    })
}

fn settings(proto: &tls::CommonTlsContext, context: &dyn Context) -> Result<TlsSettings> {
    let parameters = proto.tls_params.clone().unwrap_or_default();
    let (parameters, alpn, inline_certificates, discovered, validation, key_log) = (
        tls_parameters::build(&parameters).within("tls_params"),
        each("alpn_protocols", &proto.alpn_protocols, |protocol| {
            let valid = (1..=255).contains(&protocol.len());
            refuse(!valid, "", "must have between 1 and 255 bytes")?;
            Ok(Arc::from(protocol.as_bytes()))
        }),
        each("tls_certificates", &proto.tls_certificates, |certificate| {
            let secret = tls::secret::Type::TlsCertificate(certificate.clone());
            inline(secret, context).map_err(|error| error.at(|path| strip(path, "tls_certificate")))
        }),
        each(
            "tls_certificate_sds_secret_configs",
            &proto.tls_certificate_sds_secret_configs,
            |config| sds(config, context),
        ),
        validation(&proto.validation_context_type, context),
        proto
            .key_log
            .as_ref()
            .map(key_log)
            .transpose()
            .within("key_log"),
    )
        .together()?;
    let (min_version, max_version) = parameters.versions;
    Ok(TlsSettings {
        min_version,
        max_version,
        cipher_suites: parameters.cipher_suites,
        groups: parameters.groups,
        signature_schemes: parameters.signature_schemes,
        alpn,
        certificates: inline_certificates.into_iter().chain(discovered).collect(),
        validation,
        ticket_keys: None,
        key_log,
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

/// `TlsKeyLog`.
fn key_log(proto: &tls::TlsKeyLog) -> Result<KeyLogSettings> {
    let path = named(&proto.path, "path")?;
    let (local, remote) = (
        each("local_address_range", &proto.local_address_range, cidr),
        each("remote_address_range", &proto.remote_address_range, cidr),
    )
        .together()?;
    Ok(KeyLogSettings {
        path: path.into(),
        local,
        remote,
    })
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
