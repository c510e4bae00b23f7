//! Sockets that both families can reach.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// A port that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the port {port} of the pod: {source}")]
pub struct SocketError {
    /// Which.
    port: u16,
    /// Why.
    source: io::Error,
}

/// Listens on a port of all addresses, of IPv4 alone where there is no IPv6.
///
/// # Errors
/// The port is taken.
pub fn bind(port: u16) -> Result<TcpListener, SocketError> {
    let both = listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let listener = both.or_else(|error| match error.kind() {
        io::ErrorKind::AddrInUse => Err(error),
        _ => listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))),
    });
    listener.map_err(|source| SocketError { port, source })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of the process before us may still be closing.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
