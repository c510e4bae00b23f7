//! `RouteConfiguration`: which cluster a request goes to, and how it is changed on the way.

mod action;
mod answer;
mod headers;
mod matching;

use std::sync::Arc;

pub use self::action::{
    ClusterChoice, Forward, GrpcTimeout, HashInput, HashPolicy, HostRewrite, InternalRedirects,
    Mirror, MirrorCluster, RandomSource, RawTunnel, RedirectPredicate, ShareCluster,
    WeightedCluster, WeightedClusters,
};
pub use self::answer::{DirectResponse, PathRewrite, Redirect, TemplatePiece};
pub use self::headers::{AppendAction, HeaderAddition, HeaderChange, HeaderChanges};
pub use self::matching::{Criteria, PathMatch, RouteMatch};
use super::http_filter::FilterSettings;
use super::matcher::HeaderMatcher;
use crate::http::route::domains::Domains;
use crate::http::route::index::RouteIndex;
use crate::http::route::stats::StatName;
use crate::matching::Tree;

/// One validated `RouteConfiguration`. `http::route` matches requests against it.
#[derive(Debug)]
pub struct RouteTable {
    /// All virtual hosts.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Their domains.
    pub domains: Domains,
    /// `vhost_header`: the header that names the virtual host instead of the authority, in lower
    /// case.
    pub host_header: Option<Box<[u8]>>,
    /// `ignore_port_in_host_matching`
    pub ignore_port: bool,
    /// `ignore_path_parameters_in_path_matching`: what follows a `;` is not matched.
    pub ignore_path_parameters: bool,
    /// `internal_only_headers`, in lower case: taken from requests that come from outside.
    pub internal_only: Vec<Box<[u8]>>,
    /// Header changes at this level.
    pub headers: HeaderChanges,
    /// `typed_per_filter_config`
    pub filters: FilterSettings,
    /// `most_specific_header_mutations_wins`
    pub most_specific_wins: bool,
    /// Fingerprint of the proto: an equal resource is a no-op.
    pub fingerprint: u64,
}

/// `VirtualHost`.
#[derive(Debug)]
pub struct VirtualHost {
    /// `routes`, in order.
    pub routes: Vec<Arc<Route>>,
    /// Which of them come in question for a path.
    pub index: RouteIndex,
    /// `matcher`: leads to the routes to try, instead of `routes`.
    pub matcher: Option<Tree<Vec<Arc<Route>>>>,
    /// `require_tls`
    pub require_tls: RequireTls,
    /// `virtual_clusters`, the last of which is `other`, to which every request belongs that
    /// belongs to no other; none where none are configured.
    pub virtual_clusters: Vec<VirtualCluster>,
    /// `include_request_attempt_count`: `x-envoy-attempt-count` goes upstream.
    pub attempt_count_in_request: bool,
    /// `include_attempt_count_in_response`: it goes to the client.
    pub attempt_count_in_response: bool,
    /// Header changes at this level.
    pub headers: HeaderChanges,
    /// `typed_per_filter_config`
    pub filters: FilterSettings,
}

/// `VirtualCluster`: requests that are counted together.
#[derive(Debug)]
pub struct VirtualCluster {
    /// All must match.
    pub headers: Vec<HeaderMatcher>,
    /// `vhost.<virtual host>.vcluster.<name>`
    pub stat: Arc<StatName>,
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
    /// `typed_per_filter_config`
    pub filters: FilterSettings,
    /// `stat_prefix`: `vhost.<virtual host>.route.<prefix>`
    pub stat: Option<Arc<StatName>>,
}

/// What is done with a matched request.
#[derive(Debug)]
pub enum Action {
    /// `route`
    Forward(Box<Forward>),
    /// `redirect`
    Redirect(Box<Redirect>),
    /// `direct_response`
    Direct(Box<DirectResponse>),
}
