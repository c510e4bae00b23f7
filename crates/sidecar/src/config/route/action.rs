//! `RouteAction`: where a request is forwarded to, and how.

use std::sync::Arc;
use std::time::Duration;

use super::{HeaderChange, HeaderChanges, PathRewrite};
use crate::config::cluster::{Priority, ProxyProtocol};
use crate::config::http_filter::FilterSettings;
use crate::matching::Tree;
use crate::runtime_layer::{Fraction, Number};
use crate::telemetry::access_log::format::Format;

/// `RouteAction`.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub cluster: ClusterChoice,
    /// `cluster_not_found_response_code`: 503 unless set.
    pub not_found_status: u16,
    /// `prefix_rewrite`, `regex_rewrite`, `path_rewrite`, `path_rewrite_policy`
    pub rewrite: Option<Box<PathRewrite>>,
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
    /// `max_grpc_timeout`: whether and how `grpc-timeout` takes the place of `timeout`. Never set
    /// beside `max_stream_duration`.
    pub older_grpc_timeout: Option<GrpcTimeout>,
    /// `append_x_forwarded_host`: where the host is rewritten, the old one is kept in that header.
    pub append_x_forwarded_host: bool,
    /// `request_mirror_policies` of the route, else of its virtual host, else of its table.
    pub mirrors: Arc<[Mirror]>,
    /// `upgrade_configs` of the route: type in lower case to whether it is enabled.
    pub upgrades: Vec<(Box<[u8]>, bool)>,
    /// `upgrade_configs` with a `connect_config`: CONNECT ends here.
    pub raw: Option<Box<RawTunnel>>,
    /// `hash_policy`
    pub hash: Vec<HashPolicy>,
    /// `internal_redirect_policy`: which redirects of an endpoint are followed here; mostly none are.
    pub redirects: Option<Box<InternalRedirects>>,
    /// `request_body_buffer_limit` or `per_request_buffer_limit_bytes` of the route, else of its
    /// virtual host: the most bytes of a body that are kept in case it is to be sent again.
    pub body_limit: Option<u64>,
    /// `priority`: in which circuit breakers of the cluster it counts.
    pub priority: Priority,
}

/// `connect_config`: what follows a CONNECT goes to the endpoint as bytes.
#[derive(Debug)]
pub struct RawTunnel {
    /// `proxy_protocol_config`: the endpoint is told first who the client is.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// `allow_post`: the body of a POST goes there likewise.
    pub allow_post: bool,
}

/// How the `grpc-timeout` header becomes the limit of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// The most that the header may ask for; `None` (a zero) takes the header as it is.
    pub max: Option<Duration>,
    /// Subtracted from what the header says.
    pub offset: Duration,
}

/// `cluster_specifier`
#[derive(Debug)]
pub enum ClusterChoice {
    /// `cluster`
    Named(Arc<str>),
    /// `weighted_clusters`
    Weighted(Box<WeightedClusters>),
    /// `cluster_header`: the name of the header, in lower case
    Header(Box<[u8]>),
    /// A cluster specifier plugin: `envoy.router.cluster_specifier_plugin.matcher`
    Matched(Arc<Tree<Arc<str>>>),
}

/// `InternalRedirectPolicy`.
#[derive(Debug)]
pub struct InternalRedirects {
    /// `max_internal_redirects`: so many for one request, 1 unless set.
    pub max: u32,
    /// `redirect_response_codes`: 302 unless set.
    pub statuses: Vec<u16>,
    /// `predicates`: all must hold.
    pub predicates: Vec<RedirectPredicate>,
    /// `allow_cross_scheme_redirect`
    pub cross_scheme: bool,
    /// `response_headers_to_copy`, in lower case: the next request has them as the redirect has.
    pub copies: Vec<Box<[u8]>>,
}

/// `InternalRedirectPolicy.predicates`
#[derive(Debug)]
pub enum RedirectPredicate {
    /// `allow_listed_routes`: only to routes of these names.
    AllowListed(Vec<Box<str>>),
    /// `previous_routes`: not to a route to which this one has redirected the request before.
    NotBefore,
    /// `safe_cross_scheme`: not from http to https.
    SafeCrossScheme,
}

/// `WeightedCluster`.
#[derive(Debug)]
pub struct WeightedClusters {
    /// The parts.
    pub parts: Vec<WeightedCluster>,
    /// What decides.
    pub random: RandomSource,
}

/// `random_value_specifier`
#[derive(Debug)]
pub enum RandomSource {
    /// The request's own random number.
    Own,
    /// `header_name`: the number in that header, in lower case, if there is one.
    Header(Box<[u8]>),
    /// `use_hash_policy`: the route's hash, if the request has one.
    Hash,
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Debug)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: ShareCluster,
    /// Its share.
    pub weight: Number,
    /// Header changes for its share.
    pub headers: HeaderChanges,
    /// `host_rewrite_literal`; what the route makes of the host comes after it.
    pub host: Option<Box<[u8]>>,
    /// `typed_per_filter_config`
    pub filters: FilterSettings,
}

/// The cluster of a [`WeightedCluster`].
#[derive(Debug)]
pub enum ShareCluster {
    /// `name`
    Named(Arc<str>),
    /// `cluster_header`: the name of the header, in lower case
    Header(Box<[u8]>),
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
    /// `request_headers_mutations`
    pub headers: HeaderChange,
}

/// The cluster of a [`Mirror`].
#[derive(Debug)]
pub enum MirrorCluster {
    /// `cluster`
    Named(Box<str>),
    /// `cluster_header`: the name of the header, in lower case. Without it there is no copy.
    Header(Box<[u8]>),
}

/// `host_rewrite_specifier`
#[derive(Debug)]
pub enum HostRewrite {
    /// As it came.
    No,
    /// `host_rewrite_literal`
    Literal(Box<[u8]>),
    /// `auto_host_rewrite`: the endpoint's `hostname`
    Auto,
    /// `host_rewrite_header`, in lower case
    Header(Box<[u8]>),
    /// `host_rewrite_path_regex`: what a substitution makes of the path without its query
    PathRegex {
        /// `pattern`, not anchored
        pattern: Box<regex::bytes::Regex>,
        /// As in [`PathRewrite::Regex`].
        substitution: Box<[u8]>,
    },
    /// `host_rewrite`: text with operators.
    Format(Box<Format>),
}

/// `HashPolicy`: a part of a request by which load balancers choose the same endpoint again.
#[derive(Debug)]
pub struct HashPolicy {
    /// Which part.
    pub input: HashInput,
    /// `terminal`: if this gave a hash, the policies after it are not looked at.
    pub terminal: bool,
}

/// `policy_specifier`
#[derive(Debug)]
pub enum HashInput {
    /// `header`, in lower case: all its values, in whatever order they came.
    Header {
        /// `header_name`
        name: Box<[u8]>,
        /// `regex_rewrite`: what is made of each value, and the replacement.
        rewrite: Option<(Box<regex::bytes::Regex>, Box<[u8]>)>,
    },
    /// `cookie`
    Cookie(Box<[u8]>),
    /// `connection_properties.source_ip`
    SourceIp,
    /// `query_parameter`
    QueryParameter(Box<[u8]>),
    /// `filter_state`: the value of that name, which has a hash if `envoy.hashable_string` made it.
    FilterState(Box<str>),
}
