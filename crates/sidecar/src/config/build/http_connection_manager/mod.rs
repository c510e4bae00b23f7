//! `HttpConnectionManager`.

mod client_certificate;
mod filters;
mod heads;
pub mod local_reply;
mod original_ip;

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as fields_of;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use prost::Message as _;

use self::filters::Router;
pub use self::filters::mutations;
use super::context::Context;
use super::fields::{
    Together as _, Within as _, bounded, duration, each, enumeration, fingerprint, flag,
    header_name, header_text, named, one_of, required, timeout,
};
use super::{access_log, http_protocol, route, source};
use crate::config::error::{ConfigError, Result};
use crate::config::http_connection_manager::{CodecType, HttpConnectionManager};
use crate::config::http_protocol::Http1Settings;
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

/// Builds a connection manager.
pub fn build(
    proto: &hcm::HttpConnectionManager,
    context: &dyn Context,
) -> Result<HttpConnectionManager> {
    let server_name = match proto.server_name.as_str() {
        "" => SERVER_NAME,
        name => name,
    };
    let (first, second, third) = (
        (
            named(&proto.stat_prefix, "stat_prefix"),
            codec(proto),
            http_protocol::common(&proto.common_http_protocol_options)
                .within("common_http_protocol_options"),
            http_protocol::http1(&proto.http_protocol_options).within("http_protocol_options"),
            http_protocol::http2(&proto.http2_protocol_options).within("http2_protocol_options"),
            routes(&proto.route_specifier, context),
        )
            .together(),
        (
            filters::build(&proto.http_filters, context),
            local_reply::build(&proto.local_reply_config),
            access_log::build(&proto.access_log),
            upgrades(&proto.upgrade_configs),
            original_ip::build(proto),
            Times::of(proto),
            bounded(
                &proto.max_request_headers_kb,
                1..=MAX_MAX_REQUEST_HEADERS_KB,
                "max_request_headers_kb",
            ),
            header_text(server_name.as_bytes(), "server_name"),
            header_text(proto.via.as_bytes(), "via"),
        )
            .together(),
        (
            heads::server_header(proto),
            heads::scheme(proto),
            heads::user_agent(proto, context),
            heads::pack_trace_reason(proto),
            heads::early_mutations(proto),
            client_certificate::build(proto),
            heads::internal_addresses(proto),
            heads::escaped_slashes(proto),
        )
            .together(),
    )
        .together()?;
    let (stat_prefix, codec, common, http1, http2, (routes, rds)) = first;
    let (chain, local_replies, access_log, upgrades, original_ip, times, limit, server_name, via) =
        second;
    let (
        server_header,
        scheme,
        user_agent,
        pack_trace_reason,
        early_mutations,
        (client_cert, client_cert_matcher),
        internal_addresses,
        escaped_slashes,
    ) = third;
    let (
        filters,
        Router {
            suppress_envoy_headers,
            respect_expected_timeout,
        },
    ) = chain;
    Ok(HttpConnectionManager {
        stat_prefix: stat_prefix.into(),
        codec,
        routes,
        rds,
        http1: Http1Settings {
            stream_error: http1
                .stream_error
                .or(flag(&proto.stream_error_on_invalid_http_message)),
            ..http1
        },
        http2,
        idle_timeout: common.idle_timeout,
        max_connection_duration: common.max_connection_duration,
        max_connection_jitter: common.max_connection_jitter,
        max_stream_duration: common.max_stream_duration,
        underscores: common.underscores,
        max_requests_per_connection: common.max_requests_per_connection,
        request_timeout: times.request,
        request_headers_timeout: times.request_headers,
        stream_idle_timeout: times.stream_idle,
        stream_flush_timeout: times.stream_flush,
        drain_timeout: times.drain,
        drain_jitter: times.drain_jitter,
        delayed_close_timeout: times.delayed_close,
        max_request_headers_bytes: limit.unwrap_or(MAX_REQUEST_HEADERS_KB) as usize * 1024,
        max_headers_count: common.max_headers_count.unwrap_or(MAX_HEADERS_COUNT) as usize,
        server_name: server_name.into(),
        server_header,
        use_remote_address: flag(&proto.use_remote_address).unwrap_or(false),
        xff_trusted_hops: proto.xff_num_trusted_hops,
        original_ip,
        skip_xff_append: proto.skip_xff_append,
        append_forwarded_port: proto.append_x_forwarded_port,
        scheme,
        user_agent,
        generate_request_id: flag(&proto.generate_request_id).unwrap_or(true),
        preserve_external_request_id: proto.preserve_external_request_id,
        pack_trace_reason,
        request_id_in_response: proto.always_set_request_id_in_response,
        early_mutations,
        client_cert,
        client_cert_matcher,
        proxy_100_continue: proto.proxy_100_continue,
        internal_addresses,
        internal_unix_sockets: proto
            .internal_address_config
            .as_ref()
            .is_some_and(|config| config.unix_sockets),
        upgrades,
        normalize_path: flag(&proto.normalize_path).unwrap_or(false),
        merge_slashes: proto.merge_slashes,
        escaped_slashes,
        strip_host_port: heads::strip_port(proto),
        strip_host_dot: proto.strip_trailing_host_dot,
        via: via.into(),
        filters,
        local_replies,
        suppress_envoy_headers,
        respect_expected_timeout,
        tell_local_overload: proto.append_local_overload,
        access_log,
        log_times: heads::log_times(proto)?,
    })
}

