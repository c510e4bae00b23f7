//! `HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as fields_of;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    RouteSpecifier, StripPortMode,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use ipnet::IpNet;
use prost::Message as _;

use super::context::Context;
use super::extension::{Build, Extension, decode, find, resolve};
use super::fields::{
    Within as _, bounded, cidr, duration, each, enumeration, fingerprint, flag, header_name,
    header_text, named, refuse, required, timeout,
};
use super::{access_log, http_protocol, route, source};
use crate::config::error::{ConfigError, Result};
use crate::config::http_connection_manager::{
    ClientCertDetails, CodecType, EscapedSlashes, ForwardClientCert, HttpConnectionManager,
    ServerHeader, StripPort,
};
use crate::config::route::RouteTable;
use crate::discovery::slot::Slot;

/// `stream_idle_timeout` unless set.
const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// `drain_timeout` unless set.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// `delayed_close_timeout` unless set.
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// `max_request_headers_kb` unless set, and the most that it can be.
const MAX_REQUEST_HEADERS_KB: u32 = 60;
const MAX_MAX_REQUEST_HEADERS_KB: u32 = 8192;
/// `max_headers_count` unless set.
const MAX_HEADERS_COUNT: u32 = 100;
/// `server_name` unless set.
const SERVER_NAME: &str = "envoy";

/// What an HTTP filter becomes.
#[derive(Debug)]
pub enum HttpFilter {
    /// The router, which must be last.
    Router {
        /// `suppress_envoy_headers`
        suppress_envoy_headers: bool,
    },
}

/// HTTP filters.
pub const HTTP_FILTERS: &[Extension<Build<HttpFilter>>] = &[Extension {
    type_name: "envoy.extensions.filters.http.router.v3.Router",
    build: |bytes| {
        let router = decode::<router::Router>(bytes)?;
        Ok(HttpFilter::Router {
            suppress_envoy_headers: router.suppress_envoy_headers,
        })
    },
}];

/// Builds a connection manager.
pub fn build(
    proto: &hcm::HttpConnectionManager,
    context: &dyn Context,
) -> Result<HttpConnectionManager> {
    refuse_values(proto)?;
    let codec: fields_of::CodecType = enumeration(proto.codec_type, "codec_type")?;
    let common = http_protocol::common(&proto.common_http_protocol_options)
        .within("common_http_protocol_options")?;
    http_protocol::http1(&proto.http_protocol_options).within("http_protocol_options")?;
    let (routes, rds) = routes(&proto.route_specifier, context)?;
    let HttpFilter::Router {
        suppress_envoy_headers,
    } = filters(&proto.http_filters)?;
    let server_name = match proto.server_name.as_str() {
        "" => SERVER_NAME,
        name => name,
    };
    Ok(HttpConnectionManager {
        stat_prefix: named(&proto.stat_prefix, "stat_prefix")?.into(),
        codec: match codec {
            fields_of::CodecType::Auto => CodecType::Auto,
            fields_of::CodecType::Http1 => CodecType::Http1,
            fields_of::CodecType::Http2 => CodecType::Http2,
            fields_of::CodecType::Http3 => {
                return Err(ConfigError::new("codec_type", "HTTP/3 is not supported"));
            }
        },
        routes,
        rds,
        http2: http_protocol::http2(&proto.http2_protocol_options)
            .within("http2_protocol_options")?,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_requests_per_connection: common.max_requests_per_connection,
        request_timeout: timeout(&proto.request_timeout, None, "request_timeout")?,
        request_headers_timeout: timeout(
            &proto.request_headers_timeout,
            None,
            "request_headers_timeout",
        )?,
        stream_idle_timeout: timeout(
            &proto.stream_idle_timeout,
            Some(STREAM_IDLE_TIMEOUT),
            "stream_idle_timeout",
        )?,
        drain_timeout: duration(&proto.drain_timeout, "drain_timeout")?.unwrap_or(DRAIN_TIMEOUT),
        delayed_close_timeout: duration(&proto.delayed_close_timeout, "delayed_close_timeout")?
            .unwrap_or(DELAYED_CLOSE_TIMEOUT),
        max_request_headers_bytes: bounded(
            &proto.max_request_headers_kb,
            1..=MAX_MAX_REQUEST_HEADERS_KB,
            "max_request_headers_kb",
        )?
        .unwrap_or(MAX_REQUEST_HEADERS_KB) as usize
            * 1024,
        max_headers_count: common.max_headers_count.unwrap_or(MAX_HEADERS_COUNT) as usize,
        server_name: header_text(server_name.as_bytes(), "server_name")?.into(),
        server_header: server_header(proto)?,
        use_remote_address: flag(&proto.use_remote_address).unwrap_or(false),
        xff_trusted_hops: proto.xff_num_trusted_hops,
        skip_xff_append: proto.skip_xff_append,
        generate_request_id: flag(&proto.generate_request_id).unwrap_or(true),
        preserve_external_request_id: proto.preserve_external_request_id,
        request_id_in_response: proto.always_set_request_id_in_response,
        forward_client_cert: forward_client_cert(proto)?,
        client_cert_details: client_cert_details(proto),
        proxy_100_continue: proto.proxy_100_continue,
        internal_addresses: internal_addresses(proto)?,
        upgrades: upgrades(&proto.upgrade_configs)?,
        normalize_path: flag(&proto.normalize_path).unwrap_or(false),
        merge_slashes: proto.merge_slashes,
        escaped_slashes: escaped_slashes(proto)?,
        strip_host_port: strip_port(proto),
        via: header_text(proto.via.as_bytes(), "via")?.into(),
        suppress_envoy_headers,
        access_log: access_log::build(&proto.access_log)?,
    })
}

