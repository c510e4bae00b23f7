//! `FilterChain` and `FilterChainMatch`.

use std::time::Duration;

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use prost::Message as _;

use super::context::Context;
use super::fields::{
    Together as _, Within as _, cidr, duration, each, enumeration, fingerprint, named, port,
    refuse, uint,
};
use super::transport_socket::DOWNSTREAM;
use super::{network, transport_socket};
use crate::config::error::{Problems, Result};
use crate::config::listener::{DownstreamTransport, FilterChain, FilterChainMatch, SourceType};

/// `transport_socket_connect_timeout` unless set.
const TRANSPORT_TIMEOUT: Duration = Duration::from_secs(15);

/// Builds a filter chain; one without a name gets `unnamed`, which is its index.
pub fn build(
    proto: &listener::FilterChain,
    unnamed: &str,
    context: &dyn Context,
) -> Result<FilterChain> {
    let (timeout, (filters, filter), matcher, transport) = (
        duration(
            &proto.transport_socket_connect_timeout,
            "transport_socket_connect_timeout",
        ),
        network::build(&proto.filters, context),
        match &proto.filter_chain_match {
            None => Ok(FilterChainMatch::default()),
            Some(proto) => matcher(proto).within("filter_chain_match"),
        },
        match &proto.transport_socket {
            None => Ok(DownstreamTransport::Plain),
            Some(socket) => {
                transport_socket::build(DOWNSTREAM, socket, context).within("transport_socket")
            }
        },
    )
        .together()?;
    Ok(FilterChain {
        name: match proto.name.as_str() {
            "" => unnamed.into(),
            name => name.into(),
        },
        matcher,
        transport,
        transport_timeout: match timeout {
            None => TRANSPORT_TIMEOUT,
            Some(Duration::ZERO) => Duration::MAX,
            Some(timeout) => timeout,
        },
        filters,
        filter,
        fingerprint: fingerprint_of(proto),
    })
}

/// Equal for chains that treat connections alike. Metadata is a map, of which nothing is read and
/// whose encoding has no order, so it is left out.
fn fingerprint_of(proto: &listener::FilterChain) -> u64 {
    let mut proto = proto.clone();
    proto.metadata = None;
    fingerprint(&proto.encode_to_vec())
}

fn matcher(proto: &listener::FilterChainMatch) -> Result<FilterChainMatch> {
    let mut problems = Problems::default();
    let source_type: ConnectionSourceType =
        problems.take(enumeration(proto.source_type, "source_type"));
    let destination_port =
        uint(&proto.destination_port).map(|value| port(value, false, "destination_port"));
    let built = FilterChainMatch {
        destination_port: problems.take(destination_port.transpose()),
        destinations: problems.take(each("prefix_ranges", &proto.prefix_ranges, cidr)),
        server_names: problems.take(each("server_names", &proto.server_names, |name| {
            server_name(name)
        })),
        transport_protocol: proto.transport_protocol.as_str().into(),
        application_protocols: problems.take(each(
            "application_protocols",
            &proto.application_protocols,
            |protocol| Ok(named(protocol, "")?.as_bytes().into()),
        )),
        direct_sources: problems.take(each(
            "direct_source_prefix_ranges",
            &proto.direct_source_prefix_ranges,
            cidr,
        )),
        source_type: match source_type {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        sources: problems.take(each(
            "source_prefix_ranges",
            &proto.source_prefix_ranges,
            cidr,
        )),
        source_ports: problems.take(each("source_ports", &proto.source_ports, |value| {
            port(*value, false, "")
        })),
    };
    problems.or(built)
}

/// In lower case, a wildcard without its star.
fn server_name(name: &str) -> Result<Box<str>> {
    let name = named(name, "")?.to_ascii_lowercase();
    let plain = match name.strip_prefix('*') {
        Some(rest) if rest.len() > 1 && rest.starts_with('.') => rest,
        _ => &name,
    };
    refuse(
        plain.contains('*'),
        "",
        format_args!("`{name}`: only a whole first label can be a *, as in *.example.com"),
    )?;
    Ok(plain.into())
}
