//! Addresses, as Envoy's API writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, BindConfig, ExtraSourceAddress, SocketAddress,
};
use envoy_types::pb::envoy::config::listener::v3::AdditionalAddress;

use crate::registry::kinds::IpFamily;

/// The address that the proxy dials its own workload from: the redirects let it pass, where another
/// would bring the connection back in.
const INBOUND_SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const INBOUND_SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

pub(super) fn address(address: SocketAddr) -> Address {
    Address {
        address: Some(Kind::SocketAddress(socket_address(
            address.ip(),
            address.port(),
        ))),
    }
}

fn socket_address(ip: IpAddr, port: u16) -> SocketAddress {
    SocketAddress {
        address: ip.to_string(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    }
}

/// The address of a virtual listener, and the one of the other family where the workload has both.
pub(super) fn any_address(
    port: u16,
    families: &[IpFamily],
) -> (Option<Address>, Vec<AdditionalAddress>) {
    let any = |family: &IpFamily| match family {
        IpFamily::IPv4 => address((Ipv4Addr::UNSPECIFIED, port).into()),
        IpFamily::IPv6 => address((Ipv6Addr::UNSPECIFIED, port).into()),
    };
    let mut addresses = families.iter().map(any);
    let first = addresses.next().unwrap_or_else(|| any(&IpFamily::IPv4));
    let additional = |address| AdditionalAddress {
        address: Some(address),
        ..AdditionalAddress::default()
    };
    (Some(first), addresses.map(additional).collect())
}

/// The source to dial the workload from, in each of its families.
pub(super) fn inbound_source(families: &[IpFamily]) -> BindConfig {
    let source = |family: &IpFamily| match family {
        IpFamily::IPv4 => socket_address(INBOUND_SOURCE_V4, 0),
        IpFamily::IPv6 => socket_address(INBOUND_SOURCE_V6, 0),
    };
    let mut sources = families.iter().map(source);
    let first = sources.next().unwrap_or_else(|| source(&IpFamily::IPv4));
    let extra = |address| ExtraSourceAddress {
        address: Some(address),
        ..ExtraSourceAddress::default()
    };
    BindConfig {
        source_address: Some(first),
        extra_source_addresses: sources.map(extra).collect(),
        ..BindConfig::default()
    }
}
