//! `TcpProxy.TunnelingConfig`.

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy as tcp;

use crate::config::build::extension::{Build, Extension, resolve};
use crate::config::build::fields::{
    Together as _, Within as _, each, header_name, named, refuse, required, uri_text,
};
use crate::config::build::header_changes::addition;
use crate::config::error::{ConfigError, Result};
use crate::config::tcp_proxy::{Tunnel, TunnelRequestId};
use crate::telemetry::access_log::format::{Format, Missing};

/// What makes the ids of requests.
const REQUEST_IDS: &[Extension<Build<()>>] = &[Extension {
    type_name: "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    build: |_| Ok(()),
}];

/// Builds a tunnel.
pub fn build(proto: &tcp::TunnelingConfig) -> Result<Tunnel> {
    let hostname = named(&proto.hostname, "hostname").and_then(|hostname| {
        Format::text(hostname, Missing::Dash).map_err(|error| ConfigError::new("hostname", error))
    });
    let (hostname, path, headers, request_id) = (
        hostname,
        post_path(proto),
        each("headers_to_add", &proto.headers_to_add, addition),
        request_id(proto),
    )
        .together()?;
    Ok(Tunnel {
        hostname,
        post: path,
        headers,
        keep_headers: proto.propagate_response_headers,
        keep_trailers: proto.propagate_response_trailers,
        request_id,
    })
}

fn post_path(proto: &tcp::TunnelingConfig) -> Result<Option<Box<[u8]>>> {
    refuse(
        !proto.use_post && !proto.post_path.is_empty(),
        "post_path",
        "is of POST alone: set use_post too",
    )?;
    if !proto.use_post {
        return Ok(None);
    }
    Ok(Some(match proto.post_path.as_str() {
        "" => b"/".as_slice().into(),
        path => uri_text(path, "post_path")?.into(),
    }))
}

fn request_id(proto: &tcp::TunnelingConfig) -> Result<Option<TunnelRequestId>> {
    let Some(extension) = &proto.request_id_extension else {
        return Ok(None);
    };
    let extension = required(&extension.typed_config, "typed_config")
        .and_then(|any| resolve(REQUEST_IDS, "request id extension", any))
        .within("request_id_extension");
    let header = match proto.request_id_header.as_str() {
        "" => Ok(b"x-request-id".as_slice().into()),
        name => header_name(name, "request_id_header"),
    };
    let (_, header) = (extension, header).together()?;
    Ok(Some(TunnelRequestId {
        header,
        metadata_key: match proto.request_id_metadata_key.as_str() {
            "" => "tunnel_request_id".into(),
            key => key.into(),
        },
    }))
}
