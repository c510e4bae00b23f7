//! `HttpConnectionManager`.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::access_log::AccessLog;
use super::http_filter::{HeaderMutation, HttpFilter};
use super::http_protocol::{Http1Settings, Http2Settings};
use super::local_reply::LocalReplies;
use super::route::RouteTable;
use crate::discovery::slot::Slot;
use crate::matching::Tree;

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
    /// HTTP/1 settings towards clients.
    pub http1: Http1Settings,
    /// HTTP/2 settings towards clients.
    pub http2: Http2Settings,
    /// `common_http_protocol_options.idle_timeout`: 1 h unless set; `None` never.
    pub idle_timeout: Option<Duration>,
    /// `max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// `max_connection_duration_jitter`: by so much of it, at most, a connection lives longer.
    pub max_connection_jitter: f64,
    /// `max_stream_duration`, where the route has none; `None` is no limit.
    pub max_stream_duration: Option<Duration>,
    /// `headers_with_underscores_action`
    pub underscores: Underscores,
    /// `max_requests_per_connection`
    pub max_requests_per_connection: Option<u32>,
    /// `request_timeout`: the whole request must have been received; `None` is off.
    pub request_timeout: Option<Duration>,
    /// `request_headers_timeout`; `None` is off.
    pub request_headers_timeout: Option<Duration>,
    /// `stream_idle_timeout`: 5 min unless set; `None` is off.
    pub stream_idle_timeout: Option<Duration>,
    /// `stream_flush_timeout`: how long a client may take no byte of a response that is complete;
    /// `stream_idle_timeout` unless set.
    pub stream_flush_timeout: Option<Duration>,
    /// `drain_timeout`: from GOAWAY to the close, 5 s unless set.
    pub drain_timeout: Duration,
    /// `drain_timeout_jitter`: by so much of it, at most, it is longer.
    pub drain_jitter: f64,
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
    /// `xff_num_trusted_hops`, where `use_remote_address` is set.
    pub xff_trusted_hops: u32,
    /// `original_ip_detection_extensions`, or what `xff_num_trusted_hops` stands for: who the client
    /// is where `use_remote_address` is not set. The first that knows is believed.
    pub original_ip: Vec<OriginalIp>,
    /// `append_x_forwarded_port`
    pub append_forwarded_port: bool,
    /// `scheme_header_transformation`
    pub scheme: SchemeRule,
    /// `add_user_agent`: the node's cluster and id.
    pub user_agent: Option<UserAgent>,
    /// `skip_xff_append`
    pub skip_xff_append: bool,
    /// `generate_request_id`: on unless set.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`
    pub preserve_external_request_id: bool,
    /// `request_id_extension`'s `pack_trace_reason`: on unless turned off.
    pub pack_trace_reason: bool,
    /// `always_set_request_id_in_response`
    pub request_id_in_response: bool,
    /// `early_header_mutation_extensions`: done to every request before anything reads its headers.
    pub early_mutations: Vec<HeaderMutation>,
    /// `forward_client_cert_details` with `set_current_client_cert_details`
    pub client_cert: ClientCertRule,
    /// `forward_client_cert_matcher`: what is done with requests of some kinds instead.
    pub client_cert_matcher: Option<Box<Tree<ClientCertRule>>>,
    /// `proxy_100_continue`: `expect: 100-continue` is passed on; else we answer it.
    pub proxy_100_continue: bool,
    /// `internal_address_config.cidr_ranges`: clients whose requests are internal.
    pub internal_addresses: Vec<IpNet>,
    /// `internal_address_config.unix_sockets`: so are those of clients on Unix sockets.
    pub internal_unix_sockets: bool,
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
    /// `strip_trailing_host_dot`
    pub strip_host_dot: bool,
    /// `via`, or empty
    pub via: Arc<[u8]>,
    /// `http_filters` before the router.
    pub filters: Vec<HttpFilter>,
    /// `local_reply_config`
    pub local_replies: Option<Box<LocalReplies>>,
    /// Per-filter settings of the router: `suppress_envoy_headers`.
    pub suppress_envoy_headers: bool,
    /// The router's `respect_expected_rq_timeout`
    pub respect_expected_timeout: bool,
    /// `append_local_overload`
    pub tell_local_overload: bool,
    /// `access_log`
    pub access_log: Vec<AccessLog>,
    /// `access_log_options`
    pub log_times: LogTimes,
}

/// When requests are logged, beside their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogTimes {
    /// `access_log_flush_interval`: each time that so much has passed.
    pub every: Option<Duration>,
    /// `flush_access_log_on_new_request`
    pub on_request: bool,
    /// `flush_log_on_tunnel_successfully_established`
    pub on_tunnel: bool,
}

/// `original_ip_detection_extensions`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginalIp {
    /// `xff` with `xff_num_trusted_hops`: the entry before so many trusted ones.
    Hops {
        /// `xff_num_trusted_hops`
        hops: u32,
        /// Unless `skip_xff_append`, the peer is appended to the list.
        append: bool,
    },
    /// `xff` with `xff_trusted_cidrs`: the last entry that is not a trusted proxy's.
    Trusted {
        /// `xff_trusted_cidrs`
        ranges: Vec<IpNet>,
        /// Unless `skip_xff_append`, the peer is appended to the list.
        append: bool,
    },
    /// `custom_header`
    Header {
        /// `header_name`, in lower case.
        name: Box<[u8]>,
        /// `allow_extension_to_set_address_as_trusted`: the address may be an internal one.
        trusted: bool,
        /// `reject_with_status`: the answer to a request without it.
        reject: Option<u16>,
    },
}

/// `scheme_header_transformation`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemeRule {
    /// As x-forwarded-proto or the client says.
    Keep,
    /// `scheme_to_overwrite`
    Overwrite(&'static str),
    /// `match_upstream`: that of the connection to the endpoint.
    MatchUpstream,
}

/// What `add_user_agent` tells the next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAgent {
    /// `x-envoy-downstream-service-cluster`, and `user-agent` where the client sent none.
    pub cluster: Box<[u8]>,
    /// `x-envoy-downstream-service-node`; empty: it is not sent.
    pub node: Box<[u8]>,
}

/// `headers_with_underscores_action`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// ALLOW
    Allow,
    /// REJECT_REQUEST
    Reject,
    /// DROP_HEADER
    Drop,
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

/// What the next hop is told of the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertRule {
    /// `forward_client_cert_details`
    pub forward: ForwardClientCert,
    /// `set_current_client_cert_details`
    pub details: ClientCertDetails,
}

impl ClientCertRule {
    /// Whether the certificate itself is told of, or decides whether the client is believed.
    pub const fn asks_for_certificate(self) -> bool {
        !matches!(
            self.forward,
            ForwardClientCert::Sanitize | ForwardClientCert::AlwaysForwardOnly
        )
    }
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
    /// `issuer`
    pub issuer: bool,
    /// `format`: JSON instead of text, where the client sent none in text.
    pub json: bool,
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
