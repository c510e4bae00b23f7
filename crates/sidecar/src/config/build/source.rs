//! `ConfigSource`.

use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::TargetSpecifier;

use super::fields::{
    Together as _, Within as _, each, enumeration, header_name, header_text, named, one_of, refuse,
    timeout, uint,
};
use crate::config::error::{ConfigError, Result};
use crate::config::source::{GrpcSource, Metadata, Origin, ResourceSource};

/// `initial_fetch_timeout` unless set.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// `ConfigSource`.
pub fn build(proto: &core::ConfigSource) -> Result<ResourceSource> {
    let (_, origin, initial_fetch_timeout) = (
        version(proto.resource_api_version, "resource_api_version"),
        origin(proto),
        timeout(
            &proto.initial_fetch_timeout,
            Some(INITIAL_FETCH_TIMEOUT),
            "initial_fetch_timeout",
        ),
    )
        .together()?;
    Ok(ResourceSource {
        origin,
        initial_fetch_timeout,
    })
}

fn origin(proto: &core::ConfigSource) -> Result<Origin> {
    let specifier = one_of::<core::ConfigSource, _>(&proto.config_source_specifier, "ads")?;
    Ok(match specifier {
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
    })
}

fn version(value: i32, field: &str) -> Result<()> {
    let version: core::ApiVersion = enumeration(value, field)?;
    refuse(version == core::ApiVersion::V2, field, "must be V3")
}

/// `ApiConfigSource`, also that of `ads_config`.
pub fn grpc(proto: &core::ApiConfigSource) -> Result<GrpcSource> {
    let delta = match enumeration(proto.api_type, "api_type") {
        Ok(ApiType::Grpc | ApiType::AggregatedGrpc) => Ok(false),
        Ok(ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc) => Ok(true),
        Ok(ApiType::Rest | ApiType::DeprecatedAndUnavailableDoNotUse) => Err(ConfigError::new(
            "api_type",
            "must be GRPC or DELTA_GRPC; REST is not supported",
        )),
        Err(error) => Err(error),
    };
    let source = match proto.grpc_services.as_slice() {
        [service] => service_of(service).within("grpc_services[0]"),
        _ => Err(ConfigError::new(
            "grpc_services",
            "must hold exactly one service",
        )),
    };
    let (_, delta, source) = (
        version(proto.transport_api_version, "transport_api_version"),
        delta,
        source,
    )
        .together()?;
    Ok(GrpcSource { delta, ..source })
}

fn service_of(service: &core::GrpcService) -> Result<GrpcSource> {
    let envoy = match one_of::<core::GrpcService, _>(&service.target_specifier, "envoy_grpc")? {
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
    });
    let (metadata, cluster) = (
        metadata,
        named(&envoy.cluster_name, "envoy_grpc.cluster_name"),
    )
        .together()?;
    Ok(GrpcSource {
        cluster: cluster.into(),
        delta: false,
        authority: envoy.authority.as_str().into(),
        metadata,
        max_message_bytes: uint(&envoy.max_receive_message_length),
    })
}
