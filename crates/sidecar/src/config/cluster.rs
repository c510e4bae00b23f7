//! `Cluster`: how upstream endpoints are found, chosen and connected to.

use super::http_protocol::{Http1Settings, Http2Settings};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::dns::Dns;
use super::dynamic_forward_proxy::DnsCache;
use super::endpoint::LoadAssignment;
use super::listener_filter::PassThrough;
use super::socket_option::SocketOptions;
use crate::discovery::slot::Slot;
use crate::listener::proxy_protocol::Tlv;
use crate::runtime_layer::{Double, Fraction, Number};
use crate::tls::client::ClientContext;

/// One validated cluster.
#[derive(Debug)]
pub struct Cluster {
    /// `name`
    pub name: Arc<str>,
    /// `alt_stat_name`, else the name.
    pub stat_name: Arc<str>,
    /// Where its endpoints come from.
    pub discovery: ClusterDiscovery,
    /// How one is chosen.
    pub load_balancing: LoadBalancing,
    /// `common_lb_config.close_connections_on_host_set_change`
    pub close_on_change: bool,
    /// `connect_timeout`; Envoy's default is 5 s. TCP and TLS handshakes together.
    pub connect_timeout: Duration,
    /// Limits by priority.
    pub circuit_breakers: [Thresholds; 2],
    /// `circuit_breakers.per_host_thresholds`: connections to one endpoint, by priority, counted
    /// over both.
    pub max_connections_per_host: Option<[u32; 2]>,
    /// `connection_pool_per_downstream_connection`: clients do not share connections.
    pub pool_per_downstream: bool,
    /// `original_dst_lb_config` and `cleanup_interval`
    pub original_destination: OriginalDestination,
    /// `upstream_connection_options.happy_eyeballs_config`
    pub happy_eyeballs: HappyEyeballs,
    /// Which protocol requests take upstream.
    pub protocol: UpstreamProtocol,
    /// `http_protocol_options` of the upstream.
    pub http1: Http1Settings,
    /// `http2_protocol_options` of the upstream.
    pub http2: Http2Settings,
    /// `common_http_protocol_options.idle_timeout` of pooled connections (1 h unless set; `None` = never).
    pub idle_timeout: Option<Duration>,
    /// `max_requests_per_connection`
    pub max_requests_per_connection: Option<u32>,
    /// `max_connection_duration`
    pub max_connection_duration: Option<Duration>,
    /// The transport socket where no match applies.
    pub transport_socket: UpstreamTransport,
    /// `transport_socket_matches`, in order.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    /// `upstream_bind_config`: sources by family.
    pub bind: Option<BindConfig>,
    /// `upstream_connection_options.tcp_keepalive`
    pub keepalive: Option<TcpKeepalive>,
    /// Fingerprint of the proto: an equal resource is a no-op.
    pub fingerprint: u64,
}

/// `type` and what belongs to it.
#[derive(Debug)]
pub enum ClusterDiscovery {
    /// Endpoints that are listed.
    Assignment {
        /// The endpoints now.
        slot: Arc<Slot<LoadAssignment>>,
        /// Who fills the slot.
        source: AssignmentSource,
    },
    /// ORIGINAL_DST: the address that the downstream connection was going to.
    OriginalDestination,
    /// `envoy.clusters.aggregate`: the priorities of these clusters, one after the other.
    Aggregate(Box<[Arc<str>]>),
    /// `envoy.clusters.dynamic_forward_proxy`: the host that the client asks for.
    Names(Arc<DnsCache>),
}

/// Where listed endpoints come from.
#[derive(Clone, Debug)]
pub enum AssignmentSource {
    /// STATIC: the slot is filled from the start.
    Static,
    /// EDS: discovery fills it.
    Eds,
    /// STRICT_DNS and LOGICAL_DNS: lookups fill it.
    Dns(Arc<Dns>),
}

