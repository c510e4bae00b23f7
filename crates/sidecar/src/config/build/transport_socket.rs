//! `TransportSocket`, of either direction.

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::google::protobuf::Any;

use super::context::Context;
use super::extension::{BuildWith, Extension, decode, resolve};
use super::fields::{Within as _, required};
use super::tls::{downstream, upstream};
use crate::config::cluster::UpstreamTransport;
use crate::config::error::{ConfigError, Result};
use crate::config::listener::DownstreamTransport;
use crate::tls::client::ClientContext;
use crate::tls::server::ServerContext;

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
