//! `RouteConfiguration`: which cluster a request goes to, and how it is changed on the way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::matcher::{HeaderMatcher, QueryMatcher, Regex};
use crate::runtime_layer::Fraction;

/// One validated `RouteConfiguration`. `http::route` matches requests against it.
#[derive(Debug)]
pub struct RouteTable {
    /// All virtual hosts.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Exact domains in lower case to an index of `virtual_hosts`.
    pub exact: HashMap<Box<[u8]>, usize>,
    /// `*.example.com` as `.example.com`, longest first.
    pub suffixes: Vec<(Box<[u8]>, usize)>,
    /// `example.*` as `example.`, longest first.
    pub prefixes: Vec<(Box<[u8]>, usize)>,
    /// `*`
    pub any: Option<usize>,
    /// `ignore_port_in_host_matching`
    pub ignore_port: bool,
    /// `ignore_path_parameters_in_path_matching`: what follows a `;` is not matched.
    pub ignore_path_parameters: bool,
    /// Header changes at this level.
    pub headers: HeaderChanges,
    /// `most_specific_header_mutations_wins`
    pub most_specific_wins: bool,
    /// Fingerprint of the proto: an equal resource is a no-op.
    pub fingerprint: u64,
}

/// `VirtualHost`.
#[derive(Debug)]
pub struct VirtualHost {
    /// `name`
    pub name: Arc<str>,
    /// `routes`, in order.
    pub routes: Vec<Arc<Route>>,
    /// `require_tls`
    pub require_tls: RequireTls,
    /// `include_request_attempt_count`: `x-envoy-attempt-count` goes upstream.
    pub attempt_count_in_request: bool,
    /// `include_attempt_count_in_response`: it goes to the client.
    pub attempt_count_in_response: bool,
    /// Header changes at this level.
    pub headers: HeaderChanges,
}

/// `require_tls`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequireTls {
    /// NONE
    No,
    /// EXTERNAL_ONLY
    ExternalOnly,
    /// ALL
    All,
}

/// `Route`.
#[derive(Debug)]
pub struct Route {
    /// `name`, or empty (`%ROUTE_NAME%`).
    pub name: Arc<str>,
    /// `match`
    pub matcher: RouteMatch,
    /// `action`
    pub action: Action,
    /// Header changes at this level.
    pub headers: HeaderChanges,
}

/// `RouteMatch`.
#[derive(Debug)]
pub struct RouteMatch {
    /// `path_specifier`
    pub path: PathMatch,
    /// `case_sensitive` (true unless set)
    pub case_sensitive: bool,
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    /// All must match.
    pub query: Vec<QueryMatcher>,
    /// `grpc`: only gRPC requests.
    pub grpc: bool,
    /// `runtime_fraction`: of the requests that match, how many do.
    pub fraction: Option<Fraction>,
}

/// `path_specifier`
#[derive(Debug)]
pub enum PathMatch {
    /// `prefix`
    Prefix(Box<[u8]>),
    /// `path`
    Exact(Box<[u8]>),
    /// `path_separated_prefix`: the path itself, or followed by a slash.
    SeparatedPrefix(Box<[u8]>),
    /// `safe_regex` over the path without its query
    Regex(Regex),
    /// `connect_matcher`
    Connect,
}

/// What is done with a matched request.
#[derive(Debug)]
pub enum Action {
    /// `route`
    Forward(Box<Forward>),
    /// `redirect`
    Redirect(Box<Redirect>),
    /// `direct_response`
    Direct {
        /// 200 to 599
        status: u16,
        /// The body; may be empty.
        body: Arc<[u8]>,
    },
}

/// `RouteAction`.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub cluster: ClusterChoice,
    /// `cluster_not_found_response_code`: 503 unless set.
    pub not_found_status: u16,
    /// `prefix_rewrite`, `regex_rewrite`
    pub rewrite: Option<PathRewrite>,
    /// `host_rewrite_*`
    pub host_rewrite: HostRewrite,
    /// `timeout`: 15 s unless set; `None` (a zero, or where `max_stream_duration` is set) never.
    pub timeout: Option<Duration>,
    /// `idle_timeout` of the stream: overrides the connection manager's. `Some(None)` turns it off.
    pub idle_timeout: Option<Option<Duration>>,
    /// `max_stream_duration.max_stream_duration`; `None` (also a zero) is no limit.
    pub max_stream_duration: Option<Duration>,
    /// `max_stream_duration.grpc_timeout_header_max`: whether and how `grpc-timeout` limits a stream.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// `append_x_forwarded_host`: where the host is rewritten, the old one is kept in that header.
    pub append_x_forwarded_host: bool,
    /// `request_mirror_policies` of the route, else of its virtual host, else of its table.
    pub mirrors: Arc<[Mirror]>,
    /// `upgrade_configs` of the route: type in lower case to whether it is enabled.
    pub upgrades: Vec<(Box<[u8]>, bool)>,
}

