//! `ConfigSource`.

use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::TargetSpecifier;

use super::fields::{
    Within as _, each, enumeration, header_name, header_text, named, refuse, required, timeout,
    uint,
};
use crate::config::error::{ConfigError, Result};
use crate::config::source::{GrpcSource, Metadata, Origin, ResourceSource};

/// `initial_fetch_timeout` unless set.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// `ConfigSource`.
pub fn build(proto: &core::ConfigSource) -> Result<ResourceSource> {
    version(proto.resource_api_version, "resource_api_version")?;
    let origin = match required(&proto.config_source_specifier, "config_source_specifier")? {
        ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_) => Origin::Ads,
        ConfigSourceSpecifier::ApiConfigSource(api) => {
            grpc(api).map(Origin::Grpc).within("api_config_source")?
        }
        ConfigSourceSpecifier::Path(path) => Origin::File {
            path: PathBuf::from(named(path, "path")?),
            watched_directory: None,
        },
        ConfigSourceSpecifier::PathConfigSource(source) => Origin::File {
            path: named(&source.path, "path_config_source.path")?.into(),
            watched_directory: source
                .watched_directory
                .as_ref()
                .map(|directory| PathBuf::from(&directory.path)),
        },
    };
    Ok(ResourceSource {
        origin,
        initial_fetch_timeout: timeout(
            &proto.initial_fetch_timeout,
            Some(INITIAL_FETCH_TIMEOUT),
            "initial_fetch_timeout",
        )?,
    })
}

fn version(value: i32, field: &str) -> Result<()> {
    let version: core::ApiVersion = enumeration(value, field)?;
    refuse(version == core::ApiVersion::V2, field, "must be V3")
}

/// `ApiConfigSource`, also that of `ads_config`.
pub fn grpc(proto: &core::ApiConfigSource) -> Result<GrpcSource> {
    version(proto.transport_api_version, "transport_api_version")?;
    let kind: ApiType = enumeration(proto.api_type, "api_type")?;
    let delta = match kind {
        ApiType::Grpc | ApiType::AggregatedGrpc => false,
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => true,
        ApiType::Rest | ApiType::DeprecatedAndUnavailableDoNotUse => {
            return Err(ConfigError::new(
                "api_type",
                "must be GRPC or DELTA_GRPC; REST is not supported",
            ));
        }
    };
    let [service] = proto.grpc_services.as_slice() else {
        return Err(ConfigError::new(
            "grpc_services",
            "must hold exactly one service",
        ));
    };
    service_of(service, delta).within("grpc_services[0]")
}

fn service_of(service: &core::GrpcService, delta: bool) -> Result<GrpcSource> {
    let envoy = match required(&service.target_specifier, "target_specifier")? {
        TargetSpecifier::EnvoyGrpc(envoy) => envoy,
        TargetSpecifier::GoogleGrpc(_) => {
            return Err(ConfigError::new(
                "google_grpc",
                "is not supported: use envoy_grpc with a cluster",
            ));
        }
    };
    let metadata = each("initial_metadata", &service.initial_metadata, |header| {
        let name = header_name(&header.key, "key")?;
        header_text(header.value.as_bytes(), "value")?;
        refuse(
            !header.raw_value.is_empty() || name.ends_with(b"-bin"),
            "raw_value",
            "binary metadata is not supported",
        )?;
        Ok(Metadata {
            name: String::from_utf8_lossy(&name).into(),
            value: header.value.as_str().into(),
        })
    })?;
    Ok(GrpcSource {
        cluster: named(&envoy.cluster_name, "envoy_grpc.cluster_name")?.into(),
        delta,
        authority: envoy.authority.as_str().into(),
        metadata,
        max_message_bytes: uint(&envoy.max_receive_message_length),
    })
}
