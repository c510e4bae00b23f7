//! `Listener` and its filter chains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::http_connection_manager::HttpConnectionManager;
use super::network::ConnectionFilter;
use super::tcp_proxy::TcpProxy;
use crate::listener::filter_chain_match::FilterChainIndex;
use crate::tls::server::ServerContext;

/// One validated listener.
#[derive(Debug)]
pub struct Listener {
    /// `name`; a listener without one gets its address.
    pub name: Arc<str>,
    /// `stat_prefix`, else the first address.
    pub stat_prefix: Arc<str>,
    /// `address` and `additional_addresses`.
    pub addresses: Vec<SocketAddr>,
    /// `bind_to_port` (true unless set).
    pub bind_to_port: bool,
    /// `use_original_dst`: hand over to the listener of the original destination.
    pub hand_over: bool,
    /// `listener_filters`: original_dst recovers the destination by SO_ORIGINAL_DST.
    pub original_dst: bool,
    /// tls_inspector
    pub tls_inspector: Inspector,
    /// http_inspector
    pub http_inspector: Inspector,
    /// `listener_filters_timeout`: 15 s unless set; `None` (a zero) waits for ever.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`
    pub continue_on_timeout: bool,
    /// `filter_chains`
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// `default_filter_chain`
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// Both of these, arranged for choosing one.
    pub chains: FilterChainIndex,
    /// `traffic_direction`
    pub direction: TrafficDirection,
    /// `tcp_backlog_size`: 128 unless set in Envoy; ours is the system's maximum unless set.
    pub backlog: Option<u32>,
    /// Fingerprint of the proto: an equal resource is a no-op.
    pub fingerprint: u64,
}

/// Whether an inspecting listener filter looks at a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Inspector {
    /// It is not configured.
    #[default]
    Absent,
    /// It is configured, but for connections that `filter_disabled` matches.
    Present {
        /// `filter_disabled`; unset matches nothing.
        disabled: Option<PortPredicate>,
    },
}

impl Inspector {
    /// Whether it looks at a connection to this destination port.
    pub fn looks_at(&self, destination_port: u16) -> bool {
        match self {
            Inspector::Absent => false,
            Inspector::Present { disabled } => disabled
                .as_ref()
                .is_none_or(|predicate| !predicate.matches(destination_port)),
        }
    }
}

/// `ListenerFilterChainMatchPredicate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortPredicate {
    /// `any_match`
    Any,
    /// `destination_port_range`: `[start, end)`
    Range(i32, i32),
    /// `not_match`
    Not(Box<PortPredicate>),
    /// `and_match`
    All(Vec<PortPredicate>),
    /// `or_match`
    Either(Vec<PortPredicate>),
}

impl PortPredicate {
    /// Whether it holds for a destination port.
    pub fn matches(&self, port: u16) -> bool {
        match self {
            PortPredicate::Any => true,
            PortPredicate::Range(start, end) => (*start..*end).contains(&i32::from(port)),
            PortPredicate::Not(inner) => !inner.matches(port),
            PortPredicate::All(inner) => inner.iter().all(|predicate| predicate.matches(port)),
            PortPredicate::Either(inner) => inner.iter().any(|predicate| predicate.matches(port)),
        }
    }
}

/// `traffic_direction`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDirection {
    /// UNSPECIFIED
    Unspecified,
    /// INBOUND
    Inbound,
    /// OUTBOUND
    Outbound,
}

/// `FilterChain`.
#[derive(Debug)]
pub struct FilterChain {
    /// `name`, or its index.
    pub name: Arc<str>,
    /// `filter_chain_match`; the default chain's is never looked at.
    pub matcher: FilterChainMatch,
    /// `transport_socket`: TLS or plain.
    pub transport: DownstreamTransport,
    /// `transport_socket_connect_timeout`; 15 s unless set. A zero, which means no limit, is
    /// [`Duration::MAX`].
    pub transport_timeout: Duration,
    /// The filters before the terminal one, in order; mostly none.
    pub filters: Box<[ConnectionFilter]>,
    /// The terminal filter.
    pub filter: NetworkFilter,
    /// Fingerprint of the proto: an update keeps the connections of chains that did not change.
    pub fingerprint: u64,
}

/// How bytes come from clients.
#[derive(Clone, Debug)]
pub enum DownstreamTransport {
    /// No transport socket, or `raw_buffer`.
    Plain,
    /// `DownstreamTlsContext`
    Tls(Arc<ServerContext>),
}

/// The terminal network filter of a chain.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    /// `tcp_proxy`
    TcpProxy(Arc<TcpProxy>),
    /// `http_connection_manager`
    Http(Arc<HttpConnectionManager>),
    /// `direct_response`: what everybody is told.
    DirectResponse(Arc<[u8]>),
    /// `echo`
    Echo,
}

/// `FilterChainMatch`: empty lists match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatch {
    /// `destination_port`
    pub destination_port: Option<u16>,
    /// `prefix_ranges`
    pub destinations: Vec<IpNet>,
    /// `server_names` in lower case; `*.example.com` as `.example.com`.
    pub server_names: Vec<Box<str>>,
    /// `transport_protocol`: `tls` or `raw_buffer`, or empty.
    pub transport_protocol: Box<str>,
    /// `application_protocols`
    pub application_protocols: Vec<Box<[u8]>>,
    /// `direct_source_prefix_ranges`
    pub direct_sources: Vec<IpNet>,
    /// `source_type`
    pub source_type: SourceType,
    /// `source_prefix_ranges`
    pub sources: Vec<IpNet>,
    /// `source_ports`
    pub source_ports: Vec<u16>,
}

/// `source_type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// ANY
    #[default]
    Any,
    /// SAME_IP_OR_LOOPBACK
    SameIpOrLoopback,
    /// EXTERNAL
    External,
}