/// Everything by which an endpoint is chosen.
#[derive(Clone, Debug)]
pub struct LoadBalancing {
    /// `lb_policy`, or the first of `load_balancing_policy`.
    pub policy: LoadBalancer,
    /// Localities share the traffic by their weights: `locality_weighted_lb_config`.
    pub locality_weighted: bool,
    /// `common_lb_config.healthy_panic_threshold`, percent (50 unless set): where fewer endpoints
    /// are healthy, health is disregarded. 0 turns that off.
    pub panic_threshold: u8,
    /// `zone_aware_lb_config.fail_traffic_on_panic`: where fewer are healthy, none is used.
    pub fail_on_panic: bool,
    /// `slow_start_config`
    pub slow_start: Option<SlowStart>,
    /// `zone_aware_lb_config`; has an effect where there is a `local_cluster_name`, and localities
    /// are not weighted.
    pub zones: ZoneAware,
}

impl Default for LoadBalancing {
    fn default() -> Self {
        LoadBalancing {
            policy: LoadBalancer::RoundRobin,
            locality_weighted: false,
            panic_threshold: 50,
            fail_on_panic: false,
            slow_start: None,
            zones: ZoneAware::default(),
        }
    }
}

/// `SlowStartConfig`: a new endpoint gets little at first.
#[derive(Clone, Debug)]
pub struct SlowStart {
    /// `slow_start_window`: after so long it gets its whole share.
    pub window: Duration,
    /// `aggression`: how its share grows; 1 (linearly) unless set.
    pub aggression: Option<Double>,
    /// `min_weight_percent` as a part of 1; 0.1 unless set.
    pub least: f64,
}

/// `ZoneAwareLbConfig`; `None` of runtime values stands for Envoy's default.
#[derive(Clone, Debug, Default)]
pub struct ZoneAware {
    /// `routing_enabled` and `upstream.zone_routing.enabled`; all unless set.
    pub enabled: Option<Fraction>,
    /// `min_cluster_size` and `upstream.zone_routing.min_cluster_size`; 6 unless set.
    pub min_cluster_size: Option<Number>,
    /// `force_local_zone.min_size`
    pub force_local: Option<u32>,
    /// `locality_basis` is HEALTHY_HOSTS_WEIGHT.
    pub by_weight: bool,
}

/// Where this proxy is among those of its kind.
#[derive(Debug)]
pub struct LocalZone {
    /// `cluster_manager.local_cluster_name`
    pub cluster: Arc<str>,
    /// `region/zone/sub_zone` of `node.locality`.
    pub locality: Arc<str>,
    /// The endpoints of that cluster: the proxies of our kind.
    pub proxies: Arc<Slot<LoadAssignment>>,
}

/// `lb_policy`.
#[derive(Clone, Debug)]
pub enum LoadBalancer {
    /// Weighted round robin.
    RoundRobin,
    /// Any, whatever its weight.
    Random,
    /// The least busy of some.
    LeastRequest {
        /// `choice_count` random ones (2 unless set); `None`: of all (`FULL_SCAN`).
        choices: Option<u32>,
        /// `active_request_bias`: how much requests in flight count where weights differ; 1 unless
        /// set.
        bias: Option<Double>,
    },
    /// ORIGINAL_DST's: there is nothing to choose.
    Provided,
}

/// `RoutingPriority`: requests of one do not use up what the other may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// DEFAULT
    #[default]
    Default,
    /// HIGH
    High,
}

impl Priority {
    /// Both, in the order in which they are stored.
    pub const ALL: [Priority; 2] = [Priority::Default, Priority::High];
}

/// How an ORIGINAL_DST cluster finds the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalDestination {
    /// `http_header_name` in lower case, where `use_http_header` is set: a request's own choice.
    pub header: Option<Box<[u8]>>,
    /// `upstream_port_override`
    pub port: Option<u16>,
    /// `cleanup_interval`: an address that nobody uses is forgotten after so long.
    pub forget_after: Duration,
}

impl Default for OriginalDestination {
    fn default() -> Self {
        OriginalDestination {
            header: None,
            port: None,
            forget_after: Duration::from_secs(5),
        }
    }
}

