//! What HTTP/1 and HTTP/2 connections are told, in either direction.

use std::sync::Arc;
use std::time::Duration;

use crate::http::h1::encoder::Dialect;

/// `Http1ProtocolOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http1Settings {
    /// `accept_http_10`: requests of that version are answered 426 otherwise.
    pub accept_http_10: bool,
    /// `default_host_for_http_10`: the host of such a request that names none.
    pub default_host: Option<Arc<[u8]>>,
    /// `allow_custom_methods`: any token is a method; otherwise only those that Envoy knows are.
    pub custom_methods: bool,
    /// `override_stream_error_on_invalid_http_message`: a request that is answered with 400 for what
    /// its head says does not end the connection; the manager's own setting unless set.
    pub stream_error: Option<bool>,
    /// `header_key_format` and `enable_trailers`.
    pub dialect: Dialect,
}

/// `Http2ProtocolOptions`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Http2Settings {
    /// `max_concurrent_streams`; Envoy's default of 1024.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size`, bytes; Envoy's default is 16 MiB.
    pub initial_stream_window: u32,
    /// `initial_connection_window_size`, bytes; Envoy's default is 24 MiB.
    pub initial_connection_window: u32,
    /// `allow_connect`
    pub allow_connect: bool,
    /// `hpack_table_size`, bytes.
    pub header_table_size: u32,
    /// `connection_keepalive`; `None` sends no pings.
    pub keepalive: Option<Keepalive>,
}

/// `KeepaliveSettings`: pings that tell a dead peer from a quiet one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keepalive {
    /// From an answer to the next ping.
    pub interval: Duration,
    /// How long the answer may take before the connection is given up.
    pub timeout: Duration,
    /// The share of `interval` that is added by chance at most: 0 to 1.
    pub jitter: f64,
}
