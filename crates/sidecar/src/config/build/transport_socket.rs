//! `TransportSocket`, of either direction.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::google::protobuf::Any;

use super::connection_options::proxy_protocol;
use super::context::Context;
use super::extension::{BuildWith, Extension, decode, resolve};
use super::fields::{Within as _, refuse, required};
use super::tls::{downstream, upstream};
use crate::config::cluster::UpstreamTransport;
use crate::config::error::{ConfigError, Result};
use crate::config::listener::DownstreamTransport;
use crate::tls::client::ClientContext;
use crate::tls::server::ServerContext;

const PROXY_PROTOCOL: &str =
    "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

/// Transport sockets of filter chains.
pub const DOWNSTREAM: &[Extension<BuildWith<DownstreamTransport>>] = &[
    Extension {
        type_name: RAW_BUFFER,
        build: |_, _| Ok(DownstreamTransport::Plain),
    },
    Extension {
        type_name: "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        build: |bytes, context| {
            let settings = downstream(&decode::<tls::DownstreamTlsContext>(bytes)?, context)?;
            let server = ServerContext::new(settings);
            server
                .map(DownstreamTransport::Tls)
                .map_err(|error| ConfigError::new("common_tls_context", error))
        },
    },
];

/// Transport sockets of clusters.
pub const UPSTREAM: &[Extension<BuildWith<UpstreamTransport>>] = &[
    Extension {
        type_name: PROXY_PROTOCOL,
        build: with_proxy_protocol,
    },
    Extension {
        type_name: RAW_BUFFER,
        build: |_, _| Ok(UpstreamTransport::Plain),
    },
    Extension {
        type_name: "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        build: |bytes, context| {
            let settings = upstream(&decode::<tls::UpstreamTlsContext>(bytes)?, context)?;
            let client = ClientContext::new(settings);
            client
                .map(UpstreamTransport::Tls)
                .map_err(|error| ConfigError::new("common_tls_context", error))
        },
    },
];

fn with_proxy_protocol(bytes: &[u8], context: &dyn Context) -> Result<UpstreamTransport> {
    let proto: ProxyProtocolUpstreamTransport = decode(bytes)?;
    let config = proxy_protocol(&proto)?;
    let inner = required(&proto.transport_socket, "transport_socket")?;
    let inner = build(UPSTREAM, inner, context).within("transport_socket")?;
    refuse(
        inner.proxy_protocol().is_some(),
        "transport_socket",
        "is another upstream_proxy_protocol: only one header can be sent",
    )?;
    Ok(UpstreamTransport::ProxyProtocol(
        Arc::new(config),
        Box::new(inner),
    ))
}

/// Builds a transport socket by one of the two tables.
pub fn build<T>(
    table: &[Extension<BuildWith<T>>],
    proto: &core::TransportSocket,
    context: &dyn Context,
) -> Result<T> {
    let any = typed_config(proto)?;
    (resolve(table, "transport socket", any)?.build)(&any.value, context).within("typed_config")
}

fn typed_config(proto: &core::TransportSocket) -> Result<&Any> {
    let ConfigType::TypedConfig(any) = required(&proto.config_type, "typed_config")?;
    Ok(any)
}
