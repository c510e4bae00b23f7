//! `HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::access_log::AccessLog;
use super::cluster::Http2Settings;
use super::route::RouteTable;
use crate::discovery::slot::Slot;

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug)]
pub struct HttpConnectionManager {
    /// `stat_prefix`
    pub stat_prefix: Arc<str>,
    /// `codec_type`
    pub codec: CodecType,
    /// Inline route table (a filled slot) or RDS.
    pub routes: Arc<Slot<RouteTable>>,
    /// Whether the routes come by RDS, for discovery and warming.
    pub rds: bool,
    /// HTTP/2 settings towards clients.
    pub http2: Http2Settings,
    /// `common_http_protocol_options.idle_timeout`: 1 h unless set; `None` never.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `max_requests_per_connection`
    pub max_requests_per_connection: Option<u32>,
    /// `request_timeout`: the whole request must have been received; `None` is off.
    pub request_timeout: Option<Duration>,
    /// `request_headers_timeout`; `None` is off.
    pub request_headers_timeout: Option<Duration>,
    /// `stream_idle_timeout`: 5 min unless set; `None` is off.
    pub stream_idle_timeout: Option<Duration>,
    /// `drain_timeout`: from GOAWAY to the close, 5 s unless set.
    pub drain_timeout: Duration,
    /// `delayed_close_timeout`: 1 s unless set.
    pub delayed_close_timeout: Duration,
    /// `max_request_headers_kb` in bytes: 60 KiB unless set.
    pub max_request_headers_bytes: usize,
    /// `common_http_protocol_options.max_headers_count`: 100 unless set.
    pub max_headers_count: usize,
    /// `server_name` (`envoy` unless set) and how it is put.
    pub server_name: Arc<[u8]>,
    /// `server_header_transformation`
    pub server_header: ServerHeader,
    /// `use_remote_address`
    pub use_remote_address: bool,
    /// `xff_num_trusted_hops`
    pub xff_trusted_hops: u32,
    /// `skip_xff_append`
    pub skip_xff_append: bool,
    /// `generate_request_id`: on unless set.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`
    pub request_id_in_response: bool,
    /// `forward_client_cert_details`
    pub forward_client_cert: ForwardClientCert,
    /// `set_current_client_cert_details`
    pub client_cert_details: ClientCertDetails,
    /// `proxy_100_continue`: `expect: 100-continue` is passed on; else we answer it.
    pub proxy_100_continue: bool,
    /// `internal_address_config.cidr_ranges`: clients whose requests are internal.
    pub internal_addresses: Vec<IpNet>,
    /// `upgrade_configs`: types allowed on every route, in lower case.
    pub upgrades: Vec<Box<[u8]>>,
    /// `normalize_path`
    pub normalize_path: bool,
    /// `merge_slashes`
    pub merge_slashes: bool,
    /// `path_with_escaped_slashes_action`
    pub escaped_slashes: EscapedSlashes,
    /// `strip_matching_host_port` or `strip_any_host_port`
    pub strip_host_port: StripPort,
    /// `via`, or empty
    pub via: Arc<[u8]>,
    /// Per-filter settings of the router: `suppress_envoy_headers`.
    pub suppress_envoy_headers: bool,
    /// `access_log`
    pub access_log: Vec<AccessLog>,
}

/// `codec_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecType {
    /// By ALPN, else by the first bytes.
    Auto,
    /// HTTP/1 only
    Http1,
    /// HTTP/2 only
    Http2,
}

/// `server_header_transformation`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    /// OVERWRITE
    Overwrite,
    /// APPEND_IF_ABSENT
    AppendIfAbsent,
    /// PASS_THROUGH
    PassThrough,
}

/// `forward_client_cert_details`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// SANITIZE (the default): never forwarded.
    Sanitize,
    /// FORWARD_ONLY: as it came, on mutual TLS.
    ForwardOnly,
    /// APPEND_FORWARD
    AppendForward,
    /// SANITIZE_SET
    SanitizeSet,
    /// ALWAYS_FORWARD_ONLY
    AlwaysForwardOnly,
}

/// `set_current_client_cert_details`; `By` and `Hash` are always written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `subject`
    pub subject: bool,
    /// `cert`: the PEM, percent-encoded
    pub cert: bool,
    /// `chain`
    pub chain: bool,
    /// `dns`
    pub dns: bool,
    /// `uri`
    pub uri: bool,
}

/// `path_with_escaped_slashes_action`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// KEEP_UNCHANGED
    Keep,
    /// REJECT_REQUEST
    Reject,
    /// UNESCAPE_AND_REDIRECT
    Redirect,
    /// UNESCAPE_AND_FORWARD
    Forward,
}

/// Which port of the authority is dropped before routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StripPort {
    /// none
    No,
    /// The listener's own.
    Matching,
    /// Any.
    Any,
}
