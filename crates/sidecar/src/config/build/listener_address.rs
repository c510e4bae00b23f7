//! The addresses of a listener, and what its sockets are made with.

use std::path::PathBuf;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::address::Address as ProtoAddress;
use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::listener::connection_balance_config::BalanceType;

use super::fields::{
    Within as _, each, flag, keepalive, listener_socket_address, named, none_of, refuse, uint,
};
use super::{socket_option, udp};
use crate::config::address::Address;
use crate::config::error::{ConfigError, Problems, Result};
use crate::config::listener::{ListenAddress, TrafficDirection};

/// Builds `address` and `additional_addresses`.
///
/// # Errors
/// The fields that are invalid.
pub fn build(
    proto: &listener::Listener,
    direction: TrafficDirection,
) -> Result<Vec<ListenAddress>> {
    let mut problems = Problems::default();
    let common = ListenAddress {
        backlog: uint(&proto.tcp_backlog_size),
        fast_open: uint(&proto.tcp_fast_open_queue_length),
        transparent: flag(&proto.transparent),
        freebind: flag(&proto.freebind),
        multipath: proto.enable_mptcp,
        udp: udp::is_udp(&proto.address),
        reuse_port: flag(&proto.enable_reuse_port).unwrap_or(true),
        exact_balance: problems.take(exact_balance(proto)),
        keepalive: problems.take(keepalive_of(&proto.tcp_keepalive)),
        options: problems.take(socket_option::build(
            &proto.socket_options,
            "socket_options",
        )),
        same_host: direction == TrafficDirection::Outbound,
        ..ListenAddress::new(Address::Pipe(PathBuf::new()))
    };
    let first = address(&proto.address, common.clone()).within("address");
    let mut all = problems.take(first.map(|first| vec![first]));
    all.extend(problems.take(each(
        "additional_addresses",
        &proto.additional_addresses,
        |additional| {
            refuse(
                udp::is_udp(&additional.address) != common.udp,
                "address.socket_address.protocol",
                "must be that of `address`: a listener is either of connections or of datagrams",
            )?;
            let mut common = common.clone();
            if let Some(own) = &additional.socket_options {
                let options = socket_option::build(&own.socket_options, "socket_options");
                common.options = options.within("socket_options")?;
            }
            if additional.tcp_keepalive.is_some() {
                common.keepalive = keepalive_of(&additional.tcp_keepalive)?;
            }
            address(&additional.address, common).within("address")
        },
    )));
    problems.or(all)
}

fn keepalive_of(
    proto: &Option<core::TcpKeepalive>,
) -> Result<Option<crate::config::cluster::TcpKeepalive>> {
    let built = proto.as_ref().map(keepalive).transpose();
    built.within("tcp_keepalive")
}

fn exact_balance(proto: &listener::Listener) -> Result<bool> {
    let balance = proto.connection_balance_config.as_ref();
    match balance.map(|balance| &balance.balance_type) {
        None => Ok(false),
        Some(Some(BalanceType::ExactBalance(_))) => Ok(true),
        Some(_) => Err(ConfigError::new(
            "connection_balance_config.exact_balance",
            "must be set: other ways of balancing are not supported",
        )),
    }
}

fn address(proto: &Option<core::Address>, common: ListenAddress) -> Result<ListenAddress> {
    match proto.as_ref().and_then(|address| address.address.as_ref()) {
        Some(ProtoAddress::SocketAddress(socket)) => {
            let address = listener_socket_address(socket).within("socket_address")?;
            refuse(
                socket.ipv4_compat && address.is_ipv4(),
                "socket_address.ipv4_compat",
                "is for IPv6 addresses",
            )?;
            Ok(ListenAddress {
                address: Address::Socket(address),
                ipv4_compat: socket.ipv4_compat,
                ..common
            })
        }
        Some(ProtoAddress::Pipe(pipe)) => {
            let path = named(&pipe.path, "path").within("pipe")?;
            refuse(
                path.starts_with('@') && pipe.mode != 0,
                "pipe.mode",
                "is not for abstract sockets, which are no files",
            )?;
            refuse(
                pipe.mode > 0o777,
                "pipe.mode",
                "must be at most 511, which is 0777",
            )?;
            refuse(common.multipath, "pipe", "enable_mptcp is for IP addresses")?;
            Ok(ListenAddress {
                address: Address::Pipe(PathBuf::from(path)),
                mode: (pipe.mode != 0).then_some(pipe.mode),
                // There is no SO_REUSEPORT for Unix sockets.
                reuse_port: false,
                ..common
            })
        }
        Some(ProtoAddress::EnvoyInternalAddress(_)) => Err(ConfigError::new(
            "envoy_internal_address",
            "connections are not handed from a cluster to a listener of the same process: use an \
             address of the loopback interface, or a pipe",
        )),
        None => Err(none_of::<core::Address>("socket_address")),
    }
}