/// Values of fields that are only supported with their default.
fn refuse_values(proto: &hcm::HttpConnectionManager) -> Result<()> {
    let add_user_agent = flag(&proto.add_user_agent) == Some(true);
    refuse(add_user_agent, "add_user_agent", "is not supported")?;
    refuse(
        proto.strip_trailing_host_dot,
        "strip_trailing_host_dot",
        "is not supported",
    )?;
    refuse(
        proto.append_x_forwarded_port,
        "append_x_forwarded_port",
        "is not supported yet",
    )
}

fn routes(
    proto: &Option<RouteSpecifier>,
    context: &dyn Context,
) -> Result<(Arc<Slot<RouteTable>>, bool)> {
    match required(proto, "route_specifier")? {
        RouteSpecifier::RouteConfig(config) => {
            let table = route::build(config, fingerprint(&config.encode_to_vec()))
                .within("route_config")?;
            Ok((Slot::filled(config.name.as_str(), Arc::new(table)), false))
        }
        RouteSpecifier::Rds(rds) => {
            let name = named(&rds.route_config_name, "rds.route_config_name")?;
            let source = required(&rds.config_source, "config_source")
                .and_then(|source| source::build(source).within("config_source"))
                .within("rds")?;
            Ok((context.route_slot(name, &source).within("rds")?, true))
        }
        RouteSpecifier::ScopedRoutes(_) => Err(ConfigError::new(
            "scoped_routes",
            "scoped routes (SRDS) are not supported",
        )),
    }
}

/// Builds the filters: the router is last, and what is optional and unknown is left out.
fn filters(proto: &[hcm::HttpFilter]) -> Result<HttpFilter> {
    let mut built = Vec::new();
    for (index, filter) in proto.iter().enumerate() {
        let filter = http_filter(filter).within(format_args!("http_filters[{index}]"))?;
        built.extend(filter.map(|filter| (index, filter)));
    }
    match built.pop() {
        None => Err(ConfigError::new(
            "http_filters",
            "must end with the router (envoy.extensions.filters.http.router.v3.Router)",
        )),
        // All filters that there are so far are terminal.
        Some((_, last)) => match built.first() {
            Some((index, _)) => Err(ConfigError::new(
                format_args!("http_filters[{index}]"),
                "the router must be the last filter",
            )),
            None => Ok(last),
        },
    }
}

