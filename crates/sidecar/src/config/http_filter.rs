//! HTTP filters: what is done to requests and responses around the router.

use std::sync::Arc;

use super::dynamic_forward_proxy::CacheSettings;
use super::network::FilterStateValue;
use super::route::HeaderAddition;

/// One filter of a connection manager's chain, before the router.
#[derive(Debug)]
pub struct HttpFilter {
    /// `name`: settings of routes are for a filter of this name.
    pub name: Arc<str>,
    /// `disabled`, unless a route says otherwise.
    pub disabled: bool,
    /// What it does.
    pub kind: FilterKind,
}

/// What a filter does.
#[derive(Debug)]
pub enum FilterKind {
    /// `header_mutation`
    HeaderMutation {
        /// For every request.
        mutations: HeaderMutations,
        /// `most_specific_header_mutations_wins`: what a route's settings change comes last.
        most_specific_wins: bool,
    },
    /// `dynamic_forward_proxy`
    DynamicForwardProxy {
        /// `allow_dynamic_host_from_filter_state`
        from_filter_state: bool,
        /// `dns_cache_config`, which the cluster's is the same as.
        _cache: Arc<CacheSettings>,
    },
    /// `set_filter_state`
    SetFilterState(Vec<FilterStateValue>),
    /// `set_metadata`
    SetMetadata(Vec<MetadataAddition>),
}

/// `typed_per_filter_config` of one level: settings by the filter's name. Mostly there are none.
#[derive(Debug, Default)]
pub struct FilterSettings(pub Vec<(Box<str>, FilterSetting)>);

impl FilterSettings {
    /// The setting for a filter of this name.
    pub fn of(&self, name: &str) -> Option<&FilterSetting> {
        let entry = self.0.iter().find(|(filter, _)| **filter == *name);
        entry.map(|(_, setting)| setting)
    }
}

/// What one level says of one filter.
#[derive(Debug, Default)]
pub struct FilterSetting {
    /// `FilterConfig.disabled`; a setting without it turns the filter on.
    pub disabled: bool,
    /// `HeaderMutationPerRoute`
    pub mutations: Option<HeaderMutations>,
    /// `PerRouteConfig` of dynamic_forward_proxy.
    pub host: Option<HostRewrite>,
}

/// The host that a dynamic forward proxy takes in place of the one that the request asks for.
#[derive(Debug)]
pub enum HostRewrite {
    /// `host_rewrite_literal`
    Literal(Box<[u8]>),
    /// `host_rewrite_header`: the value of this header, in lower case, if it is there.
    Header(Box<[u8]>),
}

/// `header_mutation.v3.Mutations`.
#[derive(Debug, Default)]
pub struct HeaderMutations {
    /// `request_mutations`, in order.
    pub request: Vec<HeaderMutation>,
    /// `response_mutations`, in order.
    pub response: Vec<HeaderMutation>,
}

/// `HeaderMutation`.
#[derive(Debug)]
pub enum HeaderMutation {
    /// `remove`, in lower case.
    Remove(Box<[u8]>),
    /// `append`
    Add(HeaderAddition),
    /// `remove_on_match`: the names that match.
    RemoveMatching(super::matcher::StringMatcher),
}

/// `set_metadata.v3.Metadata`.
#[derive(Debug)]
pub struct MetadataAddition {
    /// `metadata_namespace`
    pub namespace: Box<str>,
    /// `allow_overwrite`: else what is there stays.
    pub overwrite: bool,
    /// `value`
    pub value: serde_json::Map<String, serde_json::Value>,
}