/// How the `grpc-timeout` header becomes the limit of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// `grpc_timeout_header_max`; `None` (a zero) takes the header as it is.
    pub max: Option<Duration>,
    /// `grpc_timeout_header_offset`: subtracted from what the header says.
    pub offset: Duration,
}

/// `cluster_specifier`
#[derive(Debug)]
pub enum ClusterChoice {
    /// `cluster`
    Named(Arc<str>),
    /// `weighted_clusters`
    Weighted {
        /// The parts.
        parts: Vec<WeightedCluster>,
        /// Sum of the weights, at least 1.
        total: u32,
    },
    /// `cluster_header`: the name of the header, in lower case
    Header(Box<[u8]>),
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Debug)]
pub struct WeightedCluster {
    /// The cluster.
    pub name: Arc<str>,
    /// Its share.
    pub weight: u32,
    /// Header changes for its share.
    pub headers: HeaderChanges,
    /// `host_rewrite_literal`; what the route makes of the host comes after it.
    pub host: Option<Box<[u8]>>,
}

/// `RequestMirrorPolicy`: where copies of requests go.
#[derive(Debug)]
pub struct Mirror {
    /// To which cluster.
    pub cluster: MirrorCluster,
    /// `runtime_fraction`; all unless set.
    pub fraction: Option<Fraction>,
    /// `host_rewrite_literal`
    pub host: Option<Box<[u8]>>,
    /// Whether `-shadow` is added to the host: unless `disable_shadow_host_suffix_append` or
    /// `host_rewrite_literal` is set.
    pub marks_host: bool,
}

/// The cluster of a [`Mirror`].
#[derive(Debug)]
pub enum MirrorCluster {
    /// `cluster`
    Named(Box<str>),
    /// `cluster_header`: the name of the header, in lower case. Without it there is no copy.
    Header(Box<[u8]>),
}

/// How the path is rewritten.
#[derive(Debug)]
pub enum PathRewrite {
    /// `prefix_rewrite`: replaces what the route's prefix or path matched.
    Prefix(Box<[u8]>),
    /// `regex_rewrite`: replaces every match in the path (not in the query).
    Regex {
        /// `pattern`, not anchored
        pattern: regex::bytes::Regex,
        /// The replacement in the regex crate's syntax (`${1}` for RE2's `\1`).
        substitution: Box<[u8]>,
    },
}

/// `host_rewrite_specifier`
#[derive(Debug, PartialEq, Eq)]
pub enum HostRewrite {
    /// As it came.
    No,
    /// `host_rewrite_literal`
    Literal(Box<[u8]>),
    /// `auto_host_rewrite`: the endpoint's `hostname`
    Auto,
    /// `host_rewrite_header`, in lower case
    Header(Box<[u8]>),
}

/// `RedirectAction`.
#[derive(Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `scheme_redirect`, or `https_redirect` as `https`.
    pub scheme: Option<Box<[u8]>>,
    /// `host_redirect`
    pub host: Option<Box<[u8]>>,
    /// `port_redirect`
    pub port: Option<u16>,
    /// `path_redirect`: the whole path.
    pub path: Option<Box<[u8]>>,
    /// `prefix_rewrite` or `regex_rewrite`
    pub rewrite: Option<PathRewrite>,
    /// `strip_query`
    pub strip_query: bool,
}

/// Headers to add and remove at one level, towards upstream and towards the client.
#[derive(Debug, Default)]
pub struct HeaderChanges {
    /// `request_headers_to_add`
    pub request_add: Vec<HeaderAddition>,
    /// `request_headers_to_remove`, in lower case
    pub request_remove: Vec<Box<[u8]>>,
    /// `response_headers_to_add`
    pub response_add: Vec<HeaderAddition>,
    /// `response_headers_to_remove`, in lower case
    pub response_remove: Vec<Box<[u8]>>,
}

impl HeaderChanges {
    /// Whether nothing is changed, which is the usual case.
    pub fn is_empty(&self) -> bool {
        self.request_add.is_empty()
            && self.request_remove.is_empty()
            && self.response_add.is_empty()
            && self.response_remove.is_empty()
    }
}

/// `HeaderValueOption`.
#[derive(Debug)]
pub struct HeaderAddition {
    /// In lower case.
    pub name: Box<[u8]>,
    /// Text with `%OPERATORS%`, parsed once; most are plain text.
    pub value: Arc<crate::telemetry::access_log::format::Format>,
    /// `append_action`
    pub action: AppendAction,
    /// `keep_empty_value`
    pub keep_empty: bool,
}

/// `append_action`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAction {
    /// APPEND_IF_EXISTS_OR_ADD: one more field
    Append,
    /// ADD_IF_ABSENT
    AddIfAbsent,
    /// OVERWRITE_IF_EXISTS_OR_ADD
    Overwrite,
    /// OVERWRITE_IF_EXISTS
    OverwriteIfExists,
}
