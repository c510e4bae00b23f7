//! `Http1ProtocolOptions`, `Http2ProtocolOptions` and `HttpProtocolOptions`, of either direction.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::r#type::v3::Percent;

use super::fields::{
    Together as _, Within as _, bounded, enumeration, flag, header_text, positive, refuse,
    required, timeout, uint,
};
use crate::config::error::{Problems, Result};
use crate::config::http_connection_manager::Underscores;
use crate::config::http_protocol::{Http1Settings, Http2Settings, Keepalive};
use crate::http::h1::encoder::{Dialect, Style};

/// `idle_timeout` unless set.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

const MAX_CONCURRENT_STREAMS: u32 = 1024;
const INITIAL_STREAM_WINDOW: u32 = 16 << 20;
const INITIAL_CONNECTION_WINDOW: u32 = 24 << 20;

/// `hpack_table_size`, bytes, unless set (RFC 9113, section 6.5.2).
const HEADER_TABLE: u32 = 4096;
/// `interval_jitter` unless set, in percent.
const DEFAULT_JITTER: Percent = Percent { value: 15.0 };

/// The least and the most that a flow-control window can be (RFC 9113, section 6.9).
const WINDOW: std::ops::RangeInclusive<u32> = 65_535..=i32::MAX as u32;

/// What both directions take from `HttpProtocolOptions`.
#[derive(Debug)]
pub struct Common {
    /// `idle_timeout`
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `max_requests_per_connection`; `None` (also a zero) is no limit.
    pub max_requests_per_connection: Option<u32>,
    /// `max_headers_count`
    pub max_headers_count: Option<u32>,
    /// `max_connection_duration_jitter` as a fraction.
    pub max_connection_jitter: f64,
    /// `max_stream_duration`; `None` (also a zero) is no limit.
    pub max_stream_duration: Option<Duration>,
    /// `headers_with_underscores_action`, which only concerns what clients send.
    pub underscores: Underscores,
}

/// `HttpProtocolOptions`.
pub fn common(proto: &Option<core::HttpProtocolOptions>) -> Result<Common> {
    let proto = proto.unwrap_or_default();
    let mut problems = Problems::default();
    let underscores: HeadersWithUnderscoresAction = problems.take(enumeration(
        proto.headers_with_underscores_action,
        "headers_with_underscores_action",
    ));
    let built = Common {
        idle_timeout: problems.take(timeout(
            &proto.idle_timeout,
            Some(IDLE_TIMEOUT),
            "idle_timeout",
        )),
        max_connection_duration: problems.take(timeout(
            &proto.max_connection_duration,
            None,
            "max_connection_duration",
        )),
        max_requests_per_connection: uint(&proto.max_requests_per_connection)
            .filter(|requests| *requests > 0),
        max_headers_count: problems.take(bounded(
            &proto.max_headers_count,
            1..=u32::from(u16::MAX),
            "max_headers_count",
        )),
        max_connection_jitter: problems.take(percent(
            &proto.max_connection_duration_jitter,
            "max_connection_duration_jitter",
        )),
        max_stream_duration: problems.take(timeout(
            &proto.max_stream_duration,
            None,
            "max_stream_duration",
        )),
        underscores: match underscores {
            HeadersWithUnderscoresAction::Allow => Underscores::Allow,
            HeadersWithUnderscoresAction::RejectRequest => Underscores::Reject,
            HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
        },
    };
    problems.or(built)
}

/// `Percent` as a fraction; 0 unless set.
pub fn percent(proto: &Option<Percent>, field: &str) -> Result<f64> {
    let percent = proto.map_or(0.0, |percent| percent.value);
    refuse(
        !(0.0..=100.0).contains(&percent),
        field,
        "must be between 0 and 100",
    )?;
    Ok(percent / 100.0)
}

/// `Http1ProtocolOptions`.
pub fn http1(proto: &Option<core::Http1ProtocolOptions>) -> Result<Http1Settings> {
    let proto = proto.clone().unwrap_or_default();
    let (_, default_host, style) = (
        refuse(
            flag(&proto.allow_absolute_url) == Some(false),
            "allow_absolute_url",
            "cannot be turned off: RFC 9112, section 3.2.2, wants every server to take them",
        ),
        match proto.default_host_for_http_10.as_str() {
            "" => Ok(None),
            host => header_text(host.as_bytes(), "default_host_for_http_10")
                .map(|host| Some(Arc::from(host))),
        },
        style(&proto).within("header_key_format"),
    )
        .together()?;
    Ok(Http1Settings {
        accept_http_10: proto.accept_http_10,
        default_host,
        custom_methods: proto.allow_custom_methods,
        stream_error: flag(&proto.override_stream_error_on_invalid_http_message),
        dialect: Dialect {
            style,
            trailers: proto.enable_trailers,
        },
    })
}

fn style(proto: &core::Http1ProtocolOptions) -> Result<Style> {
    use core::http1_protocol_options::header_key_format::HeaderFormat;

    let format = proto.header_key_format.as_ref();
    Ok(
        match format.and_then(|format| format.header_format.as_ref()) {
            Some(HeaderFormat::ProperCaseWords(_)) => Style::ProperCase,
            // The only formatter that there is keeps the case in which names came, which we do anyway.
            Some(HeaderFormat::StatefulFormatter(_)) | None => Style::AsCame,
        },
    )
}

/// `connection_keepalive`.
fn keepalive(proto: &core::KeepaliveSettings) -> Result<Keepalive> {
    let above_zero = |value, field| {
        let value = positive(value, field)?;
        required(&value, field).copied()
    };
    let jitter = proto.interval_jitter.or(Some(DEFAULT_JITTER));
    let (interval, timeout, jitter) = (
        above_zero(&proto.interval, "interval"),
        above_zero(&proto.timeout, "timeout"),
        percent(&jitter, "interval_jitter"),
    )
        .together()?;
    Ok(Keepalive {
        interval,
        timeout,
        jitter,
    })
}

/// `Http2ProtocolOptions`.
pub fn http2(proto: &Option<core::Http2ProtocolOptions>) -> Result<Http2Settings> {
    let proto = proto.clone().unwrap_or_default();
    let keepalive = proto.connection_keepalive.as_ref();
    let keepalive = keepalive.map(self::keepalive).transpose();
    let mut problems = Problems::default();
    let mut bounded = |value, bounds, field| problems.take(bounded(value, bounds, field));
    let built = Http2Settings {
        max_concurrent_streams: bounded(
            &proto.max_concurrent_streams,
            1..=i32::MAX as u32,
            "max_concurrent_streams",
        )
        .unwrap_or(MAX_CONCURRENT_STREAMS),
        initial_stream_window: bounded(
            &proto.initial_stream_window_size,
            WINDOW,
            "initial_stream_window_size",
        )
        .unwrap_or(INITIAL_STREAM_WINDOW),
        initial_connection_window: bounded(
            &proto.initial_connection_window_size,
            WINDOW,
            "initial_connection_window_size",
        )
        .unwrap_or(INITIAL_CONNECTION_WINDOW),
        allow_connect: proto.allow_connect,
        header_table_size: uint(&proto.hpack_table_size).unwrap_or(HEADER_TABLE),
        keepalive: problems.take(keepalive.within("connection_keepalive")),
    };
    problems.or(built)
}
