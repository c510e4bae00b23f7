//! Where a redirected connection was going.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::TcpStream;

/// The destination before netfilter's REDIRECT (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`); `None`
/// where the connection was not redirected.
///
/// The level of the option follows the family of the peer: on a socket for both families an IPv4
/// client has a mapped address, and only the IPv4 option knows its connection.
pub fn original_destination(tcp: &TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
    if peer.ip().to_canonical().is_ipv4() {
        let raw = getsockopt(tcp, sockopt::OriginalDst).ok()?;
        let ip = u32::from_be(raw.sin_addr.s_addr).into();
        Some(SocketAddrV4::new(ip, u16::from_be(raw.sin_port)).into())
    } else {
        let raw = getsockopt(tcp, sockopt::Ip6tOriginalDst).ok()?;
        let port = u16::from_be(raw.sin6_port);
        Some(SocketAddrV6::new(raw.sin6_addr.s6_addr.into(), port, 0, raw.sin6_scope_id).into())
    }
}