/// `HappyEyeballsConfig`: in which order the addresses of one endpoint are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HappyEyeballs {
    /// `first_address_family_version`; `None`: that of the first address.
    pub v6_first: Option<bool>,
    /// `first_address_family_count`: so many of that family before one of the other.
    pub first_count: u32,
}

impl Default for HappyEyeballs {
    fn default() -> Self {
        HappyEyeballs {
            v6_first: None,
            first_count: 1,
        }
    }
}

/// `CircuitBreakers.Thresholds`, over all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// 1024 unless set, like the next two.
    pub max_connections: u32,
    /// Requests or connections that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests in flight.
    pub max_requests: u32,
    /// Retries in flight; 3 unless set.
    pub max_retries: u32,
    /// `retry_budget`, instead of `max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// `track_remaining`: what is left is shown as well.
    pub track_remaining: bool,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
            track_remaining: false,
        }
    }
}

/// `RetryBudget`: retries as a share of what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// `budget_percent`, in hundredths of a percent (2000 unless set).
    pub share: u32,
    /// `min_retry_concurrency`: so many at least (3 unless set).
    pub least: u32,
}

/// `HttpProtocolOptions.upstream_protocol_options`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 (also where nothing is configured)
    Http1,
    /// HTTP/2, with prior knowledge on plaintext
    Http2,
    /// `use_downstream_protocol_config`
    Downstream,
    /// `auto_config`: what ALPN agrees on; HTTP/1.1 without TLS
    Auto,
}

/// How bytes travel to an endpoint.
#[derive(Clone, Debug)]
pub enum UpstreamTransport {
    /// No transport socket, or `raw_buffer`.
    Plain,
    /// `UpstreamTlsContext`
    Tls(Arc<ClientContext>),
    /// `ProxyProtocolUpstreamTransport`: a header that names the client, and then one of the others.
    ProxyProtocol(Arc<ProxyProtocol>, Box<UpstreamTransport>),
}

impl UpstreamTransport {
    /// The TLS context, where there is one.
    pub fn tls(&self) -> Option<&Arc<ClientContext>> {
        match self {
            UpstreamTransport::Plain => None,
            UpstreamTransport::Tls(context) => Some(context),
            UpstreamTransport::ProxyProtocol(_, inner) => inner.tls(),
        }
    }

    /// What each connection begins with, where it does.
    pub fn proxy_protocol(&self) -> Option<&ProxyProtocol> {
        match self {
            UpstreamTransport::Plain | UpstreamTransport::Tls(_) => None,
            UpstreamTransport::ProxyProtocol(config, _) => Some(config),
        }
    }
}

/// `ProxyProtocolConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// `version`
    pub version: ProxyProtocolVersion,
    /// `added_tlvs`: their types and values.
    pub tlvs: Box<[Tlv]>,
    /// `pass_through_tlvs`: which of those that came with the client's connection follow.
    pub pass_through: PassThrough,
}

/// `ProxyProtocolConfig.Version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// A line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}

/// `Cluster.TransportSocketMatch`: used by endpoints whose metadata has all of `criteria`.
#[derive(Clone, Debug)]
pub struct TransportSocketMatch {
    /// Keys and values to be found in the endpoint's `envoy.transport_socket_match` metadata; empty
    /// matches every endpoint.
    pub criteria: BTreeMap<String, serde_json::Value>,
    /// What they use.
    pub transport: UpstreamTransport,
}

/// `BindConfig`: what a connection comes from, and what its socket is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindConfig {
    /// For IPv4 endpoints.
    pub v4: Option<Source>,
    /// For IPv6 endpoints.
    pub v6: Option<Source>,
    /// `freebind`: a source need not be an address of this machine.
    pub freebind: bool,
    /// `socket_options`; those of a source go before.
    pub options: SocketOptions,
}

/// `source_address` or `ExtraSourceAddress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `address`
    pub address: SocketAddr,
    /// `socket_options`, where the source has its own.
    pub options: Option<SocketOptions>,
}

impl From<SocketAddr> for Source {
    fn from(address: SocketAddr) -> Self {
        Source {
            address,
            options: None,
        }
    }
}

/// `TcpKeepalive`; `None` leaves the system's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Unanswered probes before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}
