//! `TcpProxy`.

use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;
use super::route::HeaderAddition;
use crate::telemetry::access_log::format::Format;

/// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
#[derive(Debug)]
pub struct TcpProxy {
    /// `stat_prefix`
    pub stat_prefix: Arc<str>,
    /// `cluster`, or the weighted ones. Weights add up to `total_weight`.
    pub clusters: Vec<(Arc<str>, u32)>,
    /// Sum of the weights; at least 1.
    pub total_weight: u32,
    /// `idle_timeout`; unless set, or where it is zero, never: databases keep idle connections for
    /// days, and keep-alive finds peers that are gone. (Envoy would cut them after an hour.)
    pub idle_timeout: Option<Duration>,
    /// `max_downstream_connection_duration`
    pub max_duration: Option<Duration>,
    /// `max_downstream_connection_duration_jitter_percentage`: so much longer at most.
    pub max_duration_jitter: f64,
    /// `max_connect_attempts`, 1 unless set.
    pub max_connect_attempts: u32,
    /// `backoff_options`
    pub backoff: Option<Backoff>,
    /// `upstream_connect_mode`
    pub connect_mode: ConnectMode,
    /// `tunneling_config`
    pub tunnel: Option<Tunnel>,
    /// `check_drain_close`: a connection of a listener that drains ends with the next bytes.
    pub check_drain_close: bool,
    /// `access_log`
    pub access_log: Vec<AccessLog>,
    /// `access_log_options`
    pub log_options: LogOptions,
}

/// `TunnelingConfig`: the bytes travel in an HTTP request.
#[derive(Debug)]
pub struct Tunnel {
    /// `hostname`: what is asked for.
    pub hostname: Format,
    /// `post_path`, where `use_post` has the request be a POST; else it is a CONNECT.
    pub post: Option<Box<[u8]>>,
    /// `headers_to_add`
    pub headers: Vec<HeaderAddition>,
    /// `propagate_response_headers`: the response's headers become filter state.
    pub keep_headers: bool,
    /// `propagate_response_trailers`: so do its trailers.
    pub keep_trailers: bool,
    /// `request_id_extension`: each request gets an id.
    pub request_id: Option<TunnelRequestId>,
}

/// Where the id of a tunnel's request goes.
#[derive(Debug, PartialEq, Eq)]
pub struct TunnelRequestId {
    /// `request_id_header`; `x-request-id` unless set.
    pub header: Box<[u8]>,
    /// `request_id_metadata_key`, of the namespace `envoy.filters.network.tcp_proxy`;
    /// `tunnel_request_id` unless set.
    pub metadata_key: Box<str>,
}

/// `BackoffStrategy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// `base_interval`
    pub base: Duration,
    /// `max_interval`; ten times the base unless set.
    pub most: Duration,
}

/// When the endpoint is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectMode {
    /// IMMEDIATE, and ON_DOWNSTREAM_TLS_HANDSHAKE: filters run when TLS is established.
    AtOnce,
    /// ON_DOWNSTREAM_DATA: when the client has said something.
    OnData {
        /// `max_early_data_bytes`: how much of it is read before.
        most: u32,
    },
}

/// `TcpAccessLogOptions`: when a connection is logged beside at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `access_log_flush_interval`
    pub interval: Option<Duration>,
    /// `flush_access_log_on_start`
    pub on_start: bool,
    /// `flush_access_log_on_connected`
    pub on_connected: bool,
}

impl TcpProxy {
    /// Whether the endpoint may be connected to before the client has said anything, and before it is
    /// known what filters make of it.
    pub fn connects_at_once(&self) -> bool {
        self.connect_mode == ConnectMode::AtOnce && self.tunnel.is_none()
    }
}

#[cfg(test)]
impl TcpProxy {
    /// All defaults, to the cluster `cluster`.
    pub fn to(cluster: &str) -> Self {
        TcpProxy {
            stat_prefix: "t".into(),
            clusters: vec![(cluster.into(), 1)],
            total_weight: 1,
            idle_timeout: None,
            max_duration: None,
            max_duration_jitter: 0.0,
            max_connect_attempts: 1,
            backoff: None,
            connect_mode: ConnectMode::AtOnce,
            tunnel: None,
            check_drain_close: false,
            access_log: Vec::new(),
            log_options: LogOptions::default(),
        }
    }
}
