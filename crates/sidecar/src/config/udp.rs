//! Listeners of datagrams, and `udp_proxy`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::access_log::AccessLog;
use crate::listener::filter_chain_match::MatchInput;
use crate::matching::{ConnectionInputs, Tree};

/// A listener whose address has the protocol UDP.
#[derive(Debug)]
pub struct UdpListener {
    /// `udp_listener_config.downstream_socket_config.max_rx_datagram_size`: 1500 bytes unless set;
    /// longer datagrams are dropped.
    pub largest: usize,
    /// Its one filter.
    pub proxy: UdpProxy,
}

/// `envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig`.
#[derive(Debug)]
pub struct UdpProxy {
    /// `stat_prefix`
    pub stat_prefix: Arc<str>,
    /// `cluster` or `matcher`
    pub route: UdpRoute,
    /// `idle_timeout`: one minute unless set.
    pub idle_timeout: Duration,
    /// `use_original_src_ip`: endpoints see the client's address, with another port.
    pub original_source: bool,
    /// `use_per_packet_load_balancing`: each datagram may go to another endpoint.
    pub per_packet: bool,
    /// `upstream_socket_config`: the longest datagram that is taken from an endpoint.
    pub largest_from_endpoint: usize,
    /// `access_log`: a line for each session when it ends.
    pub access_log: Vec<AccessLog>,
    /// `proxy_access_log`: a line for each worker when the filter ends.
    pub proxy_access_log: Vec<AccessLog>,
}

/// Where the datagrams of a client go.
#[derive(Debug)]
pub enum UdpRoute {
    /// `cluster`
    Cluster(Arc<str>),
    /// `matcher`
    Matcher(Tree<Arc<str>>),
}

impl UdpRoute {
    /// The cluster for datagrams between these addresses, if any.
    pub fn cluster(&self, local: SocketAddr, peer: SocketAddr) -> Option<&Arc<str>> {
        match self {
            UdpRoute::Cluster(name) => Some(name),
            UdpRoute::Matcher(tree) => tree.find(&ConnectionInputs(&MatchInput {
                destination: Some(local),
                server_name: None,
                transport_protocol: "",
                application_protocols: &[] as &[&[u8]],
                direct_source: Some(peer),
                source: Some(peer),
            })),
        }
    }
}
