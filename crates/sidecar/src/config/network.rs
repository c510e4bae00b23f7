//! The network filters before a chain's terminal one, and the small terminal ones.

use std::sync::Arc;
use std::time::Duration;

use super::dynamic_forward_proxy::CacheSettings;
use super::listener::NetworkFilter;
use crate::network::connection_limit::OpenConnections;
use crate::network::filter_state::Factory;
use crate::network::token_bucket::TokenBucket;
use crate::rbac::Engine;
use crate::runtime_layer::Flag;
use crate::telemetry::access_log::format::Format;

/// A filter that lets a connection through to the next one, or ends it.
#[derive(Clone, Debug)]
pub enum ConnectionFilter {
    /// `connection_limit`
    ConnectionLimit(Arc<ConnectionLimit>),
    /// `local_ratelimit`
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `rbac`
    Rbac(Arc<Rbac>),
    /// `sni_dynamic_forward_proxy`: tcp_proxy connects to the server name.
    SniDynamicForwardProxy {
        /// `port_value`
        port: u16,
        /// `dns_cache_config`, which the cluster's is the same as.
        _cache: Arc<CacheSettings>,
    },
    /// `set_filter_state`
    SetFilterState(Arc<SetFilterState>),
    /// `sni_cluster`: the server name is the name of tcp_proxy's cluster.
    SniCluster,
}

/// A filter of a chain, before its place is known.
#[derive(Clone, Debug)]
pub enum ChainFilter {
    /// Others must follow.
    Passing(ConnectionFilter),
    /// It must be the last.
    Terminal(NetworkFilter),
}

/// `ConnectionLimit`: so many connections of its filter chain at once.
#[derive(Debug)]
pub struct ConnectionLimit {
    /// `stat_prefix`
    pub stat_prefix: Arc<str>,
    /// `max_connections`
    pub max_connections: u64,
    /// `delay`: how long one that is too many is held before it is closed.
    pub delay: Option<Duration>,
    /// `runtime_enabled`
    pub enabled: Option<Flag>,
    /// Those that are open, over all workers.
    pub open: Arc<OpenConnections>,
}

/// `LocalRateLimit`: so many new connections in a time.
#[derive(Debug)]
pub struct LocalRateLimit {
    /// `stat_prefix`
    pub stat_prefix: Arc<str>,
    /// `runtime_enabled`
    pub enabled: Option<Flag>,
    /// `token_bucket`, shared with the filters of the same `share_key`.
    pub bucket: Arc<TokenBucket>,
}

/// `RBAC`. What it looks at does not change while a connection lasts, so that `enforcement_type` makes
/// no difference.
#[derive(Debug)]
pub struct Rbac {
    /// `rules` or `matcher`; `None` lets all through.
    pub engine: Option<Engine>,
    /// `shadow_rules` or `shadow_matcher`: only told of.
    pub shadow_engine: Option<Engine>,
    /// What the statistics' names begin with.
    pub stat_prefix: Arc<str>,
    /// The same of those of the shadow rules.
    pub shadow_stat_prefix: Arc<str>,
    /// `shadow_rules_stat_prefix`: what metadata's keys begin with.
    pub shadow_metadata_prefix: Box<str>,
    /// `delay_deny`: how long a connection that is denied is held before it is closed.
    pub delay: Option<Duration>,
}

/// `set_filter_state.v3.Config`.
#[derive(Debug)]
pub struct SetFilterState {
    /// `on_new_connection`, then `on_downstream_tls_handshake`: filters run when the handshake is
    /// over.
    pub at_once: Vec<FilterStateValue>,
    /// `on_downstream_data`
    pub on_data: Vec<FilterStateValue>,
}

/// `FilterStateValue`.
#[derive(Debug)]
pub struct FilterStateValue {
    /// `object_key`
    pub key: Arc<str>,
    /// `factory_key`, or the factory of the key itself.
    pub factory: Factory,
    /// `format_string`
    pub format: Format,
    /// `skip_if_empty`
    pub skip_if_empty: bool,
}
