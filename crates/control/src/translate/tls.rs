//! Mutual TLS, on both sides.

use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, ConfigSource, GrpcService, TransportSocket, api_config_source,
};
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::SessionTicketKeysType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::{BoolValue, Duration};
use prost::{Message, Name};

use crate::mesh::{MeshPort, MeshService, MeshState};

use super::names::{IDENTITY_SECRET, SDS_CLUSTER, TRUST_SECRET, server_name};
use super::resource::pack;

/// The account of this name cannot exist, for a name cannot be empty.
const NOBODY: &str = "";

/// What callers of a service's port speak: the peer must be one of the identities behind it.
pub(super) fn upstream(
    mesh: &MeshState,
    service: &MeshService,
    port: &MeshPort,
) -> TransportSocket {
    let mut names: Vec<MatchPattern> = port
        .identities()
        .into_iter()
        .map(|identity| MatchPattern::Exact(identity.to_string()))
        .collect();
    if names.is_empty() {
        // No matcher would mean that anybody may answer. An endpoint that arrives before the
        // cluster that allows it waits for that cluster.
        let domain = &mesh.settings.trust_domain;
        let namespace = &service.name.namespace;
        names.push(MatchPattern::Exact(format!(
            "spiffe://{domain}/ns/{namespace}/sa/{NOBODY}"
        )));
    }
    let context = UpstreamTlsContext {
        common_tls_context: Some(common(names, &[])),
        sni: server_name(&service.host, port.number),
        ..UpstreamTlsContext::default()
    };
    socket("envoy.transport_sockets.tls", &context)
}

/// What a port of the workload speaks: the peer must be of the mesh's trust domain. `alpn` is what
/// may be agreed on; none for bytes.
pub(super) fn downstream(mesh: &MeshState, alpn: &[&str]) -> TransportSocket {
    let domain = &mesh.settings.trust_domain;
    let names = vec![MatchPattern::Prefix(format!("spiffe://{domain}/"))];
    let context = DownstreamTlsContext {
        common_tls_context: Some(common(names, alpn)),
        require_client_certificate: Some(BoolValue { value: true }),
        // A resumed session would outlive a revoked trust: its certificates are not looked at.
        session_ticket_keys_type: Some(SessionTicketKeysType::DisableStatelessSessionResumption(
            true,
        )),
        disable_stateful_session_resumption: true,
        ..DownstreamTlsContext::default()
    };
    socket("envoy.transport_sockets.tls", &context)
}

/// Plaintext.
pub(super) fn plaintext() -> TransportSocket {
    socket("envoy.transport_sockets.raw_buffer", &RawBuffer::default())
}

fn socket<M: Message + Name>(name: &str, context: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack(context))),
    }
}

fn common(names: Vec<MatchPattern>, alpn: &[&str]) -> CommonTlsContext {
    let matcher = |pattern| SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(pattern),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    };
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(IDENTITY_SECRET)],
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(CertificateValidationContext {
                    match_typed_subject_alt_names: names.into_iter().map(matcher).collect(),
                    ..CertificateValidationContext::default()
                }),
                validation_context_sds_secret_config: Some(secret(TRUST_SECRET)),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        ..CommonTlsContext::default()
    }
}

fn secret(name: &str) -> SdsSecretConfig {
    let service = GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: SDS_CLUSTER.to_owned(),
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    };
    let source = ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    };
    SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            // Without a certificate there is nothing to fall back to: wait for it.
            initial_fetch_timeout: Some(Duration::default()),
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
            ..ConfigSource::default()
        }),
    }
}
