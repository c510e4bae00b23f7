//! `Listener` and its filter chains.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ipnet::IpNet;

use super::access_log::AccessLog;
use super::address::Address;
use super::cluster::TcpKeepalive;
use super::http_connection_manager::HttpConnectionManager;
use super::listener_filter::ListenerFilter;
use super::network::ConnectionFilter;
use super::socket_option::SocketOptions;
use super::tcp_proxy::TcpProxy;
use super::udp::UdpListener;
use crate::listener::filter_chain_match::FilterChainIndex;
use crate::runtime_layer::Number;
use crate::tls::server::ServerContext;

/// One validated listener.
#[derive(Debug)]
pub struct Listener {
    /// `name`; a listener without one gets its address.
    pub name: Arc<str>,
    /// `stat_prefix`, else the first address.
    pub stat_prefix: Arc<str>,
    /// `address` and `additional_addresses`.
    pub addresses: Vec<ListenAddress>,
    /// `bind_to_port` (true unless set).
    pub bind_to_port: bool,
    /// `use_original_dst`: hand over to the listener of the original destination.
    pub hand_over: bool,
    /// It listens for datagrams; then it has no filter chains.
    pub udp: Option<Box<UdpListener>>,
    /// `listener_filters`, in order; those of connections.
    pub filters: Vec<ListenerFilter>,
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
    /// `access_log`: a line for each connection when it ends.
    pub access_log: Vec<AccessLog>,
    /// `per_connection_buffer_limit_bytes`; `None` leaves it at what our buffers hold.
    pub buffer_limit: Option<u32>,
    /// `max_connections_to_accept_per_socket_event`: after so many the worker looks after those it
    /// has.
    pub accept_at_once: Option<u32>,
    /// The runtime's `envoy.resource_limits.listener.<name>.connection_limit`: so many at a time.
    pub connection_limit: Number,
    /// `ignore_global_conn_limit`
    pub ignores_global_limit: bool,
    /// `bypass_overload_manager`: what the overload manager does leaves its connections and their
    /// requests alone.
    pub bypasses_overload: bool,
    /// `drain_type` is not MODIFY_ONLY: its connections end while health checks are told to fail.
    pub drains_when_unhealthy: bool,
    /// Fingerprint of the proto: an equal resource is a no-op.
    pub fingerprint: u64,
}

impl Listener {
    /// Keeps the chains of the version before that did not change: what they count and limit goes
    /// on.
    pub fn keep_chains(&mut self, previous: &Listener) {
        let all = || {
            let chains = previous.filter_chains.iter();
            chains.chain(&previous.default_filter_chain)
        };
        let kept = |chain: &Arc<FilterChain>| {
            let same = |before: &&Arc<FilterChain>| {
                before.fingerprint == chain.fingerprint && before.name == chain.name
            };
            all().find(same).unwrap_or(chain).clone()
        };
        let chains: Vec<_> = self.filter_chains.iter().map(kept).collect();
        let default = self.default_filter_chain.as_ref().map(kept);
        // They match what those that they replace match, so nothing conflicts.
        if let Ok(index) = FilterChainIndex::new(&chains, default.clone()) {
            self.chains = index;
            self.filter_chains = chains;
            self.default_filter_chain = default;
        }
    }
}

/// One address of a listener, with all that its sockets are made with. A listener keeps its sockets
/// as long as these are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub address: Address,
    /// A Unix socket's `mode`; `None` leaves what the umask gives.
    pub mode: Option<u32>,
    /// `ipv4_compat`: an IPv6 socket that takes IPv4 connections too.
    pub ipv4_compat: bool,
    /// `tcp_backlog_size`: 128 unless set in Envoy; ours is the system's maximum unless set.
    pub backlog: Option<u32>,
    /// `tcp_fast_open_queue_length`
    pub fast_open: Option<u32>,
    /// `transparent`
    pub transparent: Option<bool>,
    /// `freebind`
    pub freebind: Option<bool>,
    /// `enable_mptcp`
    pub multipath: bool,
    /// `enable_reuse_port`: each worker has a socket of its own; else they share one.
    pub reuse_port: bool,
    /// `exact_balance`: a new connection goes to the worker that has fewest.
    pub exact_balance: bool,
    /// `tcp_keepalive`
    pub keepalive: Option<TcpKeepalive>,
    /// `socket_options`
    pub options: SocketOptions,
    /// Outbound: the client is the application beside us.
    pub same_host: bool,
    /// `protocol` is UDP.
    pub udp: bool,
}

impl ListenAddress {
    /// An address with the settings of a listener that sets none.
    pub fn new(address: Address) -> Self {
        ListenAddress {
            reuse_port: address.socket().is_some(),
            address,
            mode: None,
            ipv4_compat: false,
            backlog: None,
            fast_open: None,
            transparent: None,
            freebind: None,
            multipath: false,
            exact_balance: false,
            keepalive: None,
            options: SocketOptions::default(),
            same_host: false,
            udp: false,
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

impl FilterChain {
    /// What a connection has that no chain takes.
    pub fn none() -> Arc<FilterChain> {
        static NONE: LazyLock<Arc<FilterChain>> = LazyLock::new(|| {
            Arc::new(FilterChain {
                name: "".into(),
                matcher: FilterChainMatch::default(),
                transport: DownstreamTransport::Plain,
                transport_timeout: Duration::ZERO,
                filters: Box::default(),
                filter: NetworkFilter::DirectResponse(Arc::default()),
                fingerprint: 0,
            })
        });
        NONE.clone()
    }
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