fn http_filter(proto: &hcm::HttpFilter) -> Result<Option<HttpFilter>> {
    let any = match required(&proto.config_type, "typed_config")? {
        ConfigType::TypedConfig(any) => any,
        ConfigType::ConfigDiscovery(_) => {
            return Err(ConfigError::new(
                "config_discovery",
                "extension discovery (ECDS) is not supported",
            ));
        }
    };
    if proto.is_optional && find(HTTP_FILTERS, any).is_none() {
        tracing::info!(filter = %proto.name, type_url = %any.type_url,
            "left out an optional HTTP filter that is not supported");
        return Ok(None);
    }
    let extension = resolve(HTTP_FILTERS, "HTTP filter", any)?;
    let filter = (extension.build)(&any.value).within("typed_config")?;
    Ok((!proto.disabled).then_some(filter))
}

fn server_header(proto: &hcm::HttpConnectionManager) -> Result<ServerHeader> {
    use fields_of::ServerHeaderTransformation as Proto;
    let field = "server_header_transformation";
    Ok(
        match enumeration(proto.server_header_transformation, field)? {
            Proto::Overwrite => ServerHeader::Overwrite,
            Proto::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            Proto::PassThrough => ServerHeader::PassThrough,
        },
    )
}

fn forward_client_cert(proto: &hcm::HttpConnectionManager) -> Result<ForwardClientCert> {
    use fields_of::ForwardClientCertDetails as Proto;
    let field = "forward_client_cert_details";
    Ok(
        match enumeration(proto.forward_client_cert_details, field)? {
            Proto::Sanitize => ForwardClientCert::Sanitize,
            Proto::ForwardOnly => ForwardClientCert::ForwardOnly,
            Proto::AppendForward => ForwardClientCert::AppendForward,
            Proto::SanitizeSet => ForwardClientCert::SanitizeSet,
            Proto::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        },
    )
}

fn client_cert_details(proto: &hcm::HttpConnectionManager) -> ClientCertDetails {
    let details = proto.set_current_client_cert_details.unwrap_or_default();
    ClientCertDetails {
        subject: flag(&details.subject).unwrap_or(false),
        cert: details.cert,
        chain: details.chain,
        dns: details.dns,
        uri: details.uri,
    }
}

fn internal_addresses(proto: &hcm::HttpConnectionManager) -> Result<Vec<IpNet>> {
    // As in Envoy since 1.33 no address is internal unless it is named.
    match &proto.internal_address_config {
        None => Ok(Vec::new()),
        Some(config) => {
            each("cidr_ranges", &config.cidr_ranges, cidr).within("internal_address_config")
        }
    }
}

fn upgrades(proto: &[fields_of::UpgradeConfig]) -> Result<Vec<Box<[u8]>>> {
    let types = each("upgrade_configs", proto, |upgrade| {
        let kind = header_name(&upgrade.upgrade_type, "upgrade_type")?;
        Ok(flag(&upgrade.enabled).unwrap_or(true).then_some(kind))
    })?;
    Ok(types.into_iter().flatten().collect())
}

fn escaped_slashes(proto: &hcm::HttpConnectionManager) -> Result<EscapedSlashes> {
    use fields_of::PathWithEscapedSlashesAction as Proto;
    let field = "path_with_escaped_slashes_action";
    Ok(
        match enumeration(proto.path_with_escaped_slashes_action, field)? {
            Proto::ImplementationSpecificDefault | Proto::KeepUnchanged => EscapedSlashes::Keep,
            Proto::RejectRequest => EscapedSlashes::Reject,
            Proto::UnescapeAndRedirect => EscapedSlashes::Redirect,
            Proto::UnescapeAndForward => EscapedSlashes::Forward,
        },
    )
}

fn strip_port(proto: &hcm::HttpConnectionManager) -> StripPort {
    match proto.strip_port_mode {
        Some(StripPortMode::StripAnyHostPort(true)) => StripPort::Any,
        _ if proto.strip_matching_host_port => StripPort::Matching,
        _ => StripPort::No,
    }
}