fn codec(proto: &hcm::HttpConnectionManager) -> Result<CodecType> {
    use fields_of::CodecType as Proto;
    match enumeration(proto.codec_type, "codec_type")? {
        Proto::Auto => Ok(CodecType::Auto),
        Proto::Http1 => Ok(CodecType::Http1),
        Proto::Http2 => Ok(CodecType::Http2),
        Proto::Http3 => Err(ConfigError::new("codec_type", "HTTP/3 is not supported")),
    }
}

/// The timeouts of connections and streams.
struct Times {
    request: Option<Duration>,
    request_headers: Option<Duration>,
    stream_idle: Option<Duration>,
    stream_flush: Option<Duration>,
    drain: Duration,
    drain_jitter: f64,
    delayed_close: Duration,
}

impl Times {
    fn of(proto: &hcm::HttpConnectionManager) -> Result<Self> {
        let (request, request_headers, stream_idle, drain, drain_jitter, delayed_close) = (
            timeout(&proto.request_timeout, None, "request_timeout"),
            timeout(
                &proto.request_headers_timeout,
                None,
                "request_headers_timeout",
            ),
            timeout(
                &proto.stream_idle_timeout,
                Some(STREAM_IDLE_TIMEOUT),
                "stream_idle_timeout",
            ),
            duration(&proto.drain_timeout, "drain_timeout"),
            http_protocol::percent(&proto.drain_timeout_jitter, "drain_timeout_jitter"),
            duration(&proto.delayed_close_timeout, "delayed_close_timeout"),
        )
            .together()?;
        Ok(Times {
            request,
            request_headers,
            stream_idle,
            stream_flush: timeout(
                &proto.stream_flush_timeout,
                stream_idle,
                "stream_flush_timeout",
            )?,
            drain: drain.unwrap_or(DRAIN_TIMEOUT),
            drain_jitter,
            delayed_close: delayed_close.unwrap_or(DELAYED_CLOSE_TIMEOUT),
        })
    }
}

fn routes(
    proto: &Option<RouteSpecifier>,
    context: &dyn Context,
) -> Result<(Arc<Slot<RouteTable>>, bool)> {
    match one_of::<hcm::HttpConnectionManager, _>(proto, "rds")? {
        RouteSpecifier::RouteConfig(config) => {
            let fingerprint = fingerprint(&config.encode_to_vec());
            let table = route::build(config, fingerprint, context, true).within("route_config")?;
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
            "tables are not chosen by a key (SRDS): use route_config or rds, whose routes match the \
             header that the key is made of",
        )),
    }
}

fn upgrades(proto: &[fields_of::UpgradeConfig]) -> Result<Vec<Box<[u8]>>> {
    let types = each("upgrade_configs", proto, |upgrade| {
        let kind = header_name(&upgrade.upgrade_type, "upgrade_type")?;
        Ok(flag(&upgrade.enabled).unwrap_or(true).then_some(kind))
    })?;
    Ok(types.into_iter().flatten().collect())
}
