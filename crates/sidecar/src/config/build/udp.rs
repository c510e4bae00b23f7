//! Listeners of datagrams, and `UdpProxyConfig`.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::listener_filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::udp::udp_proxy::v3 as proto;
use envoy_types::pb::envoy::extensions::filters::udp::udp_proxy::v3::udp_proxy_config::RouteSpecifier;
use envoy_types::pb::google::protobuf::{Any, UInt64Value};

use super::extension::{Build, Extension, decode, resolve};
use super::fields::{Together as _, Within as _, duration, flag, named, refuse, required};
use super::{access_log, matching};
use crate::config::error::{ConfigError, Result};
use crate::config::udp::{UdpListener, UdpProxy, UdpRoute};

/// `idle_timeout` unless set.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// `max_rx_datagram_size` unless set: what fits a frame of Ethernet.
const LARGEST: usize = 1500;

/// The longest that there are.
const LARGEST_OF_ALL: u64 = 65_535;

/// As many datagrams may come as one where the system gathers them (`prefer_gro`), so that Envoy
/// takes a single one of that length too.
const GATHERED: usize = 24;

const UDP_FILTERS: &[Extension<Build<UdpProxy>>] = &[Extension {
    type_name: "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
    build: |bytes| proxy(&decode(bytes)?),
}];

/// Whether the listener's address has the protocol UDP.
pub fn is_udp(address: &Option<core::Address>) -> bool {
    use core::address::Address;
    let address = address.as_ref().and_then(|proto| proto.address.as_ref());
    matches!(address, Some(Address::SocketAddress(socket))
        if socket.protocol == core::socket_address::Protocol::Udp as i32)
}

/// Builds what is particular to a listener of datagrams; `None` for any other.
///
/// # Errors
/// The fields that are invalid, or that only listeners of the other kind have.
pub fn build(proto: &listener::Listener) -> Result<Option<UdpListener>> {
    if !is_udp(&proto.address) {
        refuse(
            proto.udp_listener_config.is_some(),
            "udp_listener_config",
            "is for a listener whose address has the protocol UDP",
        )?;
        return Ok(None);
    }
    let others = |which| format!("{which}: a listener of datagrams has no connections");
    let (proxy, largest, ..) = (
        filter(&proto.listener_filters),
        largest(proto).within("udp_listener_config.downstream_socket_config"),
        refuse(
            !proto.filter_chains.is_empty(),
            "filter_chains",
            others("must be empty"),
        ),
        refuse(
            proto.default_filter_chain.is_some(),
            "default_filter_chain",
            others("must not be set"),
        ),
        refuse(
            proto.enable_mptcp,
            "enable_mptcp",
            "is for listeners of TCP",
        ),
    )
        .together()?;
    Ok(Some(UdpListener { largest, proxy }))
}

fn largest(proto: &listener::Listener) -> Result<usize> {
    let config = proto.udp_listener_config.as_ref();
    let socket = config.and_then(|config| config.downstream_socket_config.as_ref());
    size(socket.and_then(|socket| socket.max_rx_datagram_size.as_ref()))
}

fn size(proto: Option<&UInt64Value>) -> Result<usize> {
    match proto {
        None => Ok(LARGEST),
        Some(size) if (1..=LARGEST_OF_ALL).contains(&size.value) => Ok(size.value as usize),
        Some(_) => Err(ConfigError::new(
            "max_rx_datagram_size",
            format_args!("must be between 1 and {LARGEST_OF_ALL}"),
        )),
    }
}

fn filter(filters: &[listener::ListenerFilter]) -> Result<UdpProxy> {
    let [filter] = filters else {
        return Err(ConfigError::new(
            "listener_filters",
            "must hold one filter, udp_proxy: the address has the protocol UDP",
        ));
    };
    let one = || {
        refuse(
            filter.filter_disabled.is_some(),
            "filter_disabled",
            "is for filters of connections: without udp_proxy nothing takes the datagrams",
        )?;
        match required(&filter.config_type, "typed_config")? {
            ConfigType::TypedConfig(any) => resolve(UDP_FILTERS, "filter of a UDP listener", any)
                .and_then(|extension| (extension.build)(&any.value).within("typed_config")),
            ConfigType::ConfigDiscovery(_) => Err(ConfigError::new(
                "config_discovery",
                "extension discovery (ECDS) is not supported: give the filter in typed_config",
            )),
        }
    };
    one().within("listener_filters[0]")
}

fn proxy(proto: &proto::UdpProxyConfig) -> Result<UdpProxy> {
    let (prefix, route, idle, largest, session_log, proxy_log) = (
        named(&proto.stat_prefix, "stat_prefix"),
        route(proto),
        duration(&proto.idle_timeout, "idle_timeout"),
        from_endpoint(proto.upstream_socket_config.as_ref()).within("upstream_socket_config"),
        access_log::build(&proto.access_log),
        access_log::build(&proto.proxy_access_log).within("proxy_access_log"),
    )
        .together()?;
    Ok(UdpProxy {
        stat_prefix: prefix.into(),
        route,
        idle_timeout: idle.unwrap_or(IDLE_TIMEOUT),
        original_source: proto.use_original_src_ip,
        per_packet: proto.use_per_packet_load_balancing,
        largest_from_endpoint: largest,
        access_log: session_log,
        proxy_access_log: proxy_log,
    })
}

/// Unless it is told otherwise, the system may gather datagrams of endpoints.
fn from_endpoint(proto: Option<&core::UdpSocketConfig>) -> Result<usize> {
    let largest = size(proto.and_then(|proto| proto.max_rx_datagram_size.as_ref()))?;
    let gathered = proto.and_then(|proto| flag(&proto.prefer_gro)) != Some(false);
    Ok(match gathered {
        true => (largest * GATHERED).min(LARGEST_OF_ALL as usize),
        false => largest,
    })
}

fn route(proto: &proto::UdpProxyConfig) -> Result<UdpRoute> {
    const ROUTE: &[Extension<Build<Arc<str>>>] = &[Extension {
        type_name: "envoy.extensions.filters.udp.udp_proxy.v3.Route",
        build: |bytes| {
            let route = decode::<proto::Route>(bytes)?;
            named(&route.cluster, "cluster").map(Into::into)
        },
    }];
    match required(&proto.route_specifier, "cluster")? {
        RouteSpecifier::Cluster(name) => {
            named(name, "cluster").map(|n| UdpRoute::Cluster(n.into()))
        }
        RouteSpecifier::Matcher(matcher) => {
            let mut action = |any: &Any| {
                let extension = resolve(ROUTE, "action of udp_proxy's matcher", any)?;
                (extension.build)(&any.value)
            };
            matching::build(matcher, matching::DATAGRAM, &mut action)
                .map(UdpRoute::Matcher)
                .within("matcher")
        }
    }
}
